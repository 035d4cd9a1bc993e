"""Coordinates for heavy tails: densities are pulled back exactly, and chosen for a reason."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Cauchy, LogNormal, Normal

from dlutils.data.datasets import DISTRIBUTIONS, make_dataset
from dlutils.data.units import Arsinh, Inside, Units
from dlutils.estimators import coordinates
from dlutils.estimators.coordinates import Gaussianized
from dlutils.estimators.yardsticks import Mixture, em_mixture
from dlutils.evaluation import compare
from dlutils.seeding import seeded

pytestmark = pytest.mark.usefixtures("float64")


def of_y(log_q, *bends):
    """The log-density of y, from that of its coordinate."""
    units = Units(bends=bends)
    return lambda y: log_q(units(y)) + units.log_slope(y)


def test_a_normal_in_arsinh_is_johnsons_density():
    """S_U with gamma = 0, delta = 1: SciPy's."""
    y = torch.tensor([-400.0, -1.0, 2.0, 5.0, 1e4])
    log_q = of_y(Normal(0.0, 1.0).log_prob, Arsinh(2.0, 3.0))
    exact = stats.johnsonsu(0, 1, loc=2, scale=3).logpdf(y.numpy())
    torch.testing.assert_close(log_q(y), torch.from_numpy(exact), rtol=1e-5, atol=1e-5)
    as_it_is = of_y(Normal(0.0, 1.0).log_prob)
    assert as_it_is(y[2]) == pytest.approx(-2 - math.log(2 * math.pi) / 2)


def test_a_bound_is_seen_from_as_near_as_double_precision_goes():
    y = torch.tensor([1e-300, 1e-60, 1e-20, 3.0])
    inside = Inside(0.0, math.inf)
    torch.testing.assert_close(inside(y), y.log())
    torch.testing.assert_close(inside.log_slope(y), -y.log())
    torch.testing.assert_close(inside.inverse(inside(y)), y, rtol=1e-12, atol=0)


def sample(distribution, n, seed=0):
    with seeded(seed):
        return distribution.sample((n,))


def test_what_reaches_far_is_seen_in_arsinh_and_evidence_decides_where_both_will_do():
    """An exponential of a normal reaches over few ranges; the comb's teeth would lose by arsinh."""
    for n in (100, 1000):
        y = make_dataset("gaussian", n, 2, 2).train
        assert coordinates.choose(y) == ()
        (chosen,) = coordinates.choose(torch.cat([y, y.mean() + 1000 * y.std()[None]]))
        assert isinstance(chosen, Arsinh)
        assert chosen.loc == pytest.approx(1.0, abs=0.2)
        assert chosen.scale == pytest.approx(0.6745 * 0.5, rel=0.2)
    y = sample(LogNormal(0.0, 1.0), 2000)
    assert y.max() - y.min() < coordinates.FAR * (y.quantile(0.75) - y.quantile(0.25))
    assert isinstance(*coordinates.choose(y), Arsinh)
    comb = make_dataset("marron_wand_14", 2000).train
    assert coordinates.choose(comb) == ()
    scores = [coordinates.evidence(comb, bends) for bends in ((), (Arsinh(0.0, 1.0),))]
    assert scores[0] > scores[1] + coordinates.STRONG
    assert coordinates.choose(torch.tensor([1.0] * 80 + [2.0] * 20)) == (), "no quartiles"


def test_evidence_is_in_the_units_of_the_data():
    """It falls by n log 2 where all is twice as wide, in either coordinate."""
    y = sample(Normal(0.0, 1.0), 400)
    for one, two in (((), ()), ((Arsinh(0.0, 1.0),), (Arsinh(0.0, 2.0),))):
        lower = coordinates.evidence(y, one) - coordinates.evidence(2 * y, two)
        assert lower == pytest.approx(400 * math.log(2), abs=1e-3)


def test_cauchys_density_is_found_in_arsinh(monkeypatch):
    """By EM, which alone needs a component for each distance."""
    monkeypatch.setitem(DISTRIBUTIONS, "cauchy", Cauchy(3.0, 2.0))
    data = make_dataset("cauchy", 1000)
    (arsinh,) = coordinates.choose(data.train)
    inside = em_mixture(arsinh(data.train))
    kl = compare(data, of_y(inside, arsinh)).normalized_kl
    assert 0 < kl < 0.02 < 0.05 < compare(data, em_mixture(data.train)).normalized_kl


MIXTURE = Mixture(*torch.tensor([[0.3, 0.7], [-1.0, 2.0], [0.1, 0.4]]).double())
THROUGH = {
    "arsinh": Arsinh(0.3, 0.5),
    "above": Inside(-2.0, math.inf),
    "below": Inside(-math.inf, 4.0),
    "between": Inside(-2.0, 4.0),
    "mixture": Gaussianized(MIXTURE),
    "two bends": Units(0.5, 2.0, (Inside(-2.0, math.inf), Arsinh(1.0, 0.5))),
}


@pytest.mark.parametrize("bend", THROUGH.values(), ids=THROUGH)
def test_a_coordinate_has_its_slope_and_its_inverse(bend):
    y, h = torch.linspace(-1.9, 3.9, 60).double(), 1e-6
    x = bend(y)
    assert (x.diff() > 0).all()
    torch.testing.assert_close(bend.inverse(x), y, rtol=1e-9, atol=1e-9)
    slope = (bend(y + h) - bend(y - h)) / (2 * h)
    torch.testing.assert_close(bend.log_slope(y), slope.log(), rtol=1e-4, atol=1e-4)


def test_a_mixture_is_one_gaussian_in_its_own_coordinate_far_out_too():
    """Up to seventy standard deviations out, where the distribution function is zero or one."""
    gaussianized = Gaussianized(MIXTURE)
    y = torch.tensor([-8.0, -1.0, 0.5, 2.0, 30.0]).double()
    x = gaussianized(y)
    assert x.isfinite().all()
    assert x[0] == pytest.approx(-25, abs=0.1)
    log_q = of_y(Normal(0.0, 1.0).log_prob, gaussianized)
    torch.testing.assert_close(log_q(y), MIXTURE(y), rtol=1e-9, atol=1e-6)


def test_beyond_a_bound_is_nothing():
    inside = Inside(0.0, 1.0)
    assert inside.log_slope(torch.tensor([-0.1, 1.1])).tolist() == [-math.inf, -math.inf]
    assert inside(torch.tensor([0.0, 1.0])).isfinite().all()
    assert inside.inverse(torch.tensor([-99.0, 99.0])).tolist() == pytest.approx([0.0, 1.0])


def test_units_go_through_the_bends_and_have_a_mean_slope():
    units = THROUGH["two bends"]
    y = torch.linspace(0.1, 9, 12).double()
    expected = (((y + 2).log() - 1) / 0.5).asinh().sub(0.5) / 2
    torch.testing.assert_close(units(y.view(3, 4)), expected.view(3, 4))
    torch.testing.assert_close(units.inverse(expected.view(3, 4)), y.view(3, 4))
    weights = torch.arange(12.0).double()
    mean = (weights @ units.log_slope(y) / weights.sum()).item()
    assert units.mean_log_slope(y, weights) == pytest.approx(mean)


def test_weighted_moments_are_those_of_repeated_points():
    y, w = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 1.0, 3.0])
    repeated = y.repeat_interleave(w.long()).double()
    units = Units.of(y, weights=w)
    assert units.loc == pytest.approx(repeated.mean().item())
    share = w / w.sum()
    unbiased = repeated.var(correction=0).item() / (1 - (share @ share).item())
    assert units.scale == pytest.approx(unbiased**0.5)


@pytest.mark.parametrize(
    ("change", "bounds", "kinds"),
    [
        (lambda y: y, None, []),
        (lambda y: y.sinh().sinh().div(200).exp(), (0.0, math.inf), [Inside, Arsinh]),
        (lambda y: y / 3 + 1000 * (torch.arange(400) % 2), None, [Gaussianized]),
    ],
)
def test_bends_are_chosen_from_the_sample(change, bounds, kinds):
    bends = coordinates.bends_for(change(torch.linspace(-3, 3, 400)), bounds)
    assert [type(bend) for bend in bends] == kinds
