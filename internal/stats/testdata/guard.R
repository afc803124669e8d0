# Writes guard.json: numbers from R for heterogeneity, covariate balance,
# quantiles and caps.
# Run with R 4.2 and metafor 3.8: Rscript guard.R > guard.json
# The call behind each number stands in the field "call".

suppressPackageStartupMessages(library(metafor))
source("judge.R")

number <- function(x) if (is.na(x) || is.infinite(x)) "null" else sprintf("%.17g", x)
row <- function(x) paste0("[", paste(vapply(x, number, ""), collapse = ","), "]")
field <- function(name, value) sprintf("\"%s\": %s", name, value)
text <- function(s) sprintf("\"%s\"", s)
object <- function(...) paste0("{", paste(c(...), collapse = ", "), "}")
list_of <- function(name, items, last = FALSE)
  cat(sprintf("\"%s\": [\n  %s\n]%s\n", name, paste(items, collapse = ",\n  "), if (last) "" else ","))

cat("{\n")
set.seed(20260105)

# Heterogeneity: Cochran's Q and I squared of a fixed-effects meta-analysis.
sets <- list(
  list(c(0.1, 0.3), c(0.05, 0.08)),
  list(c(0.1, 0.1, 0.1), c(0.05, 0.08, 0.01)),
  list(c(1.2, -0.4, 0.9, 0.1), c(0.2, 0.3, 0.5, 0.1)),
  list(rnorm(20), runif(20, 0.5, 2)),
  list(rnorm(200, 0, 1.2), rep(1, 200)),
  list(1e-9 * c(3, 5, 4.5), 1e-9 * c(1, 0.5, 0.7)),
  list(1e12 + c(3, 5, 4.5), c(1, 0.5, 0.75)),
  list(c(0, 30), c(1, 1)),
  list(c(0, 50, 1), c(1, 1, 1e3)),
  list(c(0.5, 0.501, 0.499), c(1e-4, 1e2, 1e-4)),
  list(c(-0.02, 0.01, 0.04, 0.02, 0), c(0.01, 0.012, 0.009, 0.03, 0.02)),
  list(c(5, 5.0001), c(1e-5, 1e-5)))
items <- c()
for (s in sets) {
  m <- rma(s[[1]], sei = s[[2]], method = "FE")
  items <- c(items, object(
    field("call", text("rma(yi, sei = sei, method = 'FE')")), field("estimates", row(s[[1]])), field("errors", row(s[[2]])),
    field("q", number(m$QE)), field("df", number(m$k - m$p)), field("p", number(pchisq(m$QE, m$k - m$p, lower.tail = FALSE))),
    field("inconsistency", number(m$I2 / 100))))
}
list_of("heterogeneity", items)

# Balance: Austin's standardised difference, and Welch's t test. NA is a
# subject that lacks the covariate.
draws <- list(
  normal = list(rnorm(40, 10, 2), rnorm(35, 9, 3)),
  binary = list(rbinom(80, 1, 0.4), rbinom(75, 1, 0.3)),
  skewed = list(rexp(50, 0.1), rexp(90, 0.12)),
  shifted = list(1e6 + rnorm(30), 1e6 + rnorm(25, 0.4)),
  tiny = list(1e-9 * rnorm(22, 3), 1e-9 * rnorm(21, 2)),
  negative = list(rnorm(16, -5), rnorm(17, -4)),
  one_constant = list(rep(2, 9), rnorm(14, 2.5)),
  two_each = list(c(1, 4), c(2, 9)),
  alike = list(c(1, 2, 3, 4), c(4, 3, 2, 1)),
  far_apart = list(rnorm(30, 50), rnorm(30, 0)),
  uneven = list(rnorm(300, 1), rnorm(7, 1.5)),
  counts = list(rpois(60, 4), rpois(45, 3)))
items <- c()
for (name in names(draws)) {
  x <- draws[[name]][[1]]; y <- draws[[name]][[2]]
  t <- t.test(x, y)
  items <- c(items, object(
    field("call", text("(mean(x) - mean(y)) / sqrt((var(x) + var(y)) / 2); t.test(x, y)")),
    field("name", text(name)), field("treatment", row(x)), field("control", row(y)),
    field("smd", number((mean(x) - mean(y)) / sqrt((var(x) + var(y)) / 2))), field("p", number(t$p.value))))
}
list_of("balance", items)

# The same with missing values: the standardised difference of those known.
items <- c()
for (k in 1:4) {
  x <- rnorm(40 + k, 5, k); y <- rnorm(50, 5.5, 2)
  x[sample(40, 3 * k)] <- NA; y[sample(50, 5)] <- NA
  items <- c(items, object(
    field("call", text("(mean(x) - mean(y)) / sqrt((var(x) + var(y)) / 2), na.rm = TRUE")),
    field("treatment", row(x)), field("control", row(y)),
    field("smd", number((mean(x, na.rm = TRUE) - mean(y, na.rm = TRUE)) / sqrt((var(x, na.rm = TRUE) + var(y, na.rm = TRUE)) / 2)))))
}
list_of("balance_missing", items)

# Quantiles of type 7.
items <- c()
for (x in list(c(3), c(1, 2), c(1, 2, 3, 4, 5), rnorm(99), rexp(100), rep(0, 50), c(rep(0, 99), 7), c(-5, -5, 1e12),
  runif(1000) * 1e-8, rpois(37, 2), c(0.1, 0.2, 0.3), rlnorm(501, 3, 2))) {
  p <- c(0.01, 0.05, 0.1, 0.25, 0.333, 0.5, 0.9, 0.95, 0.99, 0.999, 1e-9)
  items <- c(items, object(field("call", text("quantile(x, p, type = 7)")), field("x", row(x)), field("p", row(p)),
    field("quantiles", row(unname(quantile(x, p, type = 7))))))
}
list_of("quantiles", items)

# Caps at pooled percentiles, and the test of judge.R of what is left. "zeros" says
# whether zeros count among the percentiles.
items <- c()
for (k in 1:10) {
  zeros <- k %% 2 == 1
  x <- rlnorm(60 + k, 2, 1.5) * rbinom(60 + k, 1, 0.7); y <- rlnorm(75, 2.2, 1.5) * rbinom(75, 1, 0.6)
  probs <- list(c(NA, 0.99), c(0.05, 0.95), c(0.1, NA), c(0.333, 0.9), c(NA, 0.75))[[1 + k %% 5]]
  pool <- c(x, y); if (!zeros) pool <- pool[pool != 0]
  lower <- if (is.na(probs[1])) NA else quantile(pool, probs[1], type = 7)[[1]]
  upper <- if (is.na(probs[2])) NA else quantile(pool, probs[2], type = 7)[[1]]
  cap <- function(v) pmin(pmax(v, lower, na.rm = TRUE), upper, na.rm = TRUE)
  t <- judge(cap(x), cap(y))
  items <- c(items, object(
    field("call", text("pmin(pmax(v, lower), upper) at quantile(c(x, y), p, type = 7); judge(x, y)")),
    field("treatment", row(x)), field("control", row(y)), field("ignore_zeros", if (zeros) "false" else "true"),
    field("lower_percentile", number(100 * probs[1])), field("upper_percentile", number(100 * probs[2])),
    field("lower", number(lower)), field("upper", number(upper)),
    field("raised", number(sum(c(x, y) < lower, na.rm = TRUE))), field("lowered", number(sum(c(x, y) > upper, na.rm = TRUE))),
    field("estimate", number(t$estimate[[1]] - t$estimate[[2]])), field("se", number(t$stderr)), field("p", number(t$p.value))))
}
list_of("caps", items, last = TRUE)
cat("}\n")
