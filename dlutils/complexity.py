"""Time and peak memory of one training step, each way in a process of its own.

`python -m dlutils.complexity WAY T [T ...]` prints one JSON line for each number of steps T. Memory
is the peak of the process's resident set, sampled while the step runs, above what it was before the
first step: so it sees what PyTorch's own allocator takes. A fresh process keeps what one way has
freed from hiding what the next needs.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

import psutil
import torch
from torch.utils.checkpoint import checkpoint

from dlutils.adjoint import mean_log_likelihood
from dlutils.datasets import make_dataset
from dlutils.notebooks import load
from dlutils.seeding import seeded

SEGMENTS = 10  # pieces of the trajectory that checkpointing recomputes

ODE = load("ODE.ipynb")


def forward(f, y, n_steps: int) -> None:
    """The value alone."""
    with torch.no_grad():
        ODE.log_likelihood(f, y, n_steps)


def backprop(f, y, n_steps: int) -> None:
    """Backprop through the solver: every step's graph is kept."""
    ODE.log_likelihood(f, y, n_steps).mean().backward()


def checkpointed(f, y, n_steps: int) -> None:
    """Backprop that keeps `SEGMENTS` states and recomputes each piece on the way back.

    Reentrant, because `step` calls autograd itself: the other kind of checkpoint recomputes the
    piece anew for every one of those calls.
    """
    h = -1 / n_steps

    def piece(x, log_det, first, last):
        for n in range(first, last):
            x, trace, _ = ODE.step(f, x, 1 + n * h, h, "euler")
            log_det = log_det + trace
        return x, log_det

    x, log_det = y.clone().requires_grad_(), torch.zeros_like(y)
    ends = [round(k * n_steps / SEGMENTS) for k in range(SEGMENTS + 1)]
    for first, last in pairwise(ends):
        x, log_det = checkpoint(piece, x, log_det, first, last, use_reentrant=True)
    (log_det - x.square() / 2).mean().backward()


def adjoint_whole(f, y, n_steps: int) -> None:
    """The batched adjoint with the derivatives of all steps at once."""
    mean_log_likelihood(f, y, None, n_steps, chunk=n_steps).backward()


def adjoint_chunked(f, y, n_steps: int) -> None:
    """The batched adjoint, a cache's worth of steps at a time."""
    mean_log_likelihood(f, y, None, n_steps).backward()


@cache
def _sde():
    notebook = load("SDE.ipynb")
    with seeded(0):
        return notebook, notebook.build_sde("linear", "learned_in_t", "preconditioned")


def simulation_free(f, y, n_steps: int) -> None:
    """One sample of the SDE's bound for each point: there is nothing to integrate."""
    notebook, model = _sde()
    notebook.sampled_elbo(model, y, notebook.lattice(model.path, len(y))).mean().backward()


WAYS: dict[str, Callable] = {
    "forward": forward,
    "backprop": backprop,
    "checkpointing": checkpointed,
    "adjoint, one batch": adjoint_whole,
    "adjoint, chunks": adjoint_chunked,
    "simulation-free": simulation_free,
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


def measure(way: str, steps: list[int]) -> Iterator[dict[str, float | int | str]]:
    """Seconds (median of up to three runs) and peak memory for each T, smallest first."""
    nodes = make_dataset("laplace_mixture").compress(64)[0].float()
    with seeded(0):
        f = ODE.MLPDrift()
    before = psutil.Process().memory_info().rss
    WAYS[way](f, nodes, 10)  # warm up
    for n_steps in sorted(steps):
        seconds, peaks = [], []
        for _ in range(3 if n_steps < 1000 else 1):
            start = time.perf_counter()
            peaks.append(peak_memory(lambda n=n_steps: WAYS[way](f, nodes, n)))
            seconds.append(time.perf_counter() - start)
        yield {
            "way": way,
            "n_steps": n_steps,
            "seconds": sorted(seconds)[len(seconds) // 2],
            "megabytes": (max(peaks) - before) / 1e6,
        }


def main() -> int:
    """Print the measurements of one way, a JSON line each."""
    parser = argparse.ArgumentParser(prog="python -m dlutils.complexity", description=main.__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("n_steps", nargs="+", type=int)
    options = parser.parse_args()
    for row in measure(options.way, options.n_steps):
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
