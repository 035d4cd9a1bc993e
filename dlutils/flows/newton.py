r"""All states of a solve at once, by Newton's method: work in parallel instead of in sequence.

The T steps of a solver are T equations $x_{k+1}=\Psi_k(x_k)$. Newton's method solves them together:
from a guess of the whole trajectory, one batched evaluation brings all defects
$d_k=\Psi_k(x_k)-x_{k+1}$ and slopes $r_k=\Psi_k'(x_k)$, and the correction obeys
$\delta_{k+1}=r_k\delta_k+d_k$, $\delta_0=0$: a recursion on one number per point. What is left in
sequence are the iterations: four or five where it was tried, for T = 100 as for T = 1000. They cost
more work than T steps, so it can pay where a batch takes hardly more time than one evaluation.

Source:
    Danieli et al., DeepPCR: parallelizing sequential operations in neural networks (2023);
    Lim et al., Parallelizing non-linear sequential models over the sequence length (2024).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Normal

from dlutils.flows import adjoint
from dlutils.flows.methods import Drift, check_solver, step_and_slope

TOLERANCE = 1e-6  # of the largest correction, in units of y
MOST_ITERATIONS = 50


def against_steps(
    f: Drift, y: Tensor, steps: Sequence[int], method: str, data: str
) -> list[dict[str, object]]:
    """For each T: Newton's iterations, and how far from the solve step by step, at most, nats.

    `data` is what the points y, `(n,)`, are called.
    """
    rows = []
    for n_steps in steps:
        log_p, iterations = log_likelihood(f, y, n_steps, method)
        with torch.no_grad():
            by_steps = adjoint.log_likelihood(f, y, n_steps, method, "map")
        row = {"data": data, "T": n_steps, "iterations": iterations}
        rows.append(row | {"difference / nats": (log_p - by_steps).abs().max().item()})
    return rows


def log_likelihood(
    f: Drift, y: Tensor, n_steps: int = 100, method: str = "euler"
) -> tuple[Tensor, int]:
    """Log p(y) by `map`, as `dlutils.flows.adjoint.log_likelihood`, and the number of iterations.

    Each iteration is as many batched evaluations of the drift, at `(T * n,)` states and times, as
    the method has stages.

    Returns:
        Nats, shape `(n,)`, without a gradient, NaN where a step folds the line; and the number.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or the iteration does not end.
    """
    check_solver(n_steps, method)
    h = -1 / n_steps
    t = 1 + h * torch.arange(n_steps, dtype=y.dtype, device=y.device)[:, None]
    states = y.detach().expand(n_steps + 1, -1).clone()
    for iteration in range(1, MOST_ITERATIONS + 1):
        after, slopes = _steps(f, states[:-1], t, h, method)
        correction = after - states[1:]  # the defects at first
        for k in range(1, n_steps):
            correction[k].addcmul_(slopes[k], correction[k - 1])
        states[1:] += correction
        largest = correction.abs().max().item()
        if largest < TOLERANCE:
            slopes = _steps(f, states[:-1], t, h, method)[1]
            log_p = Normal(0.0, 1.0).log_prob(states[-1]) + slopes.log().sum(dim=0)
            return log_p, iteration
    raise ValueError(
        f"Newton's method has not converged after {iteration} iterations: the last correction is "
        f"{largest:.3g}, more than {TOLERANCE:g}; raise n_steps"
    )


def _steps(f: Drift, x: Tensor, t: Tensor, h: float, method: str) -> tuple[Tensor, Tensor]:
    """Each step from its own state: where it leads, and its slope, `(T, n)` each."""
    at_all = lambda x, t: f(x.reshape(-1), t.expand_as(x).reshape(-1)).view_as(x)
    return step_and_slope(at_all, x, t, h, method)
