"""What the number of steps does to a flow: its distance from the truth, and its likelihood."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dlutils.data.datasets import Dataset
from dlutils.evaluation import Fitted, compare
from dlutils.flows import adjoint
from dlutils.flows.methods import check_solver

N_NODES = 2001  # of the quadrature


def kl_by_steps(
    dataset: Dataset, models: Mapping[str, Fitted], method: str, steps: Sequence[int]
) -> dict[str, np.ndarray]:
    """The KL divergence of trained flows from the truth when they take T steps, for each T.

    Of models by name, dataclasses with `method` and `n_steps`; in nats, NaN where the steps fold
    the line, so that there is no density.

    Raises:
        ValueError: If the method is unknown or a number is out of range.
    """
    for n_steps in steps:
        check_solver(n_steps, method)

    def kl(model: Fitted, T: int) -> float:
        with suppress(ValueError):
            in_T = replace(model, method=method, n_steps=T)
            return compare(dataset, in_T.log_likelihood, N_NODES).normalized_kl
        return np.nan

    return {name: np.array([kl(model, T) for T in steps]) for name, model in models.items()}


def errors_by_steps(
    f: adjoint.Drift, grid: Tensor, methods: Sequence[str], steps: Sequence[int]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    r"""What the integrator does to the likelihood of one flow, against rk4 with T = 512.

    The grid are equally spaced states that cover the density q, `(m,)`.

    Returns:
        By method, for each number of steps T: the mean absolute error of the log-likelihood by
        `trace`, $\int q\,|\log q_T-\log q|$, nats; and the absolute error of the mass. NaN where
        the steps fold the line.
    """
    integral = lambda values: torch.trapezoid(values, grid).item()

    def log_density(n_steps: int, method: str) -> Tensor:
        with torch.no_grad(), suppress(ValueError):
            return adjoint.log_likelihood(f, grid, n_steps, method)
        return torch.full_like(grid, torch.nan)

    log_q = log_density(512, "rk4")
    solved = {m: [log_density(T, m) for T in steps] for m in methods}
    q = log_q.exp()
    in_log = {m: [integral(q * (of_T - log_q).abs()) for of_T in of] for m, of in solved.items()}
    in_mass = {m: [abs(integral(of_T.exp() - q)) for of_T in of] for m, of in solved.items()}
    return in_log, in_mass
