# Writes roster.json: an allocation by the rules that the comment of package
# assign gives, and its balance by numpy. Debian's python3-numpy 1.24.2 and
# python3-xxhash 3.0.0:
#
#     /usr/bin/python3 roster.py > roster.json
import json
import random

import numpy
import xxhash

VARIANTS = [("none", 2), ("short", 1), ("long", 1)]
SALT = "mailing"
MASK = 2**64 - 1


def pair(a, b):
    return xxhash.xxh64_intdigest(a.encode() + b"\0" + b.encode(), seed=0)


def mixed(h):
    h ^= pair("roster", SALT)
    h ^= h >> 33
    h = h * 0xFF51AFD7ED558CCD & MASK
    h ^= h >> 33
    h = h * 0xC4CEB9FE1A85EC53 & MASK
    return h ^ h >> 33


random.seed(1)
subjects = []
for i in range(150):
    stratum = random.choice(["", "PL", "PL", "DE", "Łódź"]) if i < 100 else f"alone-{i}"
    covariates = {"spend": round(random.gauss(50, 20), 2), "constant": 3.0}
    if i % 3 == 0:
        covariates["visits"] = float(random.randrange(20))
    if i == 7:
        covariates["rare"] = 1.5
    subjects.append({"key": f"u-{i}", "stratum": stratum, "covariates": covariates})

total = sum(w for _, w in VARIANTS)
for stratum in {s["stratum"] for s in subjects}:
    ranked = sorted((s for s in subjects if s["stratum"] == stratum), key=lambda s: mixed(pair("user", s["key"])))
    n = len(ranked)
    start = (mixed(pair("stratum", stratum)) >> 32) * total >> 32
    points = [start + m * total for m in range(n)]
    end, place = 0, 0
    for variant, weight in VARIANTS:
        begin, end = end, end + n * weight % total
        count = n * weight // total + sum(begin <= p < end for p in points)
        for s in ranked[place : place + count]:
            s["variant"] = variant
        place += count
    assert place == n

balance = {}
for name in ["spend", "constant", "visits", "rare"]:
    values = {v: numpy.array([s["covariates"][name] for s in subjects if s["variant"] == v and name in s["covariates"]]) for v, _ in VARIANTS}
    c = values["none"]
    balance[name] = {}
    for v, x in values.items():
        figures = balance[name][v] = {"subjects": len(x), "missing": sum(s["variant"] == v for s in subjects) - len(x)}
        if len(x) > 0:
            figures["mean"] = float(x.mean())
        if len(x) > 1:
            figures["deviation"] = float(x.std(ddof=1))
        if v != "none" and len(x) > 1 and len(c) > 1 and x.var(ddof=1) + c.var(ddof=1) > 0:
            figures["difference"] = float((x.mean() - c.mean()) / numpy.sqrt((x.var(ddof=1) + c.var(ddof=1)) / 2))

lines = ",\n".join(json.dumps(s, ensure_ascii=False) for s in subjects)
print('{"balance":', json.dumps(balance), ',"subjects":[\n' + lines + "]}")
