"""Writes bayes-python.json: the closed form of two rates, by mpmath at 50 digits.
Run: python3 bayes.py > bayes-python.json   (Debian python3-mpmath 1.2.1)

P(t > c) for whole alpha is the finite sum of Miller (2015), Formulas for Bayesian
A/B testing, equation 6: sum over i < alpha_t of
B(alpha_c + i, beta_t + beta_c) / ((beta_t + i) B(1 + i, beta_t) B(alpha_c, beta_c)).
Expected loss is that of Stucchio (2015), Bayesian A/B testing at VWO, section 3:
E max(0, c - t) = E[c] P(c' > t) - E[t] P(c > t'), with one success more in c', t'.
"""
import json

from mpmath import beta, betainc, exp, expm1, findroot, loggamma, mp, mpf, quad

mp.dps = 50


def log_beta(a, b):
    return loggamma(a) + loggamma(b) - loggamma(a + b)


def above(at, bt, ac, bc):
    """P(t > c): of the failures if there are fewer of them."""
    if at > bc:
        at, bt, ac, bc = bc, ac, bt, at
    return sum(exp(log_beta(ac + i, bt + bc) - log_beta(1 + i, bt) - log_beta(ac, bc)) / (bt + i) for i in range(int(at)))


out = []
for st, nt, sc, nc in [
    (120, 1000, 100, 1000), (0, 1, 0, 1), (1, 1, 0, 1), (0, 1, 1, 1), (0, 50, 0, 5000), (3, 20, 9, 20), (300, 2000, 200, 2000),
    (20, 10**9, 10, 10**9), (100, 10**9, 130, 10**9), (0, 10**9, 0, 10**9), (110, 1000, 99, 999000), (990, 1000, 985, 1000),
    (1000, 1000, 1000, 1000), (260, 2600, 340, 2500), (500, 1000, 500, 1000), (10**9 - 100, 10**9, 10**9 - 130, 10**9), (1, 10**6, 3, 10**3),
]:
    at, bt, ac, bc = mpf(1 + st), mpf(1 + nt - st), mpf(1 + sc), mpf(1 + nc - sc)
    mt, mc = at / (at + bt), ac / (ac + bc)
    chance, less = above(at, bt, ac, bc), above(ac, bc, at, bt)
    assert abs(chance + less - 1) < mpf(10) ** -30
    out.append({
        "call": "above(at, bt, ac, bc); mc*above(ac+1, bc, at, bt) - mt*above(ac, bc, at+1, bt)",
        "treatment_successes": st, "treatment_subjects": nt, "control_successes": sc, "control_subjects": nc,
        "chance": float(chance), "less": float(less),
        "loss": float(mc * above(ac + 1, bc, at, bt) - mt * above(ac, bc, at + 1, bt)),
        "loss_if_less": float(mt * above(at + 1, bt, ac, bc) - mc * above(at, bt, ac + 1, bc)),
    })


def half_above(at, bt, ac, bc, scale, shift):
    """P(t > scale*c + shift) by quadrature, for betas that have no peak."""
    low, high = max(mpf(0), -shift / scale), min(mpf(1), (1 - shift) / scale)
    tail = lambda x: betainc(at, bt, min(max(scale * x + shift, mpf(0)), mpf(1)), 1, regularized=True)
    density = lambda x: x ** (ac - 1) * (1 - x) ** (bc - 1) / beta(ac, bc)
    return betainc(ac, bc, 0, low, regularized=True) + quad(lambda x: density(x) * tail(x), [low, (low + high) / 2, high])


mp.dps = 20
halves = []
for st, nt, sc, nc, a, b in [(1, 1, 0, 1, 0.5, 0.5), (0, 1, 1, 1, 0.5, 0.5), (1, 1, 1, 1, 0.5, 0.5), (2, 2, 1, 3, 0.25, 0.75)]:
    at, bt, ac, bc = mpf(a) + st, mpf(b) + nt - st, mpf(a) + sc, mpf(b) + nc - sc
    solve = lambda f, q, low, high: float(findroot(lambda x: f(x) - q, (low, high), solver="anderson", tol=1e-14))
    difference = lambda x: half_above(at, bt, ac, bc, mpf(1), x)
    lift = lambda x: half_above(at, bt, ac, bc, exp(x), mpf(0))
    halves.append({
        "call": "quad of the density times betainc; findroot",
        "treatment_successes": st, "treatment_subjects": nt, "control_successes": sc, "control_subjects": nc, "alpha": a, "beta": b,
        "chance": float(difference(mpf(0))), "margin": 0.1, "beyond_margin": float(difference(mpf("0.1"))), "not_worse": float(difference(mpf("-0.1"))),
        "lower": solve(difference, mpf("0.9"), -0.999, 0.99), "upper": solve(difference, mpf("0.1"), -0.99, 0.999),
        "lift_lower": float(expm1(solve(lift, mpf("0.9"), -15, 15))), "lift_upper": float(expm1(solve(lift, mpf("0.1"), -15, 15))),
    })
out = {"closed": out, "halves": halves}
print("{" + ",\n".join(json.dumps(name) + ": [\n  " + ",\n  ".join(map(json.dumps, items)) + "\n]" for name, items in out.items()) + "}")
