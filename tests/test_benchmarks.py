"""What the benchmarks compute themselves, and that the pages say what was measured.

`bench`: what fits models, or needs the packages that are compared with.
"""

import argparse
import importlib
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import __main__ as everything
from benchmarks import common, objectives, own_data, peers_likelihood, speedrun, tables
from benchmarks.common import Enough, Watch, command
from benchmarks.estimators import CONTENDERS, information_criterion, notebook
from benchmarks.tables import fill, read_tables, take
from conftest import ROOT
from dlutils.data.datasets import make_dataset
from dlutils.estimators.yardsticks import YARDSTICKS
from dlutils.evaluation import compare
from dlutils.flows import adjoint
from dlutils.flows.matching import mean_squares
from dlutils.training import History, warm_up_and_cosine


@pytest.mark.parametrize("name", everything.NAMES)
def test_every_benchmark_is_a_command(name, capsys):
    """Whether or not the packages that it compares with are there."""
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit):
        command(module.make, module.PACKAGES, "less", ["--help"])
    assert f"python -m benchmarks.{name}" in capsys.readouterr().out


@pytest.mark.bench
def test_effective_parameters_of_a_gaussian():
    """Mean and standard deviation; none that the prior holds fast."""
    dataset = make_dataset("gaussian")
    model = notebook("ODE.ipynb").train(
        dataset, "linear", "rk4", 10, logdet="map", n_iterations=150, progress=False
    )
    mean = model.log_likelihood(dataset.train).double().mean().item()
    for prior_precision, parameters in ((1e-3, 2), (1e9, 0)):
        criterion = information_criterion(model, dataset, 32, prior_precision)
        assert 10_000 * (mean - criterion) == pytest.approx(parameters, abs=0.05)


@pytest.mark.parametrize(("name", "distance"), [("EM, grown", 0.01), ("penalised", 0.015)])
def test_a_yardstick_is_a_contender(name, distance):
    dataset = make_dataset("marron_wand_07", n_train=1000)
    assert compare(dataset, CONTENDERS[name][0](dataset, 0)).normalized_kl < distance


@pytest.mark.bench
def test_scikit_learns_mixture_of_fewer_values_than_components_has_mass_one():
    pytest.importorskip("sklearn")  # of the group bench
    dataset = replace(make_dataset("gaussian"), train=torch.tensor([0.0, 0.0, 1.0, 1.0, 3.0]))
    points = torch.linspace(-20, 20, 400_001)
    density = CONTENDERS["EM, scikit-learn"][0](dataset, 0)(points).exp()
    assert torch.trapezoid(density, points.double()) == pytest.approx(1, abs=1e-3)


@pytest.mark.bench
def test_scikit_learns_mixture_goes_on_while_bic_rises():
    pytest.importorskip("sklearn")
    dataset = make_dataset("marron_wand_10", n_train=1000, seed=1)  # one component: 0.09
    assert compare(dataset, CONTENDERS["EM, scikit-learn"][0](dataset, 1)).normalized_kl < 0.03


@pytest.mark.bench
@pytest.mark.parametrize(("unit", "origin"), [(1.0, 0.0), (10.0, 60.0)])
def test_deft_recovers_a_gaussian_and_goes_on_beyond_its_box(unit, origin):
    pytest.importorskip("suftware")  # of the group bench
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
    """A demonstration."""
    rows = [{"name": "a", "KL": 0.001234, "ms": 3}, {"name": "b", "KL": 12345.6, "ms": 4}]
    return {"First": rows, "Second": [{"name": "a", "s": 1.5}]}


NAME = Path(__file__).stem  # of the benchmark that this file is to `command`


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """The folder of the reports, in a project of its own."""
    monkeypatch.setattr(common, "FOLDER", tmp_path / "build")
    return tmp_path / "build"


def test_report_and_the_page_made_of_it(reports, tmp_path, capsys):
    assert command(make, ["torch"], "less", []) == 0
    report = (reports / f"{NAME}.md").read_text(encoding="utf-8")
    assert report.strip() == capsys.readouterr().out.strip()
    assert "| a    | 0.00123 |   3 |" in report
    (tmp_path / "sources.csv").write_text("benchmark,machine,date\nother,it,then\n")
    take(NAME, reports, tmp_path)
    assert read_tables(tmp_path / f"{NAME}.csv")["Second"] == [{"name": "a", "s": 1.5}]
    assert (tmp_path / "sources.csv").read_text().startswith("benchmark,machine,date\nother,it,")
    before = f"Text.\n<!-- table: {NAME} | First | name; KL -->\nold\n<!-- end -->\nMore."
    after = fill(before, tmp_path)
    assert "old" not in after
    assert f"| b    |  12,346 |\n\n`python -m benchmarks.{NAME}` on " in after
    assert after.startswith("Text.\n<!-- table")
    assert after.endswith("<!-- end -->\nMore.")
    assert fill(after, tmp_path) == after
    some = fill(f"<!-- table: {NAME} | First | KL | name = b -->\n<!-- end -->", tmp_path)
    assert "12,346" in some
    assert "0.00123" not in some
    for wrong, message in (
        ("none | First | KL", "run python -m benchmarks.none first"),
        (f"{NAME} | Third | KL", "no table 'Third'"),
        (f"{NAME} | First | kl", "no table 'First' with the columns"),
        (f"{NAME} | First | KL | name = c", "no table 'First' with the columns"),
    ):
        with pytest.raises(ValueError, match=message):
            fill(f"<!-- table: {wrong} -->\n<!-- end -->", tmp_path)


def test_a_quick_run_does_not_pass_for_a_whole_one(reports):
    assert command(make, [], "less", ["--quick"]) == 0
    assert {path.name for path in reports.iterdir()} == {
        f"{NAME}_quick.{kind}" for kind in ("md", "csv")
    }


def test_the_tables_of_all_pages_are_the_results():
    found = 0
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        page = path.read_text(encoding="utf-8")
        assert fill(page, ROOT / "benchmarks/results") == page, path.name
        found += page.count("<!-- table: ")
        assert len(tables.MARKER.findall(page)) == page.count("<!-- table: "), path.name
    assert found > 20


def test_all_pages_are_renewed_or_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "demo.csv").write_text("table,KL\nFirst,12345.6\n")
    (tmp_path / "sources.csv").write_text("benchmark,machine,date\ndemo,it,then\n")
    page = "Page.\n<!-- table: {} | First | KL -->\n<!-- end -->\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("No marker.")
    first, second = tmp_path / "docs/first.md", tmp_path / "docs/second.md"
    first.write_text(page.format("demo"))
    second.write_text(page.format("none"))
    with pytest.raises(SystemExit):
        tables.main([])
    assert "run python -m benchmarks.none first" in capsys.readouterr().err
    assert first.read_text() == page.format("demo")
    with pytest.raises(SystemExit):
        tables.main(["parameterizations"])
    assert "writes its page and its rows itself" in capsys.readouterr().err
    second.unlink()
    assert tables.main([]) == 0
    assert "12,346 |\n\n`python -m benchmarks.demo` on it; then." in first.read_text()


def square(config):
    if config["x"] == 3:
        raise ValueError("three is too many")
    return {"square": config["x"] ** 2}


def test_a_grid_of_runs_goes_on_and_the_next_one_begins_anew(reports, monkeypatch):
    monkeypatch.setattr(
        common, "process_pool", lambda workers, _: lambda: ThreadPoolExecutor(workers)
    )
    options = SimpleNamespace(record=reports / f"{NAME}.jsonl")
    ran = []
    counted = lambda config: ran.append(config["x"]) or square(config)
    with pytest.raises(RuntimeError, match="three is too many"):
        common.runs(counted, [{"x": 2}, {"x": 3}], options, 1)
    rows = common.runs(counted, [{"x": 4}, {"x": 2}], options, 1)
    assert [row["square"] for row in rows] == [16, 4]
    assert ran == [2, 3, 4], "not 2 again"
    assert command(make, [], "less", []) == 0
    assert not options.record.exists()


def test_a_missing_package_is_named(capsys):
    with pytest.raises(SystemExit):
        command(make, ["no-such-package"], "less", [])
    assert "the package 'no-such-package' is missing: run `make bench`" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command(make, [], "less", ["--threads", "0"])
    assert "--threads must be at least 1, not 0" in capsys.readouterr().err


def means(objective, repeats: int = 300) -> tuple[float, float, float]:
    """Mean of the objective of a batch, its standard error, and the sd."""
    with torch.no_grad():
        values = torch.stack([objective() for _ in range(repeats)])
    sd = values.std().item()
    return values.mean().item(), sd / repeats**0.5, sd


@pytest.mark.bench
def test_the_likelihood_of_a_batch():
    data = make_dataset("laplace_mixture", n_train=3000)
    flow = objectives.likelihood(data, 0, n_iterations=3, learning_rate=0.003)
    log_p = flow.log_likelihood(data.train)
    value, error, sd = means(objectives.likelihood_of(data, flow))
    assert value == pytest.approx(log_p.mean().item(), abs=5 * error)
    assert sd == pytest.approx(log_p.std().item() / 16, rel=0.2)


@pytest.mark.bench
def test_the_bound_of_a_batch():
    data = make_dataset("laplace_mixture", n_train=3000)
    fitted = objectives.bound(data, 0, n_iterations=40)
    value, error, sd = means(objectives.bound_of(data, fitted))
    _, _, expected = notebook("SDE.ipynb").spread(fitted, data.train, "lattice", 256, 300)
    assert value == pytest.approx(fitted.elbo(data.train).mean().item(), abs=5 * error)
    assert sd == pytest.approx(expected, rel=0.2)


@pytest.mark.bench
@pytest.mark.parametrize("coupling", ["sorted", "independent"])
def test_the_mean_square_of_a_batch(coupling):
    data = make_dataset("laplace_mixture", n_train=3000)
    flow = objectives.matching(coupling, data, 0, n_iterations=3)
    left, _ = mean_squares(flow.drift, flow.units(data.train), coupling)
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


def test_all_that_are_trained_by_adam_have_settings():
    by_adam = set(objectives.TRAINED) - {"likelihood, natural gradient"}
    assert set(objectives.SETTINGS) == {(d, w) for d in objectives.DENSITIES for w in by_adam}


def test_a_budget_is_as_many_iterations_as_it_has_room_for():
    data = objectives.samples("marron_wand_01", (7, 9))
    assert not torch.equal(data[7].train, data[9].train)
    models = objectives.runs(fake_fit, data, 4, 0.5, {"learning_rate": 0.2})
    assert [model.seed for model in models] == [7, 9]
    assert [len(model.history.train) for model in models] == [8, 8]
    np.testing.assert_allclose(objectives.distances(data, models), 0.02, rtol=1e-3)
    folded = objectives.runs(fake_fit, data, 1e-3, 0.5, {"batch_size": 3})
    assert objectives.distances(data, folded).isnan().all()


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


@pytest.mark.bench
def test_the_step_that_is_timed_leaves_the_weights_alone():
    data = make_dataset("laplace_mixture", n_train=500)
    flow = objectives.matching("sorted", data, 0, n_iterations=3)
    before = [p.detach().clone() for p in flow.drift.parameters()]
    step = objectives.adam_step(objectives.mean_square_of("sorted", data, flow), flow.drift)
    for _ in range(3):
        step()
    assert all(p.grad.abs().max() > 0 for p in flow.drift.parameters())
    torch.testing.assert_close([*flow.drift.parameters()], before, rtol=0, atol=1e-10)


@pytest.mark.bench
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
    assert row["mass - 1"] == pytest.approx(flow.units.scale - 1, abs=1e-5)
    row = peers_likelihood.measure(dataset, flow, "a column", lambda x: x[:, None], None)
    assert row["mass - 1"] == "refused: shape (16, 1)"


def test_a_run_of_all_that_was_killed_goes_on_and_the_next_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(everything, "FOLDER", tmp_path)
    ran = []

    def run(command):
        ran.append(command[2].removeprefix("benchmarks."))
        return SimpleNamespace(returncode=int(ran[-1] == fails))

    monkeypatch.setattr(everything.subprocess, "run", run)
    first, second, *rest = everything.NAMES
    fails = second
    assert everything.main([]) == 1
    assert ran == [first, second]
    fails = None
    assert everything.main([]) == 0
    assert ran[2:] == [second, *rest], "not the first again"
    ran.clear()
    assert everything.main([]) == 0
    assert ran == list(everything.NAMES), "a whole run is followed by a whole run"


class Clock:
    """Seconds that pass only when it is told so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def passes(self, seconds):
        self.now += seconds


def beside(kl, clock=None, takes=0.0):
    """A log-density that far from N(0, 1), nats: moved by sqrt(2 KL); it takes so many seconds."""

    def log_density(y):
        if clock is not None:
            clock.passes(takes)
        return torch.distributions.Normal(1.0 + 0.5 * math.sqrt(2 * kl), 0.5).log_prob(y)

    return log_density


@pytest.fixture(scope="module")
def bell():
    return make_dataset("gaussian", n_train=500)


def test_the_watch_counts_work_and_not_its_own_looks(bell):
    clock = Clock()
    watch = Watch(bell, clock=clock)
    clock.passes(5)
    watch.restart()
    for iteration, kl in ((10, 0.1), (20, 0.004), (30, 0.03)):
        clock.passes(2)
        watch(beside(kl, clock, 100), iteration)
    seconds, distance, iterations = zip(*watch.curve, strict=True)
    assert seconds == (2, 4, 6)
    assert distance == pytest.approx([0.1, 0.004, 0.03], abs=1e-5)
    assert iterations == (10, 20, 30)
    assert watch.reached(0.005) == (4, 20), "the first that is below it"
    assert watch.reached(0.001) is None


def test_the_watch_ends_a_training_at_the_level_or_after_so_many_seconds(bell):
    clock = Clock()
    watch = Watch(bell, enough=0.005, most=3, clock=clock)
    watch(beside(0.006), 1)
    with pytest.raises(Enough):
        watch(beside(0.004), 2)
    clock.passes(4)
    with pytest.raises(Enough):
        watch(beside(0.006), 3)
    assert len(watch.curve) == 3


def test_what_is_no_density_is_infinitely_far(bell):
    watch = Watch(bell)
    watch(lambda y: torch.full_like(y, math.nan), 1)

    def folds(y):
        raise ValueError("folds the line")

    watch(folds, 2)
    assert [kl for _, kl, _ in watch.curve] == [math.inf] * 2


def test_a_training_ends_with_its_budget_and_a_rate_of_zero():
    """Adam moves by the rate where the gradient is constant."""
    budget = 40
    model, seen = torch.nn.Linear(1, 1, bias=False).double(), {}
    torch.nn.init.zeros_(model.weight)
    look = lambda log_density, iteration: seen.update({iteration: log_density(None)})
    speedrun.climb(
        model, lambda: model.weight.sum(), lambda _: model.weight.item(), look, budget,
        learning_rate=0.5,
    )  # fmt: skip
    rates = 0.5 * np.array([warm_up_and_cosine(k, budget) for k in range(budget)])
    assert list(seen) == [*range(0, budget, budget // 20), budget]
    assert list(seen.values()) == pytest.approx([rates[:k].sum() for k in seen], rel=1e-6)
    assert rates.max() == 0.5
    assert rates.argmax() in (budget // 5 - 1, budget // 5)
    assert rates[-1] < 0.01 * rates.max()
    assert warm_up_and_cosine(budget, budget) == pytest.approx(0, abs=1e-12)


@pytest.mark.bench
@pytest.mark.parametrize(
    "settings",
    [
        {"n_iterations": 6},
        {"n_iterations": 3, "optimizer": "natural"},
        {"n_iterations": 4, "batch_size": 64, "gradient": "backprop", "logdet": "trace"},
    ],
)
def test_our_contender_is_the_notebooks_training(settings):
    data = make_dataset("laplace_mixture", n_train=1000)
    settings = {"learning_rate": 0.002} | settings  # the notebook would go back from where it falls
    seen = []
    speedrun.flow(data, 3, lambda log_density, _: seen.append(log_density(data.test)), **settings)
    fitted = notebook("ODE.ipynb").train(
        data, method="rk4", n_steps=4, seed=3, progress=False, **{"logdet": "map"} | settings
    )
    found = fitted.log_likelihood(data.test)
    torch.testing.assert_close(seen[-1], found, rtol=0, atol=1e-12)
    assert (seen[-1] - seen[0]).abs().max() > 1e-3, "it has moved"


@pytest.mark.bench
def test_one_drift_by_autograd_and_by_hand_climbs_alike():
    data, ends = make_dataset("laplace_mixture", n_train=1000), []
    for net in (None, speedrun.by_autograd):
        look = lambda log_density, _: ends.append(log_density(data.test))
        speedrun.flow(data, 0, look, net, n_iterations=1)
    torch.testing.assert_close(ends[3], ends[1], rtol=0, atol=1e-10)
    assert type(speedrun.by_autograd().kernel()).__name__ == "AutogradKernel"


def test_the_race_is_in_single_precision():
    """As jax computes; so do ours and torch's rivals."""
    assert speedrun.sample("laplace_mixture", 3).train.dtype == torch.float32


def test_every_contender_with_a_choice_has_settings_of_its_grid():
    chosen = {name for name, contender in speedrun.CONTENDERS.items() if contender.grid}
    assert set(speedrun.SETTINGS) == {(d, name) for d in speedrun.DENSITIES for name in chosen}
    for (_, name), settings in speedrun.SETTINGS.items():
        grid = speedrun.CONTENDERS[name].grid
        assert set(settings) == set(grid)
        assert all(value in grid[key] for key, value in settings.items()), name
    assert not set(speedrun.SEEDS) & set(speedrun.TUNING_SEEDS)


def test_each_row_of_the_credit_takes_over_all_but_one_thing():
    assert list(speedrun.CREDIT) == [
        "CNF on minibatches, backprop, T = 10", "discrete adjoint", "derivatives in closed form",
        "compressed data", "T = 4 with map", "natural gradient", "closed form",
        "two steps, penalty given",
    ]  # fmt: skip
    trains = [train for train, _ in speedrun.CREDIT.values()][:6]
    assert {train.func for train in trains} == {speedrun.flow}
    plain = {"n_steps": 10, "logdet": "trace"}
    batches = plain | {"batch_size": 256}
    assert [train.keywords for train in trains] == [
        batches | {"gradient": "backprop"}, batches | {"net": speedrun.by_autograd}, batches, plain,
        speedrun.ADAM, {"optimizer": "natural"},
    ]  # fmt: skip
    whose = [name for _, name in speedrun.CREDIT.values()]
    assert whose[:4] == 3 * ["diffrax, minibatches of 256"] + [speedrun.REFERENCE]
    assert set(whose) - {None} <= set(speedrun.CONTENDERS)


def pretend(kl, seconds, clock, compilation=0.0):
    """A contender that is `kl / n_iterations` from the truth after that many seconds a look."""

    def train(dataset, seed, watch, n_iterations=1):
        watch.compilation = compilation
        for iteration in (1, 2):
            clock.passes(seconds[seed] if isinstance(seconds, dict) else seconds * n_iterations)
            watch(beside(kl / n_iterations if iteration == 2 else 1.0), iteration)

    return train


@pytest.fixture
def field(monkeypatch, bell):
    """A race of four on one Gaussian sample, by a clock of our own."""
    clock, made = Clock(), speedrun.Contender
    grid = {"n_iterations": (1, 4, 2)}
    contenders = {
        "ours, slow": made(pretend(0.001, 9.0, clock), "ours"),
        "ours": made(pretend(0.008, 1.0, clock), "ours", grid),
        "rival": made(pretend(0.001, {0: 3.0, 1: 4.0, 2: 8.0}, clock, 10.0), "rival"),
        "rival, minibatches": made(pretend(0.5, 1.0, clock), "rival"),
    }
    monkeypatch.setattr(speedrun, "CONTENDERS", contenders)
    monkeypatch.setattr(speedrun, "DENSITIES", {"gaussian": "Gaussian"})
    monkeypatch.setattr(speedrun, "SETTINGS", {("gaussian", "ours"): {"n_iterations": 2}})
    monkeypatch.setattr(speedrun, "REFERENCE", "rival")
    monkeypatch.setattr(speedrun, "make_dataset", lambda name, seed: bell)
    monkeypatch.setattr(speedrun, "time", SimpleNamespace(process_time=clock))
    monkeypatch.setattr(
        speedrun, "Watch", lambda data, enough=0.0, *_, **__: Watch(data, enough, clock=clock)
    )
    return clock


def test_the_soonest_settings_are_taken_or_else_the_nearest(field, monkeypatch):
    speedrun.SETTINGS.clear()
    rows = speedrun.tune(["gaussian"], speedrun.CONTENDERS, (0, 1))
    assert speedrun.SETTINGS == {("gaussian", "ours"): {"n_iterations": 2}}
    assert [row["n_iterations"] for row in rows] == [1, 4, 2]
    assert [row["processor s"] for row in rows] == ["–", 8, 4]
    monkeypatch.setattr(speedrun, "LEVEL", 0.001)
    speedrun.tune(["gaussian"], speedrun.CONTENDERS, (0, 1))
    assert speedrun.SETTINGS == {("gaussian", "ours"): {"n_iterations": 4}}


def test_the_race_in_rows(field):
    found = speedrun.race("gaussian", (0, 1, 2))
    slow, ours, rival, batches = speedrun.rows_of("gaussian", found)
    assert (rival["s to 0.005"], rival["quartiles"]) == (8, "6 – 16"), "two looks each"
    assert ours["s to 0.005"] == 4
    assert ours["times the reference"] == 0.5
    assert (ours["reached"], ours["iterations"], ours["n_iterations"]) == ("3 of 3", 2, 2)
    assert (batches["s to 0.005"], batches["reached"]) == ("–", "0 of 3")
    assert batches["iterations"] == "–"
    assert slow["s"] == 18
    assert rival["compilation"] == 10
    free, compiled, minibatches = speedrun.how_much_sooner("gaussian", found)
    assert (free["ours"], free["soonest rival"], free["times sooner"]) == ("ours", "rival", 2)
    assert (compiled["its s"], compiled["times sooner"]) == (18, 4.5)
    assert (minibatches["its s"], minibatches["times sooner"]) == ("–", "–")


def test_a_training_of_the_race_follows_an_untimed_one_on_a_copy(field, monkeypatch):
    calls = []

    def noted(dataset, seed, watch, **settings):
        calls.append((dataset, settings))
        pretend(0.001, 1.0, field)(dataset, seed, watch)

    made, grid = speedrun.Contender, {"n_iterations": (4,)}
    contenders = {"climbs": made(noted, "ours", grid), "solved": made(noted, "ours")}
    monkeypatch.setattr(speedrun, "CONTENDERS", contenders)
    monkeypatch.setattr(speedrun, "SETTINGS", {("gaussian", "climbs"): {"n_iterations": 4}})
    found = speedrun.race("gaussian", (0,))
    assert [len(watches) for watches in found.values()] == [1, 1]
    settings = [of_call for _, of_call in calls]
    assert settings == [{"n_iterations": 2}, {"n_iterations": 4}, {}, {}]
    assert calls[0][0] is not calls[1][0], "a dataset remembers what was computed of it"


def test_what_each_change_brings(field, monkeypatch):
    changes = {"start": "ours, slow", "change": "ours"}
    found = {name: (speedrun.CONTENDERS[of].train, of) for name, of in changes.items()}
    monkeypatch.setattr(speedrun, "CREDIT", found)
    start, change = speedrun.credit((0, 1, 2), "gaussian")
    assert (start["s to 0.005"], start["times sooner"]) == (18, "–")
    assert (change["s to 0.005"], change["times sooner"]) == (4, 4.5)
    assert change["reached"] == "3 of 3"


@pytest.mark.bench
def test_own_data_are_read_as_a_notebook_does_and_ours_is_chosen_by_validation(
    monkeypatch, tmp_path
):
    """A file of weighted, bounded numbers: the row has all models, and ours is one of four."""
    y = np.random.default_rng(0).gamma(2.0, 1.0, 200)
    table = lambda library, name: pd.DataFrame({"y": y, "w": 1 + np.arange(200) % 2})
    options = {"support": (0.0, np.inf), "weights": "w"}
    monkeypatch.setattr(own_data, "FILES", {"gamma.csv:y": ("none", options, "gamma")})
    monkeypatch.setattr(own_data, "table", table)
    monkeypatch.setattr(own_data, "FOLDER", tmp_path)
    row = own_data.measure({"source": "gamma.csv:y", "seed": 0})
    assert row["n"] == 200
    assert row["bends"] == ["Inside"]
    assert row["chosen"] in own_data.OURS
    assert row["ahead"][row["chosen"]] == (0.0, 0.0)
    assert set(row["ahead"]) == {*own_data.OURS, *YARDSTICKS}
    gaps = {
        k: row["log_likelihood"][row["chosen"]][0] - v[0] for k, v in row["log_likelihood"].items()
    }
    assert {k: v[0] for k, v in row["ahead"].items()} == pytest.approx(gaps)
    assert "weights" not in row["notes"][0]
    line = own_data._line("gamma.csv:y", row)
    assert line["ours"] == row["chosen"]
