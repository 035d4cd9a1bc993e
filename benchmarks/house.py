"""The house in numbers: lines by room, imports upward, circles, and the notebooks' length.

`python -m benchmarks.house` counts the working tree; `--against COMMIT` puts another commit beside
it. Lines are those of the files, blank ones and comments included.
"""

import ast
import graphlib
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from benchmarks.notebook_times import committed, working_tree
from dlutils.notebook import read_cells
from dlutils.tables import markdown_table
from dlutils.tools.commands import parser_of

MAY_IMPORT = {  # a room of the package: which others, itself and what all share aside
    "data": set(),
    "estimators": {"data"},
    "flows": {"data", "estimators"},
    "diffusion": {"data", "estimators"},
    "density": {"data", "estimators", "flows", "diffusion"},  # it chooses between the latter two
    "tools": {"data", "estimators", "flows", "diffusion", "density"},
    "shared": {"data"},
}
AROUND = {"tests": "*.py", "benchmarks": "*.py", "docs": "*.md"}  # what stands around the package


def modules(root: Path) -> dict[str, Path]:
    """The modules of the package in a folder, by name; not what only hands names on."""
    files = (root / "dlutils").rglob("*.py")
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for path in files
        if path.name != "__init__.py"
    }


def room(module: str) -> str:
    """The folder that a module is in; "shared" for those that are in none.

    The package's own command, `python -m dlutils`, is one of the tools.
    """
    parts = module.split(".")
    if parts[-1] == "__main__" and len(parts) == 2:
        return "tools"
    return parts[1] if len(parts) > 2 else "shared"


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The package's modules that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dlutils"):
            within = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
            yield from within or {node.module}
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("dlutils"))


def upward(root: Path) -> list[str]:
    """Imports of what a room may not know, a line each."""
    known = modules(root)
    return [
        f"{module} imports {other}"
        for module, path in known.items()
        for other in imports(path, known)
        if room(other) not in {room(module), "shared"} | MAY_IMPORT.get(room(module), set())
    ]


def circle(root: Path) -> list[str]:
    """Modules that import themselves by a detour, the first such circle; empty if there is none."""
    known = modules(root)
    graph = {name: set(imports(path, known)) & known.keys() for name, path in known.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def count(root: Path) -> dict[str, str]:
    """Lines and files of each room and of what stands around the package, and what is wrong."""
    files = [(f"dlutils/{room(module)}", path) for module, path in modules(root).items()]
    files += [("dlutils", path) for _, path in files]
    for folder, pattern in AROUND.items():
        files += [(folder, path) for path in (root / folder).rglob(pattern)]
    lines = defaultdict(list)
    for where, path in files:
        lines[where].append(len(path.read_text(encoding="utf-8").splitlines()))
    return {where: f"{sum(lines[where])} in {len(lines[where])}" for where in sorted(lines)} | {
        "imports upward": str(len(upward(root))),
        "a circle": " → ".join(name.removeprefix("dlutils.") for name in circle(root)) or "none",
        **{
            f"{path.name}: {what}": str(number)
            for path in sorted(root.glob("*.ipynb"))
            for what, number in reading(path).items()
        },
    }


TRAINS = re.compile(r"\.backward\(|\b(?:train|flow_matching|least_squares)\(")


def reading(path: Path) -> dict[str, int]:
    """What there is to read in a notebook.

    Words of prose without formulas and code; lines of code that are not blank; those in cells
    before the first training; and those of figures' and tables' saving, of printing and of checks.
    """
    words = lines = before = bookkeeping = 0
    trained = False
    for cell in read_cells(path):
        if cell.cell_type == "markdown":
            words += len(
                re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", " ", cell.source, flags=re.S).split()
            )
            continue
        tree = ast.parse(cell.source)
        here = sum(bool(line.strip()) for line in cell.source.splitlines())
        definitions = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        body = [n for n in tree.body if n not in definitions and not isinstance(n, ast.Import)]
        trained = trained or any(TRAINS.search(ast.unparse(node)) for node in body)
        lines, before = lines + here, before + here * (not trained)
        kept = [
            n
            for n in body
            if re.match(r"(?:display\()?(?:report\.|print\(|assert)", ast.unparse(n))
        ]
        bookkeeping += sum(node.end_lineno - node.lineno + 1 for node in kept)
    return {
        "words": words,
        "lines of code": lines,
        "before the first training": before,
        "bookkeeping": bookkeeping,
    }


def main(arguments: list[str] | None = None) -> int:
    """Print lines and files by room, imports that run upward, and whether there is a circle."""
    parser = parser_of("benchmarks.house", main)
    parser.add_argument("--against", metavar="COMMIT", help="another commit, to stand beside")
    commit = parser.parse_args(arguments).against
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        if commit:
            columns[commit] = count(committed(commit, Path(), Path(folder, "before")))
        columns["now"] = count(working_tree(Path(), Path(folder, "now")))
    rooms = dict.fromkeys(name for of in columns.values() for name in of)
    rows = [{"room": name} | {c: of.get(name, "–") for c, of in columns.items()} for name in rooms]
    print(markdown_table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
