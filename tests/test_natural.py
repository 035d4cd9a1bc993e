"""Natural-gradient steps: the damped Fisher solve, done in the space of the nodes."""

import math

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from dlutils.flows import adjoint, natural
from dlutils.flows.natural import NaturalGradient
from dlutils.flows.nets import ConcatSquashDrift

SOLVER = (10, "rk4", "map")


@pytest.fixture
def small(float64):
    """A net that no notebook defines, some points and their weights."""
    return ConcatSquashDrift(hidden=4), torch.linspace(-1.5, 2, 9), torch.arange(1.0, 10)


def climber(f, y, weights, **options):
    return NaturalGradient(f, y, weights, *SOLVER, **options)


def weights_of(f):
    return parameters_to_vector(f.parameters()).detach().clone()


def mean(f, y, weights):
    return adjoint.mean_log_likelihood(f, y, weights, *SOLVER)


def climb(small, **options):
    """To the end; the weights there."""
    way = climber(*small, **options)
    way.look()
    while way.move():
        way.look()
    return weights_of(small[0])


def test_a_step_is_the_damped_fisher_solve(small):
    f, y, weights = small
    d, precision, before = 0.3, 0.02, weights_of(f)
    way = climber(*small, damping=d, precision=precision)
    way.look()
    scores, weights = adjoint.scores(f, y, *SOLVER)[1], weights / weights.sum()
    fisher = scores.T @ (weights[:, None] * scores)
    gradient = weights @ scores - precision * before
    assert way.move()
    expected = torch.linalg.solve(fisher + (d + precision) * torch.eye(len(before)), gradient)
    assert torch.allclose(weights_of(f) - before, expected, rtol=1e-8)


def test_without_a_step_uphill_it_stays(small):
    way, before = climber(*small, damping=100.0), weights_of(small[0])
    way.look()
    way.gradient = -way.gradient
    assert not way.move()
    assert torch.equal(weights_of(small[0]), before)


def test_what_is_reported_is_in_the_units_of_the_data_and_without_the_prior(small):
    value = mean(*small).item()
    assert climber(*small).look() == pytest.approx(value, abs=1e-12)
    found = climber(*small, shift=-math.log(2.5), precision=0.3).look()
    assert found == pytest.approx(value - math.log(2.5), abs=1e-12)


@pytest.mark.parametrize("around_start", [False, True])
def test_it_climbs_to_where_prior_and_likelihood_balance(small, monkeypatch, around_start):
    monkeypatch.setattr(natural, "TOLERANCE", 1e-13)
    center = around_start * weights_of(small[0])
    theta = climb(small, precision=0.2, around_start=around_start)
    gradient = adjoint.flat_gradient(mean(*small), small[0])
    assert gradient.norm() > 0.01, "without the prior it would go on"
    assert (gradient - 0.2 * (theta - center)).norm() < 1e-5


def test_each_fold_raises_the_damping(small, monkeypatch):
    way = climber(*small, damping=0.5)
    before = way.look()
    objective, folds = adjoint.mean_log_likelihood, iter([True, True])

    def folding(*settings):
        if next(folds, False):
            raise ValueError("folds the line")
        return objective(*settings)

    monkeypatch.setattr(adjoint, "mean_log_likelihood", folding)
    assert way.move()
    assert way.damping == pytest.approx(0.5 * natural.RAISE**2 / natural.LOWER)
    assert way.look() > before


def test_a_step_that_gains_less_than_the_tolerance_is_the_last_one(small, monkeypatch):
    way, start = climber(*small, damping=10.0), weights_of(small[0])
    value = way.look()
    assert way.move()
    gain = way.look() - value
    for factor, going_on in ((0.5, True), (2.0, False)):
        monkeypatch.setattr(natural, "TOLERANCE", factor * gain)
        torch.nn.utils.vector_to_parameters(start, small[0].parameters())
        again = climber(*small, damping=10.0)
        again.look()
        assert again.move() is going_on
        assert again.look() > value, "the step is taken all the same"


def test_what_is_not_finite_says_so(small, monkeypatch):
    nothing = torch.full((9, len(weights_of(small[0]))), math.nan)
    monkeypatch.setattr(adjoint, "scores", lambda *_: (nothing[:, 0], nothing))
    with pytest.raises(ValueError, match="the objective is nan"):
        climber(*small).look()
