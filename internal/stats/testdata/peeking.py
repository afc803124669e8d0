"""Share of experiments without a difference in which the always-valid method
is ever wrong, watched after every pair of subjects up to 10,000 subjects, at
alpha = 0.05; by how many subjects were planned and when the watching began.
Run: python3 peeking.py (numpy 1.24.2, a quarter of a minute)
"""
import numpy as np

rng = np.random.default_rng(1)
ALPHA, SUBJECTS, EXPERIMENTS = 0.05, 10000, 600


def ever_wrong(draw, planned, first):
    hits = 0
    rho2 = (-2 * np.log(ALPHA) + np.log(1 - 2 * np.log(ALPHA))) / planned
    n = np.arange(1, SUBJECTS // 2 + 1)  # in each arm
    for _ in range(EXPERIMENTS):
        means, variances = [], []
        for x in draw(len(n)):
            m = np.cumsum(x) / n
            means.append(m)
            variances.append((np.cumsum(x * x) - n * m * m) / np.maximum(n - 1, 1))
        se = np.sqrt(sum(variances) / n)
        at = (n >= first // 2) & (se > 1e-12)
        z = (means[0] - means[1])[at] / se[at]
        t = 2 * n[at] * rho2
        hits += (0.5 * np.log1p(t) - z * z * t / (2 * (t + 1)) < np.log(ALPHA)).any()
    return hits / EXPERIMENTS


for name, draw in {
    "normal": lambda n: rng.normal(size=(2, n)),
    "exponential": lambda n: rng.exponential(size=(2, n)),
    "conversion 1 %": lambda n: (rng.random((2, n)) < 0.01).astype(float),
    "conversion 20 %": lambda n: (rng.random((2, n)) < 0.2).astype(float),
    "log-normal, sigma 2": lambda n: np.exp(2 * rng.normal(size=(2, n))),
}.items():
    for planned in (100, 1000, 10000, 100000):
        shares = [ever_wrong(draw, planned, first) for first in (4, 40, 400)]
        print(f"{name:20} planned {planned:6}  from subject 4: {shares[0]:.3f}  40: {shares[1]:.3f}  400: {shares[2]:.3f}", flush=True)
