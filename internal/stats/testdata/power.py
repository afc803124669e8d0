"""Writes power-python.json: powers by scipy 1.10, statsmodels 0.13 and, to 30
digits, mpmath.  Run: /usr/bin/python3 power.py > power-python.json

Every row holds the call that made it. Alternatives are those of package stats:
0 two-sided, 1 greater, 2 less, 3 equivalent.
"""
import json
from mpmath import mp, mpf, erfc, sqrt, exp, log, quad, betainc, findroot
from scipy.stats import nct
from statsmodels.stats.power import TTestIndPower, NormalIndPower

mp.dps = 30


def tail(z):
    return erfc(z / sqrt(mpf(2))) / 2


def mean_over_scale(nu, f, bends=()):
    """E f(S), nu S^2 chi-square, by quad over u = ln S between its bends."""
    nu = mpf(nu)
    sd = 1 / sqrt(2 * nu)
    low, high = -14 * sd - 70 / nu, 14 * sd
    weight = lambda u: exp(nu * (u - (exp(2 * u) - 1) / 2))
    points = [low + 70 / nu * k / 14 for k in range(14)] + [sd * k for k in range(-14, 15)]
    for b in bends:
        if b > 0 and low < log(b) < high:
            points.append(log(b))
    points = sorted(points)
    return quad(lambda u: weight(u) * f(exp(u)), points) / quad(weight, points)


def noncentral(alternative, critical, lower, upper, nu):
    k, lower, upper = mpf(critical), mpf(lower), mpf(upper)
    above = lambda s: tail(k * s - lower)
    below = lambda s: tail(k * s + upper)
    f = {0: lambda s: above(s) + below(s), 1: above, 2: below,
         3: lambda s: max(mpf(0), below(s) - (1 - above(s)))}[alternative]
    bends = [b / k for x in range(-14, 15, 2) for b in (lower + x, x - upper)]
    return mean_over_scale(nu, f, bends + [(lower - upper) / 2 / k])


out = {"noncentral": [], "independent": [], "normal": [], "always": []}

# The noncentral t itself, from one degree of freedom to as many as there are
# subjects in the world.
cases = [(0, 12.706204736, 1.5, 1.5, 1), (0, 636.6, 40, 40, 1), (1, 63656.7, 3e4, 3e4, 1), (1, 3.2, -2, -2, 1.3),
         (0, 2.57, 2.57, 2.57, 5), (1, 2.015, 5, 5, 5), (2, 2.015, -3, -3, 5), (0, 2.1, 0, 0, 18), (0, 2.1, 3.7, 3.7, 18.25),
         (1, 1.66, 2.5, 2.5, 97.4), (0, 1.96, 45, 45, 1e3), (1, 50, 50, 50, 200), (0, 1.96, 2.8, 2.8, 1e6), (1, 1.645, 2.5, 2.5, 1e9),
         (2, 1.645, -2.5, -2.5, 1e12), (3, 1.8, 3, -3, 11), (3, 1.66, 4, -2.5, 97.4), (3, 6.3, 9, -9, 1), (3, 1.645, 1.7, -1.6, 1e9),
         (3, 1.7, 1.2, -1.2, 30), (3, 2.92, 40, -10, 2)]
for c in cases:
    out["noncentral"].append({"call": "quad(exp(nu*(u - (exp(2u) - 1)/2)) * P(Z > critical*exp(u) - lower) ...)", "alternative": c[0],
                              "critical": c[1], "lower": c[2], "upper": c[3], "degrees": c[4], "power": float(noncentral(*c))})
# scipy's own noncentral t where it is at its best; the two have to agree.
for t, delta, nu in ((2.1, 3.7, 18.25), (1.66, 2.5, 97.4), (2.015, 5, 5)):
    assert abs(nct.sf(t, nu, delta) / float(noncentral(1, t, delta, delta, nu)) - 1) < 1e-9

# Arms of the same size.
for effect, n, alpha, side in ((0.5, 64, 0.05, "two-sided"), (0.2, 394, 0.05, "two-sided"), (0.8, 26, 0.05, "two-sided"),
                               (0.1, 1571, 0.05, "two-sided"), (0.5, 17, 0.1, "two-sided"), (1.2, 5, 0.01, "two-sided"),
                               (0.02, 50000, 0.001, "two-sided"), (0.5, 51, 0.05, "larger"), (0.3, 100, 0.025, "larger"),
                               (0.01, 1000000, 0.05, "larger"), (2, 3, 0.2, "larger"), (0.4, 80, 0.05, "smaller")):
    signed = -effect if side == "smaller" else effect
    out["independent"].append({
        "call": "TTestIndPower().power(effect, nobs1=n, alpha=alpha, alternative=side)", "effect": signed, "subjects": 2 * n, "alpha": alpha,
        "alternative": {"two-sided": 0, "larger": 1, "smaller": 2}[side],
        "power": TTestIndPower().power(signed, n, alpha, alternative=side)})
# The row of 17 subjects an arm is off by 5e-9 in scipy's noncentral t; mpmath
# and R's power.t.test(n = 17, delta = 0.5, sig.level = 0.1, strict = TRUE) agree
# to 1e-14 on another number.
nu = mpf(32)
critical = findroot(lambda t: betainc(nu / 2, mpf(1) / 2, 0, nu / (nu + t * t), regularized=True) - mpf(1) / 10, mpf(1.69))
theta = sqrt(mpf(17) / 2) / 2
row = out["independent"][4]
assert row["subjects"] == 34 and 4e-9 < abs(row["power"] / 0.41477829768188823 - 1) < 6e-9
row["call"] = "quad(exp(nu*(u - (exp(2u) - 1)/2)) * ...) with nu = 32, in place of TTestIndPower"
row["power"] = float(noncentral(0, critical, theta, theta, nu))
assert abs(row["power"] / 0.41477829768188823 - 1) < 1e-12

# Known variance: what a credible interval from the data alone covers.
for effect, n, alpha, ratio, side in ((0.5, 64, 0.05, 1, "two-sided"), (0.2, 394, 0.05, 2, "two-sided"), (0.8, 26, 0.05, 0.5, "two-sided"),
                                      (0.1, 1571, 0.1, 1, "two-sided"), (0.01, 90000, 0.01, 9, "two-sided"), (0.5, 17, 0.1, 1, "larger"),
                                      (1.2, 5, 0.01, 3, "larger"), (0.02, 50000, 0.001, 1, "two-sided"), (0.3, 100, 0.2, 4, "larger"),
                                      (0.05, 10, 0.05, 1, "two-sided")):
    out["normal"].append({
        "call": "NormalIndPower().power(effect, nobs1=n, alpha=alpha, ratio=ratio, alternative=side)", "effect": effect,
        "control": n, "treatment": int(n * ratio), "alpha": alpha, "alternative": {"two-sided": 0, "larger": 1}[side],
        "power": NormalIndPower().power(effect, n, alpha, ratio, alternative=side)})

# The confidence sequence at its planned subjects: that it excludes the null.
for effect, n, alpha, side in ((0.2, 1000, 0.05, 0), (0.1, 4000, 0.05, 0), (0.15, 2000, 0.1, 1), (0.02, 200000, 0.01, 0), (0.5, 100, 0.05, 1),
                               (0.01, 1000000, 0.001, 0), (0, 5000, 0.05, 0), (1.5, 20, 0.2, 0), (-0.2, 1200, 0.05, 0), (0.3, 333, 0.3, 1)):
    rho2 = (-2 * mp.log(alpha) + mp.log(1 - 2 * mp.log(alpha))) / n
    half = sqrt(2 * (n * rho2 + 1) / (mpf(n) ** 2 * rho2) * log(sqrt(n * rho2 + 1) / alpha)) * sqrt(n)
    theta = effect * sqrt(mpf(n) / 4)
    power = tail(half - theta) + (tail(half + theta) if side == 0 else 0)
    out["always"].append({"call": "P(Z > c - theta) [+ P(Z > c + theta)], c = sqrt(N)*sqrt(2(N rho^2+1)/(N^2 rho^2)*ln(sqrt(N rho^2+1)/alpha))",
                          "effect": effect, "subjects": n, "alpha": alpha, "alternative": side, "power": float(power)})

# Arms of different sizes, several of them, and margins. rho is that of the plan's
# alpha at the subjects of two arms in the mean; each treatment is tested at its part
# of alpha, and the smallest is planned for. A lift is estimated with the variance
# (v/n1 + (1 + margin*sign(control))^2*v/n0)/control^2 (Fieller). Rows: alternative, arms, alpha,
# effect, margin, value of the control and deviation if the margin is of the lift.
out["unevenAlways"] = []
for side, arms, alpha, effect, margin, base, deviation in (
        (0, (900, 300), 0.05, 0.25, 0, None, 1), (0, (150, 850), 0.05, 0.35, 0, None, 1), (1, (9000, 1000), 0.1, 0.12, 0, None, 1),
        (2, (400, 1600), 0.01, -0.25, 0, None, 1), (0, (990000, 10000), 0.05, 0.04, 0, None, 1), (0, (20, 15), 0.2, 1.3, 0, None, 1),
        (1, (300, 500), 0.3, 0.05, 0, None, 1), (0, (500000, 2500000), 0.001, 0.008, 0, None, 1), (0, (600, 200), 0.05, 0, 0, None, 1),
        (0, (500, 300, 200, 400), 0.05, 0.4, 0, None, 1), (1, (1000, 800, 700), 0.06, 0.2, 0, None, 1), (2, (3000, 1000, 1500, 2000), 0.05, -0.15, 0, None, 1),
        (1, (500, 500), 0.05, 0, -0.3, None, 1), (1, (4000, 1000), 0.05, 0.02, -0.12, None, 1), (1, (300, 300), 0.1, -0.05, -0.25, None, 1),
        (2, (2000, 2000), 0.025, 0.01, 0.12, None, 1), (2, (700, 2100), 0.05, -0.03, 0.1, None, 1), (1, (100000, 100000), 0.01, -0.002, -0.02, None, 1),
        (1, (200, 200), 0.05, 0.3, -0.1, None, 1), (1, (900, 700, 500), 0.05, 0, -0.3, None, 1), (1, (4000, 2000), 0.05, 0.1, -0.02, 10, 3),
        (2, (1500, 1500), 0.05, -0.1, 0.1, -5, 4), (1, (800, 200), 0.2, -0.2, -0.1, 6, 2)):
    n0, n1 = mpf(arms[0]), mpf(min(arms[1:]))
    planned = n0 + mpf(sum(arms[1:])) / (len(arms) - 1)
    assert planned == int(planned)
    alpha = mpf(alpha)
    rho2 = (-2 * log(alpha) + log(1 - 2 * log(alpha))) / planned
    n = n0 + n1
    half = sqrt(2 * (n * rho2 + 1) / (n**2 * rho2) * log(sqrt(n * rho2 + 1) / (alpha / (len(arms) - 1)))) * sqrt(n)
    if base is None:
        estimate, se = mpf(effect), deviation * sqrt(1 / n0 + 1 / n1)
    else:
        estimate, se = mpf(effect) / abs(base), mpf(deviation) / abs(base) * sqrt((1 + (margin if base > 0 else -mpf(margin))) ** 2 / n0 + 1 / n1)
    theta = (estimate - mpf(margin)) / se
    power = {0: tail(half - theta) + tail(half + theta), 1: tail(half - theta), 2: tail(half + theta)}[side]
    row = {"call": "P(Z > c - theta), P(Z > c + theta) or both, c = sqrt(n)*sqrt(2(n rho^2+1)/(n^2 rho^2)*ln(sqrt(n rho^2+1)*treatments/alpha)), theta = (effect - margin)/se",
           "arms": arms, "effect": effect, "margin": margin, "scale": 0 if base is None else 1, "deviation": deviation,
           "alpha": float(alpha), "alternative": side, "power": float(power)}
    if base is not None:
        row["value"] = base
    out["unevenAlways"].append(row)

for i, name in enumerate(out):
    print(("{" if i == 0 else ",") + json.dumps(name) + ": [")
    print(",\n".join("  " + json.dumps(row) for row in out[name]))
    print("]")
print("}")
