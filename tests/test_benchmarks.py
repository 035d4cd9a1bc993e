"""What the benchmarks compute themselves, without the packages they compare with."""

import argparse
import math
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import __main__ as everything
from benchmarks import objectives, peers_likelihood, tables
from benchmarks.common import command
from benchmarks.estimators import CONTENDERS, information_criterion, notebook
from benchmarks.tables import fill
from dlutils import adjoint
from dlutils.comparison import compare
from dlutils.datasets import make_dataset
from dlutils.matching import mean_squares
from dlutils.training import History


@pytest.fixture
def single_precision():
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("prior_precision", "parameters"), [(1e-3, 2), (1e9, 0)])
def test_effective_parameters_of_a_gaussian(single_precision, prior_precision, parameters):
    """Mean and standard deviation; none that the prior holds fast."""
    dataset = make_dataset("gaussian")
    model = notebook("ODE.ipynb").train(
        dataset, "linear", "rk4", 10, logdet="map", n_iterations=150, progress=False
    )
    mean = model.log_likelihood(dataset.train).double().mean().item()
    criterion = information_criterion(model, dataset, 32, prior_precision)
    assert 10_000 * (mean - criterion) == pytest.approx(parameters, abs=0.05)


def test_the_grown_mixture_is_a_contender_of_its_own():
    dataset = make_dataset("marron_wand_07", n_train=1000)
    assert compare(dataset, CONTENDERS["EM, grown"][0](dataset, 0)).normalized_kl < 0.01


def test_scikit_learns_mixture_of_fewer_values_than_components_has_mass_one():
    pytest.importorskip("sklearn")  # of requirements-bench.txt
    dataset = replace(make_dataset("gaussian"), train=torch.tensor([0.0, 0.0, 1.0, 1.0, 3.0]))
    points = torch.linspace(-20, 20, 400_001)
    density = CONTENDERS["EM, scikit-learn"][0](dataset, 0)(points).exp()
    assert torch.trapezoid(density, points.double()) == pytest.approx(1, abs=1e-3)


def test_scikit_learns_mixture_goes_on_while_bic_rises():
    pytest.importorskip("sklearn")
    dataset = make_dataset("marron_wand_10", n_train=1000, seed=1)  # one component: 0.09
    assert compare(dataset, CONTENDERS["EM, scikit-learn"][0](dataset, 1)).normalized_kl < 0.03


def test_penalised_likelihood_is_a_contender_of_its_own():
    dataset = make_dataset("marron_wand_07", n_train=1000)
    assert compare(dataset, CONTENDERS["penalised"][0](dataset, 0)).normalized_kl < 0.015


@pytest.mark.parametrize(("unit", "origin"), [(1.0, 0.0), (10.0, 60.0)])
def test_deft_recovers_a_gaussian_and_goes_on_beyond_its_box(unit, origin):
    pytest.importorskip("suftware")  # of requirements-bench.txt
    y = make_dataset("marron_wand_01", n_train=3000).train.double()
    dataset = replace(make_dataset("marron_wand_01"), train=origin + unit * y)
    log_density = CONTENDERS["DEFT"][0](dataset, 0)
    points = torch.linspace(-3, 3, 61).double()
    exact = torch.distributions.Normal(y.mean(), y.std()).log_prob(points)
    assert (log_density(origin + unit * points) + math.log(unit) - exact).abs().max() < 0.2
    fine = torch.linspace(-30, 30, 60_001).double()
    log_p = log_density(origin + unit * fine) + math.log(unit)
    assert torch.trapezoid(log_p.exp(), fine) == pytest.approx(1, abs=1e-3)
    ends = log_p[[0, 5000, 10_000, -10_001, -5001, -1]].reshape(2, 3)
    assert ends.diff(n=2).abs().max() < 1e-6
    assert ends[0, 0] < ends[0, 1] < -20
    assert ends[1, 2] < ends[1, 1] < -20


def make(options: argparse.Namespace):
    rows = [{"name": "a", "KL": 0.001234, "ms": 3}, {"name": "b", "KL": 12345.6, "ms": 4}]
    return ["A note."], {"First": rows}


def test_report_and_the_page_made_of_it(tmp_path, capsys):
    assert command("demo", "Doc.", "less", ["torch"], make, ["--output", str(tmp_path)]) == 0
    report = (tmp_path / "demo.md").read_text(encoding="utf-8")
    assert report.strip() == capsys.readouterr().out.strip()
    assert "| a    | 0.00123 |   3 |" in report
    before = "Text.\n<!-- table: demo | First | name; KL -->\nold\n<!-- end -->\nMore."
    after = fill(before, tmp_path)
    assert "old" not in after
    assert "| b    |  12,346 |\n\n`python -m benchmarks.demo` on " in after
    assert after.startswith("Text.\n<!-- table")
    assert after.endswith("<!-- end -->\nMore.")
    assert fill(after, tmp_path) == after
    for wrong, message in (
        ("none | First | KL", "run python -m benchmarks.none first"),
        ("demo | Second | KL", "no table 'Second'"),
        ("demo | First | kl", "no table 'First' with the columns"),
    ):
        with pytest.raises(ValueError, match=message):
            fill(f"<!-- table: {wrong} -->\n<!-- end -->", tmp_path)


def test_all_pages_are_renewed_or_none(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("demo", "Doc.", "less", [], make, ["--output", "build/benchmarks"]) == 0
    page = "Page.\n<!-- table: {} | First | name; KL -->\n<!-- end -->\n"
    (tmp_path / "docs").mkdir()
    paths = [tmp_path / "README.md", tmp_path / "docs/first.md", tmp_path / "docs/second.md"]
    for path, text in zip(
        paths, ["No marker.", page.format("demo"), page.format("none")], strict=True
    ):
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit):
        tables.main([])
    assert "run python -m benchmarks.none first" in capsys.readouterr().err
    assert paths[1].read_text(encoding="utf-8") == page.format("demo")
    paths[2].unlink()
    assert tables.main([]) == 0
    assert "12,346" in paths[1].read_text(encoding="utf-8")
    assert paths[0].read_text(encoding="utf-8") == "No marker."
    with pytest.raises(SystemExit):
        tables.main(["no_page.md"])
    assert "no_page.md" in capsys.readouterr().err


def test_a_missing_package_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command("demo", "Doc.", "less", ["no-such-package"], make, [])
    assert "the package 'no-such-package' is missing: run `make bench`" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command("demo", "Doc.", "less", [], make, ["--threads", "0"])
    assert "--threads must be at least 1, not 0" in capsys.readouterr().err


def means(objective, repeats: int = 300) -> tuple[float, float, float]:
    """Mean of the objective of a batch, its standard error, and the sd."""
    with torch.no_grad():
        values = torch.stack([objective() for _ in range(repeats)])
    sd = values.std().item()
    return values.mean().item(), sd / repeats**0.5, sd


def test_the_likelihood_of_a_batch():
    data = make_dataset("laplace_mixture", n_train=3000)
    flow = objectives.likelihood(data, 0, n_iterations=3, learning_rate=0.003)
    log_p = flow.log_likelihood(data.train)
    value, error, sd = means(objectives.likelihood_of(data, flow))
    assert value == pytest.approx(log_p.mean().item(), abs=5 * error)
    assert sd == pytest.approx(log_p.std().item() / 16, rel=0.2)


def test_the_bound_of_a_batch():
    data = make_dataset("laplace_mixture", n_train=3000)
    fitted = objectives.bound(data, 0, n_iterations=40)
    value, error, sd = means(objectives.bound_of(data, fitted))
    _, _, expected = notebook("SDE.ipynb").spread(fitted, data.train, "lattice", 256, 300)
    assert value == pytest.approx(fitted.elbo(data.train).mean().item(), abs=5 * error)
    assert sd == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("coupling", ["sorted", "independent"])
def test_the_mean_square_of_a_batch(coupling):
    data = make_dataset("laplace_mixture", n_train=3000)
    flow = objectives.matching(coupling, data, 0, n_iterations=3)
    left, _ = mean_squares(flow.drift, (data.train - flow.loc) / flow.scale, coupling)
    value, error, sd = means(objectives.mean_square_of(coupling, data, flow))
    assert value == pytest.approx(left, abs=5 * error)
    assert means(objectives.mean_square_of(coupling, data, flow, 1024))[2] < 0.7 * sd


def fake_fit(dataset, seed, n_iterations=1, learning_rate=0.0, batch_size=None):
    """A Gaussian of variance one, `learning_rate` beside the truth; folds for a batch of 3."""

    def log_likelihood(y):
        if batch_size == 3:
            raise ValueError("folds")
        return torch.distributions.Normal(learning_rate, 1.0).log_prob(y)

    history = History(train=[0.0] * n_iterations, seconds=2.0)
    return SimpleNamespace(log_likelihood=log_likelihood, history=history, seed=seed)


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.setitem(objectives.DENSITIES, "marron_wand_01", "Gaussian")
    monkeypatch.setattr(objectives, "TRAINED", {"fake": (fake_fit, None, "nats")})
    monkeypatch.setattr(objectives, "SOLVED", {"fake, solved": fake_fit})
    monkeypatch.setattr(objectives, "SETTINGS", {})
    monkeypatch.setattr(objectives, "seconds_an_iteration", lambda *a, **settings: 0.1)


def test_the_settings_are_of_the_grid():
    assert set(objectives.SETTINGS) == {
        (d, w) for d in objectives.DENSITIES for w in objectives.GRID
    }
    for (_, way), settings in objectives.SETTINGS.items():
        assert set(settings) == set(objectives.GRID[way])
        assert all(value in objectives.GRID[way][name] for name, value in settings.items()), way


def test_a_budget_is_as_many_iterations_as_it_has_room_for():
    data = objectives.samples("marron_wand_01", (7, 9))
    assert not torch.equal(data[7].train, data[9].train)
    models = objectives.runs(fake_fit, data, 4, 0.5, {"learning_rate": 0.2})
    assert [model.seed for model in models] == [7, 9]
    assert [len(model.history.train) for model in models] == [8, 8]
    np.testing.assert_allclose(objectives.distances(data, models), 0.02, rtol=1e-3)
    folded = objectives.runs(fake_fit, data, 1e-3, 0.5, {"batch_size": 3})
    assert objectives.distances(data, folded).isnan().all()


def test_the_settings_with_the_least_distance_are_taken(fakes, monkeypatch):
    grid = {"fake": {"learning_rate": (0.1, 0.02, 0.3), "batch_size": (3, None)}}
    monkeypatch.setattr(objectives, "GRID", grid)
    rows = objectives.tune(["marron_wand_01"], range(2))
    best = objectives.SETTINGS["marron_wand_01", "fake"]
    assert best == {"learning_rate": 0.02, "batch_size": None}
    assert [row["batch_size"] for row in rows] == [3, "all"] * 3
    assert [row["KL"] for row in rows[1::2]] == pytest.approx([0.005, 0.0002, 0.045], rel=0.02)


def test_a_row_an_objective(fakes, monkeypatch):
    monkeypatch.setattr(objectives, "natural_step", lambda dataset, model: lambda: None)
    objectives.SETTINGS["marron_wand_01", "fake"] = {"learning_rate": 0.2}
    ways = ["fake", "fake, solved"]
    fitted, solved = objectives.side_by_side(["marron_wand_01"], ways, (1, 4), (0, 1))
    assert fitted["KL after 1 s"] == fitted["KL after 4 s"] == "0.02000 ± 0.00000"
    assert (fitted["iterations"], fitted["learning_rate"]) == (40, 0.2)
    assert solved["KL after 1 s"] == "–", "the solve takes two seconds"
    assert solved["KL after 4 s"].endswith("0.00000 ± 0.00000")
    assert fitted["data"] == "Gaussian"


def test_an_iteration_is_timed_by_those_that_were_taken():
    calls = []

    def fit(dataset, seed, n_iterations, **settings):
        calls.append(n_iterations)
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        return SimpleNamespace(history=History(train=[0.0] * 5))

    seconds = objectives.seconds_an_iteration(fit, None, 50)
    assert calls == [10, 50], "the first to warm up"
    assert seconds == pytest.approx(0.01, rel=0.1), "of each of the five that were taken"


def test_the_step_that_is_timed_leaves_the_weights_alone():
    data = make_dataset("laplace_mixture", n_train=500)
    flow = objectives.matching("sorted", data, 0, n_iterations=3)
    before = [p.detach().clone() for p in flow.drift.parameters()]
    step = objectives.adam_step(objectives.mean_square_of("sorted", data, flow), flow.drift)
    for _ in range(3):
        step()
    assert all(p.grad.abs().max() > 0 for p in flow.drift.parameters())
    torch.testing.assert_close([*flow.drift.parameters()], before, rtol=0, atol=1e-10)


def test_the_flow_of_the_peers_ends_in_the_density_itself():
    dataset = make_dataset(peers_likelihood.DENSITY)
    flow = peers_likelihood.Flow(dataset)
    in_steps = lambda T: lambda x: adjoint.log_likelihood(flow, x, T, "rk4", "map")
    solve = in_steps(32)
    row = peers_likelihood.measure(dataset, flow, "right", solve, None)
    assert row["mass - 1"] == pytest.approx(0, abs=1e-5)
    assert row["KL"] == pytest.approx(0, abs=1e-5)
    assert row["problems"] == 0
    assert row["order"] == "–"
    y = torch.linspace(-2.5, 2.5, 101)
    found = flow.in_data_units(in_steps(256))(y).detach()
    assert torch.allclose(found, dataset.log_prob(y), atol=1e-6)
    row = peers_likelihood.measure(dataset, flow, "scale forgotten", solve, None)
    assert row["mass - 1"] == pytest.approx(flow.scale - 1, abs=1e-5)
    row = peers_likelihood.measure(dataset, flow, "a column", lambda x: x[:, None], None)
    assert row["mass - 1"] == "refused: shape (16, 1)"


def test_a_run_of_all_that_was_killed_goes_on_and_the_next_begins_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "build/benchmarks"
    folder.mkdir(parents=True)
    (folder / "old.jsonl").touch()
    (folder / "old_quick.jsonl").touch()
    ran = []

    def run(command):
        ran.append(command[2].removeprefix("benchmarks."))
        (folder / f"{ran[-1]}.jsonl").touch()
        return SimpleNamespace(returncode=int(ran[-1] == fails))

    monkeypatch.setattr(everything.subprocess, "run", run)
    first, second, *rest = everything.NAMES
    fails = second
    assert everything.main([]) == 1
    assert ran == [first, second]
    assert not (folder / "old.jsonl").exists()
    assert (folder / "old_quick.jsonl").exists(), "of another kind of run"
    fails = None
    assert everything.main([]) == 0
    assert ran[2:] == [second, *rest], "not the first again"
    assert (folder / f"{first}.jsonl").exists()
    ran.clear()
    assert everything.main([]) == 0
    assert ran == list(everything.NAMES), "a whole run is followed by a whole run"
    fails = rest[0]
    everything.main(["--fresh"])
    ran.clear()
    everything.main(["--fresh"])
    assert ran[0] == first
