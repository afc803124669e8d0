# Writes pooled.json: the chi-square of counts whose smallest arms are pooled, as
# `groups` says for each arm by hand. Run with R 4.2: Rscript pooled.R > pooled.json

row <- function(x) paste0("[", paste(sprintf("%.17g", x), collapse = ","), "]")
tests <- list(
  list(c(300, 299, 1), c(100, 100, 1), c(1, 2, 1)),        # Below 5, with the first of the smallest others.
  list(c(280, 318, 2), c(100, 100, 1), c(1, 2, 1)),
  list(c(2, 200, 310), c(1, 120, 100), c(1, 2, 1)),        # The next smallest is not the next listed.
  list(c(60, 3, 50, 4, 45), c(20, 1, 20, 1, 20), c(1, 2, 3, 2, 4)), # Two that expect 5 together.
  list(c(60, 9, 50, 0, 45), c(20, 1, 20, 1, 20), c(1, 2, 3, 2, 4)),
  list(c(3, 2, 900, 99), c(3, 1, 900, 100), c(2, 2, 1, 2)), # Two that do not.
  list(c(6, 3, 2), c(6, 3, 2), c(1, 2, 2)),                # Just 5.
  list(c(2, 3, 4, 16), c(4, 4, 4, 13), c(1, 1, 1, 2)))
items <- c()
for (k in tests) {
  expected <- sum(k[[1]]) * k[[2]] / sum(k[[2]])
  group <- function(x) as.vector(tapply(x, k[[3]], sum))
  stopifnot(group(expected) >= 5)
  t <- chisq.test(group(k[[1]]), p = group(k[[2]]), rescale.p = TRUE)
  items <- c(items, sprintf(
    "{\"call\": \"chisq.test(tapply(observed, groups, sum), p = tapply(weights, groups, sum), rescale.p = TRUE)\", \"observed\": %s, \"weights\": %s, \"groups\": %s, \"expected\": %s, \"statistic\": %.17g, \"df\": %g, \"p\": %.17g}",
    row(k[[1]]), row(k[[2]]), row(k[[3]]), row(expected), t$statistic[[1]], t$parameter[[1]], t$p.value))
}
cat(sprintf("{\"pooled\": [\n  %s\n]}\n", paste(items, collapse = ",\n  ")))
