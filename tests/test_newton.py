"""Newton's method on the whole trajectory against the steps in sequence."""

import math

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
def claw():
    """The data, a drift that makes their density, and some points in its units."""
    data = make_dataset("marron_wand_10", n_test=15)
    units = units_of(data)
    return data, fit_steps(units(data.train), "sorted"), units(data.test), units


@pytest.mark.parametrize(("n_steps", "method"), [(1000, "euler"), (100, "rk4")])
def test_it_is_the_trajectory_of_the_steps_in_sequence(ode, claw, n_steps, method):
    _, f, y, _ = claw
    states, slopes, iterations = newton_trajectory(f, y, 1, 0, n_steps, method)
    with torch.no_grad():
        sequence = torch.stack(list(ode.trajectory(f, y, 1, 0, n_steps, method)))
        log_p = adjoint.log_likelihood(f, y, n_steps, method, "map")
    assert (states - sequence).abs().max() < 1e-6
    assert iterations <= 8
    found = Normal(0.0, 1.0).log_prob(states[-1]) + slopes.log().sum(0)
    assert (found - log_p).abs().max() < 1e-6
    assert torch.equal(newton.log_likelihood(f, y, n_steps, method)[0], found)
    assert not found.requires_grad


def test_the_steps_make_the_density_and_one_iteration_is_not_enough(claw):
    """What the test above rests on: it can fail, and its flow is that of the data."""
    data, f, y, units = claw
    log_q = lambda y: adjoint.log_likelihood(f, units(y), 10, "rk4", "map") - math.log(units.scale)
    assert compare(data, log_q, 1001).normalized_kl < 0.003
    with torch.no_grad():
        expected = adjoint.log_likelihood(f, y, 100, "euler", "map")
    found, iterations = newton.log_likelihood(f, y, 100, tolerance=10.0)
    assert iterations == 1
    assert (found - expected).abs().max() > 1e-5


def test_the_table_has_iterations_and_differences(claw, monkeypatch):
    f, y = claw[1], torch.linspace(-1, 1, 5, dtype=torch.float64)
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


def test_without_the_slopes_it_needs_more_iterations(claw, monkeypatch):
    """The count can tell: with r = 1 it is Picard's iteration, which converges linearly."""
    _, f, y, _ = claw
    count = lambda: newton_trajectory(f, y, 1, 0, 100, tolerance=1e-10)[2]
    iterations, steps = count(), newton._steps
    monkeypatch.setattr(
        newton, "_steps", lambda *at: (steps(*at)[0], torch.ones_like(steps(*at)[1]))
    )
    assert count() > 1.5 * iterations


def test_what_does_not_converge_says_so(claw, monkeypatch):
    _, f, y, _ = claw
    with pytest.raises(ValueError, match="tolerance must be positive, not 0"):
        newton_trajectory(f, y, 1, 0, 100, tolerance=0)
    monkeypatch.setattr(newton, "MOST_ITERATIONS", 2)
    with pytest.raises(ValueError, match="not converged after 2 iterations"):
        newton_trajectory(f, y, 1, 0, 100)
