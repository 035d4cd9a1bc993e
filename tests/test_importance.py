"""Bounds of several samples: against the exact likelihood, and where they are known."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from dlutils.diffusion.importance import log_weights, tightening

FALSE_ALARM = 1e-6  # probability that a right program fails one random test
Z = stats.norm.isf(FALSE_ALARM / 2)  # that many standard errors


def noisy_model(sde):
    """With noise that is too weak by a half, so the weights vary."""
    path = sde.LinearPath(0.2)
    return sde.SDE(path, sde.RootTwoBetaDiffusion(path), sde.PreconditionedDrift(path), 0.2)


@pytest.fixture(scope="module")
def simulated(sde):
    """Log weights of 1024 paths in 400 steps; ELBO and log-likelihood of the same points."""
    y = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.5], dtype=torch.float64)
    model = noisy_model(sde).double()
    log_p = sde.FittedSDE(model, None, sde.Units(), 6.5, n_steps=200).log_likelihood(y)
    with torch.no_grad():
        log_w = log_weights(model, y, 1024, 400, torch.Generator().manual_seed(0))
        bound = sde.elbo(model, y)
    return log_w, bound, log_p


def test_importance_weights_have_the_likelihood_as_their_mean(simulated):
    log_w, _, log_p = simulated
    assert log_w.shape == (1024, 5)
    w = (log_w - log_p).exp()
    error = w.std(dim=0) / len(w) ** 0.5
    assert ((w.mean(dim=0) - 1).abs() < Z * error + 0.02).all()
    assert log_w.mean(dim=0).lt(log_p).all()


def test_one_sample_is_the_bound_and_many_are_the_likelihood(simulated):
    """Up to the error of 400 steps, about a hundredth of a nat."""
    log_w, elbo, log_p = simulated
    one, *_, many = found = tightening(log_w, (1, 2, 4, 8, 16, 32, 64))
    assert len(found) == 7
    assert elbo.mean() < log_p.mean() - 0.05
    assert abs(one.mean - elbo.mean()) < Z * one.error + 0.02
    assert abs(many.mean - log_p.mean()) < Z * many.error + 0.02
    assert all(a.mean < b.mean for a, b in pairwise(found))


def test_the_same_seed_gives_the_same_weights(sde):
    model, y = noisy_model(sde), torch.linspace(-2, 2, 3)
    with torch.no_grad():
        first, again, other = (
            log_weights(model, y, 4, 10, torch.Generator().manual_seed(k)) for k in (0, 0, 1)
        )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def lognormal(n_samples, spread=0.8, n=5):
    """Log weights of mean one: log w ~ N(-s^2 / 2, s^2), with s growing over the points."""
    s = spread * torch.linspace(0.5, 1, n)
    return -(s**2) / 2 + s * torch.randn(n_samples, n), s


def pair_bound(s):
    """E log (w_1 + w_2) / 2 for lognormal weights, by Gauss and Hermite's rule."""
    z, p = np.polynomial.hermite_e.hermegauss(60)
    p = p / p.sum()
    return p @ (np.logaddexp(s * z[:, None], s * z) - math.log(2)) @ p - s**2 / 2


def test_lognormal_weights_are_known():
    """-s^2 / 2 at K = 1, a quadrature at K = 2, -(exp(s^2) - 1) / 2K at large K."""
    log_w, s = lognormal(2**16)
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


def test_too_few_groups_are_named():
    log_w = torch.zeros(256, 3)
    assert tightening(log_w, [16]) == [(0, 0)]
    message = "256 samples make 15 groups of 17, .* 16 groups need 272 samples"
    with pytest.raises(ValueError, match=message):
        tightening(log_w, [1, 17])
    with pytest.raises(ValueError, match=r"samples in a group must be an integer .* not 0"):
        tightening(log_w, [0])


def test_what_does_not_fill_a_group_is_left_out():
    log_w = torch.zeros(51, 2)
    log_w[48:] = 100.0
    assert tightening(log_w, [3])[0].mean == pytest.approx(100 / 17)
    assert tightening(log_w[:50], [3])[0].mean == 0


@pytest.mark.parametrize("name", ["n_samples", "n_steps"])
def test_numbers_below_one_are_named(sde, name):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, not 0"):
        log_weights(noisy_model(sde), torch.zeros(2), **{"n_samples": 2, "n_steps": 2} | {name: 0})
