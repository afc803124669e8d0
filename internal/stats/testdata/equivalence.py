"""Writes equivalence-python.json: two one-sided t-tests by statsmodels, and on the
lift by the delta method.  Run: python3 equivalence.py > equivalence-python.json
(numpy 1.24.2, scipy 1.10.1, statsmodels 0.13.5)

The lift is done by linearisation, as in reference.py: every subject gets its own
influence value, and the variance of the estimate is that of their mean.
"""
import json

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.weightstats import ttost_ind

rng = np.random.default_rng(20260107)


def two_one_sided(value, parts, sizes, margin, level):
    se = float(np.sqrt(sum(parts)))
    df = float(sum(parts) ** 2 / sum(v**2 / (n - 1) for v, n in zip(parts, sizes)))
    p = max(stats.t.sf((value + margin) / se, df), stats.t.cdf((value - margin) / se, df))
    t = optimize.brentq(lambda t: stats.t.sf(t, df) - (1 - level), 0, 100, xtol=1e-13, rtol=1e-14)
    return {"p": float(p), "lower": float(value - t * se), "upper": float(value + t * se)}


out = []
for k in range(14):
    n = rng.integers(20, 50, 2)
    sign = -1 if k % 5 == 4 else 1
    x = sign * rng.gamma(4, 2 + 0.02 * k, n[0])
    y = sign * rng.gamma(4, 2, n[1])
    level, margin, relative = [0.95, 0.9, 0.99][k % 3], 0.4 + 0.1 * k, 0.05 + 0.02 * k
    p, _, _ = ttost_ind(x, y, -margin, margin, usevar="unequal")
    a, b = x.mean(), y.mean()
    parts = [x.var(ddof=1) / n[0], y.var(ddof=1) / n[1]]
    absolute = two_one_sided(a - b, parts, n, margin, level)
    assert abs(absolute["p"] / p - 1) < 1e-12
    absolute["p"] = float(p)
    lift = two_one_sided((a - b) / abs(b), [(x / b).var(ddof=1) / n[0], (a * y / b**2).var(ddof=1) / n[1]], n, relative, level)
    out.append({
        "call": "ttost_ind(x, y, -margin, margin, usevar='unequal'); lift: stats.t.sf and cdf at var(x/b), var(a*y/b**2)",
        "level": level, "margin": margin, "relative": relative, "treatment": x.tolist(), "control": y.tolist(),
        "absolute": absolute, "lift": lift,
    })
print("[\n  " + ",\n  ".join(map(json.dumps, out)) + "\n]")
