import io
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from conftest import HANGS, ROOT
from dlutils.datasets import make_dataset
from dlutils.lesson import structure
from dlutils.notebooks import load, main, summary

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
            "if True:\n    HIDDEN = 1",
        )
    )
    assert module.area(2) == pytest.approx(4 * module.math.pi)
    assert module.Box.size == 3
    assert module.RATES == [1, 2]
    for name in ("lower", "A", "b", "HIDDEN"):
        assert not hasattr(module, name)


def test_each_load_is_fresh(write):
    path = write("NAMES = []")
    load(path).NAMES.append(1)
    assert load(path).NAMES == []


def test_loading_again_leaves_the_first_modules_own_tables(write):
    path = write("NAMES = {}", 'NAMES["one"] = 1')
    first = load(path)
    assert load(path).NAMES == first.NAMES == {"one": 1}


def test_a_function_that_leans_on_a_notebook_variable_fails(write):
    module = load(write("offset = 3", "def shifted(x):\n    return x + offset"))
    with pytest.raises(NameError, match="offset"):
        module.shifted(1)


def test_traceback_names_notebook_cell_and_line(write):
    module = load(write("ONE = 1", "def invert(x):\n    # a comment\n    return 1 / x"))
    with pytest.raises(ZeroDivisionError) as caught:
        module.invert(0)
    text = "".join(traceback.format_exception(caught.value))
    assert 'File "small.ipynb, cell 2", line 3, in invert' in text
    assert "return 1 / x" in text


def test_syntax_error_names_the_cell(write):
    with pytest.raises(SyntaxError) as caught:
        load(write("x = 1", "def f(:\n    pass"))
    assert caught.value.filename == "small.ipynb, cell 2"


def test_load_says_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"no notebook .*missing.ipynb"):
        load(tmp_path / "missing.ipynb")
    (tmp_path / "broken.ipynb").write_text("not json")
    with pytest.raises(ValueError, match=r"broken.ipynb' is not a notebook"):
        load(tmp_path / "broken.ipynb")


def test_a_notebook_is_sought_in_the_folder_then_in_the_project(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load("ODE.ipynb").__file__ == str(ROOT / "ODE.ipynb")
    write("HERE = 1", name="ODE.ipynb")
    assert load("ODE.ipynb").HERE == 1
    monkeypatch.chdir(ROOT)
    assert hasattr(load("ODE.ipynb"), "train")


def test_a_notebook_finds_the_one_beside_it(write, monkeypatch):
    write("HERE = 1", name="ODE.ipynb")
    write("HERE = 2", name="other.ipynb")
    both = write(
        "from dlutils.notebooks import load",
        'ODE = load("ODE.ipynb")',
        'OTHER = load("other.ipynb")',
        name="both.ipynb",
    )
    monkeypatch.chdir(both.parent.parent)
    found = load(both)
    assert (found.ODE.HERE, found.OTHER.HERE) == (1, 2)
    assert hasattr(load("ODE.ipynb"), "train"), "when that is loaded, its folder is not searched"


def test_a_missing_notebook_names_the_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = f"no notebook 'No.ipynb' in {tmp_path} or {ROOT}: .*--cwd"
    with pytest.raises(ValueError, match=message):
        load("No.ipynb")


def trained(name):
    """A model after five iterations; its density was asked for, which fills its caches."""
    dataset = make_dataset("gaussian", 200, 50, 50)
    model = load(ROOT / name).train(dataset, n_iterations=5, progress=False)
    model.log_likelihood(dataset.test)
    return model


@cache
def both():
    return {name: trained(name) for name in ("ODE.ipynb", "SDE.ipynb")}


@pytest.fixture
def models():
    """Trained."""
    return both()


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def by_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("name", ["ODE.ipynb", "SDE.ipynb"])
@pytest.mark.parametrize("copied", [by_pickle, by_torch])
def test_a_trained_model_comes_back_from_a_file(models, name, copied):
    model, y = models[name], torch.linspace(-1, 3, 50)
    load(ROOT / name)  # which is another module
    copy = copied(model)
    assert type(copy) is type(model)
    assert torch.equal(copy.log_likelihood(y), model.log_likelihood(y))


def test_trained_models_come_back_from_another_process(models):
    y = torch.linspace(-1, 3, 50)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for name, model in models.items():
            copy = pool.submit(trained, name).result(HANGS)
            assert torch.equal(copy.log_likelihood(y), model.log_likelihood(y))
            there = pool.submit(type(model).log_likelihood, model, y).result(HANGS)
            assert torch.equal(there, model.log_likelihood(y)), "one sent there"


def test_a_pickle_needs_no_more_than_the_package(models, tmp_path):
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(models["ODE.ipynb"]))
    code = (
        "import pickle, torch\n"
        "model = pickle.load(open('model.pkl', 'rb'))\n"
        "print(type(model).__name__, model.log_likelihood(torch.ones(1)).item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    name, value = done.stdout.split()
    assert name == "FittedODE"
    assert float(value) == models["ODE.ipynb"].log_likelihood(torch.ones(1)).item()


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


def test_a_class_that_says_what_to_pickle_is_left_alone(write):
    own = CACHING.replace("class Base:", "class Base:\n    __getstate__ = lambda self: {'x': 5}")
    module = load(write(own))
    assert [by_pickle(cls(3)).x for cls in (module.Base, module.Derived)] == [5, 5]


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


def test_summary_reads_tagged_cells_only():
    output = nbformat.v4.new_output(
        "stream", text="final log-likelihood   -1.25\nother  2.0 nats\n"
    )
    tagged = new_code_cell("", outputs=[output], metadata={"tags": ["summary"]})
    other = new_code_cell("", outputs=[output])
    found = summary(new_notebook(cells=[tagged]))
    assert found == {"final log-likelihood": "-1.25", "other": "2.0"}
    assert summary(new_notebook(cells=[other])) == {}


def test_run_writes_a_build_and_leaves_the_notebook_alone(write, tmp_path, capsys):
    path = write("print('expected log-likelihood  -1.5')\nprint('final log-likelihood  -1.6')")
    notebook = nbformat.read(path, 4)
    notebook.cells[1].metadata.tags = ["summary"]
    nbformat.write(notebook, path)
    before = path.read_bytes()
    assert main([str(path), "--output", str(tmp_path / "build")]) == 0
    assert path.read_bytes() == before
    assert "expected log-likelihood" in (tmp_path / "build" / "small.html").read_text()
    assert re.search(r"small.ipynb +\d+ +-1.6 +-1.5\n$", capsys.readouterr().out)
    assert main([str(path), "--in-place"]) == 0
    assert nbformat.read(path, 4).cells[1].outputs


def test_run_reports_a_failing_cell(write, tmp_path, capsys):
    path = write("1 + 1", "raise RuntimeError('here')", "print('never')")
    assert main([str(path), "--output", str(tmp_path / "build")]) == 1
    assert re.search(
        r"small.ipynb: a cell failed(.|\n)*RuntimeError.*: .*here", capsys.readouterr().err
    )
    assert nbformat.read(tmp_path / "build" / "small.ipynb", 4).cells[2].outputs


def test_command_line_has_help():
    command = [sys.executable, "-m", "dlutils.notebooks", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--in-place" in done.stdout


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
    for kind, endings in (("figure", ("pdf", "png")), ("table", ("tex", "md", "csv"))):
        call = rf"^report\.{kind}\([^\n]*\)$|^report\.{kind}\(\n.*?^\)"
        calls = re.findall(call, code, flags=re.MULTILINE | re.DOTALL)
        assert len(calls) == code.count(f"report.{kind}(")
        for call in calls:
            (name,) = re.findall(rf'"({path.stem}_\w+)"', call)
            assert all((ROOT / "figures" / f"{name}.{ending}").exists() for ending in endings)
            assert f"\\label{{{name}}}" in report


def questions(notebook):
    """For each answer: its first words, itself, and the cells above it in its question."""
    above = []
    for cell in notebook.cells:
        if "answer" in cell.metadata.get("tags", []):
            yield cell.source[:60], cell.source, above
            above = []
        else:
            above.append(cell)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_each_question_ends_in_one_short_answer(path):
    notebook = nbformat.read(path, 4)
    headings = [c.source for c in notebook.cells if re.match(r"## [12]\.\d", c.source)]
    answers = list(questions(notebook))
    assert len(answers) == len(headings)
    for start, answer, _ in answers:
        assert re.match(r"\*\*.+?\*\*", answer), f"an answer begins with a bold sentence: {start}"
        assert len(re.findall(r"^\* ", answer, flags=re.MULTILINE)) <= 3, start
    source = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    assert "Markdown(" not in source, "prose is in Markdown cells"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_every_number_in_an_answer_is_held_by_an_assertion_above_it(path):
    notebook = nbformat.read(path, 4)
    held = {}
    for start, answer, above in questions(notebook):
        code = "\n".join(cell.source for cell in above if cell.cell_type == "code")
        held |= {start: set(re.findall(r'"([−\d][\d ]*(?:\.\d+)?)": ', code))}
        held[start] |= set(re.findall(r"(?<![\w.\"])\d+\.\d+(?![\w\"])", code))  # what is set there
        text = re.sub(r"\$[^$]*\$|\]\([^)]*\)|`[^`]*`|\w+\([^)]*\)", "", answer)
        for number in re.findall(r"(?<![\w.])−?\d+\.\d+", text):
            assert number in held[start], f"{number} in {start!r}"
    (overview,) = (c.source for c in notebook.cells if "map" in c.metadata.get("tags", []))
    rows = re.findall(r"^\| \[\d\.\d\]\(#.*$", overview, flags=re.MULTILINE)
    assert len(rows) == len(held)
    for row, numbers in zip(rows, held.values(), strict=True):
        text = re.sub(r"\$[^$]*\$|\[.*?\]\([^)]*\)|\w+\([^)]*\)", "", row)
        for number in re.findall(r"(?<![\w.])−?\d+\.\d+", text):
            assert number in numbers, f"{number} in the overview: {row[:60]}"


@pytest.mark.parametrize(("name", "most"), [("ODE", 500), ("SDE", 800)])
def test_notebooks_are_short_enough_to_read(name, most):
    counts = structure(nbformat.read(ROOT / f"{name}.ipynb", 4))
    assert counts["lines of code"] <= most
    assert counts["longest cell"] <= 30
    assert counts["longest line"] <= 100
    assert counts["cells before the first question"] <= 2
    assert counts["asks what is known or unchanged"] <= 1
