"""What students get: no answers, the program intact or blanked, the master as it was."""

import ast
import json
import re

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from conftest import ROOT
from dlutils.notebook import code_of
from dlutils.tools import handout

COMMITTED = {path.stem: nbformat.read(path, 4) for path in sorted(ROOT.glob("*.ipynb"))}
WORDS = ["integrator", "likelihood", "bound"]
NOTEBOOK_OF = {"integrator": "ODE", "likelihood": "ODE", "bound": "SDE"}
WRONG = {  # a sign, in code that is blanked
    "integrator": ("x + h * dot(b, F)", "x - h * dot(b, F)"),
    "likelihood": ("h * dot(b, G), r", "-h * dot(b, G), r"),
    "bound": ("- sigma**2 * eps / (2 * beta)", "+ sigma**2 * eps / (2 * beta)"),
}
SOLVER = '''\
def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


@decorated
def solve(f, x, *, n=10):
    """Solve dx/dt = f(x).

    Args:
        n: Steps.
    """
    for _ in range(n):  # a comment
        x = x + f(x) / n
    return x


class Model:
    size = 3

    def _hidden(self):
        return 1

    def loss(self, y):
        return (y - self.size) ** 2


solve(abs, 1)'''


def tagged(cell, *tags):
    cell.metadata.tags = list(tags)
    return cell


@pytest.fixture
def small():
    figure = new_output("display_data", {"image/png": "AAAA", "text/plain": "<Figure>"})
    printed = new_output("stream", text="KL 0.0123\n")
    return new_notebook(
        cells=[
            tagged(new_markdown_cell("Asked:\n\n| | question | answer |\n|---|---|---|\n"
                                     "| [1.1](#1) | $p(x|y)$? `a|b` | it is 0.0123 |"), "map"),
            tagged(new_code_cell(SOLVER, outputs=[printed]), "exercise", "integrator"),
            tagged(new_code_cell("assert solve(abs, 1)\nx = 1", outputs=[printed, figure]),
                   "expected-figure"),
            tagged(new_markdown_cell("**The KL is 0.0123.**\n\n* As printed."), "answer"),
        ]
    )  # fmt: skip


def test_handout_has_no_answer(small):
    given = handout.handout(small)
    assert "0.0123" not in json.dumps(given)
    assert [cell.source for cell in given.cells if "answer" in cell.metadata.tags] == [
        "*Your answer*"
    ]
    question, program, check, answer = given.cells
    assert question.source.splitlines()[2:] == [
        "| | question |", "|---|---|", "| [1.1](#1) | $p(x|y)$? `a|b` |",
    ]  # fmt: skip
    assert program.source == SOLVER
    assert program.outputs == []
    assert check.source == "assert solve(abs, 1)\nx = 1"
    assert [list(output.data) for output in check.outputs] == [["image/png", "text/plain"]]
    assert [cell.get("execution_count") for cell in (program, check)] == [None, None]
    assert answer.id == small.cells[-1].id


def test_blank_keeps_signature_and_docstring_and_says_what_to_write():
    before, after = (ast.parse(code) for code in (SOLVER, handout.blank(SOLVER, ["solve", "loss"])))
    functions = lambda tree: {f.name: f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}
    old, new = functions(before), functions(after)
    assert list(old) == list(new)
    for name in old:
        assert ast.dump(old[name].args) == ast.dump(new[name].args)
        assert ast.get_docstring(old[name]) == ast.get_docstring(new[name])
        same = ast.unparse(old[name]) == ast.unparse(new[name])
        assert same == (name in ("dot", "_hidden"))
        left = [type(line) for line in new[name].body if not same]
        assert left in ([], [ast.Expr, ast.Raise], [ast.Raise]), "a docstring, and no program"
    assert ast.unparse(new["solve"].decorator_list[0]) == "decorated"
    assert ast.unparse(before.body[-1]) == ast.unparse(after.body[-1]), "what is no function stays"
    scope = {"decorated": lambda f: f}
    exec(handout.blank(SOLVER.rpartition("\n")[0]), scope)
    with pytest.raises(NotImplementedError, match=r"write solve: Solve dx/dt = f\(x\)\."):
        scope["solve"](abs, 1)
    with pytest.raises(NotImplementedError, match="write loss"):
        scope["Model"]().loss(1)
    assert scope["Model"]()._hidden() == 1, "private"


def test_what_an_author_does_wrong_is_named():
    answer = new_notebook(cells=[tagged(new_code_cell("print('It is 3.')"), "answer")])
    with pytest.raises(ValueError, match=r"an answer is a Markdown cell, not .*It is 3"):
        handout.handout(answer)
    with pytest.raises(ValueError, match=r"functions of the cell: \[\]"):
        handout.blank("x = 1")
    with pytest.raises(ValueError, match=r"to blank: \['sole'\].*'dot', 'solve'"):
        handout.blank(SOLVER, ["sole"])


def test_folder_has_all_that_is_needed(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    nbformat.write(small, "ODE.ipynb")
    before = (tmp_path / "ODE.ipynb").read_bytes()
    assert handout.main([]) == 0
    assert handout.main(["--solution"]) == 0
    assert (tmp_path / "ODE.ipynb").read_bytes() == before
    for name in ("handout", "solution"):
        folder = tmp_path / "build" / name
        assert (folder / "dlutils" / "report.mplstyle").exists()
        assert not list(folder.rglob("__pycache__"))
        assert "torch==" in (folder / "requirements.txt").read_text()
        assert "Your answer" in (folder / "README.md").read_text(encoding="utf-8")
        assert ("0.0123" in (folder / "ODE.ipynb").read_text()) == (name == "solution")
    assert handout.main(["--blank", "integrator"]) == 0
    assert "NotImplementedError" in (tmp_path / "build" / "handout" / "ODE.ipynb").read_text()
    with pytest.raises(SystemExit):
        handout.main(["--blank", "integrator,integrtor"])
    assert "called 'integrtor'; choose from integrator" in capsys.readouterr().err


def test_the_committed_notebooks_have_the_tags():
    assert handout.words(COMMITTED.values()) == WORDS
    for name, questions in {"ODE": 5, "SDE": 6}.items():
        tags = [tag for cell in COMMITTED[name].cells for tag in cell.metadata.get("tags", [])]
        assert tags.count("answer") == questions
        assert tags.count("map") == 1
        assert tags.count("expected-figure") > 0


@pytest.mark.parametrize("name", COMMITTED)
def test_no_answer_of_the_committed_notebooks_is_handed_out(name):
    given = handout.handout(COMMITTED[name], WORDS)
    text = "\n".join(cell.source for cell in given.cells)
    for cell in COMMITTED[name].cells:
        if "answer" in cell.metadata.get("tags", []):
            sentences = [line for line in cell.source.splitlines() if re.search(r"\w{3}", line)]
            assert sentences
            assert [line for line in sentences if line in text] == []
    outputs = [output for cell in given.cells for output in cell.get("outputs", [])]
    assert all("image/png" in output.data for output in outputs)


@pytest.mark.parametrize("word", WORDS)
def test_a_wrong_sign_is_caught_by_the_checks_below(word, tmp_path, monkeypatch):
    """The notebook up to the end of the exercise's section, right and with one sign turned."""
    monkeypatch.chdir(tmp_path)
    for name, notebook in COMMITTED.items():
        nbformat.write(notebook, f"{name}.ipynb")
    cells = COMMITTED[NOTEBOOK_OF[word]].cells
    last = max(k for k, cell in enumerate(cells) if word in cell.metadata.get("tags", []))
    heading = lambda cell: cell.cell_type == "markdown" and cell.source.startswith("#")
    end = next(k for k in range(last + 1, len(cells)) if heading(cells[k]))
    program = "\n".join(code_of(cells[:end]))
    right, wrong = WRONG[word]
    tagged_code = [c.source for c in cells[:end] if word in c.metadata.get("tags", [])]
    assert sum(source.count(right) for source in tagged_code) == 1
    with plt.rc_context():
        exec(compile(program, word, "exec"), {"__name__": word})
        with pytest.raises(AssertionError):
            exec(compile(program.replace(right, wrong), word, "exec"), {"__name__": word})
    plt.close("all")
