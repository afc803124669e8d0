# Writes bayes-r.json: posteriors of two rates, and of normal effects.
# Run with R 4.2: Rscript bayes.R > bayes-r.json   (about a minute)
#
# Rates: integrate() of dbeta * pbeta, piece by piece between quantiles, and
# uniroot() for the bounds. Normal: the conjugate update in terms of precisions.
# The call behind each number stands in the field "call".

number <- function(x) if (is.na(x) || is.infinite(x)) "null" else sprintf("%.17g", x)
object <- function(call, ...) { v <- list(...); paste0("{", paste(c(sprintf("\"call\": \"%s\"", call), sprintf("\"%s\": %s", names(v), vapply(v, number, ""))), collapse = ", "), "}") }

pieces <- function(f, a, b, cuts) {
  p <- c(1e-30, 1e-20, 1e-12, 1e-8, 1e-5, 1e-3, 0.02, 0.1, 0.3, 0.5)
  at <- sort(unique(c(0, 1, cuts[cuts > 0 & cuts < 1], qbeta(p, a, b), qbeta(p, a, b, lower.tail = FALSE))))
  sum(vapply(seq_len(length(at) - 1), function(i)
    integrate(f, at[i], at[i + 1], rel.tol = 1e-11, abs.tol = 0, subdivisions = 5000, stop.on.error = FALSE)$value, 0))
}
# P(t > scale * c + shift) and its complement, over the narrower one.
sides <- function(at, ac, scale, shift) {
  spread <- function(a) sqrt(a[1] * a[2] / sum(a)^2 / (sum(a) + 1))
  if (spread(at) > spread(ac)) {
    tail <- function(lower) pieces(function(x) dbeta(x, ac[1], ac[2]) * pbeta(scale * x + shift, at[1], at[2], lower.tail = lower),
      ac[1], ac[2], c(-shift / scale, (1 - shift) / scale))
    c(tail(FALSE), tail(TRUE))
  } else {
    tail <- function(lower) pieces(function(x) dbeta(x, at[1], at[2]) * pbeta((x - shift) / scale, ac[1], ac[2], lower.tail = lower),
      at[1], at[2], c(shift, scale + shift))
    c(tail(TRUE), tail(FALSE))
  }
}
# E max(0, y - x) = E[y; y > x] - E[x; y > x], each by a beta with one success more.
excess <- function(ay, ax) {
  m <- function(a) a[1] / sum(a)
  m(ay) * sides(ay + c(1, 0), ax, 1, 0)[1] - m(ax) * sides(ay, ax + c(1, 0), 1, 0)[1]
}
bound <- function(at, ac, q, upper, place, low, high) {
  gap <- function(x) { s <- place(x); log(sides(at, ac, s[1], s[2])[if (upper) 1 else 2] / q) }
  uniroot(gap, c(low, high), tol = 1e-12 * (high - low), maxiter = 500)$root
}
cases <- list(
  c(120, 1000, 100, 1000, 1, 1), c(0, 100, 0, 120, 1, 1), c(5, 50, 0, 40, 0.5, 0.5), c(1, 1, 0, 1, 1, 1),
  c(130, 1e9, 100, 1e9, 1, 1), c(500020000, 1e9, 5e8, 1e9, 1, 1), c(110, 1000, 99000, 999000, 1, 1), c(990, 1000, 985, 1000, 1, 1),
  c(1000, 1000, 1000, 1000, 1, 1), c(45, 3000, 30, 3000, 20, 980), c(3, 20, 9, 20, 1, 1), c(97, 100, 880, 900, 1, 1),
  c(0, 1000, 5e5, 1e6, 1, 1), c(2000, 10000, 1500, 10000, 1, 1), c(3, 1e6, 5, 10, 1, 1), c(5e5, 1e6, 3, 1e8, 1, 1), c(3, 1e8, 5e5, 1e6, 1, 1), c(7, 9, 1, 12, 2, 5), c(40, 300, 52, 310, 0.5, 0.5))
items <- c()
for (k in cases) {
  at <- c(k[5] + k[1], k[6] + k[2] - k[1]); ac <- c(k[5] + k[3], k[6] + k[4] - k[3])
  mean <- at[1] / sum(at) - ac[1] / sum(ac); ratio <- log((at[1] / sum(at)) / (ac[1] / sum(ac)))
  sd <- sqrt(prod(at) / sum(at)^2 / (sum(at) + 1) + prod(ac) / sum(ac)^2 / (sum(ac) + 1))
  sdr <- sqrt(1 / at[1] + 1 / ac[1])
  of <- function(q, upper, difference) if (difference)
    bound(at, ac, q, upper, function(x) c(1, x), max(-1 + 1e-12, mean - 12 * sd), min(1 - 1e-12, mean + 12 * sd)) else
    expm1(bound(at, ac, q, upper, function(x) c(exp(x), 0), ratio - 12 * sdr - 6, ratio + 12 * sdr + 6))
  margin <- sd / 2; lift <- min(0.5, sdr / 3)
  s <- sides(at, ac, 1, 0)
  items <- c(items, object("integrate(function(x) dbeta(x, ac) * pbeta(scale * x + shift, at)), piece by piece; uniroot for the bounds; loss: m(ac) * P(c' > t) - m(at) * P(c > t')",
    treatment_successes = k[1], treatment_subjects = k[2], control_successes = k[3], control_subjects = k[4], alpha = k[5], beta = k[6],
    chance = s[1], less = s[2], margin = margin, beyond_margin = sides(at, ac, 1, margin)[1], not_worse = sides(at, ac, 1, -margin)[1],
    lift_margin = lift, beyond_lift = sides(at, ac, 1 + lift, 0)[1], not_worse_lift = sides(at, ac, 1 - lift, 0)[1],
    loss = excess(ac, at), loss_if_less = excess(at, ac),
    lower = of(0.025, FALSE, TRUE), upper = of(0.025, TRUE, TRUE), lift_lower = of(0.025, FALSE, FALSE), lift_upper = of(0.025, TRUE, FALSE),
    one_sided_lower = of(0.1, FALSE, TRUE), one_sided_upper = of(0.1, TRUE, TRUE)))
}
cat("{\"rates\": [\n  ", paste(items, collapse = ",\n  "), "\n],\n", sep = "")

set.seed(20260108)
items <- c()
for (k in 1:24) {
  estimate <- c(1, -1, 0, 30)[k %% 4 + 1] * rexp(1, 2); se <- rexp(1, 3) + 0.01
  prior_mean <- rnorm(1, 0, 0.1); prior_sd <- if (k %% 3 == 0) 0 else rexp(1, 2); unit <- rexp(1, 0.5); level <- c(0.95, 0.9, 0.99)[k %% 3 + 1]
  precision <- 1 / se^2 + if (prior_sd > 0) 1 / (prior_sd * unit)^2 else 0
  mean <- (estimate / se^2 + if (prior_sd > 0) prior_mean * unit / (prior_sd * unit)^2 else 0) / precision
  sd <- 1 / sqrt(precision); null <- c(0, -0.1)[k %% 2 + 1]; margin <- 0.3
  z <- mean / sd
  # dnorm(z) - z * pnorm(z, lower = FALSE) cancels where z is large: then it is integrated.
  loss <- function(z) sd * integrate(function(x) x * dnorm(x + z), 0, Inf, rel.tol = 1e-13, abs.tol = 0)$value
  items <- c(items, object("precision = 1/se^2 + 1/(prior_sd*unit)^2; qnorm(q, mean, sd); pnorm(null, mean, sd); sd * integrate(function(x) x * dnorm(x + mean/sd), 0, Inf)",
    estimate = estimate, se = se, prior_mean = prior_mean, prior_sd = prior_sd, unit = unit, level = level, null = null, margin = margin,
    mean = mean, lower = qnorm((1 - level) / 2, mean, sd), upper = qnorm((1 - level) / 2, mean, sd, lower.tail = FALSE),
    above = pnorm(null, mean, sd, lower.tail = FALSE), below = pnorm(null, mean, sd),
    within = if (mean > 0) pnorm(margin, mean, sd) - pnorm(-margin, mean, sd) else pnorm(-margin, mean, sd, lower.tail = FALSE) - pnorm(margin, mean, sd, lower.tail = FALSE),
    loss = loss(z), loss_if_less = loss(-z)))
}
cat("\"normal\": [\n  ", paste(items, collapse = ",\n  "), "\n],\n", sep = "")

# Power: the estimates from which on the posterior is sure enough, by uniroot(), and
# the chance to get there.
items <- c()
for (k in 1:14) {
  n <- c(200, 1000, 5000, 40000)[k %% 4 + 1]; control <- c(10, -4)[k %% 2 + 1]; deviation <- 5; effect <- c(0.3, -0.2, 0.8, 0)[k %/% 3 %% 4 + 1]
  prior_mean <- c(0, 0.02, -0.03)[k %% 3 + 1]; prior_sd <- c(0.3, 0.05, 0.02)[k %/% 2 %% 3 + 1]; level <- c(0.95, 0.9)[k %/% 5 %% 2 + 1]
  se <- deviation * sqrt(2 / (n / 2)); tau <- prior_sd * abs(control); m0 <- prior_mean * abs(control)
  post <- function(e) { v <- 1 / (1 / se^2 + 1 / tau^2); c(v * (e / se^2 + m0 / tau^2), sqrt(v)) }
  sure <- function(q, null, above) uniroot(function(e) { p <- post(e); pnorm(null, p[1], p[2], lower.tail = !above, log.p = TRUE) - log(q) },
    c(-1, 1) * 2e3 * se, tol = 1e-14, maxiter = 2000)$root
  margin <- 0.5; low <- sure(1 - (1 - level), -margin, TRUE); high <- sure(1 - (1 - level), margin, FALSE)
  items <- c(items, object("uniroot(function(e) pnorm(null, mean(e), sd, log.p = TRUE) - log(q)); pnorm(root, effect, se, lower.tail = FALSE)",
    subjects = n, control = control, deviation = deviation, effect = effect, prior_mean = prior_mean, prior_sd = prior_sd, level = level, margin = margin,
    two_sided = pnorm(sure((1 + level) / 2, 0, TRUE), effect, se, lower.tail = FALSE) + pnorm(sure((1 + level) / 2, 0, FALSE), effect, se),
    greater = pnorm(sure(level, -margin, TRUE), effect, se, lower.tail = FALSE), less = pnorm(sure(level, margin, FALSE), effect, se),
    equivalent = max(0, pnorm(high, effect, se) - pnorm(low, effect, se))))
}
cat("\"power\": [\n  ", paste(items, collapse = ",\n  "), "\n]}\n", sep = "")
