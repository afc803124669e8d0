# Writes repeated.json: two-sided repeated confidence intervals and p-values, and
# those of a lift, by R with mvtnorm 1.1 and rpact 3.3.4.
# Run with R 4.2: Rscript repeated.R > repeated.json   (half a minute)
# The call behind each number stands in the field "call".
#
# The p-value is the error rate at which the statistic lies on the boundary of the
# present look. Up to three looks a boundary is where the chance of crossing there and
# not before, by mvtnorm's TVPACK, is what is spent there; TVPACK takes one bound a
# look, so that a region between two bounds is a difference of two. With more looks
# the boundaries are rpact's, whose alpha is that of both sides. A statistic of
# Student's t has the normal one's tail. Alternatives are those of package stats: 0
# two-sided, 1 greater, 2 less.

suppressMessages(library(rpact))
suppressMessages(library(mvtnorm))
setLogLevel("DISABLED")

number <- function(x) if (is.na(x) || is.infinite(x)) "null" else sprintf("%.17g", x)
row <- function(x) paste0("[", paste(vapply(x, number, ""), collapse = ", "), "]")
field <- function(name, value) sprintf("\"%s\": %s", name, value)
text <- function(s) sprintf("\"%s\"", s)
object <- function(...) paste0("{", paste(c(...), collapse = ", "), "}")
list_of <- function(name, items, last = FALSE)
  cat(sprintf("\"%s\": [\n  %s\n]%s\n", name, paste(items, collapse = ",\n  "), if (last) "" else ","))
spendings <- c(asOF = "1", asP = "2")

# What one side spends.
spent <- function(type, rate, t) {
  t <- pmin(t, 1)
  if (type == "asOF") 2 * pnorm(qnorm(rate / 2, lower.tail = FALSE) / sqrt(t), lower.tail = FALSE)
  else rate * log(1 + (exp(1) - 1) * t)
}
# The chance of lying within the bounds b of the looks before, and above c then.
beyond <- function(times, b, c, sided) {
  k <- length(b) + 1; t <- times[1:k]
  if (k == 1) return(pnorm(c, lower.tail = FALSE))
  corr <- outer(t, t, function(x, y) sqrt(pmin(x, y) / pmax(x, y)))
  corr[k, -k] <- -corr[k, -k]; corr[-k, k] <- -corr[-k, k]
  signs <- if (sided == 1) matrix(1, 1, k - 1) else as.matrix(expand.grid(rep(list(c(1, -1)), k - 1)))
  sum(apply(signs, 1, function(s) prod(s) * pmvnorm(upper = c(s * b, -c), corr = corr, algorithm = TVPACK(1e-14))[[1]]))
}
bounds <- function(type, times, rate, sided, count) {
  chance <- diff(c(0, spent(type, rate, times))); b <- c()
  for (j in seq_len(count)) {
    off <- function(c) log(max(beyond(times, b, c, sided), 1e-300)) - log(chance[j])
    b <- c(b, if (j == 1) qnorm(chance[1], lower.tail = FALSE) else if (chance[j] < 1e-18) 9 else uniroot(off, c(-2, 9), tol = 1e-13)$root)
  }
  b
}
planned <- function(times) if (max(times) == 1) times else c(times, 1)
rpact_boundary <- function(type, times, alpha, sided) getDesignGroupSequential(kMax = length(planned(times)), informationRates = planned(times),
  alpha = alpha, sided = sided, typeOfDesign = type, tolerance = 1e-10)$criticalValues[length(times)]

boundary <- function(type, times, alpha, sided)
  if (length(times) <= 3) tail(bounds(type, times, alpha / sided, sided, length(times)), 1) else rpact_boundary(type, times, alpha, sided)
p_value <- function(type, times, z, sided) {
  k <- length(times)
  off <- function(u) {
    alpha <- exp(u)
    if (k > 3) return(min(30, rpact_boundary(type, times, alpha, sided)) - z)
    chance <- diff(c(0, spent(type, alpha / sided, times)))[k]
    log(chance) - log(beyond(times, bounds(type, times, alpha / sided, sided, k - 1), z, sided))
  }
  ends <- log(c(if (k > 3) 1e-5 else sided / 2 * pnorm(z, lower.tail = FALSE), 0.499))
  if (k > 3 && off(ends[2]) > 0 || k <= 3 && off(ends[2]) < 0) return(1) # Above a half there is none.
  exp(uniroot(off, ends, tol = 1e-13)$root)
}
# Interval and p-value of an estimate with a standard error and its degrees of freedom.
judge <- function(type, times, level, alternative, estimate, se, df, null) {
  sided <- if (alternative == 0) 2 else 1
  critical <- qt(pnorm(boundary(type, times, 1 - level, sided), lower.tail = FALSE), df, lower.tail = FALSE)
  statistic <- (estimate - null) / se
  z <- qnorm(pt(switch(alternative + 1, abs(statistic), statistic, -statistic), df, lower.tail = FALSE), lower.tail = FALSE)
  c(field("spending", spendings[[type]]), field("times", row(times)), field("level", number(level)), field("alternative", number(alternative)),
    field("estimate", number(estimate)), field("se", number(se)), field("degrees", number(df)), field("null", number(null)),
    field("statistic", number(statistic)), field("boundary", number(critical)),
    field("lower", if (alternative == 2) "null" else number(estimate - critical * se)),
    field("upper", if (alternative == 1) "null" else number(estimate + critical * se)),
    field("p", number(p_value(type, times, z, sided))))
}
called <- function(times) text(if (length(times) <= 3)
  "uniroot(log(spent) - log(pmvnorm(upper, corr, algorithm = TVPACK(1e-14)))) for the boundaries, and over alpha for p; qt(pnorm(boundary), df)" else
  "getDesignGroupSequential(kMax, informationRates, alpha, sided, typeOfDesign)$criticalValues; uniroot over alpha for p; qt(pnorm(boundary), df)")

cat("{\n")
cases <- list(
  list(1, 0.95, 2.3, Inf), list(0.5, 0.95, 2.2, Inf), list(c(0.5, 1), 0.95, 2.1, Inf), list(c(0.2, 0.6, 1), 0.95, -2.5, Inf),
  list(c(0.3, 0.7), 0.99, 3.1, 40), list(c(0.4, 0.8, 1), 0.9, -1.2, 7.5), list(c(0.25, 0.5, 0.75), 0.95, 4.5, Inf), list(c(0.7, 0.72, 1), 0.8, 1.9, 300),
  list((1:4) / 4, 0.95, 2.4, Inf), list((1:5) / 5, 0.95, -3.0, 90), list((1:3) / 5, 0.999, 3.6, 25), list(c(0.1, 0.4, 0.6, 0.9), 0.95, 2.6, Inf))
items <- c()
for (k in cases) for (type in names(spendings)) {
  se <- 0.25
  items <- c(items, object(field("call", called(k[[1]])), judge(type, k[[1]], k[[2]], 0, k[[3]] * se + 0.1, se, k[[4]], 0.1)))
}
list_of("two_sided", items)

# Lifts of arms that are given by subjects, mean and variance, by Fieller: L is tested by
# (m1 - m0) - L*|m0|, whose variance is v1 + (1 + L*sign(m0))^2*v0. They are the arms' own,
# or those by both arms' pooled variance where that is more for L = 0; the degrees of
# freedom are those at the null value, by b - 1, b the subjects or of zeros and ones, which
# the variance tells, the fewer.
informative <- function(a) if (a[2] > 0 && a[2] < 1 && abs(a[3] * (a[1] - 1) / a[1] / (a[2] * (1 - a[2])) - 1) < 0.002) min(round(a[1] * a[2]), a[1] - round(a[1] * a[2])) else a[1]
judge_lift <- function(type, times, level, alternative, t, c0, null) {
  n <- c(t[1], c0[1]); own <- c(t[3], c0[3]) / n; s <- sign(c0[2])
  pooled <- sum(c(t[3], c0[3]) * (n - 1)) / (sum(n) - 2) * sum(1 / n)
  v <- own + max(0, pooled - sum(own)) / n / sum(1 / n)
  weights <- function(l) c(1, (1 + s * l)^2)
  df <- sum(own * weights(null))^2 / sum((own * weights(null))^2 / (c(informative(t), informative(c0)) - 1))
  score <- function(l) (t[2] - c0[2] - l * abs(c0[2])) / sqrt(sum(v * weights(l)))
  lift <- (t[2] - c0[2]) / abs(c0[2]); se <- sqrt(v[1] + (t[2] / c0[2])^2 * v[2]) / abs(c0[2])
  fields <- judge(type, times, level, alternative, score(null), 1, df, 0)
  sided <- if (alternative == 0) 2 else 1
  critical <- qt(pnorm(boundary(type, times, 1 - level, sided), lower.tail = FALSE), df, lower.tail = FALSE)
  root <- function(k) { # By uniroot, and a few steps of Newton's method for the last digits.
    f <- function(l) score(l) - k
    l <- uniroot(f, lift - sign(k) * c(0, 4) * abs(k) * se, tol = 1e-12 * se)$root
    for (i in 1:4) { h <- 1e-5 * se; l <- l - f(l) / ((f(l + h) - f(l - h)) / (2 * h)) }
    l
  }
  put <- function(name, value) sub(paste0("\"", name, "\": .*"), field(name, value), fields[grep(paste0("^\"", name, "\""), fields)])
  for (f in list(list("estimate", number(lift)), list("se", number(se)), list("null", number(null)),
    list("lower", if (alternative == 2) "null" else number(root(critical))), list("upper", if (alternative == 1) "null" else number(root(-critical)))))
    fields[grep(paste0("^\"", f[[1]], "\""), fields)] <- put(f[[1]], f[[2]])
  fields
}
cases <- list(
  list(c(0.5, 1), 0.95, c(1000, 10.9, 25), c(1100, 10, 20), 0), list(c(0.2, 0.6, 1), 0.95, c(5000, 0.115, 0.1018), c(5000, 0.1, 0.09), 0),
  list(c(0.3, 0.7), 0.9, c(40, 12, 9), c(300, 9, 16), 0.1), list(0.4, 0.95, c(2000, -4.7, 30), c(1000, -5, 28), 0.01),
  list(c(0.25, 0.5, 0.75), 0.99, c(7000, 50.9, 900), c(3000, 49, 1000), 0), list(1, 0.95, c(12, 6, 4), c(9, 4.5, 3), -0.1),
  list(c(0.25, 0.5, 1), 0.95, c(800, 0.95, 0.4), c(900, 1, 0.5), 0), list(c(0.2, 0.4, 1), 0.975, c(600, 2.2, 4), c(600, 2, 4.4), -0.05),
  list(c(0.6, 0.65, 1), 0.8, c(150, 3e-9, 1e-17), c(170, 2.5e-9, 1.2e-17), 0.02), list(c(0.4, 0.8, 1), 0.95, c(30, 1.2e6, 1e11), c(90, 1e6, 2e11), 0.03),
  list(c(0.15, 0.95), 0.95, c(90000, 0.0225, 0.022), c(10000, 0.02, 0.0196), 0), list(c(0.1, 0.5, 0.7), 0.95, c(400, 7, 90), c(200, 8.5, 95), 0))
items <- c()
for (i in seq_along(cases)) for (alternative in 0:2) {
  k <- cases[[i]]; type <- names(spendings)[1 + (i + alternative) %% 2]
  t <- k[[3]]; c0 <- k[[4]]; b <- abs(c0[2])
  v <- c(t[3] / t[1], (t[2] / c0[2])^2 * c0[3] / c0[1]) / b^2
  lift <- (t[2] - c0[2]) / b; null <- signif(lift + c(0, -1, 1)[alternative + 1] * c(1.2, 2.4, 3.1)[1 + i %% 3] * sqrt(sum(v)), 3)
  items <- c(items, object(field("call", text(paste0("judge_lift: ((m1 - m0) - L*|m0|)/sqrt(v1 + (1 + L*sign(m0))^2*v0), uniroot for the bounds; ", gsub("\"", "", called(k[[1]]))))),
    field("treatment", row(t)), field("control", row(c0)),
    judge_lift(type, k[[1]], k[[2]], alternative, t, c0, if (alternative == 0) k[[5]] else null)))
}
list_of("lifts", items, last = TRUE)
cat("}\n")
