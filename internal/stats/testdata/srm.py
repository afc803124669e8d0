"""Writes srm.json: the sequential multinomial test for sample-ratio mismatch,
with 60 digits.  Run: python3 srm.py > srm.json   (mpmath 1.2.1)

The Bayes factor is written as in Lindon and Malek (2022): the Dirichlet
multinomial probability of the counts over their multinomial probability, the
multinomial coefficient left out of both. "published" are p-values after each
day, as printed in the tests of GrowthBook (packages/back-end/test/ssrm.test.ts,
made with its gbstats.ssrm.sequential_p_values), good to six digits and more.
"""
import json

from mpmath import exp, log, loggamma, mp, mpf

mp.dps = 60


def log_factor(observed, weights, concentration=10000):
    weights = [mpf(w) for w in weights]
    pairs = [(mpf(x), w / sum(weights)) for x, w in zip(observed, weights) if w > 0]
    n, a = sum(x for x, _ in pairs), mpf(concentration)
    factor = loggamma(a) - loggamma(a + n)
    for x, share in pairs:
        factor += loggamma(a * share + x) - loggamma(a * share) - x * log(share)
    return factor


def p_value(*splits):
    """The splits of several phases are independent: their factors multiply."""
    return min(mpf(1), exp(-sum(log_factor(observed, weights) for observed, weights in splits)))


cases = []
for observed, weights in [
    ([1, 0], [1, 1]), ([0, 1], [1, 999]), ([1, 0], [1, 999]), ([500, 500], [1, 1]), ([800, 200], [1, 1]),
    ([5300, 4700], [1, 1]), ([821588, 815482], [1, 1]), ([600, 200, 200], [0.34, 0.33, 0.33]),
    ([1000, 998001], [1, 999]), ([1200, 998800], [1, 999]), ([0, 30000], [1, 999]),
    ([500100000, 499900000], [1, 1]), ([500000500, 499999500], [1, 1]), ([333400000, 333300000, 333300000], [1, 1, 1]),
    ([1000000000, 1001000], [999, 1]), ([30, 0, 70], [3, 0, 7]), ([1300, 2000, 3000, 4000], [1, 2, 3, 4]),
    ([60500, 39500], [6, 4]), ([73500, 66500], [1, 1]), ([10400, 9600, 1], [1, 1, 1e-9]), ([100, 100, 3], [1, 1, 0.0002]),
    ([5, 3, 9, 1, 2], [0.1, 0.15, 0.2, 0.25, 0.3]), ([500000000000000, 500000100000000], [1, 1]), ([52000, 48000, 99999], [1, 1, 2]), ([71650, 128350], [2, 3]),
    ([100, 100, 3], [1, 1, 0.0005]), ([0, 1000000000], [1e-9, 1]), ([500580000, 499420000], [1, 1]),
    ([499000000, 501000000], [0.4992, 0.5008]),
]:
    cases.append({"call": "1/exp(loggamma(a) - loggamma(a+n) + sum(loggamma(a*s+x) - loggamma(a*s) - x*log(s)))",
                  "observed": observed, "weights": weights, "p": float(p_value((observed, weights)))})

# Phases: an intact split, one that is off in the same direction or in opposite
# ones, arms that come and go, a phase that is huge, tiny or empty.
phases = []
for observed, weights in [
    ([[5120, 4880], [2590, 7410]], [[1, 1], [1, 3]]),
    ([[5200, 4800], [4800, 5200]], [[1, 1], [1, 1]]),
    ([[5200, 4800], [5200, 4800]], [[1, 1], [1, 1]]),
    ([[900, 100, 0], [8200, 1300, 900], [33000, 33500, 33100]], [[9, 1, 0], [8, 1, 1], [1, 1, 1]]),
    ([[10, 3], [0, 0], [6100, 5900], [41000, 39000]], [[0.5, 0.5], [0.1, 0.9], [1, 1], [1, 1]]),
    ([[99, 1], [950, 50], [7800, 2200], [5060, 4940]], [[99, 1], [95, 5], [80, 20], [50, 50]]),
    ([[250100000, 249900000], [1000, 1]], [[1, 1], [999, 1]]),
    ([[1, 0], [0, 1], [1, 0], [0, 2], [3, 0]], [[1, 1], [1, 1], [2, 1], [1, 5], [1, 7]]),
    ([[333000, 334000, 335000], [30, 40, 50]], [[1, 1, 1], [0.2, 0.3, 0.5]]),
    ([[2000, 2000, 2000, 2000, 2300], [40000, 10000, 10000, 10000, 10400]], [[1, 1, 1, 1, 1], [4, 1, 1, 1, 1]]),
    ([[0, 1700], [10600, 89000]], [[1, 99], [1, 9]]),
    ([[700000, 706500], [1000000000, 1000020000], [48, 60]], [[1, 1], [1, 1], [3, 4]]),
    ([[60100, 39900], [51000, 49000], [70200, 29800], [50500, 49500], [20, 31]], [[6, 4], [0.51, 0.49], [7, 3], [1, 1], [2, 3]]),
    ([[5000, 5000], [333, 967]], [[1, 1], [1, 2]]),
]:
    phases.append({"call": "1/exp(sum over phases of loggamma(a) - loggamma(a+n) + sum(loggamma(a*s+x) - loggamma(a*s) - x*log(s)))",
                   "observed": observed, "weights": weights, "p": float(p_value(*zip(observed, weights)))})

published = [
    {"days": [[800, 200]], "weights": [0.5, 0.5], "p": [8.126155715401769e-8]},
    {"days": [[500, 500], [600, 400], [700, 300], [800, 200]], "weights": [0.5, 0.5],
     "p": [1, 0.20685901461423034, 1.099173293697608e-6, 5.115536116778213e-23]},
    {"days": [[500, 500], [600, 600], [700, 700]], "weights": [0.5, 0.5], "p": [1, 1, 1]},
    {"days": [[400, 200, 400], [400, 200, 400]], "weights": [0.4, 0.2, 0.4], "p": [1, 1]},
    {"days": [[600, 200, 200]], "weights": [0.34, 0.33, 0.33], "p": [1.4343631225400445e-6]},
    {"days": [[500, 500], [0, 0], [600, 400]], "weights": [0.5, 0.5], "p": [1, 1, 0.20685901461423034]},
]

published = [{"call": "ssrm.test.ts: gbstats.ssrm.sequential_p_values(days, weights)", **row} for row in published]

print('{"cases": [\n  ' + ",\n  ".join(map(json.dumps, cases)) + '\n],\n"published": [\n  '
      + ",\n  ".join(map(json.dumps, published)) + '\n],\n"phases": [\n  ' + ",\n  ".join(map(json.dumps, phases)) + "\n]}")
