"""Natural-gradient steps: the damped Fisher solve, done in the space of the nodes."""

import math

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from dlutils.data.datasets import make_dataset
from dlutils.flows import adjoint, natural
from dlutils.flows.natural import NaturalGradient
from dlutils.flows.nets import ConcatSquashDrift
from dlutils.seeding import seeded
from dlutils.training import fit


def climber(f, y, weights, **options):
    return NaturalGradient(f, y, weights, 10, "rk4", "map", **options)


@pytest.fixture
def problem(ode):
    """An untrained net and the nodes of a Laplace mixture."""
    data = make_dataset("laplace_mixture", n_test=10)
    y, weights = data.compress(16)
    with seeded(0):
        f = ode.MLPDrift(hidden=8).double()
    return f, ((y - y.mean()) / 1.6).double(), (weights / weights.sum()).double()


def test_a_step_is_the_damped_fisher_solve(problem):
    f, y, weights = problem
    d, precision = 0.3, 0.02
    climb = climber(f, y, weights, damping=d, precision=precision)
    climb.look()
    before = parameters_to_vector(f.parameters()).detach().clone()
    scores = adjoint.scores(f, y, 10, "rk4", "map")[1]
    fisher = scores.T @ (weights[:, None] * scores)
    gradient = weights @ scores - precision * before
    assert climb.move()
    step = parameters_to_vector(f.parameters()).detach() - before
    expected = torch.linalg.solve(fisher + (d + precision) * torch.eye(len(before)), gradient)
    assert torch.allclose(step, expected, rtol=1e-8)


def test_without_a_step_uphill_it_stays(problem):
    f, y, weights = problem
    climb = climber(f, y, weights, damping=100.0)
    climb.look()
    climb.gradient = -climb.gradient
    before = parameters_to_vector(f.parameters()).detach().clone()
    assert not climb.move()
    assert torch.equal(parameters_to_vector(f.parameters()), before)


@pytest.fixture
def small(float64):
    """A net that no notebook defines, some points and their weights."""
    return ConcatSquashDrift(hidden=4), torch.linspace(-1.5, 2, 9), torch.arange(1.0, 10)


def mean(f, y, weights):
    with torch.no_grad():
        return (weights @ adjoint.log_likelihood(f, y, 10, "rk4", "map") / weights.sum()).item()


def test_what_is_reported_is_in_the_units_of_the_data_and_without_the_prior(small):
    value = mean(*small)
    assert climber(*small).look() == pytest.approx(value, abs=1e-12)
    found = climber(*small, shift=-math.log(2.5), precision=0.3).look()
    assert found == pytest.approx(value - math.log(2.5), abs=1e-12)


def test_it_climbs_to_where_prior_and_likelihood_balance(small):
    f, y, weights = small
    precision = 0.2
    climb = climber(*small, precision=precision, tolerance=1e-13)
    climb.look()
    while climb.move():
        climb.look()
    adjoint.mean_log_likelihood(f, y, weights, 10, "rk4", "map").backward()
    gradient = torch.cat([p.grad.flatten() for p in f.parameters()])
    theta = parameters_to_vector(f.parameters()).detach()
    assert gradient.norm() > 0.01, "without the prior it would go on"
    assert (gradient - precision * theta).norm() < 1e-5


def test_each_fold_raises_the_damping(small, monkeypatch):
    climb = climber(*small, damping=0.5)
    climb.look()
    objective, folds = adjoint.mean_log_likelihood, iter([True, True])

    def folding(*settings):
        if next(folds, False):
            raise ValueError("folds the line")
        return objective(*settings)

    monkeypatch.setattr(adjoint, "mean_log_likelihood", folding)
    before = mean(*small)
    assert climb.move()
    assert climb.damping == pytest.approx(0.5 * natural.RAISE**2 / natural.LOWER)
    assert mean(*small) > before


def test_a_step_that_gains_less_than_the_tolerance_is_the_last_one(small):
    climb = climber(*small, damping=10.0)
    start = climb.look()
    assert climb.move()
    gain = climb.look() - start
    for factor, going_on in ((0.5, True), (2.0, False)):
        torch.manual_seed(0)
        f = ConcatSquashDrift(hidden=4)
        again = climber(f, *small[1:], damping=10.0, tolerance=factor * gain)
        start = again.look()
        assert again.move() is going_on
        assert again.look() > start, "the step is taken all the same"


def test_what_is_not_finite_says_so(problem, monkeypatch):
    f, y, weights = problem
    nothing = torch.full_like(y, math.nan)
    monkeypatch.setattr(adjoint, "scores", lambda *_: (nothing, nothing[:, None]))
    climb = climber(f, y, weights)
    climb.parameters = [torch.zeros(1)]
    with pytest.raises(ValueError, match="the objective is nan"):
        climb.look()


def test_a_prior_around_the_start_pulls_back_to_it(problem):
    f, y, weights = problem
    before = parameters_to_vector(f.parameters()).detach().clone()
    moved = {}
    for precision in (1e-3, 10.0):
        torch.nn.utils.vector_to_parameters(before, f.parameters())
        climb = climber(f, y, weights, precision=precision, around_start=True)
        climb.look()
        assert climb.height == pytest.approx(
            (weights @ adjoint.log_likelihood(f, y, 10, "rk4", "map")).item()
        ), "nothing to pay at the start"
        fit(f, None, lambda: 0.0, climber=climb, n_iterations=10, progress=False)
        moved[precision] = (parameters_to_vector(f.parameters()).detach() - before).norm()
    assert moved[10.0] < 0.2 * moved[1e-3]
