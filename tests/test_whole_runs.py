"""The notebooks whole, as on another processor: the numbers that are committed, the sentences.

BEYOND.ipynb's run and the other processors are in `make test-all`.
"""

import re
import shutil
from itertools import product, zip_longest

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


UNMEASURED = """
def _measure(ways, steps):
    ones = {way: np.ones(len(steps)) for way in ways}
    return complexity.Measured(tuple(steps), ones, ones)


if "complexity" in globals():
    complexity.measure = _measure
    complexity.by_points = lambda sizes, n_bins: [
        dict.fromkeys(("all points, ms", "compressed, ms"), 1.0) for _ in sizes
    ]
report.save_figure = report.animate_flow = lambda *given: None
"""


def prepare(folder, name, extra=""):
    """Copies of all notebooks; in one something more in the cell of its imports."""
    folder.mkdir()
    for path in ROOT.glob("*.ipynb"):
        shutil.copy(path, folder)
    if extra:
        notebook = nbformat.read(folder / name, 4)
        imports = [cell.cell_type for cell in notebook.cells].index("code")
        notebook.cells[imports].source += extra
        nbformat.write(notebook, folder / name)
    return folder / name


def printed(notebook):
    """The numbers that a notebook printed, by cell and line.

    Times and memory are left out: cells tagged `measured`, progress bars, and the columns of
    tables that are called so.
    """
    found = []
    for k, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []) if "measured" not in tags(cell) else []:
            texts = [output.get("text", ""), *map(output.get("data", {}).get, KINDS)]
            titles = []
            for line in re.split(r"[\r\n]+", "\n".join(filter(None, texts))):
                parts = line.split("|") if line.startswith("|") else [line]
                titles = (titles or parts) if line.startswith("|") else []
                kept = [
                    part
                    for part, title in zip_longest(parts, titles, fillvalue="")
                    if not MEASURED.search(title)
                ]
                numbers = NUMBER.findall(re.sub(r"0x[0-9a-f]+", "", "|".join(kept)))
                if numbers and not re.search("it/s|s/it", line):
                    found.append((k, *numbers))
    return found


def tags(cell):
    return cell.metadata.get("tags", [])


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


def processors():
    """Each notebook with each kind of kernels; those of the lesson with one of them at once."""
    at_once = ("ODE.ipynb", "AVX2"), ("SDE.ipynb", "AVX2")
    for case in product(NOTEBOOKS, ("AVX2", "COMPATIBLE", "")):
        yield pytest.param(*case, marks=() if case in at_once else pytest.mark.slow)


@pytest.mark.parametrize(("name", "kernels"), list(processors()))
def test_a_processor_prints_what_is_committed(name, kernels, tmp_path, monkeypatch):
    """Another one: PyTorch and NumPy use nothing but the base line, MKL the kernels that are named.

    Times are not measured and figures not written, which has tests of its own.
    """
    if kernels:
        found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
        monkeypatch.setenv("MKL_CBWR", kernels)
        monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", " ".join(found))
    path = prepare(tmp_path / "run", name, UNMEASURED)
    run, _ = execute(path, timeout=3 * HANGS, allow_errors=True)
    assert failures(run) == []
    assert printed(run) == printed(nbformat.read(ROOT / name, 4))
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
    one = printed(ran("mass 1.0024, KL −0.5\nnone\n"))
    assert one == [(0, "1.0024", "−0.5"), (0, "0.1")]
    assert one == printed(ran("mass 1.0024, KL −0.5\nwords\n", "2.5"))
    assert printed(ran("mass 7\n", tags=["measured"])) == []


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
