"""Runge and Kutta's methods: their coefficients, what these must be, their order, and a step."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from dlutils.settings import check_choice, check_count

Drift = Callable[[Tensor, Tensor], Tensor]
Tableau = tuple[Sequence[Sequence[float]], Sequence[float], Sequence[float]]

# Butcher's tableaus a, b, c: Euler, the explicit midpoint method, the classic Runge-Kutta method.
METHODS: dict[str, Tableau] = {
    "euler": ([[]], [1], [0]),
    "rk2": ([[], [1 / 2]], [0, 1], [0, 1 / 2]),
    "rk4": (
        [[], [1 / 2], [0, 1 / 2], [0, 0, 1]],
        [1 / 6, 1 / 3, 1 / 3, 1 / 6],
        [0, 1 / 2, 1 / 2, 1],
    ),
}
OTHER_SOLVERS = "the solvers take equal steps of explicit methods, no implicit or adaptive ones"
LOGDETS = ("trace", "map")


def check_solver(n_steps: int, method: str, logdet: str = "trace") -> None:
    """Raise a `ValueError` that names the value and the choices, or a flaw of the method."""
    check_choice("method", method, METHODS)
    check_tableau(method, METHODS[method])
    check_count("n_steps", n_steps)
    check_choice("logdet", logdet, LOGDETS)


def check_tableau(method: str, tableau: Tableau) -> None:
    """Raise a `ValueError` that names the flaw, unless a, b, c are an explicit, consistent method.

    Row i of a has the coefficients of the stages before stage i.
    """
    numbers = f"the method {method!r} must be lists of numbers a, b, c"
    try:
        a, b, c = ([np.asarray(row, dtype=float) for row in part] for part in tableau)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{numbers} ({OTHER_SOLVERS}): {error}") from error
    n_a, n_b, n_c = len(a), len(b), len(c)
    if not n_a == n_b == n_c > 0:
        raise ValueError(
            f"{numbers} of one length, not of {n_a}, {n_b} and {n_c} ({OTHER_SOLVERS})"
        )
    if any(row.ndim != 1 for row in a) or any(value.ndim for value in (*b, *c)):
        raise ValueError(f"{numbers}: a row in a for each stage, one number in b and in c")
    for i, row in enumerate(a):
        if row[i:].any():
            raise ValueError(
                f"the method {method!r} is implicit: stage {i} of a = {list(map(list, a))} needs "
                f"itself or a later one, and {OTHER_SOLVERS}"
            )
        if not abs(row.sum() - c[i]) < 1e-9:
            raise ValueError(
                f"c[{i}] of the method {method!r} must be {row.sum():g}, the sum of a[{i}], "
                f"not {c[i]:g}"
            )
    if not abs(sum(b) - 1) < 1e-9:
        raise ValueError(f"b of the method {method!r} must sum to 1, not to {sum(b):g}")


def order_of(method: str) -> int:
    """The order of a method, 1 to 4, by Butcher's conditions; 4 stands for four or more.

    Source:
        Butcher, Coefficients for the study of Runge-Kutta integration processes (1963); Hairer,
        Nørsett & Wanner, Solving Ordinary Differential Equations I (1993), section II.2.
    """
    check_solver(1, method)
    rows, b, c = METHODS[method]
    b, c, s = np.array(b, dtype=float), np.array(c, dtype=float), len(b)
    a = np.array([[*row, *[0] * s][:s] for row in rows], dtype=float)
    conditions = [  # of which order, the trees and what b makes of them
        (2, c, 1 / 2),
        (3, c**2, 1 / 3),
        (3, a @ c, 1 / 6),
        (4, c**3, 1 / 4),
        (4, c * (a @ c), 1 / 8),
        (4, a @ c**2, 1 / 12),
        (4, a @ a @ c, 1 / 24),
    ]
    return min((p for p, tree, value in conditions if abs(b @ tree - value) > 1e-9), default=5) - 1


def runge_kutta_step(f: Drift, x: Tensor, t: Tensor | float, h: float, method: str) -> Tensor:
    """The state one step of size h after the state x at time t."""
    a, b, c = METHODS[method]
    F = []
    for a_i, c_i in zip(a, c, strict=True):
        F.append(f(combine(x, h, a_i, F), t + c_i * h))
    return combine(x, h, b, F)


def step_and_slope(
    f: Drift, x: Tensor, t: Tensor | float, h: float, method: str
) -> tuple[Tensor, Tensor]:
    """Where a step leads from the states x, and its slope there, without a gradient."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        after = runge_kutta_step(f, x, t, h, method)
        (slope,) = torch.autograd.grad(after.sum(), x)
    return after.detach(), slope


def combine(x: Tensor, h: float, weights: Sequence[float], terms: Sequence[Tensor]) -> Tensor:
    """The state x + h sum(weights * terms), without the terms of weight zero."""
    for weight, term in zip(weights, terms, strict=False):
        if weight:
            x = torch.add(x, term, alpha=h * weight)
    return x
