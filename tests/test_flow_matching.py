"""Flow matching in closed form: the least squares, the targets, what is refused."""

import math

import numpy as np
import pytest
import torch

from dlutils.data.datasets import Dataset, make_dataset
from dlutils.estimators.view import seen_in
from dlutils.evaluation import compare
from dlutils.flows.convergence import kl_by_steps
from dlutils.flows.matching import path_nodes

LIMITS = {  # of the KL, nats; 10 000 points
    "laplace_mixture": 0.0015,
    "marron_wand_10": 0.0025,
    "marron_wand_15": 0.012,
}


def distance(data, model):
    return compare(data, model.log_likelihood).normalized_kl


@pytest.fixture(scope="module")
def mixture(ode):
    data = make_dataset("laplace_mixture", n_test=10)
    return data, ode.flow_matching(data)


@pytest.mark.parametrize("name", LIMITS)
def test_close_to_the_truth_and_smooth_at_least_as_close(ode, mixture, name):
    data = make_dataset(name, n_test=10)
    solved = mixture[1] if name == mixture[0].name else ode.flow_matching(data)
    solved, smooth = (distance(data, m) for m in (solved, ode.flow_matching(data, smooth=True)))
    assert 0 < solved < LIMITS[name]
    assert 0 < smooth < solved + 1e-4


def test_four_steps_are_not_enough_where_paths_cross(ode, mixture):
    data, model = mixture[0], ode.flow_matching(mixture[0], coupling="independent")
    few, many = kl_by_steps(data, {"": model}, "euler", (4, 100))[""]
    assert many < 2 * distance(data, model)
    assert not few < 5 * distance(data, model), "far off, or folded"


@pytest.mark.parametrize("name", ["laplace_mixture", "marron_wand_10"])
def test_two_steps_are_enough_where_no_paths_cross(ode, name):
    data = make_dataset(name, n_test=10)
    quick = ode.flow_matching(data, penalties=[10], n_times=2, method="rk2", n_steps=2)
    assert distance(data, quick) < 0.005


def test_the_solve_is_that_of_the_normal_equations(ode):
    y = make_dataset("laplace", 300, 10, 10).train
    nodes = x, t, v, w = path_nodes(y / y.std(), "sorted")
    basis = ode.SigmoidBasisDrift.for_paths(y / y.std(), "sorted")
    R = basis.roughness()
    for f, penalty in zip(ode.least_squares(basis, *nodes, [1e3, 1e-2]), (1e3, 1e-2), strict=True):
        c = f.c.detach().clone().requires_grad_()
        loss = w @ ((f.basis(x, t) * c).sum((1, 2)) - v).square()
        (loss + penalty * c.flatten() @ R @ c.flatten()).backward()
        assert c.grad.abs().max() < 1e-6
    assert basis.c.abs().max() == 0, "the drift that was given is not changed"


def test_the_validation_points_choose_among_the_penalties(ode):
    data, penalties = make_dataset("laplace_mixture", 2000, 500, 10), (1e-1, 1e2, 1e7)
    alone = [ode.flow_matching(data, penalties=[penalty]) for penalty in penalties]
    best = max(alone, key=lambda model: model.history.val[0])
    assert best is alone[1]
    chosen = ode.flow_matching(data, penalties=penalties)
    exact = chosen.log_likelihood(data.val).mean().item()
    assert chosen.history.val == [pytest.approx(exact, abs=1e-4)], "what chose, but for bins"
    assert torch.equal(chosen.drift.c, best.drift.c)


def test_a_penalty_is_for_each_point_and_a_path_seen_n_times(ode):
    data = make_dataset("laplace_mixture", 2000, 500, 10)
    settings = {"penalties": [10.0], "n_times": 2, "method": "euler", "n_steps": 2}
    model = ode.flow_matching(data, **settings)
    y = seen_in(data)[0].even
    basis, nodes = model.drift.for_paths(y, "sorted"), path_nodes(y, "sorted", 2)
    (expected,) = ode.least_squares(basis, *nodes, [10.0 / 2000])
    torch.testing.assert_close(model.drift.c, expected.c.to(model.drift.c))


def test_other_drifts_are_regressed(ode):
    data = make_dataset("gaussian", 500, 50, 50)
    settings = {"progress": False, "n_iterations": 60, "seed": 4}
    first, again = (ode.flow_matching(data, "mlp", **settings) for _ in range(2))
    assert first.history.train == again.history.train
    assert len(first.history.train) == 60
    assert distance(data, first) < 0.05
    assert first.logdet == "map"


@pytest.mark.parametrize("n", [5, 30])
@pytest.mark.parametrize("smooth", [False, True])
def test_few_points(ode, n, smooth):
    model = ode.flow_matching(make_dataset("gaussian", n, 50, 50), smooth=smooth)
    found = compare(make_dataset("gaussian", 10, 10, 10), model.log_likelihood)
    assert found.mass == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drift": "magic"}, "unknown drift 'magic'; choose from linear, mlp"),
        ({"coupling": "magic"}, "unknown coupling 'magic'; choose from independent, sorted"),
        ({"method": "rk3"}, "unknown method 'rk3'; choose from"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, not 0"),
    ],
)
def test_what_is_wrong_is_named(ode, options, message):
    with pytest.raises(ValueError, match=message):
        ode.flow_matching(make_dataset("gaussian", 100, 20, 20), **options)


def heaped_at_a_bound():
    """Percentages, rounded, many of them 100, as of those who take part in a plan."""
    random = np.random.default_rng(1)
    y = np.where(random.random(1500) < 0.4, 100.0, 100 * random.beta(5.0, 1.5, 1500))
    return Dataset.from_samples(y.round(1), support=(0, 100), rounding=0.1)


def with_a_gap():
    """Sums of a random number of terms, zero among them, rounded (Tweedie)."""
    random = np.random.default_rng(0)
    y = np.array([random.gamma(2.0, 1.0, k).sum() for k in random.poisson(1.5, 1000)])
    return Dataset.from_samples(y.round(2), support=(0, math.inf), rounding=0.01)


@pytest.mark.parametrize("sample", [heaped_at_a_bound, with_a_gap])
def test_the_flow_is_a_map_wherever_a_quadrature_asks(ode, sample):
    data = sample()
    model = ode.flow_matching(data, smooth=True)
    assert compare(data, model.log_likelihood).mass == pytest.approx(1, abs=2e-3)
    assert model.log_likelihood(data.test).isfinite().all()


def test_likelihood_goes_on_from_the_solve(ode, mixture):
    data, solved = mixture
    settings = {"method": "rk4", "n_steps": 10, "logdet": "map", "optimizer": "natural"}
    settings |= {"n_bins": 256, "prior_precision": 1.0, "n_iterations": 3, "progress": False}
    gone_on = ode.train(data, "sigmoid_basis", **settings, start=solved.drift)
    mean = lambda model: model.log_likelihood(data.train).mean().item()
    assert mean(gone_on) > mean(solved)
    assert torch.equal(gone_on.drift.places, solved.drift.places)


def test_a_nominal_likelihood_that_went_astray_is_not_kept(ode, capsys):
    """By trace Euler's five steps can be pushed to any “likelihood”."""
    data = make_dataset("gaussian")
    model = ode.train(data, n_steps=5, standardize=False, progress=False, n_iterations=350)
    assert model.history.kept is not None
    assert "the best, are kept" in capsys.readouterr().out
    assert 0.9 < compare(data, model.log_likelihood).mass < 1.3
    assert distance(data, model) < 0.05
    assert max(model.history.train) > np.mean(model.history.val) + 1, "what it would have been"
