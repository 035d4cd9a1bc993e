"""What `dlutils.tools.likelihood.check` says of peers on one flow whose density is known.

The flow is that of independent pairs of N(0, 1) and a mixture of Gaussians, in closed form, in
standardized units: the density at t = 1 is the mixture itself, so that all that is found is the
program's. Everything is in double precision.
"""

from collections.abc import Callable
from functools import partial
from math import inf, log, nan

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from benchmarks.common import Options, Row, Tables, command
from benchmarks.ode_iteration import Augmented, diffrax_log_density, normal, torchdiffeq_log_density
from dlutils.data.datasets import DISTRIBUTIONS, Dataset, make_dataset
from dlutils.estimators.view import units_of
from dlutils.flows import adjoint
from dlutils.seeding import seeded
from dlutils.tools.likelihood import LogProb, check

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
Solve = Callable[[Tensor], Tensor]  # log-density of the flow in standardized units
BySteps = Callable[[int], Solve]


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


class OfExample(Augmented):
    """As in torchdiffeq's example of a continuous normalizing flow: always with a graph."""

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The velocity and its slope."""
        with torch.enable_grad():
            x = state[0].requires_grad_()
            f = self.f(x, t)
            (slope,) = torch.autograd.grad(f.sum(), x, create_graph=True)
        return f, slope


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


def by_diffrax(flow: Flow, probe: bool = False) -> BySteps:
    """Its example of a continuous normalizing flow, Tsit5 and a solve for each point: by T.

    With a probe the slope is Hutchinson's estimate.
    """
    weights, scales = (jnp.asarray(a.numpy()) for a in (flow.weights, flow.scales))
    f = lambda x, t, locs: velocity(x, t, weights, locs, scales, jnp.log, jax.nn.softmax)
    of_point = partial(diffrax_log_density, f, solver=diffrax.Tsit5())
    solve = jax.jit(jax.vmap(of_point, in_axes=(None, 0, 0, None)))

    def log_prob(x: Tensor, T: int) -> Tensor:
        eps = (torch.randn_like if probe else torch.ones_like)(x)
        more = (0, -len(x) % 1024)  # of one size, and so compiled once
        x, eps = (nn.functional.pad(a, more) for a in (x, eps))
        eps = jnp.asarray(eps.numpy())
        value = lambda x, locs: solve(locs, x, eps, 1 / T)
        return FromJax.apply(value, x, flow.locs)

    return lambda T: lambda x: log_prob(x, T)[: len(x)]


def contenders(flow: Flow) -> list[tuple[str, str, BySteps | Solve, int | None]]:
    """Library, setting, and the log-density; or the log-density by T, and the T of the setting."""
    odeint, backwards = torchdiffeq.odeint, torchdiffeq.odeint_adjoint
    by_torchdiffeq = lambda solve, **options: (
        lambda x: torchdiffeq_log_density(OfExample(flow), x, solve, **options)
    )
    euler = lambda solve: (
        lambda T: by_torchdiffeq(solve, method="euler", options={"step_size": 1 / T})
    )
    ours = lambda T: lambda x: adjoint.log_likelihood(flow, x, T, "rk4", "map")
    exact, midpoint = {"exact_divergence": True}, {"method": "midpoint"}
    dopri5 = {"method": "dopri5"}
    rough, tight = ({"atol": tolerance, "rtol": tolerance} for tolerance in (1e-5, 1e-8))
    broadcast = Normal(torch.zeros(1), torch.ones(1)).log_prob
    fm = partial(by_flow_matching, flow, independent(1))
    of_two = partial(by_flow_matching, flow, independent(2))
    return [
        ("dlutils.flows.adjoint", "rk4, map, T = 20", ours, 20),
        ("torchdiffeq", "example: dopri5, 1e-5", by_torchdiffeq(odeint, **dopri5, **rough), None),
        ("torchdiffeq", "example, odeint_adjoint",
         by_torchdiffeq(backwards, **dopri5, **rough), None),
        ("torchdiffeq", "dopri5, 1e-8", by_torchdiffeq(odeint, **dopri5, **tight), None),
        ("torchdiffeq", "euler, T = 20, odeint", euler(odeint), 20),
        ("torchdiffeq", "euler, T = 20, odeint_adjoint", euler(backwards), 20),
        ("diffrax", "example: Tsit5, dt0 = 0.05", by_diffrax(flow), 20),
        ("diffrax", "example, approx_logp", by_diffrax(flow, probe=True)(20), None),
        ("zuko", "defaults", by_zuko(flow), None),
        ("zuko", "exact=False", by_zuko(flow, exact=False), None),
        ("zuko", "tolerances 1e-8", by_zuko(flow, **tight), None),
        ("flow_matching", "paper, code 3: Normal, midpoint, T = 100",
         by_flow_matching(flow, broadcast, step_size=0.01, **midpoint), None),
        ("flow_matching", "2-D notebook, its prior of two numbers",
         of_two(step_size=0.05, **midpoint), None),
        ("flow_matching", "2-D notebook, prior of one: midpoint, T = 20",
         fm(step_size=0.05, **midpoint), None),
        ("flow_matching", "the same, exact_divergence",
         lambda T: fm(step_size=1 / T, **midpoint, **exact), 20),
        ("flow_matching", "default method euler, T = 20",
         lambda T: fm(step_size=1 / T, **exact), 20),
        ("flow_matching", "step_size=None: one step", fm(step_size=None, **exact), None),
        ("flow_matching", "scale forgotten, dopri5", fm(step_size=None, **dopri5), None),
        ("flow_matching", "dopri5, 1e-8, enable_grad",
         fm(step_size=None, enable_grad=True, **dopri5, **tight, **exact), None),
    ]  # fmt: skip


def measure(
    dataset: Dataset, flow: Flow, setting: str, solve: BySteps | Solve, T: int | None
) -> Row:
    """What `check` finds, or refuses in words; no number where it does not look."""
    wrap = partial(flow.in_data_units, forget=setting.startswith("scale forgotten"))
    by_steps = {} if T is None else {"log_prob_by_steps": lambda T: wrap(solve(T))}
    log_prob = wrap(solve if T is None else solve(T))
    try:
        with seeded(0):
            report = check(log_prob, dataset, parameters=flow.parameters(), **by_steps)
    except ValueError as error:
        return {"mass - 1": f"refused: shape {str(error).rpartition('not ')[2]}"}
    found = {
        "mass - 1": report.mass - 1,
        "KL": report.kl,
        "KL, mass divided out": report.normalized_kl,
        "sd of a call": report.sd,
        "alone": report.company,
        "gradient in y": report.gradient_y,
        "in the weights": report.gradient_parameters,
        "order": report.order,
        "order of the mass": report.mass_order,
        "T for 0.001": (report.steps_enough or inf) if report.mass_by_steps else nan,
        "problems": len(report.problems),
    }
    return {column: "none" if value == inf else value for column, value in found.items()}


def make(options: Options) -> Tables:
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
    raise SystemExit(command(make, PACKAGES, "every fourth row"))
