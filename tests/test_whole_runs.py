"""Both notebooks whole, as on another processor: the numbers that are committed, the sentences."""

import re
import shutil
from itertools import zip_longest

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook, new_output

from conftest import HANGS, ROOT
from dlutils.tools.claims import checking
from dlutils.tools.notebooks import execute, failures

NOTEBOOKS = sorted(path.name for path in ROOT.glob("*.ipynb"))
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?|\b(?:nan|inf)\b")
KINDS = ("text/plain", "text/markdown", "text/html")
MEASURED = re.compile(r"\b(?:seconds|ms|MB)\b")
ONE_UNIT_OFF = """
import torch
_as_before = torch.nn.Linear.reset_parameters


def _one_unit_off(self):
    _as_before(self)
    with torch.no_grad():
        for parameter in self.parameters():
            parameter.copy_(torch.nextafter(parameter, torch.full_like(parameter, torch.inf)))


torch.nn.Linear.reset_parameters = _one_unit_off
"""


def prepare(folder, name, extra=""):
    """Copies of all notebooks; in one a cell more, below its imports."""
    folder.mkdir()
    for path in ROOT.glob("*.ipynb"):
        shutil.copy(path, folder)
    if extra:
        notebook = nbformat.read(folder / name, 4)
        imports = [cell.cell_type for cell in notebook.cells].index("code")
        notebook.cells.insert(imports + 1, new_code_cell(extra))
        nbformat.write(notebook, folder / name)
    return folder / name


def printed(notebook):
    """The lines with numbers that a notebook printed, by cell: (cell, line, its numbers).

    Times and memory are left out: cells tagged `measured`, progress bars, and the columns of
    tables that are called so.
    """
    for k, cell in enumerate(notebook.cells):
        if "measured" in cell.metadata.get("tags", []):
            continue
        for output in cell.get("outputs", []):
            texts = [output.get("text", ""), *map(output.get("data", {}).get, KINDS)]
            for line in lines("\n".join(text or "" for text in texts)):
                numbers = NUMBER.findall(re.sub(r"0x[0-9a-f]+", "", line))
                if numbers:
                    yield k, line, numbers


def lines(text):
    """The lines of a text, but for progress bars; of tables the columns that are not measured."""
    left_out = set()
    for line in re.split(r"[\r\n]+", text):
        if "it/s" in line or "s/it" in line:
            continue
        if not line.startswith("|"):
            left_out = set()
            yield line
            continue
        columns = line.split("|")
        left_out = left_out or {k for k, title in enumerate(columns) if MEASURED.search(title)}
        yield "|".join(part for k, part in enumerate(columns) if k not in left_out)


def differences(one, other):
    """Where the numbers of two runs of a notebook differ, a line each."""
    return [
        f"cell {a[0] if a else b[0]}: {a and a[1]!r} is {b and b[1]!r}"
        for a, b in zip_longest(printed(one), printed(other))
        if not a or not b or a[0] != b[0] or a[2] != b[2]
    ]


def tables(folder):
    """What a run has written as CSV, but for what it has measured."""
    paths = (folder / "figures").glob("*.csv")
    return {p.name: p.read_bytes() for p in paths if not p.name.endswith("_measured.csv")}


def broken(folder, name):
    """The sentences about a notebook that do not hold for the tables in a folder, times aside."""
    known = [claim for claim in checking.load(ROOT / checking.CLAIMS)[0] if not claim.measured]
    asked = checking.about(known, [name.removesuffix(".ipynb")])
    return checking.messages(checking.check(asked, folder / "figures"))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("name", NOTEBOOKS)
@pytest.mark.parametrize("processor", ["another", pytest.param("this", marks=pytest.mark.slow)])
def test_a_processor_prints_what_is_committed(name, processor, tmp_path, monkeypatch):
    if processor == "another":  # PyTorch, MKL and NumPy do without the latest of this one
        found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
        monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
        monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", " ".join(found))
    path = prepare(tmp_path / "run", name)
    run, _ = execute(path, timeout=3 * HANGS, allow_errors=True)
    assert failures(run) == []
    assert differences(nbformat.read(ROOT / name, 4), run) == []
    of_it = f"{path.stem}_"
    wanted = {file: text for file, text in tables(ROOT).items() if file.startswith(of_it)}
    found = tables(path.parent)
    assert {key for key in found | wanted if found.get(key) != wanted.get(key)} == set()
    assert broken(path.parent, name) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_weights_one_unit_off_leave_the_sentences(name, tmp_path):
    path = prepare(tmp_path / "near", name, ONE_UNIT_OFF)
    execute(path, timeout=3 * HANGS)
    assert tables(path.parent)
    assert broken(path.parent, name) == []


def ran(text, seconds="1.0", tags=()):
    """A notebook that printed a text, a progress bar, a table and a line of what it measured."""
    bar = f"100%|####| 3/3 [00:0{seconds[0]}<00:00, {seconds}it/s]\r"
    table = f"| net | KL | seconds |\n| --- | ---: | ---: |\n| a | 0.1 | {seconds} |\n"
    outputs = [
        new_output("stream", text=bar + text),
        new_output("display_data", {"text/markdown": table, "text/plain": "<at 0x7f01>"}),
    ]
    measured = new_output("stream", text=f"it took {seconds} s")
    cells = [
        new_code_cell("", outputs=outputs, metadata={"tags": list(tags)}),
        new_code_cell("", outputs=[measured], metadata={"tags": ["measured"]}),
    ]
    return new_notebook(cells=cells)


def test_a_digit_that_differs_is_found():
    """And no time: of a progress bar, a column of seconds, a cell tagged `measured`."""
    one = ran("mass 1.0024, KL −0.5\nnone\n")
    assert differences(one, ran("mass 1.0024, KL −0.5\nwords\n", "2.5")) == []
    (line,) = differences(one, ran("mass 1.0025, KL −0.5\nnone\n"))
    assert line == "cell 0: 'mass 1.0024, KL −0.5' is 'mass 1.0025, KL −0.5'"
    for values in ("1.0024, KL 0.5\nnone", "1.0024, KL nan\nnone", "1.0024, KL −0.5\nnone\n1"):
        assert differences(one, ran(f"mass {values}\n"))
    other = ran("mass 1.0024, KL −0.5\nnone\n")
    data = other.cells[0].outputs[1].data
    data["text/markdown"] = data["text/markdown"].replace("0.1", "0.2")
    assert differences(one, other) == ["cell 0: '| a | 0.1 |' is '| a | 0.2 |'"]
    measured = ran("mass 7\n", tags=["measured"])
    assert differences(measured, ran("mass 8\n", tags=["measured"])) == []


def test_weights_are_one_unit_off_where_the_cell_has_run(monkeypatch):
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", torch.nn.Linear.reset_parameters)
    torch.manual_seed(0)
    before = torch.nn.Linear(3, 2)
    exec(ONE_UNIT_OFF, {})
    torch.manual_seed(0)
    after = torch.nn.Linear(3, 2)
    for a, b in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(b, torch.nextafter(a, torch.full_like(a, torch.inf)))
        assert not torch.equal(a, b)
