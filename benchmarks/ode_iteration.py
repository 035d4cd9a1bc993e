"""One training step of the ODE flow: backprop, our batched adjoint, torchdiffeq and diffrax.

A step is the value and the gradient, in the weights, of the mean log-likelihood of a flow with a
perceptron 2-64-64-1 and T = 100 steps, in float32. All contenders get the same weights and points.
"""

import argparse
import copy
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import Row, Tables, command, interleaved
from dlutils.flows.adjoint import mean_log_likelihood
from dlutils.flows.kernels import AutogradKernel, MLPKernel
from dlutils.notebook import load
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
NOTEBOOK = Path(__file__).resolve().parents[1] / "ODE.ipynb"
T = 100
TOLERANCE = 1e-3  # of values and gradients, relative to plain backprop
CLOSED, AUTOGRAD, PLAIN = "adjoint, closed form", "adjoint, autograd", "plain backprop"

Step = Callable[[], tuple[float, list[Tensor]]]  # the value, and a gradient for each weight


@dataclass(frozen=True)
class Contender:
    """One way to make the step.

    Attributes:
        run: Makes it and waits for it; what it returns is its own business.
        result: The same, as torch tensors.
        exact: Whether it must agree with plain backprop.
    """

    run: Callable[[], object]
    result: Step
    exact: bool = True


def with_kernel(f: nn.Module, kernel: Callable[[nn.Module], object]) -> nn.Module:
    """A copy of a drift that chooses this kernel."""
    f = copy.deepcopy(f)
    f.kernel = lambda: kernel(f)
    return f


def torch_contender(f: nn.Module, objective: Callable[[nn.Module], Tensor], exact: bool = True):
    """Value and gradient of a scalar function of a drift."""
    parameters = list(f.parameters())

    def run() -> tuple[float, list[Tensor]]:
        value = objective(f)
        return value.item(), list(torch.autograd.grad(value, parameters))

    return Contender(run, run, exact)


def ours(f: nn.Module, y: Tensor, method: str, kernel: Callable[[nn.Module], object]):
    """The batched adjoint, with the derivatives of this kernel."""
    f = with_kernel(f, kernel)
    return torch_contender(f, lambda f: mean_log_likelihood(f, y, None, T, method))


def torchdiffeq_step(notebook: ModuleType, f: nn.Module, y: Tensor, method: str, adjoint: bool):
    """The augmented equation d(x, log det)/dt = (F, G) in torchdiffeq; its rk4 is the 3/8 rule."""

    class Augmented(nn.Module):
        def __init__(self, f: nn.Module):
            super().__init__()
            self.f = f

        def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return notebook.drift_and_slope(self.f, state[0], t)

    solve = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
    times, options = torch.tensor([1.0, 0.0]), {"step_size": 1 / T}
    name = {"rk2": "midpoint"}.get(method, method)

    def objective(augmented: nn.Module) -> Tensor:
        state = (y, torch.zeros_like(y))
        x, log_det = solve(augmented, state, times, method=name, options=options)
        return (-0.5 * x[-1] ** 2 - 0.5 * math.log(2 * math.pi) + log_det[-1]).mean()

    return torch_contender(Augmented(copy.deepcopy(f)), objective, exact=not adjoint)


def diffrax_log_density(net, x, n_steps: int, solver, adjoint):
    """Log-density of the flow of an equinox net at x, (1, n): all points in one diffrax solve."""

    def field(t, state, net):
        drift = jax.vmap(lambda x: net(jnp.stack([x, t]))[0])
        return jax.jvp(drift, (state[0],), (jnp.ones_like(state[0]),))

    x_0, log_det = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        t0=1.0,
        t1=0.0,
        dt0=-1 / n_steps,
        y0=(x, jnp.zeros_like(x)),
        args=net,
        adjoint=adjoint,
        max_steps=n_steps,  # it would raise if it needed one more
    ).ys
    return -0.5 * x_0**2 - 0.5 * math.log(2 * math.pi) + log_det


def diffrax_step(f: nn.Module, y: Tensor, method: str, adjoint):
    """The augmented equation in diffrax under jit."""
    net, points = equinox_net(f), jnp.asarray(y.numpy())
    solver = {"euler": diffrax.Euler, "rk2": diffrax.Midpoint, "rk4": classic_rk4}[method]()
    objective = lambda net: diffrax_log_density(net, points, T, solver, adjoint).mean()
    step = eqx.filter_jit(eqx.filter_value_and_grad(objective))

    def result() -> tuple[float, list[Tensor]]:
        value, gradient = step(net)
        leaves = jax.tree_util.tree_leaves(eqx.filter(gradient, eqx.is_array))
        return float(value), [torch.tensor(leaf.tolist()) for leaf in leaves]

    return Contender(lambda: jax.block_until_ready(step(net)), result)


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


def contenders(notebook: ModuleType, f: nn.Module, y: Tensor, method: str) -> dict[str, Contender]:
    """All contenders of the first table, plain backprop first."""
    checkpoint, direct = diffrax.RecursiveCheckpointAdjoint, diffrax.DirectAdjoint
    plain = partial(notebook.log_likelihood, y=y, n_steps=T, method=method)
    return {
        PLAIN: torch_contender(copy.deepcopy(f), lambda f: plain(f).mean()),
        AUTOGRAD: ours(f, y, method, AutogradKernel),
        CLOSED: ours(f, y, method, lambda f: MLPKernel(f.net)),
        "torchdiffeq odeint": torchdiffeq_step(notebook, f, y, method, adjoint=False),
        "torchdiffeq odeint_adjoint": torchdiffeq_step(notebook, f, y, method, adjoint=True),
        "diffrax checkpoints, default": diffrax_step(f, y, method, checkpoint()),
        f"diffrax {T} checkpoints": diffrax_step(f, y, method, checkpoint(checkpoints=T)),
        "diffrax DirectAdjoint": diffrax_step(f, y, method, direct()),
    }


def relative_error(gradient: list[Tensor], exact: list[Tensor]) -> float:
    """|gradient - exact| / |exact| over all weights, in float64."""
    a, b = (torch.cat([g.double().flatten() for g in each]) for each in (gradient, exact))
    return float((a - b).norm() / b.norm())


def differences(found: dict[str, Contender]) -> dict[str, Row]:
    """Of value and gradient, relative to the first contender.

    Raises:
        RuntimeError: If they exceed `TOLERANCE` for a contender that claims to be exact.
    """
    rows = {}
    value, gradient = next(iter(found.values())).result()
    for name, contender in found.items():
        v, g = contender.result()
        dv, dg = abs(v / value - 1), relative_error(g, gradient)
        if contender.exact and not max(dv, dg) < TOLERANCE:
            raise RuntimeError(f"{name} does not agree: value by {dv:.1e}, gradient by {dg:.1e}")
        rows[name] = {"value differs": dv, "gradient differs": dg}
    return rows


def make(options: argparse.Namespace) -> Tables:
    """Time one training step of the ODE flow against torchdiffeq and diffrax."""
    notebook = load(NOTEBOOK)
    with seeded(0):
        f = notebook.MLPDrift()
    with seeded(1):
        y = torch.randn(256)
    rows = []
    for method in ["euler"] if options.quick else ["euler", "rk2", "rk4"]:
        found = contenders(notebook, f, y, method)
        differ = differences(found)
        rounds = 5 if options.quick else 12
        times = interleaved({name: c.run for name, c in found.items()}, rounds, label=method)
        for name, timing in times.items():
            row = {"method": method, "contender": name, "points": len(y)} | timing
            ratio = timing["ms"] / times[CLOSED]["ms"]
            rows.append(row | {"ratio to ours": ratio} | differ[name])
    return {"One step": rows}


if __name__ == "__main__":
    sys.exit(command(make, PACKAGES, "few rounds, only euler"))
