"""What every benchmark needs: a command line, runs side by side, timing, tables, a page."""

import argparse
import csv
import datetime
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dlutils.data.datasets import Dataset
from dlutils.estimators.yardsticks import LogDensity
from dlutils.evaluation import compare
from dlutils.processes import cores, keep_freed_memory
from dlutils.tools.sweep.jobs import identity, process_pool, run_all
from dlutils.tools.sweep.results import load

FOLDER = Path("build/benchmarks")  # of the reports
RULES = "What was measured and how to read it: docs/benchmarks-tables.md, and the pages it names."
Row = dict[str, str | int | float]
Tables = dict[str, list[Row]]


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
        curve: Seconds, KL (infinite where the density is none, as where a flow's steps fold the
            line) and iteration of each call.
        compilation: Seconds that the contender spent on it before it started the clock.
    """

    def __init__(
        self,
        dataset: Dataset,
        enough: float = 0.0,
        most: float = math.inf,
        *,
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
        try:
            kl = compare(self.dataset, log_density, 2001).normalized_kl
        except ValueError:
            kl = math.inf
        self.curve.append((now - self.start, kl, iteration))
        self.start += self.clock() - now
        if kl <= self.enough or self.curve[-1][0] > self.most:
            raise Enough

    def reached(self, level: float) -> tuple[float, int] | None:
        """Seconds and iterations until the KL is below the level; None if it never is."""
        return next(((seconds, n) for seconds, kl, n in self.curve if kl <= level), None)


def runs(
    function: Callable[[Mapping[str, object]], Row],
    configs: Sequence[Mapping[str, object]],
    options: argparse.Namespace,
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
    make: Callable[[argparse.Namespace], Tables],
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
            docstring is the description.
        packages: Distributions it needs; the header names their versions.
        quick: What `--quick` leaves out.
        arguments: Of the command line; None for the process's own.
        options: Further ones, as `argparse` takes them.
    """
    name = Path(make.__code__.co_filename).stem
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=make.__doc__)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--threads", type=int, default=1,
                        help="of torch and jax; default: one, as in the notebooks")  # fmt: skip
    for flag, what in (options or {}).items():
        parser.add_argument(flag, **what)
    options = parser.parse_args(arguments)
    for package in packages:
        try:
            version(package)
        except PackageNotFoundError:
            parser.error(
                f"the package {package!r} is missing: run `make bench`, "
                "or pip install --group bench"
            )
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, not {options.threads}")
    torch.set_num_threads(options.threads)
    os.environ["NPROC"] = str(options.threads)  # read by jax when it computes first
    keep_freed_memory()  # as in training; all contenders are in this process
    name += "_quick" * options.quick
    options.record = FOLDER / f"{name}.jsonl"
    options.machine, start = header(packages), time.perf_counter()
    tables = make(options)
    took = f"This run took {time.perf_counter() - start:.0f} s."
    print(write_report(FOLDER, name, [*options.machine, took, RULES], tables))
    options.record.unlink(missing_ok=True)
    return 0


def header(packages: Sequence[str]) -> list[str]:
    """Lines on the machine, the software and the day; nothing that names a user or a folder."""
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    load = f"; load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return [
        f"Machine: {_processor()}, {cores()} cores, {platform.system()}; "
        f"torch uses {torch.get_num_threads()} threads{load}",
        f"Software: Python {platform.python_version()}, {versions}",
        f"Date: {datetime.date.today().isoformat()}",
    ]


def markdown_table(rows: Sequence[Row]) -> str:
    """A Markdown table, aligned in plain text too; numbers stand right and floats get 3 digits."""
    names = _columns(rows)
    cells = [names, *([short(row.get(name, "–")) for name in names] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    left = [isinstance(rows[0].get(name), str) for name in names]
    rules = [
        "-" * w if is_left else "-" * (w - 1) + ":" for w, is_left in zip(widths, left, strict=True)
    ]
    cells.insert(1, rules)
    lines = (
        (cell.ljust(w) if is_left else cell.rjust(w) for cell, w, is_left in zip(*z, strict=True))
        for z in ((line, widths, left) for line in cells)
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_report(folder: Path, name: str, lines: Sequence[str], tables: Tables) -> str:
    """Write name.md and name.csv (all tables, numbers unrounded) to a folder; return the Markdown.

    Args:
        folder: Made if it is not there.
        name: Of the files, without ending; also the title.
        lines: Paragraphs before the tables.
        tables: Rows by caption.
    """
    text = page(name, lines, tables)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    flat = [{"table": caption} | row for caption, rows in tables.items() for row in rows]
    write_csv(folder / f"{name}.csv", flat)
    return text


def page(title: str, lines: Sequence[str], tables: Tables) -> str:
    """Markdown: a title, paragraphs, and tables under their captions."""
    parts = [f"# {title}", *lines]
    for caption, rows in tables.items():
        parts += [f"## {caption}", markdown_table(rows)]
    return "\n\n".join(parts) + "\n"


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, numbers unrounded; a row may lack columns of another. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _columns(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def short(value: str | int | float) -> str:
    """A value as tables show it: three digits of a float, commas in what is large."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _processor() -> str:
    """The name of the processor, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
