"""Seconds of the notebooks, whole and cell by cell, beside the same notebooks of another commit.

Both stand in temporary copies, each with the package that belongs to it, and are executed in turns
in the same Python environment. `python -m benchmarks.notebook_times --help` lists the options.
"""

import ast
import asyncio
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm

from benchmarks.common import Row, Tables, header, page, write_csv

PACKAGES = ("torch", "numpy", "scipy", "nbclient")
SIDES = ("before", "after")
SLOWEST = 10
WIDTH = 60  # of a line of code in a table
WHOLE = 0  # in place of a cell's number: the notebook, from the start of its kernel to its end
PAGE = Path("docs/notebook-times.md")
RAW = Path("benchmarks/results/notebook_times.csv")


def git(*arguments: str, folder: Path) -> bytes:
    """What a git command prints.

    Raises:
        ValueError: If it fails, with its message.
    """
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise ValueError(f"git {' '.join(arguments)}: {message}")
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


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that are executed, in their order: `In [n]` is the n-th."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def execute(
    path: Path, tree: Path, after_each: Callable[[], object], timeout: float = 1800
) -> tuple[NotebookNode, float, str]:
    """Run a notebook whole in a fresh kernel, with the package of its tree; no error ends it.

    Args:
        path: Of the notebook; it is not written to, what it writes itself lies beside it.
        tree: Its project, the only folder in PYTHONPATH.
        after_each: Called after each cell.
        timeout: Seconds allowed for one cell.

    Returns:
        The notebook with outputs, and the times of the kernel's messages in each cell's metadata;
        seconds with the kernel's start and end; and what ended it early, "" for its last cell.

    Raises:
        KeyboardInterrupt: On Ctrl-C; the kernel is shut down.
    """
    notebook, interrupted = nbformat.read(path, as_version=4), []

    def listen(**_: object) -> None:
        """Shut down in order on Ctrl-C; nbclient's own handler leaves a cell waiting."""
        task = asyncio.current_task()
        stop = lambda: (interrupted.append(True), task.cancel())
        with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows; not the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=True,
        allow_errors=True,
        extra_arguments=["--log-level=ERROR"],
        on_notebook_start=listen,
        on_cell_executed=lambda **_: after_each(),
    )
    start, ended = time.perf_counter(), ""
    try:
        asyncio.run(client.async_execute(env=os.environ | {"PYTHONPATH": str(tree)}))
    except (DeadKernelError, CellTimeoutError, asyncio.CancelledError) as error:
        ended = type(error).__name__
    if interrupted:
        raise KeyboardInterrupt
    return notebook, time.perf_counter() - start, ended


def cell_rows(notebook: NotebookNode) -> Iterator[Row]:
    """Number, first line, seconds and error ("" for none) of each cell that was executed."""
    for number, cell in enumerate(code_cells(notebook), start=1):
        times = cell.metadata.get("execution", {})
        if "shell.execute_reply" in times:
            start, end = (
                datetime.fromisoformat(times[key])
                for key in ("iopub.execute_input", "shell.execute_reply")
            )
            meant = "raises-exception" in cell.metadata.get("tags", [])
            errors = [o.ename for o in cell.outputs if o.output_type == "error" and not meant]
            yield {
                "cell": number,
                "code": first_line(cell.source),
                "seconds": (end - start).total_seconds(),
                "error": "".join(errors[:1]),
            }


def first_line(source: str) -> str:
    """The first line of code that is not an import, else the first of all; cut to `WIDTH`."""
    lines = source.strip().splitlines()
    code = TransformerManager().transform_cell(source.strip())  # magics, line by line
    try:
        statements = ast.parse(code).body
    except SyntaxError:
        statements = []
    others = [s for s in statements if not isinstance(s, ast.Import | ast.ImportFrom)]
    line = lines[others[0].lineno - 1] if others else lines[0]
    line = line.strip()
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def measure(trees: dict[str, Path], names: Sequence[str], rounds: int, rows: list[Row]) -> None:
    """Execute the notebooks in turns, before and after.

    Args:
        trees: The folders by side.
        names: Of the notebooks, paths in those folders; one that a side lacks is left out there.
        rounds: How often each is executed.
        rows: Added to as each execution ends, a row for the whole and one a cell.
    """
    runs = [
        (number, name, side)
        for number in range(1, rounds + 1)
        for name in names
        for side in SIDES
        if (trees[side] / name).exists()
    ]
    read = lambda name, side: nbformat.read(trees[side] / name, as_version=4)
    total = sum(len(code_cells(read(name, side))) for _, name, side in runs)
    with tqdm(total=total, unit="cell", file=sys.stdout, smoothing=0) as bar:
        for number, name, side in runs:
            bar.set_description(f"round {number} of {rounds}, {name} {side}")
            path = trees[side] / name
            notebook, seconds, ended = execute(path, trees[side], bar.update)
            whole = {"cell": WHOLE, "code": "", "seconds": seconds, "error": ended}
            run = {"notebook": name, "version": side, "round": number}
            rows += [run | row for row in (whole, *cell_rows(notebook))]


def of(rows: Sequence[Row], name: str, side: str) -> list[Row]:
    """One notebook's rows: a row a cell, the whole first, with the median seconds of its rounds."""
    cells: dict[int, list[Row]] = {}
    for row in rows:
        if (row["notebook"], row["version"]) == (name, side):
            cells.setdefault(row["cell"], []).append(row)
    return [_median(found) for found in cells.values()]


def _median(found: Sequence[Row]) -> Row:
    """One row for those of a cell: its median seconds, and its error if it ever had one."""
    errors = [row["error"] for row in found if row["error"]]
    seconds = median(row["seconds"] for row in found)
    return found[-1] | {"seconds": seconds, "error": "".join(errors[:1]), "rounds": len(found)}


def results(rows: Sequence[Row]) -> tuple[list[str], Tables]:
    """Sentences on what failed; tables of whole notebooks and of the slowest cells of each."""
    whole, slowest, failures = [], {}, []
    for name in dict.fromkeys(row["notebook"] for row in rows):
        line: Row = {"notebook": name}
        for side in SIDES:
            if found := of(rows, name, side):
                line |= {f"{side}, s": found[0]["seconds"], f"rounds {side}": found[0]["rounds"]}
                cells = [row for row in found if row["cell"] != WHOLE]
                slowest[f"{name} {side}: the slowest cells"] = _table(cells)
                failures += _failures(f"{name} {side}", found[0], cells)
        if all(f"{side}, s" in line for side in SIDES):
            line["after / before"] = line["after, s"] / line["before, s"]
        whole.append(line)
    columns = (
        "notebook",
        "before, s",
        "after, s",
        "after / before",
        *(f"rounds {s}" for s in SIDES),
    )
    whole = [{column: line.get(column, "–") for column in columns} for line in whole]
    tables = {"Whole notebooks": whole} | slowest
    return failures, {caption: table for caption, table in tables.items() if table}


def _table(cells: Sequence[Row]) -> list[Row]:
    """The slowest cells, the slowest first."""
    ranked = sorted(cells, key=lambda row: -row["seconds"])[:SLOWEST]
    return [
        {"cell": row["cell"], "code": _code(row["code"]), "s": row["seconds"]} for row in ranked
    ]


def _code(line: str) -> str:
    """Code in a cell of a Markdown table."""
    return "`" + line.replace("`", "'").replace("|", r"\|") + "`"


def _failures(which: str, whole: Row, cells: Sequence[Row]) -> list[str]:
    """At most one sentence on what did not run."""
    said = [f"cell {row['cell']} failed ({row['error']})" for row in cells if row["error"]]
    if whole["error"]:
        said.append(f"it ended before its last cell ({whole['error']})")
    return [f"**{which}:** {', '.join(said)}; the times are of what ran."] if said else []


def report(rows: Sequence[Row], commits: dict[str, str], machine: Sequence[str]) -> str:
    """The page, as Markdown; see `header` for the lines on the machine."""
    failures, tables = results(rows)
    lines = [
        "Each notebook whole, in a fresh kernel, before and after in turns on one machine and in "
        "one Python environment: medians over the rounds. A notebook's seconds have the start of "
        "its kernel in them; a cell's are from when the kernel takes it up to its reply. A cell's "
        f"number is that of `In [n]`; all cells of all rounds are in `{RAW.as_posix()}`, where "
        f"cell {WHOLE} is the whole.",
        f"Before: commit {commits['before']}. After: commit {commits['after']}; “dirty” is one "
        "with changes since.",
        *machine,
        f"OMP_NUM_THREADS: {os.environ.get('OMP_NUM_THREADS', 'not set')}",
        *failures,
    ]
    return page("Times of the notebooks", lines, tables)


def main(arguments: list[str] | None = None) -> int:
    """Time whole notebooks and their cells beside those of another commit, in turns."""
    parser = ArgumentParser(prog="python -m benchmarks.notebook_times", description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK",
                        help="paths in the repository; default: all in its top folder")  # fmt: skip
    parser.add_argument("--against", required=True, metavar="COMMIT", help="the one before")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    rows: list[Row] = []
    machine, stopped = header(PACKAGES), False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            root = Path(os.fsdecode(git("rev-parse", "--show-toplevel", folder=Path())).strip())
            commits = _commits(options.against, root)
            trees = {
                "before": committed(options.against, root, Path(folder) / "before"),
                "after": working_tree(root, Path(folder) / "after"),
            }
            names = _known(options.notebooks, root, trees)
        except ValueError as error:
            parser.error(str(error))
        try:
            measure(trees, names, options.rounds, rows)
        except KeyboardInterrupt:
            stopped = True
    text = report(rows, commits, machine)
    print(text)
    if stopped:
        print("stopped: these are the times so far; no file is written", file=sys.stderr)
        return 130
    (root / PAGE).parent.mkdir(parents=True, exist_ok=True)
    (root / PAGE).write_text(text, encoding="utf-8")
    write_csv(root / RAW, rows)
    return 0


def _commits(against: str, root: Path) -> dict[str, str]:
    """Short names of what is before and after."""
    before = git("rev-parse", "--short", f"{against}^{{commit}}", folder=root)
    after = git("describe", "--always", "--dirty", "--exclude=*", folder=root)
    return {"before": before.decode().strip(), "after": after.decode().strip()}


def _known(names: Sequence[str], root: Path, trees: dict[str, Path]) -> list[str]:
    """The notebooks of these names, by default all in the top folder.

    Raises:
        ValueError: If there are none, or one is in neither tree.
    """
    names = list(names) or sorted(path.name for path in root.glob("*.ipynb"))
    if not names:
        raise ValueError("there is no notebook in the top folder: name some")
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"a notebook is a path in the repository, not {name!r}")
        if not any((tree / name).is_file() for tree in trees.values()):
            raise ValueError(f"neither the working tree nor the commit has a notebook {name!r}")
    return names


if __name__ == "__main__":
    sys.exit(main())
