"""The flow of a prediction of y: its density, its paths, and what it needs."""

import pytest
import torch
from torch.distributions import Normal

from conftest import perturbed
from dlutils.diffusion.probability_flow import ProbabilityFlow

pytestmark = pytest.mark.usefixtures("float64")

DELTA = 0.05


@pytest.fixture
def exact(sde):
    """Untrained, the preconditioned drift predicts standard normal data as well as can be."""
    return sde.build_sde("linear", "optimal", "preconditioned", DELTA)


def spread(path, u):
    """Standard deviation of the state when the data are standard normal."""
    a, beta, _, _ = path.schedule(path.time(torch.tensor(float(u))))
    return torch.hypot(a, beta)


def test_the_flow_of_an_exact_prediction_has_the_marginals(sde):
    model = sde.build_sde("variance_preserving", "optimal", "preconditioned", DELTA)
    flow, x = ProbabilityFlow(model.path, model.net), torch.linspace(-3, 3, 13)
    at_1 = Normal(0.0, spread(model.path, 1)).log_prob(x)
    torch.testing.assert_close(flow.log_density(x), at_1, rtol=0, atol=1e-6)
    grid = torch.linspace(-9, 9, 9001)
    sds = torch.stack([spread(model.path, u) for u in (0, 0.5, 1)])
    densities = Normal(0.0, sds[:, None]).log_prob(grid).exp().numpy()
    marginals = [0, 0.5, 1], grid.numpy(), densities
    torch.testing.assert_close(flow.log_density(x, 0.5, marginals), at_1, rtol=0, atol=1e-5)
    others = (
        [0, 0.5, 1],
        grid.numpy(),
        Normal(0.0, 1.1).log_prob(grid).exp().numpy()[None].repeat(3, 0),
    )
    assert (flow.log_density(x, 0.5, others) - at_1).abs().max() > 0.05, "from another, another"
    states = flow.paths(x)
    assert states.shape == (201, 13)
    torch.testing.assert_close(states[-1], spread(model.path, 1) * x, rtol=1e-6, atol=1e-6)


def test_the_density_is_that_of_the_other_notebooks_map(sde, ode, exact):
    model, x = perturbed(exact, 3), torch.linspace(-2, 2, 21)
    flow = ProbabilityFlow(model.path, model.net, 40)
    expected = ode.log_likelihood(flow.velocity, x, 40, "rk4", "map")
    torch.testing.assert_close(flow.log_density(x), expected.detach(), rtol=0, atol=1e-9)


def test_a_density_has_mass_one_and_follows_its_paths(exact):
    model = perturbed(exact, 3)
    flow, x = ProbabilityFlow(model.path, model.net, 60), torch.linspace(-9, 9, 1001)
    with torch.no_grad():
        p = flow.log_density(x).exp()
    assert torch.trapezoid(p, x).item() == pytest.approx(1, abs=1e-4)
    cdf = torch.cumulative_trapezoid(p, x)
    start = torch.tensor([-1.0, 0.0, 0.7])
    ends = flow.paths(start)[-1]
    for z, end in zip(start, ends, strict=True):
        at = cdf[torch.searchsorted(x, end) - 1].item()
        assert at == pytest.approx(Normal(0.0, 1.0).cdf(z).item(), abs=5e-3), "it keeps the rank"


def test_what_is_wrong_is_named(exact):
    with pytest.raises(ValueError, match="n_steps must be an integer of at least 1, not 0"):
        ProbabilityFlow(exact.path, exact.net, 0)
    flow, x = ProbabilityFlow(exact.path, exact.net), torch.zeros(2)
    with pytest.raises(ValueError, match=r"since must be at least 0 and below 1, not 1.5"):
        flow.log_density(x, 1.5)
    steep = ProbabilityFlow(exact.path, lambda x, t: 40 * (20 * x).sin(), 3)
    with pytest.raises(ValueError, match="folds the line: raise n_steps = 3"):
        steep.log_density(torch.linspace(-1, 1, 50))
