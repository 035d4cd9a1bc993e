"""Newton's method on the whole trajectory against the steps in sequence."""

import pytest
import torch

from conftest import fit_steps
from dlutils.data.datasets import make_dataset
from dlutils.estimators.view import units_of
from dlutils.flows import adjoint, newton


@pytest.fixture(scope="module")
def claw():
    """A drift that makes the density of the claw, and some points in its units."""
    data = make_dataset("marron_wand_10", n_test=15)
    units = units_of(data)
    return fit_steps(units(data.train), "sorted"), units(data.test)


@pytest.mark.parametrize(("n_steps", "method"), [(1000, "euler"), (100, "rk4")])
def test_it_is_the_solve_of_the_steps_in_sequence(claw, n_steps, method):
    found, iterations = newton.log_likelihood(*claw, n_steps, method)
    with torch.no_grad():
        log_p = adjoint.log_likelihood(*claw, n_steps, method, "map")
    assert (found - log_p).abs().max() < 1e-6
    assert iterations <= 8
    assert not found.requires_grad
    (row,) = newton.against_steps(*claw, [n_steps], method, "claw")
    assert row == {
        "data": "claw", "T": n_steps, "iterations": iterations,
        "difference / nats": (found - log_p).abs().max().item(),
    }  # fmt: skip


def test_one_iteration_is_not_enough(claw, monkeypatch):
    monkeypatch.setattr(newton, "TOLERANCE", 10.0)
    (row,) = newton.against_steps(*claw, [100], "euler", "claw")
    assert row["iterations"] == 1
    assert row["difference / nats"] > 1e-5


def test_without_the_slopes_it_needs_more_iterations(claw, monkeypatch):
    """The count can tell: with r = 1 it is Picard's iteration, which converges linearly."""
    monkeypatch.setattr(newton, "TOLERANCE", 1e-10)
    count = lambda: newton.log_likelihood(*claw)[1]
    iterations, steps = count(), newton._steps
    monkeypatch.setattr(
        newton, "_steps", lambda *at: (steps(*at)[0], torch.ones_like(steps(*at)[1]))
    )
    assert count() > 1.5 * iterations


def test_where_a_step_folds_the_line_there_is_no_density():
    f = lambda x, t: 12 * x.tanh()  # a step of 0.1 folds where the slope exceeds 10
    with torch.no_grad():
        found, _ = newton.log_likelihood(f, torch.tensor([-30.0, 0.01, 30.0]), 10)
    assert found.isnan().tolist() == [False, True, False]


def test_what_does_not_converge_says_so(claw, monkeypatch):
    monkeypatch.setattr(newton, "MOST_ITERATIONS", 2)
    with pytest.raises(ValueError, match="not converged after 2 iterations"):
        newton.log_likelihood(*claw)
