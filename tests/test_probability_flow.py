"""The flow of a prediction of y: its density, its paths, and what it needs."""

import pytest
import torch
from torch.distributions import Normal

from conftest import perturbed
from dlutils.diffusion.probability_flow import ProbabilityFlow

pytestmark = pytest.mark.usefixtures("float64")


def flow_of(sde, path="linear", n_steps=200, seed=None):
    """Of an exact prediction of standard normal data, or of one with random numbers added."""
    model = sde.build_sde(path, "optimal", "preconditioned", 0.05)
    model = model if seed is None else perturbed(model, seed)
    return ProbabilityFlow(model.path, model.net, n_steps)


def test_the_flow_of_an_exact_prediction_has_the_marginals(sde):
    flow, x = flow_of(sde, "variance_preserving"), torch.linspace(-3, 3, 13)
    u, grid = torch.tensor([0, 0.5, 1]), torch.linspace(-9, 9, 9001)
    a, beta, _, _ = flow.path.schedule(flow.path.time(u))
    sds = torch.hypot(a, beta)
    at_1 = Normal(0.0, sds[-1]).log_prob(x)
    torch.testing.assert_close(flow.log_density(x), at_1, rtol=0, atol=1e-6)
    since_half = lambda sds: flow.log_density(
        x, 0.5, (u, grid.numpy(), Normal(0.0, sds[:, None]).log_prob(grid).exp().numpy())
    )
    torch.testing.assert_close(since_half(sds), at_1, rtol=0, atol=1e-5)
    assert (since_half(1.1 + 0 * sds) - at_1).abs().max() > 0.05, "from another, another"
    states = flow.paths(x)
    assert states.shape == (201, 13)
    torch.testing.assert_close(states[-1], sds[-1] * x, rtol=1e-6, atol=1e-6)


def test_the_density_is_that_of_the_other_notebooks_map(sde, ode):
    flow, x = flow_of(sde, n_steps=40, seed=3), torch.linspace(-2, 2, 21)
    expected = ode.log_likelihood(flow.velocity, x, 40, "rk4", "map")
    torch.testing.assert_close(flow.log_density(x), expected.detach(), rtol=0, atol=1e-9)


def test_a_density_has_mass_one_and_follows_its_paths(sde):
    flow, x = flow_of(sde, n_steps=60, seed=3), torch.linspace(-9, 9, 1001)
    p = flow.log_density(x).exp().detach()
    assert torch.trapezoid(p, x).item() == pytest.approx(1, abs=1e-4)
    cdf, start = torch.cumulative_trapezoid(p, x), torch.tensor([-1.0, 0.0, 0.7])
    rank = cdf[torch.searchsorted(x, flow.paths(start)[-1]) - 1]
    torch.testing.assert_close(rank, Normal(0.0, 1.0).cdf(start), rtol=0, atol=5e-3)


def test_what_is_wrong_is_named(sde):
    with pytest.raises(ValueError, match="n_steps must be an integer of at least 1, not 0"):
        flow_of(sde, n_steps=0)
    flow, x = flow_of(sde, n_steps=3), torch.linspace(-1, 1, 50)
    with pytest.raises(ValueError, match=r"since must be at least 0 and below 1, not 1.5"):
        flow.log_density(x, 1.5)
    flow.y_hat = lambda x, t: 40 * (20 * x).sin()
    with pytest.raises(ValueError, match="folds the line: raise n_steps = 3"):
        flow.log_density(x)
