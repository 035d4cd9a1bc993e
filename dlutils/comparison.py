"""How far a fitted density is from the true one: integrals, not sample means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.integrate import simpson
from torch import Tensor

from dlutils.datasets import Dataset


@dataclass(frozen=True)
class Comparison:
    r"""A fitted density beside the true one, on a grid.

    Attributes:
        y: Grid over the data's support, shape `(n_grid,)`.
        log_p: True log-density there, nats; None where it is unknown.
        log_q: Fitted log-density there, nats.
        mass: $\int q\,dy$ over the support: one, for a density.
        kl: $\int p\log(p/q)\,dy$, nats; below zero only if the mass exceeds one.
            NaN if p is unknown.
    """

    y: np.ndarray
    log_p: np.ndarray | None
    log_q: np.ndarray
    mass: float
    kl: float

    @property
    def normalized_kl(self) -> float:
        r"""KL from the truth to $q/\int q$: what is left when the mass is divided out, nats."""
        return self.kl + float(np.log(self.mass))

    @property
    def words(self) -> str:
        """The distance from the truth for a caption, or the mass where no truth is known."""
        if self.log_p is None:
            return f"mass {self.mass:.4f}"
        return f"KL {self.normalized_kl:.4f} nats"

    def summary(self) -> str:
        """The mass and, where the truth is known, how far the densities are apart; to print."""
        lines = [f"mass of the model     {self.mass:.4f}"]
        if self.log_p is not None:
            lines.append(
                f"largest difference of the densities: {100 * self.worst:.1f} % of the peak"
            )
        return "\n".join(lines)

    @property
    def worst(self) -> float:
        """The largest difference of the two densities, in units of the true one's peak."""
        if self.log_p is None:
            return float("nan")
        p, q = np.exp(self.log_p), np.exp(self.log_q)
        return float(np.abs(q - p).max() / p.max())


def compare(
    dataset: Dataset, log_likelihood: Callable[[Tensor], Tensor], n_grid: int = 4001
) -> Comparison:
    """Compare a model with the truth by Simpson's rule over the data's support.

    Args:
        dataset: Gives the support and, where it is known, the true density.
        log_likelihood: The model's log-density, `(n,)` to `(n,)`, nats.
        n_grid: Number of grid points, odd and at least 101.

    Raises:
        ValueError: If `n_grid` is out of range, or the model's log-density is NaN or +inf.
    """
    if not isinstance(n_grid, int) or n_grid < 101 or n_grid % 2 == 0:
        raise ValueError(f"n_grid must be an odd integer of at least 101, not {n_grid!r}")
    y = np.linspace(*dataset.support, n_grid)
    with torch.no_grad():
        log_q = (
            log_likelihood(torch.from_numpy(y).to(torch.get_default_dtype()))
            .double()
            .numpy(force=True)
        )
    wrong = np.isnan(log_q) | (log_q == np.inf)
    if wrong.any():
        raise ValueError(
            f"the model's log-likelihood is not finite at {wrong.sum()} of {n_grid} grid points, "
            f"the first at y = {y[wrong][0]:g}"
        )
    mass = float(simpson(np.exp(log_q), x=y))
    if dataset.distribution is None:
        return Comparison(y, None, log_q, mass, float("nan"))
    log_p = dataset.log_prob(y).numpy()
    p = np.exp(log_p)
    inside = p > 0
    integrand = np.zeros_like(p)
    integrand[inside] = p[inside] * (log_p[inside] - log_q[inside])
    return Comparison(y, log_p, log_q, mass, float(simpson(integrand, x=y)))


def evaluate(
    dataset: Dataset, log_likelihood: Callable[[Tensor], Tensor], n_grid: int = 4001
) -> dict[str, object]:
    """One row of a table of models: on the test points, and by quadrature.

    Args:
        dataset: Gives test points, support and, where it is known, the true density.
        log_likelihood: The model's log-density, `(n,)` to `(n,)`, nats.
        n_grid: See `compare`.

    Returns:
        The final log-likelihood, a mean over the test points; the mass; and, where the truth is
        known, the final minus the expected log-likelihood with the standard error of that
        difference on the same points, and the KL divergence once the mass is divided out.
    """
    final = log_likelihood(dataset.test).double()
    found = compare(dataset, log_likelihood, n_grid)
    row = {"final log-likelihood": f"{final.mean():.4f}", "mass": f"{found.mass:.4f}"}
    if dataset.distribution is None:
        return row
    excess = final - dataset.log_prob(dataset.test)
    error = excess.std() / len(excess) ** 0.5
    return row | {
        "minus expected": f"{excess.mean():+.4f} ± {error:.4f}",
        "KL": found.normalized_kl,
    }


def slope(x: Sequence[float], y: ArrayLike) -> float:
    """The slope of log y against log x by least squares: an order of convergence, or its negative.

    Args:
        x: Positive, shape `(k,)`.
        y: Shape `(k,)`; an error of zero counts as 1e-16, since it has no logarithm.
    """
    y = np.maximum(np.asarray(y, dtype=float), 1e-16)
    return float(np.polyfit(np.log(np.asarray(x, dtype=float)), np.log(y), 1)[0])
