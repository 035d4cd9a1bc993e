"""Fitted flows and SDEs: densities along the way, values in the data's units, samples."""

import math

import pytest
import torch
from torch.distributions import Normal

from dlutils.data.datasets import make_dataset
from dlutils.data.units import Units
from dlutils.diffusion.fitting import FittedSDE
from dlutils.diffusion.model import build_sde
from dlutils.flows.fitting import evolution, push, train

FALSE_ALARM = 1e-6
Z = Normal(0.0, 1.0).icdf(torch.tensor(1 - FALSE_ALARM / 2)).item()


def test_the_density_goes_with_the_states():
    """F = gamma x: after k Euler steps x is normal with standard deviation (1 + gamma h)^k."""
    x_0 = torch.linspace(-3, 3, 41, dtype=torch.float64)
    states, density = push(lambda x, t: 0.7 * x, x_0, 5, "euler")
    for k, (x, p) in enumerate(zip(states, density, strict=True)):
        exact = Normal(0.0, (1 + 0.7 / 5) ** k).log_prob(x).exp()
        torch.testing.assert_close(p, exact)
    with pytest.raises(ValueError, match=r"the euler step at t = 0 folds the line: raise n_steps"):
        push(lambda x, t: -9 * x, x_0, 5, "euler")


@pytest.fixture(scope="module")
def fitted():
    dataset = make_dataset("gaussian", 500, 200, 50)
    return dataset, train(dataset, "linear", n_steps=10, n_iterations=40, progress=False)


def test_what_is_recorded_is_in_the_datas_units(fitted):
    dataset, model = fitted
    assert model.units.scale == pytest.approx(0.5, rel=0.1), "of which the logarithm counts"
    for value, y in (
        (model.history.val[-1], dataset.val),
        (model.history.train[-1], dataset.train),
    ):
        assert value == pytest.approx(model.log_likelihood(y).mean().item(), abs=2e-3)


def test_the_flow_in_motion_is_in_the_datas_units(fitted):
    _, model = fitted
    times, y, p, paths = evolution(model, 20)
    assert (times[0], times[-1]) == (0, 1)
    assert paths.shape == (21, 40)
    for states, density in zip(y, p, strict=True):
        assert torch.trapezoid(torch.tensor(density), torch.tensor(states)) == pytest.approx(
            1, abs=1e-3
        )


def test_a_sample_of_an_sde_has_the_noise_of_the_observation():
    """Untrained, the drift is exact for N(0, 1): x_1 has the variance 1 + delta^2, y one more."""
    delta, n = 0.5, 20_000
    model = build_sde("linear", "optimal", "preconditioned", delta).double()
    sample = FittedSDE(model, None, Units(1.0, 3.0), 6.5).sample(n, seed=1, n_steps=400)
    wanted = 9 * (1 + 2 * delta**2)
    assert abs(sample.var().item() / wanted - 1) < Z * math.sqrt(2 / n) + 0.01
    assert abs(sample.mean().item() - 1) < Z * math.sqrt(wanted / n)
