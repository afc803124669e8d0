"""Writes sequential-python.json: boundaries where rpact has too few digits, at
looks that are many, close together, or spend almost nothing.

Run with scipy 1.10: /usr/bin/python3 sequential.py > sequential-python.json
Every row holds the call that made it.

The densities are those of the score, a Brownian motion at the information of
the looks, over its region of continuation (Armitage, McPherson and Rowe 1969),
by 1,200 Gauss-Legendre points at every look. Three looks of a one-sided test
agree with mvtnorm's TVPACK, and what mpmath's quad makes of two looks in 40
digits is in the file as well.
"""
import json
import mpmath
import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri_exp

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(1200)


def upper_quantile(chance):
    return -ndtri_exp(np.log(chance))


def spent(spending, rate, t):
    """What one side spends."""
    if t >= 1:
        return rate
    if spending == 2:
        return rate * np.log1p((np.e - 1) * t)
    return 2 * np.exp(log_ndtr(-upper_quantile(rate / 2) / np.sqrt(t)))


def boundaries(spending, sided, alpha, times):
    rate, before, out = alpha / sided, 0.0, []
    x = w = None
    for i, t in enumerate(times):
        now = spent(spending, rate, t)
        chance, before = now - before, now
        if x is None:
            c = upper_quantile(chance)
        else:
            width = np.sqrt(t - times[i - 1])

            def above(c):
                return np.log(np.sum(w * ndtr(-(c * np.sqrt(t) - x) / width))) - np.log(chance)

            highest = (c * np.sqrt(times[i - 1]) + 25 * width) / np.sqrt(t)
            c = brentq(above, 0, min(upper_quantile(chance) + 1e-6, highest), xtol=1e-14, rtol=1e-14)
        out.append(c)
        top = min(c, 12) * np.sqrt(t)
        bottom = -top if sided == 2 else -12 * np.sqrt(t)
        y = bottom + (top - bottom) * (POINTS + 1) / 2
        if x is None:
            density = np.exp(-y * y / t / 2) / np.sqrt(2 * np.pi * t)
        else:
            density = np.exp(-((y[:, None] - x[None, :]) / width) ** 2 / 2) @ w / width / np.sqrt(2 * np.pi)
        x, w = y, density * WEIGHTS * (top - bottom) / 2
    return out


def exact(spending, alpha, times):
    """The second of two one-sided looks, in 40 digits."""
    mpmath.mp.dps = 40
    mp, alpha = mpmath, mpmath.mpf(alpha)
    tail = lambda z: mp.erfc(z / mp.sqrt(2)) / 2
    quantile = lambda p: mp.findroot(lambda z: mp.log(tail(z)) - mp.log(p), upper_quantile(float(p)))
    side = lambda t: alpha if t >= 1 else (
        2 * tail(quantile(alpha / 2) / mp.sqrt(t)) if spending == 1 else alpha * mp.log(1 + (mp.e - 1) * t))
    s, t = map(mp.mpf, times)
    first = quantile(side(s))
    rho = mp.sqrt(s / t)
    both = lambda c: mp.quad(lambda z: mp.npdf(z) * tail((c - rho * z) / mp.sqrt(1 - rho * rho)), [-12, -4, 0, first / 2, first])
    second = mp.findroot(lambda c: mp.log(both(c)) - mp.log(side(t) - side(s)), float(first))
    return [float(first), float(second)]


schedules = [
    (0.1, [0.6, 0.62, 0.64, 1]), (0.2, [0.8, 0.9, 0.95, 1]), (0.05, [0.1, 0.11, 0.12, 0.5, 1]),
    (0.05, [(i + 1) / 20 for i in range(20)]), (0.05, [(i + 1) / 50 for i in range(50)]), (0.05, [0.5, 0.503, 1.2]),
    (0.05, [0.2, 0.9, 1.7]), (0.0001, [0.25, 0.5, 0.75, 1]), (0.4, [0.3, 0.31, 0.9, 1]), (0.05, [0.04, 0.05, 0.5, 1]),
    (0.001, [0.5, 0.75, 0.8]), (0.05, [0.999, 1.1]), (0.01, [0.3, 0.35, 0.9, 1]),
]
designs = [
    {"call": "brentq(sum(w * ndtr(-(c * sqrt(t) - x) / width)) - chance) over 1,200 Gauss-Legendre points a look",
     "spending": spending, "sided": sided, "alpha": alpha, "times": times, "boundaries": boundaries(spending, sided, alpha, times)}
    for alpha, times in schedules for spending in (1, 2) for sided in (1, 2)
]
designs += [
    {"call": "findroot(quad(npdf(z) * erfc((c - rho*z) / sqrt(2*(1 - rho*rho)))/2, [-12, first]) - chance), 40 digits",
     "spending": spending, "sided": 1, "alpha": alpha, "times": times, "boundaries": exact(spending, alpha, times)}
    for alpha, times in [(0.05, [0.02, 1]), (0.025, [0.5, 0.501]), (1e-12, [0.5, 1]), (0.3, [0.9, 1.05])] for spending in (1, 2)
]
print('{"designs": [\n  ' + ",\n  ".join(json.dumps(d) for d in designs) + "\n]}")
