"""Writes ratescore.json: the score test of Miettinen and Nurminen of two rates, for the
difference and for the ratio.
Run: /usr/bin/python3 ratescore.py > ratescore.json   (statsmodels 0.13.5, mpmath 1.2.1)

All is by mpmath on the score equation, with the likelihood's own maximum: the root of
its derivative, not the closed form. statsmodels' test_proportions_2indep and
confint_proportions_2indep, with method='score', whose variance has the factor
N/(N - 1) too, agree for the ratio and for a difference of 0. For other differences
their version 0.13.5 has count0 in place of nobs0 in a coefficient of the cubic, and is
off by a ten-thousandth and more; R's PropCIs::diffscoreci has no factor N/(N - 1).
"""
import json
import warnings

from mpmath import findroot, mp, mpf, sqrt
from scipy.stats import norm
from statsmodels.stats.proportion import confint_proportions_2indep, test_proportions_2indep

warnings.simplefilter("ignore")
mp.dps = 40


def slope(x1, n1, x0, n0, p0, p1, dp1):
    """The derivative of the log likelihood by p0, if p1 moves by dp1."""
    term = lambda x, p: (x / p if x else 0)
    return term(x0, p0) - term(n0 - x0, 1 - p0) + dp1 * (term(x1, p1) - term(n1 - x1, 1 - p1))


def bisect(f, low, high):
    """The root of a falling function, or the end where it has none."""
    for _ in range(130):
        middle = (low + high) / 2
        if f(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def score(x1, n1, x0, n0, compare, value):
    if compare == "diff":
        p0 = bisect(lambda p: slope(x1, n1, x0, n0, p, p + value, 1), max(mpf(0), -value), min(mpf(1), 1 - value))
        p1, weight, distance = p0 + value, mpf(1), mpf(x1) / n1 - mpf(x0) / n0 - value
    else:
        p0 = bisect(lambda p: slope(x1, n1, x0, n0, p, value * p, value), mpf(0), min(mpf(1), 1 / value))
        p1, weight, distance = value * p0, value, mpf(x1) / n1 - value * mpf(x0) / n0
    variance = (p1 * (1 - p1) / n1 + weight**2 * p0 * (1 - p0) / n0) * mpf(n1 + n0) / (n1 + n0 - 1)
    return distance / sqrt(variance)


def bound(arms, compare, size):
    f = lambda value: score(*arms, compare, value) - size
    low, high = (mpf(-1), mpf(1)) if compare == "diff" else (mpf("1e-30"), mpf("1e6"))
    near = mpf("1e-25")
    if compare == "diff":
        low, high = low + near, high - near
    if f(low) < 0:
        return mpf(-1) if compare == "diff" else mpf(0)
    if f(high) > 0:
        return mpf(1)
    for _ in range(12):  # Closer, by halves, before the secant method.
        middle = (low + high) / 2 if compare == "diff" else sqrt(low * high)
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return findroot(f, (low, high), solver="anderson", tol=1e-40)


out = []
for arms in [(12, 400, 5, 400), (30, 1000, 45, 900), (7, 7000, 6, 70000), (5, 50, 5, 60), (300, 1000, 250, 1000), (55, 60, 40, 50),
             (9, 100, 90, 10000), (60000, 1000000, 59000, 1000000), (0, 300, 3, 300), (4, 300, 0, 300), (0, 500, 0, 400), (20, 20, 15, 20),
             (1000, 100000000, 900, 100000000), (6, 12, 7, 12)]:
    x1, n1, x0, n0 = arms
    for level, margin in [(0.95, 0.0), (0.9, 0.01), (0.99, -0.02)]:
        row = {"x": [x0, x1], "n": [n0, n1], "level": level, "margin": margin}
        for compare, value in [("diff", margin), ("ratio", 1 + 5 * margin)]:
            if compare == "ratio" and x0 == 0:
                continue
            z = norm.isf((1 - level) / 2)
            if margin or x0 + x1:
                exact = score(*arms, compare, mpf(value))
                if min(x0, x1, n0 - x0, n1 - x1) > 0 and (compare == "ratio" or not value):
                    t = test_proportions_2indep(*arms, value=value, method="score", compare=compare)
                    assert abs(t.statistic - exact) < 1e-7 * abs(exact) + 1e-9, (arms, compare, t.statistic, exact)
                row[compare + "_statistic"] = float(exact)
                row[compare + "_p"] = float(2 * norm.sf(abs(float(exact))))
            bounds = [bound(arms, compare, side * mpf(z)) for side in (1, -1)]
            if compare == "ratio" and min(x1, n1 - x1, n0 - x0) > 0:
                ci = confint_proportions_2indep(*arms, method="score", compare=compare, alpha=1 - level)
                assert all(abs(float(exact) - at) < 1e-6 * at for exact, at in zip(bounds, ci)), (arms, bounds, ci)
            bounds = [float(exact - (compare == "ratio")) for exact in bounds]
            row[compare] = bounds
        row["call"] = "findroot(score(x1, n1, x0, n0, compare, value) -+ z); test_proportions_2indep(x1, n1, x0, n0, value, method='score', compare) where it is right"
        out.append(row)
print("[\n  " + ",\n  ".join(map(json.dumps, out)) + "\n]")
