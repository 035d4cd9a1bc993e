"""What the benchmarks compute themselves, and that the pages say what was measured.

`bench`: what fits models, or needs the packages that are compared with.
"""

import importlib
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import __main__ as everything
from benchmarks import common, objectives, peers_likelihood, speedrun, tables
from benchmarks.common import Enough, Watch, command
from benchmarks.estimators import CONTENDERS, notebook
from benchmarks.tables import fill, read_csv, take
from conftest import ROOT
from dlutils import flows
from dlutils.data.datasets import make_dataset
from dlutils.evaluation import compare
from dlutils.flows import adjoint
from dlutils.flows.matching import mean_squares
from dlutils.training import History


@pytest.mark.parametrize("name", everything.NAMES)
def test_every_benchmark_is_a_command(name, capsys):
    """Whether or not the packages that it compares with are there."""
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit):
        command(module.make, module.PACKAGES, "less", ["--help"])
    assert f"python -m benchmarks.{name}" in capsys.readouterr().out


@pytest.mark.bench
@pytest.mark.parametrize("name", everything.NAMES)
def test_every_benchmark_runs_in_its_smallest_size(name):
    line = [sys.executable, "-m", f"benchmarks.{name}", "--quick"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    if "is missing: run `make bench`" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"# {name}_quick" in done.stdout
    assert done.stdout.count("\n## ") >= 1


@pytest.mark.bench
def test_scikit_learns_mixture_goes_on_while_bic_rises_and_stops_at_the_number_of_values():
    pytest.importorskip("sklearn")  # of the group bench
    estimate, _, _ = CONTENDERS["EM, scikit-learn"]
    dataset = make_dataset("marron_wand_10", n_train=1000, seed=1)  # one component: 0.09
    assert compare(dataset, estimate(dataset, 1)).normalized_kl < 0.03
    few = replace(make_dataset("gaussian"), train=torch.tensor([0.0, 0.0, 1.0, 1.0, 3.0]))
    points = torch.linspace(-20, 20, 400_001)
    density = estimate(few, 0)(points).exp()
    assert torch.trapezoid(density, points.double()) == pytest.approx(1, abs=1e-3)


@pytest.mark.bench
@pytest.mark.parametrize(("unit", "origin"), [(1.0, 0.0), (10.0, 60.0)])
def test_deft_recovers_a_gaussian_and_goes_on_beyond_its_box(unit, origin):
    pytest.importorskip("suftware")  # of the group bench
    y = make_dataset("marron_wand_01", n_train=3000).train.double()
    dataset = replace(make_dataset("marron_wand_01"), train=origin + unit * y)
    estimate = CONTENDERS["DEFT"][0](dataset, 0)
    log_density = lambda points: estimate(origin + unit * points) + math.log(unit)
    points = torch.linspace(-3, 3, 61).double()
    exact = torch.distributions.Normal(y.mean(), y.std()).log_prob(points)
    assert (log_density(points) - exact).abs().max() < 0.2
    fine = torch.linspace(-30, 30, 60_001).double()
    log_p = log_density(fine)
    assert torch.trapezoid(log_p.exp(), fine) == pytest.approx(1, abs=1e-3)
    ends = log_p[[0, 5000, 10_000, -10_001, -5001, -1]].reshape(2, 3)
    assert ends.diff(n=2).abs().max() < 1e-6
    assert ends[0, 0] < ends[0, 1] < -20
    assert ends[1, 2] < ends[1, 1] < -20


def make(options):
    """A demonstration."""
    rows = [{"name": "a", "KL": 0.001234, "ms": 3}, {"name": "b", "KL": 12345.6, "ms": math.inf}]
    return {"First": rows, "Second": [{"name": "a", "s": 1.5}]}


NAME = Path(__file__).stem  # of the benchmark that this file is to `command`


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """The folder of the reports, in a project of its own."""
    monkeypatch.setattr(common, "FOLDER", tmp_path / "build")
    return tmp_path / "build"


def test_report_and_the_page_made_of_it(reports, tmp_path, capsys):
    assert command(make, ["torch"], "less", ["--quick"]) == 0
    quick = {path.name for path in reports.iterdir()}
    assert quick == {f"{NAME}_quick.md", f"{NAME}_quick.csv"}, "it does not pass for a whole one"
    capsys.readouterr()
    assert command(make, ["torch"], "less", []) == 0
    report = (reports / f"{NAME}.md").read_text(encoding="utf-8")
    assert report.strip() == capsys.readouterr().out.strip()
    assert "| a    | 0.00123 |   3 |\n| b    |  12,346 |   – |" in report
    (tmp_path / "sources.csv").write_text("benchmark,machine,date\nother,it,then\n")
    take(NAME, reports, tmp_path)
    assert read_csv(tmp_path / f"{NAME}.csv")[-1] == {"table": "Second", "name": "a", "s": 1.5}
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
        (f"{NAME} | First | s", "no table 'First' with the columns"),
        (f"{NAME} | First | KL | name = c", "no table 'First' with the columns"),
    ):
        with pytest.raises(ValueError, match=message):
            fill(f"<!-- table: {wrong} -->\n<!-- end -->", tmp_path)


@pytest.mark.parametrize(
    ("packages", "arguments", "message"),
    [
        (["no-such-package"], [], "the package 'no-such-package' is missing: run `make bench`"),
        ([], ["--threads", "0"], "--threads must be at least 1, not 0"),
    ],
)
def test_what_a_benchmark_cannot_do_is_said(packages, arguments, message, capsys):
    with pytest.raises(SystemExit):
        command(make, packages, "less", arguments)
    assert message in capsys.readouterr().err


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
    for names, message in (
        ([], "run python -m benchmarks.none first"),
        (["parameterizations"], "writes its page and its rows itself"),
    ):
        with pytest.raises(SystemExit):
            tables.main(names)
        assert message in capsys.readouterr().err
    assert first.read_text() == page.format("demo")
    second.unlink()
    assert tables.main([]) == 0
    assert "12,346 |\n\n`python -m benchmarks.demo` on it; then." in first.read_text()


def test_a_grid_of_runs_goes_on_and_the_next_one_begins_anew(reports, monkeypatch):
    threads = lambda workers, _: lambda: ThreadPoolExecutor(workers)
    monkeypatch.setattr(common, "process_pool", threads)
    options, ran = SimpleNamespace(record=reports / f"{NAME}.jsonl"), []

    def square(config):
        ran.append(config["x"])
        if config["x"] == 3:
            raise ValueError("three is too many")
        return {"square": config["x"] ** 2}

    with pytest.raises(RuntimeError, match="three is too many"):
        common.runs(square, [{"x": 2}, {"x": 3}], options, 1)
    rows = common.runs(square, [{"x": 4}, {"x": 2}], options, 1)
    assert [row["square"] for row in rows] == [16, 4]
    assert ran == [2, 3, 4], "not 2 again"
    assert command(make, [], "less", []) == 0
    assert not options.record.exists()


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


def means(objective, repeats: int = 300) -> tuple[float, float, float]:
    """Mean of the objective of a batch, its standard error, and the sd."""
    with torch.no_grad():
        values = torch.stack([objective() for _ in range(repeats)])
    sd = values.std().item()
    return values.mean().item(), sd / repeats**0.5, sd


@pytest.fixture(scope="module")
def laplace():
    return make_dataset("laplace_mixture", n_train=3000)


@pytest.mark.bench
def test_the_objectives_of_a_batch_have_the_means_and_the_noise_of_all_points(laplace):
    flow = objectives.likelihood(laplace, 0, n_iterations=3, learning_rate=0.003)
    log_p = flow.log_likelihood(laplace.train)
    value, error, sd = means(objectives.likelihood_of(laplace, flow))
    assert value == pytest.approx(log_p.mean().item(), abs=5 * error)
    assert sd == pytest.approx(log_p.std().item() / 16, rel=0.2)

    fitted = objectives.bound(laplace, 0, n_iterations=40)
    value, error, sd = means(objectives.bound_of(laplace, fitted))
    _, _, expected = notebook("SDE.ipynb").spread(fitted, laplace.train, "lattice", 256, 300)
    assert value == pytest.approx(fitted.elbo(laplace.train).mean().item(), abs=5 * error)
    assert sd == pytest.approx(expected, rel=0.2)


@pytest.mark.bench
@pytest.mark.parametrize("coupling", ["sorted", "independent"])
def test_the_mean_square_of_a_batch_and_the_step_that_is_timed(laplace, coupling):
    flow = objectives.matching(coupling, laplace, 0, n_iterations=3)
    left, _ = mean_squares(flow.drift, flow.units(laplace.train), coupling)
    objective = objectives.mean_square_of(coupling, laplace, flow)
    value, error, sd = means(objective)
    assert value == pytest.approx(left, abs=5 * error)
    assert means(objectives.mean_square_of(coupling, laplace, flow, 1024))[2] < 0.7 * sd
    before = [p.detach().clone() for p in flow.drift.parameters()]
    step = objectives.adam_step(objective, flow.drift)
    for _ in range(3):
        step()
    assert all(p.grad.abs().max() > 0 for p in flow.drift.parameters())
    torch.testing.assert_close([*flow.drift.parameters()], before, rtol=0, atol=1e-10)


def test_settings_are_there_for_all_that_have_a_choice_and_of_their_grids():
    by_adam = set(objectives.TRAINED) - {"likelihood, natural gradient"}
    assert set(objectives.SETTINGS) == {(d, w) for d in objectives.DENSITIES for w in by_adam}
    chosen = {name for name, contender in speedrun.CONTENDERS.items() if contender.grid}
    assert set(speedrun.SETTINGS) == {(d, name) for d in speedrun.DENSITIES for name in chosen}
    for (_, name), settings in speedrun.SETTINGS.items():
        grid = speedrun.CONTENDERS[name].grid
        assert settings.keys() == grid.keys()
        assert all(value in grid[key] for key, value in settings.items()), name
    assert {whose for _, whose in speedrun.CREDIT.values()} - {None} <= set(speedrun.CONTENDERS)
    assert not set(speedrun.SEEDS) & set(speedrun.TUNING_SEEDS)
    assert speedrun.sample("laplace_mixture", 3).train.dtype == torch.float32, "as jax computes"


@pytest.mark.parametrize("folds", [False, True])
def test_a_row_an_objective(monkeypatch, folds):
    """A budget is as many iterations as there is room for, by the time of those that were taken."""
    clock, taken = Clock(), []

    def fake_fit(dataset, seed, n_iterations=1, learning_rate=0.0):
        """A Gaussian of variance one; it never takes more than 40 iterations, of 0.1 s each."""
        taken.append(n_iterations)
        history = History(train=[0.0] * min(n_iterations, 40), seconds=2.0)
        clock.passes(0.1 * len(history.train))

        def log_likelihood(y):
            if folds:
                raise ValueError("folds")
            return torch.distributions.Normal(learning_rate, 1.0).log_prob(y)

        return SimpleNamespace(log_likelihood=log_likelihood, history=history)

    monkeypatch.setattr(objectives, "time", SimpleNamespace(thread_time=clock))
    monkeypatch.setattr(objectives, "natural_step", lambda dataset, model: lambda: None)
    monkeypatch.setitem(objectives.DENSITIES, "marron_wand_01", "Gaussian")
    monkeypatch.setattr(objectives, "TRAINED", {"fake": (fake_fit, None, "nats")})
    monkeypatch.setattr(objectives, "SOLVED", {"fake, solved": fake_fit})
    settings = {("marron_wand_01", "fake"): {"learning_rate": 0.2}}
    monkeypatch.setattr(objectives, "SETTINGS", settings)
    ways = ["fake", "fake, solved"]
    fitted, solved = objectives.side_by_side(["marron_wand_01"], ways, (1, 3), (0, 1))
    assert taken[:6] == [10, 200, 10, 10, 30, 30], "one to warm up, and one that is timed"
    distances = [fitted["KL after 1 s"], fitted["KL after 3 s"], solved["KL after 3 s"]]
    assert distances == (
        3 * ["inf ± nan"] if folds else [*2 * ["0.02000 ± 0.00000"], "-0.00000 ± 0.00000"]
    )
    assert (fitted["data"], fitted["iterations"], fitted["learning_rate"]) == ("Gaussian", 30, 0.2)
    assert solved["KL after 1 s"] == "–", "the solve takes two seconds"


@pytest.mark.bench
def test_the_flow_of_the_peers_ends_in_the_density_itself():
    dataset = make_dataset(peers_likelihood.DENSITY)
    flow = peers_likelihood.Flow(dataset)
    in_steps = lambda T: lambda x: adjoint.log_likelihood(flow, x, T, "rk4", "map")
    measure = lambda setting, solve: peers_likelihood.measure(dataset, flow, setting, solve, None)
    row = measure("right", in_steps(32))
    assert (row["mass - 1"], row["KL"]) == pytest.approx((0, 0), abs=1e-5)
    assert row["problems"] == 0
    assert math.isnan(row["order"])
    y = torch.linspace(-2.5, 2.5, 101)
    found = flow.in_data_units(in_steps(256))(y).detach()
    assert torch.allclose(found, dataset.log_prob(y), atol=1e-6)
    forgotten = measure("scale forgotten", in_steps(32))["mass - 1"]
    assert forgotten == pytest.approx(flow.units.scale - 1, abs=1e-5)
    column = measure("a column", lambda x: x[:, None])
    assert column == {"mass - 1": "refused: shape (16, 1)"}


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
    assert watch.reached(0.001) == (math.inf, math.inf)


def test_the_watch_ends_a_training_at_the_level_or_after_so_many_seconds(bell):
    def folds(y):
        raise ValueError("folds the line")

    clock = Clock()
    watch = Watch(bell, enough=0.005, most=3, clock=clock)
    watch(beside(0.006), 1)
    watch(folds, 2)
    watch(lambda y: torch.full_like(y, math.nan), 3)
    assert [kl for _, kl, _ in watch.curve[1:]] == [math.inf] * 2, "no density is infinitely far"
    with pytest.raises(Enough):
        watch(beside(0.004), 4)
    clock.passes(4)
    with pytest.raises(Enough):
        watch(beside(0.006), 5)
    assert len(watch.curve) == 5


@pytest.mark.bench
@pytest.mark.parametrize(
    "settings",
    [
        {"n_iterations": 6},
        {"n_iterations": 3, "optimizer": "natural"},
        {"n_iterations": 4, "batch_size": 64, "gradient": "backprop", "logdet": "trace"},
    ],
)
def test_our_contender_is_the_notebooks_training(laplace, settings):
    settings = {"learning_rate": 0.002} | settings  # the notebook would go back from where it falls
    seen = []
    look = lambda log_density, _: seen.append(log_density(laplace.test))
    speedrun.flow(laplace, 3, look, **settings)
    settings.pop("gradient", None)  # either is the same
    fitted = flows.train(
        laplace, method="rk4", n_steps=4, seed=3, progress=False, **{"logdet": "map"} | settings
    )
    found = fitted.log_likelihood(laplace.test)
    torch.testing.assert_close(seen[-1], found, rtol=0, atol=1e-12)
    assert (seen[-1] - seen[0]).abs().max() > 1e-3, "it has moved"


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
    tried = [(row["n_iterations"], row["processor s"]) for row in rows]
    assert tried == [(1, math.inf), (4, 8), (2, 4)]
    monkeypatch.setattr(speedrun, "LEVEL", 0.001)
    speedrun.tune(["gaussian"], speedrun.CONTENDERS, (0, 1))
    assert speedrun.SETTINGS == {("gaussian", "ours"): {"n_iterations": 4}}


def test_the_race_in_rows(field):
    found = speedrun.race("gaussian", (0, 1, 2))
    slow, ours, rival, batches = speedrun.rows_of("gaussian", found)
    assert (rival["s to 0.005"], rival["quartiles"]) == (8, "6 – 16"), "two looks each"
    assert (ours["s to 0.005"], ours["times the reference"]) == (4, 0.5)
    assert (ours["reached"], ours["iterations"], ours["n_iterations"]) == ("3 of 3", 2, 2)
    assert (batches["s to 0.005"], batches["quartiles"]) == (math.inf, "∞ – ∞")
    assert batches["reached"] == "0 of 3"
    assert (slow["s"], rival["compilation"]) == (18, 10)
    free, compiled, minibatches = speedrun.how_much_sooner("gaussian", found)
    assert (free["ours"], free["soonest rival"], free["times sooner"]) == ("ours", "rival", 2)
    assert (compiled["its s"], compiled["times sooner"]) == (18, 4.5)
    assert (minibatches["its s"], minibatches["times sooner"]) == (math.inf, math.inf)


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
    assert (start["s to 0.005"], change["s to 0.005"]) == (18, 4)
    assert math.isnan(start["times sooner"])
    assert (change["times sooner"], change["reached"]) == (4.5, "3 of 3")
