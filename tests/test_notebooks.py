import re
import subprocess
import sys
import traceback

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from conftest import ROOT
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
