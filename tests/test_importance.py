"""Bounds of several samples: against the exact likelihood, and where they are known."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from dlutils.data.units import Units
from dlutils.diffusion.importance import log_weights, tightening

FALSE_ALARM = 1e-6  # probability that a right program fails one random test
Z = stats.norm.isf(FALSE_ALARM / 2)  # that many standard errors


@pytest.fixture(scope="module")
def model(sde):
    """With noise that is too weak by a half, so the weights vary."""
    path = sde.LinearPath(0.2)
    drift = sde.PreconditionedDrift(path)
    return sde.SDE(path, sde.RootTwoBetaDiffusion(path), drift, 0.2).double()


@torch.no_grad()
def test_one_sample_is_the_bound_and_many_are_the_likelihood(sde, model):
    """Up to the error of 400 steps, about a hundredth of a nat."""
    y = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.5], dtype=torch.float64)
    log_p = sde.FittedSDE(model, None, Units(), 6.5, n_steps=200).log_likelihood(y)
    log_w = log_weights(model, y, 1024, 400, torch.Generator().manual_seed(0))
    elbo = sde.elbo(model, y)
    assert log_w.shape == (1024, 5)
    w = (log_w - log_p).exp()
    assert ((w.mean(dim=0) - 1).abs() < Z * w.std(dim=0) / 32 + 0.02).all()
    one, *_, many = found = tightening(log_w, (1, 2, 4, 8, 16, 32, 64))
    assert elbo.mean() < log_p.mean() - 0.05
    assert abs(one.mean - elbo.mean()) < Z * one.error + 0.02
    assert abs(many.mean - log_p.mean()) < Z * many.error + 0.02
    assert all(a.mean < b.mean for a, b in pairwise(found))


@torch.no_grad()
def test_the_same_seed_gives_the_same_weights(model):
    y = torch.linspace(-2, 2, 3).double()
    first, again, other = (
        log_weights(model, y, 4, 10, torch.Generator().manual_seed(k)) for k in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def pair_bound(s):
    """E log (w_1 + w_2) / 2 for lognormal weights, by Gauss and Hermite's rule."""
    z, p = np.polynomial.hermite_e.hermegauss(60)
    p = p / p.sum()
    return p @ (np.logaddexp(s * z[:, None], s * z) - math.log(2)) @ p - s**2 / 2


def test_lognormal_weights_are_known():
    """-s^2 / 2 at K = 1, a quadrature at K = 2, -(exp(s^2) - 1) / 2K at large K."""
    s = torch.linspace(0.4, 0.8, 5)
    log_w = -(s**2) / 2 + s * torch.randn(2**16, 5)  # of mean one
    exact = {
        1: (-(s**2) / 2).mean().item(),
        2: np.mean([pair_bound(v) for v in s.tolist()]),
        512: (-(s.square().exp() - 1) / 1024).mean().item(),
    }
    for bound, value in zip(tightening(log_w, exact), exact.values(), strict=True):
        assert abs(bound.mean - value) < Z * bound.error + 1e-5
        assert bound.error < 0.01


def test_the_standard_error_is_honest():
    """The spread of repetitions over the claimed error, by the chi-squared distribution.

    The points share part of their noise, which a mean over independent points would not see.
    """
    repeats, n_samples, size, found = 400, 32 * 16, 8, []
    for _ in range(repeats):
        log_w = 0.7 * torch.randn(n_samples, 6) + 0.7 * torch.randn(n_samples, 1)
        found += tightening(log_w, [size])
    spread = np.var([bound.mean for bound in found], ddof=1)
    ratio = spread / np.mean([bound.error**2 for bound in found])
    low, high = stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], repeats - 1) / (repeats - 1)
    assert 0.9 * low < ratio < 1.1 * high  # the claimed error fluctuates too, by 1 % here


def test_what_does_not_fill_a_group_is_left_out():
    log_w = torch.zeros(51, 2)
    log_w[48:] = 100.0
    assert tightening(log_w, [3])[0].mean == pytest.approx(100 / 17)
    assert tightening(log_w[:50], [3]) == [(0, 0)]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (17, "256 samples make 15 groups of 17, .* 16 groups need 272 samples"),
        (0, r"samples in a group must be an integer .* not 0"),
    ],
)
def test_a_size_without_enough_groups_is_named(size, message):
    with pytest.raises(ValueError, match=message):
        tightening(torch.zeros(256, 3), [16, size])


@pytest.mark.parametrize("name", ["n_samples", "n_steps"])
def test_numbers_below_one_are_named(model, name):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, not 0"):
        log_weights(model, torch.zeros(2), **{"n_samples": 2, "n_steps": 2} | {name: 0})
