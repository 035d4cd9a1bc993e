import math

import pytest
import torch
from torch.distributions import Normal

from dlutils.comparison import compare, evaluate, slope
from dlutils.datasets import Dataset, make_dataset


@pytest.fixture
def gaussian():
    return make_dataset("gaussian")  # N(1, 0.5²)


def test_kl_between_two_gaussians_is_the_closed_form(gaussian):
    other = Normal(1.1, 0.6)
    result = compare(gaussian, other.log_prob)
    expected = math.log(0.6 / 0.5) + (0.25 + 0.01) / (2 * 0.36) - 0.5
    assert result.kl == pytest.approx(expected, abs=2e-5)
    assert result.mass == pytest.approx(1, abs=1e-3)


def test_mass_is_measured_and_divided_out(gaussian):
    truth = Normal(1.0, 0.5)
    result = compare(gaussian, lambda y: truth.log_prob(y) + math.log(1.01))
    assert result.mass == pytest.approx(1.01, abs=1e-5)
    assert result.kl == pytest.approx(-math.log(1.01), abs=1e-5)
    assert result.normalized_kl == pytest.approx(0, abs=1e-5)


def test_a_model_that_is_not_a_number_somewhere_is_refused(gaussian):
    with pytest.raises(ValueError, match=r"not finite at \d+ of 4001 grid points.*y = 2"):
        compare(gaussian, lambda y: torch.where(y > 2, torch.nan, 0.0))


@pytest.mark.parametrize("n_grid", [4000, 11, 301.0])
def test_grid_size_is_checked(gaussian, n_grid):
    with pytest.raises(ValueError, match="odd integer of at least 101"):
        compare(gaussian, Normal(0.0, 1.0).log_prob, n_grid)


def test_a_row_of_a_table_pairs_the_points(gaussian):
    row = evaluate(gaussian, Normal(1.1, 0.5).log_prob)
    difference = Normal(1.1, 0.5).log_prob(gaussian.test) - Normal(1.0, 0.5).log_prob(gaussian.test)
    mean, error = (float(v) for v in row["minus expected"].split(" ± "))
    assert mean == pytest.approx(difference.mean().item(), abs=1e-4)
    assert error == pytest.approx(0.1 / 0.5 / 100, abs=1e-4)  # sd of 0.4 (y - 1), n = 10 000
    assert row["KL"] == pytest.approx(0.02, abs=1e-5)
    own = Dataset.from_samples(torch.linspace(-2, 2, 50))
    assert list(evaluate(own, Normal(0.0, 1.0).log_prob)) == ["final log-likelihood", "mass"]


def test_slope_is_the_power(gaussian):
    assert slope([1, 10, 100], [5, 0.05, 0.0005]) == pytest.approx(-2)
    assert slope([1, 10], [0.0, 0.0]) == pytest.approx(0)
