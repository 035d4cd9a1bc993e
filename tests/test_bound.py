"""A bound beside a density: on models whose gaps are known in closed form."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from dlutils.data.datasets import Dataset, make_dataset
from dlutils.diffusion.bound import side_by_side, tightness
from dlutils.evaluation import through_nodes

pytestmark = pytest.mark.usefixtures("float64")


@dataclass
class Shifted:
    """N(1 + shift, 0.5^2) for data from N(1, 0.5^2), and a bound `below` under it."""

    shift: float = 0.1
    below: float = 0.25

    def log_likelihood(self, y: Tensor) -> Tensor:
        return Normal(1.0 + self.shift, 0.5).log_prob(y.double())

    def elbo(self, y: Tensor) -> Tensor:
        return self.log_likelihood(y) - self.below


def test_the_gap_is_the_sum_of_its_parts():
    found = tightness(make_dataset("gaussian", 20, 20, 500), Shifted())
    assert found.kl == pytest.approx(0.1**2 / (2 * 0.5**2), abs=1e-5)
    assert found.looseness == pytest.approx(0.25, abs=1e-5)
    assert found.gap == pytest.approx(found.kl + 0.25, abs=1e-5)
    assert found.final - found.final_bound == pytest.approx(0.25)
    assert f"expected     {found.final - found.expected:+.4f} ± " in str(found)
    assert "looseness               0.25000 nats" in str(found)
    assert "KL 0.0200 nats, gap of the bound 0.2700 nats" in found.words


def test_what_is_unknown_is_left_out():
    found = tightness(Dataset.from_samples(torch.linspace(0, 2, 200)), Shifted())
    assert math.isnan(found.gap)
    assert math.isnan(found.expected)
    assert "nan" not in str(found) + found.words
    assert "0.2500 nats below" in found.words


def test_differences_are_paired():
    dataset, one = make_dataset("gaussian", 20, 20, 500), Shifted()
    models = {"one": one.log_likelihood, "bound": one.elbo, "truth": Shifted(0.0).log_likelihood}
    fits, rows = side_by_side(dataset, models)
    assert list(fits) == ["one", "bound", "truth"]
    assert [row["minus one"] for row in rows[:2]] == ["–", "-0.2500 ± 0.0000"]
    assert rows[2]["minus expected"] in ("+0.0000 ± 0.0000", "-0.0000 ± 0.0000")
    assert [row["KL or gap"] for row in rows] == ["0.0200", "0.2700", "0.0000"]
    assert [row["mass"] for row in rows] == ["1.0000", "0.7788", "1.0000"]


def test_many_points_go_through_few_nodes():
    y, asked = torch.randn(5000), []

    def log_q(y):
        asked.append(len(y))
        return torch.sin(3 * y) - y**2 / 2

    assert torch.allclose(through_nodes(log_q, y), log_q(y), atol=1e-7)
    assert torch.equal(through_nodes(log_q, y[:2000]), log_q(y[:2000]))
    assert not torch.allclose(through_nodes(log_q, y, 11), log_q(y), atol=1e-2), "too few"
    assert asked[:3] == [1001, 5000, 2000]
