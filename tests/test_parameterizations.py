"""The grid of question 2.4: its page and files from rows that are made up; one model measured."""

import csv

import numpy as np
import pytest
import torch

from benchmarks import parameterizations
from benchmarks.common import command, markdown_table
from benchmarks.parameterizations import AXES, PAGE, RAW, grid, lines, make, measure, tables
from benchmarks.tables import read_csv
from conftest import ROOT
from dlutils import plotting
from dlutils.tools.sweep.jobs import identity


def made_up(path, noise, drift, *values):
    """A row a seed, of gap and KL."""
    names = dict(zip(AXES, (path, noise, drift), strict=True))
    return [
        names | {"seed": seed, "iterations": 7, "gap": gap, "KL": kl}
        for seed, (gap, kl) in enumerate(values)
    ]


@pytest.fixture
def rows():
    return [
        *made_up("linear", "constant", "free", (10.0, 0.1), (12.0, 0.3)),
        *made_up("linear", "constant", "predict_y", (5.0, 0.2), (5.0, 0.2)),
        *made_up("linear", "root_two_beta", "free", (0.02, 0.001), (0.04, 0.002)),
        *made_up("linear", "root_two_beta", "predict_y", (2000.0, 1.0), (3000.0, 1.0)),
        *made_up("variance_preserving", "constant", "free", (1.0, 0.5), (3.0, 0.5)),
    ]


def test_a_table_a_path_with_means_and_standard_errors(rows):
    assert tables(rows) == {
        "Linear path": [
            {"noise": "constant", "free": "11 ± 1 (0.2)", "predict y": "5 ± 0 (0.2)"},
            {
                "noise": "root two beta",
                "free": "0.03 ± 0.01 (0.0015)",
                "predict y": "2,500 ± 500 (1)",
            },
        ],
        "Variance preserving path": [{"noise": "constant", "free": "2 ± 1 (0.5)"}],
    }
    assert "5 models, trained by the bound for 7 iterations" in lines(rows)[0]


def test_one_seed_has_no_standard_error(rows):
    one = [row for row in rows if row["seed"] == 0]
    assert tables(one)["Linear path"][0]["free"] == "10 (0.1)"


def test_the_grid_is_every_combination_with_every_seed():
    configs = grid(3, 300)
    assert len({identity(config) for config in configs}) == len(configs) == 3 * 45
    assert {config["seed"] for config in configs} == {0, 1, 2}
    assert all(config["iterations"] == 300 for config in configs)
    for axis, names in {
        "path": {"linear", "variance_preserving", "learned"},
        "noise": {"constant", "root_two_beta", "learned_in_t", "learned_in_x_and_t", "optimal"},
        "drift": {"free", "predict_y", "preconditioned"},
    }.items():
        assert {config[axis] for config in configs} == names
    assert len(grid(1, 2, quick=True)) == 4


@pytest.mark.bench
def test_a_bound_is_measured_below_its_density():
    threads = torch.get_num_threads()
    config = dict(zip(AXES, ("linear", "optimal", "preconditioned"), strict=True))
    row = measure(config | {"seed": 1, "iterations": 2})
    torch.set_num_threads(threads)
    assert 0 < row["KL"] < row["gap"] < 5


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Runs in no time."""
    monkeypatch.chdir(tmp_path)
    value = lambda k: {"gap": 0.1234567 + k, "KL": 0.1, "status": "done"}
    run = lambda _, configs, options: [config | value(k) for k, config in enumerate(configs)]
    monkeypatch.setattr(parameterizations, "runs", run)


def test_a_whole_run_writes_page_figure_and_rows(pretend, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(plotting, "save_figure", lambda fig, name, folder: saved.append(name))
    assert command(make, [], "less", []) == 0
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert page.startswith("# Parameterizations of the SDE\n")
    assert page.count("\n## ") == 3
    assert f"](../figures/{saved[0]}.png)" in page
    with (tmp_path / RAW).open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == [*AXES, "seed", "iterations", "gap", "KL"]
    assert [row["seed"] for row in found] == 45 * ["0"] + 45 * ["1"] + 45 * ["2"]
    gaps = [float(row["gap"]) for row in found]
    np.testing.assert_allclose(gaps, 0.123457 + np.arange(135), atol=1e-3)


def test_the_quick_one_leaves_the_page_alone(pretend, tmp_path, capsys):
    assert command(make, [], "less", ["--quick"]) == 0
    assert "## Linear path" in capsys.readouterr().out
    assert not (tmp_path / PAGE).exists()


def test_the_page_is_that_of_the_rows():
    """Which no table of another page shows; its machine and date are its own."""
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    rows = read_csv(ROOT / RAW)
    for rows_of_path in tables(rows).values():
        assert markdown_table(rows_of_path) in page
    assert all(line in page for line in lines(rows))
