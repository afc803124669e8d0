# Writes sequential-r.json: boundaries of Lan and DeMets's spending functions,
# and repeated confidence intervals and p-values, from rpact 3.3.4; boundaries of
# three looks from mvtnorm.
# Run with R 4.2: Rscript sequential.R > sequential-r.json
# The call behind each number stands in the field "call".
# Two sided, rpact's alpha is that of both sides. It computes tails as 1 - pnorm,
# so what depends on a level below 1e-8 is left out here, and its grid is coarse
# for one-sided looks that are close together: mvtnorm's TVPACK, which is exact
# to 1e-14 for three looks, and sequential.py have those.

suppressMessages(library(rpact))
suppressMessages(library(mvtnorm))
setLogLevel("DISABLED")

text <- function(x) if (is.na(x)) "null" else sprintf("%.17g", x)
row <- function(x) paste0("[", paste(vapply(x, text, ""), collapse = ", "), "]")
list_of <- function(name, items, last = FALSE)
  cat(sprintf("\"%s\": [\n  %s\n]%s\n", name, paste(items, collapse = ",\n  "), if (last) "" else ","))
names <- c(asOF = "1", asP = "2")

schedules <- list(
  list(0.05, 1), list(0.05, c(0.5, 1)), list(0.05, c(0.2, 0.6, 1)), list(0.05, (1:5) / 5), list(0.05, (1:10) / 10),
  list(0.0001, c(0.25, 0.5, 0.75, 1)), list(0.4, c(0.25, 0.5, 0.75, 1)),
  list(0.001, c(0.4, 0.8, 1)), list(0.2, c(0.1, 0.5, 0.7)), list(0.1, c(0.7, 1)))
cat("{\n")
designs <- c()
for (s in schedules) for (type in c("asOF", "asP")) for (sided in 1:2) {
  times <- if (max(s[[2]]) == 1) s[[2]] else c(s[[2]], 1)
  design <- getDesignGroupSequential(kMax = length(times), informationRates = times, alpha = s[[1]],
    sided = sided, typeOfDesign = type, tolerance = 1e-10)
  # The least increment so far of what is spent says how many digits are left.
  increments <- cummin(diff(c(0, design$alphaSpent)))
  sound <- function(x) ifelse(increments < 1e-7, NA, x)
  designs <- c(designs, sprintf(
    "{\"call\": \"getDesignGroupSequential(kMax, informationRates = times, alpha, sided, typeOfDesign, tolerance = 1e-10)\", \"spending\": %s, \"sided\": %d, \"alpha\": %.17g, \"times\": %s, \"boundaries\": %s, \"spent\": %s, \"levels\": %s}",
    names[[type]], sided, s[[1]], row(times), row(sound(design$criticalValues)),
    row(ifelse(times < 1, sound(design$alphaSpent), s[[1]])), row(sound(design$stageLevels))))
}
list_of("designs", designs)

# One-sided boundaries of three looks: the first by qnorm, the others where the
# chance of crossing there and not before is what is spent there.
spent <- function(type, alpha, t) {
  t <- pmin(t, 1)
  if (type == "asOF") 2 * pnorm(qnorm(alpha / 2, lower.tail = FALSE) / sqrt(t), lower.tail = FALSE)
  else alpha * log(1 + (exp(1) - 1) * t)
}
exact <- c()
for (s in list(list(0.02, c(0.15, 0.95, 1)), list(0.1, c(0.6, 0.62, 0.64)), list(0.05, c(0.5, 0.501, 1.2)),
               list(0.4, c(0.9, 0.91, 1)), list(0.001, c(0.5, 0.75, 0.8)))) for (type in c("asOF", "asP")) {
  times <- s[[2]]
  chance <- diff(c(0, spent(type, s[[1]], times)))
  b <- qnorm(chance[1], lower.tail = FALSE)
  for (k in 2:3) {
    corr <- outer(times[1:k], times[1:k], function(x, y) sqrt(pmin(x, y) / pmax(x, y)))
    below <- function(b) pmvnorm(upper = b, corr = corr, algorithm = TVPACK(1e-14))[[1]]
    first <- function(x) below(c(b, 40)) - below(c(b, x)) - chance[k]
    b <- c(b, uniroot(first, c(0, 9), tol = 1e-13)$root)
  }
  exact <- c(exact, sprintf("{\"call\": \"qnorm; uniroot(pmvnorm(upper = c(b, 40), corr, algorithm = TVPACK(1e-14)) - pmvnorm(upper = c(b, x)) - chance)\", \"spending\": %s, \"sided\": 1, \"alpha\": %.17g, \"times\": %s, \"boundaries\": %s}",
    names[[type]], s[[1]], row(times), row(b)))
}
list_of("exact", exact)

# Means of two arms by stage: what rpact says at the last of the looks.
repeated <- c()
set.seed(20260106)
for (type in c("asOF", "asP")) for (case in 1:5) {
  times <- list(c(0.2, 0.6, 1), (1:4) / 4, c(0.5, 1), c(0.25, 0.5), c(0.3, 0.7))[[case]]
  n <- diff(c(0, times * 1000))
  planned <- if (max(times) == 1) times else c(times, 1)
  design <- getDesignGroupSequential(kMax = length(planned), informationRates = planned, alpha = 0.025,
    sided = 1, typeOfDesign = type, tolerance = 1e-10)
  m1 <- rnorm(length(n), 0.04 + 0.02 * case, 0.02)
  m2 <- rnorm(length(n), 0, 0.02)
  data <- getDataset(n1 = n, n2 = n, means1 = m1, means2 = m2, stDevs1 = rep(1, length(n)), stDevs2 = rep(1, length(n)))
  for (normal in c(TRUE, FALSE)) {
    stage <- getStageResults(design, dataInput = data, normalApproximation = normal)
    interval <- getRepeatedConfidenceIntervals(design, dataInput = data, normalApproximation = normal, tolerance = 1e-10)
    p <- getRepeatedPValues(stage, tolerance = 1e-10)
    k <- length(times)
    repeated <- c(repeated, sprintf(paste0(
      "{\"call\": \"getStageResults(design, dataInput, normalApproximation); getRepeatedConfidenceIntervals; getRepeatedPValues\", ",
      "\"spending\": %s, \"times\": %s, \"normal\": %s, \"subjects\": %.17g, \"estimate\": %.17g, ",
      "\"deviation\": %.17g, \"statistic\": %.17g, \"lower\": %.17g, \"upper\": %.17g, \"p\": %s}"),
      names[[type]], row(times), tolower(normal), sum(n), stage$effectSizes[k],
      stage$overallStDevs[k], stage$overallTestStatistics[k], interval[1, k], interval[2, k], text(p[k])))
  }
}
list_of("repeated", repeated, last = TRUE)
cat("}\n")
