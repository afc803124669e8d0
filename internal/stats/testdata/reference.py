"""Writes reference-python.json: numbers from numpy and scipy for the tests of
this package.  Run: python3 reference.py > reference-python.json
(numpy 1.24.2, scipy 1.10.1)

Ratios are done by linearisation: every subject gets its own influence value,
and the variance of the estimate is the sample variance of those values over n.
That is the delta method without a covariance matrix or a gradient.
"""
import json

import numpy as np
from scipy import optimize, stats

from judge import Pair

rng = np.random.default_rng(20260105)


def influence_ratio(x, y):
    r = x.mean() / y.mean()
    return r, (x - r * y) / y.mean()


# Ratios, and their lifts by Fieller.
ratios = []
for k in range(12):
    na, nb = rng.integers(20, 50, 2)
    ya, yb = 1 + rng.poisson(2, na), 1 + rng.poisson(3, nb)
    sign = -1 if k % 4 == 3 else 1
    xa, xb = sign * ya * rng.gamma(4, 2, na) + rng.normal(0, 1, na), sign * yb * rng.gamma(4, 2.5, nb) + rng.normal(0, 1, nb)
    level = [0.95, 0.9, 0.99][k % 3]
    a, za = influence_ratio(xa, ya)
    b, zb = influence_ratio(xb, yb)
    pair, margin = Pair((a, b), (za, zb)), 0.05
    difference, relative = pair.difference(level), pair.lift(level)
    at_margin = pair.lift(level, margin)
    t, u = pair.score(0), pair.score(margin)
    ratios.append({
        "call": "z = (x - r*y)/mean(y); judge.py: Pair((a, b), (za, zb)).difference(level), .lift(level), .lift(level, margin)",
        "level": level, "margin": margin,
        "treatment": {"x": xa.tolist(), "y": ya.tolist(), "value": float(a), "se": float(np.sqrt(za.var(ddof=1) / na))},
        "control": {"x": xb.tolist(), "y": yb.tolist(), "value": float(b), "se": float(np.sqrt(zb.var(ddof=1) / nb))},
        "difference": difference, "lift": relative, "lift_at_margin": at_margin,
        "statistic": float(t), "p": float(2 * stats.t.sf(abs(t), difference["df"])),
        "lift_statistic": float(u), "lift_p": float(2 * stats.t.sf(abs(u), at_margin["df"])),
    })

# CUPED of a ratio: theta from the least squares regression of the linearised
# metric on arm and covariate, then influence values less theta times covariate.
cuped = []
for k in range(10):
    n = rng.integers(40, 80, 2)
    arm = np.repeat([0, 1], n)
    c = rng.gamma(3, 2, n.sum())
    y = 1 + rng.poisson(2, n.sum())
    x = y * (c * (0.3 + 0.1 * k) + rng.normal(0, 2, n.sum())) + arm
    r, z = influence_ratio(x, y)  # at the means of all subjects
    design = np.column_stack([np.ones(n.sum()), arm, c])
    theta = np.linalg.lstsq(design, z, rcond=None)[0][2]
    value, values = [0, 0], [0, 0]
    plain = [0, 0]
    for a in (0, 1):
        at = arm == a
        ra, za = influence_ratio(x[at], y[at])
        plain[a] = za
        value[a] = ra - theta * (c[at].mean() - c.mean())
        values[a] = za - theta * c[at]
    # Both values contain theta times the mean of all c, which is chance too.
    pair = Pair(value[::-1], values[::-1], [theta * c[arm == 1], theta * c[arm == 0]])
    own = Pair((0, 1), plain[::-1]).own.sum()
    cuped.append({
        "call": "lstsq([1, arm, c], z) for theta; judge.py: Pair((t, c), z - theta*c, theta*c).difference(0.95), .lift(0.95)",
        "arm": arm.tolist(), "x": x.tolist(), "y": y.tolist(), "c": c.tolist(),
        "treatment": float(value[1]), "control": float(value[0]),
        "difference": pair.difference(0.95), "lift": pair.lift(0.95),
        "reduction": float(1 - pair.own.sum() / own),
    })


# Always valid: equation (9) of Waudby-Smith et al. (arXiv:2103.06476v7) as it is printed,
# with sigma = se*sqrt(N); the p-value by a root search over alpha with rho fixed.
def half_width(sigma, n, rho, alpha):
    return sigma * np.sqrt(2 * (n * rho**2 + 1) / (n**2 * rho**2) * np.log(np.sqrt(n * rho**2 + 1) / alpha))


always = []
for n, planned, alpha, se, estimate in [
    (100, 10000, 0.05, 0.2, 0.9), (1000, 10000, 0.05, 0.1, 0.35), (10000, 10000, 0.05, 0.01, 0.04),
    (10000, 10000, 0.05, 0.01, 0.02), (50000, 20000, 0.01, 0.002, -0.009), (2, 10000, 0.05, 1.0, 100.0),
    (1000000, 10000, 0.05, 0.001, 0.0045), (1000000000, 20000, 0.1, 1e-6, 9e-6), (300, 300, 0.2, 3.0, 8.0),
    (12345, 54321, 0.001, 0.7, 3.3), (500, 100, 0.49, 0.05, 0.1), (7777, 1, 0.05, 0.05, 0.25), (100000, 1000000, 0.05, 0.01, 0.06),
]:
    rho = np.sqrt((-2 * np.log(alpha) + np.log(-2 * np.log(alpha) + 1)) / planned)
    sigma = se * np.sqrt(n)
    gap = lambda log_p: half_width(sigma, n, rho, np.exp(log_p)) - abs(estimate)
    log_p = 0.0 if gap(0.0) >= 0 else optimize.brentq(gap, -700, 0, xtol=1e-13, rtol=1e-15)
    always.append({
        "call": "sigma*sqrt(2*(n*rho**2+1)/(n**2*rho**2)*log(sqrt(n*rho**2+1)/alpha)); brentq for p",
        "n": n, "planned": planned, "alpha": alpha, "se": se, "estimate": estimate,
        "half": float(half_width(sigma, n, rho, alpha)), "p": float(np.exp(log_p)),
    })

# Several phases: sums of scipy.stats.chisquare.
phases = []
for k in range(10):
    count = 1 + k % 4
    observed = [rng.multinomial(500 * (k + 1), [0.5, 0.3, 0.2]).tolist() for _ in range(count)]
    weights = [[5, 3, 2] if k % 2 else [4, 4, 2] for _ in range(count)]
    statistic, df = 0.0, 0
    for o, w in zip(observed, weights):
        expected = np.array(w) / sum(w) * sum(o)
        statistic += stats.chisquare(o, expected).statistic
        df += len(o) - 1
    phases.append({"call": "sum of scipy.stats.chisquare(o, e).statistic; stats.chi2.sf",
                   "observed": observed, "weights": weights, "statistic": float(statistic), "df": df,
                   "p": float(stats.chi2.sf(statistic, df))})

out = {"ratios": ratios, "cuped": cuped, "always": always, "phases": phases}
print("{")
for i, (name, items) in enumerate(out.items()):
    print(json.dumps(name) + ": [\n  " + ",\n  ".join(map(json.dumps, items)) + "\n]" + ("," if i + 1 < len(out) else ""))
print("}")
