"""A density by penalised likelihood: close to the truth, whatever its scale, place and ties."""

import numpy as np
import pytest
import torch

from dlutils.data.datasets import make_dataset
from dlutils.estimators.smoothing import fit, log_density, smoothed_sample


def standardized(name, n=10_000, seed=3):
    dataset = make_dataset(name, n_train=n, n_test=2, seed=seed)
    y = dataset.train.double()
    return dataset, (y - y.mean()) / y.std(), y.mean().item(), y.std().item()


def distance(name, n=10_000, seed=3, **options):
    """KL from the truth, nats, the mass divided out."""
    dataset, y, loc, scale = standardized(name, n, seed)
    x, log_q = log_density(y, **options)
    log_q = log_q - np.log(np.trapezoid(np.exp(log_q), x))
    log_p = dataset.log_prob(loc + scale * x).double().numpy() + np.log(scale)
    return np.trapezoid(np.exp(log_p) * (log_p - log_q), x)


def test_weights_are_numbers_of_points():
    _, y, _, _ = standardized("laplace_mixture", 400)
    counts = 1 + 3 * (y > 0).long()
    x = np.linspace(y.quantile(0.05).item(), y.quantile(0.95).item(), 101)
    log_p = lambda y, weights=None: np.interp(x, *fit(y, weights=weights)[:2])
    many = log_p(y.repeat_interleave(counts))
    assert np.abs(log_p(y, counts) - many).mean() < 0.05
    assert np.abs(log_p(y) - many).mean() > 0.3, "they matter"


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("gaussian", 0.0004),
        ("laplace_mixture", 0.0015),
        ("marron_wand_04", 0.002),
        ("marron_wand_10", 0.0025),
        ("marron_wand_12", 0.003),
        ("marron_wand_14", 0.006),
        ("marron_wand_15", 0.005),
    ],
)
def test_close_to_the_truth(name, limit):
    assert 0 < np.mean([distance(name, seed=seed) for seed in (3, 4, 5)]) < limit


def test_one_variance_for_all_places_is_much_worse_on_a_comb():
    local, everywhere = (distance("marron_wand_14", window=w) for w in (25, 398))
    assert everywhere > 1.5 * local, "what the local variances are for"


@pytest.mark.parametrize("n", [3, 20, 100, 1000])
def test_few_points(n):
    y = standardized("gaussian", n)[1]
    x, log_q = log_density(y)
    assert np.isfinite(log_q).all()
    assert np.trapezoid(np.exp(log_q), x) == pytest.approx(1, abs=0.15 if n < 20 else 0.02)
    if n >= 100:
        assert distance("gaussian", n) < 5 / n


def test_the_smoothed_sample_has_the_moments_of_the_sample():
    y = standardized("marron_wand_08")[1]
    found = smoothed_sample(y)
    assert found.shape == y.shape
    assert (found.diff() > 0).all()
    for k in (1, 2, 3):
        assert (found**k).mean().item() == pytest.approx((y**k).mean().item(), abs=0.02)
    assert (found - y.sort().values).abs().max() > 1e-3, "and is not the sample"


def test_ties_and_far_values():
    y = torch.cat([torch.zeros(50), torch.ones(50), torch.tensor([30.0])])
    found = smoothed_sample((y - y.mean()) / y.std())
    assert found.isfinite().all()
    assert (found.diff() >= 0).all()


def test_single_precision_stays():
    assert smoothed_sample(torch.randn(100).float()).dtype == torch.float32
