import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import Cauchy, LogNormal, Normal

from dlutils.data.datasets import DISTRIBUTIONS, Dataset, make_dataset
from dlutils.evaluation import (
    Comparison,
    compare,
    constant_cdf,
    densities,
    evaluate,
    over_samples,
    quadrature,
    slope,
)
from dlutils.flows.adjoint import log_likelihood
from dlutils.flows.convergence import errors_by_steps, kl_by_steps
from dlutils.seeding import seeded
from dlutils.training import History

DATA = make_dataset("gaussian")  # N(1, 0.5²)


@pytest.mark.parametrize(
    ("loc", "sd", "mass", "tails"), [(1.1, 0.6, 1.0, 1e-3), (1.0, 0.5, 1.01, 1e-5)]
)
def test_kl_between_two_gaussians_is_the_closed_form(loc, sd, mass, tails):
    found = compare(DATA, lambda y: Normal(loc, sd).log_prob(y) + math.log(mass))
    kl = math.log(sd / 0.5) + (0.25 + (loc - 1) ** 2) / (2 * sd**2) - 0.5
    assert found.mass == pytest.approx(mass, abs=tails)
    assert found.kl == pytest.approx(kl - math.log(mass), abs=min(tails, 2e-5))
    assert found.normalized_kl == pytest.approx(kl, abs=tails)


def test_ise_and_hellinger_between_two_gaussians_are_the_closed_forms():
    m, s, t = 0.1, 0.5, 0.6
    found = compare(DATA, lambda y: Normal(1 + m, t).log_prob(y) + math.log(1.3))  # divided out
    product = lambda a, b, m: Normal(0.0, math.hypot(a, b)).log_prob(torch.tensor(m)).exp().item()
    ise = product(s, s, 0.0) + product(t, t, 0.0) - 2 * product(s, t, m)
    overlap = math.sqrt(2 * s * t / (s**2 + t**2)) * math.exp(-(m**2) / (4 * (s**2 + t**2)))
    assert found.ise == pytest.approx(ise, rel=1e-3)
    assert found.squared_hellinger == pytest.approx(1 - overlap, rel=0.01)


def test_a_model_that_is_not_a_number_somewhere_is_refused():
    with pytest.raises(ValueError, match=r"not finite at \d+ of \d+ nodes.*y = 2"):
        compare(DATA, lambda y: torch.where(y > 2, torch.nan, 0.0))


HARD = ("marron_wand_10", "uniform", "benchden_04", "benchden_21", "cauchy", "log-normal")


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize(("n_nodes", "tolerance"), [(401, 3e-4), (4001, 1e-5)])
def test_quadrature_knows_mass_and_entropy_of_every_density(monkeypatch, name, n_nodes, tolerance):
    """As integrals of a constant and of p log p; mass 2e-6 lies outside."""
    monkeypatch.setitem(DISTRIBUTIONS, "cauchy", Cauchy(3.0, 2.0))
    monkeypatch.setitem(DISTRIBUTIONS, "log-normal", LogNormal(0.0, 2.0))
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
    truth = LogNormal(0.0, 2.0)
    with seeded(1):
        own = Dataset.from_samples(truth.sample((5000,)))
    log_q = lambda y: torch.where(y > 0, truth.log_prob(y.clamp(min=1e-30)), -torch.inf)
    assert compare(own, log_q).mass == pytest.approx(1, abs=1e-3)


def test_a_row_of_a_table_pairs_the_points():
    row = evaluate(DATA, Normal(1.1, 0.5).log_prob)
    difference = Normal(1.1, 0.5).log_prob(DATA.test) - Normal(1.0, 0.5).log_prob(DATA.test)
    mean, error = (float(v) for v in row["minus expected"].split(" ± "))
    assert mean == pytest.approx(difference.mean().item(), abs=1e-4)
    assert error == pytest.approx(0.1 / 0.5 / 100, abs=1e-4)  # sd of 0.4 (y - 1), n = 10 000
    assert row["KL"] == pytest.approx(0.02, abs=1e-5)
    own = Dataset.from_samples(torch.linspace(-2, 2, 50))
    unknown = evaluate(own, Normal(0.0, 1.0).log_prob)
    assert list(unknown) == list(row), "rows of one table"
    assert unknown["minus expected"] == unknown["KL"] == "–"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("mass", "said"), [(0.9901, ""), (1.0099, ""), (0.9899, "mass 0.9899"), (1.0101, "mass 1.01")]
)
def test_a_density_has_mass_one_and_what_is_none_says_so(mass, said, known):
    y, kl = np.linspace(-1, 1, 3), 0.02 - math.log(mass)
    found = Comparison(y, np.ones(3), np.zeros(3) if known else None, y, mass, kl)
    assert found.is_density is not bool(said)
    about = ", ".join(["KL 0.0200 nats", *filter(None, [said])])
    assert found.words == (about if known else f"mass {mass:.4f}")
    assert f"mass of the model     {mass:.4f}" in found.summary()
    assert ("this is no density" in found.summary()) is bool(said)
    assert ("largest difference" in found.summary()) is known


def folds(y):
    raise ValueError("the step folds the line")


def fitted(log_q, seconds=1.0):
    return SimpleNamespace(log_likelihood=log_q, history=History(seconds=seconds))


def off_by(kl, mass=1.0, seconds=1.0):
    """The Gaussian data's own density moved so far that the divergence is kl, times a mass."""
    moved = Normal(1.0 + (kl / 2) ** 0.5, 0.5)  # kl = 2 shift²
    return fitted(lambda y: moved.log_prob(y) + math.log(mass), seconds)


def numbers(text):
    return [float(number) for number in text.replace("–", "±").split("±")]


def test_a_table_over_samples_has_means_errors_extremes_and_paired_differences():
    kl = np.array([0.02, 0.05, 0.11])
    models = {
        "first": [off_by(v, m) for v, m in zip(kl, (1.0, 0.97, 1.02), strict=True)],
        "second": [off_by(v + 0.01, 1, s) for v, s in zip(kl, (2.0, 3.0, 7.0), strict=True)],
        "third": [off_by(0.1), off_by(0.1), fitted(folds)],
    }
    samples = [make_dataset("gaussian", 10, 10, 10, seed) for seed in range(3)]
    *rows, third = over_samples(models, samples, "first")
    assert [row["model"] for row in rows] == ["first", "second"]
    for row, values in zip(rows, (kl, kl + 0.01), strict=True):
        assert numbers(row["KL"]) == pytest.approx(
            [values.mean(), values.std(ddof=1) / 3**0.5], abs=5e-5
        )
        assert numbers(row["from – to"]) == pytest.approx([values[0], values[-1]], abs=5e-5)
    assert [row["mass"] for row in rows] == ["0.9700", "1.0000"], "the farthest from one"
    assert [row["seconds"] for row in rows] == [1.0, 4.0]
    first, second = (row["minus first"] for row in rows)
    assert (first, second[0]) == ("–", "+")
    assert numbers(second) == pytest.approx([0.01, 0.0], abs=5e-5), "unpaired it would be 0.04"
    assert third["KL"] == "no density on 1 of 3"
    assert third["minus first"] == third["mass"] == third["from – to"] == "–"
    for reference in ("third", "fourth"):
        rows = over_samples(models, samples, reference)
        assert {row[f"minus {reference}"] for row in rows} == {"–"}
    seen = {"good": off_by(0.02), "bad": fitted(folds)}
    assert list(densities(DATA, seen)) == ["good"]


@dataclass(frozen=True)
class Wide:
    """The flow dx/dt = log(10) x, whose end is the Gaussian data in tenths of their sd."""

    n_steps: int
    method: str

    def log_likelihood(self, y):
        f = lambda x, t: math.log(10) * x
        log_p = log_likelihood(f, (y - 1) / 0.05, self.n_steps, self.method, "map")
        return log_p - math.log(0.05)


def test_the_divergence_by_steps_is_that_of_the_model_in_so_many_steps():
    model, steps = Wide(7, "rk2"), (1, 2, 10, 20, 40)
    kl = kl_by_steps(DATA, {"wide": model}, "euler", steps)["wide"]
    assert np.isnan(kl).tolist() == [True, True, False, False, False], "two steps fold the line"
    for T, value in zip(steps[2:], kl[2:], strict=True):
        a = (1 - math.log(10) / T) ** T * 10  # the model's sd is that of the data divided by a
        assert value == pytest.approx((a**2 - 1) / 2 - math.log(a), abs=1e-3)
    own = kl_by_steps(DATA, {"wide": model, "again": Wide(1, "euler")}, "rk2", [7])
    exact = compare(DATA, model.log_likelihood, 2001).normalized_kl
    assert own["wide"] == own["again"] == [exact]
    assert model == Wide(7, "rk2")


def test_the_errors_of_a_flow_fall_by_the_order_of_the_method():
    f = lambda x, t: 0.6 * torch.sin(2 * x + t)
    steps, grid = (16, 32, 64), torch.linspace(-6, 6, 1001)
    of_log, of_mass = errors_by_steps(f, grid, ["euler", "rk2"], steps)
    for errors in (of_log, of_mass):
        assert slope(steps, errors["euler"]) == pytest.approx(-1, abs=0.1)
        assert slope(steps, errors["rk2"]) == pytest.approx(-2, abs=0.1)
    with torch.no_grad():
        log_q, exact = log_likelihood(f, grid, 16), log_likelihood(f, grid, 400, "rk4")
    h = grid[1] - grid[0]
    error = (h * exact.exp() @ (log_q - exact).abs()).item()
    assert of_log["euler"][0] == pytest.approx(error, rel=1e-4)
    assert of_mass["euler"][0] == pytest.approx(abs((h * log_q.exp().sum()).item() - 1), rel=1e-3)
    of_log, _ = errors_by_steps(lambda x, t: 3 * x.tanh(), grid, ["euler"], (2, 64, 128))
    assert math.isnan(of_log["euler"][0]), "it folds the line"
    assert slope((2, 64, 128), of_log["euler"]) == pytest.approx(-1, abs=0.1)


def test_slope_is_the_power():
    assert slope([1, 10, 100], [5, 0.05, 0.0005]) == pytest.approx(-2)
    assert slope([1, 10], [0.0, 0.0]) == pytest.approx(0)
    assert math.isnan(slope((1, 2), [math.nan, 1.0]))


def test_where_the_cdf_is_constant():
    levels, normals = [0.05, 0.5, 0.8], [Normal(0.0, 1.0), Normal(1.0, 0.3)]
    x = torch.stack([normal.loc + normal.scale * torch.linspace(-6, 6, 2001) for normal in normals])
    p = torch.stack([n.log_prob(v).exp() for n, v in zip(normals, x, strict=True)])
    expected = torch.stack([normal.icdf(torch.tensor(levels)) for normal in normals])
    for factor in (1.0, 0.9):  # a mass that is not one is divided out
        found = constant_cdf(x.numpy(), factor * p.numpy(), levels)
        np.testing.assert_allclose(found, expected, atol=1e-4)
