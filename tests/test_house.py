"""The rooms of the package: imports go down only, nowhere in a circle, and of what is declared."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions

import pytest

from benchmarks.house import MAY_IMPORT, circle, imports, modules, upward
from conftest import ROOT
from dlutils.notebook import code_of, read_cells

MODULES = modules(ROOT)
HERE = {"dlutils", "benchmarks", "conftest", "page"}
DISTRIBUTIONS = {  # where the two names differ, if not installed
    "mdl_density_hist": "MDL-Density-Histogram",
    "sklearn": "scikit-learn",
}


def test_every_folder_is_a_room():
    folders = {path.name for path in (ROOT / "dlutils").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} | {"shared"} == MAY_IMPORT.keys()


def test_imports_go_down_only_and_in_no_circle():
    assert upward(ROOT) == []
    assert circle(ROOT) == []


def test_modules_are_imported_from_where_they_are():
    """Not from what a room hands on: that is for notebooks and users."""
    for path in MODULES.values():
        assert set(imports(path, MODULES)) <= MODULES.keys(), path


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from dlutils.tools import cost", ["dlutils.data.one imports dlutils.tools.cost"]),
        (
            "def f():\n    import dlutils.tools.cost",
            ["dlutils.data.one imports dlutils.tools.cost"],
        ),
        ("from dlutils.shared import x", []),
    ],
)
def test_an_import_upward_is_found(tmp_path, line, found):
    for name in ("data/one", "tools/cost", "shared"):
        path = tmp_path / "dlutils" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line if name == "data/one" else "", encoding="utf-8")
    assert upward(tmp_path) == found
    assert circle(tmp_path) == []
    (tmp_path / "dlutils/tools/cost.py").write_text("from dlutils.data import one")
    assert bool(circle(tmp_path)) == bool(found)


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """Distributions in requirements.txt and in the dependency groups of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    for group in project["dependency-groups"].values():
        lines += group
    return {normalized(re.match(r"[\w.-]*", line)[0]) for line in lines}


def undeclared(sources: Iterable[str]) -> set[str]:
    """Modules of others that the sources import, in functions too, and that nothing declares."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    names = [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
    others = {name.partition(".")[0] for name in names} - HERE - sys.stdlib_module_names
    installed, known = packages_distributions(), declared()
    of = {m: [DISTRIBUTIONS[m]] if m in DISTRIBUTIONS else installed.get(m, [m]) for m in others}
    return {module for module in others if not known.intersection(map(normalized, of[module]))}


def test_what_is_imported_is_declared():
    folders = (ROOT / folder for folder in ("dlutils", "tests", "benchmarks"))
    files = [ROOT / "conftest.py", *(path for folder in folders for path in folder.rglob("*.py"))]
    cells = [code for path in ROOT.glob("*.ipynb") for code in code_of(read_cells(path))]
    assert undeclared([*(path.read_text(encoding="utf-8") for path in files), *cells]) == set()
    wrong = ["import numpy, os\nimport sklearn.mixture", "def f():\n    from seaborn.x import y"]
    assert undeclared(wrong) == {"seaborn"}
