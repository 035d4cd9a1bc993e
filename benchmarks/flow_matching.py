"""Flow matching by one linear solve, and second-order likelihood: how close, how soon.

Samples are seeds 10 to 14, at which nothing was chosen; all is computed in double precision.
"""

from dataclasses import replace
from functools import partial
from statistics import mean, median

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmarks.common import (
    SEEDS,
    Options,
    Row,
    Tables,
    Watch,
    command,
    distance,
    mean_and_error,
    milliseconds,
    quietly,
)
from dlutils import flows
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.estimators.view import units_of
from dlutils.flows import adjoint
from dlutils.flows.matching import path_nodes
from dlutils.seeding import seeded
from dlutils.training import DataSource

Climb = tuple[Watch, list[float]]  # what was seen, and the objective each time
PACKAGES = ("torch", "numpy", "scipy")
LIMITS = {  # of the KL, nats
    "laplace_mixture": 0.0015,
    "marron_wand_10": 0.0025,
    "marron_wand_04": 0.002,
    "marron_wand_12": 0.005,
    "gaussian": 0.0005,
    "marron_wand_15": 0.012,
}
SOLVER = {"n_steps": 5, "method": "rk4", "logdet": "map"}
PROPER = SOLVER | {"n_bins": 64, "progress": False}


def matched(density: str, seeds: range) -> Row:
    """Flow matching with its defaults: KL and seconds; then Euler's method with four steps."""
    match, kl, kl_in_four, seconds = flows.flow_matching, [], [], []
    datasets = [make_dataset(density, seed=seed) for seed in seeds]
    match(datasets[0])  # warm-up
    for data in datasets:
        model = match(data)
        kl.append(distance(data, model.log_likelihood))
        in_four = replace(model, method="euler", n_steps=4)
        kl_in_four.append(distance(data, in_four.log_likelihood))
        seconds.append(model.history.seconds)
    return {
        "density": density,
        "KL": mean(kl),
        "largest": max(kl),
        "limit": LIMITS[density],
        "Euler, T = 4": mean(kl_in_four),
        "over rk4": mean(kl_in_four) / mean(kl),
        "seconds": median(seconds),
        "one solve, ms": one_solve(datasets[0]),
    }


def one_solve(dataset: Dataset, repeats: int = 5) -> float:
    """Median milliseconds from standardized points to the weights, for one penalty."""
    y = units_of(dataset)(dataset.train)

    def solve() -> None:
        f = flows.DRIFTS["sigmoid_basis"].for_paths(y, "sorted")
        next(flows.least_squares(f, *path_nodes(y, "sorted"), [1e-4]))

    solve()
    return median(milliseconds(solve) for _ in range(repeats))


def by_train(optimizer: str, every: int, dataset: Dataset, seed: int, **settings: object) -> Climb:
    """`train` of the notebook, watched so often."""
    flow = partial(flows.FittedODE, history=None, units=units_of(dataset), **SOLVER)
    watch, values = Watch(dataset), []

    def seen(f, history) -> None:
        values.append(history.train[-1])
        watch(lambda y: flow(f).log_likelihood(y), history.val_iteration[-1])

    few = replace(dataset, val=dataset.val[:8])  # it is watched more often than one validates
    options = PROPER | settings | {"optimizer": optimizer, "validate_every": every}
    quietly(flows.train, few, "mlp", seed=seed, callback=seen, **options)
    return watch, values


def by_lbfgs(dataset: Dataset, seed: int) -> Climb:
    """SciPy's L-BFGS on the same objective, prior included, with the adjoint's gradient."""
    units = units_of(dataset)
    y, weights = DataSource(units(dataset.train), PROPER["n_bins"])()
    with seeded(seed, dtype=y.dtype):
        f = flows.DRIFTS["mlp"]()
    parameters, precision = list(f.parameters()), 1 / len(dataset.train)
    flow = flows.FittedODE(f, None, units, **SOLVER)
    watch, values = Watch(dataset), []

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        vector_to_parameters(torch.from_numpy(theta), parameters)
        try:
            value = adjoint.mean_log_likelihood(f, y, weights, **SOLVER)
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
    options = {"maxiter": 500, "maxcor": 20}
    minimize(objective, start, jac=True, method="L-BFGS-B", callback=seen, options=options)
    return watch, values


CLIMBERS = {
    "natural": partial(by_train, "natural", 1),
    "L-BFGS": by_lbfgs,
    "adam": partial(by_train, "adam", 5, n_iterations=350, learning_rate=0.02),
}


def seconds_to_the_end(watch: Watch, values: list[float], away: float = 1e-4) -> float:
    """Until the objective is so near its last value, nats."""
    seen = zip(watch.curve, values, strict=True)
    return next(seconds for (seconds, _, _), value in seen if values[-1] - value <= away)


def climbed(optimizer: str, seeds: range) -> Row:
    """The `mlp` on the Laplace mixture; medians, since a first run is cold."""
    climb = CLIMBERS[optimizer]
    found = [climb(make_dataset("laplace_mixture", seed=seed), seed) for seed in seeds]
    return {
        "optimizer": optimizer,
        "s to KL 0.005": median(watch.reached(0.005)[0] for watch, _ in found),
        "s to 1e-4 of the end": median(seconds_to_the_end(*run) for run in found),
        "s": median(watch.curve[-1][0] for watch, _ in found),
        "final KL": mean_and_error([watch.curve[-1][1] for watch, _ in found]),
    }


def make(options: Options) -> Tables:
    """Measure flow matching in closed form and second-order likelihood."""
    seeds, densities = (SEEDS[:1], list(LIMITS)[:2]) if options.quick else (SEEDS, list(LIMITS))
    return {
        "Flow matching, sorted pairs, one linear solve": [matched(d, seeds) for d in densities],
        "Maximum likelihood of the mlp": [climbed(optimizer, seeds) for optimizer in CLIMBERS],
    }


if __name__ == "__main__":
    raise SystemExit(command(make, PACKAGES, "two densities, one sample"))
