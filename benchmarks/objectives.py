"""Three objectives side by side: maximum likelihood, the bound, and flow matching.

All train a perceptron 2-64-64-1 on the same samples, in double precision; two of them have a closed
form for a drift that is linear in its weights. A budget is processor time: each is a run of its
own, whose learning rate comes down to zero as the budget ends. Learning rate and batch size were
chosen on other samples: a grid was tried on two of them, the best two or three settings on five.
"""

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from statistics import mean

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.common import (
    SEEDS,
    Options,
    Row,
    Tables,
    command,
    distance,
    mean_and_error,
    quietly,
)
from benchmarks.flow_matching import PROPER, SOLVER
from dlutils import diffusion, flows
from dlutils.arrays import dtype_of
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.flows import adjoint
from dlutils.flows.matching import path_nodes
from dlutils.flows.natural import NaturalGradient
from dlutils.seeding import seeded
from dlutils.tools.complexity import median_seconds
from dlutils.training import DataSource

Objective = Callable[[], Tensor]
PACKAGES = ("torch", "numpy", "scipy")
DENSITIES = {"laplace_mixture": "Laplace mixture", "marron_wand_10": "claw"}
BUDGETS = (1, 4, 16)  # seconds
BATCH = 256
NO_BATCH: Row = dict.fromkeys(("ms a step", "sd", "unit", "sd / mean"), "–")


def likelihood(dataset: Dataset, seed: int, **settings: object):
    """A flow by maximum likelihood."""
    return flows.train(dataset, "mlp", seed=seed, **PROPER | settings)


def bound(dataset: Dataset, seed: int, **settings: object):
    """An SDE by its bound."""
    return diffusion.train(dataset, seed=seed, progress=False, **settings)


def matching(coupling: str, dataset: Dataset, seed: int, **settings: object):
    """A flow by regression on the velocity of straight paths."""
    match = flows.flow_matching
    return match(dataset, "mlp", coupling, seed, progress=False, **settings)


def likelihood_of(dataset: Dataset, flow, batch: int = BATCH) -> Objective:
    """The mean log-likelihood, nats."""
    draw = DataSource(flow.units(dataset.train), PROPER["n_bins"], batch)
    shift = math.log(flow.units.scale)
    return lambda: adjoint.mean_log_likelihood(flow.drift, *draw(), **SOLVER) - shift


def bound_of(dataset: Dataset, fitted, batch: int = BATCH) -> Objective:
    """The mean of one sample of the bound a point, nats."""
    random = torch.Generator().manual_seed(0)
    x, model = fitted.standardized(dataset.train).sort().values, fitted.model
    draw = lambda: diffusion.minibatch(model.path, x, "lattice", batch, random)
    return lambda: diffusion.sampled_elbo(model, *draw()).mean() - math.log(fitted.units.scale)


def mean_square_of(coupling: str, dataset: Dataset, flow, batch: int = BATCH) -> Objective:
    """What is left of the mean squared velocity, standardized data."""
    nodes = path_nodes(flow.units(dataset.train), coupling)
    nodes, random = nodes.to(dtype_of(flow.drift)), torch.Generator().manual_seed(0)

    def value() -> Tensor:
        x, t, v, w = nodes[:, torch.randint(nodes.shape[1], (batch,), generator=random)]
        return w @ (flow.drift(x, t) - v).square() / w.sum()

    return value


# how to fit, the objective of a batch, and its unit; None: it takes all points at once
TRAINED: dict[str, tuple[Callable, Callable | None, str]] = {
    "likelihood, Adam": (likelihood, likelihood_of, "nats"),
    "likelihood, natural gradient": (partial(likelihood, optimizer="natural"), None, "nats"),
    "bound, Adam": (bound, bound_of, "nats"),
} | {
    f"regression, {c} pairs": (partial(matching, c), partial(mean_square_of, c), "mean square")
    for c in ("sorted", "independent")
}
SOLVED: dict[str, Callable] = {
    "regression, closed form": lambda data, seed: flows.flow_matching(data),
    "bound, closed form": lambda data, seed: diffusion.least_squares(data, seed=seed),
}
# The best of learning rates 0.01, 0.03, 0.1 and of two batch sizes; None: all points, compressed.
SETTINGS = {
    (density, way): {"learning_rate": learning_rate, "batch_size": batch_size}
    for density, way, learning_rate, batch_size in (
        ("laplace_mixture", "likelihood, Adam", 0.03, None),
        ("laplace_mixture", "bound, Adam", 0.03, 1024),
        ("laplace_mixture", "regression, sorted pairs", 0.01, BATCH),
        ("laplace_mixture", "regression, independent pairs", 0.01, 2048),
        ("marron_wand_10", "likelihood, Adam", 0.03, None),
        ("marron_wand_10", "bound, Adam", 0.1, 1024),
        ("marron_wand_10", "regression, sorted pairs", 0.03, 2048),
        ("marron_wand_10", "regression, independent pairs", 0.1, 2048),
    )
}


def seconds_an_iteration(
    fit: Callable, dataset: Dataset, n_iterations: int = 200, **settings: object
) -> float:
    """Processor time of an iteration, its share of the validations included."""
    quietly(fit, dataset, 0, n_iterations=10, **settings)  # warm-up
    start = time.thread_time()
    model = quietly(fit, dataset, 0, n_iterations=n_iterations, **settings)
    return (time.thread_time() - start) / len(model.history.train)


def adam_step(objective: Objective, net: nn.Module) -> Callable[[], object]:
    """Value, gradient and move; so small a move that the next step finds the same weights."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-12)

    def step() -> None:
        optimizer.zero_grad()
        objective().backward()
        optimizer.step()

    return step


def natural_step(dataset: Dataset, flow) -> Callable[[], object]:
    """One step after the other from fresh weights, on all points, compressed."""
    y = flow.units(dataset.train)
    with seeded(0, dtype=y.dtype):
        f = flows.DRIFTS["mlp"]()
    nodes, weights = DataSource(y, PROPER["n_bins"])()
    climber = NaturalGradient(f, nodes, weights, **SOLVER, precision=1 / len(y))
    return lambda: (climber.look(), climber.move())


def of_one_batch(way: str, dataset: Dataset, model) -> Row:
    """Milliseconds of a step, and how much the objective of a batch fluctuates."""
    _, objective, unit = TRAINED[way]
    if objective is None:
        return NO_BATCH | {"ms a step": 1e3 * median_seconds(natural_step(dataset, model), 15)}
    value, net = objective(dataset, model), getattr(model, "model", None) or model.drift
    with torch.no_grad():
        values = torch.stack([value() for _ in range(400)]).double()
    sd, ms = values.std().item(), 1e3 * median_seconds(adam_step(value, net), 50)
    # where zero of a log-likelihood is depends on the unit of y
    relative = sd / values.mean().item() if unit == "mean square" else "–"
    return {"ms a step": ms, "sd": sd, "unit": unit, "sd / mean": relative}


def trained(way: str, density: str, data: dict[int, Dataset], budgets: Iterable[int]) -> Row:
    """KL after each budget, by seconds of a run that has as many iterations as there is room for.

    Beside it the step, and the way's settings.
    """
    fit, settings = TRAINED[way][0], SETTINGS.get((density, way), {})
    first, row = next(iter(data.values())), {}
    each = seconds_an_iteration(fit, first, **settings)
    for budget in budgets:
        options = settings | {"n_iterations": max(1, round(budget / each))}
        models = [quietly(fit, dataset, seed, **options) for seed, dataset in data.items()]
        row[f"KL after {budget} s"] = mean_kl(data, models)
    row["seconds"] = mean(model.history.seconds for model in models)
    row["iterations"] = mean(len(model.history.train) for model in models)
    row["ms an iteration"] = 1e3 * each
    words = {name: "all" if value is None else value for name, value in settings.items()}
    return of_one_batch(way, first, models[0]) | row | words


def solved(way: str, data: dict[int, Dataset], budgets: Iterable[int]) -> Row:
    """KL after each budget that the solve keeps to, and its seconds."""
    SOLVED[way](next(iter(data.values())), 0)  # warm-up
    models = [SOLVED[way](dataset, seed) for seed, dataset in data.items()]
    seconds, kl = mean(model.history.seconds for model in models), mean_kl(data, models)
    row = {f"KL after {b} s": kl if seconds <= b else "–" for b in budgets}
    return NO_BATCH | row | {"seconds": seconds}


def mean_kl(data: dict[int, Dataset], models: list) -> str:
    """Mean and standard error over the samples."""
    pairs = zip(data.values(), models, strict=True)
    return mean_and_error([distance(dataset, model.log_likelihood) for dataset, model in pairs])


def side_by_side(
    densities: Iterable[str], ways: Iterable[str], budgets: Iterable[int], seeds: Iterable[int]
) -> list[Row]:
    """A row for each of `TRAINED` and `SOLVED` and each density."""
    rows = []
    for density, way in tqdm(list(product(densities, ways)), "objectives", leave=False):
        data = {seed: make_dataset(density, seed=seed) for seed in seeds}
        by_train = way in TRAINED
        row = trained(way, density, data, budgets) if by_train else solved(way, data, budgets)
        rows.append({"data": DENSITIES[density], "way": way} | row)
    return rows


def make(options: Options) -> Tables:
    """Compare maximum likelihood, the bound, and flow matching: cost, noise, KL by seconds."""
    ways = [*TRAINED, *SOLVED]
    few = 1 if options.quick else None
    densities, budgets = list(DENSITIES)[:few], BUDGETS[: few and 2]
    return {"Three objectives": side_by_side(densities, ways, budgets, SEEDS[:few])}


if __name__ == "__main__":
    raise SystemExit(command(make, PACKAGES, "one density, one sample, no more than 4 s"))
