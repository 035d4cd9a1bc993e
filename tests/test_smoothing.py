"""A density by penalised likelihood: close to the truth, whatever its scale, place and ties."""

import numpy as np
import pytest
import torch

from dlutils.data.datasets import make_dataset
from dlutils.estimators import smoothing
from dlutils.estimators.smoothing import fit, smoothed_sample


def standardized(name, n=10_000):
    dataset = make_dataset(name, n_train=n, n_test=2, seed=3)
    y = dataset.train
    return dataset, (y - y.mean()) / y.std(), y.mean().item(), y.std().item()


def distance(name, n=10_000):
    """KL from the truth, nats, the mass divided out; and the mass."""
    dataset, y, loc, scale = standardized(name, n)
    x, log_q, _ = fit(y)
    mass = np.trapezoid(np.exp(log_q), x)
    log_p = dataset.log_prob(loc + scale * x).numpy() + np.log(scale)
    return np.trapezoid(np.exp(log_p) * (log_p - log_q + np.log(mass)), x), mass


def test_weights_are_numbers_of_points():
    _, y, _, _ = standardized("laplace_mixture", 400)
    counts = 1 + 3 * (y > 0).long()
    x = np.linspace(y.quantile(0.05).item(), y.quantile(0.95).item(), 101)
    log_p = lambda y, weights=None: np.interp(x, *fit(y, weights=weights)[:2])
    many = log_p(y.repeat_interleave(counts))
    assert np.abs(log_p(y, counts) - many).mean() < 0.05
    assert np.abs(log_p(y) - many).mean() > 0.3, "they matter"


@pytest.mark.parametrize(
    ("name", "n", "most", "tolerance"),
    [
        ("gaussian", 10_000, 0.0004, 0.02),
        ("marron_wand_10", 10_000, 0.0025, 0.02),
        ("marron_wand_15", 10_000, 0.005, 0.02),
        ("gaussian", 100, 0.05, 0.02),
        ("gaussian", 3, np.inf, 0.15),
    ],
)
def test_close_to_the_truth(name, n, most, tolerance):
    kl, mass = distance(name, n)
    assert 0 < kl < most or n == 3  # over less than the whole line
    assert mass == pytest.approx(1, abs=tolerance)


def test_many_bins_are_solved_for_by_their_bands(monkeypatch):
    y = standardized("marron_wand_10")[1]
    banded = fit(y, 500)
    monkeypatch.setattr(smoothing, "N_BINS", 500)
    for one, other in zip(banded[1:], fit(y, 500)[1:], strict=True):
        np.testing.assert_allclose(np.exp(one), np.exp(other), rtol=1e-3, atol=1e-6)


def test_one_variance_for_all_places_is_much_worse_on_a_comb(monkeypatch):
    local, _ = distance("marron_wand_14")
    monkeypatch.setattr(smoothing, "WINDOW", 398)
    assert distance("marron_wand_14")[0] > 1.5 * local, "what the local variances are for"


def test_the_smoothed_sample_has_the_moments_of_the_sample():
    y = standardized("marron_wand_08")[1]
    found = smoothed_sample(y)
    assert found.shape == y.shape
    assert (found.diff() > 0).all()
    for k in (1, 2, 3):
        assert (found**k).mean().item() == pytest.approx((y**k).mean().item(), abs=0.02)
    assert (found - y.sort().values).abs().max() > 1e-3, "and is not the sample"
    y = torch.cat([torch.zeros(50), torch.ones(50), torch.tensor([30.0])])  # ties, a far value
    found = smoothed_sample((y - y.mean()) / y.std())
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert (found.diff() >= 0).all()


def test_the_covariance_is_what_the_log_density_does_from_sample_to_sample():
    """Where most points are, with a dozen samples, on average over the places."""
    at, found, said = np.linspace(-1, 1, 9), [], []
    for seed in range(12):
        y = make_dataset("gaussian", n_train=1000, n_test=2, seed=seed).train
        fitted = smoothing.posterior((y - 1) / 0.5)
        found.append(np.interp(at, fitted.x, fitted.log_p))
        said.append(np.interp(at, fitted.x, fitted.sd))
    assert np.mean(said) == pytest.approx(np.std(found, axis=0).mean(), rel=0.5)


def test_intervals_that_are_as_narrow_as_a_point_are_points():
    _, y, _, _ = standardized("laplace_mixture", 500)
    some = y[:100].numpy()
    narrow = smoothing.Incomplete(some - 1e-3, some + 1e-3, np.ones(100))
    x = np.linspace(*np.quantile(y, [0.05, 0.95]), 51)
    log_p = lambda fitted: np.interp(x, fitted.x, fitted.log_p)
    found = smoothing.posterior(y[100:], incomplete=narrow)
    assert np.abs(log_p(found) - log_p(smoothing.posterior(y))).mean() < 0.05
    assert np.abs(log_p(smoothing.posterior(y[(y > -1) | (y < -2)])) - log_p(found)).mean() > 0.1


def test_what_is_hidden_is_expected_where_the_density_says():
    edges = np.linspace(-2, 2, 9)  # bins of a half
    incomplete = smoothing.Incomplete(
        np.array([0.5, 0.5]), np.array([np.inf, np.inf]), np.array([3.0, 1.0]), (-1.0, np.inf)
    )
    hidden = smoothing.Hidden.of(edges, incomplete)
    assert hidden.counts.tolist() == [4], "two intervals that are the same"
    mass = np.array([1, 1, 1, 1, 1, 2, 1, 1.0]) / 9
    above = 4 * np.array([0, 0, 0, 0, 0, 2, 1, 1]) / 4
    below = 70 * np.array([1, 1, 0, 0, 0, 0, 0, 0]) / 7  # 70 were seen of seven ninths
    np.testing.assert_allclose(hidden.expected(mass, 70), above + below)


def check_sd(smooth, seed=0):
    """It is the spread of log p less that of how much of the whole is in the window."""
    draws = np.random.default_rng(seed).multivariate_normal(smooth.log_p, smooth.covariance, 4000)
    mass = np.exp(draws) * np.diff(smooth.edges)
    whole = np.log(mass.sum(axis=1) / (mass @ smooth.hidden.seen))
    at = smooth.hidden.seen == 1
    spread = (draws - whole[:, None]).std(axis=0)
    np.testing.assert_allclose(smooth.sd[at], spread[at], rtol=0.1)
    return spread[at], draws.std(axis=0)[at]


def test_the_band_knows_that_the_share_outside_a_window_is_a_guess(monkeypatch):
    y = torch.from_numpy(np.random.default_rng(0).normal(size=4000))
    y = y[(y > -2) & (y < 0)]
    window = smoothing.Incomplete(np.empty(0), np.empty(0), np.empty(0), (-2.0, 0.0))
    smooth = smoothing.posterior(y, incomplete=window)
    with_share, without = check_sd(smooth)
    assert with_share.mean() > 1.2 * without.mean()
    complete = smoothing.posterior(y)
    np.testing.assert_allclose(complete.sd, np.diag(complete.covariance) ** 0.5)
    wrong = property(lambda self: np.diag(self.covariance) ** 0.5)
    monkeypatch.setattr(smoothing.Smooth, "sd", wrong)
    with pytest.raises(AssertionError):
        check_sd(smooth)


def test_bends_outside_a_window_are_as_uncertain_as_inside():
    y = torch.from_numpy(np.random.default_rng(0).exponential(size=2000))
    y = y[y < 1]
    window = smoothing.Incomplete(np.empty(0), np.empty(0), np.empty(0), (-np.inf, 5 / 3))
    smooth = smoothing.posterior((y - 0.5) / 0.3, incomplete=window)  # 1 is seen as 5 / 3
    D = np.diff(np.eye(len(smooth.x)), n=2, axis=0)
    of_bends = np.diag(D @ smooth.covariance @ D.T)
    outside = smooth.hidden.seen[1:-1] == 0
    assert np.median(of_bends[outside]) > 0.5 * np.median(of_bends[~outside])
