# Writes power.json: powers and sizes from R 4.2 for the tests of this package,
# with pwr 1.3 and rpact 3.3.4. Run: Rscript power.R > power.json
# The call behind each number stands in the field "call".

library(pwr)
suppressMessages(library(rpact))
setLogLevel("DISABLED")
number <- function(x) sprintf("%.17g", x)
field <- function(name, value) sprintf("\"%s\": %s", name, value)
row <- function(x) paste0("[", paste(number(x), collapse = ", "), "]")
text <- function(s) sprintf("\"%s\"", s)
object <- function(...) paste0("{", paste(c(...), collapse = ", "), "}")
list_of <- function(name, items, last = FALSE)
  cat(sprintf("\"%s\": [\n  %s\n]%s\n", name, paste(items, collapse = ",\n  "), if (last) "" else ","))
sides <- c(two.sided = 0, greater = 1, less = 2)

cat("{\n")
# Arms of one size and variance, all that power.t.test knows.
cases <- list(
  list(64, 0.5, 1, 0.05, "two.sided"), list(20, 1, 1, 0.05, "two.sided"), list(394, 2, 10, 0.05, "two.sided"),
  list(3, 1.5, 1, 0.05, "two.sided"), list(2, 9, 1, 0.1, "two.sided"), list(10000, 0.04, 1, 0.01, "two.sided"),
  list(1571, 0.1, 1, 0.001, "two.sided"), list(50, 0.01, 1, 0.2, "two.sided"), list(51, 0.5, 1, 0.05, "one.sided"),
  list(12, 1.1, 1, 0.01, "one.sided"), list(150000, 0.01, 1, 0.025, "one.sided"), list(5, 3, 2, 0.4, "one.sided"))
items <- c()
for (k in cases) {
  p <- power.t.test(n = k[[1]], delta = k[[2]], sd = k[[3]], sig.level = k[[4]], alternative = k[[5]], strict = TRUE)
  items <- c(items, object(
    field("call", text("power.t.test(n, delta, sd, sig.level, alternative = , strict = TRUE)")),
    field("subjects", number(2 * k[[1]])), field("effect", number(k[[2]])), field("deviation", number(k[[3]])),
    field("alpha", number(k[[4]])), field("alternative", if (k[[5]] == "two.sided") "0" else "1"), field("power", number(p$power))))
}
list_of("arms", items)

# Solved for n and for delta.
cases <- list(
  list(0.5, 1, 0.05, 0.8, "two.sided"), list(1, 1, 0.05, 0.9, "two.sided"), list(2, 10, 0.05, 0.8, "two.sided"),
  list(0.01, 1, 0.05, 0.8, "two.sided"), list(0.004, 1, 0.001, 0.99, "two.sided"), list(2.5, 1, 0.05, 0.8, "two.sided"),
  list(0.3, 1, 0.1, 0.5, "two.sided"), list(0.5, 1, 0.05, 0.8, "one.sided"), list(0.07, 1, 0.025, 0.95, "one.sided"),
  list(1.7, 2, 0.2, 0.6, "one.sided"), list(0.25, 3, 0.01, 0.8, "one.sided"))
items <- c()
for (k in cases) {
  strict <- k[[5]] == "two.sided"
  n <- power.t.test(delta = k[[1]], sd = k[[2]], sig.level = k[[3]], power = k[[4]], alternative = k[[5]], strict = strict, tol = 1e-13)$n
  whole <- ceiling(2 * n)
  delta <- power.t.test(n = whole / 2, sd = k[[2]], sig.level = k[[3]], power = k[[4]], alternative = k[[5]], strict = strict, tol = 1e-13)$delta
  items <- c(items, object(
    field("call", text("N <- ceiling(2 * power.t.test(delta, sd, sig.level, power)$n); power.t.test(N / 2, sd, sig.level, power)$delta")),
    field("effect", number(k[[1]])), field("deviation", number(k[[2]])), field("alpha", number(k[[3]])), field("power", number(k[[4]])),
    field("alternative", if (k[[5]] == "two.sided") "0" else "1"), field("subjects", number(whole)), field("smallest", number(delta))))
}
list_of("sizes", items)

# Arms of different sizes: pwr.t2n.test has n1 + n2 - 2 degrees of freedom,
# since it pools the variances, and the test here has Welch's. The row has both.
cases <- list(
  list(20, 40, 0.8, 0.05, "two.sided"), list(10, 990, 0.9, 0.05, "two.sided"), list(2, 30, 2, 0.1, "two.sided"),
  list(400, 100, 0.3, 0.01, "two.sided"), list(1000, 9000, 0.1, 0.05, "greater"), list(50, 50, 0.5, 0.05, "two.sided"),
  list(7, 11, -1.5, 0.05, "less"), list(33, 333, 0.55, 0.025, "greater"), list(50000, 50, 0.4, 0.05, "two.sided"),
  list(5, 6, 0.2, 0.3, "two.sided"), list(128, 64, -0.4, 0.05, "two.sided"))
welch <- function(theta, df, alpha, side) switch(side,
  two.sided = pt(qt(alpha / 2, df, lower.tail = FALSE), df, theta, lower.tail = FALSE) + pt(qt(alpha / 2, df), df, theta),
  greater = pt(qt(alpha, df, lower.tail = FALSE), df, theta, lower.tail = FALSE), less = pt(qt(alpha, df), df, theta))
items <- c()
for (k in cases) {
  n <- c(k[[1]], k[[2]])
  theta <- k[[3]] / sqrt(sum(1 / n)); df <- sum(1 / n)^2 / sum(1 / n^2 / (n - 1))
  pooled <- pwr.t2n.test(n[1], n[2], k[[3]], k[[4]], alternative = k[[5]])$power
  stopifnot(abs(welch(theta, sum(n) - 2, k[[4]], k[[5]]) - pooled) < 1e-12)
  items <- c(items, object(
    field("call", text("df = (v1/n1 + v2/n2)^2 / ((v1/n1)^2/(n1-1) + (v2/n2)^2/(n2-1)); pt(qt(1 - alpha/2, df), df, theta, lower.tail = FALSE) + pt(qt(alpha/2, df), df, theta)")),
    field("control", number(n[1])), field("treatment", number(n[2])), field("effect", number(k[[3]])), field("alpha", number(k[[4]])),
    field("alternative", number(sides[[k[[5]]]])), field("pooled", number(pooled)), field("power", number(welch(theta, df, k[[4]], k[[5]])))))
}
list_of("unequal", items)

# Two one-sided tests: Owen's integral over the estimated standard deviation.
cases <- list(
  list(30, 30, 0, 0.8, 0.05), list(12, 12, 0, 1.5, 0.05), list(12, 12, 0.3, 1.5, 0.05), list(500, 500, 0.05, 0.25, 0.05),
  list(20, 60, 0, 0.9, 0.025), list(5, 5, 0, 3, 0.1), list(2, 2, 0, 30, 0.05), list(100, 10, 0.1, 1.2, 0.05),
  list(20000, 20000, 0, 0.03, 0.01), list(10, 10, 0, 0.4, 0.05), list(40, 40, -0.2, 0.8, 0.05))
items <- c()
for (k in cases) {
  n <- c(k[[1]], k[[2]]); se <- sqrt(sum(1 / n)); df <- sum(1 / n)^2 / sum(1 / n^2 / (n - 1))
  t <- qt(k[[5]], df, lower.tail = FALSE)
  density <- function(s) 2 * s * df * dchisq(df * s^2, df)
  inside <- function(s) density(s) * (pnorm((k[[4]] - k[[3]]) / se - t * s) - pnorm(t * s - (k[[4]] + k[[3]]) / se))
  end <- k[[4]] / se / t
  cuts <- sort(unique(pmin(end, c(0, qchisq(c(1e-12, 1e-3, 0.2, 0.5, 0.8, 0.999), df) / df, 10)^0.5)))
  cuts <- sort(unique(c(cuts, end)))
  power <- sum(mapply(function(a, b) integrate(inside, a, b, rel.tol = 1e-12, subdivisions = 2000)$value, head(cuts, -1), tail(cuts, -1)))
  items <- c(items, object(
    field("call", text("integrate(function(s) 2*s*df*dchisq(df*s^2, df) * (pnorm((m-d)/se - t*s) - pnorm(t*s - (m+d)/se)), 0, m/se/t), se = sqrt(1/n1+1/n2)")),
    field("control", number(n[1])), field("treatment", number(n[2])), field("effect", number(k[[3]])), field("margin", number(k[[4]])),
    field("alpha", number(k[[5]])), field("power", number(power))))
}
list_of("equivalence", items)

# Looks, equally spaced, with known variance. rpact's alpha is that of both sides.
cases <- list(
  list(5, "asOF", 2, 0.05, 800, 0.2, 1), list(5, "asP", 2, 0.05, 800, 0.2, 1), list(1, "asOF", 2, 0.05, 800, 0.2, 1),
  list(2, "asOF", 1, 0.025, 1200, 0.15, 1), list(3, "asP", 1, 0.1, 500, 0.25, 2), list(10, "asOF", 2, 0.01, 20000, 0.05, 1),
  list(10, "asP", 1, 0.05, 6000, 0.08, 0.25), list(4, "asP", 2, 0.2, 90, 0.4, 3), list(5, "asOF", 1, 0.001, 3000, 0.2, 1),
  list(5, "asP", 2, 0.05, 800, 0, 1), list(3, "asOF", 2, 0.4, 60, 0.1, 1), list(5, "asOF", 2, 0.05, 400, 0.9, 1))
items <- c()
for (k in cases) {
  design <- getDesignGroupSequential(kMax = k[[1]], alpha = k[[4]], sided = k[[3]], typeOfDesign = k[[2]], twoSidedPower = k[[3]] == 2, tolerance = 1e-10)
  p <- getPowerMeans(design, groups = 2, normalApproximation = TRUE, alternative = k[[6]], stDev = 1, maxNumberOfSubjects = k[[5]], allocationRatioPlanned = k[[7]])
  items <- c(items, object(
    field("call", text("getPowerMeans(getDesignGroupSequential(kMax, alpha, sided, typeOfDesign, twoSidedPower = sided == 2), groups = 2, normalApproximation = TRUE, alternative, stDev = 1, maxNumberOfSubjects, allocationRatioPlanned)")),
    field("looks", number(k[[1]])), field("spending", if (k[[2]] == "asOF") "1" else "2"), field("alternative", if (k[[3]] == 2) "0" else "1"),
    field("alpha", number(k[[4]])), field("control", number(k[[5]] / (1 + k[[7]]))), field("treatment", number(k[[5]] * k[[7]] / (1 + k[[7]]))),
    field("effect", number(k[[6]])), field("power", number(p$overallReject)), field("expected", number(p$expectedNumberOfSubjects))))
}
list_of("looks", items)

# And solved for the subjects.
cases <- list(
  list(5, "asOF", 2, 0.05, 0.8, 0.2), list(5, "asP", 2, 0.05, 0.8, 0.2), list(2, "asOF", 1, 0.025, 0.9, 0.15), list(3, "asP", 1, 0.1, 0.7, 0.25),
  list(10, "asOF", 2, 0.01, 0.95, 0.05), list(10, "asP", 1, 0.05, 0.8, 0.08), list(4, "asP", 2, 0.2, 0.9, 0.4), list(5, "asOF", 1, 0.001, 0.8, 0.2),
  list(1, "asOF", 2, 0.05, 0.8, 0.1), list(3, "asOF", 2, 0.4, 0.99, 0.1))
items <- c()
for (k in cases) {
  design <- getDesignGroupSequential(kMax = k[[1]], alpha = k[[4]], beta = 1 - k[[5]], sided = k[[3]], typeOfDesign = k[[2]], twoSidedPower = k[[3]] == 2, tolerance = 1e-10)
  p <- getSampleSizeMeans(design, groups = 2, normalApproximation = TRUE, alternative = k[[6]], stDev = 1)
  items <- c(items, object(
    field("call", text("getSampleSizeMeans(getDesignGroupSequential(kMax, alpha, beta = 1 - power, sided, typeOfDesign, twoSidedPower = sided == 2), groups = 2, normalApproximation = TRUE, alternative, stDev = 1)$maxNumberOfSubjects")),
    field("looks", number(k[[1]])), field("spending", if (k[[2]] == "asOF") "1" else "2"), field("alternative", if (k[[3]] == 2) "0" else "1"),
    field("alpha", number(k[[4]])), field("power", number(k[[5]])), field("effect", number(k[[6]])), field("size", number(p$maxNumberOfSubjects))))
}
list_of("lookSizes", items)

# Non-inferiority at a fixed horizon. power.t.test knows arms of one size and no null
# value, so its delta is how far the effect lies from it.
cases <- list(
  list(64, 0, 0.5, 1, 0.025, 1), list(394, -0.1, 2.1, 10, 0.05, 1), list(20, 0.3, 0.6, 1, 0.025, 1), list(5, 1, 1.5, 1, 0.05, 1),
  list(150000, -0.004, 0.015, 1, 0.01, 1), list(800, 0.1, 0.2, 2, 0.05, 2), list(3000, -0.02, 0.05, 1, 0.025, 2), list(250, -0.2, 0.1, 1, 0.1, 1),
  list(2, 0, 4, 1, 0.05, 1), list(1200, 0, 0.08, 0.7, 0.05, 2))
items <- c()
for (k in cases) {
  p <- power.t.test(n = k[[1]], delta = (if (k[[6]] == 1) k[[2]] else -k[[2]]) + k[[3]], sd = k[[4]], sig.level = k[[5]], alternative = "one.sided")
  items <- c(items, object(
    field("call", text("power.t.test(n, delta = effect + margin, or margin - effect where less is sought, sd, sig.level, alternative = 'one.sided')")),
    field("arms", row(c(k[[1]], k[[1]]))), field("effect", number(k[[2]])), field("margin", number(if (k[[6]] == 1) -k[[3]] else k[[3]])), field("scale", "0"),
    field("deviation", number(k[[4]])), field("alpha", number(k[[5]])), field("alternative", number(k[[6]])), field("power", number(p$power))))
}
# Arms of different sizes, and margins of the lift, by Fieller: t - c - margin*|c|
# has the variance v1/n1 + (1 + margin*sign(c))^2*v0/n0.
cases <- list(
  list(c(300, 100), 0, 0.3, 0, 1, NA, 0.025, 1), list(c(10, 990), 0.2, 1, 0, 1, NA, 0.05, 1), list(c(7, 11), -0.3, 1.2, 0, 1, NA, 0.05, 2),
  list(c(4000, 1000), 0.1, 0.05, 1, 3, 10, 0.025, 1), list(c(500, 500), -0.2, 0.1, 1, 4, -5, 0.05, 1), list(c(90, 60), 0, 0.2, 1, 2, 6, 0.05, 2),
  list(c(50000, 50), 0, 0.4, 0, 1, NA, 0.05, 1))
items <- c(items, vapply(cases, function(k) {
  n <- k[[1]]; effect <- k[[2]]; base <- if (is.na(k[[6]])) 1 else k[[6]]
  v <- k[[5]]^2 * c(1, 1)
  unit <- if (k[[4]] == 1) abs(base) else 1
  null <- if (k[[8]] == 1) -k[[3]] else k[[3]]
  part <- v / n * c(if (k[[4]] == 1) (1 + null * sign(base))^2 else 1, 1) / unit^2
  df <- sum(part)^2 / sum(part^2 / (n - 1))
  object(
    field("call", text("v = c((1 + null*sign(control))^2*v0/n0, v1/n1)/control^2 for a lift, c(v0/n0, v1/n1) for a difference; df = sum(v)^2/sum(v^2/(n-1)); pt(qt(1 - alpha, df), df, (effect - null)/sqrt(sum(v)), lower.tail = FALSE)")),
    field("arms", row(n)), field("effect", number(effect)), field("margin", number(null)), field("scale", number(k[[4]])),
    field("value", number(base)), field("deviation", number(k[[5]])),
    field("alpha", number(k[[7]])), field("alternative", number(k[[8]])),
    field("power", number(welch((effect / unit - null) / sqrt(sum(part)), df, k[[7]], if (k[[8]] == 1) "greater" else "less"))))
}, ""))
list_of("noninferiority", items)

# Looks at arms of different sizes, and non-inferiority there. With several treatments
# each is tested at its part of alpha, and the smallest is planned for.
cases <- list(
  list(5, "asOF", 2, 0.05, c(600, 200), 0.2, 0), list(3, "asP", 2, 0.05, c(150, 850), 0.25, 0), list(2, "asOF", 1, 0.025, c(900, 300), 0.15, 0),
  list(4, "asP", 1, 0.1, c(100, 250), 0.3, 0), list(10, "asOF", 2, 0.01, c(18000, 2000), 0.08, 0), list(6, "asP", 2, 0.2, c(30, 60), 0.4, 0),
  list(5, "asOF", 1, 0.001, c(1000, 3000), 0.15, 0), list(1, "asOF", 2, 0.05, c(70, 30), 0.6, 0), list(3, "asOF", 2, 0.4, c(40, 20), 0.1, 0),
  list(5, "asP", 2, 0.05, c(400, 200), 0, 0), list(5, "asOF", 2, 0.05, c(500, 300, 200, 400), 0.25, 0), list(3, "asP", 1, 0.06, c(1000, 800, 700), 0.12, 0),
  list(5, "asOF", 1, 0.025, c(400, 400), 0, -0.2), list(3, "asP", 1, 0.05, c(300, 700), -0.02, -0.15), list(2, "asOF", 1, 0.025, c(900, 300), 0.05, -0.1),
  list(4, "asP", 1, 0.1, c(80, 80), 0.2, -0.2), list(10, "asOF", 1, 0.01, c(9000, 9000), 0, -0.05), list(3, "asOF", -1, 0.05, c(500, 250), 0.02, 0.2),
  list(5, "asP", -1, 0.025, c(2000, 2000), -0.03, 0.06), list(1, "asP", 1, 0.05, c(60, 40), 0.1, -0.4), list(6, "asOF", 1, 0.2, c(20, 30), -0.1, -0.5),
  list(4, "asOF", -1, 0.05, c(3000, 1000, 1500), 0, 0.1), list(8, "asP", 1, 0.05, c(5000, 1000), 0, -0.1))
items <- c()
for (k in cases) {
  n <- k[[5]]; pair <- n[1] + min(n[-1]); sided <- max(1, k[[3]])
  design <- getDesignGroupSequential(kMax = k[[1]], alpha = k[[4]] / (length(n) - 1), sided = sided, typeOfDesign = k[[2]], twoSidedPower = sided == 2, tolerance = 1e-10)
  p <- getPowerMeans(design, groups = 2, normalApproximation = TRUE, thetaH0 = k[[7]], alternative = k[[6]], stDev = 1, maxNumberOfSubjects = pair,
    allocationRatioPlanned = min(n[-1]) / n[1], directionUpper = if (sided == 2) NA else k[[3]] > 0)
  items <- c(items, object(
    field("call", text("getPowerMeans(getDesignGroupSequential(kMax, alpha / treatments, sided, typeOfDesign, twoSidedPower = sided == 2), groups = 2, normalApproximation = TRUE, thetaH0 = margin, alternative = effect, stDev = 1, maxNumberOfSubjects, allocationRatioPlanned, directionUpper)")),
    field("looks", number(k[[1]])), field("spending", if (k[[2]] == "asOF") "1" else "2"), field("alternative", c("2", "", "1", "0")[k[[3]] + 2]),
    field("alpha", number(k[[4]])), field("arms", row(n)), field("effect", number(k[[6]])), field("margin", number(k[[7]])), field("scale", "0"),
    field("power", number(p$overallReject)), field("expected", number(p$expectedNumberOfSubjects * sum(n) / pair))))
}
list_of("unevenLooks", items)

# Ratios: every subject has its own influence value (x - R*y)/mean(y), whose standard
# deviation is that of the delta method. Sizes and smallest effects for arms of one
# size are power.t.test's, for others the Welch test's.
set.seed(20260113)
orders <- function(n) { y <- 1 + rpois(n, 2); list(y * rgamma(n, 4, 0.1), y) }
clicks <- function(n) { y <- 1 + rpois(n, 30); list(rbinom(n, y, 0.04), y) }
profit <- function(n) { y <- 1 + rpois(n, 1); list(y * rnorm(n, -2, 5), y) }
apart <- function(n) list(rexp(n, 1e-6), 3e-4 + 1e-4 * runif(n))
cases <- list(
  list(orders(200), 0.05, 0.05, 0.8, "two.sided", 0.5), list(orders(60), 0.02, 0.05, 0.9, "two.sided", 0.5), list(clicks(300), 0.03, 0.05, 0.8, "two.sided", 0.5),
  list(clicks(50), 0.1, 0.01, 0.95, "one.sided", 0.5), list(profit(150), 0.2, 0.1, 0.8, "two.sided", 0.5), list(apart(80), 0.07, 0.05, 0.8, "one.sided", 0.5),
  list(orders(20), 1.5, 0.05, 0.8, "two.sided", 0.5), list(clicks(400), 0.005, 0.05, 0.8, "two.sided", 0.5), list(orders(120), 0.1, 0.2, 0.6, "one.sided", 0.5),
  list(profit(90), 0.5, 0.001, 0.99, "two.sided", 0.5), list(orders(100), 0.08, 0.05, 0.8, "two.sided", 0.2), list(clicks(100), 0.06, 0.05, 0.9, "one.sided", 0.7),
  list(profit(60), 0.9, 0.1, 0.7, "two.sided", 0.9))
items <- c()
for (k in cases) {
  x <- k[[1]][[1]]; y <- k[[1]][[2]]; r <- mean(x) / mean(y); sd <- sd((x - r * y) / mean(y)); effect <- signif(k[[2]] * abs(r), 4); share <- k[[6]]
  side <- if (k[[5]] == "one.sided") "greater" else k[[5]]
  at <- function(N, effect) { n <- N * c(1 - share, share); v <- sd^2 / n; welch(effect / sqrt(sum(v)), sum(v)^2 / sum(v^2 / (n - 1)), k[[3]], side) }
  N <- if (share == 0.5) ceiling(2 * power.t.test(delta = effect, sd = sd, sig.level = k[[3]], power = k[[4]], alternative = k[[5]], strict = TRUE, tol = 1e-13)$n) else
    ceiling(uniroot(function(N) at(N, effect) - k[[4]], c(2 / min(share, 1 - share), 1e7), tol = 1e-9)$root)
  delta <- if (share == 0.5) power.t.test(n = N / 2, sd = sd, sig.level = k[[3]], power = k[[4]], alternative = k[[5]], strict = TRUE, tol = 1e-13 * effect)$delta else
    uniroot(function(d) at(N, d) - k[[4]], c(0, 2 * effect), tol = 1e-15 * effect)$root
  stopifnot(at(N, effect) >= k[[4]], at(N - 1, effect) < k[[4]])
  items <- c(items, object(
    field("call", text(paste0("sd = sd((x - R*y)/mean(y)); N = ", if (share == 0.5) "ceiling(2 * power.t.test(delta, sd, sig.level, power)$n); power.t.test(N / 2, sd, sig.level, power)$delta" else
      "ceiling(uniroot over N of pt(qt(1 - alpha, df), df, theta) of arms N*(1 - share), N*share); uniroot over delta"))),
    field("baseline", number(length(x))), field("means", row(c(mean(x), mean(y)))), field("covariances", row(c(var(x), cov(x, y), var(y)))),
    field("value", number(r)), field("deviation", number(sd)), field("share", number(share)), field("effect", number(effect)), field("alpha", number(k[[3]])),
    field("alternative", if (side == "greater") "1" else "0"), field("power", number(k[[4]])), field("subjects", number(N)), field("smallest", number(delta))))
}
list_of("ratios", items, last = TRUE)
cat("}\n")
