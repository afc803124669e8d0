"""Writes ratepower.json: the power of the comparison of two rates at a fixed horizon.
Run: /usr/bin/python3 ratepower.py > ratepower.json   (scipy 1.10.1)

"exact" sums scipy.stats.binom.pmf over all pairs of events of which the rule says that
the effect is found. The rule: an arm's informative subjects are the rarer of events and
others. If an arm has fewer than 5, and the pooled share lets the smaller arm expect fewer
than 5 too, nothing is found but that a margin is kept, by the exact test
scipy.stats.binom.cdf(x, n, margin) <= alpha of the arm that could break it (of the
others, with the arms in each other's place, if events are more than they). Else it is the
score test of Miettinen and Nurminen (1985) with the factor N/(N - 1), at the root of the
derivative of the likelihood, by scipy.optimize.brentq.

"normal" is the formula for many events (Farrington and Manning 1990, method 3): the score
test's variance at the same root for the expected events, and scipy.stats.norm.
"""
import json
from functools import lru_cache
from math import sqrt

from scipy.optimize import brentq
from scipy.stats import binom, norm


@lru_cache(maxsize=None)
def fit(x0, n0, x1, n1, scale, null):
    """The rates that fit best if the treatment's is c + null, or c * (1 + null)."""
    if null == 0:
        c = (x0 + x1) / (n0 + n1)
        return c, c
    t = (lambda c: c + null) if scale == 0 else (lambda c: c * (1 + null))
    slope = 1 if scale == 0 else 1 + null
    low, high = (max(0, -null), min(1, 1 - null)) if scale == 0 else (0, min(1, 1 / (1 + null)))
    term = lambda x, p: x / p if x else 0

    def derivative(c):
        return term(x0, c) - term(n0 - x0, 1 - c) + slope * (term(x1, t(c)) - term(n1 - x1, 1 - t(c)))

    edge = 1e-15 * (high - low)
    if derivative(low + edge) <= 0:
        return low, t(low)
    if derivative(high - edge) >= 0:
        return high, t(high)
    c = brentq(derivative, low + edge, high - edge, xtol=1e-17, rtol=1e-14)
    return c, t(c)


def deviation(c, t, n0, n1, scale, null):
    ratio = 1 if scale == 0 else 1 + null
    return sqrt(max(0, ratio**2 * c * (1 - c) / n0 + t * (1 - t) / n1))


def score(x0, n0, x1, n1, scale, null):
    c, t = fit(x0, n0, x1, n1, scale, null)
    s = deviation(c, t, n0, n1, scale, null) * sqrt((n0 + n1) / (n0 + n1 - 1))
    distance = x1 / n1 - x0 / n0 - null if scale == 0 else x1 / n1 - (1 + null) * x0 / n0
    return distance / s if s > 0 else 0.0


def keeps(x0, n0, x1, n1, scale, side, margin, alpha):
    """Whether t - c > -margin ("greater") or < margin ("less") by one rate alone."""
    if 2 * (x0 + x1) > n0 + n1:  # The others are those of failures; c - t of these is t - c.
        x0, n0, x1, n1 = n1 - x1, n1, n0 - x0, n0
    elif scale == 1:
        return False
    if side == "greater":
        return binom.cdf(x0, n0, margin) <= alpha
    if scale == 1:  # t/c - 1 is at most 1/c - 1.
        margin = margin / (1 + margin)
    return binom.cdf(x1, n1, margin) <= alpha


def found(x0, n0, x1, n1, scale, alternative, margin, alpha):
    i0, i1 = min(x0, n0 - x0), min(x1, n1 - x1)
    few = min(i0, i1) < 5 and (i0 + i1) / (n0 + n1) * min(n0, n1) < 5
    if alternative == "two":
        return not few and abs(score(x0, n0, x1, n1, scale, 0)) >= norm.isf(alpha / 2)
    sides = ["greater", "less"] if alternative == "equivalent" else [alternative]
    for side in sides:
        null = -margin if side == "greater" else margin
        if few:
            good = margin > 0 and keeps(x0, n0, x1, n1, scale, side, margin, alpha)
        elif scale == 1 and x0 == 0:
            good = False
        else:
            z = score(x0, n0, x1, n1, scale, null)
            good = (z if side == "greater" else -z) >= norm.isf(alpha)
        if not good:
            return False
    return True


def exact(c, t, n0, n1, scale, alternative, margin, alpha):
    window = lambda n, p: range(int(binom.ppf(1e-11, n, p)), int(binom.isf(1e-11, n, p)) + 1)
    columns = [(y, binom.pmf(y, n1, t)) for y in window(n1, t)]
    return sum(binom.pmf(x, n0, c) * sum(w for y, w in columns if found(x, n0, y, n1, scale, alternative, margin, alpha)) for x in window(n0, c))


def normal(c, t, n0, n1, scale, alternative, margin, alpha):
    def beyond(side, null, alpha):
        z = norm.isf(alpha)
        s0 = deviation(*fit(n0 * c, n0, n1 * t, n1, scale, null), n0, n1, scale, null)
        s1 = deviation(c, t, n0, n1, scale, null)
        distance = t - c - null if scale == 0 else t - (1 + null) * c
        return norm.sf((z * s0 - (distance if side == "greater" else -distance)) / s1)

    if alternative == "two":
        return beyond("greater", 0, alpha / 2) + beyond("less", 0, alpha / 2)
    if alternative == "equivalent":
        return max(0, beyond("greater", -margin, alpha) + beyond("less", margin, alpha) - 1)
    return beyond(alternative, -margin if alternative == "greater" else margin, alpha)


few = [  # c, t, n0, n1, scale, alternative, margin, alpha
    (0.001, 0.001, 125, 124, 0, "greater", 0.01, 0.05), (0.005, 0.005, 616, 616, 0, "greater", 0.01, 0.05),
    (0.001, 0.001, 3089, 3089, 0, "less", 0.002, 0.05), (0.02, 0.02, 2425, 2424, 0, "greater", 0.01, 0.05),
    (0.05, 0.05, 1470, 1469, 0, "less", 0.02, 0.05), (0.0005, 0.005, 2124, 2124, 0, "two", 0, 0.05),
    (0.001, 0.001, 360, 360, 0, "less", 0.01, 0.05), (0.001, 0.001, 300, 900, 0, "less", 0.01, 0.025),
    (0.002, 0.001, 900, 300, 0, "equivalent", 0.01, 0.05), (0.999, 0.999, 400, 400, 0, "greater", 0.01, 0.05),
    (0.995, 0.99, 700, 400, 1, "greater", 0.02, 0.05), (0.995, 0.99, 400, 700, 1, "less", 0.02, 0.05), (0.01, 0.01, 1500, 500, 1, "greater", 0.5, 0.05),
    (0.02, 0.03, 5000, 100, 0, "greater", 0, 0.1), (0.3, 1, 4, 4, 0, "two", 0, 0.05), (0.25, 0.4, 30, 90, 0, "two", 0, 0.05),
    (0.5, 0.9, 14, 13, 0, "two", 0, 0.05), (0.9, 0.6, 30, 30, 0, "less", 0, 0.01), (0.5, 0.5, 40, 60, 0, "equivalent", 0.35, 0.05),
    (0.001, 0.002, 99000, 1000, 0, "two", 0, 0.05), (0.003, 0.001, 500, 500, 0, "less", 0, 0.05), (0.01, 0.008, 2000, 1800, 1, "equivalent", 0.9, 0.1),
]
many = [
    (0.1, 0.12, 3841, 3841, 0, "two", 0, 0.05), (0.1, 0.08, 3000, 3000, 0, "two", 0, 0.05), (0.5, 0.55, 1600, 1600, 0, "two", 0, 0.05),
    (0.01, 0.0105, 500000, 250000, 0, "two", 0, 0.05), (0.9, 0.85, 2500, 2500, 0, "less", 0, 0.01), (0.1, 0.102, 20000, 5000, 0, "greater", 0.01, 0.025),
    (0.6, 0.59, 3000, 3000, 1, "greater", 0.05, 0.05), (0.3, 0.33, 1500, 4500, 0, "less", 0.06, 0.1), (0.15, 0.13, 7000, 3000, 1, "less", 0.1, 0.05),
    (0.05, 0.05, 90000, 9000, 0, "equivalent", 0.01, 0.05), (0.2, 0.201, 9000, 20000, 1, "equivalent", 0.08, 0.01), (0.3, 0.3, 1000, 1000, 0, "two", 0, 0.05),
    (1e-4, 1.1e-4, 9000000, 3000000, 1, "greater", 0.05, 0.025),
]
keys = ["rate", "treatmentRate", "control", "treatment", "scale", "alternative", "margin", "alpha"]
code = {"two": 0, "greater": 1, "less": 2, "equivalent": 3}
rows = {}
for name, cases, of in [("exact", few, exact), ("normal", many, normal)]:
    rows[name] = []
    for case in cases:
        row = dict(zip(keys, case), power=float(of(*case)))
        if row["alternative"] == "greater":
            row["margin"] = -row["margin"]
        row["alternative"] = code[row["alternative"]]
        rows[name].append(row)
print("{")
print(",\n".join(f'"{name}": [\n  ' + ",\n  ".join(json.dumps(r) for r in list) + "\n]" for name, list in rows.items()))
print("}")
