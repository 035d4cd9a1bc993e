import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from dlutils.data.datasets import DISTRIBUTIONS, Dataset, make_dataset
from dlutils.evaluation import (
    Comparison,
    compare,
    constant_cdf,
    densities,
    evaluate,
    objectives_table,
    over_samples,
    quadrature,
    slope,
)
from dlutils.flows.adjoint import log_likelihood
from dlutils.flows.convergence import errors_by_steps, kl_by_steps
from dlutils.seeding import seeded
from dlutils.training import History


@pytest.fixture
def gaussian():
    return make_dataset("gaussian")  # N(1, 0.5²)


def test_kl_between_two_gaussians_is_the_closed_form(gaussian):
    other = Normal(1.1, 0.6)
    result = compare(gaussian, other.log_prob)
    expected = math.log(0.6 / 0.5) + (0.25 + 0.01) / (2 * 0.36) - 0.5
    assert result.kl == pytest.approx(expected, abs=2e-5)
    assert result.mass == pytest.approx(1, abs=1e-3)


def test_mass_is_measured_and_divided_out(gaussian):
    truth = Normal(1.0, 0.5)
    result = compare(gaussian, lambda y: truth.log_prob(y) + math.log(1.01))
    assert result.mass == pytest.approx(1.01, abs=1e-5)
    assert result.kl == pytest.approx(-math.log(1.01), abs=1e-5)
    assert result.normalized_kl == pytest.approx(0, abs=1e-5)


def test_a_model_that_is_not_a_number_somewhere_is_refused(gaussian):
    with pytest.raises(ValueError, match=r"not finite at \d+ of \d+ nodes.*y = 2"):
        compare(gaussian, lambda y: torch.where(y > 2, torch.nan, 0.0))


HARD = ("marron_wand_10", "uniform", "benchden_04", "benchden_21", "cauchy", "log-normal")


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize(("n_nodes", "tolerance"), [(401, 3e-4), (4001, 1e-5)])
def test_quadrature_knows_mass_and_entropy_of_every_density(monkeypatch, name, n_nodes, tolerance):
    """As integrals of a constant and of p log p; mass 2e-6 lies outside."""
    monkeypatch.setitem(DISTRIBUTIONS, "cauchy", torch.distributions.Cauchy(3.0, 2.0))
    monkeypatch.setitem(DISTRIBUTIONS, "log-normal", torch.distributions.LogNormal(0.0, 2.0))
    data = make_dataset(name, 10, 10, 10)
    y, weights = quadrature(data, n_nodes)
    assert n_nodes / 2 < len(y) < 1.5 * n_nodes
    assert (np.diff(y) > 0).all()
    log_p = np.maximum(data.log_prob(y).numpy(), -1e9)
    weights_p = weights * np.exp(log_p)
    assert weights.sum() == pytest.approx(data.support[1] - data.support[0], rel=1e-9)
    assert weights_p.sum() == pytest.approx(1, abs=tolerance)
    assert weights_p @ log_p == pytest.approx(data.population_log_likelihood, abs=20 * tolerance)


def test_nodes_of_a_sample_follow_it():
    """An exponential of a normal of sd 2: most of it lies within a thousandth of its range."""
    truth = torch.distributions.LogNormal(0.0, 2.0)
    with seeded(1):
        own = Dataset.from_samples(truth.sample((5000,)))
    log_q = lambda y: torch.where(y > 0, truth.log_prob(y.clamp(min=1e-30)), -torch.inf)
    assert compare(own, log_q).mass == pytest.approx(1, abs=1e-3)


def test_a_row_of_a_table_pairs_the_points(gaussian):
    row = evaluate(gaussian, Normal(1.1, 0.5).log_prob)
    difference = Normal(1.1, 0.5).log_prob(gaussian.test) - Normal(1.0, 0.5).log_prob(gaussian.test)
    mean, error = (float(v) for v in row["minus expected"].split(" ± "))
    assert mean == pytest.approx(difference.mean().item(), abs=1e-4)
    assert error == pytest.approx(0.1 / 0.5 / 100, abs=1e-4)  # sd of 0.4 (y - 1), n = 10 000
    assert row["KL"] == pytest.approx(0.02, abs=1e-5)
    own = Dataset.from_samples(torch.linspace(-2, 2, 50))
    unknown = evaluate(own, Normal(0.0, 1.0).log_prob)
    assert list(unknown) == list(row), "rows of one table"
    assert unknown["minus expected"] == unknown["KL"] == "–"


def test_slope_is_the_power(gaussian):
    assert slope([1, 10, 100], [5, 0.05, 0.0005]) == pytest.approx(-2)
    assert slope([1, 10], [0.0, 0.0]) == pytest.approx(0)


def off_by(factor, truth=0.0):
    """A density that is that multiple of the true one, or of one whose truth is unknown."""
    y = np.linspace(-1, 1, 3)
    log_p = None if truth is None else np.full(3, truth)
    return Comparison(
        y, np.ones(3), log_p, y, factor, math.nan if truth is None else 0.02 - math.log(factor)
    )


@pytest.mark.parametrize(
    ("mass", "words"),
    [
        (0.9901, "KL 0.0200 nats"),
        (1.0099, "KL 0.0200 nats"),
        (0.9899, "KL 0.0200 nats, mass 0.9899"),
        (1.0101, "KL 0.0200 nats, mass 1.01"),
    ],
)
def test_a_density_has_mass_one_and_what_is_none_says_so(mass, words):
    found = off_by(mass)
    assert found.words == words
    assert found.is_density is ("mass" not in words)
    assert f"mass of the model     {mass:.4f}" in found.summary()
    assert ("this is no density" in found.summary()) is ("mass" in words)
    assert "largest difference" in found.summary()
    unknown = off_by(mass, None)
    assert unknown.words == f"mass {mass:.4f}"
    assert "largest difference" not in unknown.summary()


@dataclass(frozen=True)
class Shifted:
    """The Gaussian data's own density moved so far that the divergence is `kl`, times a mass."""

    kl: float
    mass: float = 1.0
    seconds: float = 0.0

    @property
    def history(self):
        return History(seconds=self.seconds)

    def log_likelihood(self, y):
        moved = Normal(1.0 + (self.kl / 2) ** 0.5, 0.5)  # kl = 2 shift²
        return moved.log_prob(y) + math.log(self.mass)


@pytest.fixture
def several():
    """Two models of three samples: the second is farther off by 0.01 on each."""
    kl = (0.02, 0.05, 0.11)
    models = {
        "first": [Shifted(v, m, 1.0) for v, m in zip(kl, (1.0, 0.97, 1.02), strict=True)],
        "second": [Shifted(v + 0.01, seconds=s) for v, s in zip(kl, (2.0, 3.0, 7.0), strict=True)],
    }
    return models, [make_dataset("gaussian", 10, 10, 10, seed) for seed in range(3)]


def numbers(text):
    return [float(number) for number in text.replace("–", "±").split("±")]


def test_a_table_over_samples_has_means_errors_and_extremes(several):
    rows = over_samples(*several, "first")
    assert [row["model"] for row in rows] == ["first", "second"]
    for row, more in zip(rows, (0.0, 0.01), strict=True):
        kl = np.array([0.02, 0.05, 0.11]) + more
        expected = [kl.mean(), kl.std(ddof=1) / 3**0.5]
        assert numbers(row["KL"]) == pytest.approx(expected, abs=5e-5)
        assert numbers(row["from – to"]) == pytest.approx([kl[0], kl[-1]], abs=5e-5)
    assert [row["mass"] for row in rows] == ["0.9700", "1.0000"], "the farthest from one"
    assert [row["seconds"] for row in rows] == [1.0, 4.0]


def test_differences_from_the_reference_are_paired(several):
    first, second = (row["minus first"] for row in over_samples(*several, "first"))
    assert first == "–"
    assert second.startswith("+")
    assert numbers(second) == pytest.approx([0.01, 0.0], abs=5e-5), "unpaired it would be 0.04"
    first, second = (row["minus second"] for row in over_samples(*several, "second"))
    assert (first[0], second) == ("-", "–")
    assert [row["minus third"] for row in over_samples(*several, "third")] == ["–", "–"]


@dataclass(frozen=True)
class Wide:
    """The flow dx/dt = log(10) x, whose end is the Gaussian data in tenths of their sd."""

    n_steps: int
    method: str

    def log_likelihood(self, y):
        f = lambda x, t: math.log(10) * x
        log_p = log_likelihood(f, (y - 1) / 0.05, self.n_steps, self.method, "map")
        return log_p - math.log(0.05)


def test_the_divergence_by_steps_is_that_of_the_model_in_so_many_steps(gaussian):
    model, steps = Wide(7, "rk2"), (1, 2, 10, 20, 40)
    kl = kl_by_steps(gaussian, {"wide": model}, "euler", steps)["wide"]
    assert np.isnan(kl).tolist() == [True, True, False, False, False], "two steps fold the line"
    for T, value in zip(steps[2:], kl[2:], strict=True):
        a = (1 - math.log(10) / T) ** T * 10  # the model's sd is that of the data divided by a
        assert value == pytest.approx((a**2 - 1) / 2 - math.log(a), abs=1e-3)
    own = kl_by_steps(gaussian, {"wide": model, "again": Wide(1, "euler")}, "rk2", [7])
    exact = compare(gaussian, model.log_likelihood, 2001).normalized_kl
    assert own["wide"] == own["again"] == [exact]
    assert model == Wide(7, "rk2")


def test_the_errors_of_a_flow_fall_by_the_order_of_the_method():
    f = lambda x, t: 0.6 * torch.sin(2 * x + t)
    steps, grid = (16, 32, 64), torch.linspace(-6, 6, 1001)
    for errors in errors_by_steps(f, grid, ["euler", "rk2"], steps):
        assert slope(steps, errors["euler"]) == pytest.approx(-1, abs=0.1)
        assert slope(steps, errors["rk2"]) == pytest.approx(-2, abs=0.1)
    (error,), (mass,) = (found["euler"] for found in errors_by_steps(f, grid, ["euler"], [16]))
    with torch.no_grad():
        log_q, exact = log_likelihood(f, grid, 16), log_likelihood(f, grid, 400, "rk4")
    h = grid[1] - grid[0]
    assert error == pytest.approx((h * exact.exp() @ (log_q - exact).abs()).item(), rel=1e-4)
    assert mass == pytest.approx(abs((h * log_q.exp().sum()).item() - 1), rel=1e-3)


def test_where_the_cdf_is_constant():
    levels, normals = [0.05, 0.5, 0.8], [Normal(0.0, 1.0), Normal(1.0, 0.3)]
    x = torch.stack([normal.loc + normal.scale * torch.linspace(-6, 6, 2001) for normal in normals])
    p = torch.stack([n.log_prob(v).exp() for n, v in zip(normals, x, strict=True)])
    expected = torch.stack([normal.icdf(torch.tensor(levels)) for normal in normals])
    for factor in (1.0, 0.9):  # a mass that is not one is divided out
        found = constant_cdf(x.numpy(), factor * p.numpy(), levels)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_models_that_fold_the_line_are_left_out_of_a_figure_and_named_in_a_table(gaussian):
    def folds(y):
        raise ValueError("the step folds the line")

    good = SimpleNamespace(log_likelihood=Normal(1.1, 0.5).log_prob, history=History(seconds=1.0))
    bad = SimpleNamespace(log_likelihood=folds, history=History(seconds=1.0))
    assert list(densities(gaussian, {"good": good, "bad": bad})) == ["good"]
    rows = over_samples({"good": [good] * 2, "bad": [good, bad]}, [gaussian] * 2, "good")
    assert rows[0]["KL"].startswith("0.02000 ± 0.00000")
    assert rows[1]["KL"] == "no density on 1 of 2"
    assert rows[1]["minus good"] == rows[1]["mass"] == "–"


def test_errors_by_steps_are_nan_where_the_line_folds():
    grid = torch.linspace(-6, 6, 401)
    error, _ = errors_by_steps(lambda x, t: 3 * x.tanh(), grid, ["euler"], (2, 64, 128))
    assert math.isnan(error["euler"][0])
    assert error["euler"][1] > error["euler"][2] > 0
    assert slope((2, 64, 128), error["euler"]) == pytest.approx(-1, abs=0.1)
    assert math.isnan(slope((1, 2), [math.nan, 1.0]))


def test_objectives_are_told_by_their_noise_and_how_soon_they_are_close():
    data = make_dataset("gaussian", 50, 40, 30)
    truth = data.log_prob(data.val).mean().item()
    shifted = lambda y: data.log_prob(y - 0.1)
    slow = History([0.0] * 20, [0, 10, 20], [truth - 1, truth - 0.02, truth], seconds=2.0)
    squares = History([-9.0] * 5, [0, 5], [9.0, 9.0])
    models = {
        "likelihood": (SimpleNamespace(history=slow, log_likelihood=shifted), 0.0542, "nats"),
        "match": (SimpleNamespace(history=squares, log_likelihood=data.log_prob), 0.1, "of it"),
        "solved": (SimpleNamespace(history=History(), log_likelihood=data.log_prob), 0, "nats"),
    }
    first, second, third = objectives_table(models, data)
    assert first.pop("KL") == pytest.approx(0.5 * 0.2**2, rel=1e-3)
    assert first == {
        "objective": "likelihood", "noise of a batch": "0.0542 nats", "iterations": 20,
        "to 0.03 nats": 10, "seconds": "2.0",
    }  # fmt: skip
    assert second["to 0.03 nats"] == "–", "a mean square is no log-likelihood"
    assert (third["noise of a batch"], third["iterations"]) == ("none", "–")
