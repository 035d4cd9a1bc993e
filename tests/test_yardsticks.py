"""The yardsticks are what they say, and differences are taken point by point."""

import math

import pytest
import torch
from torch.distributions import Normal

from dlutils import yardsticks
from dlutils.comparison import compare
from dlutils.datasets import make_dataset


def test_one_gaussian_has_the_moments_of_the_sample():
    y = torch.tensor([1.0, 2.0, 6.0])
    points = torch.linspace(-3, 9, 5)
    expected = Normal(3.0, math.sqrt(7)).log_prob(points)
    assert torch.allclose(yardsticks.gaussian(y)(points), expected)


def test_a_mixture_finds_two_peaks_where_one_gaussian_and_a_wide_kernel_fail():
    dataset = make_dataset("marron_wand_07")
    kl = {
        name: compare(dataset, log_density).normalized_kl
        for name, log_density in yardsticks.fit_all(dataset.train).items()
    }
    assert (
        kl["EM mixture (BIC)"] < 0.002 < 0.005 < kl["KDE (Scott)"] < 0.02 < 0.1 < kl["one Gaussian"]
    )


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_a_mixture_does_not_depend_on_the_unit(unit):
    y = make_dataset("marron_wand_07", n_train=500).train.double()
    one = yardsticks.em_mixture(y)(y)
    assert torch.allclose(
        yardsticks.em_mixture(unit * y)(unit * y) + math.log(unit), one, atol=1e-3
    )


def test_a_kernel_estimate_that_underflows_has_a_finite_logarithm():
    far = yardsticks.kde(torch.tensor([0.0, 1.0, 2.0]))(torch.tensor([1e4]))
    assert far.isfinite().all()


def test_a_mixture_has_no_more_components_than_there_are_values():
    log_density = yardsticks.em_mixture(torch.tensor([0.0, 0.0, 1.0, 1.0, 3.0]))
    assert log_density(torch.tensor([0.5])).isfinite().all()


def test_held_out_differences_are_paired():
    y = torch.tensor([0.0, 1.0, 2.0, 3.0])
    rows = yardsticks.held_out({"a": lambda y: y, "b": lambda y: y - 0.5}, y)
    assert rows[0] == {"model": "a", "log-likelihood": "1.5000 ± 0.6455", "a minus it": "–"}
    assert rows[1]["log-likelihood"] == "1.0000 ± 0.6455"
    assert rows[1]["a minus it"] == "0.5000 ± 0.0000"


@pytest.mark.parametrize(("models", "n"), [({}, 5), ({"a": lambda y: y}, 1)])
def test_held_out_needs_a_model_and_points(models, n):
    with pytest.raises(ValueError, match="at least 1 and 2 are needed; a larger sample"):
        yardsticks.held_out(models, torch.zeros(n))
