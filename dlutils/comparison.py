"""How far a fitted density is from the true one: integrals, not sample means."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
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
