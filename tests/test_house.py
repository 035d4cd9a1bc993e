"""The rooms of the package: imports go down only, and nowhere in a circle."""

import pytest

from benchmarks.house import MAY_IMPORT, circle, imports, modules, upward
from conftest import ROOT

MODULES = modules(ROOT)


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
