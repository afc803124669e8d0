"""Writes alwaysvalid.json: the asymptotic confidence sequence one-sided, with a
margin, and of a lift, by mpmath at 40 digits.
Run: /usr/bin/python3 alwaysvalid.py > alwaysvalid.json   (mpmath 1.2.1)

Equation (9) of Waudby-Smith et al. (arXiv:2103.06476v7) as it is printed, with
sigma = se*sqrt(N), N the subjects of both arms, and rho of equation (161) at the
planned subjects. A p-value is the root alpha, with rho fixed, at which the
boundary reaches from the estimate to the null value; 1 if it lies beyond at 1, and
of a one-sided test if the estimate is on the other side. One-sided tests have the
same boundary and drop a bound; that of equivalence has the larger p-value of two.

A lift L is judged by Fieller's method: T(L) = (a - b) - L|b| has the variance
v1 + (1 + L*sign(b))^2*v0, in which v1 and v0 are the arms' own, var/n, or those by both
arms' pooled variance where that is more for L = 0. The boundary is that of the normal
score of a t with Satterthwaite's degrees of freedom at the margin, by b - 1 where b is
n, or of zeros and ones the fewer. Alternatives are those of package stats:
0 two-sided, 1 greater, 2 less, 3 equivalent. Every row holds the call that made it.
"""
import json
import random

from mpmath import erfc, exp, findroot, inf, log, loggamma, mp, mpf, pi, quad, sign, sqrt

mp.dps = 40


def half_width(se, n, rho2, alpha):
    sigma = se * sqrt(n)
    return sigma * sqrt(2 * (n * rho2 + 1) / (n**2 * rho2) * log(sqrt(n * rho2 + 1) / alpha))


def one_p(distance, se, n, rho2):
    """p for a distance above the null value."""
    if half_width(se, n, rho2, mpf(1)) >= distance:
        return mpf(1)
    # In ln(alpha), where the square of the boundary is straight.
    gap = lambda u: half_width(se, n, rho2, exp(u)) ** 2 - distance**2
    return exp(findroot(gap, (mpf(-1), mpf(-100)), solver="secant"))


def judge(estimate, se, n, planned, level, alternative, null):
    alpha = 1 - mpf(level)
    rho2 = (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / planned
    half = half_width(se, n, rho2, alpha)
    above = lambda null: one_p(estimate - null, se, n, rho2) if estimate > null else mpf(1)
    below = lambda null: one_p(null - estimate, se, n, rho2) if estimate < null else mpf(1)
    null = mpf(null)
    p, opposite = {
        0: lambda: (one_p(abs(estimate - null), se, n, rho2), None),
        1: lambda: (above(null), below(null)),
        2: lambda: (below(null), above(null)),
        # Beyond the margin that is on the estimate's side.
        3: lambda: (max(above(-null), below(null)), below(-null) if estimate < 0 else above(null)),
    }[alternative]()
    return {
        "p": float(p), "opposite": None if opposite is None else float(opposite),
        "lower": None if alternative == 2 else float(estimate - half),
        "upper": None if alternative == 1 else float(estimate + half),
    }


def informative(n, m, v):
    """Zeros and ones are known by their variance, to the three digits it has here."""
    if 0 < m < 1 and abs(v * (n - 1) / n - m * (1 - m)) < mpf("0.002") * m * (1 - m):
        events = mpf(round(m * n))
        return min(events, n - events)
    return n


def log_tail_t(t, nu):
    """ln P(T > t) for t > 0, by integration of the density over its height at t."""
    log_density = lambda x: -(nu + 1) / 2 * log(1 + x * x / nu)
    unit = (t * t + nu) / (t * (nu + 1)) if t * t > 1 else mpf(1)
    ends = [t + unit * k for k in (0, 1, 2, 4, 8, 16, 40)] + [t + unit * mpf(10) ** k for k in (2, 3, 5)] + [inf]
    over = quad(lambda x: exp(log_density(x) - log_density(t)), ends)
    return log(over) + log_density(t) + loggamma((nu + 1) / 2) - loggamma(nu / 2) - log(nu * pi) / 2


def log_tail_normal(z):
    return log(erfc(z / sqrt(2)) / 2)


def normal_score(t, nu):
    goal = log_tail_t(abs(t), nu)
    z = findroot(lambda z: log_tail_normal(z) - goal, (abs(t), abs(t) * mpf("0.999")), solver="secant")
    return z * sign(t)


def at_normal_score(z, nu):
    goal = log_tail_normal(z)
    return findroot(lambda t: log_tail_t(t, nu) - goal, (z, z * mpf("1.001")), solver="secant")


def judge_lift(score, df, estimate, se, n, planned, level, alternative, null):
    alpha, null = 1 - mpf(level), mpf(null)
    rho2 = (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / planned
    boundary = half_width(mpf(1), n, rho2, alpha)

    def p(l, side):
        z = score(l)
        if side and z * side <= 0:
            return mpf(1)
        return one_p(abs(normal_score(z, df(l))), mpf(1), n, rho2)

    def bound(l, side):
        k = side * at_normal_score(boundary, df(l))
        return findroot(lambda x: score(x) - k, (estimate - k * se, estimate - k * se * mpf("1.01")), solver="secant")

    low, high = (-null if alternative == 3 else null), null
    test, opposite = {
        0: lambda: (p(null, 0), None), 1: lambda: (p(null, 1), p(null, -1)), 2: lambda: (p(null, -1), p(null, 1)),
        3: lambda: (max(p(low, 1), p(high, -1)), p(low, -1) if p(low, 1) > p(high, -1) else p(high, 1)),
    }[alternative]()
    return {
        "p": float(test), "opposite": None if opposite is None else float(opposite),
        "lower": None if alternative == 2 else float(bound(low, 1)),
        "upper": None if alternative == 1 else float(bound(high, -1)),
    }


CALL = "findroot(sigma*sqrt(2*(n*rho**2+1)/(n**2*rho**2)*log(sqrt(n*rho**2+1)/alpha)) = |estimate - null|); estimate -+ the same at 1 - level"
rng = random.Random(20260109)
differences = []
for n, planned, level, se, z, null in [
    (100, 10000, 0.95, 0.2, 5, 0), (1000, 10000, 0.95, 0.1, 3.5, 0.02), (10000, 10000, 0.95, 0.01, -3.1, -0.005),
    (50000, 20000, 0.99, 0.002, 4.2, -0.01), (2, 10000, 0.95, 1.0, 70, 1.5), (1000000, 10000, 0.9, 0.001, -5, 0.002),
    (1000000000, 20000, 0.95, 1e-6, 6, -3e-6), (300, 300, 0.8, 3.0, 2.7, 1), (12345, 54321, 0.999, 0.7, -4.9, 0.3),
    (500, 100, 0.51, 0.05, 1.9, 0.01), (7777, 1, 0.95, 0.05, 12, 0), (100000, 1000000, 0.95, 0.01, 25, -0.1),
]:
    estimate = null + z * se * (1 + rng.random() / 10)
    for alternative in (0, 1, 2):
        differences.append({"call": CALL, "n": n, "planned": planned, "level": level, "se": se, "estimate": estimate,
                            "alternative": alternative, "null": null, **judge(mpf(estimate), mpf(se), n, planned, level, alternative, null)})
    # Closer to 0 than a margin that is as far on the other side.
    margin = abs(estimate) + abs(z) * se
    differences.append({"call": CALL + "; the larger p of two", "n": n, "planned": planned, "level": level, "se": se, "estimate": estimate,
                        "alternative": 3, "null": margin, **judge(mpf(estimate), mpf(se), n, planned, level, 3, margin)})

# Lifts of arms that are given by subjects, mean and variance.
lifts = []
for treatment, control, planned, level, null in [
    ((1000, 10.9, 25.0), (1100, 10.0, 20.0), 10000, 0.95, 0), ((5000, 0.115, 0.1018), (5000, 0.1, 0.09), 10000, 0.95, -0.02),
    ((140, 12.0, 9.0), (300, 9.0, 16.0), 400, 0.9, 0.05), ((20000, -4.8, 30.0), (10000, -5.0, 28.0), 20000, 0.95, 0.01),
    ((700000, 50.2, 900.0), (300000, 50.0, 1000.0), 100000, 0.99, 0), ((1000000000, 1.0003, 4.0), (1000000000, 1.0, 4.0), 1000000, 0.95, 1e-4),
    ((30, 6.0, 0.01), (30, 2.0, 0.02), 10000, 0.8, 0.5), ((8000, 0.9e6, 4e11), (9000, 1e6, 5e11), 5000, 0.95, -0.04),
    ((150, 3e-9, 1e-18), (170, 2e-9, 1.2e-18), 1000, 0.95, 0.1), ((6000, 2.0, 9.0), (6000, 2.2, 9.5), 12000, 0.999, -0.01),
    ((90000, 0.021, 0.0206), (10000, 0.02, 0.0196), 1, 0.95, -0.1), ((3000, 0.5, 1.0), (3000, -0.4, 1.0), 6000, 0.95, 0.3),
]:
    (n1, m1, v1), (n0, m0, v0) = [tuple(map(mpf, arm)) for arm in (treatment, control)]
    estimate, sigma = (m1 - m0) / abs(m0), sign(m0)
    own = [v1 / n1, v0 / n0]
    pooled = (v1 * (n1 - 1) + v0 * (n0 - 1)) / (n1 + n0 - 2) * (1 / n1 + 1 / n0)
    v = [o + max(0, pooled - sum(own)) / n / (1 / n1 + 1 / n0) for o, n in zip(own, (n1, n0))]
    nu = [informative(n1, m1, v1) - 1, informative(n0, m0, v0) - 1]
    variance = lambda l: v[0] + (1 + sigma * l) ** 2 * v[1]
    score = lambda l: (estimate - l) * abs(m0) / sqrt(variance(l))

    def df(l):
        parts = [own[0], (1 + sigma * l) ** 2 * own[1]]
        return sum(parts) ** 2 / (parts[0] ** 2 / nu[0] + parts[1] ** 2 / nu[1])

    se = sqrt(v[0] + (m1 / m0) ** 2 * v[1]) / abs(m0)
    for alternative in (0, 1, 2, 3):
        if alternative == 3:
            null = float(2 * abs(estimate))
        lifts.append({"call": "T(L) = ((m1 - m0) - L*|m0|)/sqrt(v1 + (1 + L)**2*v0); normal score: findroot of the tails; " + CALL,
                      "treatment": treatment, "control": control, "planned": planned, "level": level,
                      "alternative": alternative, "null": null, "estimate": float(estimate), "se": float(se),
                      **judge_lift(score, df, estimate, se, n1 + n0, planned, level, alternative, null)})

print('{"differences": [\n  ' + ",\n  ".join(map(json.dumps, differences)) + '\n],\n"lifts": [\n  '
      + ",\n  ".join(map(json.dumps, lifts)) + "\n]}")
