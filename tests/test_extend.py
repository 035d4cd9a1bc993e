"""The examples of docs/extend.md, each in a cell of its own: both notebooks run whole with them."""

import json
import math
import re

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell
from torch import nn

from conftest import ROOT, run_by_papermill
from dlutils.data.datasets import DISTRIBUTIONS, make_dataset
from dlutils.flows.methods import METHODS, order_of
from dlutils.notebook import load
from dlutils.tools import sweep

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(), re.DOTALL)
ADDED = {
    re.search(r"^(\w+)\[\"(\w+)\"\] = ", block, re.MULTILINE).groups(): block for block in BLOCKS
}
PARTS = {
    "ODE": {
        "DISTRIBUTIONS": {"DATASET": "gumbel", "MIXTURE": "triangle"},
        "METHODS": {"METHOD": "heun3"},
        "DRIFTS": {"DRIFT": "residual"},
    },
    "SDE": {
        "DISTRIBUTIONS": {"DATASET": "triangle", "MIXTURE": "gumbel"},
        "DRIFTS": {"DRIFT": "near"},
        "PATHS": {"PATH": "trigonometric"},
        "DIFFUSIONS": {"DIFFUSION": "wider_to_the_right"},
        "T_SAMPLERS": {"T_SAMPLER": "early"},
    },
}  # by notebook and table: what the configuration cell chooses


def has_room(cell, table):
    """Whether an entry of the table may follow the cell: its own, or the configuration."""
    if table in ("METHODS", "DISTRIBUTIONS"):
        return "parameters" in cell.metadata.get("tags", [])
    return re.search(rf"^{table} = ", cell.source, re.MULTILINE)


def extended(folder):
    """Both notebooks, with every example in a cell below that of its table."""
    for path in ROOT.glob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        for table, chosen in PARTS[path.stem].items():
            found = [place for place, cell in enumerate(notebook.cells) if has_room(cell, table)]
            for name in set(chosen.values()):
                notebook.cells.insert(found[0] + 1, new_code_cell(ADDED[table, name]))
        nbformat.write(notebook, folder / path.name)


@pytest.fixture
def tables():
    """The package's tables, put back as they were."""
    before = dict(METHODS), dict(DISTRIBUTIONS)
    yield
    for table, entries in zip((METHODS, DISTRIBUTIONS), before, strict=True):
        table.clear()
        table.update(entries)


def test_examples_are_short_and_all_are_used():
    used = {(table, name) for of in PARTS.values() for table in of for name in of[table].values()}
    assert used == set(ADDED)
    assert len(BLOCKS) == len(ADDED)
    assert max(sum(map(bool, block.splitlines())) for block in BLOCKS) <= 10


@pytest.mark.slow
@pytest.mark.parametrize("which", PARTS)
def test_a_notebook_runs_whole_with_parts_of_ones_own(which, tmp_path):
    extended(tmp_path)
    chosen = {k: v for choice in PARTS[which].values() for k, v in choice.items()}
    text = run_by_papermill(tmp_path, f"papermill {which}.ipynb out.ipynb", {"FAST": True} | chosen)
    for name in ("residual", "heun3") if which == "ODE" else ("trigonometric", "early"):
        assert re.search(rf"\b{name}\b", text), f"{name} is in no table"


def test_a_sweep_knows_them(tmp_path, tables):
    extended(tmp_path)
    settings = {
        "notebook": str(tmp_path / "ODE.ipynb"), "dataset": ["gumbel", "triangle"],
        "drift": "residual", "method": "heun3", "n_steps": 4, "logdet": "map",
        "n_iterations": 60, "n_train": 2000,
    }  # fmt: skip
    lines = (f"{key} = {json.dumps(value)}" for key, value in settings.items())
    (tmp_path / "grid.toml").write_text("\n".join(lines), encoding="utf-8")
    for config in sweep.read(tmp_path / "grid.toml"):
        row = sweep.train_and_measure(config)
        assert 0 <= row["normalized_kl"] < 0.2, row
        assert row["stopped"] is None or not row["stopped"]
    assert order_of("heun3") == 3


def test_loading_again_withdraws_what_the_notebook_added(tmp_path, tables):
    extended(tmp_path)
    methods, densities = list(METHODS), list(DISTRIBUTIONS)
    assert "residual" in load(tmp_path / "ODE.ipynb").DRIFTS
    assert "heun3" in METHODS
    assert "residual" not in load(ROOT / "ODE.ipynb").DRIFTS
    (tmp_path / "ODE.ipynb").write_bytes((ROOT / "ODE.ipynb").read_bytes())
    load(tmp_path / "ODE.ipynb")
    assert (list(METHODS), list(DISTRIBUTIONS)) == (methods, densities)


@pytest.mark.usefixtures("float64")
def test_the_sde_has_its_true_bound_on_the_added_path(tmp_path, tables):
    """With standard normal data, the best drift and noise, the bound is the same on any path."""
    extended(tmp_path)
    notebook = load(tmp_path / "SDE.ipynb")
    model = {
        name: notebook.build_sde(name, "optimal", "preconditioned", 0.01).double()
        for name in ("linear", "trigonometric")
    }
    y = torch.linspace(-2, 2, 9)
    bounds = [notebook.elbo(m, y).mean().item() for m in model.values()]
    assert math.isclose(*bounds, abs_tol=1e-4), bounds


class TwoColumns(nn.Module):
    predicts_y = True

    def __init__(self, path=None):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, x, t):
        return x[:, None] * self.w


def test_train_names_what_is_wrong_with_a_part():
    data = make_dataset("gaussian", 50, 10, 10)
    ode, sde = load(ROOT / "ODE.ipynb"), load(ROOT / "SDE.ipynb")
    ode.DRIFTS["wrong"] = sde.DRIFTS["wrong"] = TwoColumns
    sde.PATHS["wrong"] = type("Wrong", (sde.LinearPath,), {"time": lambda self, u: u})
    sde.DIFFUSIONS["wrong"] = lambda path: sde.ConstantDiffusion(path, -1.0)
    sde.T_SAMPLERS["wrong"] = lambda *n: sde.iid(*n)._replace(weight=torch.zeros(n[1]))
    for notebook, part, message in (
        (ode, "drift", r"the drift must have a value for each point.*not shape \(7, 2\)"),
        (sde, "drift", r"the drift must have a value for each point.*not shape \(7, 2\)"),
        (sde, "path", r"time\(clock\(t\)\), the clock read backwards, must be"),
        (sde, "diffusion", "sigma must be positive"),
        (sde, "t_sampler", "the weights of a sampler must keep means: that of 1 is 0.000"),
    ):
        with pytest.raises(ValueError, match=message):
            notebook.train(data, **{part: "wrong"}, n_iterations=1, progress=False)
