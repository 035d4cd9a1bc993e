"""The yardsticks are what they say, and differences are taken point by point."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from dlutils import yardsticks
from dlutils.comparison import compare
from dlutils.datasets import make_dataset


def test_one_gaussian_has_the_moments_of_the_sample():
    y = torch.tensor([1.0, 2.0, 6.0])
    points = torch.linspace(-3, 9, 5)
    expected = Normal(3.0, math.sqrt(7)).log_prob(points)
    assert torch.allclose(yardsticks.gaussian(y)(points), expected)


def test_a_mixture_finds_two_peaks_where_one_gaussian_and_a_wide_kernel_fail():
    dataset = make_dataset("marron_wand_07")
    kl = {
        name: compare(dataset, log_density).normalized_kl
        for name, log_density in yardsticks.fit_all(dataset.train).items()
    }
    assert (
        kl["EM mixture (BIC)"] < 0.002 < 0.005 < kl["KDE (Scott)"] < 0.02 < 0.1 < kl["one Gaussian"]
    )


def mixture_kl(name, seed=3, **options):
    """KL of the growing EM in nats, by quadrature, and its number of components."""
    dataset = make_dataset(name, seed=seed)
    mixture = yardsticks.em_mixture(dataset.train, **options)
    return compare(dataset, mixture).normalized_kl, len(mixture.means)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("gaussian", 4e-4),
        ("marron_wand_03", 4e-3),
        ("marron_wand_10", 2e-3),
        ("marron_wand_12", 2e-3),
        ("marron_wand_14", 2e-3),
        ("marron_wand_15", 2e-3),
    ],
)
def test_a_growing_mixture_finds_what_ten_starts_miss(name, most):
    kl, k = mixture_kl(name)
    assert -1e-6 < kl < most
    assert k <= 7


def test_one_component_is_not_enough_for_the_claw():
    y = make_dataset("marron_wand_10").train
    one = yardsticks.em_mixture(y, weights=torch.full_like(y, 19 / len(y)))  # 19 points: 19 // 10
    assert len(one.means) == 1
    assert compare(make_dataset("marron_wand_10"), one).kl > 0.02


def test_the_two_criteria_price_a_component_differently():
    y = make_dataset("laplace").train
    sizes = [len(yardsticks.em_mixture(y, criterion=name).means) for name in ("bic", "aic")]
    assert 1 < sizes[0] < sizes[1]


@pytest.mark.parametrize(("unit", "origin"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e6)])
def test_a_mixture_does_not_depend_on_unit_and_origin(unit, origin):
    y = make_dataset("marron_wand_07", n_train=500).train.double()
    moved = origin + unit * y
    one = yardsticks.em_mixture(y)(y)
    assert torch.allclose(yardsticks.em_mixture(moved)(moved) + math.log(unit), one, atol=1e-6)


def test_each_step_of_em_raises_the_likelihood_less_the_penalty():
    y = make_dataset("marron_wand_10", n_train=20).train.double()
    counts = torch.ones_like(y)
    mixture = yardsticks.Mixture(*torch.tensor([[0.5, 0.5], [-1.0, 0.0], [1.0, 0.2]]).double())
    values = []
    for _ in range(30):
        values.append(float(yardsticks._objective(counts, mixture, mixture(y))))
        mixture = yardsticks._em(y, counts, mixture, 0.01, n_steps=1)
    assert (np.diff(values) > -1e-9).all()
    assert values[-1] > values[0] + 1


def test_one_far_point_among_many_does_not_undo_the_fit():
    """So far that the density of the others is zero in floating point."""
    dataset = make_dataset("gaussian", n_train=3000)
    mixture = yardsticks.em_mixture(torch.cat([dataset.train, torch.tensor([1e4])]))
    assert len(mixture.means) == 2
    assert compare(dataset, mixture).normalized_kl < 0.03  # the penalty is in units of the scale


def test_tails_without_a_variance_are_fitted():
    y = torch.from_numpy(np.random.default_rng(0).standard_cauchy(12_000))
    mixture = yardsticks.em_mixture(y[:10_000])
    assert 2 < len(mixture.means) < 20
    gain = mixture(y[10_000:]).mean() - yardsticks.gaussian(y[:10_000])(y[10_000:]).mean()
    assert gain > 2


@pytest.mark.parametrize("decimals", [0, 1])
def test_rounded_data_do_not_become_spikes(decimals):
    dataset = make_dataset("gaussian", n_train=3000)
    mixture = yardsticks.em_mixture(dataset.train.round(decimals=decimals))
    assert compare(dataset, mixture).normalized_kl < 0.02


@pytest.mark.parametrize("name", ["gaussian", "marron_wand_10"])
def test_weighted_nodes_do_not_become_spikes(name):
    dataset = make_dataset(name)
    nodes, counts = dataset.compress(32)
    mixture = yardsticks.em_mixture(nodes, weights=counts)
    assert compare(dataset, mixture).normalized_kl < 0.004


def test_the_least_width_never_widens_one_gaussian():
    y = torch.tensor([0.0] * 90 + [1.0] * 10)
    assert yardsticks.em_mixture(y).sds.max() <= y.std(correction=0) + 1e-6


@pytest.mark.parametrize("name", ["gaussian", "laplace", "student_t", "uniform", "marron_wand_05"])
def test_twenty_points_are_not_fitted_much_worse_than_by_one_gaussian(name):
    losses = []
    for seed in range(100, 115):
        dataset = make_dataset(name, n_train=20, seed=seed)
        one, mixture = (fit(dataset.train) for fit in (yardsticks.gaussian, yardsticks.em_mixture))
        losses.append(float(one(dataset.test).mean() - mixture(dataset.test).mean()))
    assert np.mean(losses) < (1.5 if name == "marron_wand_05" else 0.15)
    assert max(losses) < 4


def test_an_outlier_among_twenty_points_costs_less_than_with_one_gaussian():
    random = np.random.default_rng(0)
    y = torch.from_numpy(np.append(random.normal(size=19), 1000.0))
    held_out = torch.from_numpy(np.append(random.normal(size=95), random.normal(1000, 20, size=5)))
    mixture, one = (fit(y)(held_out) for fit in (yardsticks.em_mixture, yardsticks.gaussian))
    assert mixture.mean() > one.mean() + 1
    assert mixture.min() > -20


def test_weights_stand_for_repeated_values():
    y = make_dataset("marron_wand_07", n_train=300).train.double()
    counts = 1 + torch.arange(300) % 3
    points = torch.linspace(-3, 3, 50)
    repeated = yardsticks.em_mixture(y.repeat_interleave(counts), n_bins=10**4)(points)
    assert (yardsticks.em_mixture(y, weights=counts)(points) - repeated).abs().max() < 0.01
    assert (yardsticks.em_mixture(y)(points) - repeated).abs().max() > 0.05


def test_compression_changes_nothing_that_matters():
    y = make_dataset("marron_wand_10", n_train=3000).train
    fine, coarse = (yardsticks.em_mixture(y, n_bins=n)(y).mean() for n in (10**4, 512))
    assert abs(fine - coarse) < 1e-4


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0, 0.0, 1.0, 1.0, 3.0], [0.0] * 50 + [1.0] * 50])
def test_a_mixture_of_few_or_equal_values_is_finite_and_has_mass_one(values):
    mixture = yardsticks.em_mixture(torch.tensor(values))
    points = torch.linspace(-20, 20, 400_001)
    assert len(mixture.means) <= max(1, len(values) // 10)
    assert mixture(points).isfinite().all()
    assert torch.trapezoid(mixture(points).exp(), points.double()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        ([1.0, 1.0], {}, "at least two of them different"),
        ([1.0, math.nan], {}, "a mixture needs finite values"),
        ([1.0, 2.0], {"criterion": "cv"}, "unknown criterion 'cv'; choose from bic, aic"),
        ([1.0, 2.0], {"weights": torch.tensor([1.0, 0.0])}, "weights must be 2 positive numbers"),
        ([1.0, 2.0], {"weights": torch.ones(3)}, "weights must be 2 positive numbers"),
    ],
)
def test_a_mixture_refuses_what_it_cannot_fit(y, options, message):
    with pytest.raises(ValueError, match=message):
        yardsticks.em_mixture(torch.tensor(y), **options)


def test_a_kernel_estimate_that_underflows_has_a_finite_logarithm():
    far = yardsticks.kde(torch.tensor([0.0, 1.0, 2.0]))(torch.tensor([1e4]))
    assert far.isfinite().all()


def test_held_out_differences_are_paired():
    y = torch.tensor([0.0, 1.0, 2.0, 3.0])
    rows = yardsticks.held_out({"a": lambda y: y, "b": lambda y: y - 0.5}, y)
    assert rows[0] == {"model": "a", "log-likelihood": "1.5000 ± 0.6455", "a minus it": "–"}
    assert rows[1]["log-likelihood"] == "1.0000 ± 0.6455"
    assert rows[1]["a minus it"] == "0.5000 ± 0.0000"


@pytest.mark.parametrize(("models", "n"), [({}, 5), ({"a": lambda y: y}, 1)])
def test_held_out_needs_a_model_and_points(models, n):
    with pytest.raises(ValueError, match="at least 1 and 2 are needed; a larger sample"):
        yardsticks.held_out(models, torch.zeros(n))
