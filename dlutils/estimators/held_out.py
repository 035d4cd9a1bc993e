"""Models on points that none of them has seen: what compares them where no truth is known."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dlutils.data.datasets import Dataset
from dlutils.data.own_data import intervals
from dlutils.data.units import Units
from dlutils.estimators.coordinates import Gaussianized
from dlutils.estimators.view import bends_of
from dlutils.estimators.yardsticks import YARDSTICKS, LogDensity
from dlutils.evaluation import Fitted, quadrature
from dlutils.processes import limited
from dlutils.quadrature import gauss_legendre

Model = LogDensity | Fitted  # a log-density, or what has a method log_likelihood
NOTABLE = 0.001  # nats from which on an advantage is mentioned
MOST_NODES = 1 << 15  # of all intervals together, but for two in each
OUTSIDE = 0.01  # share of a model where no data are, from which on bounds are suggested


@limited()
def rivals(dataset: Dataset) -> dict[str, LogDensity]:
    """The log-densities of all `YARDSTICKS`, fitted to the training points; nothing is random.

    They see bounded or heavy-tailed data in the same coordinate as the models do, but for that in
    which a mixture is one Gaussian.
    """
    bends = tuple(bend for bend in bends_of(dataset) if not isinstance(bend, Gaussianized))
    units, weights = Units(bends=bends), dataset.weights.get("train")
    fits = {name: fit(units(dataset.train), weights=weights) for name, fit in YARDSTICKS.items()}
    return {
        name: lambda y, log_q=log_q: log_q(units(y)).double() + units.log_slope(y)
        for name, log_q in fits.items()
    }


@limited()
def log_likelihood(model: Model, dataset: Dataset) -> Tensor:
    """Of each test point, nats, float64, `(n,)`; of its interval where the data are rounded.

    The probability of an interval is an integral of the density by Gauss and Legendre's rule, of
    fewer nodes where there are very many intervals, which are then narrow.
    """
    y, log_density = dataset.as_read, getattr(model, "log_likelihood", model)
    if y is None:
        return log_density(dataset.test).double()
    values, where = y.unique(return_inverse=True)
    low, high = intervals(values, dataset.rounding, dataset.bounds)
    n_nodes = min(16, max(2, MOST_NODES // len(values)))
    at, weights = map(torch.from_numpy, gauss_legendre(n_nodes, low, high))
    log_q = log_density(at.flatten().to(y.dtype)).double().view_as(at)
    return (log_q + weights.log()).logsumexp(dim=1)[where]


def mean_and_error(values: Tensor, weights: Tensor | None = None) -> tuple[float, float]:
    """Mean of independent values and its standard error, both weighted if there are weights."""
    w = torch.ones(len(values), dtype=torch.float64) if weights is None else weights.double()
    w, values = w / w.sum(), values.double()
    mean = w @ values
    variance = (w**2) @ (values - mean) ** 2 / (1 - w @ w)
    return mean.item(), variance.sqrt().item()


@limited()
def table(models: Mapping[str, Model], dataset: Dataset) -> list[dict[str, str]]:
    """Mean log-likelihood of the test points, in nats, with standard errors; and advice, printed.

    Models are compared by the paired difference on the same points, whose standard error is much
    smaller than that of either mean where they are alike. Where values are repeated often, a
    density that piles up at them has as high a likelihood as it likes, and nothing is compared;
    unless the step of the rounding is known: then likelihoods are those of intervals.

    Args:
        models: Log-densities, or what has one, by name; the others are compared with the first that
            has a density: others have no row.
        dataset: Its test points, at least 2, with their rounding and weights.

    Returns:
        A row a model: model, log-likelihood ± standard error, the first minus it ± standard error.

    Raises:
        ValueError: If there are fewer than 2 points or no models, or none has a density.
    """
    if len(dataset.test) < 2 or not models:
        raise ValueError(
            f"{len(models)} models on {len(dataset.test)} held-out points: at least 1 and 2 are "
            "needed; a larger sample leaves more"
        )
    first = next(iter(models))
    if dataset.ties.are_spikes:
        print(f"Nothing is compared, a density's likelihood is unbounded there: {dataset.ties}")
        return [{"model": name, "log-likelihood": "–", f"{first} minus it": "–"} for name in models]
    values = {}
    for name, model in models.items():
        try:
            values[name] = log_likelihood(model, dataset)
        except ValueError as error:  # its steps fold the line
            print(f"{name} has no density: {error}")
    if not values:
        raise ValueError(f"none of the models has a density: {', '.join(models)}")
    first, weights = next(iter(values)), dataset.weights.get("test")
    gains, rows = {}, []
    for name, log_p in values.items():
        mean, error = mean_and_error(log_p, weights)
        row = {"model": name, "log-likelihood": f"{mean:.4f} ± {error:.4f}"}
        gains[name] = gain, error = mean_and_error(values[first] - log_p, weights)
        row[f"{first} minus it"] = "–" if name == first else f"{gain:.4f} ± {error:.4f}"
        rows.append(row)
    _advise(first, models[first], dataset, gains)
    return rows


def _advise(
    first: str, model: Model, dataset: Dataset, gains: Mapping[str, tuple[float, float]]
) -> None:
    """Say what to try where a model is behind a yardstick, or lies where no data can be.

    `gains` are its mean log-likelihood minus that of the others, and the standard errors, nats.
    """
    behind = {
        name: -gain
        for name, (gain, error) in gains.items()
        if name in YARDSTICKS and gain < min(-2 * error, -NOTABLE)
    }
    if behind:
        worst = max(behind, key=behind.get)
        print(
            f"{worst} is ahead of {first} by {behind[worst]:.3f} nats, more than two standard "
            'errors: try another net (train(data, "auto") tries two), or the SDE that is solved for'
        )
    unbounded = not dataset.is_known and math.isinf(dataset.bounds[0])
    if unbounded and dataset.points.min() >= 0:
        nodes, weights = map(torch.from_numpy, quadrature(dataset))
        log_q = getattr(model, "log_likelihood", model)(nodes.to(dataset.train.dtype)).double()
        mass = weights[nodes < 0] @ log_q.exp()[nodes < 0]
        if mass > OUTSIDE:
            print(
                f"{100 * mass:.1f} % of {first} lie below zero, where no data are: "
                "SUPPORT = (0, math.inf) keeps it out"
            )
