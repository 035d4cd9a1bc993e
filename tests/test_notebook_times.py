"""Times of whole notebooks beside another commit's: on tiny ones, in a repository of their own."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from benchmarks import notebook_times
from benchmarks.notebook_times import (
    PAGE,
    RAW,
    SLOWEST,
    WIDTH,
    execute,
    first_line,
    main,
    measure,
    results,
    working_tree,
)
from conftest import ROOT

FIGURE = "import os\nos.mkdir('figures')"


def write(path, *cells):
    text = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("")]
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=[*text, *code]), path)


def commit(folder):
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All"]):
        subprocess.run([*git, *command], check=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Committed: a notebook with its package, and a cell that fails. Then both are changed."""
    (tmp_path / ".gitignore").write_text("__pycache__/\nbuild/\n")
    (tmp_path / "part.py").write_text("VALUE = 1\n")
    write(tmp_path / "a.ipynb", "import part\nassert part.VALUE == 1", "1 / 0", FIGURE)
    commit(tmp_path)
    (tmp_path / "part.py").write_text("VALUE = 2\n")
    write(tmp_path / "a.ipynb", "import part\nassert part.VALUE == 2", FIGURE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_notebook_finds_its_own_package_and_the_working_tree_is_left_alone(repository, capsys):
    (repository / "build").mkdir()
    (repository / "build" / "large").touch()
    assert main(["--against", "HEAD", "--rounds", "1"]) == 0
    page = (repository / PAGE).read_text(encoding="utf-8")
    assert page in capsys.readouterr().out
    assert "**a.ipynb before:** cell 2 failed (ZeroDivisionError); the times are of" in page
    assert "**a.ipynb after:**" not in page
    with (repository / RAW).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["version"], row["cell"]) for row in rows] == [
        *(("before", str(k)) for k in range(4)), *(("after", str(k)) for k in range(3))
    ]  # fmt: skip
    assert all(0 < float(row["seconds"]) < 60 for row in rows)
    assert not (repository / "figures").exists()


def test_ctrl_c_prints_what_there_is(repository):
    """The second notebook interrupts the process that its kernel belongs to."""
    stop = "import os, signal, time\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)"
    write(repository / "b.ipynb", stop)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.notebook_times", "--against", "HEAD"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 130
    assert "stopped" in done.stderr
    assert "## a.ipynb before: the slowest cells" in done.stdout
    assert not (repository / PAGE).exists()


def test_a_kernel_that_dies_leaves_the_times_so_far(tmp_path):
    write(tmp_path / "a.ipynb", "x = 1", "import os; os._exit(1)", "y = 2")
    rows = []
    measure({"before": tmp_path, "after": tmp_path / "none"}, ["a.ipynb"], 1, rows)
    assert [row["cell"] for row in rows] == [0, 1]
    (failure,), _ = results(rows)
    assert "it ended before its last cell (DeadKernelError)" in failure


def test_notebooks_take_turns(monkeypatch, tmp_path):
    ran = []

    def noted(path, tree, after_each):
        ran.append((path.name, tree.name))
        return nbformat.read(path, 4), 1.0, ""

    monkeypatch.setattr(notebook_times, "execute", noted)
    trees = {side: tmp_path / side for side in ("before", "after")}
    for tree in trees.values():
        tree.mkdir()
        write(tree / "a.ipynb", "1")
    write(trees["after"] / "new.ipynb", "1")
    measure(trees, ["a.ipynb", "new.ipynb"], 2, [])
    assert ran == 2 * [("a.ipynb", "before"), ("a.ipynb", "after"), ("new.ipynb", "after")]


def test_what_may_raise_is_no_failure(tmp_path):
    write(tmp_path / "a.ipynb", "1 / 0")
    notebook = nbformat.read(tmp_path / "a.ipynb", 4)
    notebook.cells[-1].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, tmp_path / "a.ipynb")
    executed, seconds, ended = execute(tmp_path / "a.ipynb", tmp_path, lambda: None)
    (row,) = notebook_times.cell_rows(executed)
    assert (row["cell"], row["error"], ended) == (1, "", "")
    assert row["seconds"] < seconds


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import a\nfrom b import (\n    c,\n)\n\n# why\nx = 1\n", "x = 1"),
        ("import a\n", "import a"),
        ("\n# a comment alone", "# a comment alone"),
        ("%matplotlib inline\nx = 1", "%matplotlib inline"),
        ("@cache\ndef f():\n    pass", "def f():"),
        ("def f(:", "def f(:"),
        (f"x = '{100 * 'a'}'", f"x = '{(WIDTH - 6) * 'a'}…"),
    ],
)
def test_a_cell_is_known_by_its_first_line(source, line):
    assert first_line(source) == line
    assert len(line) <= WIDTH


def rows_of(version, round_, whole, *cells):
    """One execution: seconds of the whole and of the cells."""
    run = {"notebook": "a.ipynb", "version": version, "round": round_, "error": ""}
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
    failures, tables = results(rows)
    assert not failures
    (whole,) = tables["Whole notebooks"]
    assert (whole["before, s"], whole["after, s"]) == (12.0, 5.0)
    assert whole["after / before"] == pytest.approx(5 / 12)
    assert (whole["rounds before"], whole["rounds after"]) == (3, 2), "as after Ctrl-C"
    slowest = tables["a.ipynb before: the slowest cells"]
    assert [row["cell"] for row in slowest] == list(range(12, 2, -1))
    assert len(slowest) == SLOWEST
    assert tables["a.ipynb after: the slowest cells"] == [
        {"cell": 2, "code": r"`f(2) \| 'g'`", "s": 4.0},
        {"cell": 1, "code": r"`f(1) \| 'g'`", "s": 1.5},
    ]


def test_without_the_other_side_there_is_no_ratio():
    _, tables = results(rows_of("before", 1, 10.0, 1.0))
    (whole,) = tables["Whole notebooks"]
    assert (whole["after, s"], whole["after / before"]) == ("–", "–")


def test_the_copy_has_what_is_not_committed_and_nothing_ignored(repository):
    (repository / "new.py").touch()
    (repository / "part.py").unlink()
    (repository / "build").mkdir()
    (repository / "build" / "large").touch()
    copy = working_tree(repository, repository / "build" / "copy")
    assert {path.name for path in copy.iterdir()} == {".gitignore", "a.ipynb", "new.py"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--against"),
        (["--against", "nothing"], "nothing"),
        (["--against", "HEAD", "--rounds", "0"], "at least 1, not 0"),
        (["--against", "HEAD", "none.ipynb"], "neither the working tree nor the commit"),
        (["--against", "HEAD", "../a.ipynb"], "a path in the repository"),
    ],
)
def test_what_cannot_be_measured_is_named(repository, capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_outside_a_repository_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(Path(tmp_path).parent))
    with pytest.raises(SystemExit):
        main(["--against", "HEAD"])
    assert "not a git repository" in capsys.readouterr().err
