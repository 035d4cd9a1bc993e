"""Seconds of the notebooks, whole and cell by cell, beside the same notebooks of another commit.

Both stand in temporary copies, each with the package that belongs to it, and are executed in turns
in the same Python environment. A cell that fails ends it: nothing is written then.
"""

import argparse
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
from pathlib import Path

import pandas as pd
from nbformat import NotebookNode

from benchmarks.common import Row, Tables, command, page, write_csv
from dlutils.tools.notebooks import execute

PACKAGES = ("torch", "numpy", "scipy", "nbclient")
SIDES = ("before", "after")
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
            yield {
                "cell": cell.execution_count,
                "code": first_line(cell.source),
                "seconds": (end - start).total_seconds(),
            }


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
    for number in range(1, rounds + 1):
        for name in names:
            for side, tree in trees.items():
                if (tree / name).exists():
                    print(f"round {number} of {rounds}, {side}:")
                    os.environ["PYTHONPATH"] = str(tree)
                    notebook, seconds = execute(tree / name, timing=True)
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
    for name in dict.fromkeys(row["notebook"] for row in rows):
        seconds: Row = dict.fromkeys(SIDES, "–")
        rounds: Row = dict.fromkeys(SIDES, "–")
        for side in SIDES:
            if (name, side, WHOLE) in found.index:
                seconds[side] = float(found.seconds[name, side, WHOLE])
                rounds[side] = int(found.rounds[name, side, WHOLE])
                cells = found.loc[name, side].drop(WHOLE).nlargest(SLOWEST, "seconds")
                slowest[f"{name} {side}: the slowest cells"] = [
                    {"cell": int(number), "code": in_table(cell.code), "s": float(cell.seconds)}
                    for number, cell in cells.iterrows()
                ]
        ratio = seconds["after"] / seconds["before"] if "–" not in seconds.values() else "–"
        line: Row = {"notebook": name} | {f"{side}, s": seconds[side] for side in SIDES}
        whole.append(
            line | {"after / before": ratio} | {f"rounds {side}": rounds[side] for side in SIDES}
        )
    return {"Whole notebooks": whole} | slowest


def in_table(line: str) -> str:
    """Code in a cell of a Markdown table."""
    return "`" + line.replace("`", "'").replace("|", r"\|") + "`"


def make(options: argparse.Namespace) -> Tables:
    """Time whole notebooks and their cells beside those of another commit, in turns."""
    top = git("rev-parse", "--show-toplevel", folder=Path())
    root = Path(os.fsdecode(top).strip())
    before = git("rev-parse", "--short", f"{options.against}^{{commit}}", folder=root)
    after = git("describe", "--always", "--dirty", "--exclude=*", folder=root)
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
        f"Before: commit {before.decode().strip()}. After: commit {after.decode().strip()}; "
        "“dirty” is one with changes since.",
        f"OMP_NUM_THREADS: {os.environ.get('OMP_NUM_THREADS', 'not set')}",
    ]
    text = page("Times of the notebooks", [*lines, *options.machine], tables)
    (root / PAGE).parent.mkdir(parents=True, exist_ok=True)
    (root / PAGE).write_text(text, encoding="utf-8")
    write_csv(root / RAW, rows)
    return tables


if __name__ == "__main__":
    against = {"required": True, "metavar": "COMMIT", "help": "the one before"}
    sys.exit(command(make, PACKAGES, "one round in place of three", options={"--against": against}))
