"""Writes equivalence-python.json: two one-sided tests of a difference and of a lift, as
judge.py has them.  Run: python3 equivalence.py > equivalence-python.json
(numpy 1.24.2, scipy 1.10.1)
"""
import json

import numpy as np
from scipy import stats

from judge import Pair, quantile

rng = np.random.default_rng(20260107)


def two_one_sided(score, df, bound, margin, level):
    """Each side has the degrees of freedom of its own margin."""
    above, below = score(-margin), score(margin)
    p = max(stats.t.sf(above, df(-margin)), stats.t.cdf(below, df(margin)))
    return {"p": float(p), "lower": float(bound(quantile(1 - level, df(-margin)))), "upper": float(bound(-quantile(1 - level, df(margin))))}


out = []
for k in range(14):
    n = rng.integers(20, 50, 2)
    sign = -1 if k % 5 == 4 else 1
    x = sign * rng.gamma(4, 2 + 0.02 * k, n[0])
    y = sign * rng.gamma(4, 2, n[1])
    level, margin, relative = [0.95, 0.9, 0.99][k % 3], 0.4 + 0.1 * k, 0.05 + 0.02 * k
    pair = Pair((x.mean(), y.mean()), (x, y))
    d, se = pair.t - pair.c, np.sqrt(pair.variance(pair.b(0)))
    absolute = two_one_sided(lambda m: (d - m) / se, lambda m: pair.df(), lambda k: d - k * se, margin, level)
    lift = two_one_sided(pair.score, pair.df, pair.bound, relative, level)
    out.append({
        "call": "judge.py: Pair((mean(x), mean(y)), (x, y)); stats.t.sf at -margin and cdf at margin",
        "level": level, "margin": margin, "relative": relative, "treatment": x.tolist(), "control": y.tolist(),
        "absolute": absolute, "lift": lift,
    })
print("[\n  " + ",\n  ".join(map(json.dumps, out)) + "\n]")
