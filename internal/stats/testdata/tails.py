"""Writes tails.json: tail probabilities and quantiles to 40 digits, by mpmath
(Debian python3-mpmath 1.2.1).  Run: python3 tails.py > tails.json

Student's t:  P(T > t) = betainc(nu/2, 1/2, 0, nu/(nu+t^2), regularized)/2
Chi-square:   P(X > x) = gammainc(k/2, x/2, inf, regularized)
For large nu the density of Student's t is integrated instead; the two ways are
compared before anything is printed.
"""
import json
from mpmath import mp, mpf, betainc, gammainc, erfc, sqrt, gamma, pi, quad, inf, findroot, loggamma, exp, log

mp.dps = 40


def student(t, nu):
    t, nu = mpf(t), mpf(nu)
    if nu > 1e4:  # betainc's series does not converge; integrate the density
        c = exp(loggamma((nu + 1) / 2) - loggamma(nu / 2)) / sqrt(nu * pi)
        points = [t + mpf(k) / max(t, mpf(1)) for k in range(0, 130, 2)]
        height = lambda s: -(nu + 1) / 2 * log(1 + s * s / nu)
        # quad stops at an absolute error, so the integrand starts at 1.
        return c * exp(height(t)) * quad(lambda s: exp(height(s) - height(t)), points)
    return betainc(nu / 2, mpf(1) / 2, 0, nu / (nu + t * t), regularized=True) / 2


def chisq(x, k):
    return gammainc(mpf(k) / 2, mpf(x) / 2, inf, regularized=True)


# The two ways agree where both work; the integral is cut off at exp(-128).
for t, nu in ((2, 20000), (20, 20000), (37, 20000)):
    by_beta = betainc(mpf(nu) / 2, mpf(1) / 2, 0, mpf(nu) / (nu + mpf(t) ** 2), regularized=True) / 2
    assert abs(by_beta / student(t, nu) - 1) < 1e-25, (t, nu, by_beta, student(t, nu))

out = {"student": [], "studentQuantile": [], "normal": [], "chiSquare": []}
for nu in (0.7, 1, 1.5, 2, 3, 5.5, 10, 20, 29.5, 30, 31, 50, 100, 345.678, 1000, 9999, 1e5, 1e6, 1e9, 1e12):
    for t in (1e-9, 0.01, 0.5, 1, 1.96, 3, 5, 8, 15, 25, 37, 37.5):
        out["student"].append([t, nu, float(student(t, nu))])
for nu, ts in ((0.7, (1e10, 1e200)), (1, (1e3, 1e20, 1e150, 1e300)), (2, (1e5, 1e100, 1e150)), (5.5, (1e4, 1e50)),
               (10, (100, 1e5, 1e30)), (20, (1e3, 1e15)), (29.5, (100, 1e10)), (31, (60, 1e9)), (50, (100, 1e6)), (100, (100, 1e3)),
               (1000, (50, 60))):
    for t in ts:
        out["student"].append([t, nu, float(student(t, nu))])
for nu in (1, 1.5, 2, 3, 7.25, 18, 30, 64, 1000, 1e6, 1e9):
    for q in (0.4, 0.25, 0.1, 0.05, 0.025, 0.005, 0.0005, 1e-8):
        q = mpf(q)
        # Bisection on the 40-digit tail, from a bracket that must hold the root.
        lo, hi = mpf(0), mpf(10)
        while student(hi, nu) > q:
            hi *= 10
        for _ in range(75):
            mid = (lo + hi) / 2
            if student(mid, nu) > q:
                lo = mid
            else:
                hi = mid
        out["studentQuantile"].append([float(q), nu, float((lo + hi) / 2)])
for z in (0, 0.1, 1, 1.6448536269514722, 1.959963984540054, 3, 6, 10, 20, 30, 37, 37.5):
    out["normal"].append([z, float(erfc(mpf(z) / sqrt(2)) / 2)])
for k in (1, 2, 3, 4, 5, 9, 17, 40, 100, 999):
    for x in (0.001, 0.5, 1, 3.84, 10, 30, 100, 500, 1000, 1350):
        out["chiSquare"].append([x, k, float(chisq(x, k))])
for name in out:
    print(("{" if name == "student" else ",") + json.dumps(name) + ": [")
    print(",\n".join("  " + json.dumps(row) for row in out[name]))
    print("]")
print("}")
