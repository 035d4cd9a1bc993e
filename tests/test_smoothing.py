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
    """KL from the truth, nats, the mass divided out."""
    dataset, y, loc, scale = standardized(name, n)
    x, log_q, _ = fit(y)
    log_q = log_q - np.log(np.trapezoid(np.exp(log_q), x))
    log_p = dataset.log_prob(loc + scale * x).numpy() + np.log(scale)
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
    ("name", "limit"), [("gaussian", 0.0004), ("marron_wand_10", 0.0025), ("marron_wand_15", 0.005)]
)
def test_close_to_the_truth(name, limit):
    assert 0 < distance(name) < limit


def test_one_variance_for_all_places_is_much_worse_on_a_comb(monkeypatch):
    local = distance("marron_wand_14")
    monkeypatch.setattr(smoothing, "WINDOW", 398)
    assert distance("marron_wand_14") > 1.5 * local, "what the local variances are for"


@pytest.mark.parametrize("n", [3, 100])
def test_few_points(n):
    x, log_q, _ = fit(standardized("gaussian", n)[1])
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


def test_ties_and_far_values_in_single_precision():
    y = torch.cat([torch.zeros(50), torch.ones(50), torch.tensor([30.0])])
    found = smoothed_sample((y - y.mean()) / y.std())
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert (found.diff() >= 0).all()
