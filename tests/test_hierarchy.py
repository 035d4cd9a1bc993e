"""The bound of T latent levels, against its own definition by sampling, and its limit."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from conftest import perturbed
from dlutils.evaluation import slope

pytestmark = pytest.mark.usefixtures("float64")

Z = stats.norm.isf(5e-7)  # standard errors: a right bound fails a random test once in a million


def transition(a, beta, k, x, y):
    """q(x_{k+1} | x_k, y) by Bayes, where noising is x_k = (a_k / a_{k+1}) x_{k+1} + noise."""
    shrink = a[k] / a[k + 1]
    noise = beta[k] ** 2 - (shrink * beta[k + 1]) ** 2
    precision = 1 / beta[k + 1] ** 2 + shrink**2 / noise
    mean = (a[k + 1] * y / beta[k + 1] ** 2 + shrink * x / noise) / precision
    return Normal(mean, precision.rsqrt())


def sampled(model, y, n_levels, n_samples):
    """log p(chain, y) - log q(chain | y) of chains drawn from q, nats, (n_samples,)."""
    t = model.path.time(torch.linspace(0, 1, n_levels + 1)).clamp(max=1)
    a, beta, _, _ = model.path.schedule(t)
    start = Normal(a[0] * y, beta[0])
    x = start.sample((n_samples,))
    value = Normal(0.0, 1.0).log_prob(x) - start.log_prob(x)
    for k in range(n_levels):
        y_hat = model.net(x, t[k].expand(n_samples))
        q, p = (transition(a, beta, k, x, end) for end in (y, y_hat))
        x = q.sample()
        value += p.log_prob(x) - q.log_prob(x)
    return value + Normal(x, model.sigma_y).log_prob(torch.tensor(y))


@torch.no_grad()
@pytest.mark.parametrize(("path", "wrong"), [("linear", False), ("variance_preserving", True)])
def test_the_bound_is_the_mean_over_chains(sde, path, wrong):
    """Each Gaussian transition is spelled out; none of the formula's squares is used."""
    model = sde.build_sde(path, "optimal", "preconditioned", 0.05)
    model = perturbed(model, 4) if wrong else model
    for y in (-1.2, 0.3):
        found = sde.hierarchical_elbo(model, torch.tensor([y]), 10, n_eps=64).item()
        values = sampled(model, y, 10, 60_000)
        error = values.std().item() / len(values) ** 0.5
        assert abs(values.mean().item() - found) < Z * error
        assert Z * error < 0.4, "half a nat would be seen"


@torch.no_grad()
def test_the_gap_falls_like_one_over_the_number_of_levels(sde):
    """For standard normal data and the best prediction, where all is known."""
    model = sde.build_sde("linear", "optimal", "preconditioned", 0.01)
    y, w = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(6))
    truth, n_levels = -0.5 * math.log(2 * math.pi * math.e), (10, 100, 1000, 10_000)
    mean = lambda n: (w @ sde.hierarchical_elbo(model, y, n, 8) / w.sum()).item()
    gaps = [truth - mean(n) for n in n_levels]
    assert gaps == pytest.approx([7.361, 0.4017, 0.0382, 0.0038], abs=6e-5, rel=1e-3)
    assert slope(n_levels[1:], gaps[1:]) == pytest.approx(-1, abs=0.05)
