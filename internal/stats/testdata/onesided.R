# Writes onesided.json: one-sided t-tests of a lift at a fixed horizon, by R.
# Run with R 4.2: Rscript onesided.R > onesided.json
# The call behind each number stands in the field "call".
#
# A lift is judged by Fieller's method, as judge.R has it.
source("judge.R")

number <- function(x) if (is.na(x) || is.infinite(x)) "null" else sprintf("%.17g", x)
row <- function(x) paste0("[", paste(vapply(x, number, ""), collapse = ","), "]")
field <- function(name, value) sprintf("\"%s\": %s", name, value)
text <- function(s) sprintf("\"%s\"", s)

set.seed(20260110)
draws <- list(
  normal = list(rnorm(20, 10.5, 2), rnorm(25, 10, 3)),
  few_and_many = list(rnorm(4, 5.5), rnorm(90, 5)),
  two_each = list(c(2.5, 2.75), c(1.5, 2.25)),
  binary = list(rbinom(160, 1, 0.3), rbinom(90, 1, 0.35)),
  rare = list(rep(c(1, 0), c(9, 391)), rep(c(1, 0), c(4, 596))),
  skewed = list(rexp(35, 0.1), rexp(70, 0.12)),
  counts = list(rpois(60, 4), rpois(45, 3)),
  negative = list(rnorm(26, -4.5), rnorm(17, -5)),
  negative_to_positive = list(rnorm(30, 1), rnorm(30, -2)),
  positive_to_negative = list(rnorm(12, -0.3), rnorm(31, 1.5)),
  large_values = list(1e5 + rnorm(15), 1e5 + rnorm(18, 0.7)),
  tiny_values = list(1e-9 * rnorm(22, 3), 1e-9 * rnorm(21, 2)),
  far_apart = list(rnorm(30, 50), rnorm(30, 5)),
  one_constant = list(rep(2, 9), rnorm(14, 2.5)))
margins <- list(c(0, -0.05), c(0, 0.1), c(0, -0.25), c(0, 0.02))
items <- c()
for (k in seq_along(draws)) for (side in c("greater", "less")) for (margin in margins[[1 + k %% 4]]) {
  x <- draws[[k]][[1]]; y <- draws[[k]][[2]]; level <- c(0.95, 0.9, 0.99)[1 + k %% 3]
  if (side == "less") margin <- -margin
  t <- lift(x, y, alternative = side, mu = margin, conf.level = level)
  items <- c(items, paste0("{", paste(c(
    field("name", text(names(draws)[k])),
    field("call", text(sprintf("lift(x, y, alternative = '%s', mu = %g, conf.level = %g)", side, margin, level))),
    field("alternative", if (side == "greater") "1" else "2"), field("level", number(level)), field("margin", number(margin)),
    field("treatment_data", row(x)), field("control_data", row(y)),
    field("estimate", number(t$estimate)), field("se", number(t$stderr)), field("df", number(t$parameter[[1]])),
    field("statistic", number(t$statistic[[1]])), field("p", number(t$p.value)),
    field("lower", number(t$conf.int[1])), field("upper", number(t$conf.int[2]))), collapse = ", "), "}"))
}
cat("[\n  ", paste(items, collapse = ",\n  "), "\n]\n", sep = "")
