"""Any continuous distribution of torch, or a triple, is a target: against SciPy's own."""

import math

import pytest
import torch
from scipy import stats
from torch import distributions as d
from torch.distributions import transforms

from dlutils.data.datasets import DISTRIBUTIONS, density_of, make_dataset
from dlutils.data.densities import TAIL, Density, between


def mixture(family, weights, *parameters):
    parameters = (torch.tensor(values) for values in parameters)
    return d.MixtureSameFamily(d.Categorical(torch.tensor(weights)), family(*parameters))


def shifted(base, loc, scale):
    return d.TransformedDistribution(base, [transforms.AffineTransform(loc, scale)])


LOGISTIC = d.TransformedDistribution(d.Uniform(0.0, 1.0), [transforms.SigmoidTransform().inv])
TRIANGLE = (
    lambda y: (1 - y.abs()).log(),
    lambda n: torch.rand(2, n).diff(dim=0)[0],
    (-1, 0, 1),
)
KNOWN = {
    "beta with a jump": (d.Beta(1.0, 3.0), stats.beta(1, 3)),
    "gamma": (d.Gamma(2.0, 1.0), stats.gamma(2)),
    "half-cauchy": (d.HalfCauchy(1.0), stats.halfcauchy()),
    "pareto without a mean": (d.Pareto(1.0, 0.5), stats.pareto(0.5)),
    "student t, heavy": (d.StudentT(1.5), stats.t(1.5)),
    "shifted log-normal": (shifted(d.LogNormal(0.0, 1.0), -3.0, 2.0), stats.lognorm(1, -3, 2)),
    "logistic": (LOGISTIC, stats.logistic()),
    "triangle": (TRIANGLE, stats.triang(0.5, -1, 2)),
    "a far one": (d.Normal(1e4, 10.0), stats.norm(1e4, 10)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_density_is_scipys(name):
    source, exact = KNOWN[name]
    density = Density(source, name)
    low, high = density.support
    assert exact.cdf(low) == pytest.approx(0 if low <= exact.support()[0] else TAIL, rel=1e-3)
    assert exact.sf(high) == pytest.approx(0 if high >= exact.support()[1] else TAIL, rel=1e-3)
    y = torch.linspace(low, high, 999, dtype=torch.float64)
    assert torch.allclose(density.log_prob(y).exp(), torch.from_numpy(exact.pdf(y)), rtol=1e-5)
    assert density.population_log_likelihood == pytest.approx(-exact.entropy(), abs=1e-6)
    sample = density.sample(20_000)
    assert sample.dtype == torch.float64
    assert density.log_prob(sample).isfinite().all()
    assert stats.kstest(sample.numpy(), exact.cdf).pvalue > 1e-6


MIXTURES = {
    "gammas": mixture(d.Gamma, [0.3, 0.7], [2.0, 9.0], [1.0, 0.5]),
    "uniforms apart": mixture(d.Uniform, [0.3, 0.7], [0.0, 2.0], [1.0, 2.5]),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_the_expected_and_the_population_value_of_a_mixture_agree(name, monkeypatch):
    monkeypatch.setitem(DISTRIBUTIONS, name, MIXTURES[name])
    data = make_dataset(name)
    z = (data.expected_log_likelihood - data.population_log_likelihood) / data.standard_error
    assert abs(z) < stats.norm.isf(1e-6 / 2)


def test_ends_of_the_range_have_a_margin_where_the_density_reaches_them():
    quantile = stats.expon.isf(TAIL)
    assert Density(d.Exponential(1.0)).support == pytest.approx((-0.1 * quantile, quantile))
    assert Density(d.Uniform(2.0, 3.0)).support == pytest.approx((1.9, 3.1))
    assert Density(d.Gamma(3.0, 1.0)).support[0] == pytest.approx(stats.gamma(3).ppf(TAIL))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_sample_is_rounded_over_a_jump(monkeypatch, dtype):
    density = Density(mixture(d.Uniform, [0.5, 0.5], [-20.1, 20.0], [-20.0, 20.1]))
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


@pytest.mark.parametrize("entry", [("Gumbel", lambda: GUMBEL), ("Gumbel", GUMBEL), GUMBEL])
def test_forms_of_an_entry(entry, monkeypatch):
    monkeypatch.setitem(DISTRIBUTIONS, "new", entry)
    description, density = density_of("new")
    assert description == ("Gumbel: loc 0.5, scale 2" if entry is GUMBEL else "Gumbel")
    assert density.population_log_likelihood == pytest.approx(
        -stats.gumbel_r(0.5, 2).entropy(), abs=1e-6
    )
    assert density_of("new")[1] is density, "made once"


def test_an_entry_that_is_replaced_is_made_anew(monkeypatch):
    monkeypatch.setitem(DISTRIBUTIONS, "changing", d.Normal(0.0, 1.0))
    assert make_dataset("changing").support[1] < 6
    monkeypatch.setitem(DISTRIBUTIONS, "changing", d.Normal(9.0, 1.0))
    assert make_dataset("changing").support[0] > 3
    monkeypatch.setitem(DISTRIBUTIONS, "two_words", TRIANGLE)
    assert make_dataset("two_words").description == "two words"


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
        (d.VonMises(0.0, 1.0), "integrates to .*, not to 1"),
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
