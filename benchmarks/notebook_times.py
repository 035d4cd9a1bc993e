"""Seconds of the notebooks, whole and cell by cell, beside the same notebooks of another commit.

Both stand in temporary copies, each with the package that belongs to it, and are executed in turns
in the same Python environment. A cell that fails ends it: nothing is written then.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import product
from pathlib import Path

import pandas as pd
from nbformat import NotebookNode

from benchmarks.common import Options, Row, Tables, command, page, write_csv
from dlutils.tools.notebooks import execute

PACKAGES = ("torch", "numpy", "scipy", "nbclient")
SLOWEST = 10
WIDTH = 60  # of a line of code in a table
WHOLE = 0  # in place of a cell's number: the notebook, from the start of its kernel to its end
PAGE = Path("docs/notebook-times.md")
RAW = Path("benchmarks/results/notebook_times.csv")


def git(*arguments: str, folder: Path) -> bytes:
    """What a git command prints; one that fails ends the program with its message."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def committed(commit: str, root: Path, folder: Path) -> Path:
    """Write the files of a commit to a folder."""
    archive = git("archive", "--format=tar", commit, folder=root)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def working_tree(root: Path, folder: Path) -> Path:
    """Copy the files as they are now, but for those that git ignores, to a folder."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=root)
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (root / name).is_file():  # else deleted, or a repository of its own
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    return folder


def cell_rows(notebook: NotebookNode) -> Iterator[Row]:
    """Number, first line and seconds of each cell that was executed."""
    for cell in notebook.cells:
        times = cell.metadata.get("execution", {})
        if "shell.execute_reply" in times:
            start, end = (
                datetime.fromisoformat(times[key])
                for key in ("iopub.execute_input", "shell.execute_reply")
            )
            seconds = (end - start).total_seconds()
            code = first_line(cell.source)
            yield {"cell": cell.execution_count, "code": code, "seconds": seconds}


def first_line(source: str) -> str:
    """The first line of code that is not an import, else the first of all; cut to `WIDTH`."""
    lines = source.strip().splitlines()
    within = re.compile(r"import |from |#|@|\s|\)|$")  # or goes on from the line before
    line = next((line for line in lines if not within.match(line)), lines[0]).strip()
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def measure(trees: dict[str, Path], rounds: int) -> list[Row]:
    """Execute the notebooks of the top folders in turns, before and after.

    Args:
        trees: The folders by side; a notebook that one lacks is left out there.
        rounds: How often each is executed.

    Returns:
        For each execution a row for the whole and one a cell.
    """
    names = sorted({path.name for tree in trees.values() for path in tree.glob("*.ipynb")})
    rows: list[Row] = []
    for number, name, side in product(range(1, rounds + 1), names, trees):
        path = trees[side] / name
        if path.exists():
            print(f"round {number} of {rounds}, {side}:")
            os.environ["PYTHONPATH"] = str(trees[side])
            notebook, seconds = execute(path, timing=True)
            run = {"notebook": name, "version": side, "round": number}
            whole = {"cell": WHOLE, "code": "", "seconds": seconds}
            rows += [run | row for row in (whole, *cell_rows(notebook))]
    return rows


def results(rows: Sequence[Row]) -> Tables:
    """Medians over the rounds: of whole notebooks, and of the slowest cells of each."""
    by = pd.DataFrame(rows).groupby(["notebook", "version", "cell"], sort=False)
    found = by.agg(
        code=("code", "last"), seconds=("seconds", "median"), rounds=("round", "nunique")
    )
    whole, slowest = [], {}
    for name in found.index.unique("notebook"):
        sides = found.loc[name].xs(WHOLE, level="cell").reindex(["before", "after"])
        (before, after), rounds = sides.seconds, sides.rounds
        line = {"notebook": name, "before, s": before, "after, s": after}
        line |= {"after / before": after / before}
        whole.append(line | {f"rounds {side}": rounds[side] for side in rounds.index})
        for side in rounds.dropna().index:
            cells = found.loc[name, side].drop(WHOLE).nlargest(SLOWEST, "seconds")
            slowest[f"{name} {side}: the slowest cells"] = [
                {"cell": cell.Index, "code": in_table(cell.code), "s": cell.seconds}
                for cell in cells.itertuples()
            ]
    return {"Whole notebooks": whole} | slowest


def in_table(line: str) -> str:
    """Code in a cell of a Markdown table."""
    return "`" + line.replace("`", "'").replace("|", r"\|") + "`"


def make(options: Options) -> Tables:
    """Time whole notebooks and their cells beside those of another commit, in turns."""
    words = lambda *arguments: os.fsdecode(git(*arguments, folder=Path())).strip()
    root = Path(words("rev-parse", "--show-toplevel"))
    before = words("rev-parse", "--short", f"{options.against}^{{commit}}")
    after = words("describe", "--always", "--dirty", "--exclude=*")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trees = {
            "before": committed(options.against, root, Path(folder) / "before"),
            "after": working_tree(root, Path(folder) / "after"),
        }
        rows = measure(trees, 1 if options.quick else 3)
    tables = results(rows)
    lines = [
        "Each notebook whole, in a fresh kernel, before and after in turns on one machine and in "
        "one Python environment: medians over the rounds. A notebook's seconds have the start of "
        "its kernel in them; a cell's are from when the kernel takes it up to its reply. A cell's "
        f"number is that of `In [n]`; all cells of all rounds are in `{RAW.as_posix()}`, where "
        f"cell {WHOLE} is the whole.",
        f"Before: commit {before}. After: commit {after}; “dirty” is one with changes since.",
        f"OMP_NUM_THREADS: {os.environ.get('OMP_NUM_THREADS', 'not set')}",
    ]
    write_csv(root / RAW, rows)
    text = page("Times of the notebooks", [*lines, *options.machine], tables)
    (root / PAGE).parent.mkdir(parents=True, exist_ok=True)
    (root / PAGE).write_text(text, encoding="utf-8")
    return tables


if __name__ == "__main__":
    against = {"--against": {"required": True, "metavar": "COMMIT", "help": "the one before"}}
    quick = "one round in place of three"
    raise SystemExit(command(make, PACKAGES, quick, options=against))
