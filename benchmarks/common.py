"""What every benchmark needs: a command line, runs side by side, timing, tables, a page."""

import argparse
import io
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from dlutils.data.datasets import Dataset
from dlutils.estimators.yardsticks import LogDensity
from dlutils.evaluation import compare
from dlutils.processes import cores, keep_freed_memory
from dlutils.tables import plus_minus
from dlutils.tools.commands import parser_of
from dlutils.tools.sweep.jobs import identity, process_pool, run_all
from dlutils.tools.sweep.results import load

FOLDER = Path("build/benchmarks")  # of the reports
SEEDS = range(10, 15)  # of samples at which nothing was chosen
RULES = "What was measured and how to read it: docs/benchmarks-tables.md, and the pages it names."
Options = argparse.Namespace
Row = dict[str, str | int | float]
Tables = dict[str, list[Row]]  # by caption


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2, label: str = ""
) -> dict[str, Row]:
    """Time contenders in turn, all once per round, so that a drift of the machine hits all alike.

    Each timed call follows an untimed one of the same contender, as a training step follows
    another: it finds its own data in the cache, not its rival's threads. The first contender of a
    round changes from round to round.

    Args:
        contenders: Functions without arguments, by name; each returns when its work is done.
        rounds: Timed rounds.
        warmup: Untimed rounds before them.
        label: Text before the progress bar.

    Returns:
        By name, cells of a table: the median, `ms`, and the quartiles over the rounds.
    """
    names, times = list(contenders), {name: [] for name in contenders}
    for number in tqdm(range(-warmup, rounds), desc=label, unit="round", leave=False):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            contenders[name]()
            if number >= 0:
                times[name].append(milliseconds(contenders[name]))
    rows = {}
    for name, found in times.items():
        low, ms, high = np.quantile(found, [0.25, 0.5, 0.75]).tolist()
        rows[name] = {"ms": ms, "quartiles": f"{short(low)} – {short(high)}"}
    return rows


def milliseconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def quietly(function: Callable, *arguments: object, **settings: object):
    """What a function returns, without what it prints: a training on trial may well go astray."""
    with redirect_stdout(io.StringIO()):
        return function(*arguments, **settings)


def distance(dataset: Dataset, log_density: LogDensity, n_nodes: int = 4001) -> float:
    """KL from the truth, mass divided out, nats; infinite where a flow's steps fold the line."""
    try:
        return compare(dataset, log_density, n_nodes).normalized_kl
    except ValueError:
        return math.inf


def mean_and_error(kl: Sequence[float]) -> str:
    """The mean and the standard error of the samples, as a table shows them."""
    return plus_minus(torch.tensor(kl), "", 5) if len(kl) > 1 else f"{kl[0]:.5f}"


class Enough(Exception):
    """Ends a training that is watched."""


class Watch:
    """KL from the truth by seconds of work and by iterations; the clock stands still meanwhile.

    Args:
        dataset: Of a known density.
        enough: A call that finds a KL below it ends the training by `Enough`, nats.
        most: So does one after so many seconds.
        clock: Seconds since whenever.

    Attributes:
        curve: Seconds, KL and iteration of each call.
        compilation: Seconds that the contender spent on it before it started the clock.
    """

    def __init__(
        self,
        dataset: Dataset,
        enough: float = 0.0,
        most: float = math.inf,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.dataset, self.enough, self.most, self.clock = dataset, enough, most, clock
        self.curve: list[tuple[float, float, int]] = []
        self.compilation = 0.0
        self.restart()

    def restart(self) -> None:
        """The work starts now."""
        self.start = self.clock()

    def __call__(self, log_density: LogDensity, iteration: int) -> None:
        """Measure, without counting the time it takes."""
        now = self.clock()
        seconds, kl = now - self.start, distance(self.dataset, log_density, 2001)
        self.curve.append((seconds, kl, iteration))
        self.start += self.clock() - now
        if kl <= self.enough or seconds > self.most:
            raise Enough

    def reached(self, level: float) -> tuple[float, float]:
        """Seconds and iterations until the KL is below the level; infinite if it never is."""
        return next(((s, n) for s, kl, n in self.curve if kl <= level), (math.inf, math.inf))


def runs(
    function: Callable[[Mapping[str, object]], Row],
    configs: Sequence[Mapping[str, object]],
    options: Options,
    workers: int | None = None,
) -> list[Row]:
    """One row for each configuration; what was measured before a run was killed is kept.

    Args:
        function: From a configuration to results, both of plain values; picklable.
        configs: Without duplicates.
        options: Of the command line; they name the file of the results so far.
        workers: Processes; None for one a core. Each has one thread.

    Raises:
        RuntimeError: If runs failed, with their errors; the next command tries them again.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    pool = process_pool(workers or cores(), ["benchmarks.estimators"])
    label = f"{len(configs)} runs"
    run_all(function, configs, options.record, pool, retry_failed=True, label=label)
    found = {row["run"]: row for row in load(options.record)}
    rows = [found[identity(config)] for config in configs]
    if errors := {row["error"] for row in rows if row["status"] == "failed"}:
        raise RuntimeError(f"some runs failed: {'; '.join(sorted(errors))}")
    return rows


def command(
    make: Callable[[Options], Tables],
    packages: Sequence[str],
    quick: str,
    arguments: list[str] | None = None,
    options: Mapping[str, dict] | None = None,
) -> int:
    """Run a benchmark from the command line; print its report and write it as Markdown and CSV.

    A quick run writes files of its own. What `runs` has measured goes when all is written, so that
    the next run begins anew.

    Args:
        make: From the options to tables. Its file names the benchmark and its
            docstring is the description. One row a fit, which it may leave in `options.fits`, has
            a file of its own.
        packages: Distributions it needs; the report names their versions.
        quick: What `--quick` leaves out.
        arguments: Of the command line; None for the process's own.
        options: Further ones, as `argparse` takes them.
    """
    name = Path(make.__code__.co_filename).stem
    parser = parser_of(f"benchmarks.{name}", make)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--threads", type=int, default=1,
                        help="of torch and jax; default: one, as in the notebooks")  # fmt: skip
    for flag, what in (options or {}).items():
        parser.add_argument(flag, **what)
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, not {options.threads}")
    torch.set_num_threads(options.threads)
    os.environ["NPROC"] = str(options.threads)  # read by jax when it computes first
    keep_freed_memory()  # as in training; all contenders are in this process
    try:
        options.machine = machine(packages)
    except PackageNotFoundError as error:
        how = "run `make bench`, or pip install --group bench"
        parser.error(f"the package {error.name!r} is missing: {how}")
    name += "_quick" * options.quick
    options.record = FOLDER / f"{name}.jsonl"
    start = time.perf_counter()
    tables = make(options)
    took = f"This run took {time.perf_counter() - start:.0f} s."
    text = page(name, [*options.machine, took, RULES], tables)
    print(text)
    rows = [{"table": caption} | row for caption, of in tables.items() for row in of]
    write_csv(FOLDER / f"{name}.csv", rows)
    if raw := getattr(options, "fits", None):
        write_csv(FOLDER / f"{name}_fits.csv", raw)
    (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
    options.record.unlink(missing_ok=True)
    return 0


def machine(packages: Sequence[str]) -> list[str]:
    """Lines on the machine, the software and the day; nothing that names a user or a folder."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    load = f"; load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return [
        f"Machine: {processor}, {cores()} cores, {platform.system()}; "
        f"torch uses {torch.get_num_threads()} threads{load}",
        f"Software: Python {platform.python_version()}, {versions}",
        f"Date: {date.today().isoformat()}",
    ]


def markdown_table(rows: Sequence[Row]) -> str:
    """A Markdown table that is aligned as plain text too; rows may lack columns of others.

    Numbers stand right and text left, as in the first row; floats get three digits.
    """
    columns = []
    for name in dict.fromkeys(name for row in rows for name in row):
        cells = [name, *(short(row.get(name, "–")) for row in rows)]
        width = max(3, *map(len, cells))
        if isinstance(rows[0].get(name), str):
            cells.insert(1, "-" * width)
            columns.append([cell.ljust(width) for cell in cells])
        else:
            cells.insert(1, "-" * (width - 1) + ":")
            columns.append([cell.rjust(width) for cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def short(value: str | int | float) -> str:
    """A value as tables show it: three digits of a float, commas in what is large, or a dash."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "–"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def page(title: str, lines: Sequence[str], tables: Tables) -> str:
    """Markdown: a title, paragraphs, and tables under their captions."""
    parts = [f"# {title}", *lines]
    for caption, rows in tables.items():
        parts += [f"## {caption}", markdown_table(rows)]
    return "\n\n".join(parts) + "\n"


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, numbers unrounded; a row may lack columns of another. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, dtype=object).to_csv(path, index=False, lineterminator="\n")
