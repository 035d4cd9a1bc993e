"""Notebooks as programs: execute them all, and say what became of them.

`python -m dlutils.tools.notebooks` executes every notebook into build/, exports HTML and says which
sentences do not hold for what was computed; with `--in-place` it refreshes the outputs of the
committed notebooks. A cell that fails stops neither the cells after it nor the other notebooks.
"""

import argparse
import ast
import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from dlutils.notebook import read_cells, targets
from dlutils.tools.claims import checking
from dlutils.tools.commands import parser_of_notebooks

if TYPE_CHECKING:  # slow to import
    from nbclient import NotebookClient
    from nbformat import NotebookNode


def execute(
    path: Path, timeout: float = 1800, *, timing: bool = False, allow_errors: bool = False
) -> tuple["NotebookNode", float]:
    """Run a notebook whole, in its own folder, with a progress bar over its cells.

    Args:
        path: A notebook file; it is not written to.
        timeout: Seconds allowed for one cell.
        timing: Whether each cell's metadata say when it began and ended (nbclient's
            `record_timing`).
        allow_errors: Whether the cells after one that fails are executed too; see `failures`.

    Returns:
        The executed notebook and the seconds it took.

    Raises:
        CellExecutionError: If a cell fails and errors are not allowed.
        CellTimeoutError: If a cell takes too long.
        DeadKernelError: If the kernel dies.
        KeyboardInterrupt: If the user interrupts. As of the other errors, `error.notebook` is the
            notebook up to there.
    """
    import nbformat
    from nbclient import NotebookClient

    read_cells(path)  # its errors say what is wrong
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of an earlier run
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    total = sum(cell.cell_type == "code" for cell in notebook.cells)
    start = time.perf_counter()
    with tqdm(total=total, desc=path.name, unit="cell", file=sys.stdout) as bar:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            record_timing=timing,
            coalesce_streams=True,
            allow_errors=allow_errors,
            extra_arguments=["--log-level=ERROR"],
            on_cell_complete=lambda cell, cell_index: bar.update(cell.cell_type == "code"),
        )
        number = lambda cell, cell_index: cell.update(
            execution_count=client.code_cells_executed + 1
        )
        client.on_cell_execute = number  # of one that never ends, too
        try:
            _until_interrupted(client)
        except BaseException as error:
            error.notebook = notebook
            raise
        finally:
            notebook.metadata = {
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python"},
            }
    return notebook, time.perf_counter() - start


def _until_interrupted(client: "NotebookClient") -> None:
    """Execute a notebook; Ctrl-C raises a `KeyboardInterrupt`, for nbclient a kernel that died."""
    interrupted = []

    def listen(notebook: "NotebookNode") -> None:
        task = asyncio.current_task()

        def stop() -> None:
            interrupted.append(True)
            client.shutdown_kernel = "immediate"
            task.cancel()

        # not on Windows, nor in another thread: there Python raises the interrupt by itself
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)

    client.on_notebook_start = listen
    try:
        client.execute()
    except BaseException as error:
        if interrupted:
            raise KeyboardInterrupt from error
        raise


def failures(notebook: "NotebookNode") -> list[str]:
    """The cells of an executed notebook that failed, one line each: "In [12]: ValueError: ..."."""
    return [
        f"In [{cell.execution_count}]: {output.ename}: {_first_line(output.evalue)}"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
        and "raises-exception" not in cell.metadata.get("tags", [])  # where it is meant
    ]


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def changed_settings(path: Path) -> dict[str, str]:
    """The settings in which a notebook differs from the one that is committed, as Python code.

    The settings are what the cell tagged `parameters` assigns. Where there is no git, or it does
    not know the file, nothing has changed.
    """
    committed, here = _settings(_committed(path)), _settings(path.read_text(encoding="utf-8"))
    if committed is None or here is None:
        return {}
    names = [*here, *(name for name in committed if name not in here)]
    now = {name: here.get(name, "(missing)") for name in names}
    return {name: value for name, value in now.items() if committed.get(name) != value}


def _committed(path: Path) -> str | None:
    """The text of a file as of the last commit; None where nobody knows."""
    command = ["git", "show", f"HEAD:./{path.name}"]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode("utf-8")


def _settings(text: str | None) -> dict[str, str] | None:
    """What a notebook's configuration cell assigns, as code; None if it has none, or is wrong."""
    try:
        cells = json.loads(text or "")["cells"]
        tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
        tree = ast.parse("\n".join("".join(cell["source"]) for cell in tagged))
    except (ValueError, KeyError, TypeError, SyntaxError):
        return None
    return {
        target.id: ast.unparse(node.value)
        for node in tree.body
        for target in targets(node)
        if isinstance(target, ast.Name) and node.value is not None
    }


def summary(notebook: "NotebookNode") -> dict[str, str]:
    """The `name value` lines that the cells tagged `summary` printed."""
    text = "".join(
        output.text
        for cell in notebook.cells
        if "summary" in cell.metadata.get("tags", [])
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    )
    return dict(re.findall(r"^(\S.*?)\s+([-+]?\d+\.\d+)\b", text, flags=re.MULTILINE))


@dataclass(frozen=True)
class Run:
    """What became of a notebook: its `summary` and its `failures`."""

    path: Path
    seconds: float
    summary: dict[str, str]
    failures: list[str]


def main(arguments: list[str] | None = None) -> int:
    """Execute notebooks and print a table: notebook, seconds, final and expected log-likelihood.

    Then which cells failed, which settings were changed, and which sentences do not hold.
    """
    parser = parser_of_notebooks("notebooks", main)
    parser.add_argument("--in-place", action="store_true", help="overwrite the notebooks' outputs")
    parser.add_argument("--output", type=Path, default=Path("build"), help="default: %(default)s")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds allowed for a cell")
    options = parser.parse_args(arguments)
    paths = options.notebooks
    if not paths:
        parser.error("there is no notebook in this folder")
    try:
        for path in paths:
            read_cells(path)
    except ValueError as error:
        parser.error(str(error))
    try:
        runs = [_run(path, options) for path in paths]
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 130
    _print_table(runs)
    for run in runs:
        for failure in run.failures:
            print(f"{run.path.name}, {failure}", file=sys.stderr)
    unchanged = [run.path for run in runs if not _names_changes(run.path) and not run.failures]
    _print_claims(unchanged)
    return int(any(run.failures for run in runs))


def _run(path: Path, options: argparse.Namespace) -> Run:
    """Execute a notebook and write it, also one that fails or is interrupted."""
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    start = time.perf_counter()
    try:
        notebook, _ = execute(path, options.timeout, allow_errors=True)
        failed = failures(notebook)
    except KeyboardInterrupt as interrupt:
        target = _write(interrupt.notebook, path, options, whole=False)
        print(f"\nWhat was executed of {path.name} is in {target}", file=sys.stderr)
        raise
    except (CellTimeoutError, DeadKernelError) as error:
        notebook = error.notebook
        stop = f"{type(error).__name__}: {_first_line(str(error))}; the cells after it were not run"
        last = f"In [{_last(notebook)}]: "
        earlier = [line for line in failures(notebook) if not line.startswith(last)]
        failed = [*earlier, last + stop]
    seconds = time.perf_counter() - start
    target = _write(notebook, path, options, whole=not failed)
    if failed and options.in_place:
        print(f"{path.name} is left as it was; with its errors it is in {target}", file=sys.stderr)
    return Run(path, seconds, summary(notebook), failed)


def _last(notebook: "NotebookNode") -> int:
    """The number of the cell that was begun last."""
    counts = [cell.execution_count or 1 for cell in notebook.cells if cell.cell_type == "code"]
    return max(counts, default=1)


def _write(
    notebook: "NotebookNode", path: Path, options: argparse.Namespace, *, whole: bool
) -> Path:
    """Write an executed notebook: in place if it is whole, else beside its page; return where."""
    import nbformat

    from dlutils.tools.publish import page  # slow to import

    if options.in_place and whole:
        nbformat.write(notebook, path)
        return path
    target = options.output / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
    try:
        text = page(notebook, path.parent, path.stem)
        target.with_suffix(".html").write_text(text, encoding="utf-8")
    except ValueError as error:  # a formula that cannot be drawn costs the page, not the run
        print(f"There is no page of {path.name}: {error}", file=sys.stderr)
    return target


def _print_table(runs: list[Run]) -> None:
    header = ("notebook", "seconds", "final log-likelihood", "expected log-likelihood")
    rows = [
        (run.path.name, f"{run.seconds:.0f}", *(run.summary.get(name, "-") for name in header[2:]))
        for run in runs
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _names_changes(path: Path) -> bool:
    """Print which settings were changed; whether sentences about the notebook lapse with them."""
    changes = changed_settings(path)
    if not changes:
        return False
    lapse = changes.keys() != {"SEED"}
    words = ", ".join(f"{name} = {value}" for name, value in changes.items())
    so = (
        "The answers are about the settings as they come."
        if lapse
        else "The answers are to hold all the same."
    )
    print(f"Changed in {path.name}: {words}. {so}")
    return lapse


def _print_claims(paths: list[Path]) -> None:
    """Print which sentences about notebooks do not hold, by the claims and tables beside them."""
    held, wrong = 0, []
    for folder in dict.fromkeys(path.parent for path in paths):
        if not (folder / checking.CLAIMS).exists():  # not in a hand-out
            continue
        names = [path.stem for path in paths if path.parent == folder]
        try:
            about = checking.about(checking.load(folder / checking.CLAIMS)[0], names)
        except ValueError as error:
            print(f"The sentences are not checked: {error}")
            continue
        wrong += checking.messages(checking.check(about, folder / checking.FIGURES))
        held += len(about)
    if held:
        print("\n".join(wrong) or f"All {held} sentences hold here.")


if __name__ == "__main__":
    sys.exit(main())
