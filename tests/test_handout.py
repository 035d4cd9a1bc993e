"""What students get: no answers, the program intact or blanked, the master as it was."""

import ast
import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from conftest import ROOT
from dlutils.tools import handout
from dlutils.tools.claims import checking

COMMITTED = {path.stem: nbformat.read(path, 4) for path in sorted(ROOT.glob("*.ipynb"))}
WORDS = ["integrator", "likelihood", "bound"]
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
    assert handout.main(["--blank", "integrator, integrator "]) == 0


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


def told(notebook, claims):
    """What the prose of a notebook gives away: numbers that answers say, and their bold words."""
    answers = [c.source for c in notebook.cells if "answer" in c.metadata.get("tags", [])]
    bold = [words for text in answers for words in re.findall(r"\*\*(.+?)\*\*", text)]
    left = [c.source for c in handout.handout(notebook).cells if c.cell_type == "markdown"]
    text = " ".join(" ".join(left).split())
    return [words for words in [*bold, *(claim.says for claim in claims)] if words in text]


@pytest.mark.parametrize("name", COMMITTED)
def test_no_number_and_no_bold_words_of_the_answers_are_left(name):
    claims, _ = checking.load(ROOT / checking.CLAIMS)
    assert told(COMMITTED[name], claims) == []


def test_what_prose_gives_away_is_found():
    prose = new_markdown_cell("Here it is 0.01 to 0.03 nats, since **the net is small**.")
    answer = tagged(new_markdown_cell("**It is** small: **the net is small**."), "answer")
    claim = checking.Claim("1.3", "0.01 to 0.03 nats", ("ODE | KL",))
    assert told(new_notebook(cells=[prose, answer]), [claim]) == ["the net is small", claim.says]
    assert told(new_notebook(cells=[tagged(prose, "told"), answer]), [claim]) == []
