"""Time and peak memory of one training step, each way in a process of its own.

Memory is the peak of the process's resident set, sampled while the step runs, above what it was
before the first step: so it sees what PyTorch's own allocator takes. A fresh process keeps what one
way has freed from hiding what the next needs. Time is that of the processor in the one thread that
computes: what a clock shows on an idle machine, and not what other programs take meanwhile.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import ExitStack
from functools import cache
from itertools import pairwise
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from torch.utils.checkpoint import checkpoint

from dlutils.data.datasets import make_dataset
from dlutils.diffusion.model import build_sde
from dlutils.diffusion.samplers import lattice, sampled_elbo
from dlutils.evaluation import slope
from dlutils.flows.adjoint import continuous_gradient, flat_gradient, mean_log_likelihood
from dlutils.flows.methods import check_solver
from dlutils.flows.nets import MLPDrift
from dlutils.notebook import load
from dlutils.processes import fresh_processes, keep_freed_memory
from dlutils.seeding import seeded


class Measured(NamedTuple):
    """What a step of training takes by way, shape `(len(steps),)` each.

    It is taken three times in turns, where T is 1000 or more once.
    """

    steps: tuple[int, ...]  # the numbers T
    seconds: dict[str, np.ndarray]  # the median of the turns
    megabytes: dict[str, np.ndarray]  # the most of them


@cache
def _ode():
    return load("ODE.ipynb")


@cache
def _sde():
    with seeded(0, dtype=torch.float64):
        return build_sde("linear", "learned_in_t", "preconditioned")


@torch.no_grad()
def forward(f, y, n_steps: int) -> None:
    """The value alone."""
    _ode().log_likelihood(f, y, n_steps)


def backprop(f, y, n_steps: int) -> None:
    """Backprop through the solver: every step's graph is kept."""
    _ode().log_likelihood(f, y, n_steps).mean().backward()


def checkpointed(f, y, n_steps: int) -> None:
    """Backprop that keeps the states at the ends of √T pieces and recomputes each on the way back.

    Reentrant, because `step` calls autograd itself: the other kind of checkpoint recomputes the
    piece anew for every one of those calls.

    Source:
        Chen, Xu, Zhang & Guestrin, Training deep nets with sublinear memory cost (2016).
    """
    h, pieces = -1 / n_steps, round(n_steps**0.5)

    def piece(x, log_det, first, last):
        for n in range(first, last):
            x, trace = _ode().euler_step(f, x, 1 + n * h, h)
            log_det = log_det + trace
        return x, log_det

    x, log_det = y.clone().requires_grad_(), torch.zeros_like(y)
    ends = [round(k * n_steps / pieces) for k in range(pieces + 1)]
    for first, last in pairwise(ends):
        x, log_det = checkpoint(piece, x, log_det, first, last, use_reentrant=True)
    (log_det - x.square() / 2).mean().backward()


def simulation_free(f, y, n_steps: int) -> None:
    """One sample of the SDE's bound for each point: there is nothing to integrate."""
    model = _sde()
    sampled_elbo(model, y, lattice(model.path, len(y))).mean().backward()


def flow_matching(f, y, n_steps: int) -> None:
    """Regression on the velocity of one straight path to each point, from noise of its own."""
    x_0, t = torch.randn_like(y), torch.rand_like(y)
    (f(torch.lerp(x_0, y, t), t) - (y - x_0)).square().mean().backward()


WAYS: dict[str, Callable] = {  # each called with a drift, points and a number of steps T
    "forward": forward,
    "backprop": backprop,
    "checkpointing": checkpointed,
    # back and forth again, with nothing kept: the gradient is not quite that of the T steps
    "continuous adjoint": lambda f, y, T: continuous_gradient(f, y, torch.ones_like(y) / len(y), T),
    "adjoint, one batch": lambda f, y, T: mean_log_likelihood(f, y, None, T, chunk=T).backward(),
    # a cache's worth of steps at a time
    "adjoint, chunks": lambda f, y, T: mean_log_likelihood(f, y, None, T).backward(),
    "simulation-free": simulation_free,
    # the 64 nodes 16 times: as many points as a batch of the SDE's training has
    "simulation-free, batch 1024": lambda f, y, T: simulation_free(f, y.repeat(16), T),
    "flow matching": flow_matching,
}


def peak_memory(run: Callable[[], None]) -> int:
    """The largest resident set while `run` runs, in bytes, sampled every millisecond."""
    process, done = psutil.Process(), threading.Event()
    peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            done.wait(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return max(peak, process.memory_info().rss)


def median_seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Median processor time of a call in one thread, after a warm-up."""
    times = []
    for _ in range(repeats + 1):
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return sorted(times[1:])[repeats // 2]


def _net_and_nodes(seed: int = 0) -> tuple[torch.nn.Module, Tensor]:
    """What every step is measured with."""
    nodes = make_dataset("laplace_mixture", seed=seed).compress(32)[0]
    with seeded(seed, dtype=nodes.dtype):
        return MLPDrift(), nodes


def _milliseconds(run: Callable[[], object], repeats: int = 3) -> float:
    return round(1e3 * median_seconds(run, repeats), 1)


def continuous_errors(steps: Sequence[int], seed: int = 0) -> list[float]:
    """How far the continuous adjoint's gradient is from that of T steps of Euler's, relative.

    For an untrained net and a sample, both of that seed.
    """
    f, y = _net_and_nodes(seed)
    errors = []
    for n_steps in steps:
        exact = flat_gradient(mean_log_likelihood(f, y, None, n_steps), f)
        found = parameters_to_vector(WAYS["continuous adjoint"](f, y, n_steps))
        errors.append(((found - exact).norm() / exact.norm()).item())
    return errors


def by_points(sizes: Sequence[int], n_bins: int = 32) -> list[dict[str, object]]:
    """A step by the adjoint (Euler, T = 100) against the number of points, in this process.

    Returns:
        A row for each size: milliseconds with all points, with their nodes, with 256 points.
    """
    f, rows = _net_and_nodes()[0], []
    for n in sizes:
        data = make_dataset("laplace_mixture", n_train=n)
        y, nodes = data.train, data.compress(n_bins)[0]
        rows.append({"points": n, "nodes": len(nodes)})
        for name, batch in {"all points": y, "compressed": nodes, "256 points": y[:256]}.items():
            step = lambda batch=batch: mean_log_likelihood(f, batch).backward()
            repeats = 1 if len(batch) >= 3000 else 3  # the many take seconds
            rows[-1][f"{name}, ms"] = _milliseconds(step, repeats)
    return rows


@cache
def _ready(way: str) -> tuple[torch.nn.Module, Tensor, int]:
    """Net, nodes and resident memory before the first step, in the process of this way."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as in training
    f, nodes = _net_and_nodes()
    WAYS[way](f, nodes[:2], 10)  # loads what is loaded at first use
    return f, nodes, psutil.Process().memory_info().rss


def measure_once(way: str, n_steps: int) -> tuple[float, float]:
    """Seconds of one training step, and megabytes above what its process held before."""
    f, nodes, before = _ready(way)
    WAYS[way](f, nodes, min(n_steps, 10))  # the others have had the cache meanwhile
    start = time.thread_time()
    peak = peak_memory(lambda: WAYS[way](f, nodes, n_steps))
    return time.thread_time() - start, (peak - before) / 1e6


def measure(ways: Sequence[str], steps: Sequence[int]) -> Measured:
    """Measure ways in turns, each in a process of its own, one at a time.

    In turns, because a machine may be twice as quick a few seconds later: what is compared was
    measured close together.

    Args:
        ways: Some of `WAYS`.
        steps: Numbers of steps T, increasing integers of at least 1.

    Raises:
        ValueError: If a number of steps is out of range, or not above the one before.
    """
    for n_steps in steps:
        check_solver(n_steps, "euler")
    if list(steps) != sorted(set(steps)):
        raise ValueError(f"the numbers of steps must increase, not {tuple(steps)}")
    context = fresh_processes([__name__])
    seconds, megabytes = {way: [] for way in ways}, {way: [] for way in ways}
    with ExitStack() as stack:
        start = lambda way: ProcessPoolExecutor(1, context, initializer=_ready, initargs=(way,))
        pools = {way: stack.enter_context(start(way)) for way in ways}
        wait([pool.submit(int) for pool in pools.values()])  # all at once
        once = lambda way, n_steps: pools[way].submit(measure_once, way, n_steps).result()
        for n_steps in steps:
            repeats = range(1 if n_steps >= 1000 else 3)
            turns = np.array([[once(way, n_steps) for way in ways] for _ in repeats])
            for way, times, memory in zip(ways, *turns.transpose(2, 1, 0), strict=True):
                seconds[way].append(np.median(times))
                megabytes[way].append(memory.max())
    arrays = lambda by_way: {way: np.array(values) for way, values in by_way.items()}
    return Measured(tuple(steps), arrays(seconds), arrays(megabytes))


def summary(measured: Measured) -> dict[str, SimpleNamespace]:
    """Of each way its `time`, `slope` and `megabytes`.

    They are the median time over T in units of the first way's, the slope of its logarithm against
    that of T (1 if it is proportional to T), and the most memory that any T needs.
    """
    steps, seconds, megabytes = measured
    first = next(iter(seconds.values()))
    return {
        way: SimpleNamespace(
            time=float(np.median(s / first)), slope=slope(steps, s), megabytes=megabytes[way].max()
        )
        for way, s in seconds.items()
    }


def columns(measured: Measured) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Seconds and megabytes."""
    return measured.seconds, measured.megabytes


def panels(measured: Measured) -> dict[str, dict[str, np.ndarray]]:
    """Time and memory under what a figure calls them."""
    return {"time of a step / s": measured.seconds, "peak memory / MB": measured.megabytes}


def table(measured: Measured, units: Sequence[str] = ("ms", "MB")) -> list[dict[str, object]]:
    """What was measured as rows to show, one for each T: times in "ms", memory in "MB"."""
    factor, of_unit = {"ms": 1000, "MB": 1}, {"ms": measured.seconds, "MB": measured.megabytes}
    short = lambda value: f"{float(f'{value:.3g}'):g}"
    return [
        {"T": n_steps}
        | {
            f"{way}, {unit}": short(factor[unit] * values[k])
            for unit in units
            for way, values in of_unit[unit].items()
        }
        for k, n_steps in enumerate(measured.steps)
    ]
