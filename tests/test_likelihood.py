"""What `check` says of densities with one planted fault each, and of those with none."""

import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.distributions import Normal

from dlutils.data.datasets import Dataset, make_dataset
from dlutils.estimators import held_out
from dlutils.flows import adjoint
from dlutils.tools.likelihood import check

GAUSSIAN = make_dataset("gaussian")  # N(1, 0.5^2)
LAPLACE = make_dataset("laplace_mixture")
TRUE = Normal(*torch.tensor([1.0, 0.5], dtype=torch.float64))


def sentences(report, *beginnings):
    """Each problem begins as it should, and there is no other."""
    assert len(report.problems) == len(beginnings), report.problems
    for problem, beginning in zip(report.problems, beginnings, strict=True):
        assert problem.startswith(beginning)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_density_has_no_problems(dtype):
    loc, log_scale = (torch.tensor(v, dtype=dtype, requires_grad=True) for v in (1.1, -0.6))
    report = check(
        lambda y: Normal(loc, log_scale.exp()).log_prob(y), GAUSSIAN, parameters=[loc, log_scale]
    )
    sentences(report)
    scale = math.exp(-0.6)
    kl = math.log(scale / 0.5) + (0.25 + 0.1**2) / (2 * scale**2) - 0.5
    outside = 1 - np.diff(norm.cdf(GAUSSIAN.support, 1.1, scale)).item()
    exact = 1e-9 if dtype == torch.float64 else 1e-5
    assert report.mass == pytest.approx(1, abs=exact)
    assert report.mass_error < exact
    assert report.mass_outside == pytest.approx(outside, rel=1e-5)
    assert report.kl == pytest.approx(kl, abs=exact)
    assert report.normalized_kl == pytest.approx(kl, abs=2 * exact)
    assert report.sd == report.company == 0
    assert report.gradient_y < report.tolerance
    assert 0 < report.gradient_parameters < report.tolerance
    assert (loc.item(), log_scale.item()) == pytest.approx((1.1, -0.6), abs=1e-7)
    text = str(report)
    assert "1.00000 ±" in text
    assert f"{kl:.5f} nats" in text
    assert "PROBLEM" not in text


@pytest.mark.parametrize("name", ["laplace_mixture", "uniform", "student_t"])
def test_the_truth_of_every_shape_is_right(name):
    dataset = make_dataset(name)
    report = check(dataset.log_prob, dataset)
    sentences(report)
    assert report.mass == pytest.approx(1, abs=3e-6)
    assert report.kl == pytest.approx(0, abs=1e-12)
    assert 0 <= report.mass_outside < 3e-6


def test_values_of_numpy_and_a_sample_without_a_density():
    sample = Dataset.from_samples(GAUSSIAN.train)
    report = check(lambda y: norm.logpdf(y.numpy(), 1.0, 0.5), sample)
    sentences(report)
    assert report.mass == pytest.approx(1, abs=1e-6)
    assert math.isnan(report.kl)
    assert math.isnan(report.gradient_y)
    assert "KL from truth   unknown" in str(report)


FORGOTTEN = GAUSSIAN.train.std().item()
FAR = Normal(GAUSSIAN.support[1] + 1.0, 0.1)


@pytest.mark.parametrize(
    ("mass", "problems"),
    [
        (1.02, ["The mass is 1.0200", "The mean is 0.0198 nats above the truth's"]),
        (FORGOTTEN, [f"The mass is {FORGOTTEN:.4f}", "The mass is the data's standard deviation"]),
    ],
)
def test_mass_that_is_not_one(mass, problems):
    report = check(lambda y: TRUE.log_prob(y) + math.log(mass), GAUSSIAN)
    sentences(report, *problems)
    assert report.kl == pytest.approx(-math.log(mass), abs=1e-9)
    assert report.normalized_kl == pytest.approx(0, abs=1e-9)
    assert str(report).count("PROBLEM: ") == 2


def test_mass_far_from_the_data():
    parts = lambda y: (TRUE.log_prob(y) + math.log(0.9), FAR.log_prob(y) + math.log(0.1))
    report = check(lambda y: torch.logaddexp(*parts(y)), GAUSSIAN)
    assert report.mass_outside == pytest.approx(0.1, abs=3e-6)


def hutchinson(draw):
    """A linear flow from N(0, 1) to N(0, e^2) on whose one divergence, 1, random probes are set."""
    return lambda y: Normal(0.0, 1.0).log_prob((y - 1) / 0.5) + draw(y).square() * math.log(2)


def test_gaussian_probes_are_found_and_rademacher_probes_are_exact_on_the_line():
    report = check(hutchinson(torch.randn_like), GAUSSIAN)
    sd = math.sqrt(2) * math.log(2)  # the variance of z^2 is 2
    assert report.sd == pytest.approx(sd, rel=0.5)
    assert any(problem.startswith("It is random, sd") for problem in report.problems)
    assert report.gradient_y < report.tolerance
    sentences(check(hutchinson(lambda y: (torch.randn_like(y) < 0) * 2.0 - 1.0), GAUSSIAN))


def normed(y):
    """The truth, but for a layer that no point alone has a value in."""
    layer = nn.BatchNorm1d(1, dtype=y.dtype)
    return TRUE.log_prob(y) + 0 * layer(y[:, None])[:, 0]


LOC = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
PROBES = torch.randn(10_000, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("log_prob", "number", "value", "problem"),
    [
        (lambda y: TRUE.log_prob(y.detach()) + (y - y.detach()),
         "gradient_y", None, "The gradient in y is off"),
        (lambda y: Normal(0.5 * (LOC + LOC.detach()), 0.5).log_prob(y),
         "gradient_parameters", 0.5, "The gradient in the parameters is off by 0.5"),
        (lambda y: Normal(LOC.detach(), 0.5).log_prob(y),
         "gradient_parameters", math.inf, "There is no gradient in the parameters."),
        (hutchinson(lambda y: PROBES[: len(y)]), "sd", 0, "A point alone"),
        (lambda y: TRUE.log_prob(y.sort().values), "company", 0, "The order of the points matters"),
        (lambda y: TRUE.log_prob(y - y.cumsum(0) / 1e3), "sd", 0, "The order of the points"),
        (lambda y: TRUE.log_prob(y.sub_(0)).sub_(0) + 0 * y.add_(1), "sd", 0, "It changes the poi"),
        (normed, "sd", 0, "A point alone has no value .batch normalization.*: Expected more"),
        (lambda y: TRUE.log_prob(y) + 0 * y.std(), "sd", 0, "A point alone has no value"),
        (lambda y: TRUE.log_prob(y) + torch.log1p(0.99 * torch.cos(300 * y)),
         "gradient_y", None, "The mass is uncertain"),
    ],
    ids=["slope", "half the weights", "no weights", "probes drawn once", "sorted", "summed up",
         "in place", "batch normalization", "of several", "rough"],
)  # fmt: skip
def test_one_fault(log_prob, number, value, problem):
    parameters = [LOC] if number == "gradient_parameters" else []
    report = check(log_prob, GAUSSIAN, parameters=parameters)
    assert any(re.match(problem, found) for found in report.problems), report.problems
    if value is not None:
        assert getattr(report, number) == pytest.approx(value, abs=1e-6)


def test_our_own_models_and_whatever_uses_numpy(sde):
    """They have no gradient in y to look at, and nothing else is wrong with them."""
    few = {"n_knots": 60, "n_times": 8, "n_bins": 60}
    solved = sde.least_squares(GAUSSIAN, preconditioning="gaussian", **few)
    rivals = held_out.rivals(make_dataset("gaussian", 500, 50, 50))
    for log_prob in (solved.log_likelihood, *rivals.values()):
        report = check(log_prob, GAUSSIAN)
        assert not [found for found in report.problems if "gradient" in found]
        assert -1e-4 < report.normalized_kl < 0.1
        assert report.company == report.shuffled == 0


def bend(x, t):
    """A drift that is not linear."""
    return torch.sin(2 * x) * torch.cos(t) + 0.3 * x


@pytest.mark.parametrize(
    ("method", "logdet", "order", "mass_order", "enough"),
    [("euler", "trace", 1, 1, None), ("euler", "map", 1, None, 8), ("rk4", "map", 4, None, 8)],
)
def test_order_and_mass_of_a_flow(method, logdet, order, mass_order, enough):
    asked = set()

    def log_prob(y, T):
        asked.add(y.dtype)
        return adjoint.log_likelihood(bend, y / 0.7, T, method, logdet) - math.log(0.7)

    by_steps = lambda T: partial(log_prob, T=T)
    report = check(by_steps(64), LAPLACE, log_prob_by_steps=by_steps)
    assert asked == {LAPLACE.train.dtype}
    assert report.order == pytest.approx(order, abs=0.25)
    assert report.steps_enough == enough
    if mass_order is None:
        assert report.mass == pytest.approx(1, abs=1e-4)
        sentences(report)
    else:
        assert report.mass_order == pytest.approx(mass_order, abs=0.25)
        sentences(report, "The mass is 1.0", "No T brings")
        assert list(report.mass_by_steps) == [8, 16, 32, 64]
        assert report.mass_by_steps[64] == report.mass
    assert "order in T" in str(report)


def test_enough_steps_are_those_from_which_on_the_mass_is_right():
    """Where the steps fold the line there is no density."""
    falling = {T: 0.04 / T for T in (16, 32, 64)}
    by_steps = lambda errors: lambda T: lambda y: TRUE.log_prob(y) + math.log1p(error(errors, T))

    def error(errors, T):
        if T not in errors:
            raise ValueError("the steps fold the line")
        return errors[T]

    report = check(by_steps(falling)(64), GAUSSIAN, log_prob_by_steps=by_steps(falling))
    assert math.isnan(report.mass_by_steps[8])
    assert report.order == pytest.approx(1, abs=0.01)
    assert report.mass_order == pytest.approx(1, abs=0.01)
    assert report.steps_enough == 64
    again = by_steps({8: 0.0, 16: 0.01, 32: 0.0009, 64: 0.0})
    assert check(again(64), GAUSSIAN, log_prob_by_steps=again).steps_enough == 32


def test_what_is_no_log_density_is_refused():
    column = lambda y: TRUE.log_prob(y)[:, None]
    with pytest.raises(ValueError, match=r"shape \(16,\), not \(16, 1\)"):
        check(column, GAUSSIAN)
    with pytest.raises(ValueError, match=r"must be finite or -inf, not nan at y = "):
        check(lambda y: (y - y) / (y - y), GAUSSIAN)
