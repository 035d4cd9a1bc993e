"""What `dlutils.tools.likelihood.check` says of peers on one flow whose density is known.

The flow is that of independent pairs of N(0, 1) and a mixture of Gaussians, in closed form, in
standardized units: the density at t = 1 is the mixture itself, so that all that is found is the
program's. Everything is in double precision.
"""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from math import log, nan

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from benchmarks.common import Row, Tables, command
from dlutils.data.datasets import DISTRIBUTIONS, Dataset, make_dataset
from dlutils.estimators.view import units_of
from dlutils.flows import adjoint
from dlutils.seeding import seeded
from dlutils.tools.likelihood import LogProb, Report, check

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # torch's tensors are on the CPU too
try:
    import diffrax
    import jax
    import jax.numpy as jnp
    import torchdiffeq
    import zuko
    from flow_matching.solver import ODESolver
except ImportError:  # `command` says so
    pass

PACKAGES = ("torch", "torchdiffeq", "diffrax", "jax", "zuko", "flow_matching")
DENSITY = "marron_wand_10"
COLUMNS = (
    "mass - 1", "KL", "KL, mass divided out", "sd of a call", "alone", "gradient in y",
    "in the weights", "order", "order of the mass", "T for 0.001", "problems",
)  # fmt: skip
Solve = Callable[[Tensor], Tensor]  # log-density of the flow in standardized units


def velocity(x, t, weights, locs, scales, log, softmax):
    r"""E[x_1 - x_0 | x_t = x] for x_t = (1 - t) x_0 + t x_1, x_0 ~ N(0, 1), x_1 of a mixture.

    Source:
        Lipman et al., Flow matching for generative modeling (2023), eq. 8, averaged.
    """
    variance = (1 - t) ** 2 + (t * scales) ** 2
    residual = x[..., None] - t * locs
    share = softmax(log(weights) - residual**2 / (2 * variance) - log(variance) / 2, -1)
    return (share * (locs + (t * scales**2 - (1 - t)) / variance * residual)).sum(-1)


class Flow(nn.Module):
    """The velocity in torch; the weights are the means of the mixture."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        mixture = DISTRIBUTIONS[dataset.name][1]()
        parts = mixture.component_distribution
        self.units = units_of(dataset)
        self.weights = mixture.mixture_distribution.probs
        self.scales = parts.scale / self.units.scale
        self.locs = nn.Parameter(self.units(parts.loc))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """At points `(n,)` and times `(n,)`, or one time for all."""
        t = torch.as_tensor(t)[..., None]
        return velocity(x, t, self.weights, self.locs, self.scales, torch.log, torch.softmax)

    def in_data_units(self, solve: Solve, forget: bool = False) -> LogProb:
        """The log-density of y = loc + scale x; the logarithm of the scale may be forgotten."""
        shift = 0.0 if forget else log(self.units.scale)
        return lambda y: solve(self.units(y)) - shift


def normal(x: Tensor) -> Tensor:
    """Log N(x; 0, 1)."""
    return -0.5 * x**2 - 0.5 * log(2 * np.pi)


class Augmented(nn.Module):
    """d(x, log det)/dt for torchdiffeq, as in its example of a continuous normalizing flow."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The velocity and its slope."""
        with torch.enable_grad():
            x = state[0].requires_grad_()
            f = self.flow(x, t)
            (slope,) = torch.autograd.grad(f.sum(), x, create_graph=True)
        return f, slope


def by_torchdiffeq(flow: Flow, solve: Callable, **options: object) -> Solve:
    """Backwards from t = 1 to 0."""
    times = torch.tensor([1.0, 0.0])

    def log_prob(x: Tensor) -> Tensor:
        ends, log_det = solve(Augmented(flow), (x, torch.zeros_like(x)), times, **options)
        return normal(ends[-1]) + log_det[-1]

    return log_prob


def by_zuko(flow: Flow, **options: object) -> Solve:
    """`zuko.transforms.FreeFormJacobianTransform`, the transform of `zuko.flows.CNF`."""
    f = lambda t, x: flow(x[..., 0], t)[..., None]
    transform = zuko.transforms.FreeFormJacobianTransform(
        f, t0=1.0, t1=0.0, phi=flow.parameters(), **options
    )

    def log_prob(x: Tensor) -> Tensor:
        x_0, log_det = transform.call_and_ladj(x[:, None])
        return normal(x_0[:, 0]) + log_det

    return log_prob


def by_flow_matching(flow: Flow, prior: Callable, **options: object) -> Solve:
    """`ODESolver.compute_likelihood`."""
    solver = ODESolver(lambda x, t: flow(x[:, 0], t)[:, None])

    def log_prob(x: Tensor) -> Tensor:
        return solver.compute_likelihood(x[:, None], prior, **options)[1]

    return log_prob


def independent(n: int) -> Callable[[Tensor], Tensor]:
    """The prior of flow_matching's notebook on the plane, for n dimensions."""
    return Independent(Normal(torch.zeros(n), torch.ones(n)), 1).log_prob


class FromJax(torch.autograd.Function):
    """A function of jax with its gradient in torch."""

    @staticmethod
    def forward(ctx, value: Callable, x: Tensor, locs: Tensor) -> Tensor:
        """The value at x, `(n,)`."""
        arrays = [jnp.asarray(a.detach().numpy()) for a in (x, locs)]
        if any(ctx.needs_input_grad):
            out, ctx.vjp = jax.vjp(value, *arrays)
        else:
            out = value(*arrays)
        return torch.from_numpy(np.array(out))

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        """By jax.vjp."""
        return None, *(torch.from_numpy(np.array(d)) for d in ctx.vjp(jnp.asarray(g.numpy())))


def by_diffrax(flow: Flow, probe: bool = False) -> Callable[[int], Solve]:
    """Its example of a continuous normalizing flow, Tsit5 and a solve for each point: by T.

    With a probe the slope is Hutchinson's estimate.
    """
    weights, scales = (jnp.asarray(a.numpy()) for a in (flow.weights, flow.scales))

    def field(t, state, args):
        locs, eps = args
        f = lambda x: velocity(x, t, weights, locs, scales, jnp.log, jax.nn.softmax)
        value, slope = jax.jvp(f, (state[0],), (eps,))
        return value, slope * eps

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, 0, None))
    def solve(x, locs, eps, step):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 1.0, 0.0, -step, (x, jnp.zeros_like(x)),
            (locs, eps),
        )  # fmt: skip
        x_0, log_det = (a[0] for a in solution.ys)
        return -0.5 * x_0**2 - 0.5 * log(2 * np.pi) + log_det

    def log_prob(x: Tensor, T: int) -> Tensor:
        eps = (torch.randn_like if probe else torch.ones_like)(x)
        more = (0, -len(x) % 1024)  # of one size, and so compiled once
        x, eps = (nn.functional.pad(a, more) for a in (x, eps))
        eps = jnp.asarray(eps.numpy())
        value = lambda x, locs: solve(x, locs, eps, 1 / T)
        return FromJax.apply(value, x, flow.locs)

    return lambda T: lambda x: log_prob(x, T)[: len(x)]


def contenders(flow: Flow) -> list[tuple[str, str, Callable[[int], Solve] | Solve, int | None]]:
    """Library, setting, and the log-density; or the log-density by T, and the T of the setting."""
    odeint, backwards = torchdiffeq.odeint, torchdiffeq.odeint_adjoint

    def dopri5(solve: Callable, tolerance: float) -> Solve:
        return by_torchdiffeq(flow, solve, method="dopri5", atol=tolerance, rtol=tolerance)

    def euler(solve: Callable) -> Callable[[int], Solve]:
        return lambda T: by_torchdiffeq(flow, solve, method="euler", options={"step_size": 1 / T})

    ours = lambda T: lambda x: adjoint.log_likelihood(flow, x, T, "rk4", "map")
    exact, tight = {"exact_divergence": True}, {"atol": 1e-8, "rtol": 1e-8}
    midpoint = {"method": "midpoint"}
    tight_dopri5 = {"step_size": None, "method": "dopri5"} | tight
    broadcast = Normal(torch.zeros(1), torch.ones(1)).log_prob
    fm = partial(by_flow_matching, flow, independent(1))
    of_two = partial(by_flow_matching, flow, independent(2))
    paper = by_flow_matching(flow, broadcast, step_size=0.01, **midpoint)
    return [
        ("dlutils.flows.adjoint", "rk4, map, T = 20", ours, 20),
        ("torchdiffeq", "example: dopri5, 1e-5", dopri5(odeint, 1e-5), None),
        ("torchdiffeq", "example, odeint_adjoint", dopri5(backwards, 1e-5), None),
        ("torchdiffeq", "dopri5, 1e-8", dopri5(odeint, 1e-8), None),
        ("torchdiffeq", "euler, T = 20, odeint", euler(odeint), 20),
        ("torchdiffeq", "euler, T = 20, odeint_adjoint", euler(backwards), 20),
        ("diffrax", "example: Tsit5, dt0 = 0.05", by_diffrax(flow), 20),
        ("diffrax", "example, approx_logp", by_diffrax(flow, probe=True)(20), None),
        ("zuko", "defaults", by_zuko(flow), None),
        ("zuko", "exact=False", by_zuko(flow, exact=False), None),
        ("zuko", "tolerances 1e-8", by_zuko(flow, **tight), None),
    ] + [
        ("flow_matching", *more)
        for more in (
            ("paper, code 3: Normal, midpoint, T = 100", paper, None),
            ("2-D notebook, its prior of two numbers", of_two(step_size=0.05, **midpoint), None),
            ("2-D notebook, prior of one: midpoint, T = 20", fm(step_size=0.05, **midpoint), None),
            ("the same, exact_divergence", lambda T: fm(step_size=1 / T, **midpoint, **exact), 20),
            ("default method euler, T = 20", lambda T: fm(step_size=1 / T, **exact), 20),
            ("step_size=None: one step", fm(step_size=None, **exact), None),
            ("scale forgotten, dopri5", fm(step_size=None, method="dopri5"), None),
            ("dopri5, 1e-8, enable_grad", fm(enable_grad=True, **tight_dopri5, **exact), None),
        )
    ]


def row(report: Report) -> Row:
    """The numbers of a report; a dash where there is none."""
    enough = (report.steps_enough or "none") if report.mass_by_steps else nan
    values = (
        report.mass - 1, report.kl, report.normalized_kl, report.sd, report.company,
        report.gradient_y, report.gradient_parameters, report.order, report.mass_order, enough,
        len(report.problems),
    )  # fmt: skip
    names = {"nan": "–", "inf": "none"}
    return dict(zip(COLUMNS, (names.get(str(value), value) for value in values), strict=True))


def measure(dataset: Dataset, flow: Flow, setting: str, solve: Callable, T: int | None) -> Row:
    """One row of the table; what `check` refuses in words."""
    wrap = partial(flow.in_data_units, forget=setting.startswith("scale forgotten"))
    by_steps = {} if T is None else {"log_prob_by_steps": lambda T: wrap(solve(T))}
    log_prob = wrap(solve if T is None else solve(T))
    try:
        with seeded(0):
            report = check(log_prob, dataset, parameters=flow.parameters(), **by_steps)
        return row(report)
    except ValueError as error:
        return dict.fromkeys(COLUMNS, "–") | {
            "mass - 1": f"refused: shape {str(error).rpartition('not ')[2]}"
        }


def make(options: argparse.Namespace) -> Tables:
    """Check the log-likelihoods of torchdiffeq, diffrax, zuko and flow_matching."""
    jax.config.update("jax_enable_x64", True)
    torch.set_default_dtype(torch.float64)
    dataset = make_dataset(DENSITY)
    flow, few = Flow(dataset), 4 if options.quick else 1
    rows = [
        {"library": library, "setting": setting} | measure(dataset, flow, setting, solve, T)
        for library, setting, solve, T in contenders(flow)[::few]
    ]
    return {"One flow": rows}


if __name__ == "__main__":
    sys.exit(command(make, PACKAGES, "every fourth row"))
