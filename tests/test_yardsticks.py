"""The yardsticks are what they say, and differences are taken point by point."""

import math
import time

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde
from torch.distributions import Normal

from dlutils.data.datasets import make_dataset
from dlutils.estimators import yardsticks
from dlutils.evaluation import compare


def test_one_gaussian_has_the_moments_of_the_sample():
    y = torch.tensor([1.0, 2.0, 6.0])
    points = torch.linspace(-3, 9, 5, dtype=torch.float64)
    expected = Normal(3.0, math.sqrt(7)).log_prob(points)
    assert torch.allclose(yardsticks.gaussian(y)(points), expected)


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


@pytest.mark.parametrize("bandwidth", ["scott", 0.05])
@pytest.mark.parametrize("name", ["gaussian", "uniform", "marron_wand_14"])
def test_kernels_on_a_grid_are_those_of_scipy(name, bandwidth):
    y = make_dataset(name, n_train=300).train.double()
    y = torch.cat([y, torch.tensor([50.0, 50.01])])  # an empty stretch, which has no nodes
    points = torch.cat([torch.linspace(-10, 60, 7001).double(), y])
    exact = gaussian_kde(y.numpy(), bandwidth).logpdf(points.numpy())
    np.testing.assert_allclose(yardsticks.kde(y, 0, bandwidth)(points), exact, rtol=1e-9, atol=2e-4)


def test_a_kernel_estimate_far_out_is_the_exact_sum():
    y = make_dataset("gaussian", n_train=100).train.double()
    points = torch.tensor([20.0, 60.0, 1000.0, -1000.0, 1e9]).double()
    found = yardsticks.kde(y)(points)
    np.testing.assert_allclose(found, gaussian_kde(y.numpy()).logpdf(points.numpy()), rtol=1e-12)
    assert found[0] < -700


def test_many_kernels_take_seconds():
    random = torch.Generator().manual_seed(0)
    y, points = (torch.randn(n, generator=random) for n in (230_000, 66_000))
    start = time.process_time()
    assert yardsticks.kde(y)(points).isfinite().all()
    assert time.process_time() - start < 3  # the full sum takes more than a minute


def penalized_by_hand(grid, counts, penalty):
    """Maximum, of the form with n log int e^phi, and log-evidence from their definitions, dense."""
    n, h = counts.sum(), np.diff(grid)
    weights = np.r_[h[0], h[1:] + h[:-1], h[-1]] / 2
    D = np.zeros((len(grid) - 2, len(grid)))
    for k in range(len(grid) - 2):
        mean = (h[k] + h[k + 1]) / 2
        D[k, k : k + 3] = np.array([1 / h[k], -1 / h[k] - 1 / h[k + 1], 1 / h[k + 1]]) / mean**0.5
    P, phi = D.T @ D, np.zeros(len(grid))
    for _ in range(300):  # of n log int e^phi, which has a free level
        p = weights * np.exp(phi)
        p /= p.sum()
        hessian = n * (np.diag(p) - np.outer(p, p)) + penalty * P
        move = np.linalg.lstsq(hessian, counts - n * p - penalty * P @ phi, rcond=1e-13)[0]
        phi += move / max(1, np.abs(move).max())
    phi += math.log(n / (weights @ np.exp(phi)))
    H = np.diag(weights * np.exp(phi)) + penalty * P
    likelihood = counts @ phi - n - penalty / 2 * phi @ P @ phi
    prior = np.linalg.eigvalsh(penalty * P)[2:]
    return phi, likelihood + (np.log(prior).sum() - np.linalg.slogdet(H)[1]) / 2


@pytest.mark.parametrize("even", [True, False])
def test_a_penalised_fit_and_its_evidence_agree_with_a_dense_newton(even):
    grid = np.linspace(-3, 3, 31)
    grid = grid if even else np.sinh(grid)
    counts = np.random.default_rng(0).poisson(20 * np.exp(-(grid**2) / 2)).astype(float)
    values = []
    for penalty in (0.1, 1.0, 30.0):
        phi, evidence = yardsticks._smooth(grid, counts, penalty, np.zeros(31))
        expected, by_hand = penalized_by_hand(grid, counts, penalty)
        np.testing.assert_allclose(phi, expected, atol=1e-4)
        values.append((evidence, by_hand))
    assert np.ptp(values, axis=0)[1] > 1
    np.testing.assert_allclose(*np.diff(values, axis=0).T, atol=1e-4)


def test_the_penalty_is_that_of_the_highest_evidence(monkeypatch):
    found, smooth = [], yardsticks._smooth

    def watch(grid, counts, penalty, start):
        found.append((grid, counts, penalty))
        return smooth(grid, counts, penalty, start)

    monkeypatch.setattr(yardsticks, "_smooth", watch)
    yardsticks.penalized(make_dataset("marron_wand_10", n_train=1000).train)
    grid, counts, best = found[-1]
    start = np.full(len(grid), 1.0)
    at = [smooth(grid, counts, best * factor, start)[1] for factor in (0.01, 0.8, 1, 1.25, 100)]
    assert np.argmax(at) == 2


@pytest.mark.parametrize(
    ("name", "most"), [("gaussian", 1.5e-3), ("marron_wand_02", 1e-3), ("marron_wand_10", 2.5e-3)]
)
def test_a_penalised_density_is_much_closer_than_kernels(name, most):
    dataset = make_dataset(name)
    fits = [compare(dataset, fit(dataset.train)) for fit in (yardsticks.penalized, yardsticks.kde)]
    assert -1e-6 < fits[0].normalized_kl < most
    assert fits[0].normalized_kl < 0.6 * fits[1].normalized_kl


NASTY = {
    "two": [0.0, 1.0],
    "ties": [0.0] * 90 + [1.0] * 10,
    "twenty": make_dataset("gaussian", n_train=20).train.tolist(),
    "rising": (-torch.from_numpy(np.random.default_rng(0).exponential(size=300))).tolist(),
    "outlier": [*make_dataset("gaussian", n_train=19).train.tolist(), 1e4],
}


@pytest.mark.parametrize("name", NASTY)
def test_a_penalised_density_has_mass_one_and_falls_to_both_sides(name):
    y = torch.tensor(NASTY[name]).double()
    log_density = yardsticks.penalized(y)
    length = y.max() - y.min()
    fine = torch.linspace(-60, 60, 400_001).double()  # to both sides, by decades
    points = (y.median() + 1e-3 * length * torch.sinh(fine / 5)).unique()
    points = points[(points - y.median()).abs() < 20 * length]
    log_p = log_density(points)
    assert log_p.isfinite().all()
    assert torch.trapezoid(log_p.exp(), points) == pytest.approx(1, abs=1e-6)
    far = log_density(torch.tensor([-9.0, -8.0, 9.0, 8.0]).double() * length)
    assert far[0] < far[1]
    assert far[2] < far[3]


@pytest.mark.parametrize("n", [20, 1000])
def test_a_point_far_out_leaves_the_penalised_density_of_the_others(n):
    dataset = make_dataset("gaussian", n_train=n)
    alone = yardsticks.penalized(dataset.train)
    together = yardsticks.penalized(torch.cat([dataset.train, torch.tensor([1e4])]))
    losses = alone(dataset.test) - together(dataset.test)
    assert losses.mean() < 2 / n + 0.02
    assert together(torch.tensor([1e4])) > -math.log(n) - 10


@pytest.mark.parametrize("decimals", [0, 1])
def test_rounded_data_do_not_become_spikes_of_the_penalised_density(decimals):
    dataset = make_dataset("marron_wand_01", n_train=3000)
    log_density = yardsticks.penalized(dataset.train.round(decimals=decimals))
    assert compare(dataset, log_density).normalized_kl < 0.02


@pytest.mark.parametrize(("unit", "origin"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e4)])
def test_a_penalised_density_does_not_depend_on_unit_and_origin(unit, origin):
    y = make_dataset("marron_wand_07", n_train=500).train.double()
    moved = origin + unit * y
    one, other = yardsticks.penalized(y)(y), yardsticks.penalized(moved)(moved)
    np.testing.assert_allclose(other + math.log(unit), one, atol=1e-4)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        ([1.0, 1.0], {}, "finite values, at least two of them different"),
        ([1.0, math.inf], {}, "finite values, at least two of them different"),
        ([1.0, 2.0], {"n_grid": 50}, "n_grid must be 100 to 2000 and margin positive: 50, 0.2"),
        ([1.0, 2.0], {"margin": 0.0}, "margin positive: 1000, 0.0"),
    ],
)
def test_a_penalised_density_refuses_what_it_cannot_fit(y, options, message):
    with pytest.raises(ValueError, match=message):
        yardsticks.penalized(torch.tensor(y), **options)


@pytest.mark.filterwarnings("error")
def test_kernels_a_billion_deviations_away():
    """The nearest kernel alone counts, and rounding does not lose it."""
    y = torch.linspace(-1, 1, 20).double()
    points = torch.tensor([-7.9670000700e9, 1e12]).double()
    h = gaussian_kde(y.numpy()).covariance.item() ** 0.5
    nearest = -(((points.abs() - 1) / h) ** 2) / 2
    torch.testing.assert_close(yardsticks.kde(y)(points), nearest, rtol=1e-9, atol=0)
