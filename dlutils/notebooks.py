"""Notebooks as programs: load the definitions out of one, or execute them all.

`python -m dlutils.notebooks` executes every notebook into build/ and exports HTML;
with `--in-place` it refreshes the outputs of the committed notebooks.
"""

import argparse
import ast
import importlib
import importlib.util
import json
import linecache
import re
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from IPython.core.inputtransformer2 import TransformerManager
from tqdm import tqdm

if TYPE_CHECKING:  # slow to import, for its schemas, and `load` does without
    from nbformat import NotebookNode

IMPORTS_AND_DEFINITIONS = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
)
PROJECT = Path(__file__).resolve().parents[1]
__path__: list[str] = []  # loaded notebooks are submodules: see `_Importer`


def load(path: str | Path) -> ModuleType:
    """Load what a notebook defines, without running its experiments.

    The module holds the notebook's imports, functions, classes and ALL_CAPS constants, and what it
    adds to such tables, `ALL_CAPS["key"] = value`; nothing else is executed. A function that leans
    on another variable of the notebook therefore fails here with a `NameError`, as it should.
    Tracebacks name the notebook and the code cell (numbered as `In [n]` after *Run All*) and show
    the source line.

    An entry that a notebook adds to a table of the package, `METHODS["heun"] = ...`, is there for
    all that runs in this process, until the notebook is loaded again: that withdraws it first.

    What the notebook defines can be pickled, and so can instances of its classes, without the
    values of their cached properties: another process that has `dlutils` loads the notebook again.
    One of the project's folder is found there wherever that lies, any other where it was.

    Args:
        path: A notebook file; see `find`.

    Returns:
        A fresh module, whose `__file__` is the notebook.

    Raises:
        ValueError: If there is no such file, or it is not a notebook.
        SyntaxError: If a code cell does not parse; the error names the cell.
    """
    path = find(path).resolve()
    inside = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
    name = f"dlutils.notebooks.{quote(inside.as_posix()).replace('.', '%2E')}"
    names = (name if k == 1 else f"{name}#{k}" for k in count(1))  # a load, a name
    return importlib.import_module(next(name for name in names if name not in sys.modules))


def find(path: str | Path) -> Path:
    """Where a notebook is: as named, beside the one that is being loaded, or in the project.

    Raises:
        ValueError: If it is nowhere; the error names the folders.
    """
    path = Path(path)
    folders = dict.fromkeys([Path.cwd(), *(other.parent for other in _LOADING[-1:]), PROJECT])
    if path.is_absolute():
        folders = [path.parent]
    found = [folder / path for folder in folders if (folder / path).exists()]
    if not found:
        raise ValueError(
            f"no notebook {str(path)!r} in {' or '.join(map(str, folders))}: give its path, or "
            "start in its folder (papermill's option --cwd FOLDER)"
        )
    return path if path.exists() else found[0]


_LOADING: list[Path] = []  # the notebooks that are being loaded, the innermost last


class _Importer:
    """Imports a notebook as a submodule, by the name that `load` gives it and pickles hold."""

    @classmethod
    def find_spec(cls, name: str, *_: object) -> ModuleSpec | None:
        package, _, quoted = name.partition("dlutils.notebooks.")
        if package or not quoted:
            return None
        path = PROJECT / unquote(quoted.partition("#")[0])
        return importlib.util.spec_from_file_location(name, path, loader=cls)

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Python makes the module."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        path = Path(module.__file__)
        module.__doc__ = f"Definitions of {path.name}."
        _LOADING.append(path)
        try:
            _define(module, path)
        finally:
            _LOADING.pop()


sys.meta_path.append(_Importer)


def _define(module: ModuleType, path: Path) -> None:
    """Execute a notebook's definitions in a module."""
    cells = read_cells(path)
    entries = _ENTRIES.setdefault(path.resolve(), [])
    while entries:
        _withdraw(*entries.pop())
    own = set()  # names that the notebook assigns: its tables are new with every load
    for number, source in enumerate(_code(cells), start=1):
        name = f"{path.name}, cell {number}"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        tree = ast.parse(source, filename=name)
        for node in filter(_is_definition, tree.body):
            code = compile(ast.Module([node], tree.type_ignores), name, "exec")
            own |= {target.id for target in _targets(node) if isinstance(target, ast.Name)}
            tables = _tables(node, module, own)
            before = [(table, key, table.get(key, _NONE)) for table, key in tables]
            exec(code, module.__dict__)
            entries += [(table, key, old, table[key]) for table, key, old in before]
            if isinstance(node, ast.ClassDef):
                _leave_out_caches(getattr(module, node.name))


def _leave_out_caches(cls: type) -> None:
    """Let pickles and copies of a class's instances hold no values of cached properties."""
    if vars(cls).keys() & _caches(cls) and cls.__getstate__ is object.__getstate__:
        cls.__getstate__ = _state


def _state(self: object) -> dict[str, object]:
    """What to pickle of an instance."""
    caches = _caches(type(self))
    return {name: value for name, value in vars(self).items() if name not in caches}


def _caches(cls: type) -> set[str]:
    """The names of its cached properties, inherited ones too."""
    members = (item for base in cls.__mro__ for item in vars(base).items())
    return {name for name, value in members if isinstance(value, cached_property)}


_NONE = object()
_ENTRIES: dict[
    Path, list[tuple[dict, str, object, object]]
] = {}  # by notebook: table, key, old, new


def _targets(node: ast.stmt) -> list[ast.expr]:
    """What a statement assigns to."""
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


def _tables(node: ast.stmt, module: ModuleType, own: set[str]) -> list[tuple[dict, str]]:
    """The tables of the package that a statement adds to, each with the key."""
    entries = [target for target in _targets(node) if isinstance(target, ast.Subscript)]
    entries = [entry for entry in entries if entry.value.id not in own]
    return [(getattr(module, entry.value.id), entry.slice.value) for entry in entries]


def _withdraw(table: dict, key: str, old: object, new: object) -> None:
    """Put back what was there before an entry, unless another has taken its place since."""
    if table.get(key, _NONE) is new:
        if old is _NONE:
            del table[key]
        else:
            table[key] = old


def read_cells(path: str | Path) -> list[SimpleNamespace]:
    """The cells of a notebook: cell_type, source, metadata.

    Raises:
        ValueError: If there is no such file, or it is not a notebook.
    """
    try:
        cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
        return [SimpleNamespace(**cell | {"source": "".join(cell["source"])}) for cell in cells]
    except FileNotFoundError as error:
        raise ValueError(f"no notebook {str(path)!r}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is not a notebook: {error}") from error


def execute(path: Path, timeout: float = 1800) -> tuple["NotebookNode", float]:
    """Run a notebook whole, in its own folder, with a progress bar over its cells.

    Args:
        path: A notebook file; it is not written to.
        timeout: Seconds allowed for one cell.

    Returns:
        The executed notebook and the seconds it took.

    Raises:
        CellExecutionError: If a cell fails; `error.notebook` is the notebook up to there.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    read_cells(path)  # its errors say what is wrong
    notebook = nbformat.read(path, as_version=4)
    total = sum(cell.cell_type == "code" for cell in notebook.cells)
    start = time.perf_counter()
    with tqdm(total=total, desc=path.name, unit="cell", file=sys.stdout) as bar:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
            on_cell_complete=lambda cell, cell_index: bar.update(cell.cell_type == "code"),
        )
        try:
            client.execute()
        except CellExecutionError as error:
            error.notebook = notebook
            raise
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook, time.perf_counter() - start


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


def main(arguments: list[str] | None = None) -> int:
    """Execute notebooks and print a table: notebook, seconds, final and expected log-likelihood."""
    import nbformat
    from nbclient.exceptions import CellExecutionError

    parser = argparse.ArgumentParser(prog="python -m dlutils.notebooks", description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in this folder")
    parser.add_argument("--in-place", action="store_true", help="overwrite the notebooks' outputs")
    parser.add_argument("--output", type=Path, default=Path("build"), help="default: %(default)s")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds allowed for a cell")
    options = parser.parse_args(arguments)
    paths = options.notebooks or sorted(Path().glob("*.ipynb"))
    if not paths:
        parser.error("there is no notebook in this folder")

    header = ("notebook", "seconds", "final log-likelihood", "expected log-likelihood")
    rows = []
    for path in paths:
        target = path if options.in_place else options.output / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            notebook, seconds = execute(path, options.timeout)
        except ValueError as error:
            parser.error(str(error))
        except CellExecutionError as error:
            print(f"\n{path}: a cell failed\n\n{error}", file=sys.stderr)
            if not options.in_place:
                nbformat.write(error.notebook, target)
                print(f"The notebook up to that cell is in {target}", file=sys.stderr)
            return 1
        nbformat.write(notebook, target)
        if not options.in_place:
            from dlutils.publish import page  # slow to import, and `load` does without

            text = page(notebook, path.parent, path.stem)
            target.with_suffix(".html").write_text(text, encoding="utf-8")
        found = summary(notebook)
        rows.append((path.name, f"{seconds:.0f}", *(found.get(name, "-") for name in header[2:])))
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    return 0


def _code(cells: list[SimpleNamespace]) -> Iterator[str]:
    """The source of each code cell that is not empty, magics translated to Python."""
    for cell in cells:
        if cell.cell_type == "code" and cell.source.strip():
            yield TransformerManager().transform_cell(cell.source)


def _is_definition(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return all(map(_is_constant, node.targets)) or all(map(_is_entry, node.targets))
    if isinstance(node, ast.AnnAssign):
        return _is_constant(node.target)
    return isinstance(node, IMPORTS_AND_DEFINITIONS)


def _is_constant(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id.isupper()


def _is_entry(target: ast.expr) -> bool:
    """Whether it is ALL_CAPS["key"]."""
    return (
        isinstance(target, ast.Subscript)
        and _is_constant(target.value)
        and isinstance(target.slice, ast.Constant)
    )


if __name__ == "__main__":
    sys.exit(main())
