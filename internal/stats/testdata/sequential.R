# Writes sequential.json: boundaries of Lan and DeMets's spending functions, and
# repeated confidence intervals and p-values, from rpact 3.3.4.
# Run with R 4.2: Rscript sequential.R > sequential.json
# Two sided, rpact's alpha is that of both sides. Its integration is told to use
# its least tolerance; the boundaries then have about 9 digits.

suppressMessages(library(rpact))
setLogLevel("DISABLED")

text <- function(x) if (is.na(x)) "null" else sprintf("%.17g", x)
row <- function(x) paste0("[", paste(vapply(x, text, ""), collapse = ", "), "]")
names <- c(asOF = "1", asP = "2")

schedules <- list(
  list(0.05, 1), list(0.05, c(0.5, 1)), list(0.05, c(0.2, 0.6, 1)), list(0.05, (1:5) / 5),
  list(0.05, (1:10) / 10), list(0.01, c(0.3, 0.35, 0.9, 1)), list(0.0001, c(0.25, 0.5, 0.75, 1)),
  list(0.4, c(0.25, 0.5, 0.75, 1)), list(0.1, c(0.6, 0.62, 0.64, 1)), list(0.2, c(0.8, 0.9, 0.95, 1)),
  list(0.05, c(0.1, 0.11, 0.12, 0.5, 1)), list(0.05, (1:20) / 20), list(0.02, c(0.15, 0.95, 1)))

designs <- c()
for (s in schedules) for (type in c("asOF", "asP")) for (sided in 1:2) {
  design <- getDesignGroupSequential(kMax = length(s[[2]]), informationRates = s[[2]], alpha = s[[1]],
    sided = sided, typeOfDesign = type, tolerance = 1e-10)
  designs <- c(designs, sprintf(
    "{\"spending\": %s, \"sided\": %d, \"alpha\": %.17g, \"times\": %s, \"boundaries\": %s, \"spent\": %s, \"levels\": %s}",
    names[[type]], sided, s[[1]], row(s[[2]]), row(design$criticalValues), row(design$alphaSpent), row(design$stageLevels)))
}

# Means of two arms, by stage. The intervals are rpact's for a normal statistic.
repeated <- c()
set.seed(20260106)
for (type in c("asOF", "asP")) for (case in 1:5) {
  times <- list(c(0.2, 0.6, 1), (1:4) / 4, c(0.5, 1), c(0.5, 0.75, 0.8), c(0.3, 0.7))[[case]]
  n <- diff(c(0, times * 1000))
  planned <- if (times[length(times)] == 1) times else c(times, 1)
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
      "{\"spending\": %s, \"times\": %s, \"normal\": %s, \"subjects\": %.17g, \"estimate\": %.17g, ",
      "\"deviation\": %.17g, \"statistic\": %.17g, \"lower\": %.17g, \"upper\": %.17g, \"p\": %s}"),
      names[[type]], row(times), tolower(normal), sum(n), stage$effectSizes[k],
      stage$overallStDevs[k], stage$overallTestStatistics[k], interval[1, k], interval[2, k], text(p[k])))
  }
}
cat(sprintf("{\n\"designs\": [\n  %s\n],\n\"repeated\": [\n  %s\n]\n}\n",
  paste(designs, collapse = ",\n  "), paste(repeated, collapse = ",\n  ")))
