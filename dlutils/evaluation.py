"""How far a fitted density is from the true one: integrals, not sample means."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_trapezoid
from scipy.interpolate import CubicSpline
from torch import Tensor

from dlutils.data.datasets import Dataset
from dlutils.quadrature import gauss_legendre
from dlutils.settings import check_count, check_points
from dlutils.tables import plus_minus
from dlutils.training import History

LogLikelihood = Callable[[Tensor], Tensor]
MASS_TOLERANCE = 0.01


@dataclass(frozen=True)
class Comparison:
    r"""A fitted density beside the true one, on a grid.

    Attributes:
        y: Nodes over the data's support, increasing, shape `(m,)`.
        weights: Of the quadrature: the integral of g is the sum of weights times g(y); `(m,)`.
        log_p: True log-density there, nats; None where it is unknown.
        log_q: Fitted log-density there, nats.
        mass: $\int q\,dy$ over `Dataset.reach`: one, for a density.
        kl: $\int p\log(p/q)\,dy$, nats; below zero only if the mass exceeds one.
            NaN if p is unknown.
    """

    y: np.ndarray
    weights: np.ndarray
    log_p: np.ndarray | None
    log_q: np.ndarray
    mass: float
    kl: float

    @property
    def normalized_kl(self) -> float:
        r"""KL from the truth to $q/\int q$: what is left when the mass is divided out, nats."""
        return self.kl + float(np.log(self.mass))

    @property
    def ise(self) -> float:
        r"""$\int(p-q)^2dy$, the integrated squared error, mass divided out, per unit of y."""
        return float(self.weights @ (np.exp(self.log_p) - np.exp(self.log_q) / self.mass) ** 2)

    @property
    def squared_hellinger(self) -> float:
        r"""$1-\int\sqrt{pq}\,dy$, the squared Hellinger distance, mass divided out, 0 to 1."""
        overlap = self.weights @ np.exp((self.log_p + self.log_q) / 2) / self.mass**0.5
        return float(max(1 - overlap, 0.0))

    @property
    def is_density(self) -> bool:
        """Whether the mass is one to within 0.01."""
        return abs(self.mass - 1) <= MASS_TOLERANCE

    @property
    def words(self) -> str:
        """The distance from the truth for a caption, or the mass where no truth is known."""
        if self.log_p is None:
            return f"mass {self.mass:.4f}"
        mass = "" if self.is_density else f", mass {self.mass:.4g}"
        return f"KL {self.normalized_kl:.4f} nats{mass}"

    def summary(self) -> str:
        """The mass and, where the truth is known, how far the densities are apart; to print."""
        text = f"mass of the model     {self.mass:.4f}"
        if not self.is_density:
            text += (
                f"\nThe mass is off by more than {MASS_TOLERANCE}: this is no density, and its "
                "log-likelihood is none to quote. Take more steps."
            )
        if self.log_p is not None:
            text += f"\nKL, mass divided out   {self.normalized_kl:.4f} nats from the truth"
            k = np.abs(self.differences).argmax()
            text += f"\nlargest difference of the densities: {100 * self.differences[k]:+.1f} % of "
            text += f"the peak, at y = {self.y[k]:.3g}"
        return text

    @property
    def differences(self) -> np.ndarray:
        """The fitted density minus the true one, in units of the true one's peak, `(m,)`."""
        p, q = np.exp(self.log_p), np.exp(self.log_q)
        return (q - p) / p.max()

    @property
    def worst(self) -> float:
        """The largest of the `differences`, without its sign."""
        return float("nan") if self.log_p is None else float(np.abs(self.differences).max())


def compare(dataset: Dataset, log_likelihood: LogLikelihood, n_nodes: int = 4001) -> Comparison:
    """Compare a model with the truth by quadrature.

    Over the data's support; of a user's own data the mass is over as good as all of the line.

    Args:
        dataset: Gives the support and, where it is known, the true density.
        log_likelihood: The model's log-density, `(n,)` to `(n,)`, nats.
        n_nodes: See `quadrature`.

    Raises:
        ValueError: If `n_nodes` is out of range, or the model's log-density is NaN or +inf.
    """
    y, weights = quadrature(dataset, n_nodes)
    with torch.no_grad():
        nodes = torch.from_numpy(y).to(dataset.train.dtype)
        log_q = log_likelihood(nodes).double().numpy(force=True)
    wrong = np.isnan(log_q) | (log_q == np.inf)
    if wrong.any():
        raise ValueError(
            f"the model's log-likelihood is not finite at {wrong.sum()} of {len(y)} nodes, "
            f"the first at y = {y[wrong][0]:g}"
        )
    mass = float(np.exp(log_q + np.log(weights)).sum())
    if dataset.distribution is None:
        seen = (y >= dataset.support[0]) & (y <= dataset.support[1])
        return Comparison(y[seen], weights[seen], None, log_q[seen], mass, float("nan"))
    log_p = dataset.log_prob(y).numpy()
    inside = np.exp(log_p) > 0
    kl = (weights * np.exp(log_p))[inside] @ (log_p[inside] - log_q[inside])
    return Comparison(y, weights, log_p, log_q, mass, float(kl))


def quadrature(dataset: Dataset, n_nodes: int = 4001) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights over the data's reach, dense where the data are.

    Gauss and Legendre's rule in panels. They end at quantiles of the truth, or of the data where it
    is unknown, at its jumps and kinks, at distances from the extremes that grow geometrically, and
    at equal steps. Own data that are bounded have panels in the coordinate in which models see
    them: beside a bound a density of y may be as large as it likes, and y itself is rounded.

    Args:
        dataset: Gives them.
        n_nodes: About how many, at least 101.

    Returns:
        Nodes, in order, and positive weights, shape `(m,)` each.

    Raises:
        ValueError: If `n_nodes` is out of range.
    """
    check_count("n_nodes", n_nodes, 101)
    low, high = dataset.reach
    ends = torch.tensor([low, *np.linspace(*dataset.support, 33), high], dtype=torch.float64)
    low, *equal, high = dataset.unbounded(ends).tolist()
    edges = dataset.breakpoints
    edges = np.union1d(edges[(edges > low) & (edges < high)], [low, *equal, high])
    nodes, weights = rule(dataset, edges, max(2, round(n_nodes / (len(edges) - 1))))
    return nodes.ravel(), weights.ravel()


def rule(dataset: Dataset, edges: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Legendre's nodes y, and weights, between edges in `Dataset.unbounded`.

    Of k edges, `(k - 1, n)` each.
    """
    x, weights = gauss_legendre(n, edges[:-1], edges[1:])
    y = dataset.unbounded.inverse(torch.from_numpy(x))
    return y.numpy(), weights * (-dataset.unbounded.log_slope(y)).exp().numpy()


def evaluate(
    dataset: Dataset, log_likelihood: LogLikelihood, n_nodes: int = 4001
) -> dict[str, object]:
    """One row of a table of models: on the test points, and by quadrature.

    Args:
        dataset: Gives test points, support and, where it is known, the true density.
        log_likelihood: The model's log-density, `(n,)` to `(n,)`, nats.
        n_nodes: See `quadrature`.

    Returns:
        The final log-likelihood, a mean over the test points; the mass; and, where the truth is
        known, the final minus the expected log-likelihood with the standard error of that
        difference on the same points, and the KL divergence once the mass is divided out; else
        dashes.
    """
    final = log_likelihood(dataset.test).double()
    found = compare(dataset, log_likelihood, n_nodes)
    row = {"final log-likelihood": f"{final.mean():.4f}", "mass": f"{found.mass:.4f}"}
    if dataset.distribution is None:
        return row | {"minus expected": "–", "KL": "–"}
    excess = final - dataset.log_prob(dataset.test)
    return row | {"minus expected": plus_minus(excess), "KL": found.normalized_kl}


class Fitted(Protocol):
    """A trained model, such as the notebooks' `train` returns; no iterations if solved for."""

    history: History

    def log_likelihood(self, y: Tensor) -> Tensor:
        """The log-density at y, `(n,)`, nats."""


def over_samples(
    models: Mapping[str, Sequence[Fitted]], datasets: Sequence[Dataset], reference: str
) -> list[dict[str, object]]:
    """A table of models, each fitted to several samples: distances from the truth, by quadrature.

    Args:
        models: By name, the model fitted to each sample.
        datasets: The samples.
        reference: The name of the model that the others are compared with; it need not be here.

    Returns:
        A row a model: the mean KL divergence, masses divided out, with its standard error over the
        samples; the smallest and the largest; the mean difference from the reference on the same
        samples with its standard error; the mass that is farthest from one; and the mean seconds
        of training. Dashes where a model has no density, because its steps fold the line.
    """
    found = {
        name: [_compare_or_none(*pair) for pair in zip(datasets, fitted, strict=True)]
        for name, fitted in models.items()
    }
    kl = {
        name: torch.tensor([c.normalized_kl for c in of], dtype=torch.float64)
        for name, of in found.items()
        if all(of)
    }
    difference, rows = f"minus {reference}", []
    for name, of in found.items():
        row = {"model": name} | dict.fromkeys(("KL", "from – to", difference, "mass"), "–")
        if name not in kl:
            row["KL"] = f"no density on {of.count(None)} of {len(of)}"
        else:
            row["KL"] = plus_minus(kl[name], "", 5)
            row["from – to"] = f"{kl[name].min():.5f} – {kl[name].max():.5f}"
            row["mass"] = f"{max((c.mass for c in of), key=lambda mass: abs(mass - 1)):.4f}"
            if reference in kl and name != reference:
                row[difference] = plus_minus(kl[name] - kl[reference], "+", 5)
        seconds = sum(model.history.seconds for model in models[name]) / len(of)
        rows.append(row | {"seconds": seconds})
    return rows


def densities(dataset: Dataset, models: Mapping[str, Fitted]) -> dict[str, Comparison]:
    """What `compare` finds, by name, for those of the models whose steps nowhere fold the line."""
    found = {name: _compare_or_none(dataset, model) for name, model in models.items()}
    return {name: comparison for name, comparison in found.items() if comparison}


def _compare_or_none(dataset: Dataset, model: Fitted) -> Comparison | None:
    with suppress(ValueError):  # the steps fold the line
        return compare(dataset, model.log_likelihood)
    return None


def constant_cdf(x: ArrayLike, p: ArrayLike, levels: Sequence[float]) -> np.ndarray:
    """Where the CDF of p(., t) has the given values, at each of k times.

    Args:
        x: States that cover all of p, increasing along the second axis, shape `(k, m)`.
        p: Density at those states, shape `(k, m)`.
        levels: Values between 0 and 1, l of them.

    Returns:
        Shape `(k, l)`.
    """
    cdf = cumulative_trapezoid(p, x, axis=1, initial=0)
    return np.stack([np.interp(levels, c / c[-1], x_t) for c, x_t in zip(cdf, x, strict=True)])


def slope(x: Sequence[float], y: ArrayLike) -> float:
    """The slope of log y against log x by least squares: an order of convergence, or its negative.

    Args:
        x: Positive, shape `(k,)`.
        y: Shape `(k,)`; an error of zero counts as 1e-16, since it has no logarithm, and NaN is
            left out.
    """
    x, y = np.asarray(x, dtype=float), np.maximum(np.asarray(y, dtype=float), 1e-16)
    known = ~np.isnan(y)
    if known.sum() < 2:
        return float("nan")
    return float(np.polyfit(np.log(x[known]), np.log(y[known]), 1)[0])


def through_nodes(log_q: Callable[[Tensor], Tensor], y: Tensor, n_nodes: int = 1001) -> Tensor:
    """log_q at many points by a cubic spline through few, where each point costs much.

    The nodes are evenly spread over the range of the points y, `(n,)`; up to twice as many points
    are given to `log_q` itself, a smooth function, `(n,)` to `(n,)`.
    """
    check_points(y)
    if len(y) <= 2 * n_nodes:
        return log_q(y)
    nodes = torch.linspace(y.min(), y.max(), n_nodes, dtype=y.dtype, device=y.device)
    spline = CubicSpline(nodes.double(), log_q(nodes).double())
    return torch.from_numpy(spline(y.double())).to(y.dtype)
