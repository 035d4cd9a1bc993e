"""Newton's method on the whole trajectory against the steps in sequence."""

import math
from functools import cache

import pytest
import torch
from torch.distributions import Normal

from conftest import fit_steps
from dlutils.data.datasets import make_dataset
from dlutils.estimators.view import units_of
from dlutils.evaluation import compare
from dlutils.flows import adjoint, newton
from dlutils.flows.newton import newton_trajectory


@pytest.fixture(scope="module")
def flows(ode):
    """A short training on each of three targets: in float64, with points of the data."""
    found = {}
    for name, drift in (
        ("gaussian", "mlp"), ("laplace_mixture", "mlp"), ("marron_wand_10", "sigmoid_basis"),
    ):  # fmt: skip
        data = make_dataset(name, n_test=50)
        options = {"n_iterations": 60, "progress": False, "logdet": "map"}
        model = ode.train(data, drift, "rk4", 10, **options)
        found[name] = model.drift.double(), model.units(data.test.double())
    return found


@pytest.mark.parametrize("name", ["gaussian", "laplace_mixture", "marron_wand_10"])
@pytest.mark.parametrize("n_steps", [100, 1000])
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_it_is_the_trajectory_of_the_steps_in_sequence(ode, flows, name, n_steps, method):
    f, y = flows[name]
    states, slopes, iterations = newton_trajectory(f, y, 1, 0, n_steps, method)
    with torch.no_grad():
        sequence = torch.stack(list(ode.trajectory(f, y, 1, 0, n_steps, method)))
        log_p = adjoint.log_likelihood(f, y, n_steps, method, "map")
    assert (states - sequence).abs().max() < 1e-6
    assert iterations <= 8
    found = Normal(0.0, 1.0).log_prob(states[-1]) + slopes.log().sum(0)
    assert (found - log_p).abs().max() < 1e-6


@cache
def steps_for(name):
    """The data and a drift that makes their density, without a notebook: in standard units."""
    data = make_dataset(name, n_test=15)
    units = units_of(data)
    f = fit_steps(units(data.train.double()), "sorted")
    return data, f, lambda y: units(y.double()), units.scale


NAMES = ("gaussian", "laplace_mixture", "marron_wand_10")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_steps", [100, 1000])
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_the_log_likelihood_is_that_of_the_steps_in_sequence(name, n_steps, method):
    data, f, in_units, _ = steps_for(name)
    y = in_units(data.test)
    found, iterations = newton.log_likelihood(f, y, n_steps, method)
    with torch.no_grad():
        expected = adjoint.log_likelihood(f, y, n_steps, method, "map")
    assert (found - expected).abs().max() < 1e-6
    assert iterations <= 8
    assert not found.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_the_steps_make_the_density_and_one_iteration_is_not_enough(name):
    """What the test above rests on: it can fail, and its flows are those of the data."""
    data, f, in_units, scale = steps_for(name)
    log_q = lambda y: adjoint.log_likelihood(f, in_units(y), 10, "rk4", "map") - math.log(scale)
    assert compare(data, log_q, 1001).normalized_kl < 0.003
    y = in_units(data.test)
    with torch.no_grad():
        expected = adjoint.log_likelihood(f, y, 100, "euler", "map")
    found, iterations = newton.log_likelihood(f, y, 100, tolerance=10.0)
    assert iterations == 1
    assert (found - expected).abs().max() > 1e-5


def test_the_table_has_iterations_and_differences(monkeypatch):
    f, y = steps_for("marron_wand_10")[1], torch.linspace(-1, 1, 5, dtype=torch.float64)
    rows = newton.against_steps(f, y, (10, 20), "rk2", "claw")
    assert [(row["data"], row["T"]) for row in rows] == [("claw", 10), ("claw", 20)]
    for row in rows:
        assert row["iterations"] == newton.log_likelihood(f, y, row["T"], "rk2")[1]
        assert row["difference / nats"] < 1e-9
    shifted = newton.log_likelihood(f, y, 10)[0] - torch.tensor([0.0, 0.25, 0.0, 0.0, 0.0]).double()
    monkeypatch.setattr(newton, "log_likelihood", lambda *_: (shifted, 3))
    (row,) = newton.against_steps(f, y, [10], "euler", "claw")
    assert row["difference / nats"] == pytest.approx(0.25, abs=1e-9)


def test_where_a_step_folds_the_line_there_is_no_density():
    f = lambda x, t: 12 * x.tanh()  # a step of 0.1 folds where the slope exceeds 10
    with torch.no_grad():
        found, _ = newton.log_likelihood(f, torch.tensor([-30.0, 0.01, 30.0]), 10)
    assert found.isnan().tolist() == [False, True, False]


def test_without_the_slopes_it_needs_more_iterations(flows, monkeypatch):
    """The count can tell: with r = 1 it is Picard's iteration, which converges linearly."""
    f, y = flows["laplace_mixture"]
    count = lambda: newton_trajectory(f, y, 1, 0, 100, tolerance=1e-10)[2]
    iterations, steps = count(), newton._steps
    monkeypatch.setattr(
        newton, "_steps", lambda *at: (steps(*at)[0], torch.ones_like(steps(*at)[1]))
    )
    assert count() > 1.5 * iterations


def test_what_does_not_converge_says_so(flows):
    f, y = flows["laplace_mixture"]
    with pytest.raises(ValueError, match="not converged after 2 iterations"):
        newton_trajectory(f, y, 1, 0, 100, max_iterations=2)
    with pytest.raises(ValueError, match="tolerance must be positive, not 0"):
        newton_trajectory(f, y, 1, 0, 100, tolerance=0)
