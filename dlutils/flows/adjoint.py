r"""The exact log-likelihood of a flow and its gradient, without backprop through the solver.

For a flow on the line the adjoint of the solver is one number per point, and it obeys a linear
recursion whose coefficients can all be computed at once when the trajectory is known. So one
gradient is: T cheap steps without autograd; *one* batched evaluation of $F=f$, $G=\partial_xf$ and
$H=\partial_{xx}f$ at all stages; a recursion on numbers; one batched backward pass. It is the same
gradient as backprop through the T steps (Pontryagin et al. 1962; Gholami, Keutzer & Biros 2019 for
why the discrete one), not an approximation of it.
"""

from collections.abc import Iterator, Sequence
from math import inf, log, pi

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from dlutils.flows.kernels import AutogradKernel
from dlutils.flows.methods import METHODS, Drift, check_solver, combine, runge_kutta_step
from dlutils.processes import few_threads
from dlutils.settings import check_count, check_points

CACHED_POINTS = 2304  # stages whose derivatives are computed together: they stay in a core's cache
CACHED_STATES = 1024  # points that are solved together where no gradient is asked for, likewise

Stages = Sequence[Tensor]  # of a run of steps, (steps, n) for each stage


@few_threads
def log_likelihood(
    f: Drift,
    y: Tensor,
    n_steps: int = 100,
    method: str = "euler",
    logdet: str = "trace",
    chunk: int | None = None,
) -> Tensor:
    """Log p(y) of the flow dx/dt = f(x, t), x_0 ~ N(0, 1), y = x_1, with the adjoint's gradient.

    Args:
        f: Drift, called with states and times of one shape. An `nn.Module`, if its weights are to
            get a gradient; it may offer a faster `kernel()`.
        y: Data, shape `(n,)`.
        n_steps: Number of steps T.
        method: One of `METHODS`.
        logdet: "trace" integrates the divergence; "map" differentiates the steps.
        chunk: Time steps whose derivatives are held at a time; None chooses what fits a cache.
            The result does not depend on it, but for the order of sums.

    Returns:
        Log-likelihood in nats, shape `(n,)`.

    Raises:
        ValueError: If a name is unknown, a number is out of range, a step folds the line, the solve
            is not finite, or `f` hides tensors that require a gradient.
    """
    solver = _Solver(f, y, n_steps, method, logdet, chunk)
    if not torch.is_grad_enabled():
        return torch.cat([solver.values(part)[0] for part in y.split(CACHED_STATES)])
    return _LogLikelihood.apply(solver, y, *solver.kernel.parameters)


@few_threads
def mean_log_likelihood(
    f: Drift,
    y: Tensor,
    weights: Tensor | None = None,
    n_steps: int = 100,
    method: str = "euler",
    logdet: str = "trace",
    chunk: int | None = None,
) -> Tensor:
    """The weighted mean of log p(y), a scalar in nats: the objective of maximum likelihood.

    It evaluates every derivative once, where the mean of `log_likelihood` needs some twice. The
    weights, `(n,)`, are constants, not negative and not all zero, else a `ValueError`; None for
    equal ones. All else is as in `log_likelihood`.
    """
    solver = _Solver(f, y, n_steps, method, logdet, chunk)
    if weights is None:
        weights = torch.ones_like(y)
    if weights.shape != y.shape or not (weights >= 0).all() or not 0 < weights.sum() < inf:
        raise ValueError(
            f"weights must have the shape of y, {tuple(y.shape)}, not be negative or NaN, and have "
            f"a positive finite sum, not {weights}"
        )
    weights = (weights / weights.sum()).to(y.dtype).detach()
    if not torch.is_grad_enabled():
        return weights @ solver.values(y)[0]
    return _MeanLogLikelihood.apply(solver, y, weights, *solver.kernel.parameters)


@few_threads
def scores(
    f: Drift,
    y: Tensor,
    n_steps: int = 100,
    method: str = "euler",
    logdet: str = "trace",
) -> tuple[Tensor, Tensor]:
    r"""Log p(y) and the score $\nabla_\theta\log p(y)$ of each point, by the batched adjoint.

    It costs about one gradient of the mean: the sum over the points is left out. Arguments and
    errors are those of `log_likelihood`; the drift is an `nn.Module`.

    Returns:
        Log-likelihoods in nats, shape `(n,)`, and scores, shape `(n, k)` for k weights that require
        a gradient, in the order of `nn.utils.parameters_to_vector`.
    """
    solver = _Solver(f, y, n_steps, method, logdet)
    with torch.no_grad():
        stages, x_0 = solver.solve(y)
        log_p, _, parts = solver.sweep(stages, x_0, torch.ones_like(x_0), each=True)
    return log_p, torch.cat([part.reshape(len(y), -1) for part in parts if part is not None], dim=1)


def flat_gradient(value: Tensor, f: nn.Module) -> Tensor:
    """The derivative of a scalar in all weights of f, as one vector."""
    return parameters_to_vector(torch.autograd.grad(value, list(f.parameters())))


def continuous_gradient(
    f: Drift, y: Tensor, weights: Tensor, n_steps: int = 100, method: str = "euler"
) -> list[Tensor]:
    r"""The gradient of sum(weights * log p) by the continuous adjoint: memory without T in it.

    The state goes back to t = 0 and forgets its way; then it goes forward again, together with the
    sensitivity $a=\partial\log p/\partial x_t$ and the gradient,
    $$\dot x=f,\quad\dot a=-a\,\partial_xf-\partial_{xx}f,\quad
    \dot g=-a\,\partial_\theta f-\partial_\theta\partial_xf,\qquad a(0)=-x_0.$$
    The steps forward are not the inverse of those back, so it is the gradient of neither, but for
    an error of the order of the method. It is a list, for each of the drift's weights.

    Raises:
        ValueError: As `log_likelihood`, but not for folds.

    Source:
        Chen, Rubanova, Bettencourt & Duvenaud, Neural ordinary differential equations (2018),
        algorithm 1; Gholami, Keutzer & Biros, ANODE (2019), for its error.
    """
    kernel = _Solver(f, y, n_steps, method).kernel
    a, b, c = METHODS[method]
    h, x = 1 / n_steps, y.detach()
    with torch.no_grad():
        for n in range(n_steps):
            x = runge_kutta_step(kernel.velocity, x, 1 - n * h, -h, method)
        costate, gradients = -x, [torch.zeros_like(p) for p in kernel.parameters]
        for n in range(n_steps):
            F, A = [], []
            for a_i, b_i, c_i in zip(a, b, c, strict=True):
                X, costate_i = combine(x, h, a_i, F), combine(costate, h, a_i, A)
                at = torch.full_like(X, (n + c_i) * h)
                F_i, G, H, pullback = kernel.derivatives(X, at)
                F.append(F_i)
                A.append(-costate_i * G - H)
                w = -h * b_i * weights
                for total, part in zip(gradients, pullback(w * costate_i, w), strict=True):
                    total += part
            x, costate = combine(x, h, b, F), combine(costate, h, b, A)
    return gradients


class _Solver:
    """One way to integrate one drift; it checks the arguments of `log_likelihood`."""

    def __init__(
        self,
        f: Drift,
        y: Tensor,
        n_steps: int,
        method: str,
        logdet: str = "trace",
        chunk: int | None = None,
    ) -> None:
        check_solver(n_steps, method, logdet)
        if y.ndim != 1 or len(y) == 0:
            raise ValueError(f"y must have shape (n,) with n of at least 1, not {tuple(y.shape)}")
        check_points(y)
        self.a, self.b, self.c = METHODS[method]
        if chunk is None:
            chunk = max(1, CACHED_POINTS // (len(y) * len(self.b)))
        check_count("chunk", chunk)
        if not isinstance(f, nn.Module) and f(y[:1].detach(), torch.ones_like(y[:1])).requires_grad:
            raise ValueError(
                f"the drift {f!r} uses tensors that require a gradient but is not an nn.Module, "
                "so they would get none: make it an nn.Module with parameters"
            )
        self.kernel = f.kernel() if hasattr(f, "kernel") else AutogradKernel(f)
        self.n_steps, self.method, self.logdet, self.chunk = n_steps, method, logdet, chunk
        self.h = -1 / n_steps

    def values(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-likelihoods, shape (n,), and what `solve` returns."""
        G = y.new_empty(self.n_steps, len(self.b), len(y))
        if hasattr(self.kernel, "with_slope"):  # for little more than the velocity
            stages, x_0 = self.solve(y, G)
        else:
            stages, x_0 = self.solve(y)
            for where, X, t in self.chunks(stages):
                G[where] = self.kernel.slope(X, t).view_as(stages[where])
        return _log_normal(x_0) + self.stretch(G.unbind(1), 0)[0].sum(0), stages, x_0

    def solve(self, y: Tensor, slopes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Step from t = 1 back to 0; all stages, shape (T, stages, n), and x_0, shape (n,).

        If given, `slopes`, of the stages' shape, receives the drift's slopes there.
        """
        x, h = y.detach(), self.h
        stages = y.new_empty(self.n_steps, len(self.b), len(y))
        with torch.no_grad():
            for n in range(self.n_steps):
                F = []
                for i, (a_i, c_i) in enumerate(zip(self.a, self.c, strict=True)):
                    stages[n, i] = X = combine(x, h, a_i, F)
                    t = 1 + (n + c_i) * h
                    if slopes is None:
                        F.append(self.kernel.velocity(X, t))
                    else:
                        F_i, slopes[n, i] = self.kernel.with_slope(X, t)
                        F.append(F_i)
                x = combine(x, h, self.b, F)
        if not x.isfinite().all():
            step = int(stages.isfinite().all(2).all(1).sum())
            raise ValueError(
                f"the solve is not finite from t = {1 + step * h:.3g} on: the drift explodes; "
                "raise n_steps, or lower the learning rate"
            )
        return stages, x

    def chunks(self, stages: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Runs of steps, last ones first: where, their stages, and the times of those, flat."""
        c = stages.new_tensor(self.c)
        for low in reversed(range(0, self.n_steps, self.chunk)):
            where = slice(low, min(low + self.chunk, self.n_steps))
            X = stages[where]
            n = torch.arange(where.start, where.stop, dtype=X.dtype, device=X.device)
            t = 1 - (n[:, None] + c) / self.n_steps
            yield where, X.reshape(-1), t[..., None].expand_as(X).reshape(-1)

    def sweep(
        self, stages: Tensor, x_0: Tensor, v: Tensor, each: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Log-likelihoods, and the gradient of sum(v * log p) in y and in the weights.

        With `each` the latter is that of every v * log p, shape `(n, *shape of the weights)`.
        """
        log_p, costate = _log_normal(x_0), -x_0 * v
        n = len(x_0) if each else None
        gradients = [
            p.new_zeros(x_0.shape * each + p.shape) if p.requires_grad else None
            for p in self.kernel.parameters
        ]
        for where, X, t in self.chunks(stages):
            shape = stages[where].shape
            _, G, H, pullback = self.kernel.derivatives(X, t)
            G, H = (values.view(shape).unbind(1) for values in (G, H))
            log_det, U, r = self.stretch(G, where.start)
            log_p += log_det.sum(0)
            w, c, costate = self.costates(G, H, U, r, v, costate)
            parts = pullback(w.reshape(-1), c.reshape(-1), n)
            for total, part in zip(gradients, parts, strict=True):
                if total is not None:
                    total += part
        return log_p, costate, gradients

    def stretch(self, G: Stages, start: int) -> tuple[Tensor, list[Tensor], Tensor]:
        r"""Log-determinants and slopes $U_i$, $r$ of a run of steps, each (steps, n)."""
        h, one, U, GU = self.h, torch.ones_like(G[0]), [], []
        for G_i, a_i in zip(G, self.a, strict=True):
            U.append(combine(one, h, a_i, GU))
            GU.append(G_i * U[-1])
        r = combine(one, h, self.b, GU)
        if not (r > 0).all():
            step = start + int((~(r > 0)).any(1).float().argmax())
            raise ValueError(
                f"the {self.method} step of size {-h:g} at t = {1 + step * h:.3g} folds the line "
                f"(r = {r.min().item():.3g}, must be positive): raise n_steps"
            )
        if self.logdet == "map":
            return r.log(), U, r
        return combine(torch.zeros_like(one), h, self.b, G), U, r

    def costates(
        self, G: Stages, H: Stages, U: Stages, r: Tensor, v: Tensor, costate: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Derivatives $w_i,c_i$ of the objective in $F_i,G_i$, and the costate before the run.

        $c_i$ does not depend on the costate $\lambda$; $w_i=P_i\lambda+Q_i$ does, with
        $w_i=hb_i\lambda+h\sum_{j>i}a_{ji}\nu_j$, $\nu_i=w_iG_i+c_iH_i$, and
        $\lambda\leftarrow\lambda+\sum_i\nu_i$ from step to step.
        """
        a, b, h, s = self.a, self.b, self.h, len(self.b)
        column = [[a[j][i] if i < len(a[j]) else 0 for j in range(s)] for i in range(s)]  # a^T
        if self.logdet == "trace":
            c = [(h * b_i * v).expand_as(r) for b_i in b]
        else:  # backwards through r = 1 + h sum b_i G_i U_i, U_i = 1 + h sum a_ij G_j U_j
            c, GU_bar = [None] * s, [None] * s  # GU_bar: derivative in the product G_i U_i
            v_r = v / r
            for i in reversed(range(s)):
                U_bars = [G_j * bar for G_j, bar in zip(G[i + 1 :], GU_bar[i + 1 :], strict=True)]
                GU_bar[i] = combine(h * b[i] * v_r, h, column[i][i + 1 :], U_bars)
                c[i] = GU_bar[i] * U[i]

        P, Q, nu_P, nu_Q = ([None] * s for _ in range(4))
        zero = torch.zeros_like(r)
        for i in reversed(range(s)):
            later = column[i][i + 1 :]
            P[i] = combine(zero + h * b[i], h, later, nu_P[i + 1 :])
            Q[i] = combine(zero, h, later, nu_Q[i + 1 :])
            nu_P[i] = P[i] * G[i]
            nu_Q[i] = torch.addcmul(c[i] * H[i], Q[i], G[i])
        A, B = 1 + sum(nu_P), sum(nu_Q)
        after = []  # the costate behind each step, last step first
        for A_n, B_n in zip(reversed(A.unbind()), reversed(B.unbind()), strict=True):
            after.append(costate)
            costate = torch.addcmul(B_n, A_n, costate)
        after = torch.stack(after[::-1])
        w = [torch.addcmul(Q_i, P_i, after) for P_i, Q_i in zip(P, Q, strict=True)]
        return torch.stack(w, dim=1), torch.stack(c, dim=1), costate


class _LogLikelihood(torch.autograd.Function):
    """Values forward; the sweep with the costates waits for the derivative of each point."""

    @staticmethod
    def forward(ctx, solver: _Solver, y: Tensor, *parameters: Tensor) -> Tensor:
        ctx.solver = solver
        log_p, stages, x_0 = solver.values(y)
        ctx.save_for_backward(stages, x_0, *parameters)
        return log_p

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v: Tensor) -> tuple[Tensor | None, ...]:
        stages, x_0, *_ = ctx.saved_tensors
        _, costate, gradients = ctx.solver.sweep(stages, x_0, v)
        return None, costate, *gradients


class _MeanLogLikelihood(torch.autograd.Function):
    """The derivative of each point is its weight, known at once: one sweep does it all."""

    @staticmethod
    def forward(ctx, solver: _Solver, y: Tensor, weights: Tensor, *parameters: Tensor) -> Tensor:
        stages, x_0 = solver.solve(y)
        log_p, costate, gradients = solver.sweep(stages, x_0, weights)
        ctx.save_for_backward(costate, *gradients)
        return weights @ log_p

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v: Tensor) -> tuple[Tensor | None, ...]:
        costate, *gradients = (None if g is None else v * g for g in ctx.saved_tensors)
        return None, costate, None, *gradients


def _log_normal(x: Tensor) -> Tensor:
    """The standard normal's log-density."""
    return -0.5 * x**2 - 0.5 * log(2 * pi)
