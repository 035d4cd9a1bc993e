"""The SDE's bound solved in closed form: how close, how tight, how soon.

Samples are seeds 10 to 14, at which nothing was chosen. A run that was stopped goes on where it
was.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from statistics import mean, median

import torch

from benchmarks.common import Row, Tables, command, milliseconds, runs
from benchmarks.estimators import notebook
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.diffusion import closed_form
from dlutils.diffusion.denoisers import GaussianDenoiser
from dlutils.estimators import yardsticks
from dlutils.estimators.view import units_of
from dlutils.evaluation import compare

PACKAGES = ("torch", "numpy", "scipy")
SEEDS = range(10, 15)
LIMITS = {  # of the KL, nats
    "marron_wand_10": 0.003,
    "marron_wand_12": 0.005,
    "marron_wand_14": 0.015,
    "marron_wand_15": 0.010,
    "laplace_mixture": 0.0015,
    "gaussian": 0.0004,
}
DENSITIES = [*LIMITS, "laplace", "student_t", "uniform"]
WAYS = ("EM", "gaussian", "best")
EXPLORER = {  # nothing is chosen: for a density that follows a slider
    "preconditioning": "gaussian", "penalties": [(1e-3, 1e-3)],
    "n_knots": 150, "n_times": 14, "n_bins": 150,
}  # fmt: skip


def measure(config: Mapping[str, object]) -> Row:
    """KL, gap of the bound, nats, seconds and what was chosen, for one density, seed and way."""
    torch.set_num_threads(1)
    dataset, way = make_dataset(config["density"], seed=config["seed"]), config["way"]
    if way == "EM":
        start = time.perf_counter()
        mixture = yardsticks.em_mixture(dataset.train)
        seconds = time.perf_counter() - start
        return {"kl": compare(dataset, mixture).normalized_kl, "seconds": seconds}
    fitted = notebook("SDE.ipynb").least_squares(dataset, preconditioning=way)
    return {
        "kl": compare(dataset, fitted.log_likelihood).normalized_kl,
        "gap": compare(dataset, fitted.elbo).kl,
        "seconds": fitted.history.seconds,
        "delta": fitted.model.path.delta,
        "corrected": bool(fitted.model.net.net.c.any()),
    }


def by_density(rows: list[Row], densities: list[str]) -> list[Row]:
    """A line each: means over the samples, thousandths of a nat; seconds; how it was chosen."""
    lines = []
    for density in densities:
        of = {way: [r for r in rows if r["density"] == density and r["way"] == way] for way in WAYS}
        line: Row = {"density": density, "EM": 1e3 * mean(row["kl"] for row in of["EM"])}
        for way, name in (("gaussian", "one Gaussian"), ("best", "best")):
            line[name] = 1e3 * mean(row["kl"] for row in of[way])
            line[f"{name}, gap"] = 1e3 * mean(row["gap"] for row in of[way])
            line[f"{name}, s"] = mean(row["seconds"] for row in of[way])
        line["corrected"] = sum(row["corrected"] for row in of["best"]) / len(of["best"])
        line["median delta"] = median(row["delta"] for row in of["best"])
        lines.append(line)
    return lines


def targets(rows: list[Row], densities: list[str]) -> list[Row]:
    """What was aimed at: with everything chosen, KL and gap in nats, of the worst sample too."""
    lines = []
    for density in densities:
        found = [r for r in rows if r["density"] == density and r["way"] == "best"]
        kl = [row["kl"] for row in found]
        lines.append(
            {
                "density": density,
                "KL": mean(kl),
                "largest": max(kl),
                "limit": LIMITS[density],
                "gap": mean(row["gap"] for row in found),
                "seconds": median(row["seconds"] for row in found),
            }
            | times(make_dataset(density, seed=SEEDS[0]))
        )
    return lines


def times(dataset: Dataset, repeats: int = 5) -> Row:
    """Median milliseconds of a solve by itself, and of a fit for an explorer, data to density."""
    sde = notebook("SDE.ipynb")
    nodes, _ = closed_form.smooth_nodes(units_of(dataset)(dataset.train))
    table = closed_form.Table(closed_form.knots_for(*nodes))
    sample = closed_form.Sample(nodes)
    functions = {
        "one solve, ms": lambda: closed_form.solve(
            table, GaussianDenoiser(), sample, 0.01, [(1e-3, 1e-3)]
        ),
        "explorer, ms": lambda: sde.least_squares(dataset, **EXPLORER),
    }
    return {
        name: median(milliseconds(function) for _ in range(repeats))
        for name, function in functions.items()
    }


def make(options: argparse.Namespace) -> Tables:
    """Measure the SDE in closed form: distance from the truth, gap of the bound, seconds."""
    seeds = SEEDS[:1] if options.quick else SEEDS
    densities = ["laplace_mixture", "marron_wand_10"] if options.quick else DENSITIES
    configs = [
        {"density": density, "seed": seed, "way": way}
        for seed in seeds
        for density in densities
        for way in WAYS
    ]
    rows = runs(measure, configs, options, workers=1)  # one at a time: seconds are measured
    return {
        "Distances, thousandths of a nat": by_density(rows, densities),
        "What was aimed at": targets(rows, [d for d in LIMITS if d in densities]),
    }


if __name__ == "__main__":
    sys.exit(command(make, PACKAGES, "two densities, one sample"))
