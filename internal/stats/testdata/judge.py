"""What the Python reference scripts take for the test of a difference and of a lift:
the rules of judge.R, on influence values of the subjects (numpy 1.24.2, scipy 1.10.1).

z are each arm's values, treatment first, whose mean is the arm's estimate up to a
constant; x is what both arms' estimates have in common through its mean over all
subjects, and 0 for none. At T(L) = (t - c) - L|c| a subject counts with
b_k*z + (b_t + b_c)*(n_k/N)*x, b_t = 1, b_c = -(1 + L*sign(c)). The variance is the
larger of Welch's and of that with both arms' pooled variance of z, as it is for the
difference. All subjects are informative.
"""
import numpy as np
from scipy import optimize, stats


class Pair:
    def __init__(self, values, z, x=(0, 0)):
        self.t, self.c = values
        self.sign, self.base = np.sign(self.c), abs(self.c)
        self.z = [np.asarray(v, dtype=float) for v in z]
        self.n = np.array([len(v) for v in self.z])
        self.x = [np.zeros(n) + v for n, v in zip(self.n, x)]
        squares = np.array([v.var(ddof=1) * (n - 1) for v, n in zip(self.z, self.n)])
        self.own = np.array([v.var(ddof=1) / n for v, n in zip(self.z, self.n)])
        pooled = squares.sum() / (self.n.sum() - 2) * (1 / self.n).sum()
        self.extra = max(0, pooled - self.own.sum()) * (1 / self.n) / (1 / self.n).sum()

    def parts(self, b):
        """Each cell's own variance of b_t*t + b_c*c."""
        return np.array([
            (k * z + sum(b) * n / self.n.sum() * x).var(ddof=1) / n for k, z, x, n in zip(b, self.z, self.x, self.n)])

    def b(self, lift):
        return np.array([1, -(1 + self.sign * lift)])

    def variance(self, b):
        return self.parts(b).sum() + (np.square(b) * self.extra).sum()

    def df(self, lift=0):
        v = self.parts(self.b(lift))
        return v.sum() ** 2 / (v**2 / (self.n - 1)).sum()

    def score(self, lift):
        return (self.t - self.c - lift * self.base) / np.sqrt(self.variance(self.b(lift)))

    def difference(self, level):
        return self.effect(self.t - self.c, np.sqrt(self.variance(self.b(0))), self.df(), level)

    @staticmethod
    def effect(value, se, df, level):
        k = quantile((1 - level) / 2, df)
        return {"estimate": float(value), "se": float(se), "df": float(df), "lower": float(value - k * se), "upper": float(value + k * se)}

    def bound(self, k):
        """Where the score of a lift is k."""
        at = (self.t - self.c) / self.base
        far = np.sqrt(self.variance(self.b(0))) / self.base
        while (self.score(at - np.sign(k) * far) - k) * np.sign(k) < 0:
            far *= 2
        return optimize.brentq(lambda l: self.score(l) - k, *sorted((at, at - np.sign(k) * far)), xtol=1e-300, rtol=1e-15)

    def lift(self, level, margin=0):
        df = self.df(margin)
        k = quantile((1 - level) / 2, df)
        assert self.base / np.sqrt(self.variance([0, 1])) > k
        slopes = [1 / self.base, -self.t / (self.c * self.base)]
        return {"estimate": float((self.t - self.c) / self.base), "se": float(np.sqrt(self.variance(slopes))), "df": float(df),
                "lower": float(self.bound(k)), "upper": float(self.bound(-k))}


def quantile(tail, df):
    """stats.t.ppf is good to eight digits only when df is not whole."""
    return optimize.brentq(lambda t: stats.t.sf(t, df) - tail, 0, 1000, xtol=1e-13, rtol=1e-14)
