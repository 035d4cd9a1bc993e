"""Coordinates for heavy tails: densities are pulled back exactly, and chosen for a reason."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Cauchy, Normal

from dlutils import coordinates
from dlutils.comparison import compare
from dlutils.coordinates import Arsinh, Identity
from dlutils.datasets import DISTRIBUTIONS, Dataset, make_dataset
from dlutils.seeding import seeded
from dlutils.yardsticks import em_mixture


def test_a_normal_in_arsinh_is_johnsons_density():
    """S_U with gamma = 0, delta = 1: SciPy's."""
    y = torch.tensor([-400.0, -1.0, 2.0, 5.0, 1e4])
    log_q = coordinates.pulled_back(Normal(0.0, 1.0).log_prob, Arsinh(2.0, 3.0))
    exact = stats.johnsonsu(0, 1, loc=2, scale=3).logpdf(y.numpy())
    torch.testing.assert_close(log_q(y), torch.from_numpy(exact), rtol=1e-5, atol=1e-5)
    assert coordinates.pulled_back(Normal(0.0, 1.0).log_prob, Identity())(y[2]) == pytest.approx(
        -2 - math.log(2 * math.pi) / 2
    )


def test_points_and_support_are_mapped():
    data = make_dataset("laplace", 50, 20, 20)
    assert coordinates.mapped(data, Identity()) is data
    arsinh = Arsinh(1.0, 2.0)
    seen = coordinates.mapped(data, arsinh)
    torch.testing.assert_close(2 * seen.train.sinh() + 1, data.train)
    assert seen.support[1] == pytest.approx(math.asinh((data.support[1] - 1) / 2))
    assert not seen.is_known
    assert len(seen.val) == len(seen.test) == 20


def sample(distribution, n, seed=0):
    with seeded(seed):
        return distribution.sample((n,))


@pytest.mark.parametrize("n", [100, 1000, 10_000])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_reaches_far_is_seen_in_arsinh(n, seed):
    y = make_dataset("gaussian", n, 2, 2, seed).train
    assert coordinates.choose(y) == Identity()
    far = torch.cat([y, y.mean() + 1000 * y.std()[None]])
    chosen = coordinates.choose(far)
    assert isinstance(chosen, Arsinh)
    assert chosen.loc == pytest.approx(1.0, abs=0.2)
    assert chosen.scale == pytest.approx(0.6745 * 0.5, rel=0.2)


def test_evidence_decides_where_both_will_do():
    """An exponential of a normal reaches over few ranges; the comb's teeth would lose by arsinh."""
    y = sample(torch.distributions.LogNormal(0.0, 1.0), 10_000)
    assert y.max() - y.min() < coordinates.FAR * torch.tensor([y.quantile(0.75) - y.quantile(0.25)])
    assert isinstance(coordinates.choose(y), Arsinh)
    comb = make_dataset("marron_wand_14").train
    assert coordinates.choose(comb) == Identity()
    scores = [coordinates.evidence(comb, c) for c in (Identity(), Arsinh(0.0, 1.0))]
    assert scores[0] > scores[1] + 10


def test_evidence_is_in_the_units_of_the_data():
    """It falls by n log 2 where all is twice as wide, in either coordinate."""
    y = sample(Normal(0.0, 1.0), 400)
    for one, two in ((Identity(), Identity()), (Arsinh(0.0, 1.0), Arsinh(0.0, 2.0))):
        lower = coordinates.evidence(y, one) - coordinates.evidence(2 * y, two)
        assert lower == pytest.approx(400 * math.log(2), abs=1e-3)


def test_ties_have_the_coordinate_that_they_can():
    assert coordinates.choose(torch.tensor([1.0] * 80 + [2.0] * 20)) == Identity()


def test_cauchys_density_is_found_in_arsinh(monkeypatch):
    """By EM, which alone needs a component for each distance."""
    monkeypatch.setitem(DISTRIBUTIONS, "cauchy", Cauchy(3.0, 2.0))
    data = make_dataset("cauchy", 1000)
    arsinh = coordinates.choose(data.train)
    inside = em_mixture(coordinates.mapped(data, arsinh).train)
    kl = compare(data, coordinates.pulled_back(inside, arsinh)).normalized_kl
    assert 0 < kl < 0.02 < 0.05 < compare(data, em_mixture(data.train)).normalized_kl


def test_a_sample_of_ones_own_is_mapped_too():
    own = Dataset.from_samples(sample(Cauchy(0.0, 1.0), 300))
    assert coordinates.mapped(own, coordinates.choose(own.train)).train.abs().max() < 12
