# What the reference scripts take for the test of a mean, beside R's own functions:
# source("judge.R"). It is written from the rules, by pt, qt and uniroot:
#
# The variance is the larger of Welch's and of that with both arms' pooled variance,
# of which what is more than Welch's falls to the arms by one over their subjects, and
# where all of the treatment's are alike as much as its part of the pooled one;
# the degrees of freedom are Welch's with b - 1 for n - 1, where b is how many
# subjects of an arm are informative: those that are not 0, or of zeros and ones the
# fewer. Where an arm has fewer than 5 of them, and would be expected to, by those of
# both, nothing is judged, and the degrees are by n - 1.

informative <- function(x) if (all(x %in% 0:1)) min(sum(x), sum(1 - x)) else sum(x != 0)

# dispersion is the variance of each arm's value and the degrees of freedom of a
# difference at a lift. rx and ry are residuals, bx and by informative subjects.
dispersion <- function(rx, ry, bx = informative(rx), by = informative(ry)) {
  nx <- length(rx); ny <- length(ry); few <- min(bx, by) < 5 && (bx + by) / (nx + ny) * min(nx, ny) < 5
  own <- c(var(rx) / nx, var(ry) / ny)
  squares <- c((nx - 1) * var(rx), (ny - 1) * var(ry))
  size <- 1 / c(nx, ny); more <- max(0, sum(squares) / (nx + ny - 2) * sum(size) - sum(own))
  nu <- if (few) c(nx, ny) - 1 else pmax(c(bx, by) - 1, 1)
  v <- own + more * size / sum(size)
  if (own[1] == 0 && own[2] > 0) { part <- max(0, sum(squares) / (nx + ny - 2) / nx - v[1]); v <- v + c(part, -part) }
  list(v = v, own = own, few = few,
    df = function(lift = 0) { v <- own * c(1, (1 + lift)^2); sum(v)^2 / sum(v^2 / nu) })
}

# judge is shaped as the result of t.test, of the difference of two means of rx and ry.
judge <- function(rx, ry, alternative = "two.sided", conf.level = 0.95, mu = 0, bx = informative(rx), by = informative(ry)) {
  d <- dispersion(rx, ry, bx, by); se <- sqrt(sum(d$v)); df <- d$df()
  m <- c(mean(rx), mean(ry)); stat <- (m[1] - m[2] - mu) / se; alpha <- 1 - conf.level
  p <- switch(alternative, two.sided = 2 * pt(-abs(stat), df), greater = pt(-stat, df), less = pt(stat, df))
  k <- qt(if (alternative == "two.sided") alpha / 2 else alpha, df, lower.tail = FALSE)
  ci <- m[1] - m[2] + c(if (alternative == "less") NA else -k * se, if (alternative == "greater") NA else k * se)
  if (d$few) { stat <- NA; p <- NA; ci <- c(NA, NA) }
  list(estimate = m, stderr = se, parameter = df, statistic = stat, p.value = p, conf.int = ci, own = sum(d$own))
}

# lift is the same of (mean(rx) - mean(ry))/|mean(ry)| by Fieller: T(L) = (x - y) - L|y|
# has the variance v_x + (1 + L*sign(y))^2 v_y, and the bounds are where T is k standard
# errors from 0. The degrees are those at the margin. Where y may be
# 0 there are none, and no lift at all if some numbers are negative.
lift <- function(rx, ry, alternative = "two.sided", conf.level = 0.95, mu = 0, ...) {
  d <- dispersion(rx, ry, ...); x <- mean(rx); y <- mean(ry); s <- sign(y); alpha <- 1 - conf.level
  score <- function(l) (x - y - l * abs(y)) / sqrt(d$v[1] + (1 + s * l)^2 * d$v[2])
  df <- d$df(s * mu); stat <- score(mu)
  k <- qt(if (alternative == "two.sided") alpha / 2 else alpha, df, lower.tail = FALSE)
  p <- switch(alternative, two.sided = 2 * pt(-abs(stat), df), greater = pt(-stat, df), less = pt(stat, df))
  se <- sqrt(d$v[1] / y^2 + (x / y^2)^2 * d$v[2]); at <- (x - y) / abs(y)
  k0 <- qt(if (alternative == "two.sided") alpha / 2 else alpha, d$df(), lower.tail = FALSE)
  known <- abs(y) / sqrt(d$v[2]) > k0
  positive <- all(rx >= 0) && all(ry >= 0)
  root <- function(side) { # By uniroot, and a few steps of Newton's method for the last digits.
    f <- function(l) score(l) - side * k
    far <- se; while (f(at - side * far) * f(at) > 0 && far < 1e9 * se) far <- 2 * far
    l <- uniroot(f, sort(c(at, at - side * far)), tol = 1e-12 * far)$root
    for (i in 1:4) { h <- 1e-5 * se; l <- l - f(l) / ((f(l + h) - f(l - h)) / (2 * h)) }
    l
  }
  ci <- c(NA, NA)
  if (known && !d$few) {
    if (alternative != "less") ci[1] <- root(1)
    if (alternative != "greater") ci[2] <- root(-1)
  } else if (!d$few && positive && alternative == "greater" && score(-1) >= k) { # Only below -1 the others are.
    ci[1] <- uniroot(function(l) score(l) - k, c(-1, at), tol = 1e-15)$root
  } else { stat <- NA; p <- NA }
  if (!known && !positive) { at <- NA; se <- NA; df <- NA }
  list(estimate = at, stderr = se, parameter = df, statistic = stat, p.value = p, conf.int = ci, known = known)
}
