"""A notebook as a module: load the definitions out of it, without running its experiments."""

import ast
import importlib
import importlib.util
import json
import linecache
import sys
from collections.abc import Iterator
from functools import cached_property
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.parse import quote, unquote

from IPython.core.inputtransformer2 import TransformerManager

IMPORTS_AND_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
PROJECT = Path(__file__).resolve().parents[1]
__path__: list[str] = []  # loaded notebooks are submodules: see `_Importer`
_loading: list[Path] = []  # the notebooks that are being loaded, the innermost last
# By notebook, what it has added to the package's tables: table, key, the value before, its own.
_entries: dict[Path, list[tuple[dict, str, object, object]]] = {}


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
    name = f"dlutils.notebook.{quote(inside.as_posix()).replace('.', '%2E')}"
    names = (name if k == 1 else f"{name}#{k}" for k in count(1))  # a load, a name
    return importlib.import_module(next(name for name in names if name not in sys.modules))


def find(path: str | Path) -> Path:
    """Where a notebook is: as named, beside the one that is being loaded, or in the project.

    Raises:
        ValueError: If it is nowhere; the error names the folders.
    """
    folders = dict.fromkeys([Path.cwd(), *(other.parent for other in _loading[-1:]), PROJECT])
    for folder in folders:
        if (folder / path).exists():  # one that is absolute is itself in any folder
            return folder / path
    raise ValueError(
        f"no notebook {str(path)!r} in {' or '.join(map(str, folders))}: give its path, or "
        "start in its folder (papermill's option --cwd FOLDER)"
    )


class _Importer:
    """Imports a notebook as a submodule, by the name that `load` gives it and pickles hold."""

    @classmethod
    def find_spec(cls, name: str, *_: object) -> ModuleSpec | None:
        package, _, quoted = name.partition("dlutils.notebook.")
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
        _loading.append(path)
        try:
            _define(module, path)
        finally:
            _loading.pop()


sys.meta_path.append(_Importer)


def _define(module: ModuleType, path: Path) -> None:
    """Execute a notebook's definitions in a module."""
    cells = read_cells(path)
    for table, key, old, new in reversed(_entries.pop(path, [])):
        if table.get(key) is new:  # no other has taken its place since
            table[key] = old
            if old is None:
                del table[key]
    added = _entries[path] = []
    own = set()  # names that the notebook assigns: its tables are new with every load
    for number, source in enumerate(code_of(cells), start=1):
        name = f"{path.name}, cell {number}"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        tree = ast.parse(source, filename=name)
        for node in filter(_is_definition, tree.body):
            code = compile(ast.Module([node], tree.type_ignores), name, "exec")
            own |= {target.id for target in targets(node) if isinstance(target, ast.Name)}
            found = [(t.value.id, t.slice.value) for t in targets(node) if _is_entry(t)]
            tables = [(vars(module)[table], key) for table, key in found if table not in own]
            before = [table.get(key) for table, key in tables]
            exec(code, vars(module))
            added += [(*at, old, at[0][at[1]]) for at, old in zip(tables, before, strict=True)]
            if isinstance(node, ast.ClassDef):
                _leave_out_caches(vars(module)[node.name])


def _leave_out_caches(cls: type) -> None:
    """Let pickles and copies of a class's instances hold no values of cached properties."""

    def state(self: object) -> dict[str, object]:
        members = [item for base in type(self).__mro__ for item in vars(base).items()]
        caches = {name for name, value in members if isinstance(value, cached_property)}
        return {name: value for name, value in vars(self).items() if name not in caches}

    has_caches = any(isinstance(value, cached_property) for value in vars(cls).values())
    if has_caches and cls.__getstate__ is object.__getstate__:
        cls.__getstate__ = state


def targets(node: ast.stmt) -> list[ast.expr]:
    """What a statement assigns to."""
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


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
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is not a notebook: {error}") from error


def code_of(cells: list[SimpleNamespace]) -> Iterator[str]:
    """The source of each code cell that is not empty, magics translated to Python."""
    for cell in cells:
        if cell.cell_type == "code" and cell.source.strip():
            yield TransformerManager().transform_cell(cell.source)


def _is_definition(node: ast.stmt) -> bool:
    """Whether it imports, defines, or gives values to constants alone or to entries alone."""
    assigned = targets(node)
    if not assigned:
        return isinstance(node, IMPORTS_AND_DEFINITIONS)
    return all(map(_is_constant, assigned)) or all(map(_is_entry, assigned))


def _is_constant(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id.isupper()


def _is_entry(target: ast.expr) -> bool:
    """Whether it is ALL_CAPS["key"]."""
    is_item = isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant)
    return is_item and _is_constant(target.value)
