"""Notebooks as programs: execute them all, and say what became of them.

`python -m dlutils.tools.notebooks` executes every notebook into build/, exports HTML and says which
sentences do not hold for what was computed; with `--in-place` it refreshes the outputs of the
committed notebooks. A cell that fails stops neither the cells after it nor the other notebooks.
"""

import ast
import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import pandas as pd
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm

from dlutils.notebook import read_cells, targets
from dlutils.tools.claims import checking
from dlutils.tools.commands import parse, parser_of_notebooks, told
from dlutils.tools.publish import page

VALUES = ("final log-likelihood", "expected log-likelihood")  # of a summary, in the table


def execute(
    path: Path, timeout: float = 1800, *, timing: bool = False, allow_errors: bool = False
) -> tuple[NotebookNode, float]:
    """Run a notebook whole, in its own folder, with a progress bar over its cells.

    Args:
        path: A notebook file; it is not written to.
        timeout: Seconds allowed for one cell.
        timing: Whether each cell's metadata say when it began and ended (nbclient's
            `record_timing`).
        allow_errors: Whether the cells after one that fails are executed too. A cell that takes
            too long, or whose kernel dies, is then the last; see `failures`.

    Returns:
        The executed notebook and the seconds it took.

    Raises:
        CellExecutionError: If a cell fails and errors are not allowed.
        CellTimeoutError: If a cell takes too long and errors are not allowed.
        DeadKernelError: If the kernel dies and errors are not allowed.
        KeyboardInterrupt: If the user interrupts; its `notebook` is the notebook up to there.
    """
    read_cells(path)  # its errors say what is wrong
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of an earlier run
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    start = time.perf_counter()
    with tqdm(total=len(code), desc=path.name, unit="cell", file=sys.stdout) as bar:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            record_timing=timing,
            coalesce_streams=True,
            allow_errors=allow_errors,
            extra_arguments=["--log-level=ERROR"],
            on_cell_executed=lambda **_: bar.update(),
        )
        try:
            _until_interrupted(client)
        except KeyboardInterrupt as interrupt:
            interrupt.notebook = notebook
            raise
        except (CellTimeoutError, DeadKernelError) as error:
            if not allow_errors:
                raise
            last = code[client.code_cells_executed - 1]
            last.execution_count = client.code_cells_executed
            reason = f"{_first_line(str(error))}; the cells after it were not run"
            failure = {"ename": type(error).__name__, "evalue": reason, "traceback": [reason]}
            # in place of the interrupt by which the kernel was ended
            outputs = [output for output in last.outputs if output.output_type != "error"]
            last.outputs = [*outputs, nbformat.v4.new_output("error", **failure)]
        finally:
            notebook.metadata = {
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python"},
            }
    return notebook, time.perf_counter() - start


def _until_interrupted(client: NotebookClient) -> None:
    """Execute a notebook; Ctrl-C raises a `KeyboardInterrupt`, for nbclient a kernel that died."""
    interrupted = False

    def listen(notebook: NotebookNode) -> None:
        task = asyncio.current_task()

        def stop() -> None:
            nonlocal interrupted
            interrupted, client.shutdown_kernel = True, "immediate"
            task.cancel()

        # not on Windows, nor in another thread: there Python raises the interrupt by itself
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)

    client.on_notebook_start = listen
    try:
        client.execute()
    except BaseException as error:
        if interrupted:
            raise KeyboardInterrupt from error
        raise


def failures(notebook: NotebookNode) -> list[str]:
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
    command = ["git", "show", f"HEAD:./{path.name}"]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, check=True)
        committed, here = map(_settings, (done.stdout, path.read_bytes()))
    except (OSError, subprocess.CalledProcessError, SyntaxError):
        return {}
    return {name: value for name, value in here.items() if committed.get(name) != value}


def _settings(text: bytes) -> dict[str, str]:
    """What a notebook's configuration cell assigns, as code."""
    cells = json.loads(text)["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in tagged))
    return {
        target.id: ast.unparse(node.value)
        for node in tree.body
        for target in targets(node)
        if isinstance(target, ast.Name)
    }


def summary(notebook: NotebookNode) -> dict[str, str]:
    """The `name value` lines that the cells tagged `summary` printed."""
    text = "".join(
        output.text
        for cell in notebook.cells
        if "summary" in cell.metadata.get("tags", [])
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    )
    return dict(re.findall(r"^(\S.*?)\s+([-+]?\d+\.\d+)\b", text, flags=re.MULTILINE))


def main(arguments: list[str] | None = None) -> int:
    """Execute notebooks and print a table: notebook, seconds, final and expected log-likelihood.

    Then which cells failed, which settings were changed, and which sentences do not hold.
    """
    parser = parser_of_notebooks("notebooks", main)
    parser.add_argument("--in-place", action="store_true", help="overwrite the notebooks' outputs")
    parser.add_argument("--output", type=Path, default=Path("build"), help="default: %(default)s")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds allowed for a cell")
    options = parse(parser, arguments)
    with told(parser):
        options.output.mkdir(parents=True, exist_ok=True)  # before the hours, not after them
    rows, failed = [], {}
    for path in options.notebooks:
        try:
            notebook, seconds = execute(path, options.timeout, allow_errors=True)
        except KeyboardInterrupt as interrupt:
            target = _write(interrupt.notebook, path, options.output)
            print(f"\nWhat was executed of {path.name} is in {target}", file=sys.stderr)
            return 130
        failed[path] = failures(notebook)
        in_place = options.in_place and not failed[path]
        target = _write(notebook, path, options.output, in_place=in_place)
        if options.in_place and failed[path]:
            print(f"{path.name} is left as it was; with its errors: {target}", file=sys.stderr)
        row = {"notebook": path.name, "seconds": f"{seconds:.0f}"}
        rows.append(row | {name: summary(notebook).get(name, "-") for name in VALUES})
    print(pd.DataFrame(rows).to_string(index=False))
    for path, lines in failed.items():
        for line in lines:
            print(f"{path.name}, {line}", file=sys.stderr)
    _print_claims([path for path in failed if not _names_changes(path) and not failed[path]])
    return int(any(failed.values()))


def _write(notebook: NotebookNode, path: Path, output: Path, *, in_place: bool = False) -> Path:
    """Write an executed notebook in place, or to the output folder with its page; return where."""
    if in_place:
        nbformat.write(notebook, path)
        return path
    nbformat.write(notebook, output / path.name)
    try:
        text = page(notebook, path.parent, path.stem)
        (output / f"{path.stem}.html").write_text(text, encoding="utf-8")
    except ValueError as error:  # a formula that cannot be drawn costs the page, not the run
        print(f"There is no page of {path.name}: {error}", file=sys.stderr)
    return output / path.name


def _names_changes(path: Path) -> bool:
    """Print which settings were changed; whether sentences about the notebook lapse with them."""
    changes = changed_settings(path)
    if not changes:
        return False
    lapse = changes.keys() != {"SEED"}
    words = ", ".join(f"{name} = {value}" for name, value in changes.items())
    if lapse:
        so = "The answers are about the settings as they come."
    else:
        so = "The answers are to hold all the same."
    print(f"Changed in {path.name}: {words}. {so}")
    return lapse


def _print_claims(paths: list[Path]) -> None:
    """Print which sentences about notebooks do not hold, by the claims and tables beside them."""
    for folder in dict.fromkeys(path.parent for path in paths):
        if not (folder / checking.CLAIMS).exists():  # in a hand-out
            continue
        names = [path.stem for path in paths if path.parent == folder]
        try:
            about = checking.about(checking.load(folder / checking.CLAIMS)[0], names)
        except ValueError as error:
            print(f"The sentences are not checked: {error}")
            continue
        wrong = checking.messages(checking.check(about, folder / checking.FIGURES))
        if about:
            print("\n".join(wrong) or f"All {len(about)} sentences hold here.")


if __name__ == "__main__":
    sys.exit(main())
