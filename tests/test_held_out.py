"""Models are compared point by point, on what the data are: rounded, weighted, repeated."""

import math

import pytest
import torch
from torch.distributions import Exponential, Laplace, Normal

from dlutils.data.datasets import Dataset, make_dataset
from dlutils.estimators import held_out
from dlutils.evaluation import compare
from dlutils.seeding import seeded


def sample(distribution, n, seed=0):
    with seeded(seed):
        return distribution.sample((n,))


def with_test(y, **options):
    """A small data set whose test points are given."""
    other = torch.tensor([0.25, 0.75])
    options = {"coordinates": (), "as_read": y if "rounding" in options else None} | options
    return Dataset("x", "x", other, other, y, (-9.0, 9.0), **options)


def test_differences_are_paired():
    data = with_test(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    rows = held_out.table({"a": lambda y: y, "b": lambda y: y - 0.5}, data)
    assert rows[0] == {"model": "a", "log-likelihood": "1.5000 ± 0.6455", "a minus it": "–"}
    assert rows[1]["log-likelihood"] == "1.0000 ± 0.6455"
    assert rows[1]["a minus it"] == "0.5000 ± 0.0000"


@pytest.mark.parametrize(("models", "n"), [({}, 5), ({"a": lambda y: y}, 1)])
def test_a_model_and_points_are_needed(models, n):
    with pytest.raises(ValueError, match="at least 1 and 2 are needed; a larger sample"):
        held_out.table(models, with_test(torch.zeros(n)))


def test_a_mixture_finds_two_peaks_where_one_gaussian_and_a_wide_kernel_fail():
    dataset = make_dataset("marron_wand_07")
    kl = {n: compare(dataset, q).normalized_kl for n, q in held_out.rivals(dataset).items()}
    assert kl["EM mixture (BIC)"] < 0.002 < 0.005 < kl["KDE (Scott)"] < 0.02
    assert kl["penalised likelihood"] < 0.003 < 0.1 < kl["one Gaussian"]


def test_rounded_points_have_the_probability_of_their_intervals():
    """Against the distribution function; the density in the middle would be off by far."""
    y = torch.tensor([-2.0, 0.0, 0.0, 1.0, 3.0])
    data, normal = with_test(y, rounding=1.0), Normal(0.3, 0.4)
    found = held_out.log_likelihood(normal.log_prob, data)
    exact = (normal.cdf((y + 0.5).double()) - normal.cdf((y - 0.5).double())).log()
    torch.testing.assert_close(found[1:4], exact[1:4], rtol=0, atol=1e-5)
    assert (normal.log_prob(y)[3] - exact[3]).abs() > 0.1


def test_many_narrow_intervals_cost_little_more_than_as_many_points():
    y, asked, normal = torch.linspace(-3, 3, 20_001).double(), [], Normal(0.0, 1.0)

    def log_q(x):
        asked.append(len(x))
        return normal.log_prob(x)

    found = held_out.log_likelihood(log_q, with_test(y, rounding=3e-4))
    exact = (normal.cdf(y + 1.5e-4) - normal.cdf(y - 1.5e-4)).log()
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-9)
    assert sum(asked) <= 2 * len(y)


def test_a_bound_cuts_the_interval_of_a_rounded_zero():
    data = with_test(torch.tensor([0.0, 1.0]), rounding=1.0, bounds=(0.0, math.inf))
    found = held_out.log_likelihood(Exponential(2.0, validate_args=False).log_prob, data)
    exact = torch.tensor([1 - math.exp(-1), math.exp(-1) - math.exp(-3)]).double().log()
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)


def test_weighted_means_count_a_point_as_often_as_its_weight():
    values, weights = torch.tensor([1.0, 5.0, 4.0]), torch.tensor([1.0, 1.0, 2.0])
    plain = 10 / 3, values.std().item() / 3**0.5
    assert held_out.mean_and_error(values) == pytest.approx(plain)
    weighted = 3.5, (6.25 + 2.25 + 1.0) ** 0.5 / 4 / (1 - 6 / 16) ** 0.5
    assert held_out.mean_and_error(values, weights) == pytest.approx(weighted)


def test_errors_of_weighted_means_are_those_of_many_samples():
    """The standard error against the spread of 400 means: about right, and not that of n points."""
    with seeded(0):
        samples = [(torch.rand(300) ** 4, torch.randn(300)) for _ in range(400)]
    means, errors = zip(*(held_out.mean_and_error(y, w) for w, y in samples), strict=True)
    spread = torch.tensor(means).std().item()
    assert sum(errors) / 400 == pytest.approx(spread, rel=0.1)
    assert spread > 1.4 / 300**0.5


@pytest.mark.parametrize("rounding", [None, 0.1])
def test_where_one_value_is_frequent_only_intervals_are_compared(capsys, rounding):
    """68 % zeros: a density that piles up there would win by as much as it likes."""
    y, options = sample(Exponential(1.0), 300), {}
    y[:204] = 0.0
    if rounding:
        y, options = y.mul(10).round() / 10, {"rounding": rounding, "support": (0.0, math.inf)}
    data = Dataset.from_samples(y, **options)
    spike, plain = Laplace(0.0, 1e-6).log_prob, Exponential(1.0, validate_args=False).log_prob
    rows = held_out.table({"spike": spike, "plain": plain}, data)
    assert [row["log-likelihood"] == "–" for row in rows] == [rounding is None] * 2
    said = "most often 0 (68 %)" in capsys.readouterr().out
    assert said is (rounding is None)
    if rounding:
        assert held_out.log_likelihood(spike, data).max() < 1e-6, "an interval has probability one"


@pytest.mark.parametrize("times", [2, 10])
def test_copies_are_not_compared(capsys, times):
    """What was trained on is among the held-out points, and no value is frequent by itself."""
    data = Dataset.from_samples(sample(Normal(0.0, 1.0), 1000 // times).repeat(times))
    rows = held_out.table({"normal": Normal(0.0, 1.0).log_prob}, data)
    assert rows[0]["log-likelihood"] == "–"
    assert "100 % of the values are there more than once" in capsys.readouterr().out


def test_what_is_behind_or_out_of_bounds_is_said(capsys):
    data = Dataset.from_samples(sample(Exponential(1.0), 1500))
    rivals = held_out.rivals(data)
    held_out.table({"flow": Normal(1.0, 1.0).log_prob} | rivals, data)
    said = capsys.readouterr().out
    assert "15.9 % of flow lie below zero" in said
    assert "SUPPORT = (0, math.inf)" in said
    assert "is ahead of flow by" in said
    exponential = lambda y: torch.where(y < 0, -math.inf, -y)
    held_out.table({"flow": exponential} | rivals, data)
    assert capsys.readouterr().out == ""


def test_rivals_see_bounded_data_through_the_bounds():
    """No yardstick puts anything below zero, and a log-normal is one Gaussian there."""
    y = sample(Normal(0.0, 2.0), 3000).exp()
    data = Dataset.from_samples(y, support=(0.0, math.inf))
    rivals = held_out.rivals(data)
    for log_q in rivals.values():
        assert compare(data, log_q).mass == pytest.approx(1, abs=1e-3)
        assert log_q(torch.tensor([-1.0])).item() == -math.inf
    truth = torch.distributions.LogNormal(0.0, 2.0)
    gap = truth.log_prob(data.test) - rivals["one Gaussian"](data.test)
    assert gap.mean().abs() < 0.01
