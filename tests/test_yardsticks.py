"""The yardsticks are what they say, and differences are taken point by point."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde
from torch.distributions import Normal

from dlutils.compression import bin_linearly
from dlutils.data.datasets import make_dataset
from dlutils.estimators import yardsticks
from dlutils.estimators.yardsticks import em_mixture, gaussian, kde, penalized
from dlutils.evaluation import compare


def test_one_gaussian_has_the_moments_of_the_sample():
    y = torch.tensor([1.0, 2.0, 6.0])
    points = torch.linspace(-3, 9, 5, dtype=torch.float64)
    assert torch.allclose(gaussian(y)(points), Normal(3.0, math.sqrt(7)).log_prob(points))


as_it_is = lambda y: y
rounded = lambda y: y.round(decimals=1)
with_one_far = lambda y: torch.cat([y, torch.tensor([1e4])])  # where the others' density underflows


@pytest.mark.parametrize(
    ("fit", "name", "n", "change", "most"),
    [
        (em_mixture, "gaussian", 10_000, as_it_is, 4e-4),
        (em_mixture, "marron_wand_03", 10_000, as_it_is, 4e-3),
        (em_mixture, "marron_wand_15", 10_000, as_it_is, 2e-3),
        (em_mixture, "marron_wand_01", 3000, rounded, 0.02),
        (em_mixture, "gaussian", 3000, with_one_far, 0.03),  # the penalty is in units of the scale
        (penalized, "gaussian", 10_000, as_it_is, 1.5e-3),
        (penalized, "marron_wand_10", 10_000, as_it_is, 2.5e-3),
        (penalized, "marron_wand_01", 3000, rounded, 0.02),
    ],
)
def test_close_to_the_truth(fit, name, n, change, most):
    dataset = make_dataset(name, n, seed=3 if fit is em_mixture and change is as_it_is else 0)
    found = fit(change(dataset.train))
    distance = compare(dataset, found).normalized_kl
    assert -1e-6 < distance < most
    if fit is em_mixture:
        assert len(found.means) <= (2 if change is with_one_far else 7)
    elif change is as_it_is:
        assert distance < 0.6 * compare(dataset, kde(dataset.train)).normalized_kl


def test_weighted_nodes_do_not_become_spikes():
    dataset = make_dataset("marron_wand_10")
    nodes, counts = dataset.compress(32)
    assert compare(dataset, em_mixture(nodes, weights=counts)).normalized_kl < 0.004


@pytest.mark.parametrize(("unit", "origin"), [(1e-6, 0.0), (1.0, 1e4)])
@pytest.mark.parametrize("fit", [em_mixture, penalized])
def test_a_fit_does_not_depend_on_unit_and_origin(fit, unit, origin):
    y = make_dataset("marron_wand_07", n_train=500).train
    moved = origin + unit * y
    np.testing.assert_allclose(fit(moved)(moved) + math.log(unit), fit(y)(y), atol=1e-4)


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


def test_the_least_width_never_widens_one_gaussian():
    y = torch.tensor([0.0] * 90 + [1.0] * 10)
    assert em_mixture(y).sds.max() <= y.std(correction=0) + 1e-6


@pytest.mark.parametrize("name", ["uniform", "marron_wand_05"])
def test_twenty_points_are_not_fitted_much_worse_than_by_one_gaussian(name):
    losses = []
    for seed in range(100, 115):
        dataset = make_dataset(name, n_train=20, seed=seed)
        one, mixture = (fit(dataset.train) for fit in (gaussian, em_mixture))
        losses.append(float(one(dataset.test).mean() - mixture(dataset.test).mean()))
    assert np.mean(losses) < (1.5 if name == "marron_wand_05" else 0.15)
    assert max(losses) < 4


def test_weights_stand_for_repeated_values(monkeypatch):
    y = make_dataset("marron_wand_07", n_train=300).train.double()
    counts = 1 + torch.arange(300) % 3
    points = torch.linspace(-3, 3, 50)
    monkeypatch.setattr(yardsticks, "N_BINS", 10**4)
    repeated = em_mixture(y.repeat_interleave(counts))(points)
    assert (em_mixture(y, weights=counts)(points) - repeated).abs().max() < 0.01
    assert (em_mixture(y)(points) - repeated).abs().max() > 0.05


def test_compression_changes_nothing_that_matters(monkeypatch):
    y = make_dataset("marron_wand_10", n_train=1500).train
    coarse = em_mixture(y)(y).mean()
    monkeypatch.setattr(yardsticks, "N_BINS", 10**4)
    assert 0 < abs(em_mixture(y)(y).mean() - coarse) < 1e-4


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0, 0.0, 1.0, 1.0, 3.0], [0.0] * 50 + [1.0] * 50])
def test_a_mixture_of_few_or_equal_values_is_finite_and_has_mass_one(values):
    mixture = em_mixture(torch.tensor(values))
    points = torch.linspace(-20, 20, 400_001)
    assert len(mixture.means) <= max(1, len(values) // 10)
    assert mixture(points).isfinite().all()
    assert torch.trapezoid(mixture(points).exp(), points.double()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("fit", [em_mixture, penalized])
@pytest.mark.parametrize(
    ("y", "weights", "message"),
    [
        ([1.0, 1.0], None, "at least two of them different"),
        ([1.0, math.nan], None, "a density needs finite values"),
        ([1.0, 2.0], torch.tensor([1.0, 0.0]), "weights must be 2 positive numbers"),
        ([1.0, 2.0], torch.ones(3), "weights must be 2 positive numbers"),
    ],
)
def test_what_cannot_be_fitted_is_refused(fit, y, weights, message):
    with pytest.raises(ValueError, match=message):
        fit(torch.tensor(y), weights=weights)


def test_linear_binning_keeps_numbers_and_means_to_the_last_node():
    at, counts = np.array([0.0, 0.25, 2.5, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    found = bin_linearly(at, counts, 4)
    np.testing.assert_allclose(found, [2.5, 0.5, 1.5, 5.5])
    assert found @ np.arange(4) == pytest.approx(counts @ at)


@pytest.mark.parametrize("bandwidth", ["scott", 0.05])
@pytest.mark.parametrize("name", ["gaussian", "marron_wand_14"])
def test_kernels_on_a_grid_are_those_of_scipy(name, bandwidth):
    y = make_dataset(name, n_train=300).train.double()
    y = torch.cat([y, torch.tensor([50.0, 50.01])])  # an empty stretch, which has no nodes
    points = torch.cat([torch.linspace(-10, 60, 7001).double(), y])
    exact = gaussian_kde(y.numpy(), bandwidth).logpdf(points.numpy())
    np.testing.assert_allclose(kde(y, bandwidth)(points), exact, rtol=1e-9, atol=2e-4)


@pytest.mark.filterwarnings("error")
def test_a_kernel_estimate_far_out_is_the_exact_sum():
    y = make_dataset("gaussian", n_train=100).train.double()
    points = torch.tensor([20.0, 60.0, 1000.0, -1000.0, 1e9]).double()
    exact = gaussian_kde(y.numpy()).logpdf(points.numpy())
    np.testing.assert_allclose(kde(y)(points), exact, rtol=1e-12)
    assert exact[0] < -700
    y = torch.linspace(-1, 1, 20).double()  # the nearest kernel alone counts, and is not lost
    points = torch.tensor([-7.9670000700e9, 1e12]).double()
    h = gaussian_kde(y.numpy()).covariance.item() ** 0.5
    nearest = -(((points.abs() - 1) / h) ** 2) / 2
    torch.testing.assert_close(kde(y)(points), nearest, rtol=1e-9, atol=0)


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
    penalized(make_dataset("marron_wand_10", n_train=1000).train)
    grid, counts, best = found[-1]
    start = np.full(len(grid), 1.0)
    at = [smooth(grid, counts, best * factor, start)[1] for factor in (0.01, 0.8, 1, 1.25, 100)]
    assert np.argmax(at) == 2


NASTY = {
    "two": [0.0, 1.0],
    "ties": [0.0] * 90 + [1.0] * 10,
    "rising": (-torch.from_numpy(np.random.default_rng(0).exponential(size=300))).tolist(),
    "outlier": [*make_dataset("gaussian", n_train=19).train.tolist(), 1e4],
}


@pytest.mark.parametrize("name", NASTY)
def test_a_penalised_density_has_mass_one_and_falls_to_both_sides(name):
    y = torch.tensor(NASTY[name]).double()
    log_density = penalized(y)
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


def test_a_point_far_out_leaves_the_penalised_density_of_the_others():
    dataset = make_dataset("gaussian", n_train=20)
    alone = penalized(dataset.train)
    together = penalized(torch.cat([dataset.train, torch.tensor([1e4])]))
    losses = alone(dataset.test) - together(dataset.test)
    assert losses.mean() < 2 / 20 + 0.02
    assert together(torch.tensor([1e4])) > -math.log(20) - 10
