# Writes equivalence-r.json: two one-sided tests by R, as judge.R has them.
# Run with R 4.2: Rscript equivalence.R > equivalence-r.json
# The call behind each number stands in the field "call".

source("judge.R")
number <- function(x) if (is.na(x)) "null" else sprintf("%.17g", x)
row <- function(x) paste0("[", paste(vapply(x, number, ""), collapse = ","), "]")
field <- function(name, value) sprintf("\"%s\": %s", name, value)
text <- function(s) sprintf("\"%s\"", s)

set.seed(20260107)
draws <- list(
  normal = list(rnorm(20, 10, 2), rnorm(25, 10.2, 3)),
  equal = list(rnorm(30), rnorm(30)),
  two_each = list(c(1.5, 2.75), c(0.5, 4.25)),
  one_many = list(c(3, 5), rnorm(40, 3.5)),
  binary = list(rbinom(60, 1, 0.3), rbinom(50, 1, 0.29)),
  skewed = list(rexp(35, 0.1), rexp(70, 0.1)),
  beyond = list(rnorm(30, 2), rnorm(30, 0)),
  below = list(rnorm(30, -2), rnorm(30, 0)),
  large_values = list(1e5 + rnorm(30), 1e5 + rnorm(28, 0.1)),
  tiny_values = list(1e-9 * rnorm(22, 3), 1e-9 * rnorm(21, 3)),
  negative = list(rnorm(26, -5), rnorm(27, -5)),
  one_constant = list(rep(2, 9), rnorm(14, 2)))
settings <- list(c(0.95, 0.5), c(0.9, 0.2), c(0.8, 1), c(0.999, 1.5))
items <- c()
for (name in names(draws)) for (s in settings) {
  x <- draws[[name]][[1]]; y <- draws[[name]][[2]]
  margin <- s[2] * (if (name == "tiny_values") 1e-9 else 1)
  above <- judge(x, y, alternative = "greater", mu = -margin)
  below <- judge(x, y, alternative = "less", mu = margin)
  both <- judge(x, y, conf.level = 2 * s[1] - 1)
  larger <- if (isTRUE(above$p.value > below$p.value)) above else below
  items <- c(items, paste0("{", paste(c(
    field("name", text(name)),
    field("call", text(sprintf("judge(x, y, 'greater', mu = -%g), judge(x, y, 'less', mu = %g), judge(x, y, conf.level = %g)", margin, margin, 2 * s[1] - 1))),
    field("level", number(s[1])), field("margin", number(margin)), field("treatment", row(x)), field("control", row(y)),
    field("statistic", number(larger$statistic[[1]])), field("p", number(larger$p.value)),
    field("lower", number(both$conf.int[1])), field("upper", number(both$conf.int[2]))), collapse = ", "), "}"))
}
cat("[\n  ", paste(items, collapse = ",\n  "), "\n]\n", sep = "")
