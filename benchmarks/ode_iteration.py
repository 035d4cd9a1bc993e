"""One training step of the ODE flow: backprop, our batched adjoint, torchdiffeq and diffrax.

A step is the value and the gradient, in the weights, of the mean log-likelihood of a flow with a
perceptron 2-64-64-1 and T = 100 steps, in float32. All contenders get the same weights and points.
`make bench` runs it; `python -m benchmarks.ode_iteration --help` lists the options.
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

from benchmarks.common import Row, Tables, command, interleaved, matmul_peak, milliseconds
from dlutils.data.datasets import make_dataset
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
STAGES = {"euler": 1, "rk2": 2, "rk4": 4}
TOLERANCE = 1e-3  # of values and gradients, relative to plain backprop
CLOSED, AUTOGRAD, PLAIN = "adjoint, closed form", "adjoint, autograd", "plain backprop"

# Floating point operations are those of the products with the one hidden 64 x 64 matrix,
#     T * stages * points * PRODUCTS * 64 * 64 * 2,
# where PRODUCTS counts the matrix products of one stage of one point:
# closed form: solve 1 + forward 2 (z, z') + back 2 (g, g') + weights 2 (g' a^T, g a'^T) = 7;
# autograd:    solve 1 + forward 1 + G 1 + H 2 + gradient in the weights of w F + c G 4    = 9;
# plain:       forward 1 + G 1 + gradient in weights and state 4                           = 6.
# The first and the last layer, tanh and sums are not counted.
PRODUCTS = {CLOSED: 7, AUTOGRAD: 9, PLAIN: 6}

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


def ours(f: nn.Module, y: Tensor, method: str, weights: Tensor | None = None, kernel=None):
    """The batched adjoint, with the closed form if no kernel is named."""
    f = with_kernel(f, kernel or (lambda f: MLPKernel(f.net)))
    return torch_contender(f, lambda f: mean_log_likelihood(f, y, weights, T, method))


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


def diffrax_step(f: nn.Module, y: Tensor, method: str, adjoint):
    """The augmented equation in diffrax under jit, all points in one solve."""
    net, points = equinox_net(f), jnp.asarray(y.numpy())
    solver = {"euler": diffrax.Euler, "rk2": diffrax.Midpoint, "rk4": classic_rk4}[method]()

    def field(t, state, net):
        drift = jax.vmap(lambda x: net(jnp.stack([x, t]))[0])
        return jax.jvp(drift, (state[0],), (jnp.ones_like(state[0]),))

    def objective(net):
        x, log_det = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            solver,
            t0=1.0,
            t1=0.0,
            dt0=-1 / T,
            y0=(points, jnp.zeros_like(points)),
            args=net,
            adjoint=adjoint,
            max_steps=T,  # it would raise if it needed one more
        ).ys
        return (-0.5 * x**2 - 0.5 * math.log(2 * math.pi) + log_det).mean()

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
        AUTOGRAD: ours(f, y, method, kernel=AutogradKernel),
        CLOSED: ours(f, y, method),
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


def of_peak(name: str, n: int, method: str, ms: float, peak: float) -> Row:
    """The share of the machine's peak that a row reaches, where its operations are counted."""
    if name not in PRODUCTS:
        return {}
    operations = T * STAGES[method] * n * PRODUCTS[name] * 64 * 64 * 2
    return {"% of peak": 100 * operations / (1e6 * ms * peak)}


def step_table(notebook, f, methods: list[str], rounds: int, peak: float, n: int = 256):
    """First table: one step, all contenders."""
    with seeded(1):
        y = torch.randn(n)
    rows = []
    for method in methods:
        found = contenders(notebook, f, y, method)
        differ = differences(found)
        times = interleaved({name: c.run for name, c in found.items()}, rounds, label=method)
        for name, timing in times.items():
            row = {"method": method, "contender": name, "points": n} | timing.row()
            row |= {"ratio to ours": timing.ms / times[CLOSED].ms} | differ[name]
            rows.append(row | of_peak(name, n, method, timing.ms, peak))
    return rows


def fitted(f: nn.Module, nodes: Tensor, weights: Tensor, n_iterations: int = 60) -> nn.Module:
    """A copy after some steps of Adam: compression is harder for it than for fresh weights."""
    f = copy.deepcopy(f)
    parameters = list(f.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    for _ in range(n_iterations):
        step = ours(f, nodes.float(), "euler", weights.float())
        for p, g in zip(parameters, step.result()[1], strict=True):
            p.grad = -g
        optimizer.step()
    return f


def full_data_table(f: nn.Module, rounds: int, peak: float, bins=(16, 32)) -> list[Row]:
    """Second table: the gradient of all of 10 000 points, Euler."""
    dataset = make_dataset("laplace_mixture").to(torch.float32)  # as jax computes
    compressed = {f"adjoint, {n} bins": dataset.compress(n) for n in bins}
    y = dataset.train
    checkpoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=T)
    points = compressed | {"adjoint, all points": (y.double(), None)}
    found = {
        name: ours(f, y.float(), "euler", None if w is None else w.float())
        for name, (y, w) in points.items()
    }
    peer = f"diffrax {T} checkpoints, all points"
    found[peer] = diffrax_step(f, y, "euler", checkpoint)

    fresh, trained = (
        {name: ours(net, y, "euler", w).result()[1] for name, (y, w) in points.items()}
        for net in (copy.deepcopy(f).double(), fitted(f, *dataset.compress(32)).double())
    )
    exact, exact_trained = fresh["adjoint, all points"], trained["adjoint, all points"]
    times = interleaved({name: c.run for name, c in found.items()}, rounds, 1, "full data")
    rows = []
    for name, timing in times.items():
        n = len(points[name][0]) if name in points else len(y)
        row = {"contender": name, "points": n} | timing.row()
        row["times faster than diffrax"] = times[peer].ms / timing.ms
        row["error, float32"] = relative_error(found[name].result()[1], exact)
        if name in compressed:
            row["error, float64"] = relative_error(fresh[name], exact)
            row["float64, trained"] = relative_error(trained[name], exact_trained)
        name = CLOSED if name in points else ""
        rows.append(row | of_peak(name, n, "euler", timing.ms, peak))
    return rows


def size_table(f: nn.Module, sizes: list[int], rounds: int, peak: float) -> list[Row]:
    """Third table: the gradient of compressed data, by the number of points."""
    found, rows = {}, []
    for n in sizes:
        dataset = make_dataset("laplace_mixture", n_train=n)
        once = milliseconds(lambda dataset=dataset: dataset.compress(32))
        nodes, weights = dataset.compress(32)
        found[n] = ours(f, nodes.float(), "euler", weights.float()).run
        rows.append({"points": n, "nodes": len(nodes), "compression once, ms": once})
    times = interleaved(found, rounds, label="sizes")
    for row in rows:
        timing = times[row["points"]]
        row |= timing.row() | {f"ratio to {sizes[0]:,}": timing.ms / times[sizes[0]].ms}
        row |= of_peak(CLOSED, row["nodes"], "euler", timing.ms, peak)
    return rows


def tables(quick: bool) -> tuple[float, Tables]:
    """The machine's peak in GFLOP/s, and the three tables by caption."""
    notebook = load(NOTEBOOK)
    with seeded(0):
        f = notebook.MLPDrift()
    peak, rounds = matmul_peak(), 5 if quick else 12
    methods = ["euler"] if quick else list(STAGES)
    sizes = [10**4, 10**5] if quick else [10**4, 10**5, 10**6]
    return peak, {
        "One step": step_table(notebook, f, methods, rounds, peak),
        "Gradient of 10,000 points (euler)": full_data_table(f, 2 if quick else 10, peak),
        "Compressed gradient by the size of the data (euler)": size_table(f, sizes, rounds, peak),
    }


def notes(peak: float) -> list[str]:
    """What a reader must know of the tables."""
    return [
        f"Peak of a float32 matrix product in this run: {peak:.0f} GFLOP/s.",
        f"Value and gradient of the mean log-likelihood, perceptron 2-64-64-1, T = {T}, float32; "
        "medians over rounds in which all contenders take turns; diffrax is compiled before. "
        "“Differs” is relative to plain backprop; “ours” is the adjoint in closed form. "
        "torchdiffeq's rk4 is the 3/8 rule; odeint_adjoint solves the continuous adjoint, which "
        "is another gradient at finite T. diffrax has the classic tableau for rk4. "
        "“Error” is that of the gradient, relative to the adjoint on all points in float64; "
        "weights are fresh, but for “trained”: after 60 steps of Adam, near the optimum, where the "
        "exact gradient itself is almost zero: 16 bins do for the first steps and not there.",
    ]


def make(options: argparse.Namespace) -> tuple[list[str], Tables]:
    """Notes and tables."""
    peak, found = tables(options.quick)
    return notes(peak), found


def main(arguments: list[str] | None = None) -> int:
    """Time one training step of the ODE flow against torchdiffeq and diffrax."""
    quick = "few rounds, only euler, no 10^6"
    return command("ode_iteration", main.__doc__, quick, PACKAGES, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
