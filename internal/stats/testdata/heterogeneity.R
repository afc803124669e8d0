# Writes heterogeneity.json: Welch's form of the test of heterogeneity.
# Run with R 4.2: Rscript heterogeneity.R > heterogeneity.json
# The call behind each number stands in the field "call". Where the effects are
# the means of groups, the p-value is oneway.test's; else its formula is written out
# from Welch (1951) with pf.

number <- function(x) sprintf("%.17g", x)
row <- function(x) paste0("[", paste(vapply(x, number, ""), collapse = ","), "]")
field <- function(name, value) sprintf("\"%s\": %s", name, value)
text <- function(s) sprintf("\"%s\"", s)
object <- function(...) paste0("{", paste(c(...), collapse = ", "), "}")

welch <- function(x, se, nu) {
  k <- length(x); w <- 1 / se^2
  q <- sum(w * (x - sum(w * x) / sum(w))^2)
  l <- sum((1 - w / sum(w))^2 / nu)
  df <- (k^2 - 1) / (3 * l)
  list(q = q, df = df, p = pf(q / (k - 1) / (1 + 2 * (k - 2) / (k^2 - 1) * l), k - 1, df, lower.tail = FALSE))
}

set.seed(20260105)
items <- c()
add <- function(call, x, se, nu, q, df, p) items <<- c(items, object(
  field("call", text(call)), field("estimates", row(x)), field("errors", row(se)), field("degrees", row(nu)),
  field("q", number(q)), field("denominator", number(df)), field("p", number(p))))

for (sizes in list(c(5, 7), c(5, 9, 30), rep(20, 20), c(5, 5, 5, 5), 5:40, c(1000, 20, 500))) {
  y <- rnorm(sum(sizes), rep(rnorm(length(sizes), 0, 0.3), sizes), rep(runif(length(sizes), 0.5, 2), sizes))
  g <- factor(rep(seq_along(sizes), sizes))
  t <- oneway.test(y ~ g, var.equal = FALSE)
  x <- tapply(y, g, mean); se <- sqrt(tapply(y, g, var) / sizes)
  add("oneway.test(y ~ g, var.equal = FALSE)", x, se, sizes - 1, welch(x, se, sizes - 1)$q, t$parameter[[2]], t$p.value)
}
for (s in list(
  list(c(0.1, 0.3), c(0.05, 0.08), c(38, 12.5)),
  list(c(1.2, -0.4, 0.9, 0.1), c(0.2, 0.3, 0.5, 0.1), c(40, 8.2, 4.1, 200)),
  list(c(0, 30), c(1, 1), c(9, 5)),
  list(c(0, 0, 0), c(1, 2, 3), c(9, 5, 7)),
  list(c(1, 1.5, 2.2), c(0.3, 0.4, 0.2), c(1e5, 3e5, 1e6)),
  list(c(1, 1.5, 2.2), c(0.3, 0.4, 0.2), c(1e6, 3e6, 2e6)),
  list(c(1, 1.5, 2.2, 1.1, 0.7), c(0.3, 0.4, 0.2, 0.5, 0.2), c(1e9, 3e9, 2e12, 4e9, 4e9)))) {
  t <- welch(s[[1]], s[[2]], s[[3]])
  add("pf(F, k - 1, df, lower.tail = FALSE)", s[[1]], s[[2]], s[[3]], t$q, t$df, t$p)
}
cat("[\n  ", paste(items, collapse = ",\n  "), "\n]\n", sep = "")
