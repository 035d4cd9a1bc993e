"""Densities are SciPy's: those of the collections, any of torch's, a triple of one's own."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as d
from torch.distributions import transforms

from dlutils.data.benchden import LEFT_OUT
from dlutils.data.datasets import DISTRIBUTIONS, check_name, density_of, make_dataset
from dlutils.data.densities import TAIL, Density, between
from dlutils.data.marron_wand import marron_wand
from dlutils.seeding import seeded

FALSE_ALARM = 1e-6  # probability that right samplers, all together, fail


class Mixture:
    """Of SciPy's distributions."""

    def __init__(self, weights, *parts):
        self.weights, self.parts = weights, parts

    def pdf(self, y):
        return sum(w * part.pdf(y) for w, part in zip(self.weights, self.parts, strict=True))

    def cdf(self, y):
        return sum(w * part.cdf(y) for w, part in zip(self.weights, self.parts, strict=True))


class RandomSign:
    """Of |y|, whose distribution function is given, and its derivative."""

    def __init__(self, pdf, cdf):
        self.half = pdf, cdf

    def pdf(self, y):
        return self.half[0](np.abs(y)) / 2

    def cdf(self, y):
        return 0.5 + np.sign(y) * self.half[1](np.abs(y)) / 2


def normals(weights, means, sds):
    return Mixture(weights, *map(stats.norm, means, sds))


def components(number):
    """Weights, means and standard deviations of one of Marron & Wand's."""
    parts = marron_wand()[f"marron_wand_{number:02d}"][1]()
    component = parts.component_distribution
    return [v.numpy() for v in (parts.mixture_distribution.probs, component.loc, component.scale)]


def root(y):
    return np.clip(y - 0.1, 0, 1) ** (1 / 3)


PARETO, BETA = stats.pareto(0.5, -1), stats.beta(3, 2)
CALIPER = RandomSign(  # the cube of a beta
    lambda y: np.divide(BETA.pdf(root(y)), 3 * root(y) ** 2, where=root(y) > 0, out=0 * y),
    lambda y: BETA.cdf(root(y)),
)
TEETH = np.array([32, 16, 8, 4, 2, 1]) / 63
CLAW = [0.5] + [0.1] * 5, [0, -1, -0.5, 0, 0.5, 1], [1] + [0.1] * 5
uniform = lambda low, high: stats.uniform(low, high - low)
triangle = lambda low: stats.triang(0.5, low, 2)

# SciPy's distribution, and the integral of p log p (None: by its entropy or the trapezoidal rule).
EXACT = {
    "gaussian": (stats.norm(1, 0.5), None),
    "laplace": (stats.laplace(), None),
    "gaussian_mixture": (normals([0.3, 0.7], [-2, 1], [0.5, 0.8]), None),
    "laplace_mixture": (
        Mixture([0.5] * 2, stats.laplace(-1.5, 0.5), stats.laplace(1.5, 0.5)),
        None,
    ),
    "student_t": (stats.t(5), None),
    "uniform": (uniform(-1, 1), None),
    **{f"marron_wand_{k:02d}": (normals(*components(k)), None) for k in range(1, 16)},
    "benchden_01": (uniform(0, 1), 0),
    "benchden_02": (stats.expon(), -1),
    "benchden_03": (stats.rayleigh(), np.log(2) / 2 - 1 - np.euler_gamma / 2),
    "benchden_04": (stats.laplace(), -1 - np.log(2)),
    "benchden_05": (stats.logistic(), -2),
    "benchden_06": (stats.cauchy(), -np.log(4 * np.pi)),
    "benchden_07": (stats.gumbel_r(), -1 - np.euler_gamma),
    "benchden_09": (stats.pareto(0.5), -3 - np.log(2)),
    "benchden_10": (RandomSign(PARETO.pdf, PARETO.cdf), -3 - np.log(4)),
    "benchden_11": (stats.norm(), -np.log(2 * np.pi * np.e) / 2),
    "benchden_12": (stats.lognorm(1), -np.log(2 * np.pi * np.e) / 2),
    "benchden_13": (
        Mixture([0.5, 0.5], uniform(-0.5, 0.5), uniform(-5, 5)),
        0.55 * np.log(0.55) + 0.45 * np.log(0.05),
    ),
    "benchden_16": (triangle(-1), -1 / 2),
    "benchden_17": (stats.beta(2, 2), np.log(6) - 5 / 3),
    "benchden_20": (stats.invweibull(0.5), -1 - 3 * np.euler_gamma - np.log(2)),
    "benchden_21": (normals([1 / 3, 2 / 3], [-20, 0], [1 / 4, 1]), None),
    "benchden_22": (normals([3 / 4, 1 / 4], [0, 3 / 2], [1, 1 / 3]), None),
    "benchden_23": (normals(*CLAW), None),
    "benchden_24": (normals(TEETH, np.array([-31, 17, 41, 53, 59, 62]) / 21, TEETH), None),
    "benchden_25": (CALIPER, np.log(2) - 13 / 12),
    "benchden_26": (
        Mixture([0.5, 0.25, 0.25], uniform(-1, 1), uniform(20, 20.1), uniform(-20.1, -20)),
        np.log(0.25 * 2.5) / 2,
    ),
    "benchden_27": (Mixture([0.1] * 10, *map(triangle, range(-10, 10, 2))), -1 / 2 - np.log(10)),
}


def shifted(base, loc, scale):
    return d.TransformedDistribution(base, [transforms.AffineTransform(loc, scale)])


def mixture(family, *parameters):
    weights, *parameters = (torch.tensor(v) for v in ([0.25, 0.75], *parameters))
    return d.MixtureSameFamily(d.Categorical(weights), family(*parameters))


TRIANGLE = lambda y: (1 - y.abs()).log(), lambda n: torch.rand(2, n).diff(dim=0)[0], (-1, 0, 1)
LOGISTIC = d.TransformedDistribution(d.Uniform(0.0, 1.0), [transforms.SigmoidTransform().inv])
GAMMAS = Mixture([0.25, 0.75], stats.gamma(2), stats.gamma(9, scale=2))
OWN = {  # what a user may add to the table
    "beta with a jump": (d.Beta(1.0, 3.0), stats.beta(1, 3)),
    "gamma": (d.Gamma(2.0, 1.0), stats.gamma(2)),
    "shifted log-normal": (shifted(d.LogNormal(0.0, 1.0), -3.0, 2.0), stats.lognorm(1, -3, 2)),
    "logistic": (LOGISTIC, stats.logistic()),
    "a far one": (d.Normal(1e4, 10.0), stats.norm(1e4, 10)),
    "gammas": (mixture(d.Gamma, [2.0, 9.0], [1.0, 0.5]), GAMMAS),
}
ROUNDED = {"gammas": (1e-7, 1e-8), "marron_wand_11": (1e-9, 1e-10)}  # weights; a quadrature


@pytest.mark.parametrize("name", [*EXACT, *OWN])
def test_a_density_is_scipys(name):
    """Point by point, each piece between breakpoints, the support, p log p, and the samples."""
    if name in OWN:
        source, exact = OWN[name]
        p, population = Density(source, name), None
    else:
        (_, p), (exact, population) = density_of(name), EXACT[name]
    y = np.concatenate([np.linspace(-25, 25, 5000), p._quantiles])  # none at a jump
    rtol, atol = ROUNDED.get(name, (1e-9, 1e-11))
    np.testing.assert_allclose(p.log_prob(y).exp(), exact.pdf(y), rtol=rtol, atol=1e-14)
    with np.errstate(over="ignore"):  # SciPy's Gumbel, far out
        expected = np.diff(exact.cdf(p.breakpoints))
    np.testing.assert_allclose(p._mass, expected, rtol=0, atol=atol)
    low, high = exact.cdf(np.array(p.support))
    assert low == pytest.approx(TAIL, rel=1e-3) or low == 0
    assert 1 - high == pytest.approx(TAIL, rel=1e-3) or high == 1
    if population is None and hasattr(exact, "entropy"):
        population = -exact.entropy()
    elif population is None:
        y = np.linspace(-40, 80, 600_001)
        log_p = np.log(exact.pdf(y) + 1e-300)
        population = np.trapezoid(np.exp(log_p) * log_p, y)
    assert p.population_log_likelihood == pytest.approx(population, abs=1e-6)
    with seeded(0, dtype=torch.float64):
        sample = p.sample(50_000)
    assert sample.dtype == torch.float64
    assert p.log_prob(sample).isfinite().all()
    tests = len(EXACT) + len(OWN)
    assert stats.kstest(sample.numpy(), exact.cdf).pvalue > FALSE_ALARM / tests  # Bonferroni


def test_kolmogorov_smirnov_would_notice_another_density():
    y = make_dataset("gaussian").train.numpy()
    assert stats.kstest(y, stats.norm(1.05, 0.5).cdf).pvalue < FALSE_ALARM


@pytest.mark.parametrize(("number", "first"), [(14, -31 / 21 - 3 * 32 / 63), (15, -3)])
def test_marron_wand_combs_tile_the_interval(number, first):
    """The teeth have weight proportional to width, and together cover [-3, 3] at three sds."""
    weights, locs, scales = components(number)
    assert np.ptp(weights / scales) < 1e-12
    assert locs[0] - 3 * scales[0] == pytest.approx(first)
    assert np.allclose(locs[1:3] - 3 * scales[1:3], locs[:2] + 3 * scales[:2])


def test_marron_wand_claws():
    weights, _, scales = components(12)
    assert np.allclose(weights[1:] / scales[1:], weights[1] / scales[1])
    assert weights[1:].sum() == pytest.approx(0.5)
    assert np.allclose(components(11)[1], [-1, 1, -1.5, -1, -0.5, 0, 0.5, 1, 1.5])
    assert np.allclose(components(13)[2], [2 / 3] * 2 + [0.01] * 3 + [0.07] * 3)
    assert np.allclose(components(3)[1], 3 * (components(3)[2] - 1))
    for found, exact in zip(components(10), CLAW, strict=True):
        assert np.allclose(found, exact)
    for found, exact in zip(components(4), ([2 / 3, 1 / 3], [0, 0], [1, 0.1]), strict=True):
        assert np.allclose(found, exact)


def test_ends_of_the_range_have_a_margin_where_the_density_reaches_them():
    quantile = stats.expon.isf(TAIL)
    assert Density(d.Exponential(1.0)).support == pytest.approx((-0.1 * quantile, quantile))
    assert Density(d.Uniform(2.0, 3.0)).support == pytest.approx((1.9, 3.1))
    assert Density(d.Gamma(3.0, 1.0)).support[0] == pytest.approx(stats.gamma(3).ppf(TAIL))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_sample_is_rounded_over_a_jump(monkeypatch, dtype):
    density = Density(mixture(d.Uniform, [-20.1, 20.0], [-20.0, 20.1]))
    near = torch.tensor([-20 - 1e-9, 20 + 1e-9, 20.1 - 1e-9, 20.05], dtype=torch.float64)
    assert density.log_prob(near.float())[0] == -math.inf
    rounded = between(near, density.ends, dtype)
    assert rounded.dtype == dtype
    assert density.log_prob(rounded).isfinite().all()
    assert rounded[3] == near[3].to(dtype)
    on = torch.tensor([-20.0, 20.0, 20.05], dtype=torch.float64)
    monkeypatch.setattr(density, "_sample", lambda n: on[:n])
    assert not torch.isin(density.sample(3), torch.from_numpy(density.ends)).any()
    assert density.sample(3)[2] == on[2]


def test_samples_of_a_triple_are_double_precision_whatever_the_default(monkeypatch):
    monkeypatch.setitem(DISTRIBUTIONS, "single", normal())
    draws = make_dataset("single", 1000, 2, 2).train
    assert (draws.float() != draws).double().mean() > 0.9, "none comes from single precision"
    torch.set_default_dtype(torch.float64)
    assert torch.equal(draws, make_dataset("single", 1000, 2, 2).train)


GUMBEL = d.Gumbel(0.5, 2.0)


@pytest.mark.parametrize(
    ("entry", "description"),
    [
        (("Gumbel's", lambda: GUMBEL), "Gumbel's"),
        (("Gumbel's", GUMBEL), "Gumbel's"),
        (GUMBEL, "Gumbel: loc 0.5, scale 2"),
        (TRIANGLE, "two words"),
    ],
)
def test_forms_of_an_entry(entry, description, monkeypatch):
    monkeypatch.setitem(DISTRIBUTIONS, "two_words", d.Normal(9.0, 1.0))
    assert make_dataset("two_words").support[0] > 3
    monkeypatch.setitem(DISTRIBUTIONS, "two_words", entry)
    found, density = density_of("two_words")
    assert found == description
    assert density.support[0] < 3, "made anew"
    assert density_of("two_words")[1] is density, "made once"


def normal(**changes):
    parts = {
        "log_prob": d.Normal(0.0, 1.0).log_prob,
        "sample": lambda n: torch.randn(n),
        "support": (-math.inf, math.inf),
    } | changes
    return tuple(parts.values())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (d.Poisson(2.0), "is discrete"),
        (d.Normal(torch.zeros(1), torch.ones(1)), r"of one number, not of shape \(1,\)"),
        (d.Beta(0.5, 2.0), "mine grows without bound towards 0"),
        (d.Beta(2.0, 0.9), "mine grows without bound towards 1"),
        (d.Gamma(0.97, 2.0), "grows without bound"),
        (d.VonMises(0.0, 1.0), "mine is a density on the circle, not on the line"),
        (
            d.MixtureSameFamily(d.Categorical(torch.ones(2)), d.VonMises(torch.zeros(2), 1.0)),
            "on the circle, .* the triple .* is on the line",
        ),
        (normal()[:2], "mine must be a distribution of torch.distributions or a triple"),
        (normal(log_prob=lambda y: -(y**2)), "integrates to 1.77.*, not to 1: log_prob must be"),
        (normal(log_prob=lambda y: -y[:, None]), r"shape \(4096,\), not \(4096, 1\)"),
        (normal(sample=lambda n: 1.3 * torch.randn(n)), "samples of mine do not follow"),
        (normal(sample=lambda n: torch.randn(n, 1)), r"n finite numbers, shape \(n,\), not shape"),
        (
            normal(sample=lambda n: torch.from_numpy(stats.norm.rvs(size=n))),
            "must draw from torch's random numbers",
        ),
        (normal(support=(0, math.inf)), "which is outside its support 0 to inf"),
        (normal(support=(1, 0)), "must increase"),
    ],
)
def test_what_is_no_target_is_named(source, message):
    with pytest.raises(ValueError, match=message):
        Density(source, "mine")


UNIFORM = lambda n: torch.rand(n, dtype=torch.float64)
UNBOUNDED = {  # between its two ends, and at one of them but slowly
    14: (
        lambda y: -(y.abs() * y.abs().log() ** 2).log(),
        lambda n: (UNIFORM(n) - 0.5).sign() * (-2 / UNIFORM(n)).exp(),
        (-np.exp(-2), 0, np.exp(-2)),
    ),
    15: (lambda y: (-y.log()).log(), lambda n: UNIFORM(n) * UNIFORM(n), (0, 1)),
}


@pytest.mark.parametrize("number", UNBOUNDED)
def test_those_left_out_are_unbounded_and_the_error_says_so(number):
    with pytest.raises(ValueError, match="grows without bound towards 0"):
        Density(UNBOUNDED[number])
    name = f"benchden_{number:02d}"
    for use in (make_dataset, check_name):
        with pytest.raises(ValueError, match=rf"'{name}' is left out: .* without bound"):
            use(name)


def test_samples_that_are_rounded_are_named():
    """Single precision has a thousand numbers a unit at 10 000."""
    far = d.Normal(*torch.tensor([1e4, 0.01], dtype=torch.float64))
    in_single = lambda n: (1e4 + 0.01 * torch.randn(n)).float()
    with pytest.raises(ValueError, match=r"must have no values several times.*only \d+ are diff"):
        Density((far.log_prob, in_single, (-math.inf, math.inf)), "far")
    Density((far.log_prob, lambda n: 1e4 + 0.01 * torch.randn(n), (-math.inf, math.inf)), "far")


def test_there_are_28_of_berlinet_and_devroye():
    names = [name for name in DISTRIBUTIONS if name.startswith("benchden")]
    assert sorted([*names, *LEFT_OUT]) == [f"benchden_{k:02d}" for k in range(1, 29)]
    with pytest.raises(ValueError, match=r"marron_wand_15, benchden_01 \.\.\. benchden_27$"):
        make_dataset("benchden_29")
    data = make_dataset("benchden_13", 2, 2, 2)
    assert data.title == "Uniform scale mixture"
    about = "Berlinet & Devroye (1994) number 13, uniform scale mixture: 0.5 U(-0.5, 0.5) + 0.5"
    assert data.description.startswith(about)
