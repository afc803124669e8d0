# Writes cuped.json: CUPED of a proportion, with a covariate that is missing for some,
# and within strata; and post-stratification of three arms, by R.
# Run with R 4.2: Rscript cuped.R > cuped.json
# The call behind each number stands in the field "call".

number <- function(x) if (is.na(x) || is.infinite(x)) "null" else sprintf("%.17g", x)
row <- function(x) paste0("[", paste(vapply(x, number, ""), collapse = ","), "]")
data <- function(x) paste0("[", paste(ifelse(is.na(x), "null", sprintf("%.10g", x)), collapse = ","), "]") # Rounded when drawn.
field <- function(name, value) sprintf("\"%s\": %s", name, value)
text <- function(s) sprintf("\"%s\"", s)
object <- function(...) paste0("{", paste(c(...), collapse = ", "), "}")
list_of <- function(name, items, last = FALSE)
  cat(sprintf("\"%s\": [\n  %s\n]%s\n", name, paste(items, collapse = ",\n  "), if (last) "" else ","))

cat("{\n")
set.seed(20260111)

# What an adjusted comparison of arms 1 and 0 is: lm for theta and the estimate,
# judge.R of the residuals for the rest.
source("judge.R")
adjusted <- function(fit, residual, y, arm) {
  b1 <- informative(y[arm == 1]); b0 <- informative(y[arm == 0])
  t <- judge(residual[arm == 1], residual[arm == 0], bx = b1, by = b0)
  plain <- judge(y[arm == 1], y[arm == 0])
  stopifnot(abs(coef(fit)[["factor(arm)1"]] - (t$estimate[[1]] - t$estimate[[2]])) < 1e-12)
  c(field("slope", number(coef(fit)[["factor(arm)1"]])),
    field("treatment", number(t$estimate[[1]])), field("control", number(t$estimate[[2]])),
    field("estimate", number(t$estimate[[1]] - t$estimate[[2]])),
    field("se", number(t$stderr)), field("df", number(t$parameter[[1]])),
    field("statistic", number(t$statistic[[1]])), field("p", number(t$p.value)),
    field("lower", number(t$conf.int[1])), field("upper", number(t$conf.int[2])),
    field("reduction", number(1 - t$own / plain$own)))
}

# A proportion and one covariate: sizes of the arms, the rate's logit and its slope by
# the covariate, what the treatment adds, and how the covariate is drawn.
cases <- list(
  list(c(40, 40), -0.5, 1, 0.3, function(n) rnorm(n)), list(c(200, 25), -1, 2, 0.5, function(n) rnorm(n)),
  list(c(12, 15), 0, 0.5, 0, function(n) rnorm(n, 3)), list(c(300, 350), -3.2, 1, 0.4, function(n) rnorm(n)),
  list(c(60, 90), 2.5, -1, -0.5, function(n) rgamma(n, 2)), list(c(80, 70), -0.4, 1.5, 0.2, function(n) rbinom(n, 1, 0.4)),
  list(c(50, 50), 0, 6, 0.5, function(n) rnorm(n)), list(c(100, 60), -1, 0, 0.3, function(n) 1e4 + 1e-1 * rnorm(n)),
  list(c(45, 30, 60), -0.5, 1, 0.6, function(n) rexp(n)), list(c(90, 30, 30, 40), 0.3, -0.7, 0, function(n) 1e6 * rnorm(n)),
  list(c(33, 110), -1.2, 1, 1, function(n) 1e-9 * rpois(n, 3)), list(c(20, 280), 0.8, 1, -0.2, function(n) rt(n, 2)))
items <- c()
for (k in cases) {
  n <- k[[1]]; arm <- rep(seq_along(n) - 1, n); x <- signif(k[[5]](sum(n)), 7)
  y <- rbinom(sum(n), 1, plogis(k[[2]] + k[[3]] * (x - mean(x)) / sd(x) + k[[4]] * (arm == 1)))
  for (a in unique(arm)) y[which(arm == a)[1:2]] <- 0:1
  fit <- lm(y ~ factor(arm) + x)
  items <- c(items, object(
    field("call", text("lm(y ~ factor(arm) + x); judge(residual[arm == 1], residual[arm == 0]), residual = y - theta*(x - mean(x))")),
    field("arm", data(arm)), field("y", data(y)), field("x", data(x)),
    adjusted(fit, y - coef(fit)[["x"]] * (x - mean(x)), y, arm)))
}
list_of("proportions", items)

# A mean, and a covariate that is missing for a share of the subjects, more often
# where the mean is high if so said: its mean in place of what is missing, and an
# indicator of that.
cases <- list(
  list(c(40, 40), 0.2, FALSE), list(c(30, 90), 0.5, TRUE), list(c(120, 20), 0.1, TRUE), list(c(25, 25), 0.8, FALSE),
  list(c(60, 70), 0.3, TRUE), list(c(35, 40, 45), 0.25, TRUE), list(c(15, 18), 0.4, FALSE), list(c(200, 180), 0.03, FALSE),
  list(c(50, 50), 0.9, TRUE), list(c(80, 40), 0.5, FALSE), list(c(30, 30, 30, 30), 0.2, TRUE), list(c(64, 31), 0.6, TRUE))
items <- c()
for (k in seq_along(cases)) {
  n <- cases[[k]][[1]]; arm <- rep(seq_along(n) - 1, n); all <- sum(n)
  x <- round(rgamma(all, 2, 0.1) + k, 3); lacks <- cases[[k]][[2]]
  y <- round(0.3 * k * x + rnorm(all, 5, 4) + 2 * (arm == 1), 3)
  x[runif(all) < if (cases[[k]][[3]]) pmin(0.95, lacks * 2 * rank(y) / all) else lacks] <- NA
  x[c(1, 3)] <- c(NA, 20)
  filled <- ifelse(is.na(x), mean(x, na.rm = TRUE), x); missing <- as.numeric(is.na(x))
  fit <- lm(y ~ factor(arm) + filled + missing)
  residual <- y - coef(fit)[["filled"]] * (filled - mean(filled)) - coef(fit)[["missing"]] * (missing - mean(missing))
  items <- c(items, object(
    field("call", text("lm(y ~ factor(arm) + ifelse(is.na(x), mean(x, na.rm = TRUE), x) + is.na(x)); judge(residual[arm == 1], residual[arm == 0])")),
    field("arm", data(arm)), field("y", data(y)), field("x", data(x)), adjusted(fit, residual, y, arm)))
}
list_of("missing", items)

# Strata. A regression on all cells of arm and stratum predicts what all subjects
# would have been in one arm: without covariates the post-stratified value, with them
# the adjusted one. Arms are compared in the strata in which both have two subjects;
# theta and the weights come from all arms there. Arms and strata depend on each
# other, and the covariates on both.
value <- function(fit, d, a) mean(suppressWarnings(predict(fit, transform(d, arm = factor(a, levels(d$arm)), x1 = mean(x1), x2 = mean(x2)))))
items <- c()
for (k in 1:16) {
  arms <- if (k > 5) 3 else 2; two <- k %% 4 == 0; count <- 2 + k %% 3; all <- c(60, 90, 150)[1 + k %% 3] + k
  stratum <- sample(count, all, replace = TRUE, prob = seq_len(count)^(k %% 2))
  odds <- outer(seq_len(count), seq_len(arms), function(s, a) 1 + s * (a %% 2) / 2 + a * (k %% 3))
  arm <- apply(odds[stratum, ], 1, function(p) sample(arms, 1, prob = p)) - 1
  for (s in 1:count) for (a in 1:arms) arm[which(stratum == s)[a * 2 - 1:0]] <- a - 1
  # A stratum in which the last arm has one subject, or none.
  if (k > 12) {
    at <- which(stratum == 1 & arm == 2)
    arm[if (k %% 2) at[-1] else at] <- 0
  }
  x1 <- round(rgamma(all, 2, 0.2) + 3 * arm - 4 * stratum, 3); x2 <- round(rnorm(all, 10 * stratum + arm), 3)
  y <- round(20 + 0.4 * k * x1 - (if (two) 1.5 * x2 else 0) + 3 * stratum * arm + 7 * stratum + rnorm(all, 0, 3 + stratum), 3)
  whole <- data.frame(arm = factor(arm), stratum = factor(stratum), x1, x2, y)
  for (a in seq_len(arms - 1)) {
    both <- table(whole$stratum, whole$arm)[, c("0", a)]
    d <- droplevels(whole[whole$stratum %in% rownames(both)[pmin(both[, 1], both[, 2]) >= 2], ])
    plain <- if (nlevels(d$stratum) > 1) lm(y ~ 0 + arm:stratum, d) else lm(y ~ 0 + arm, d)
    fit <- update(plain, if (two) ~ . + x1 + x2 else ~ . + x1)
    items <- c(items, object(
      field("call", text(paste0("fit = lm(y ~ 0 + arm:stratum", if (two) " + x1 + x2" else " + x1", "); mean(predict(fit, transform(d, arm = a, x1 = mean(x1)))); theta: coef(fit)"))),
      field("of", number(a)), field("arm", data(arm)), field("stratum", data(stratum)), field("y", data(y)), field("x1", data(x1)),
      field("x2", if (two) data(x2) else "null"), field("kept", number(nrow(d))),
      field("treatment", number(value(plain, d, a))), field("control", number(value(plain, d, 0))),
      field("adjusted_treatment", number(value(fit, d, a))), field("adjusted_control", number(value(fit, d, 0))),
      field("theta", row(coef(fit)[c("x1", if (two) "x2")])),
      field("ahead", number(value(update(plain, x1 ~ .), d, a) - mean(d$x1)))))
  }
}
list_of("strata", items, last = TRUE)
cat("}\n")
