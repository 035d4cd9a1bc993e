"""One training step of the ODE flow: backprop, our batched adjoint, torchdiffeq and diffrax.

A step is the value and the gradient, in the weights, of the mean log-likelihood of a flow with a
perceptron 2-64-64-1 and T = 100 steps, in float32. All contenders get the same weights and points.
"""

import copy
import math
import os
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import Options, Row, Tables, command, interleaved
from benchmarks.estimators import by_backprop, notebook
from dlutils.flows.adjoint import mean_log_likelihood
from dlutils.flows.kernels import AutogradKernel, MLPKernel
from dlutils.flows.nets import MLPDrift
from dlutils.seeding import seeded

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # torch's tensors are on the CPU too
try:
    import diffrax
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import torchdiffeq
except ImportError:  # `command` says so
    pass

PACKAGES = ("torch", "torchdiffeq", "diffrax", "jax", "equinox")
T = 100
TOLERANCE = 1e-3  # of values and gradients, relative to plain backprop
OURS, CONTINUOUS = "adjoint, closed form", "torchdiffeq odeint_adjoint"

Step = Callable[[], tuple[float, Sequence]]  # the value, and a gradient for each weight


def normal(x):
    """Log N(x; 0, 1), of torch or jax."""
    return -0.5 * x**2 - 0.5 * math.log(2 * math.pi)


def with_kernel(f: nn.Module, kernel: Callable[[nn.Module], object]) -> nn.Module:
    """A copy of a drift that chooses this kernel."""
    f = copy.deepcopy(f)
    f.kernel = lambda: kernel(f)
    return f


def torch_step(f: nn.Module, objective: Callable[[nn.Module], Tensor]) -> Step:
    """Value and gradient of a scalar function of a drift."""
    parameters = list(f.parameters())

    def step() -> tuple[float, Sequence[Tensor]]:
        value = objective(f)
        return value.item(), torch.autograd.grad(value, parameters)

    return step


class Augmented(nn.Module):
    """The equation d(x, log det)/dt = (f, df/dx) for torchdiffeq."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """At points `(n,)`."""
        return notebook("ODE.ipynb").drift_and_slope(self.f, state[0], t)


def torchdiffeq_log_density(f: Augmented, x: Tensor, solve: Callable, **options: object) -> Tensor:
    """Of a drift's flow, at x `(n,)`, by `odeint` or `odeint_adjoint`."""
    start, times = (x, torch.zeros_like(x)), torch.tensor([1.0, 0.0])
    ends, log_det = solve(f, start, times, **options)
    return normal(ends[-1]) + log_det[-1]


def torchdiffeq_step(f: nn.Module, y: Tensor, method: str, solve: Callable) -> Step:
    """By fixed steps; its rk4 is the 3/8 rule."""
    options = {"method": {"rk2": "midpoint"}.get(method, method), "options": {"step_size": 1 / T}}
    return torch_step(
        Augmented(f), lambda f: torchdiffeq_log_density(f, y, solve, **options).mean()
    )


def diffrax_log_density(f: Callable, args, x, probe, step, solver, **options: object):
    """Of the flow of a drift f(x, t, args), at x, all points in one solve.

    The slope is that along the probe, times the probe: exact for ones.
    """

    def field(t, state, given):
        args, probe = given
        drift, slope = jax.jvp(lambda x: f(x, t, args), (state[0],), (probe,))
        return drift, slope * probe

    start = x, jnp.zeros_like(x)
    ends, log_det = diffrax.diffeqsolve(
        diffrax.ODETerm(field), solver, 1.0, 0.0, -step, start, (args, probe), **options
    ).ys
    return normal(ends[-1]) + log_det[-1]


def of_net(net, x, n_steps: int, solver, adjoint):
    """The same of an equinox net, in so many steps."""
    f = lambda x, t, net: jax.vmap(lambda x: net(jnp.stack([x, t]))[0])(x)
    options = {"adjoint": adjoint, "max_steps": n_steps}  # it would raise if it needed one more
    return diffrax_log_density(f, net, x, jnp.ones_like(x), 1 / n_steps, solver, **options)


def diffrax_step(f: nn.Module, y: Tensor, method: str, adjoint) -> Step:
    """The augmented equation in diffrax under jit."""
    net, points = equinox_net(f), jnp.asarray(y.numpy())
    solver = {"euler": diffrax.Euler, "rk2": diffrax.Midpoint, "rk4": classic_rk4}[method]()
    objective = lambda net: of_net(net, points, T, solver, adjoint).mean()
    compiled = eqx.filter_jit(eqx.filter_value_and_grad(objective))

    def step() -> tuple[float, Sequence]:
        value, gradient = jax.block_until_ready(compiled(net))
        return float(value), jax.tree.leaves(gradient)

    return step


def equinox_net(f: nn.Module):
    """The perceptron in equinox with the weights of a torch drift."""
    net = eqx.nn.MLP(2, 1, 64, 2, activation=jnp.tanh, key=jax.random.key(0))
    weights = [jnp.asarray(p.detach().numpy()) for p in f.parameters()]
    return eqx.tree_at(
        lambda net: [p for layer in net.layers for p in (layer.weight, layer.bias)], net, weights
    )


def classic_rk4():
    """The classic Runge-Kutta method for diffrax, which does not bring it; fixed steps only."""
    butcher = diffrax.ButcherTableau(
        a_lower=(np.array([1 / 2]), np.array([0, 1 / 2]), np.array([0, 0, 1.0])),
        b_sol=np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]),
        b_error=np.zeros(4),
        c=np.array([1 / 2, 1 / 2, 1.0]),
    )

    class ClassicRK4(diffrax.AbstractERK):
        term_structure: ClassVar = diffrax.AbstractTerm
        tableau: ClassVar = butcher
        interpolation_cls: ClassVar = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

        def order(self, terms):
            return 4

    return ClassicRK4()


def contenders(f: nn.Module, y: Tensor, method: str) -> dict[str, Step]:
    """All ways to make the step, plain backprop first."""
    checkpoint, direct = diffrax.RecursiveCheckpointAdjoint, diffrax.DirectAdjoint
    plain = lambda f: by_backprop(f, y, None, T, method)
    ours = lambda f: mean_log_likelihood(f, y, None, T, method)
    return {
        "plain backprop": torch_step(f, plain),
        "adjoint, autograd": torch_step(with_kernel(f, AutogradKernel), ours),
        OURS: torch_step(with_kernel(f, lambda f: MLPKernel(f.net)), ours),
        "torchdiffeq odeint": torchdiffeq_step(f, y, method, torchdiffeq.odeint),
        CONTINUOUS: torchdiffeq_step(f, y, method, torchdiffeq.odeint_adjoint),
        "diffrax checkpoints, default": diffrax_step(f, y, method, checkpoint()),
        f"diffrax {T} checkpoints": diffrax_step(f, y, method, checkpoint(checkpoints=T)),
        "diffrax DirectAdjoint": diffrax_step(f, y, method, direct()),
    }


def differences(steps: dict[str, Step]) -> dict[str, Row]:
    """Of value and gradient, over all weights, relative to the first contender.

    Raises:
        RuntimeError: If they exceed `TOLERANCE`, but for the continuous adjoint, which is another
            gradient at finite T.
    """
    flat = lambda gradient: np.concatenate([np.ravel(g) for g in gradient]).astype(np.float64)
    found = {name: step() for name, step in steps.items()}
    value, gradient = next(iter(found.values()))
    rows = {}
    for name, (v, g) in found.items():
        dv = abs(v / value - 1)
        dg = np.linalg.norm(flat(g) - flat(gradient)) / np.linalg.norm(flat(gradient))
        if name != CONTINUOUS and not max(dv, dg) < TOLERANCE:
            raise RuntimeError(f"{name} does not agree: value by {dv:.1e}, gradient by {dg:.1e}")
        rows[name] = {"value differs": dv, "gradient differs": float(dg)}
    return rows


def make(options: Options) -> Tables:
    """Time one training step of the ODE flow against torchdiffeq and diffrax."""
    with seeded(0):
        f = MLPDrift()
    with seeded(1):
        y = torch.randn(256)
    rows = []
    methods, rounds = (["euler"], 5) if options.quick else (["euler", "rk2", "rk4"], 12)
    for method in methods:
        steps = contenders(f, y, method)
        differ, times = differences(steps), interleaved(steps, rounds, label=method)
        for name, timing in times.items():
            row = {"method": method, "contender": name, "points": len(y)} | timing
            ratio = timing["ms"] / times[OURS]["ms"]
            rows.append(row | {"ratio to ours": ratio} | differ[name])
    return {"One step": rows}


if __name__ == "__main__":
    raise SystemExit(command(make, PACKAGES, "few rounds, only euler"))
