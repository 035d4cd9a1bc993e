"""Flow matching by one linear solve, and second-order likelihood: how close, how soon.

Samples are seeds 10 to 14, at which nothing was chosen; all is computed in double precision.
"""

import argparse
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from math import nan
from statistics import median

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmarks.common import Row, Tables, Watch, command, milliseconds
from benchmarks.estimators import notebook
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.estimators.view import units_of
from dlutils.evaluation import compare
from dlutils.flows import adjoint
from dlutils.flows.matching import path_nodes
from dlutils.seeding import seeded
from dlutils.tables import plus_minus
from dlutils.training import DataSource

Climb = Callable[[Dataset, int], tuple[Watch, list[float]]]
PACKAGES = ("torch", "numpy", "scipy")
SEEDS = range(10, 15)
LIMITS = {  # of the KL, nats
    "laplace_mixture": 0.0015,
    "marron_wand_10": 0.0025,
    "marron_wand_04": 0.002,
    "marron_wand_12": 0.005,
    "gaussian": 0.0005,
    "marron_wand_15": 0.012,
}
PROPER = {"method": "rk4", "n_steps": 5, "logdet": "map", "n_bins": 64, "progress": False}


def distances(densities: list[str], seeds: range) -> list[Row]:
    """Flow matching with its defaults: KL and seconds; then Euler's method with four steps."""
    ode, rows = notebook("ODE.ipynb"), []
    for density in densities:
        datasets = [make_dataset(density, seed=seed) for seed in seeds]
        ode.flow_matching(datasets[0])  # warm-up
        models = [ode.flow_matching(data) for data in datasets]
        kl = distance(datasets, models)
        in_four = [replace(model, method="euler", n_steps=4) for model in models]
        kl_in_four = distance(datasets, in_four)
        rows.append(
            {
                "density": density,
                "KL": float(kl.mean()),
                "largest": float(kl.max()),
                "limit": LIMITS[density],
                "Euler, T = 4": float(kl_in_four.mean()),
                "over rk4": float(kl_in_four.mean() / kl.mean()),
                "seconds": median(model.history.seconds for model in models),
                "one solve, ms": one_solve(datasets[0]),
            }
        )
    return rows


def distance(datasets: list[Dataset], models: list) -> np.ndarray:
    """KL of each model from the truth, nats."""
    pairs = zip(datasets, models, strict=True)
    return np.array([compare(data, model.log_likelihood).normalized_kl for data, model in pairs])


def one_solve(dataset: Dataset, repeats: int = 5) -> float:
    """Median milliseconds from standardized points to the weights, for one penalty."""
    ode = notebook("ODE.ipynb")
    y = (dataset.train - dataset.train.mean()) / dataset.train.std()

    def solve() -> None:
        f = ode.DRIFTS["sigmoid_basis"].for_paths(y, "sorted")
        next(ode.least_squares(f, *path_nodes(y, "sorted"), [1e-4]))

    solve()
    return median(milliseconds(solve) for _ in range(repeats))


def seconds_to_the_end(watch: Watch, values: list[float], distance: float) -> float:
    """Until the objective is within a distance of its last value, nats."""
    seen = zip(watch.curve, values, strict=True)
    return next(seconds for (seconds, _, _), value in seen if values[-1] - value <= distance)


def watch_train(optimizer: str, every: int, **settings: object) -> Climb:
    """`train` of the notebook, watched at every validation."""
    ode = notebook("ODE.ipynb")

    def run(dataset: Dataset, seed: int) -> tuple[Watch, list[float]]:
        flow = ode.FittedODE(None, None, units_of(dataset), 5, "rk4", "map")
        watch, values = Watch(dataset), []

        def seen(f, history) -> None:
            values.append(history.train[-1])
            watch(replace(flow, drift=f).log_likelihood, history.val_iteration[-1])

        options = PROPER | settings | {"validate_every": every, "callback": seen}
        few = replace(dataset, val=dataset.val[:8])  # it is watched more often than one validates
        with redirect_stdout(io.StringIO()):
            ode.train(few, "mlp", seed=seed, optimizer=optimizer, **options)
        return watch, values

    return run


def watch_lbfgs(dataset: Dataset, seed: int) -> tuple[Watch, list[float]]:
    """SciPy's L-BFGS on the same objective, prior included, with the adjoint's gradient."""
    ode = notebook("ODE.ipynb")
    units = units_of(dataset)
    y, weights = DataSource(units(dataset.train), PROPER["n_bins"])()
    with seeded(seed, dtype=y.dtype):
        f = ode.DRIFTS["mlp"]()
    parameters, precision = list(f.parameters()), 1 / len(dataset.train)
    flow = ode.FittedODE(f, None, units, 5, "rk4", "map")
    watch, values = Watch(dataset), []

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        vector_to_parameters(torch.from_numpy(theta), parameters)
        try:
            value = adjoint.mean_log_likelihood(f, y, weights, 5, "rk4", "map")
        except ValueError:  # the steps fold the line
            return np.inf, np.zeros_like(theta)
        gradient = adjoint.flat_gradient(value, f).numpy()
        cost = precision / 2 * theta @ theta
        return cost - value.item(), precision * theta - gradient

    def seen(intermediate_result) -> None:
        theta = intermediate_result.x
        vector_to_parameters(torch.from_numpy(theta), parameters)
        values.append(precision / 2 * theta @ theta - intermediate_result.fun)
        watch(flow.log_likelihood, len(values))

    start = parameters_to_vector(parameters).detach().numpy()
    minimize(objective, start, jac=True, method="L-BFGS-B", callback=seen,
             options={"maxiter": 500, "maxcor": 20})  # fmt: skip
    return watch, values


CLIMBERS = {
    "natural": watch_train("natural", 1),
    "L-BFGS": watch_lbfgs,
    "adam": watch_train("adam", 5, n_iterations=350, learning_rate=0.02),
}


def optimizers(seeds: range) -> list[Row]:
    """The `mlp` on the Laplace mixture: a row an optimizer; medians, since a first run is cold."""
    rows = []
    for name, run in CLIMBERS.items():
        runs = [run(make_dataset("laplace_mixture", seed=seed), seed) for seed in seeds]
        kl = torch.tensor([watch.curve[-1][1] for watch, _ in runs])
        rows.append(
            {
                "optimizer": name,
                "s to KL 0.005": median((watch.reached(0.005) or [nan])[0] for watch, _ in runs),
                "s to 1e-4 of the end": median(seconds_to_the_end(*run, 1e-4) for run in runs),
                "s": median(watch.curve[-1][0] for watch, _ in runs),
                "final KL": plus_minus(kl, "", 5) if len(kl) > 1 else f"{kl.item():.5f}",
            }
        )
    return rows


def make(options: argparse.Namespace) -> Tables:
    """Measure flow matching in closed form and second-order likelihood."""
    seeds = SEEDS[:1] if options.quick else SEEDS
    densities = list(LIMITS)[:2] if options.quick else list(LIMITS)
    return {
        "Flow matching, sorted pairs, one linear solve": distances(densities, seeds),
        "Maximum likelihood of the mlp": optimizers(seeds),
    }


if __name__ == "__main__":
    sys.exit(command(make, PACKAGES, "two densities, one sample"))
