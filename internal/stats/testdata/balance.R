# Writes balance.json: balance of a covariate that some subjects lack, by R.
# Run with R 4.2: Rscript balance.R > balance.json
# The call behind each number stands in the field "call". Those that lack it count
# for nothing, as t.test leaves them out.

number <- function(x) sprintf("%.17g", x)
data <- function(x) paste0("[", paste(ifelse(is.na(x), "null", sprintf("%.10g", x)), collapse = ","), "]") # Rounded when drawn.
field <- function(name, value) sprintf("\"%s\": %s", name, value)
text <- function(s) sprintf("\"%s\"", s)

set.seed(20260112)
lose <- function(x, share) { x[runif(length(x)) < share] <- NA; x }
lose_high <- function(x, share) { x[rank(x) > (1 - share) * length(x)] <- NA; x }
draws <- list(
  alike = list(lose(rnorm(60, 5, 2), 0.2), lose(rnorm(60, 5, 2), 0.2)),
  uneven = list(lose(rnorm(25, 5, 2), 0.1), lose(rnorm(300, 4.5, 3), 0.4)),
  more_in_one_arm = list(lose(rnorm(90, 10), 0.6), lose(rnorm(80, 10.3), 0.05)),
  one_arm_complete = list(rgamma(40, 2), lose(rgamma(50, 2), 0.5)),
  high_ones = list(lose_high(rexp(70), 0.3), rexp(90)),
  mostly_lacking = list(lose(rnorm(400, 1), 0.95), lose(rnorm(300, 1.5), 0.95)),
  two_known = list(c(1, NA, NA, 4, NA, NA, NA), c(NA, 2, 9, NA, NA)),
  binary = list(lose(rbinom(120, 1, 0.4), 0.3), lose(rbinom(70, 1, 0.3), 0.2)),
  negative = list(lose(rnorm(36, -5), 0.25), lose(rnorm(47, -4.2), 0.25)),
  tiny = list(lose(1e-9 * rnorm(32, 3), 0.3), lose(1e-9 * rnorm(31, 2), 0.1)),
  huge = list(lose(1e12 * rnorm(32, 3), 0.3), lose(1e12 * rnorm(45, 2), 0.6)),
  far_apart = list(lose(rnorm(30, 30), 0.3), lose(rnorm(30, 5), 0.3)),
  shifted = list(lose(40 + rnorm(50), 0.4), lose(40.5 + rnorm(35), 0.2)),
  one_constant = list(lose(rep(2, 19), 0.5), lose(rnorm(24, 2.5), 0.3)),
  none_lacking = list(rnorm(20, 3), rnorm(30, 3.5)),
  counts = list(lose(rpois(150, 4), 0.01), lose(rpois(45, 3), 0.8)))
items <- c()
for (name in names(draws)) {
  x <- signif(draws[[name]][[1]], 6); y <- signif(draws[[name]][[2]], 6)
  t <- t.test(x, y)
  known <- function(x) x[!is.na(x)]
  items <- c(items, paste0("{", paste(c(
    field("call", text("x = x[!is.na(x)]; (mean(x) - mean(y)) / sqrt((var(x) + var(y)) / 2); t.test(x, y)")),
    field("name", text(name)), field("treatment", data(x)), field("control", data(y)),
    field("smd", number((mean(known(x)) - mean(known(y))) / sqrt((var(known(x)) + var(known(y))) / 2))),
    field("p", number(t$p.value))), collapse = ", "), "}"))
}
cat("[\n  ", paste(items, collapse = ",\n  "), "\n]\n", sep = "")
