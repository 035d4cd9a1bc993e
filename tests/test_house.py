"""The rooms of the package: imports go down only, and nowhere in a circle."""

import ast
import graphlib

from conftest import ROOT

PACKAGE = ROOT / "dlutils"
ABOVE = {  # what a room may import, itself and what both notebooks share aside
    "data": set(),
    "estimators": {"data"},
    "flows": {"data", "estimators"},
    "diffusion": {"data", "estimators"},
    "tools": {"data", "estimators", "flows", "diffusion"},
    "shared": {"data"},
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}


def imports(path):
    """The package's modules that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("dlutils"):
            within = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            yield from within or {node.module}
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("dlutils"))


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else "shared"


def test_every_folder_is_a_room():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders | {"shared"} == ABOVE.keys()


def test_imports_go_down_only():
    wrong = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in imports(path)
        if room(other) not in {room(module), "shared"} | ABOVE[room(module)]
    ]
    assert wrong == []


def test_no_module_imports_itself_by_a_detour():
    graph = {module: set(imports(path)) & MODULES.keys() for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_modules_are_imported_from_where_they_are():
    """Not from what a room hands on: that is for notebooks and users."""
    wrong = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in imports(path)
        if other not in MODULES
    ]
    assert wrong == []
