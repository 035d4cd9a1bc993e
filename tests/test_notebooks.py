import os
import pickle
import re
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from conftest import HANGS, ROOT
from dlutils.data.datasets import make_dataset
from dlutils.notebook import load
from dlutils.tools import notebooks
from dlutils.tools.notebooks import changed_settings, execute, main

COMMITTED = sorted(ROOT.glob("*.ipynb"))


@pytest.fixture
def write(tmp_path):
    def write(*sources, name="small.ipynb"):
        cells = [new_code_cell(source) for source in sources]
        path = tmp_path / name
        nbformat.write(new_notebook(cells=[new_markdown_cell("# title"), *cells]), path)
        return path

    return write


def test_load_takes_definitions_and_nothing_else(write):
    module = load(
        write(
            "import math\n%matplotlib inline\nfrom math import pi as PI",
            "LIMIT: int = 3\nRATES = [1, 2]\nlower = 1 / 0\nA, b = 1, 2\nprint('ran')",
            "def area(r):\n    return PI * r**2\nclass Box:\n    size = LIMIT",
            "if True:\n    HIDDEN = 1\ndef leans():\n    return lower",
        )
    )
    assert module.area(2) == pytest.approx(4 * module.math.pi)
    assert module.Box.size == 3
    assert module.RATES == [1, 2]
    for name in ("lower", "A", "b", "HIDDEN"):
        assert not hasattr(module, name)
    with pytest.raises(NameError, match="lower"):
        module.leans()


def test_loading_again_leaves_the_first_modules_own_tables(write):
    path = write("NAMES = {}", 'NAMES["one"] = 1')
    first = load(path)
    first.NAMES["two"] = 2
    assert load(path).NAMES == {"one": 1}
    assert first.NAMES == {"one": 1, "two": 2}


def test_errors_name_the_notebook_the_cell_and_the_line(write):
    module = load(write("ONE = 1", "def invert(x):\n    # a comment\n    return 1 / x"))
    with pytest.raises(ZeroDivisionError) as caught:
        module.invert(0)
    text = "".join(traceback.format_exception(caught.value))
    assert 'File "small.ipynb, cell 2", line 3, in invert' in text
    assert "return 1 / x" in text
    with pytest.raises(SyntaxError) as caught:
        load(write("x = 1", "def f(:\n    pass"))
    assert caught.value.filename == "small.ipynb, cell 2"


def test_a_notebook_is_sought_here_then_beside_another_then_in_the_project(
    write, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert load("ODE.ipynb").__file__ == str(ROOT / "ODE.ipynb")
    write("HERE = 1", name="ODE.ipynb")
    assert load("ODE.ipynb").HERE == 1
    other = write("from dlutils.notebook import load", 'ODE = load("ODE.ipynb")')
    monkeypatch.chdir(tmp_path.parent)
    assert load(other).ODE.HERE == 1
    assert hasattr(load("ODE.ipynb"), "train"), "when that is loaded, its folder is not searched"


def test_what_is_no_notebook_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=f"no notebook 'No.ipynb' in {tmp_path} or {ROOT}: .*--cwd"
    ):
        load("No.ipynb")
    (tmp_path / "broken.ipynb").write_text("not json")
    with pytest.raises(ValueError, match=r"broken.ipynb' is not a notebook"):
        load("broken.ipynb")


def test_a_trained_model_comes_back_from_a_file(tmp_path):
    """Here, beside a module of the same notebook, and elsewhere, with no more than the package."""
    dataset, y = make_dataset("gaussian", 200, 50, 50), torch.linspace(-1, 3, 50)
    code, values = "import torch\n", []
    for path in (ROOT / "ODE.ipynb", ROOT / "SDE.ipynb"):
        model = load(path).train(dataset, n_iterations=5, progress=False)
        values.append(model.log_likelihood(y))  # which fills its caches
        torch.save(model, tmp_path / f"{path.stem}.pt")
        load(path)
        copy = torch.load(tmp_path / f"{path.stem}.pt", weights_only=False)
        assert type(copy) is type(model)
        assert torch.equal(copy.log_likelihood(y), values[-1])
        code += f"model = torch.load('{path.stem}.pt', weights_only=False)\n"
        code += "print(*model.log_likelihood(torch.linspace(-1, 3, 50)).tolist())\n"
    command, env = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, check=True)
    found = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert found == [value.tolist() for value in values]


CACHING = """from functools import cached_property
class Base:
    def __init__(self, x):
        self.x = x
    @cached_property
    def square(self):
        return lambda: self.x**2
class Derived(Base):
    @cached_property
    def cube(self):
        return lambda: self.x**3
def double(x):
    return 2 * x"""


def by_pickle(value):
    return pickle.loads(pickle.dumps(value))


def test_cached_values_are_left_out_of_a_pickle_and_made_anew(write):
    module = load(write(CACHING))
    for cls in (module.Base, module.Derived):
        instance = cls(3)
        values = [getattr(instance, name)() for name in ("square", "cube") if hasattr(cls, name)]
        copy = by_pickle(instance)
        assert vars(copy) == {"x": 3}
        assert copy.square() == values[0] == 9
    assert copy.cube() == values[1] == 27
    assert by_pickle(module.double) is module.double
    own = CACHING.replace("class Base:", "class Base:\n    __getstate__ = lambda self: {'x': 5}")
    module = load(write(own))
    assert [by_pickle(cls(3)).x for cls in (module.Base, module.Derived)] == [5, 5], "its own word"


def test_what_was_pickled_from_a_notebook_that_has_changed(write, monkeypatch):
    path = write(CACHING)
    module = load(path)
    data = pickle.dumps(module.Derived(3))

    def in_a_fresh_process():
        monkeypatch.delitem(sys.modules, module.__name__, raising=False)
        return pickle.loads(data)

    write(CACHING.replace("self.x**3", "self.x**4"))
    assert in_a_fresh_process().cube() == 81, "by what the notebook says now"
    write(CACHING.replace("Derived", "Other"))
    with pytest.raises(AttributeError, match=rf"'Derived' on <module .* from '{path}'"):
        in_a_fresh_process()
    path.unlink()
    with pytest.raises(ValueError, match=f"no notebook '{path}'"):
        in_a_fresh_process()


def tag(path, *tags):
    """Tag a notebook's code cells, one each."""
    notebook = nbformat.read(path, 4)
    for cell, word in zip(notebook.cells[1:], tags, strict=False):
        cell.metadata.tags = [word]
    nbformat.write(notebook, path)


def test_run_writes_a_build_and_leaves_the_notebook_alone(write, tmp_path, capsys):
    values = "print('expected log-likelihood  -1.5')\nprint('final log-likelihood  -1.6')"
    path = write(values, "print('final log-likelihood  -9.9')")
    tag(path, "summary")
    timed, _ = execute(path, timing=True)
    assert "shell.execute_reply" in timed.cells[1].metadata.execution
    nbformat.write(timed, path)
    before = path.read_bytes()
    assert main([str(path), "--output", str(tmp_path / "build")]) == 0
    assert path.read_bytes() == before
    assert "expected log-likelihood" in (tmp_path / "build" / "small.html").read_text()
    assert re.search(r"small.ipynb +\d+ +-1.6 +-1.5\n$", capsys.readouterr().out)
    built = nbformat.read(tmp_path / "build" / path.name, 4)
    assert "execution" not in built.cells[1].metadata
    assert built.metadata.language_info == {"name": "python"}, "of no version"


def test_run_goes_on_after_what_fails_and_leaves_that_notebook(
    write, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write(
        "1 + 1", "raise RuntimeError('here\\nor there')", "print('still run')", name="wrong.ipynb"
    )
    write("1", "import os\nos._exit(1)", "2", name="dead.ipynb")
    write("1", "import time\ntime.sleep(600)", name="slow.ipynb")
    meant = write("1 / 0", "print('the other')", name="meant.ipynb")
    tag(meant, "raises-exception")
    names = [f"{name}.ipynb" for name in ("wrong", "dead", "slow", "meant")]
    before = [(tmp_path / name).read_bytes() for name in names]
    assert main([*names, "--in-place", "--timeout", "5"]) == 1
    printed = capsys.readouterr()
    assert (
        f"wrong.ipynb is left as it was; with its errors: {Path('build', names[0])}" in printed.err
    )
    wrong, dead, slow = printed.err.splitlines()[-3:]
    assert wrong == "wrong.ipynb, In [2]: RuntimeError: here"
    assert dead.startswith("dead.ipynb, In [2]: DeadKernelError: Kernel died")
    assert re.match(r"slow.ipynb, In \[2\]: CellTimeoutError: A cell timed out .*5 sec", slow)
    assert re.search(r"wrong.ipynb +\d+ (.*\n)+ *meant.ipynb +\d+ ", printed.out)
    after = [(tmp_path / name).read_bytes() for name in names]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, True, False]
    kinds = lambda path: [
        output.output_type for cell in nbformat.read(path, 4).cells[1:] for output in cell.outputs
    ]
    build = tmp_path / "build"
    assert kinds(build / "wrong.ipynb") == ["execute_result", "error", "stream"]
    assert [kinds(build / f"{name}.ipynb") for name in ("dead", "slow")] == 2 * [
        ["execute_result", "error"]
    ]
    assert kinds(meant) == ["error", "stream"]
    assert {path.stem for path in build.glob("*.html")} == {"wrong", "dead", "slow"}


def test_an_interrupted_run_leaves_what_was_executed(write, tmp_path):
    path = write("print('first')", "open('begun', 'w').close()\nimport time\ntime.sleep(600)", "3")
    command = [sys.executable, "-m", "dlutils.tools.notebooks", path.name]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    run = subprocess.Popen(command, cwd=tmp_path, env=env, **pipes)
    end = time.monotonic() + HANGS
    while not (tmp_path / "begun").exists() and time.monotonic() < end and run.poll() is None:
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=HANGS)
    assert run.returncode == 130, errors
    assert "What was executed of small.ipynb is in build" in errors
    cells = nbformat.read(tmp_path / "build" / "small.ipynb", 4).cells
    assert [bool(cell.outputs) for cell in cells[1:]] == [True, False, False]


CLAIM = """
[[claims]]
question = "1.3"
says = "mass of 1.002 to 1.003"
of = ["small | mass"]

[[claims]]
question = "1.4"
says = "below 0.001"
of = ["other | KL"]
"""


@pytest.fixture
def claimed(write, tmp_path, monkeypatch):
    """A notebook with settings, run without a kernel, its mass, and claims, in a git repository."""
    monkeypatch.chdir(tmp_path)
    Path("tests").mkdir()
    Path("tests", "claims.toml").write_text(CLAIM, encoding="utf-8")
    Path("figures").mkdir()
    Path("figures", "small_numbers.csv").write_text("name,value\nmass,1.0024")
    path = write("DATASET = 'gaussian'  # or 'laplace'\nSUPPORT = WEIGHTS = None\nSEED = 0")
    tag(path, "parameters")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(notebooks, "execute", lambda path, *_, **__: (nbformat.read(path, 4), 0.0))
    return path


def replaced(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_run_ends_with_the_sentences_that_do_not_hold(claimed, capsys):
    assert main([claimed.name]) == 0
    assert capsys.readouterr().out.endswith("All 1 sentences hold here.\n"), "not of the other"
    replaced(Path("figures", "small_numbers.csv"), "1.0024", "1.0042")
    assert main([claimed.name]) == 0
    said = '1.3 says "mass of 1.002 to 1.003"; here 1.0042\n'
    assert capsys.readouterr().out.endswith(said)
    Path("tests", "claims.toml").rename("claims.toml")
    assert main([claimed.name]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "small.ipynb", "in a hand-out"
    Path("claims.toml").rename(Path("tests", "claims.toml"))
    notebook = nbformat.read(claimed, 4)
    notebook.cells[1].outputs = [new_output("error", ename="E", evalue="", traceback=[])]
    nbformat.write(notebook, claimed)
    assert main([claimed.name]) == 1
    assert "says" not in capsys.readouterr().out, "of a notebook that failed"


def test_changed_settings_are_named_and_the_sentences_checked_with_another_seed_alone(
    claimed, tmp_path, monkeypatch, capsys
):
    replaced(claimed, "SEED = 0", "SEED = 3  # of mine")
    assert main([claimed.name]) == 0
    assert capsys.readouterr().out.endswith(
        "Changed in small.ipynb: SEED = 3. The answers are to hold all the same.\n"
        "All 1 sentences hold here.\n"
    )
    replaced(claimed, "SEED = 3", "MORE = 1")
    replaced(claimed, "'gaussian'  # or 'laplace'", "str('laplace')")
    replaced(claimed, "SUPPORT = WEIGHTS = None", "WEIGHTS = SUPPORT = (0, 1)")
    assert main([claimed.name]) == 0
    assert capsys.readouterr().out.endswith(
        "Changed in small.ipynb: DATASET = str('laplace'), WEIGHTS = (0, 1), SUPPORT = (0, 1), "
        "MORE = 1. The answers are about the settings as they come.\n"
    )
    untracked = claimed.with_name("copy.ipynb")
    untracked.write_bytes(claimed.read_bytes())
    assert changed_settings(untracked) == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert changed_settings(claimed) == {}, "without git"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_committed_notebook_is_clean(path):
    """Run from top to bottom, no stderr, no paths, no widgets, small, kernel python3."""
    assert path.stat().st_size < 1_000_000
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [cell for cell in code if "parameters" in cell.metadata.get("tags", [])] == [code[1]]
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        assert cell.source.strip(), "no empty cells"
        assert "execution" not in cell.metadata, "no times"
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output.text
            text = output.get("text") or "".join(
                value for kind, value in output.data.items() if kind.startswith("text/")
            )
            assert not re.search(r"(?:/home/|/tmp/|/work/|/root/|site-packages|[A-Z]:\\)", text)
            assert not re.search(r"[Ww]arning", text)
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
            if "image/png" in output.get("data", {}):
                assert output.metadata.get("alt"), "every figure has a caption"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_every_figure_and_table_is_there_for_the_report(path):
    code = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code")
    report = (ROOT / "figures" / f"{path.stem}.tex").read_text(encoding="utf-8")
    entries = re.findall(r"^\\begin{(figure|table).*?\\label{(.*?)}", report, re.M | re.DOTALL)
    for kind, endings in (("figure", ("pdf", "png")), ("table", ("tex", "md", "csv"))):
        names = [name for found, name in entries if found == kind]
        assert len(names) == len(set(names)) == code.count(f"report.{kind}(")
        for name in names:
            assert f'"{name}"' in code
            assert all((ROOT / "figures" / f"{name}.{ending}").exists() for ending in endings)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_each_question_ends_in_one_short_answer(path):
    cells = nbformat.read(path, 4).cells
    order = [
        "answer" if "answer" in cell.metadata.get("tags", []) else "question"
        for cell in cells
        if "answer" in cell.metadata.get("tags", []) or re.match(r"## [12]\.\d", cell.source)
    ]
    assert order == ["question", "answer"] * (len(order) // 2)
    for cell in cells:
        if "answer" in cell.metadata.get("tags", []):
            start = cell.source[:60]
            assert re.match(r"\*\*.+?\*\*", cell.source), f"it begins with a bold sentence: {start}"
            assert len(re.findall(r"^\* ", cell.source, flags=re.MULTILINE)) <= 3, start
        assert cell.cell_type == "markdown" or "Markdown(" not in cell.source, "no prose in code"


@pytest.mark.parametrize(("name", "most"), [("ODE", 330), ("SDE", 460), ("BEYOND", 320)])
def test_notebooks_are_short_enough_to_read(name, most):
    cells = nbformat.read(ROOT / f"{name}.ipynb", 4).cells
    lines = [cell.source.splitlines() for cell in cells if cell.cell_type == "code"]
    assert max(len(line) for cell in lines for line in cell) <= 100
    sizes = [sum(not re.match(r"\s*(#|$)", line) for line in cell) for cell in lines]
    assert max(sizes) <= 30
    assert most - 100 < sum(sizes) <= most
    first = next(k for k, cell in enumerate(cells) if cell.source.startswith("## "))
    code = [cell for cell in cells[:first] if cell.cell_type == "code"]
    assert len(code) <= 3, "imports, settings, and what a quick run makes of them"
