"""Times of whole notebooks beside another commit's: on tiny ones, in a repository of their own."""

import os
import shutil
import subprocess

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from benchmarks import common, notebook_times
from benchmarks.common import command, short
from benchmarks.notebook_times import PACKAGES, PAGE, RAW, SLOWEST, WIDTH, make, measure, results
from benchmarks.tables import read_csv

AGAINST = {"--against": {"required": True}}
FIGURE = "import os\nos.mkdir('figures')"


def write(path, *cells):
    text = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("")]
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=[*text, *code]), path)


def commit(folder):
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for step in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All"]):
        subprocess.run([*git, *step], check=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Committed: a notebook with its package. Then both are changed."""
    (tmp_path / ".gitignore").write_text("__pycache__/\nbuild/\n")
    (tmp_path / "part.py").write_text("VALUE = 1\n")
    write(tmp_path / "a.ipynb", "import part\nassert part.VALUE == 1", "x = 1", FIGURE)
    commit(tmp_path)
    (tmp_path / "part.py").write_text("VALUE = 2\n")
    write(tmp_path / "a.ipynb", "import part\nassert part.VALUE == 2", FIGURE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "FOLDER", tmp_path / "build")
    monkeypatch.setenv("PYTHONPATH", "")  # put back afterwards
    return tmp_path


@pytest.mark.bench
def test_each_notebook_finds_its_own_package_and_the_working_tree_is_left_alone(repository):
    arguments = ["--against", "HEAD", "--quick"]
    assert command(make, PACKAGES, "one round", arguments, AGAINST) == 0
    page = (repository / PAGE).read_text(encoding="utf-8")
    assert "## a.ipynb before: the slowest cells" in page
    rows = read_csv(repository / RAW)
    found = [(row["version"], row["cell"]) for row in rows]
    assert found == [*(("before", k) for k in range(4)), *(("after", k) for k in range(3))]
    assert all(0 < row["seconds"] < 60 for row in rows)
    assert not (repository / "figures").exists()

    write(repository / "a.ipynb", "1 / 0")
    (repository / PAGE).unlink()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        command(make, PACKAGES, "one round", arguments, AGAINST)
    assert not (repository / PAGE).exists(), "a cell that fails leaves the page alone"


def test_notebooks_take_turns(monkeypatch, tmp_path):
    ran = []

    def noted(path, timing):
        ran.append((path.name, path.parent.name, os.environ["PYTHONPATH"]))
        return nbformat.read(path, 4), 1.0

    monkeypatch.setattr(notebook_times, "execute", noted)
    monkeypatch.setenv("PYTHONPATH", "")
    trees = {side: tmp_path / side for side in ("before", "after")}
    for tree in trees.values():
        tree.mkdir()
        write(tree / "a.ipynb", "1")
    write(trees["after"] / "new.ipynb", "1")
    rows = measure(trees, 2)
    turns = [("a.ipynb", "before"), ("a.ipynb", "after"), ("new.ipynb", "after")]
    assert ran == 2 * [(name, side, str(trees[side])) for name, side in turns]
    assert [row["round"] for row in rows] == 3 * [1] + 3 * [2]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import a\nfrom b import (\n    c,\n)\n\n# why\nx = 1\n", "x = 1"),
        ("import a\n", "import a"),
        ("\n# a comment alone", "# a comment alone"),
        ("%matplotlib inline\nx = 1", "%matplotlib inline"),
        ("@cache\ndef f():\n    pass", "def f():"),
        (f"x = '{100 * 'a'}'", f"x = '{(WIDTH - 6) * 'a'}…"),
    ],
)
def test_a_cell_is_known_by_its_first_line(source, line):
    assert notebook_times.first_line(source) == line
    assert len(line) <= WIDTH


def rows_of(version, round_, whole, *cells):
    """One execution: seconds of the whole and of the cells."""
    run = {"notebook": "a.ipynb", "version": version, "round": round_}
    return [
        run | {"cell": k, "code": f"f({k}) | `g`", "seconds": seconds}
        for k, seconds in enumerate([whole, *cells])
    ]


def test_medians_ratio_and_the_slowest_cells():
    rows = [
        *rows_of("before", 1, 10.0, *range(12)), *rows_of("after", 1, 6.0, 1.0, 4.0),
        *rows_of("before", 2, 20.0, *range(12)), *rows_of("after", 2, 4.0, 2.0, 4.0),
        *rows_of("before", 3, 12.0, *range(12)),
    ]  # fmt: skip
    tables = results(rows)
    (whole,) = tables["Whole notebooks"]
    assert (whole["before, s"], whole["after, s"]) == (12.0, 5.0)
    assert whole["after / before"] == pytest.approx(5 / 12)
    assert (whole["rounds before"], whole["rounds after"]) == (3, 2), "a round less"
    slowest = tables["a.ipynb before: the slowest cells"]
    assert [row["cell"] for row in slowest] == list(range(12, 2, -1))
    assert len(slowest) == SLOWEST
    assert tables["a.ipynb after: the slowest cells"] == [
        {"cell": 2, "code": r"`f(2) \| 'g'`", "s": 4.0},
        {"cell": 1, "code": r"`f(1) \| 'g'`", "s": 1.5},
    ]
    (alone,) = results(rows_of("before", 1, 10.0, 1.0))["Whole notebooks"]
    assert short(alone["after, s"]) == short(alone["after / before"]) == "–"


def test_the_copy_has_what_is_not_committed_and_nothing_ignored(repository):
    (repository / "new.py").touch()
    (repository / "part.py").unlink()
    (repository / "build").mkdir()
    (repository / "build" / "large").touch()
    copy = notebook_times.working_tree(repository, repository / "build" / "copy")
    assert {path.name for path in copy.iterdir()} == {".gitignore", "a.ipynb", "new.py"}


@pytest.mark.parametrize(
    ("commit", "message"), [("nothing", "nothing"), ("HEAD", "not a git repository")]
)
def test_what_git_does_not_know_is_said(repository, monkeypatch, commit, message):
    if commit == "HEAD":
        shutil.rmtree(repository / ".git")
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    with pytest.raises(SystemExit, match=message):
        command(make, [], "one round", ["--against", commit], AGAINST)
