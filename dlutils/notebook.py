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
    name = f"dlutils.notebook.{quote(inside.as_posix()).replace('.', '%2E')}"
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
    for number, source in enumerate(code_of(cells), start=1):
        name = f"{path.name}, cell {number}"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        tree = ast.parse(source, filename=name)
        for node in filter(_is_definition, tree.body):
            code = compile(ast.Module([node], tree.type_ignores), name, "exec")
            own |= {target.id for target in targets(node) if isinstance(target, ast.Name)}
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


def targets(node: ast.stmt) -> list[ast.expr]:
    """What a statement assigns to."""
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


def _tables(node: ast.stmt, module: ModuleType, own: set[str]) -> list[tuple[dict, str]]:
    """The tables of the package that a statement adds to, each with the key."""
    entries = [target for target in targets(node) if isinstance(target, ast.Subscript)]
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


def code_of(cells: list[SimpleNamespace]) -> Iterator[str]:
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
