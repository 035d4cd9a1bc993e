"""Seconds to a given distance from the truth: our ODE and SDE, a CNF, a spline flow and others.

Every trained model is watched as it trains: its KL from the truth by quadrature, with the clock
stopped meanwhile. `python -m benchmarks.ode_quality --help` lists the options.
"""

import argparse
import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.common import Row, Tables, command
from benchmarks.estimators import ESTIMATORS, notebook, train_nsf
from benchmarks.ode_iteration import classic_rk4, equinox_net
from dlutils.comparison import compare
from dlutils.datasets import Dataset, make_dataset
from dlutils.seeding import seeded
from dlutils.training import data_source
from dlutils.yardsticks import LogDensity

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # torch's tensors are on the CPU too
with contextlib.suppress(ImportError):  # `command` says so
    import diffrax
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

PACKAGES = ("torch", "diffrax", "jax", "equinox", "optax", "zuko", "scikit-learn", "KDEpy")
DENSITIES = {
    "gaussian": "Gaussian",
    "laplace_mixture": "Laplace mixture",
    "marron_wand_10": "claw",
    "marron_wand_04": "kurtotic",
    "marron_wand_15": "discrete comb",
}
LEVELS = (0.02, 0.005)  # of the KL, nats


class Watch:
    """KL by seconds of work and by iterations; the clock stands still while it is measured."""

    def __init__(self, dataset: Dataset):
        self.dataset, self.curve, self.compilation = dataset, [], 0.0
        self.start = time.perf_counter()

    def __call__(self, log_density: LogDensity, iteration: int) -> None:
        """Measure, without counting the time it takes."""
        now = time.perf_counter()
        kl = compare(self.dataset, log_density, 2001).normalized_kl
        self.curve.append((now - self.start, kl, iteration))
        self.start += time.perf_counter() - now

    def reached(self, level: float) -> tuple[float, int] | None:
        """Seconds and iterations until the KL is below the level; None if it never is."""
        return next(((seconds, n) for seconds, kl, n in self.curve if kl <= level), None)

    def row(self) -> Row:
        """Seconds to each level, iterations to the last one, seconds to the end, KL there."""
        row: Row = {}
        for level in LEVELS:
            row[f"s to {level}"], row["iterations"] = self.reached(level) or ("–", "–")
        seconds, kl, _ = self.curve[-1]
        return row | {"s": seconds, "compilation": self.compilation, "final KL": kl}


def watch_ode(
    dataset: Dataset,
    watch: Watch,
    drift: str,
    method: str = "rk4",
    n_steps: int = 10,
    **settings: float,
) -> None:
    """Our flow and its exact density, all points compressed."""
    ode = notebook("ODE.ipynb")
    y = dataset.train
    flow = ode.FittedODE(None, None, y.mean().item(), y.std().item(), n_steps, method, "map")

    def seen(f, history) -> None:
        watch(replace(flow, drift=f).log_likelihood, history.val_iteration[-1])

    settings = {"validate_every": 10, "logdet": "map", "progress": False} | settings
    ode.train(dataset, drift, method, n_steps, callback=seen, **settings)


def watch_sde(dataset: Dataset, watch: Watch) -> None:
    """The notebook's default SDE; its exact density by the Fokker-Planck equation."""
    sde = notebook("SDE.ipynb")
    y = dataset.train
    loc, scale = y.mean().item(), y.std().item()
    reach = max(6.5, *(1.05 * abs(end - loc) / scale for end in dataset.support))

    def seen(model, history) -> None:
        fitted = sde.FittedSDE(model, history, loc, scale, reach)
        watch(fitted.log_likelihood, history.val_iteration[-1])

    sde.train(dataset, validate_every=100, callback=seen, progress=False)


def watch_diffrax(
    dataset: Dataset,
    watch: Watch,
    method: str = "rk4",
    n_steps: int = 10,
    n_iterations: int = 2000,
    batch: int | None = 256,
    rate: float = 0.003,
    most: float = 5.0,
) -> None:
    """A CNF in diffrax: the same net as ours, Adam with a cosine, minibatches or our nodes.

    Compiled before the clock starts, on a clock of its own. Ends after `most` seconds of work. The
    rate is the best of 0.003, 0.01 and 0.02 for minibatches on the Laplace mixture; on nodes ours.
    """
    y = dataset.train
    loc, scale = y.mean().item(), y.std().item()
    with seeded(0):
        net = equinox_net(notebook("ODE.ipynb").MLPDrift())
    adjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=n_steps)
    solver = {"euler": diffrax.Euler, "rk4": classic_rk4}[method]()
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, n_iterations))

    def log_density(net, x):
        def field(t, state, net):
            drift = jax.vmap(lambda x: net(jnp.stack([x, t]))[0])
            return jax.jvp(drift, (state[0],), (jnp.ones_like(state[0]),))

        x_0, log_det = diffrax.diffeqsolve(
            diffrax.ODETerm(field), solver, t0=1.0, t1=0.0, dt0=-1 / n_steps,
            y0=(x, jnp.zeros_like(x)), args=net, adjoint=adjoint, max_steps=n_steps,
        ).ys  # fmt: skip
        return (-0.5 * x_0**2 - 0.5 * math.log(2 * math.pi) + log_det)[-1]

    @eqx.filter_jit
    def step(net, state, x, w):
        gradient = eqx.filter_grad(lambda net: -(w * log_density(net, x)).sum())(net)
        updates, state = optimizer.update(gradient, state)
        return eqx.apply_updates(net, updates), state

    compiled = eqx.filter_jit(log_density)

    def as_torch(net, y: Tensor) -> Tensor:
        found = compiled(net, jnp.asarray(((y - loc) / scale).numpy()))
        return torch.tensor(found.tolist()) - math.log(scale)

    state = optimizer.init(eqx.filter(net, eqx.is_array))
    draw = data_source((y - loc) / scale, 32, batch)
    start = time.perf_counter()
    x, w = draw()
    w = torch.ones_like(x) if w is None else w
    as_jax = lambda values: jnp.asarray(values.numpy())
    jax.block_until_ready(step(net, state, as_jax(x), as_jax(w / w.sum())))
    watch.start = time.perf_counter()
    watch.compilation = watch.start - start
    for iteration in range(1, n_iterations + 1):
        points = draw()[0] if batch is not None else x
        net, state = jax.block_until_ready(step(net, state, as_jax(points), as_jax(w / w.sum())))
        if iteration % (20 if batch is not None else 5) == 0:
            watch(partial(as_torch, net), iteration)
            if watch.curve[-1][0] > most:
                break


def watch_once(estimate: Callable[[Dataset, int], LogDensity], dataset: Dataset, watch: Watch):
    """An estimator without a training to watch."""
    watch(estimate(dataset, 0), 1)


CONTENDERS: dict[str, Callable[[Dataset, Watch], None]] = {
    "ODE, mlp": partial(watch_ode, drift="mlp", n_iterations=150, learning_rate=0.02),
    "ODE, mlp, T = 4": partial(
        watch_ode, drift="mlp", n_steps=4, n_iterations=150, learning_rate=0.02
    ),
    "ODE, mlp, Euler 100": partial(
        watch_ode, drift="mlp", method="euler", n_steps=100, n_iterations=150, learning_rate=0.02
    ),
    "ODE, sigmoid_basis": partial(
        watch_ode, drift="sigmoid_basis", n_iterations=300, learning_rate=0.03
    ),
    "ODE, mlp, natural gradient": partial(
        watch_ode, drift="mlp", n_steps=5, n_bins=64, optimizer="natural", validate_every=1
    ),
    "ODE, flow matching in closed form": lambda dataset, watch: watch_once(
        lambda data, seed: notebook("ODE.ipynb").flow_matching(data).log_likelihood, dataset, watch
    ),
    "SDE": watch_sde,
    "diffrax CNF": watch_diffrax,
    "diffrax CNF on our nodes": partial(watch_diffrax, batch=None, rate=0.02, n_iterations=150),
    "diffrax CNF on our nodes, T = 4": partial(
        watch_diffrax, batch=None, rate=0.02, n_iterations=150, n_steps=4
    ),
    "diffrax CNF, T = 4": partial(watch_diffrax, n_steps=4),
    "diffrax CNF, Euler 100": partial(watch_diffrax, method="euler", n_steps=100),
    "zuko NSF": lambda dataset, watch: train_nsf(dataset, 0, watch=watch),
} | {
    name: partial(watch_once, ESTIMATORS[name])
    for name in ("EM, grown", "EM, scikit-learn", "KDE, Scott", "KDE, Botev")
}


def rows_of(density: str) -> Iterator[Row]:
    """A row a contender, each on the same data."""
    dataset = make_dataset(density)
    for name, train in CONTENDERS.items():
        watch = Watch(dataset)
        train(dataset, watch)
        yield {"contender": name} | watch.row()


def make(options: argparse.Namespace) -> tuple[list[str], Tables]:
    """Notes and tables."""
    if options.threads is None:
        torch.set_num_threads(1)  # as in the notebook: what fits our arrays
    densities = ["laplace_mixture"] if options.quick else list(DENSITIES)
    for train in CONTENDERS.values():  # what is loaded at first use is not anyone's work
        if watch_diffrax not in (train, getattr(train, "func", None)):
            train(make_dataset("gaussian", n_train=100), lambda log_density, iteration: None)
    tables = {DENSITIES[density]: list(rows_of(density)) for density in densities}
    for rows in tables.values():
        ours = rows[0]["s to 0.005"]
        for row in rows:
            reached = row["s to 0.005"]
            known = "–" not in (reached, ours)
            row["times the first"] = reached / ours if known else "–"
            row["with compilation"] = (reached + row["compilation"]) / ours if known else "–"
    note = (
        "10,000 points; seconds of work until KL(truth || model), mass divided out, is below the "
        "level, measured every ten iterations (natural gradient: one, SDE: 100, diffrax: 20, on "
        "nodes 5); “–”: not reached. "
        "Iterations: those to 0.005. ODE and CNF: rk4 with ten steps or four, or Euler with 100. "
        "torch with one thread, jax with all. diffrax has the net of “ODE, mlp” and minibatches "
        "of 256, or our sixty weighted nodes and our learning rate, and ends after 5 s. The last "
        "columns are the time to 0.005 "
        "over that of the first line: once jax has compiled, and for the first training, which "
        "waits for that."
    )
    return [note], tables


def main(arguments: list[str] | None = None) -> int:
    """Measure the time to a given KL on five densities, for our models and for others."""
    quick = "only the Laplace mixture"
    return command("ode_quality", main.__doc__, quick, PACKAGES, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
