"""Times GrowthBook's statistics engine on cells that it reads from stdin.

    PYTHONPATH=growthbook/packages/stats python3 growthbook.py < cells.json

A cell is one metric in one segment: {"kind": "proportion" | "mean" | "mean_ra" |
"ratio_ra", "arms": [{"n", "means", "products"}, ...]}, the control first; the components
are main, denominator, covariate and denominator before, and products are the
centred sums, the upper triangle row by row. Prints the seconds that each cell
takes in each of the engine's methods, all as the engine's own service calls
them, data frames included.
"""
import json
import sys
import time

import pandas as pd
from gbstats.gbstats import analyze_metric_df, get_metric_dfs, get_var_id_map
from gbstats.models.settings import AnalysisSettingsForStatsEngine, MetricSettingsForStatsEngine

NAMES = ["main", "denominator", "covariate", "denominator_pre"]
PRODUCTS = {
    (0, 1): "main_denominator_sum_product",
    (0, 2): "main_covariate_sum_product",
    (0, 3): "main_post_denominator_pre_sum_product",
    (1, 2): "main_pre_denominator_post_sum_product",
    (1, 3): "denominator_post_denominator_pre_sum_product",
    (2, 3): "main_pre_denominator_pre_sum_product",
}
METHODS = {
    "frequentist": dict(stats_engine="frequentist"),
    "sequential": dict(stats_engine="frequentist", sequential_testing_enabled=True),
    "bayesian": dict(stats_engine="bayesian"),
}


def row(variation, arm):
    n, out, k = arm["n"], {"variation": variation, "users": arm["n"], "count": arm["n"], "dimension": ""}, 0
    for i, name in enumerate(NAMES):
        out[name + "_sum"] = n * arm["means"][i]
        for j in range(i, len(NAMES)):
            total = arm["products"][k] + n * arm["means"][i] * arm["means"][j]
            out[name + "_sum_squares" if i == j else PRODUCTS[i, j]] = total
            k += 1
    for column in list(out):
        if "sum" in column:
            out[column + "_uncapped"] = out[column]
    return out


def metric(kind):
    proportion = kind == "proportion"
    return MetricSettingsForStatsEngine(
        id=kind, name=kind, statistic_type="mean" if proportion else kind,
        main_metric_type="binomial" if proportion else "count",
        denominator_metric_type="count", covariate_metric_type="count",
    )


cells = json.load(sys.stdin)
frames = [pd.DataFrame([row(str(i), arm) for i, arm in enumerate(cell["arms"])]) for cell in cells]
seconds = {}
for name, settings in METHODS.items():
    start = time.perf_counter()
    for cell, frame in zip(cells, frames):
        ids = [str(i) for i in range(len(cell["arms"]))]
        analysis = AnalysisSettingsForStatsEngine(
            var_names=ids, var_ids=ids, weights=[1 / len(ids)] * len(ids), **settings)
        analyze_metric_df(get_metric_dfs(frame, get_var_id_map(ids), ids), len(ids), metric(cell["kind"]), analysis)
    seconds[name] = (time.perf_counter() - start) / len(cells)
json.dump(seconds, sys.stdout)
