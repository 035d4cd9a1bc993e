r"""All states of a solve at once, by Newton's method: work in parallel instead of in sequence.

The T steps of a solver are T equations $x_{k+1}=\Psi_k(x_k)$. Newton's method solves them together:
from a guess of the whole trajectory, one batched evaluation brings all defects
$d_k=\Psi_k(x_k)-x_{k+1}$ and slopes $r_k=\Psi_k'(x_k)$, and the correction obeys
$\delta_{k+1}=r_k\delta_k+d_k$, $\delta_0=0$: a recursion on one number per point. What is left in
sequence are the iterations: four or five where it was tried, for T = 100 as for T = 1000. They cost
more work than T steps, so it can pay where a batch takes hardly more time than one evaluation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Normal

from dlutils.flows import adjoint
from dlutils.flows.methods import Drift, check_solver, runge_kutta_step

MOST_ITERATIONS = 50


def log_likelihood(
    f: Drift, y: Tensor, n_steps: int = 100, method: str = "euler", tolerance: float = 1e-6
) -> tuple[Tensor, int]:
    """Log p(y) by `map`, as `dlutils.flows.adjoint.log_likelihood`, and the number of iterations.

    Returns:
        Nats, shape `(n,)`, without a gradient; NaN where a step folds the line.
    """
    states, slopes, iterations = newton_trajectory(f, y, 1.0, 0.0, n_steps, method, tolerance)
    return Normal(0.0, 1.0).log_prob(states[-1]) + slopes.log().sum(dim=0), iterations


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


def newton_trajectory(
    f: Drift,
    x: Tensor,
    t0: float,
    t1: float,
    n_steps: int = 100,
    method: str = "euler",
    tolerance: float = 1e-6,
) -> tuple[Tensor, Tensor, int]:
    """The states of dx/dt = f(x, t) after 0, 1, ..., T equal steps, all at once.

    Args:
        f: Drift, called with states and times of shape `(T * n,)`.
        x: State at t0, shape `(n,)`.
        t0: Where the solve starts.
        t1: Where it ends; t1 < t0 goes back.
        n_steps: Number of steps T.
        method: One of `dlutils.flows.methods.METHODS`.
        tolerance: The largest correction at which the iteration ends, positive, in units of x.

    Returns:
        States, shape `(T + 1, n)`; the slope r of each step there, `(T, n)`; and the number of
        iterations, each of which is as many batched evaluations as the method has stages.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or the iteration does not end.

    Source:
        Danieli et al., DeepPCR: parallelizing sequential operations in neural networks (2023);
        Lim et al., Parallelizing non-linear sequential models over the sequence length (2024).
    """
    check_solver(n_steps, method)
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, not {tolerance!r}")
    h = (t1 - t0) / n_steps
    t = t0 + h * torch.arange(n_steps, dtype=x.dtype, device=x.device)[:, None]
    states = x.detach().expand(n_steps + 1, -1).clone()
    for iteration in range(1, MOST_ITERATIONS + 1):
        after, slopes = _steps(f, states[:-1], t, h, method)
        defects = after - states[1:]
        delta = torch.zeros_like(x)
        for k, (r, d) in enumerate(zip(slopes, defects, strict=True), start=1):
            delta = torch.addcmul(d, r, delta)
            defects[k - 1] = delta
        states[1:] += defects
        largest = defects.abs().max().item()
        if largest < tolerance:
            return states, _steps(f, states[:-1], t, h, method)[1], iteration
        if not largest < torch.inf:
            break
    raise ValueError(
        f"Newton's method has not converged after {iteration} iterations: the last correction is "
        f"{largest:.3g}, more than {tolerance:g}; raise n_steps"
    )


def _steps(f: Drift, x: Tensor, t: Tensor, h: float, method: str) -> tuple[Tensor, Tensor]:
    """Each step from its own state: where it leads, and its slope, `(T, n)` each."""
    at_all = lambda x, t: f(x.reshape(-1), t.expand_as(x).reshape(-1)).view_as(x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        after = runge_kutta_step(at_all, x, t, h, method)
        (slopes,) = torch.autograd.grad(after.sum(), x)
    return after.detach(), slopes
