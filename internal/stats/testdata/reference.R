# Writes reference-r.json: numbers from R for the tests of this package.
# Run with R 4.2: Rscript reference.R > reference-r.json
# The call behind each number stands in the field "call".

number <- function(x) if (is.na(x) || is.infinite(x)) "null" else sprintf("%.17g", x)
row <- function(x) paste0("[", paste(vapply(x, number, ""), collapse = ","), "]")
field <- function(name, value) sprintf("\"%s\": %s", name, value)
text <- function(s) sprintf("\"%s\"", s)
object <- function(...) paste0("{", paste(c(...), collapse = ", "), "}")
list_of <- function(name, items, last = FALSE)
  cat(sprintf("\"%s\": [\n  %s\n]%s\n", name, paste(items, collapse = ",\n  "), if (last) "" else ","))

source("judge.R")
test_fields <- function(t) c(
  field("estimate", number(t$estimate[[1]] - t$estimate[[2]])),
  field("treatment", number(t$estimate[[1]])), field("control", number(t$estimate[[2]])),
  field("se", number(t$stderr)), field("df", number(t$parameter[[1]])),
  field("statistic", number(t$statistic[[1]])), field("p", number(t$p.value)),
  field("lower", number(t$conf.int[1])), field("upper", number(t$conf.int[2])))

cat("{\n")
set.seed(20260105)

# Means: judge.R on the subjects themselves.
draws <- list(
  normal = list(rnorm(20, 10, 2), rnorm(25, 9, 3)),
  same_spread = list(rnorm(12), rnorm(12, 0.4)),
  two_each = list(c(1.5, 2.75), c(0.5, 4.25)),
  two_and_many = list(c(3, 5), rnorm(40, 3.5)),
  binary = list(rbinom(60, 1, 0.3), rbinom(50, 1, 0.2)),
  skewed = list(rexp(35, 0.1), rexp(70, 0.12)),
  counts = list(rpois(30, 4), rpois(45, 3)),
  far_apart = list(rnorm(30, 50), rnorm(30, 0)),
  large_values = list(1e5 + rnorm(15), 1e5 + rnorm(18, 0.7)),
  tiny_values = list(1e-9 * rnorm(22, 3), 1e-9 * rnorm(21, 2)),
  negative = list(rnorm(16, -5), rnorm(17, -4)),
  one_constant = list(rep(2, 9), rnorm(14, 2.5)))
settings <- list(
  list("two.sided", 0.95, 0), list("greater", 0.95, 0), list("less", 0.95, 0),
  list("two.sided", 0.99, 0.5), list("greater", 0.8, -0.25), list("less", 0.999, 0.125))
items <- c()
for (name in names(draws)) for (s in settings) {
  x <- draws[[name]][[1]]; y <- draws[[name]][[2]]
  if (name == "tiny_values") s[[3]] <- s[[3]] * 1e-9
  t <- judge(x, y, alternative = s[[1]], conf.level = s[[2]], mu = s[[3]])
  items <- c(items, object(
    field("name", text(name)),
    field("call", text(sprintf("judge(treatment, control, alternative = '%s', conf.level = %g, mu = %g)", s[[1]], s[[2]], s[[3]]))),
    field("alternative", text(s[[1]])), field("level", number(s[[2]])), field("mu", number(s[[3]])),
    field("treatment_data", row(x)), field("control_data", row(y)), test_fields(t)))
}
list_of("welch", items)

# CUPED: lm for theta and the estimate, judge.R of the residuals for the rest.
items <- c()
for (k in 1:12) {
  arms <- if (k %% 3 == 0) 3 else 2
  n <- sample(30:60, arms)
  arm <- rep(seq_len(arms) - 1, n)
  x1 <- rgamma(sum(n), 2, 0.1); x2 <- rnorm(sum(n), 5 * k)
  y <- 0.5 * k * x1 - (k %% 4) * x2 + 2 * (arm == 1) + rnorm(sum(n), 0, 10)
  two <- k > 6
  call <- if (two) "lm(y ~ factor(arm) + x1 + x2)" else "lm(y ~ factor(arm) + x1)"
  fit <- if (two) lm(y ~ factor(arm) + x1 + x2) else lm(y ~ factor(arm) + x1)
  theta <- coef(fit)[c("x1", if (two) "x2")]
  residual <- y - (x1 - mean(x1)) * theta[[1]] - (if (two) (x2 - mean(x2)) * theta[[2]] else 0)
  t <- judge(residual[arm == 1], residual[arm == 0])
  plain <- judge(y[arm == 1], y[arm == 0])
  stopifnot(abs(coef(fit)[["factor(arm)1"]] - (t$estimate[[1]] - t$estimate[[2]])) < 1e-9)
  items <- c(items, object(
    field("call", text(paste0(call, "; judge(residual[arm == 1], residual[arm == 0])"))),
    field("arm", row(arm)), field("y", row(y)), field("x1", row(x1)), field("x2", if (two) row(x2) else "null"),
    field("slope", number(coef(fit)[["factor(arm)1"]])), test_fields(t),
    field("reduction", number(1 - t$own / plain$own))))
}
list_of("cuped", items)

# Post-stratification: weighted means and variances by tapply, and the variance
# that the sizes of the strata add in a sample from a population.
items <- c()
for (k in 1:10) {
  s <- sample(0:(1 + k %% 3), 80, replace = TRUE)
  arm <- rbinom(80, 1, 0.3 + 0.15 * s)
  for (a in 0:1) for (g in unique(s)) { at <- which(s == g)[a * 2 + 1:2]; arm[at] <- a }
  y <- rnorm(80, 10 * s + arm, 1 + s)
  w <- table(s) / 80
  part <- function(a, f) tapply(y[arm == a], s[arm == a], f)
  m1 <- sum(w * part(1, mean)); m0 <- sum(w * part(0, mean))
  n1 <- part(1, length); n0 <- part(0, length)
  v <- c(w^2 * part(1, var) / n1, w^2 * part(0, var) / n0)
  pooled <- sum(w^2 * ((n1 - 1) * part(1, var) + (n0 - 1) * part(0, var)) / (n1 + n0 - 2) * (1 / n1 + 1 / n0))
  between <- sum(w * (part(1, mean) - part(0, mean) - (m1 - m0))^2) / 80
  all <- max(sum(v), pooled) + between
  v <- c(v, between)
  df <- sum(v)^2 / sum(v^2 / (c(n1, n0, 80) - 1))
  se <- sqrt(all); tt <- (m1 - m0) / se
  items <- c(items, object(
    field("call", text("sum(w * tapply(y, s, mean)), the larger of w^2 * tapply(y, s, var) / tapply(y, s, length) and w^2 * pooled var * (1/n1 + 1/n0), + sum(w * (m1s - m0s - (m1 - m0))^2) / 80, 2 * pt(-abs(t), df), qt(0.975, df)")),
    field("stratum", row(s)), field("arm", row(arm)), field("y", row(y)),
    field("treatment", number(m1)), field("control", number(m0)), field("estimate", number(m1 - m0)),
    field("se", number(se)), field("df", number(df)), field("statistic", number(tt)),
    field("p", number(2 * pt(-abs(tt), df))),
    field("lower", number(m1 - m0 - qt(0.975, df) * se)), field("upper", number(m1 - m0 + qt(0.975, df) * se))))
}
list_of("strata", items)

# Corrections.
sets <- list(c(0.01, 0.02, 0.03, 0.04), c(0.04, 0.001, 0.9, 0.04, 0.2), c(0.5), c(0.01, NA, 0.03),
  c(NA, NA), c(1, 1, 0.2), c(0, 0.05, 0.05), runif(10), runif(20)^4, c(0.8, NA, 0.0001, NA, 0.02, 0.02),
  c(1e-300, 1e-10, 0.3), c(0.051, 0.05, 0.049))
items <- c()
for (p in sets) items <- c(items, object(
  field("call", text("p.adjust(p, method)")), field("p", row(p)),
  field("holm", row(p.adjust(p, "holm"))), field("bonferroni", row(p.adjust(p, "bonferroni"))),
  field("bh", row(p.adjust(p, "BH")))))
list_of("corrections", items)

# Chi-square.
tests <- list(list(c(50, 50), c(1, 1)), list(c(821588, 815482), c(1, 1)), list(c(120, 80, 100), c(1, 1, 1)),
  list(c(1000, 998001), c(1, 999)), list(c(1050, 998950), c(1, 999)), list(c(3, 7), c(1, 1)),
  list(c(0, 12), c(1, 1)), list(c(10, 20, 30, 40), c(1, 2, 3, 4)), list(c(13, 20, 30, 40), c(1, 2, 3, 4)),
  list(c(500000500, 499999500), c(1, 1)), list(c(5000, 4000), c(0.5, 0.5)), list(c(30, 40, 50, 60, 70), c(0.1, 0.15, 0.2, 0.25, 0.3)),
  list(c(60000, 40000), c(1, 1)))
items <- c()
for (k in tests) {
  t <- suppressWarnings(chisq.test(k[[1]], p = k[[2]], rescale.p = TRUE))
  items <- c(items, object(
    field("call", text("chisq.test(observed, p = weights, rescale.p = TRUE)")),
    field("observed", row(k[[1]])), field("weights", row(k[[2]])), field("expected", row(t$expected)),
    field("statistic", number(t$statistic[[1]])), field("df", number(t$parameter[[1]])),
    field("p", number(pchisq(t$statistic[[1]], t$parameter[[1]], lower.tail = FALSE)))))
}
list_of("chisq", items, last = TRUE)
cat("}\n")
