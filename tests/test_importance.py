"""Importance weights of variational paths, and the bounds that they make."""

import math

import numpy as np
import pytest
import torch

from dlutils.importance import log_weights, tightening

Z = 5.0  # standard errors: a false alarm in two million


def test_weights_have_the_likelihood_as_their_mean(sde):
    """With noise that is too weak by a half, so the weights vary."""
    path = sde.LinearPath(0.2)
    diffusion = sde.RootTwoBetaDiffusion(path)
    model = sde.SDE(path, diffusion, sde.PreconditionedDrift(path), 0.2)
    y = torch.tensor([-1.0, 0.0, 1.5])
    fitted = sde.FittedSDE(model, None, 0.0, 1.0, 6.5)
    log_w = log_weights(model, y, 4000, 400, torch.Generator().manual_seed(0))
    w = (log_w - fitted.log_likelihood(y)).exp()
    error = w.std(dim=0) / len(w) ** 0.5
    assert ((w.mean(dim=0) - 1).abs() < Z * error + 0.02).all()
    assert log_w.mean(dim=0).lt(fitted.log_likelihood(y)).all()


def lognormal(n, seed=0):
    """Weights of mean one whose logarithm has variance one."""
    return torch.from_numpy(np.random.default_rng(seed).normal(-0.5, 1.0, (n, 1)))


def test_bounds_rise_from_the_mean_logarithm_to_the_logarithm_of_the_mean():
    sizes = (1, 4, 16, 64, 256)
    means, errors = zip(*tightening(lognormal(2**18), sizes), strict=True)
    assert abs(means[0] + 0.5) < Z * errors[0], "the mean of log w"
    assert (np.diff(means) > 0).all()
    second_order = -(math.e - 1) / (2 * 256)  # -Var w / 2 K
    assert abs(means[-1] - second_order) < Z * errors[-1] + 0.2 * abs(second_order)


def test_the_standard_error_is_the_spread_of_repetitions():
    runs = [tightening(lognormal(512, seed), (8,))[0] for seed in range(300)]
    means, errors = np.array(runs).T
    assert means.std() / np.sqrt((errors**2).mean()) == pytest.approx(1, abs=0.2)


def test_an_error_of_few_groups_is_refused():
    assert len(tightening(lognormal(256), (16,))) == 1
    message = "256 samples make 4 groups of 64: fewer than 16 have no standard error"
    with pytest.raises(ValueError, match=message):
        tightening(lognormal(256), (1, 64))
    with pytest.raises(ValueError, match="a group's size must be an integer of at least 1, not 0"):
        tightening(lognormal(256), (0,))
