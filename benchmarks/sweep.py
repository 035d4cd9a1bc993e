"""Parallel efficiency of a sweep: the same trainings by one process and by one a core."""

import tempfile
import time
from pathlib import Path

from benchmarks.common import Options, Tables, command
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


def make(options: Options) -> Tables:
    """Measure the parallel efficiency of a sweep."""
    runs, n_iterations = (8, 100) if options.quick else (20, 300)
    rows, numbers = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "grid.toml"
        config.write_text(GRID.format(n_iterations=n_iterations, seeds=list(range(runs))))
        configs = read(config)
        for workers in dict.fromkeys((1, cores())):
            results, warm = folder / f"{workers}.jsonl", folder / f"warm_{workers}.jsonl"
            pool = process_pool(workers, ["dlutils.tools.sweep.grid"])
            run_all(train_and_measure, configs[:workers], warm, pool, label="warm-up")
            start = time.perf_counter()
            run_all(train_and_measure, configs, results, pool, label=f"{workers}")
            seconds = time.perf_counter() - start
            numbers.append({row["run"]: row["normalized_kl"] for row in load(results)})
            row = {"processes": workers, "runs": runs, "seconds": seconds}
            first = (rows or [row])[0]["seconds"]
            row["runs a minute"] = 60 * runs / seconds
            rows.append(row | {"efficiency, %": 100 * first / (workers * seconds)})
    if any(found != numbers[0] for found in numbers):
        raise RuntimeError("the numbers of processes do not give the same results")
    return {"Scaling": rows}


if __name__ == "__main__":
    raise SystemExit(command(make, PACKAGES, "fewer and shorter runs"))
