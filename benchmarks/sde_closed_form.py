"""The SDE's bound solved in closed form: how close, how tight, how soon.

Samples are seeds 10 to 14, at which nothing was chosen. A run that was stopped goes on where it
was.
"""

import time
from collections.abc import Mapping
from itertools import product
from statistics import median

import pandas as pd
import torch

from benchmarks.common import SEEDS, Options, Row, Tables, command, distance, milliseconds, runs
from dlutils import diffusion
from dlutils.data.datasets import make_dataset
from dlutils.diffusion import closed_form
from dlutils.diffusion.denoisers import GaussianDenoiser
from dlutils.estimators import yardsticks
from dlutils.estimators.view import units_of
from dlutils.evaluation import compare

PACKAGES = ("torch", "numpy", "scipy")
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
        return {"kl": distance(dataset, mixture), "seconds": seconds}
    fitted = diffusion.least_squares(dataset, preconditioning=way)
    return {
        "kl": distance(dataset, fitted.log_likelihood),
        "gap": compare(dataset, fitted.elbo).kl,
        "seconds": fitted.history.seconds,
        "delta": fitted.model.path.delta,
        "corrected": bool(fitted.model.net.net.c.any()),
    }


def results(rows: list[Row]) -> Tables:
    """Means over the samples, a line a density: in thousandths of a nat, and what was aimed at."""
    columns = ["kl", "gap", "seconds", "corrected", "delta"]
    found = pd.DataFrame(rows).astype({"corrected": float}).groupby(["density", "way"])[columns]
    mean, middle, worst = found.mean(), found.median(), found.max()
    lines, aims = [], []
    for density in dict.fromkeys(row["density"] for row in rows):
        line: Row = {"density": density, "EM": 1e3 * mean.kl[density, "EM"]}
        best = density, "best"
        for of, name in (((density, "gaussian"), "one Gaussian"), (best, "best")):
            line[name] = 1e3 * mean.kl[of]
            line[f"{name}, gap"] = 1e3 * mean.gap[of]
            line[f"{name}, s"] = mean.seconds[of]
        lines.append(line | {"corrected": mean.corrected[best], "median delta": middle.delta[best]})
        if density in LIMITS:
            aim: Row = {"density": density, "KL": mean.kl[best], "largest": worst.kl[best]}
            aim |= {"limit": LIMITS[density], "gap": mean.gap[best]}
            aims.append(aim | {"seconds": middle.seconds[best]} | times(density))
    return {"Distances, thousandths of a nat": lines, "What was aimed at": aims}


def times(density: str, repeats: int = 5) -> Row:
    """Median milliseconds of a solve by itself, and of a fit for an explorer, data to density."""
    dataset = make_dataset(density, seed=SEEDS[0])
    nodes, _ = closed_form.smooth_nodes(units_of(dataset)(dataset.train))
    given = closed_form.Table(closed_form.knots_for(*nodes)), GaussianDenoiser()
    sample, penalties = closed_form.Sample(nodes), [(1e-3, 1e-3)]
    functions = {
        "one solve, ms": lambda: closed_form.solve(*given, sample, 0.01, penalties),
        "explorer, ms": lambda: diffusion.least_squares(dataset, **EXPLORER),
    }
    return {
        name: median(milliseconds(function) for _ in range(repeats))
        for name, function in functions.items()
    }


def make(options: Options) -> Tables:
    """Measure the SDE in closed form: distance from the truth, gap of the bound, seconds."""
    few = (["laplace_mixture", "marron_wand_10"], SEEDS[:1])
    densities, seeds = few if options.quick else (DENSITIES, SEEDS)
    configs = [
        {"density": density, "seed": seed, "way": way}
        for seed, density, way in product(seeds, densities, WAYS)
    ]
    return results(runs(measure, configs, options, workers=1))  # one at a time: they are timed


if __name__ == "__main__":
    raise SystemExit(command(make, PACKAGES, "two densities, one sample"))
