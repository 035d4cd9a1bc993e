"""Parallel efficiency of a sweep: the same trainings by one process and by one a core."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import Tables, command
from dlutils.processes import cores
from dlutils.tools.sweep import load, read, train_and_measure
from dlutils.tools.sweep.jobs import process_pool, run_all

PACKAGES = ("torch",)
GRID = """
notebook = "ODE.ipynb"
dataset = "laplace_mixture"
method = "rk4"
n_steps = 10
logdet = "map"
n_iterations = {n_iterations}
seed = {seeds}
"""


def make(options: argparse.Namespace) -> Tables:
    """Measure the parallel efficiency of a sweep."""
    runs, n_iterations = (8, 100) if options.quick else (20, 300)
    rows, numbers = [], {}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "grid.toml"
        config.write_text(GRID.format(n_iterations=n_iterations, seeds=list(range(runs))))
        configs = read(config)
        for workers in dict.fromkeys((1, cores())):
            results = Path(folder) / f"{workers}.jsonl"
            pool = process_pool(workers, ["dlutils.tools.sweep.grid"])
            warm = Path(folder) / f"warm_{workers}.jsonl"
            run_all(train_and_measure, configs[:workers], warm, pool, label="warm-up")
            start = time.perf_counter()
            run_all(train_and_measure, configs, results, pool, label=f"{workers}")
            seconds = time.perf_counter() - start
            numbers[workers] = {row["run"]: row["normalized_kl"] for row in load(results)}
            first = rows[0]["seconds"] if rows else seconds
            rows.append(
                {
                    "processes": workers,
                    "runs": runs,
                    "seconds": seconds,
                    "runs a minute": 60 * runs / seconds,
                    "efficiency, %": 100 * first / (workers * seconds),
                }
            )
    if any(found != numbers[1] for found in numbers.values()):
        raise RuntimeError("the numbers of processes do not give the same results")
    return {"Scaling": rows}


if __name__ == "__main__":
    sys.exit(command(make, PACKAGES, "fewer and shorter runs"))
