"""The notebooks for students: without answers, or with them.

`python -m dlutils.tools.handout` writes to build/handout/ what a student gets: the notebooks,
without answers and outputs, and what they need to run. `--blank integrator` also empties the
functions of the cells tagged `exercise` and `integrator`; the checks below them say whether what
the student writes there is right. `--solution` writes the notebooks as they are to build/solution/.
"""

import ast
import json
import re
import shutil
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from dlutils.notebook import PROJECT
from dlutils.tools.commands import parse, parser_of_notebooks, told


def handout(notebook: NotebookNode, blanks: Collection[str] = ()) -> NotebookNode:
    """A copy of a notebook without what a student is to find out.

    Args:
        notebook: With outputs. Of its cells' tags these count: `answer` (replaced), `told` (prose
            that says what came out: it goes), `map` (the tables lose their last column),
            `expected-figure` (keeps its figures), and `exercise` with one of `blanks`.
        blanks: See `blank`, which is applied to the cells that are tagged `exercise` and so.

    Raises:
        ValueError: If an answer is no Markdown cell.
    """
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        tags = _tags(cell)
        if "answer" in tags:
            if cell.cell_type != "markdown":
                raise ValueError(f"an answer is a Markdown cell, not {cell.source[:60]!r}")
            cell.source = "*Your answer*"
        elif "told" in tags:
            cell.source = ""
        elif "map" in tags:
            cell.source = without_last_column(cell.source)
        elif cell.cell_type == "code":
            kept = cell.outputs if "expected-figure" in tags else []
            cell.outputs = [output for output in kept if "image/png" in output.get("data", {})]
            cell.execution_count = None
            if "exercise" in tags and set(tags) & set(blanks):
                cell.source = blank(cell.source, cell.metadata.get("blank"))
    copy.cells = [cell for cell in copy.cells if cell.source]
    return copy


def blank(source: str, names: Collection[str] | None = None) -> str:
    """Python code with functions emptied: signature and docstring stay, the body says what to do.

    Args:
        source: Code of a cell.
        names: Functions, also of classes, to be emptied; all that are not private if None.

    Raises:
        ValueError: If the code has no such function.
    """
    functions = {
        node.name: node
        for top in ast.parse(source).body
        for node in (top.body if isinstance(top, ast.ClassDef) else [top])
        if isinstance(node, ast.FunctionDef)
    }
    if names is None:
        names = [name for name in functions if not name.startswith("_")]
    if not names or not set(names) <= set(functions):
        raise ValueError(f"to blank: {list(names)}; functions of the cell: {list(functions)}")
    lines = source.splitlines()
    for name, node in reversed(functions.items()):  # from below, so that line numbers hold
        if name in names:
            first = node.body[0]
            docstring = ast.get_docstring(node)
            start = first.end_lineno if docstring else first.lineno - 1
            task = f"write {name}: {docstring.splitlines()[0]}" if docstring else f"write {name}"
            call = (
                "raise NotImplementedError(",
                f"    {json.dumps(task, ensure_ascii=False)}",
                ")",
            )
            stub = [" " * first.col_offset + line for line in call]
            lines[start : node.end_lineno] = stub
    return "\n".join(lines)


def without_last_column(markdown: str) -> str:
    """Markdown whose tables have lost their last column; a | in code or a formula is none."""
    lines = []
    for line in markdown.splitlines():
        if line.startswith("|"):
            bars = re.finditer(r"`[^`]*`|\$[^$]*\$|\\\||(?P<bar>\|)", line.rstrip())
            ends = [match.end() for match in bars if match["bar"]]
            line = line[: ends[-2]]
        lines.append(line)
    return "\n".join(lines)


def words(notebooks: Iterable[NotebookNode]) -> list[str]:
    """The words that `blanks` may hold: the tags beside `exercise`, in their order."""
    tagged = [_tags(cell) for notebook in notebooks for cell in notebook.cells]
    return list(dict.fromkeys(
        tag for tags in tagged if "exercise" in tags for tag in tags if tag != "exercise"
    ))  # fmt: skip


def write(
    paths: Iterable[Path], output: Path, blanks: Collection[str] = (), solution: bool = False
) -> None:
    """Write notebooks for students, and the package, requirements and a README beside them.

    What is in the output folder already is overwritten, or stays. As a solution the notebooks keep
    answers, code and outputs; else see `handout`.

    Raises:
        ValueError: If no cell of the notebooks is an exercise of one of the blanks' names.
    """
    notebooks = {path.name: nbformat.read(path, as_version=4) for path in paths}
    choices = words(notebooks.values())
    if unknown := [word for word in blanks if word not in choices]:
        raise ValueError(
            f"there is nothing to blank that is called {unknown[0]!r}; "
            f"choose from {', '.join(choices) or 'nothing: no cell is tagged exercise'}"
        )
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "dlutils", output / "dlutils", ignore=ignore, dirs_exist_ok=True)
    shutil.copy(PROJECT / "requirements.txt", output)
    shutil.copy(PROJECT / "docs" / "student.md", output / "README.md")
    for name, notebook in notebooks.items():
        nbformat.write(notebook if solution else handout(notebook, blanks), output / name)


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks of this folder for students."""
    parser = parser_of_notebooks("handout", main)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--solution", action="store_true", help="with answers and outputs")
    kind.add_argument("--blank", default="", metavar="WORD,...", help="functions to empty")
    parser.add_argument("--output", type=Path, help="default: build/handout, or build/solution")
    options = parse(parser, arguments)
    output = options.output or Path("build", "solution" if options.solution else "handout")
    blanks = [word.strip() for word in options.blank.split(",") if word.strip()]
    with told(parser):
        write(options.notebooks, output, blanks, options.solution)
    print(f"{output}: {', '.join(path.name for path in options.notebooks)}")
    return 0


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


if __name__ == "__main__":
    sys.exit(main())
