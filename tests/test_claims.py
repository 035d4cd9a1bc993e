"""Sentences with numbers: what their words promise, and whether what was computed keeps it."""

import contextlib
import math
import re
from concurrent.futures import ThreadPoolExecutor

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from conftest import ROOT
from dlutils.tools.claims import checking, spread
from dlutils.tools.claims.__main__ import main
from dlutils.tools.claims.checking import Claim, check, messages, range_of, value_of

TABLES = {
    "ODE_numbers": "name,value\nmass,1.0024\nKL of it,0.0005\nminus,−0.5\nshare,0.068\n",
    "ODE_measured": "name,value\nseconds,12\n",
    "ODE_table": 'model,T,KL,"KL, %"\nmlp,10,0.0010 ± 0.0001,5\n"mlp, wide",10,+0.0020,6\n'
    "mlp,100,none,7\nmlp,30,1,1\nmlp,30,2,2\n",
}


@pytest.fixture(autouse=True)
def figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "figures").mkdir()
    for name, text in TABLES.items():
        (tmp_path / "figures" / f"{name}.csv").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", "")  # a run adds to it: put back afterwards


def write(text):
    checking.CLAIMS.parent.mkdir(exist_ok=True)
    checking.CLAIMS.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("phrase", "low", "high"),
    [
        ("a mass of 1.002 to 1.003", 1.0015, 1.0035),
        ("a mass of 1.002–1.003 here", 1.0015, 1.0035),
        ("between 0.02 and 0.5 nats", 0.015, 0.55),
        ("5 % to 12 % of the peak", 4.5, 12.5),
        ("from −0.75 to -0.70", -0.755, -0.695),
        ("below 0.001 nats", -math.inf, 0.001),
        ("up to 10 000 points", -math.inf, 10_000),
        ("above −0.73", -0.73, math.inf),
        ("More than 100 times", 100, math.inf),
        ("at least 0.2", 0.2, math.inf),
        ("about 12 nats", 9, 15),
        ("around −2", -2.5, -1.5),
        ("roughly 1\u00a0000 times", 750, 1250),
        ("within 0.002 of the truth", -0.002, 0.002),
        ("the mass is 1.00.", 0.995, 1.005),
        ("of size 1e-15 only", 0.5e-15, 1.5e-15),
        ("at $T=30$ a mass of 1.01 to 1.03 by `rk2` and `f(0.5)`", 1.005, 1.035),
        ("awesome 2, in all", 1.5, 2.5),
    ],
)
def test_the_range_follows_from_the_words(phrase, low, high):
    assert range_of(phrase) == pytest.approx((low, high), rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("ref", "value"),
    [
        ("ODE | mass", 1.0024),
        ("ODE | seconds", 12),
        ("ODE|minus", -0.5),
        ("ODE_table | model=mlp, T=10 | KL", 0.001),
        ("ODE_table | model=mlp, T=10 | KL, %", 5),
        ("ODE_table | model=mlp, wide, T=10 | KL", 0.002),
    ],
)
def test_a_reference_finds_its_value(ref, value):
    assert value_of(ref) == value


A, B, MASS = "ODE | KL of it", "ODE_table | model=mlp, T=10 | KL", "ODE | mass"  # A < B < MASS


@pytest.mark.parametrize(
    ("says", "values", "wrong"),
    [
        ("mass of 1.0024", {"of": (MASS,)}, ""),
        ("at most 1.0024", {"of": (MASS,)}, ""),
        ("at least 1.0024", {"of": (MASS,)}, ""),
        ("1.002 to 1.003", {"of": (MASS,)}, ""),
        ("mass of 1.003 to 1.004", {"of": (MASS,)}, "here 1.0024"),
        ("below 1.002", {"of": (MASS,)}, "here 1.0024"),
        ("6.8 %", {"of": ("ODE | share",), "scale": 100}, ""),
        ("6.9 % to 7 %", {"of": ("ODE | share",), "scale": 100 * 0.0685 / 0.068}, ""),
        ("below 0.0007", {"of": (A, B)}, f"here 0.001 ({B})"),
        ("below 1", {"of": (A, "ODE_table | T=100 | KL")}, "'none' does not begin with a number"),
        ("ever more", {"order": (A, B, MASS)}, ""),
        ("ever more", {"order": (B, A, MASS)}, f"here 0.0005 ({A}), not above 0.001"),
        ("ever more", {"order": (A, A)}, f"here 0.0005 ({A}), not above 0.0005"),
    ],
)
def test_a_claim_holds_at_the_ends_of_its_range_and_not_beyond(says, values, wrong):
    expected = [f'1.3 says "{says}"; {wrong}'] if wrong else []
    assert messages(check([Claim("1.3", says, **values)])) == expected


TWO = """
given = ["0.5"]

[[claims]]
question = "1.3"
says = "mass of 1.002 to 1.003"
of = "ODE | mass"
scale = 1

[[claims]]
question = "1.4"
says = "from one to the other"
order = ["ODE | KL of it", "SDE | share"]
"""


def test_claims_are_read_from_a_file():
    write(TWO)
    found, given = checking.load()
    assert found == [
        Claim("1.3", "mass of 1.002 to 1.003", ("ODE | mass",)),
        Claim("1.4", "from one to the other", order=("ODE | KL of it", "SDE | share")),
    ]
    assert given == {"0.5"}
    assert checking.about(found, ["ODE"]) == found[:1]
    assert checking.about(found, ["ODE", "SDE"]) == found
    assert checking.about(found, ["O"]) == []


def of_file(text):
    write(text)
    checking.load()


CLAIM = '[[claims]]\nquestion = "1"\n'


@pytest.mark.parametrize(
    ("read", "given", "message"),
    [
        (range_of, "sd 1.06 of 256", "'sd 1.06 of 256' has 2 numbers"),
        (range_of, "1.06 256", "has 2 numbers"),
        (range_of, "2 and 3 nats", "has 2 numbers"),
        (range_of, "1,332 times", "has 2 numbers"),
        (range_of, "at $T=30$ and `5`", "has no numbers"),
        (range_of, "from 7 to 5", "'from 7 to 5' runs backwards"),
        (range_of, "no more than 7", "'no more than 7' denies what follows: say at most, or at"),
        (value_of, "mass", "'mass' is neither 'NOTEBOOK | name' nor"),
        (value_of, "PDE | mass", "there is no table figures/PDE_numbers.csv; choose from ODE_mea"),
        (value_of, "ODE | weight", "ODE has no name 'weight'; choose from mass, KL of it, minus"),
        (value_of, "ODE_table | T=10 | KLs", "ODE_table has no column 'KLs'; choose from model, T"),
        (value_of, "ODE_table | mlp | KL", "'mlp' is not column=value"),
        (
            value_of,
            "ODE_table | model=mlp, T=1 | KL",
            "ODE_table has no T '1'; choose from 10, 100",
        ),
        (value_of, "ODE_table | T=30 | KL", "2 rows of ODE_table have T=30; it takes one"),
        (of_file, "given = [", "is not TOML"),
        (of_file, "takes = []", "has 'takes'; choose from claims, given"),
        (of_file, '[[claims]]\nsays = "5"\nof = "ODE | x"', "missing 1 required positional argum"),
        (of_file, f'{CLAIM}say = "5"', "unexpected keyword argument 'say'"),
        (of_file, f'{CLAIM}says = "5"', "'5' needs either of = "),
        (of_file, f'{CLAIM}says = "5"\norder = ["ODE | x"]', "'5' orders one value"),
        (of_file, f'{CLAIM}says = "much"\nof = "ODE | x"', "'much' has no numbers"),
    ],
)
def test_a_mistake_is_named(read, given, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the message is compared below
        read(given)
    assert message in str(caught.value)


def test_the_command_prints_what_does_not_hold(tmp_path, capsys):
    write(TWO.replace("SDE", "ODE"))
    assert main([]) == 0
    assert capsys.readouterr().out == "2 sentences, 0 do not hold here\n"
    write(TWO.replace("SDE", "ODE").replace("1.002 to", "1.003 to"))
    assert main([]) == 1
    assert capsys.readouterr().out == (
        '1.3 says "mass of 1.003 to 1.003"; here 1.0024\n2 sentences, 1 do not hold here\n'
    )
    assert main(["--figures", str(tmp_path / "none")]) == 1
    assert "2 sentences, 2 do not hold here" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--claims", "none.toml"])
    assert "there is no file none.toml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--claims", str(tmp_path)])
    assert f"{tmp_path} cannot be read" in capsys.readouterr().err


# Other seeds


def notebook(name, values):
    """A notebook with settings that writes numbers."""
    rows = "".join(f"\\n{key},{{{value}}}" for key, value in values.items())
    cells = [
        new_code_cell("SEED = 0", metadata={"tags": ["parameters"]}),
        new_code_cell("import importlib.util\nassert importlib.util.find_spec('dlutils')"),
        new_code_cell("from pathlib import Path\nPath('figures').mkdir(exist_ok=True)"),
        new_code_cell(f"Path('figures/{name}_numbers.csv').write_text(f'name,value{rows}')"),
    ]
    nbformat.write(new_notebook(cells=cells), f"{name}.ipynb")


@pytest.fixture
def ran(monkeypatch):
    """What is executed: by Python alone in place of a kernel, and in one thread."""
    names = []

    def by_python_alone(path, *, allow_errors):
        names.append(path.stem)
        executed, variables = nbformat.read(path, 4), {}
        for cell in executed.cells:
            try:
                with contextlib.chdir(path.parent):
                    exec(cell.source, variables)
            except ZeroDivisionError as error:
                failure = {"ename": type(error).__name__, "evalue": str(error), "traceback": []}
                cell.execution_count, cell.outputs = 4, [new_output("error", **failure)]
        return executed, 0.0

    monkeypatch.setattr(spread, "execute", by_python_alone)
    monkeypatch.setattr(spread, "process_pool", lambda *_: lambda: ThreadPoolExecutor(1))
    return names


def test_seeds_are_run_once_and_tabulated(ran, tmp_path, capsys):
    notebook("ODE", {"mass": "1 + SEED / 100"})
    notebook("SDE", {"gap": "0.1", "more": "0.2"})
    write(
        '[[claims]]\nquestion = "1.3"\nsays = "1.000 to 1.002"\nof = ["ODE | mass"]\n'
        '[[claims]]\nquestion = "2.3"\nsays = "$a|b$ is ever more"\n'
        'order = ["SDE | gap", "SDE | more", "ODE | mass"]\n'
        '[[claims]]\nquestion = "3"\nsays = "about 7"\nof = ["elsewhere | mass"]\n'
    )
    assert main(["--seeds", "1"]) == 0
    assert ran == ["ODE", "SDE"]
    assert "2 sentences, 0 promise more than 1 seeds give" in capsys.readouterr().out
    assert main(["--seeds", "2"]) == 1
    assert len(ran) == 4, "only those with one more seed"
    assert (
        '1.3 says "1.000 to 1.002"; ODE | mass is 1 to 1.01, right on 1 of 2\n'
        "2 sentences, 1 promise more than 2 seeds give" in capsys.readouterr().out
    )
    page = (tmp_path / "docs" / "claims.md").read_text(encoding="utf-8")
    assert "`python -m dlutils.tools.claims --seeds 2` has written this page" in page
    assert page.splitlines()[-4:] == [
        r"| 1.3 | 1.000 to 1.002 | ODE \| mass | 0.9995 | 1.0025 | 1 | 1.01 | 1 of 2 |",
        r"| 2.3 | $a\|b$ is ever more | SDE \| gap | – | – | 0.1 | 0.1 | 2 of 2 |",
        r"| 2.3 | $a\|b$ is ever more | SDE \| more | the row above | – | 0.2 | 0.2 | 2 of 2 |",
        r"| 2.3 | $a\|b$ is ever more | ODE \| mass | the row above | – | 1 | 1.01 | 2 of 2 |",
    ]
    assert main(["--seeds", "1", "--again"]) == 0
    assert len(ran) == 6
    notebook("SDE", {"gap": "0.1", "more": "1 / SEED"})
    assert main(["--seeds", "1"]) == 1
    assert "SEED = 0, SDE.ipynb, RuntimeError: In [4]: ZeroDivisionError" in capsys.readouterr().err
    assert len(ran) == 8, "both anew, for one may take definitions of the other"
    assert main(["--seeds", "1"]) == 1
    assert len(ran) == 9, "what failed, and no more"


def test_a_notebook_is_run_in_a_kernel_that_finds_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    notebook("ODE", {"mass": "1 + SEED / 100"})
    config = {"notebook": "ODE.ipynb", "seed": 3, "folder": str(tmp_path / "found")}
    spread.run_with_seed(config)
    assert value_of("ODE | mass", tmp_path / "found") == 1.03
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), "ODE.ipynb")
    with pytest.raises(ValueError, match="no cell is tagged 'parameters'"):
        spread.run_with_seed(config)


def test_an_interrupted_command_says_so(ran, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    notebook("ODE", {"mass": "1"})
    monkeypatch.setattr(spread, "run_all", interrupted)
    write("")
    assert main(["--seeds", "1"]) == 130
    assert "Interrupted. What is finished is in build/claims" in capsys.readouterr().out
    assert not (tmp_path / "docs" / "claims.md").exists()
    with pytest.raises(SystemExit):
        main(["--seeds", "0"])
    assert "--seeds takes 1 or more, not 0" in capsys.readouterr().err


# The texts: README, docs and the notebooks' Markdown cells.

PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
PAGES["README.md"] = (ROOT / "README.md").read_text(encoding="utf-8")
SPREADS = PAGES.pop("claims.md")  # not a text of its own: it repeats the sentences
CELLS = [
    cell.source
    for path in sorted(ROOT.glob("*.ipynb"))
    for cell in nbformat.read(path, 4).cells
    if cell.cell_type == "markdown"
]
CLAIMED, GIVEN = checking.load(ROOT / checking.CLAIMS)
DECIMAL = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?:e[-+]?\d+)?(?!\.?\w)")
QUESTION = r"(?<![\w.])(?:1\.[1-5]|2\.[1-6])(?!\.?\w| ?(?:%|times|nats|seconds|ms|MB)(?!\w))"


def plain(text):
    """With single spaces and one kind of minus."""
    return re.sub(r"\s+", " ", text.replace("−", "-")).strip()


def unclaimed(text, claimed=CLAIMED, given=GIVEN):
    """The decimal numbers of a text that stand in no claim's phrase and are not given.

    Left out are headings, links, formulas, code and the numbers of questions.
    """
    text = plain(re.sub(r"^#+ .*$", "", text, flags=re.MULTILINE))
    for phrase in sorted((plain(claim.says) for claim in claimed), key=len, reverse=True):
        text = re.sub(rf"(?<![\w.]){re.escape(phrase)}(?!\.?\w)", " ", text)
    apart = r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\[[^\]]*\]\([^)]*\)|https?://\S+"
    text = re.sub(QUESTION, " ", re.sub(apart, " ", text))
    return [n for n in DECIMAL.findall(text) if n not in {plain(number) for number in given}]


def test_each_sentence_stands_in_a_text():
    text = plain("\0".join([*PAGES.values(), *CELLS]))
    assert [claim.says for claim in CLAIMED if plain(claim.says) not in text] == []
    numbers_alone = [c.says for c in CLAIMED if not re.search(r"[^\W\d]{2}", c.says)]
    assert numbers_alone == [], "a phrase has words"


def test_each_number_of_notebooks_answers_and_rubric_stands_in_a_claim():
    _, _, rubric = PAGES["teaching.md"].partition("## Rubric")
    rubric = re.findall(r"^\| \d\.\d \|.*$", rubric.partition("\n## ")[0], flags=re.MULTILINE)
    answers = re.findall(r"^\| \[(?:\d\.\d|\+)\]\(.*$", PAGES["README.md"], flags=re.MULTILINE)
    assert min(len(CELLS), len(rubric), len(answers)) > 10
    texts = [*CELLS, *rubric, *answers]
    assert {text[:50]: numbers for text in texts if (numbers := unclaimed(text))} == {}


def test_a_number_without_a_claim_is_found():
    claim = Claim("1.3", "a mass of −1.002 to 1.003", ("ODE | mass",))
    text = "## 3.5\nWith $T=0.1$, `x = 2.5` and [0.7](#1.9) a mass\nof -1.002 to 1.003 (see 2.4): "
    assert unclaimed(text + "0.5 and 10 000.", [claim], {"0.5"}) == []
    assert unclaimed(text + "−0.5.", [claim], {"0.5"}) == ["-0.5"]
    assert unclaimed(text + "1.0021 or 2.4 times or 2.4 %", [claim], set()) == [
        "1.0021", "2.4", "2.4",
    ]  # fmt: skip
    assert unclaimed("a mass of -1.002 to 1.0031", [claim], set()) == ["-1.002", "1.0031"]


def spreads(page):
    """By question, sentence and value: the values of the seeds."""
    rows = [line[2:-2].split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {
        tuple(cell.replace(r"\|", "|") for cell in row[:3]): [
            float(value.replace("–", "nan")) for value in row[5:-1]
        ]
        for row in rows[2:]
    }


def kept(claim, rows):
    """Whether a page's values of a claim let it be true, with every seed."""
    scale = "" if claim.scale == 1 else f"{claim.scale:g} × "
    says = " ".join(claim.says.split())
    values = [rows.get((claim.question, says, scale + ref), [math.nan]) for ref in claim.refs]
    if claim.order:
        return bool((np.diff(values, axis=0) > 0).all())
    low, high = range_of(claim.says)
    return all(low <= value <= high for of_ref in values for value in of_ref)


def test_the_committed_spreads_lie_in_each_range():
    rows = spreads(SPREADS)
    assert all(len(values) >= 5 for values in rows.values())
    assert [claim for claim in CLAIMED if not kept(claim, rows)] == []


def test_values_of_a_page_are_held_to_the_sentences():
    claims = [
        Claim("1.3", "$a|b$ of 6 % to 7 %", ("ODE | share",), scale=100),
        Claim("1.4", "ever more", order=("ODE | KL of it", "ODE | share")),
        Claim("1", "5 nats", ("ODE | none",)),
    ]
    found = check(claims)
    rows = spreads(spread.page([found, found]))
    assert rows["1.3", "$a|b$ of 6 % to 7 %", "100 × ODE | share"] == [6.8, 6.8]
    assert [kept(claim, rows) for claim in claims] == [True, True, False]
    rows = {key: [values[0], 0.0] for key, values in rows.items()}
    assert [kept(claim, rows) for claim in claims] == [False, False, False]
