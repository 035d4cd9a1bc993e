"""How soon is a density within 0.005 nats of the truth? Ours, diffrax and zuko.

Each contender starts from 10 000 points and may compress them into weighted nodes. All train in
single precision, as jax does; what is solved for at once is in double. A training is watched: KL
from the truth by quadrature, about twenty times, with the clock stopped. Learning rates rise for a
fifth of the run and come down to zero at its end, the budget. Budget, rate and what else a
contender can choose were chosen on other samples, as `--tune` does. A time is that of the first
look that finds the level reached.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import product
from statistics import mean, median

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.common import SEEDS, Enough, Options, Row, Tables, Watch, command, quietly, short
from benchmarks.estimators import CONTENDERS as ESTIMATORS
from benchmarks.estimators import by_backprop, in_units, spline_flow
from benchmarks.ode_iteration import classic_rk4, equinox_net, of_net, with_kernel
from dlutils import flows
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.estimators.view import units_of
from dlutils.estimators.yardsticks import LogDensity
from dlutils.flows.kernels import AutogradKernel
from dlutils.flows.natural import NaturalGradient
from dlutils.seeding import seeded
from dlutils.training import DataSource, fit, warm_up_and_cosine

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # torch's tensors are on the CPU too
with contextlib.suppress(ImportError):  # `command` says so
    import diffrax
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

PACKAGES = ("torch", "diffrax", "jax", "equinox", "optax", "zuko")
DENSITIES = {
    "laplace_mixture": "Laplace mixture",
    "marron_wand_10": "claw",
    "marron_wand_12": "asymmetric claw",
}
LEVEL = 0.005  # of the KL, nats
REFERENCE = "diffrax on our nodes, T = 4"  # of records, for machines differ
TUNING_SEEDS = range(2)
T, BINS, BATCH, LOOKS = 4, 32, 256, 20
GRADIENTS = {"adjoint": flows.adjoint.mean_log_likelihood, "backprop": by_backprop}
MARGIN = 0.8  # of the level, for a setting on trial: one that just gets there may not elsewhere
MOST = 5.0  # seconds of work that a training has, in the race and on trial


def sample(density: str, seed: int) -> Dataset:
    """10 000 points in single precision."""
    return make_dataset(density, seed=seed).to(torch.float32)


def every(n_iterations: int) -> int:
    """Iterations between two looks."""
    return max(1, n_iterations // LOOKS)


def climb(
    model: nn.Module,
    objective: Callable[[], Tensor],
    log_density: LogDensity,
    watch: Watch,
    n_iterations: int = 350,
    **options: object,
) -> None:
    """Train in torch, without validation: the watch looks instead.

    Args:
        model: Holds the weights.
        objective: The mean log-likelihood, nats, with a gradient.
        log_density: Of the model as it is, in the data's units.
        watch: Looks about `LOOKS` times.
        n_iterations: Budget.
        options: Of `dlutils.training.fit`.
    """
    seen = lambda _, history: watch(log_density, history.val_iteration[-1])
    options = {"validate_every": every(n_iterations), "callback": seen} | options
    fit(model, objective, lambda: 0.0, n_iterations=n_iterations, progress=False, **options)


def flow(
    dataset: Dataset, seed: int, watch: Watch, net: Callable[[], nn.Module] | None = None,
    n_steps: int = T, logdet: str = "map", gradient: str = "adjoint", n_bins: int = BINS,
    batch_size: int | None = None, optimizer: str = "adam", damping: float = 1e-2,
    **options: object,
) -> None:  # fmt: skip
    """Our flow by maximum likelihood, rk4: `train` of the notebook without its validations."""
    units, solver = units_of(dataset), (n_steps, "rk4", logdet)
    mean_of, precision = GRADIENTS[gradient], 1.0 / len(dataset.train)
    draw = DataSource(units(dataset.train), n_bins, batch_size, seed)
    with seeded(seed, dtype=dataset.train.dtype):
        f = (net or flows.MLPDrift)()
    if optimizer == "natural":
        climber = NaturalGradient(f, *draw(), *solver, precision, damping=damping)
        options |= {"climber": climber, "validate_every": 1}
    objective = lambda: mean_of(f, *draw(), *solver)
    log_density = flows.FittedODE(f, None, units, *solver).log_likelihood
    climb(f, objective, log_density, watch, precision=precision, **options)


def by_autograd() -> nn.Module:
    """The same perceptron; the adjoint takes its derivatives by autograd."""
    return with_kernel(flows.MLPDrift(), AutogradKernel)


def once(estimate: Callable[[Dataset, int], LogDensity]) -> Callable[..., None]:
    """An estimator without a training to watch, in double precision."""
    return lambda dataset, seed, watch: watch(estimate(dataset.to(torch.float64), seed), 1)


def matched_in_two_steps(dataset: Dataset, seed: int) -> LogDensity:
    """Flow matching with few nodes, few steps, and a penalty that was chosen on `TUNING_SEEDS`."""
    few = replace(dataset, val=dataset.val[:8])  # there is nothing to choose
    given = {"penalties": [10], "n_times": 2, "method": "rk2", "n_steps": 2}
    return flows.flow_matching(few, **given).log_likelihood


@cache
def diffrax_step() -> tuple[Callable, Callable, Callable]:
    """A CNF's start from a net, its Adam step and its log-density, the latter two to be compiled.

    With rk4 and every stage kept for backprop, which is quicker than checkpoints here.
    """
    adjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=T)
    solver, adam = classic_rk4(), optax.scale_by_adam(b1=0.9, b2=0.99)  # as in `fit`
    log_density = lambda net, x: of_net(net, x, T, solver, adjoint)

    @eqx.filter_jit
    def step(net, state, x, w, rate):
        gradient = eqx.filter_grad(lambda net: -(w * log_density(net, x)).sum())(net)
        direction, state = adam.update(gradient, state)
        return eqx.apply_updates(net, jax.tree.map(lambda d: -rate * d, direction)), state

    return lambda net: adam.init(eqx.filter(net, eqx.is_array)), step, eqx.filter_jit(log_density)


@cache
def compilation(n: int) -> float:
    """Seconds that the step for n points takes to compile, which is done the first time."""
    start, step, _ = diffrax_step()
    net, began = equinox_net(flows.MLPDrift()), time.perf_counter()
    jax.block_until_ready(step(net, start(net), jnp.zeros(n), jnp.ones(n) / n, jnp.float32(0)))
    return time.perf_counter() - began


def diffrax_cnf(
    dataset: Dataset, seed: int, watch: Watch, n_iterations: int = 350,
    learning_rate: float = 0.02, batch_size: int | None = None,
) -> None:  # fmt: skip
    """A CNF in diffrax with the net of ours; compiled before the clock starts.

    Nodes are filled up to twice the bins by some of weight zero, so that all samples share one
    compiled step.
    """
    n = batch_size or 2 * BINS
    watch.compilation = compilation(n)
    start, step, log_density = diffrax_step()
    units = units_of(dataset)
    watch.restart()
    with seeded(seed, dtype=torch.float32):
        net = equinox_net(flows.MLPDrift())
    state, draw = start(net), DataSource(units(dataset.train), BINS, batch_size, seed)

    def points() -> tuple:
        x, w = draw()
        w = torch.ones_like(x) if w is None else w
        fill = lambda v: jnp.asarray(np.pad(v.numpy(), (0, n - len(v))))
        return fill(x), fill(w / w.sum())

    def as_torch(x: Tensor) -> Tensor:
        return torch.from_numpy(np.array(log_density(net, jnp.asarray(x.numpy()))))

    for k in range(n_iterations):
        rate = jnp.float32(learning_rate * warm_up_and_cosine(k, n_iterations))
        if k == 0 or batch_size is not None:
            x, w = points()
        net, state = jax.block_until_ready(step(net, state, x, w, rate))
        if (k + 1) % every(n_iterations) == 0:
            watch(in_units(units, as_torch), k + 1)


def zuko_nsf(
    dataset: Dataset, seed: int, watch: Watch, transforms: int = 1, bins: int = 16,
    batch_size: int | None = None, **options: object,
) -> None:  # fmt: skip
    """A neural spline flow of zuko; by autograd."""
    model, units, log_density = spline_flow(dataset.train, seed, transforms, bins)
    draw = DataSource(units(dataset.train), 256, batch_size, seed)

    def objective() -> Tensor:
        x, w = draw()
        return log_density(x).mean() if w is None else w @ log_density(x) / w.sum()

    in_data_units = in_units(units, lambda x: log_density(x).detach())
    climb(model, objective, in_data_units, watch, **options)


@dataclass(frozen=True)
class Contender:
    """One way from data to a density.

    Attributes:
        train: Takes a dataset, a seed, a watch and settings.
        side: "ours", "rival" or "yardstick".
        grid: What is tried of each setting, the quick ones first.
        chosen: The best of the grid, in the order of its keys, for each density.
    """

    train: Callable[..., None]
    side: str
    grid: dict[str, tuple] = field(default_factory=dict)
    chosen: tuple[tuple, ...] = ()


ON_NODES = {"n_iterations": (40, 80, 160, 320, 640), "learning_rate": (0.01, 0.02, 0.05)}
ON_BATCHES = {"n_iterations": (120, 240, 480, 960), "learning_rate": (0.01, 0.02)}
SPLINES = {"learning_rate": (0.1, 0.3), "transforms": (1, 3), "bins": (32, 64)}
ONE_SPLINE = {"n_iterations": (200, 400, 800)} | SPLINES | {"transforms": (1,)}
NATURAL, TWO_STEPS = "ODE, mlp, natural gradient", "ODE, flow matching, two steps"
ON_MINIBATCHES, batches = "diffrax, minibatches of 256", {"batch_size": BATCH}
CONTENDERS: dict[str, Contender] = {
    NATURAL: Contender(
        partial(flow, optimizer="natural"), "ours",
        {"n_bins": (32, 64), "damping": (1e-3, 1e-2, 1e-1)}, ((32, 0.01), (32, 0.001), (64, 0.01)),
    ),
    "ODE, flow matching": Contender(
        once(lambda data, seed: flows.flow_matching(data).log_likelihood), "ours",
    ),
    TWO_STEPS: Contender(once(matched_in_two_steps), "ours"),
    ON_MINIBATCHES: Contender(
        partial(diffrax_cnf, **batches), "rival",
        ON_BATCHES, ((120, 0.02), (960, 0.02), (960, 0.01)),
    ),
    REFERENCE: Contender(
        diffrax_cnf, "rival", ON_NODES, ((80, 0.02), (320, 0.02), (640, 0.01)),
    ),
    "zuko NSF, minibatches of 256": Contender(
        partial(zuko_nsf, **batches), "rival",
        ONE_SPLINE, ((400, 0.1, 1, 32), (800, 0.1, 1, 32), (800, 0.1, 1, 64)),
    ),
    "zuko NSF on our nodes": Contender(
        zuko_nsf, "rival", {"n_iterations": (50, 100, 200, 400)} | SPLINES,
        ((200, 0.1, 1, 32), (400, 0.3, 1, 32), (200, 0.3, 1, 64)),
    ),
    "EM, grown": Contender(once(ESTIMATORS["EM, grown"][0]), "yardstick"),
}  # fmt: skip
SETTINGS: dict[tuple[str, str], dict[str, object]] = {
    (density, name): dict(zip(contender.grid, values, strict=True))
    for name, contender in CONTENDERS.items()
    for density, values in zip(DENSITIES, contender.chosen, strict=bool(contender.grid))
}
ADAM = {"n_iterations": 40, "learning_rate": 0.02}  # the best of ON_NODES for our perceptron
PLAIN = {"n_steps": 10, "logdet": "trace"}
CREDIT: dict[str, tuple[Callable[..., None], str | None]] = {  # one change a row; whose settings
    "CNF on minibatches, backprop, T = 10": (
        partial(flow, gradient="backprop", **PLAIN, **batches), ON_MINIBATCHES,
    ),
    "discrete adjoint": (partial(flow, net=by_autograd, **PLAIN, **batches), ON_MINIBATCHES),
    "derivatives in closed form": (partial(flow, **PLAIN, **batches), ON_MINIBATCHES),
    "compressed data": (partial(flow, **PLAIN), REFERENCE),
    "T = 4 with map": (partial(flow, **ADAM), None),
    "natural gradient": (CONTENDERS[NATURAL].train, NATURAL),
    "closed form": (CONTENDERS["ODE, flow matching"].train, None),
    "two steps, penalty given": (CONTENDERS[TWO_STEPS].train, None),
}  # fmt: skip


def watched(
    train: Callable[..., None], dataset: Dataset, seed: int, watch: Watch, **settings: object
) -> Watch:
    """The watch, after a training that says nothing and may end by it."""
    with contextlib.suppress(Enough):
        quietly(train, dataset, seed, watch, **settings)
    return watch


def seconds_to(watch: Watch) -> float:
    """Seconds of work until the KL is below `LEVEL`; infinite if it never is."""
    return watch.reached(LEVEL)[0]


def ratio(one: float, other: float) -> float:
    """One by the other; not finite, a dash in a table, where either is not."""
    return one / other if math.isfinite(other) else math.nan


def tune(
    densities: Iterable[str], names: Iterable[str], seeds: Iterable[int] = TUNING_SEEDS
) -> list[Row]:
    """Put the soonest settings into `SETTINGS`; a row for each that was tried.

    The seconds are of the processor and to `MARGIN` times the level; a trial ends there, or when it
    has had half as much again as the best before it. Where none gets there, the least KL at the end
    is the best.
    """
    rows, level = [], MARGIN * LEVEL
    chosen = [name for name in names if CONTENDERS[name].grid]
    for density, name in tqdm(list(product(densities, chosen)), "settings", leave=False):
        contender, best = CONTENDERS[name], (math.inf, math.inf)
        data = {seed: sample(density, seed) for seed in seeds}
        for values in product(*contender.grid.values()):
            settings = dict(zip(contender.grid, values, strict=True))
            found, most = [], min(MOST, 1.5 * best[0])
            for seed, dataset in data.items():
                watch = Watch(dataset, level, most, clock=time.process_time)
                found.append(watched(contender.train, dataset, seed, watch, **settings))
            score = mean(watch.reached(level)[0] for watch in found)
            kl = mean(watch.curve[-1][1] for watch in found)
            row = {"density": DENSITIES[density], "contender": name} | settings
            rows.append(row | {"processor s": score, "KL there": kl})
            if (score, kl) < best:
                best, SETTINGS[density, name] = (score, kl), settings
    return rows


def rehearse(contender: Contender, dataset: Dataset, seed: int, **settings: object) -> None:
    """An untimed training, of two iterations where there is a budget.

    What is loaded at first use is not anyone's work; and a training of milliseconds finds its own
    code in the cache, not a rival's, as one of seconds does but at its start.
    """
    if "n_iterations" in contender.grid:
        settings |= {"n_iterations": 2}
    watched(contender.train, dataset, seed, Watch(dataset), **settings)


def race(density: str, seeds: Iterable[int]) -> dict[str, list[Watch]]:
    """The watches of each contender, a watch a sample; all take turns, each after a rehearsal."""
    found: dict[str, list[Watch]] = {name: [] for name in CONTENDERS}
    for seed, name in tqdm(list(product(seeds, CONTENDERS)), density, leave=False):
        dataset, settings = sample(density, seed), SETTINGS.get((density, name), {})
        contender = CONTENDERS[name]
        rehearse(contender, replace(dataset), seed, **settings)  # a copy: a dataset remembers
        watch = watched(contender.train, dataset, seed, Watch(dataset, most=MOST), **settings)
        found[name].append(watch)
    return found


def rows_of(density: str, found: dict[str, list[Watch]]) -> list[Row]:
    """A row a contender: seconds to the level, of the middle sample and the quartiles."""
    rows, reference = [], median(map(seconds_to, found[REFERENCE]))
    for name, watches in found.items():
        seconds = list(map(seconds_to, watches))
        low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75), method="nearest").tolist()
        reached = [watch.reached(LEVEL)[1] for watch in watches if seconds_to(watch) < math.inf]
        row: Row = {"contender": name, "side": CONTENDERS[name].side, f"s to {LEVEL}": middle}
        row |= {
            "quartiles": " – ".join("∞" if math.isinf(t) else short(t) for t in (low, high)),
            "reached": f"{len(reached)} of {len(watches)}",
            "iterations": round(median(reached)) if reached else math.nan,
            "times the reference": ratio(middle, reference),
            "compilation": max(watch.compilation for watch in watches),
            "s": median(watch.curve[-1][0] for watch in watches),
            "KL at the end": median(watch.curve[-1][1] for watch in watches),
        }
        rows.append(row | SETTINGS.get((density, name), {}))
    return rows


def how_much_sooner(density: str, found: dict[str, list[Watch]]) -> list[Row]:
    """The soonest of ours beside the soonest rival: on its own terms, and on minibatches."""

    def soonest(names: Iterable[str], compiling: bool = False) -> tuple[float, str]:
        """The least median of the seconds to the level, and whose it is."""
        total = lambda watch: seconds_to(watch) + compiling * watch.compilation
        return min((median(map(total, found[name])), name) for name in names)

    sides = {
        side: [n for n, c in CONTENDERS.items() if c.side == side] for side in ("ours", "rival")
    }
    ours, who = soonest(sides["ours"])
    rivals = sides["rival"]
    terms = {
        "compression allowed": soonest(rivals),
        "compression allowed, compilation counted": soonest(rivals, compiling=True),
        "minibatches": soonest(name for name in rivals if "minibatches" in name),
    }
    rows = []
    for allowed, (theirs, rival) in terms.items():
        row = {"density": DENSITIES[density], "rivals": allowed, "ours": who, "s": ours}
        row |= {"soonest rival": rival, "its s": theirs}
        rows.append(row | {"times sooner": ratio(theirs, ours)})
    return rows


def credit(seeds: Iterable[int], density: str = "laplace_mixture") -> list[Row]:
    """What each change brings: seconds to the level, and how many times sooner than before it."""
    rows, before, data = [], math.nan, {seed: sample(density, seed) for seed in seeds}
    for name, (train, whose) in tqdm(CREDIT.items(), "credit", leave=False):
        settings = SETTINGS.get((density, whose), {})
        seconds = [
            seconds_to(watched(train, dataset, seed, Watch(dataset, LEVEL), **settings))
            for seed, dataset in data.items()
        ]
        now, reached = median(seconds), sum(map(math.isfinite, seconds))
        row = {"change": name, f"s to {LEVEL}": now, "times sooner": ratio(before, now)}
        rows.append(row | {"reached": f"{reached} of {len(seconds)}"})
        before = now
    return rows


def make(options: Options) -> Tables:
    """Race to 0.005 nats: ours, diffrax and zuko, each with its best settings."""
    few = 1 if options.quick else None
    densities, seeds, tables = list(DENSITIES)[:few], SEEDS[:few], {}
    if options.tune:
        small = make_dataset("gaussian", n_train=500).to(torch.float32)
        for contender in CONTENDERS.values():
            rehearse(contender, small, 0)
        tables["Settings tried"] = tune(densities, CONTENDERS)
    found = {density: race(density, seeds) for density in densities}
    tables["How much sooner"] = [row for pair in found.items() for row in how_much_sooner(*pair)]
    tables |= {DENSITIES[density]: rows_of(density, found[density]) for density in densities}
    if not options.quick:
        tables["What brings what"] = credit(seeds)
    return tables


if __name__ == "__main__":
    tuning = {"action": "store_true", "help": "choose the settings anew, in half an hour"}
    quick = "one density, one sample, and not what brings what"
    raise SystemExit(command(make, PACKAGES, quick, options={"--tune": tuning}))
