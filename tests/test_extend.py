"""The examples of docs/extend.md, each in a cell of its own: both notebooks run whole with them."""

import json
import math
import re

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell
from torch import nn

from conftest import ROOT, ode_definitions, run_by_papermill, sde_definitions
from dlutils import diffusion, flows
from dlutils.data.datasets import DISTRIBUTIONS, make_dataset
from dlutils.data.units import Units
from dlutils.diffusion.model import SDE, build_sde, elbo
from dlutils.diffusion.probability_flow import ProbabilityFlow
from dlutils.flows.methods import METHODS, order_of
from dlutils.notebook import load
from dlutils.tools import sweep

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(), re.DOTALL)
ADDED = {
    re.search(r"^(\w+)\[\"(\w+)\"\] = ", block, re.MULTILINE).groups(): block for block in BLOCKS
}
PARTS = {  # by notebook and table, in the order of the page
    "ODE": {
        "DISTRIBUTIONS": ["gumbel", "triangle"], "METHODS": ["heun3"], "DRIFTS": ["residual"],
    },
    "SDE": {
        "DISTRIBUTIONS": ["gumbel", "triangle"], "DRIFTS": ["near"], "PATHS": ["trigonometric"],
        "DIFFUSIONS": ["wider_to_the_right"], "T_SAMPLERS": ["early"],
    },
}  # fmt: skip
TABLES = (
    METHODS, DISTRIBUTIONS, flows.DRIFTS,
    diffusion.PATHS, diffusion.DIFFUSIONS, diffusion.DRIFTS, diffusion.T_SAMPLERS,
)  # fmt: skip


def extended(folder):
    """The notebooks, with every example below the last cell that adds to its table.

    Where none does, it comes below the configuration.
    """
    for path in ROOT.glob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        for table, names in PARTS.get(path.stem, {}).items():
            (place,) = [
                k
                for k, c in enumerate(notebook.cells)
                if "parameters" in c.metadata.get("tags", [])
            ]
            adds = re.compile(rf'^{table}\["', re.MULTILINE)
            cells = enumerate(notebook.cells)
            place = max([place, *(k for k, c in cells if adds.search(c.source))])
            for name in names:
                notebook.cells.insert(place + 1, new_code_cell(ADDED[table, name]))
        nbformat.write(notebook, folder / path.name)


@pytest.fixture
def tables():
    """The package's tables, put back as they were."""
    before = [dict(table) for table in TABLES]
    yield
    for table, entries in zip(TABLES, before, strict=True):
        table.clear()
        table.update(entries)


def test_examples_are_short_and_all_are_used():
    used = {(table, name) for of in PARTS.values() for table in of for name in of[table]}
    assert used == set(ADDED)
    assert len(BLOCKS) == len(ADDED)
    assert max(sum(map(bool, block.splitlines())) for block in BLOCKS) <= 10


@pytest.mark.slow
@pytest.mark.parametrize("which", PARTS)
def test_a_notebook_runs_whole_with_parts_of_ones_own(which, tmp_path):
    extended(tmp_path)
    settings = {"FAST": True, "DATASET": "gumbel", "MIXTURE": "triangle"}
    text = run_by_papermill(tmp_path, f"papermill {which}.ipynb out.ipynb", settings)
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
    before = [list(table) for table in TABLES]
    load(tmp_path / "ODE.ipynb")
    assert {"residual", "heun3", "gumbel"} <= {*flows.DRIFTS, *METHODS, *DISTRIBUTIONS}
    (tmp_path / "ODE.ipynb").write_bytes((ROOT / "ODE.ipynb").read_bytes())
    load(tmp_path / "ODE.ipynb")
    assert [list(table) for table in TABLES] == before


@pytest.mark.usefixtures("float64")
def test_the_sde_has_its_true_bound_on_the_added_path(tmp_path, tables):
    """With standard normal data, the best drift and noise, the bound is the same on any path."""
    extended(tmp_path)
    load(tmp_path / "SDE.ipynb")
    model = {
        name: build_sde(name, "optimal", "preconditioned", 0.01).double()
        for name in ("linear", "trigonometric")
    }
    y = torch.linspace(-2, 2, 9)
    bounds = [elbo(m, y).mean().item() for m in model.values()]
    assert math.isclose(*bounds, abs_tol=1e-4), bounds


class TwoColumns(nn.Module):
    predicts_y = True

    def __init__(self, path=None):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, x, t):
        return x[:, None] * self.w


class Company(nn.Module):
    """Each point less the mean of all."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def forward(self, x, t):
        return self.w * (x - x.mean())


class Detached(Company):
    def forward(self, x, t):
        return self.w * x.detach()


@pytest.mark.parametrize(("drift", "message"), [(Company, "beside others"), (Detached, "autograd")])
def test_every_way_in_asks_the_same_of_a_drift(drift, message):
    data, units = make_dataset("gaussian", 50, 10, 10), Units()
    short = {"n_iterations": 1, "progress": False}
    ways = (
        lambda: flows.train(data, drift, **short),
        lambda: flows.train(data, drift, optimizer="natural", **short),
        lambda: flows.train(data, start=drift(), **short),
        lambda: flows.flow_matching(data, drift, **short),
        lambda: flows.FittedODE(drift(), None, units, 5, "rk4", "map"),
        lambda: flows.FittedODE(lambda x, t: drift()(x, t), None, units, 5, "rk4", "map"),
        lambda: ProbabilityFlow(diffusion.LinearPath(), drift()),
    )
    for way in ways:
        with pytest.raises(ValueError, match=message):
            way()


class WithoutRate(diffusion.LinearPath):
    def schedule(self, t):
        a, beta, a_dot, beta_dot = super().schedule(t)
        return a, beta, a_dot, 0 * beta_dot


def test_every_way_in_asks_the_same_of_the_parts_of_an_sde():
    data, wrong = make_dataset("gaussian", 200, 10, 10), WithoutRate
    path = diffusion.LinearPath(0.01)
    noise, drift = diffusion.OptimalDiffusion(path), diffusion.PreconditionedDrift(path)
    ways = (
        lambda: diffusion.train(data, wrong, n_iterations=1, progress=False),
        lambda: diffusion.least_squares(data, wrong, preconditioning="gaussian", n_knots=40),
        lambda: diffusion.build_sde(wrong),
        lambda: diffusion.FittedSDE(SDE(wrong(0.01), noise, drift, 0.01), None, Units(), 6.5),
    )
    for way in ways:
        with pytest.raises(ValueError, match="beta_dot of with_rates must be"):
            way()


def test_train_names_what_is_wrong_with_a_part(tables):
    data = make_dataset("gaussian", 50, 10, 10)
    ode, sde = ode_definitions(), sde_definitions()
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
