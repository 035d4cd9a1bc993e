"""Fitted flows and SDEs: densities along the way, values in the data's units, samples."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Normal

from conftest import ROOT
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.data.units import Arsinh, Units
from dlutils.diffusion.fitting import FittedSDE
from dlutils.diffusion.model import build_sde
from dlutils.estimators.coordinates import Gaussianized
from dlutils.estimators.yardsticks import em_mixture
from dlutils.evaluation import compare
from dlutils.flows.fitting import FittedODE, evolution, flow_matching, push, train
from dlutils.flows.nets import LinearDrift
from dlutils.tools.likelihood import check

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


MIXTURE = em_mixture(make_dataset("gaussian_mixture", 200, 2, 2).train)
MODELS = {
    "ODE": FittedODE(LinearDrift().double(), None, Units(1.0, 2.0), 5, "rk4", "map"),
    "ODE, bent": FittedODE(
        LinearDrift().double(), None, Units(bends=(Arsinh(0, 1), Gaussianized(MIXTURE))), 5, "rk4",
        "map",
    ),
    "SDE": FittedSDE(build_sde(delta=0.5).double(), None, Units(1.0, 2.0), 6.5, 20),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_points_come_in_any_form_and_are_impossible_at_infinity(model):
    inf, series = math.inf, pd.Series([0.0, 0.5, 1.0, 2.0])
    for log_q in filter(None, (model.log_likelihood, getattr(model, "elbo", None))):
        wanted = log_q(torch.tensor([1.0, 2.0]))
        for points in (
            series[series > 0.5], [1, 2], np.array([1, 2]), np.array([2.0, 1.0])[::-1],
            torch.tensor([1.0, 2.0], requires_grad=True), pd.array([1, 2]), (1.0, 2.0),
        ):  # fmt: skip
            assert torch.equal(log_q(points), wanted)
        with_ends = log_q(torch.tensor([-inf, 1.0, inf, 2.0]))
        assert with_ends[[0, 2]].tolist() == [-inf, -inf]
        torch.testing.assert_close(with_ends[[1, 3]], wanted)
        assert log_q([inf]).tolist() == [-inf]
        with pytest.raises(ValueError, match=r"must be one-dimensional, shape \(n,\), not \(\)"):
            log_q(1.0)
        with pytest.raises(ValueError, match="1 of 2 are NaN, the first at index 1"):
            log_q(np.array([1.0, math.nan]))


SAVE = """
import sys
from pathlib import Path
import torch
from torch import nn
from dlutils import diffusion, flows, make_dataset

FACTOR = 2.0

class Drift(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    def forward(self, x, t):
        return FACTOR * self.net(flows.with_time(x, t)).squeeze(-1)

class Straight(diffusion.LinearPath):
    pass

data, short = make_dataset("gaussian", 50, 10, 10), {"n_iterations": 1, "progress": False}
models = [
    flows.train(data, Drift, n_steps=2, **short), diffusion.train(data, Straight, **short),
    flows.train(data, n_steps=2, **short), diffusion.train(data, **short),
]
models[1].exact
torch.save((models, [m.sample(4) for m in models]), sys.argv[1])
"""
LOAD = """
import sys
import torch
import dlutils
models, samples = torch.load(sys.argv[1], weights_only=False)
for model, sample in zip(models, samples, strict=True):
    assert torch.equal(model.sample(4), sample)
    assert "exact" not in vars(model)
"""


def test_a_model_with_classes_of_a_cell_can_be_loaded_by_another_program(tmp_path):
    for code in (SAVE, LOAD):
        command = [sys.executable, "-c", code, str(tmp_path / "models.pt")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("bounds", [(0, 1), (-3, 5), (-math.inf, 7), (2, math.inf), (0, 1e6)])
def test_beside_a_bound_the_mass_is_one_and_the_density_a_number(bounds):
    """Heavy tails of the log-odds: much lies nearer to a bound than y can be told from it."""
    low, high = bounds
    z = (0.3 * np.random.default_rng(0).standard_t(2, 4000)).clip(-9, 9)
    length = high - low if math.isfinite(high - low) else 1.0
    y = low + length * (1 / (1 + np.exp(-z)) if math.isfinite(high) else np.exp(z))
    y = high - np.exp(z) if math.isinf(low) else y
    data = Dataset.from_samples(y, support=bounds)
    model = flow_matching(data, smooth=True)
    assert compare(data, model.log_likelihood).mass == pytest.approx(1, abs=1e-3)
    ends = torch.tensor([end for end in bounds if math.isfinite(end)], dtype=torch.float64)
    at_ends = model.log_likelihood(ends)
    assert (at_ends < 100).all()
    report = check(model.log_likelihood, data)
    assert report.mass == pytest.approx(1, abs=1e-3)
