"""Samples as people have them: the mass stays one, and nothing is lost against a mixture."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, StudentT

from dlutils.data.datasets import DISTRIBUTIONS, Dataset, make_dataset
from dlutils.estimators import held_out
from dlutils.evaluation import compare
from dlutils.seeding import seeded

INF = math.inf
SHORT = {"method": "rk4", "n_steps": 10, "logdet": "map", "optimizer": "natural", "n_bins": 64}
SHORT |= {"progress": False}


def drawn(distribution, n=600, seed=0):
    with seeded(seed):
        return distribution.sample((n,)).double().numpy()


def with_value(y, value, k=7):
    y = y.copy()
    y[k] = value
    return y


NORMAL = drawn(Normal(0.0, 1.0))
NASTY = {
    "one wild value": (with_value(NORMAL, 1e6), {}),
    "one of fifty wild": (np.where(np.arange(600) % 50, NORMAL, 1e4), {}),
    "log-normal(0, 2), bounded": (np.exp(2 * NORMAL), {"support": (0, INF)}),
    "Student t, 1/2": (drawn(StudentT(0.5)), {}),
    "clusters at 0, 1 and 1000": (0.01 * NORMAL + np.array([0, 1, 1000.0])[np.arange(600) % 3], {}),
    "two scales": (NORMAL * np.where(np.arange(600) % 2, 1e-3, 1e3), {}),
    "68 % zeros": (np.where(np.arange(600) % 100 < 68, 0.0, np.exp(NORMAL)), {}),
    "counts": (np.floor(np.exp(NORMAL)), {"rounding": 1.0, "support": (0, INF)}),
    "uniform, bounded": (drawn(torch.distributions.Uniform(3.0, 5.0)), {"support": (3, 5)}),
    "six": (NORMAL[:6], {}),
    "weighted": (NORMAL, {"weights": np.exp(2 * NORMAL[::-1])}),
    "far away": (1e4 + NORMAL, {}),
    "tiny": (1e-20 * NORMAL, {}),
}


@pytest.mark.parametrize(
    "name", [*NASTY, *(pytest.param(name, marks=pytest.mark.slow) for name in DISTRIBUTIONS)]
)
def test_the_mass_of_a_trained_flow_is_one(ode, name):
    y, options = NASTY[name] if name in NASTY else (make_dataset(name, 1000, 2, 2).train, {})
    data = Dataset.from_samples(y, **options)
    flow = ode.train(data, "mlp", n_iterations=8, **SHORT)
    assert compare(data, flow.log_likelihood).mass == pytest.approx(1, abs=1e-3)
    sample = flow.sample(1000)
    assert (sample >= data.bounds[0]).all()
    assert (sample <= data.bounds[1]).all()


WIDE = {  # what reaches far, and by how much a model may be behind, nats
    "two clusters": (0.1 * drawn(Normal(0.0, 1.0), 3000) + 100 * (np.arange(3000) % 2), 0.05),
    "log-normal(0, 2)": (np.exp(2 * drawn(Normal(0.0, 1.0), 3000)), 0.05),
    "Student t": (drawn(StudentT(2.0), 3000), 0.02),
}


@pytest.mark.parametrize(
    "name", ["two clusters", *(pytest.param(k, marks=pytest.mark.slow) for k in list(WIDE)[1:])]
)
def test_tails_and_gaps_cost_nothing_against_a_mixture(ode, sde, name):
    """Held-out, nats, of the flow by likelihood and by matching and of the SDE in closed form."""
    y, room = WIDE[name]
    data = Dataset.from_samples(y)
    em = held_out.log_likelihood(held_out.rivals(data)["EM mixture (BIC)"], data).mean()
    flow = ode.train(data, "auto", **SHORT)
    for model in (flow, ode.flow_matching(data, smooth=True), sde.least_squares(data)):
        assert held_out.log_likelihood(model, data).mean() > em - room


def test_one_wild_value_does_not_make_the_grid_large(sde):
    """The Fokker-Planck equation of 20 000 normals, one of them at a million."""
    y, cells = drawn(Normal(0.0, 1.0), 20_000), []
    for values in (y, with_value(y, 1e6)):
        data = Dataset.from_samples(values)
        fitted = sde.train(data, n_iterations=5, progress=False)
        assert fitted.log_likelihood(data.test[:100]).isfinite().all()
        cells.append(len(fitted.exact.marginals[1]))
    assert cells[1] < 4 * cells[0], "in the data's own units it would be a hundred thousand times"


def test_few_points_do_not_mislead_the_sde(sde):
    """Against kernels, on many fresh points; its prior is what holds it back."""
    full = make_dataset("gaussian", 20, 2, 1000, seed=20)
    data = Dataset.from_samples(full.train)
    kernels = held_out.rivals(data)["KDE (Scott)"](full.test).mean()
    fitted = sde.train(data, n_iterations=400, progress=False)
    assert kernels - fitted.log_likelihood(full.test).mean() < 0.15
