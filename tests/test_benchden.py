"""The bounded densities of Berlinet & Devroye: densities, samples, support."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from dlutils import benchden
from dlutils.datasets import DISTRIBUTIONS, LEFT_OUT, density_of, make_dataset

NAMES = [name for name in DISTRIBUTIONS if name.startswith("benchden")]


def triangle_cdf(y):
    return np.where(y < 0, (1 + y) ** 2 / 2, 1 - (1 - y) ** 2 / 2)


def both(cdf):
    """The CDF of a symmetric density from that of |y|."""
    return lambda y: (1 + np.sign(y) * cdf(np.abs(y))) / 2


def uniforms(*parts):
    return lambda y: sum(w * stats.uniform(a, b - a).cdf(y) for w, a, b in parts)


def normals(*parts):
    return lambda y: sum(w * stats.norm(m, s).cdf(y) for w, m, s in parts)


def caliper(u):
    u = np.clip(u - 0.1, 0, 1)
    return 4 * (u - 0.75 * u ** (4 / 3))


def sawtooth(y):
    tooth = np.clip(np.floor((y + 10) / 2), 0, 9)
    return (tooth + triangle_cdf(np.clip(y + 9 - 2 * tooth, -1, 1))) / 10


CDF = {
    1: stats.uniform().cdf,
    2: stats.expon().cdf,
    3: stats.rayleigh().cdf,
    4: stats.laplace().cdf,
    5: stats.logistic().cdf,
    6: stats.cauchy().cdf,
    7: stats.gumbel_r().cdf,
    9: stats.pareto(0.5).cdf,
    10: both(stats.lomax(0.5).cdf),
    11: stats.norm().cdf,
    12: stats.lognorm(1).cdf,
    13: uniforms((0.5, -0.5, 0.5), (0.5, -5, 5)),
    16: triangle_cdf,
    17: stats.beta(2, 2).cdf,
    20: lambda y: np.exp(-(np.maximum(y, 1e-300) ** -0.5)),
    21: normals((1 / 3, -20, 0.25), (2 / 3, 0, 1)),
    22: normals((0.75, 0, 1), (0.25, 1.5, 1 / 3)),
    23: normals((0.5, 0, 1), *((0.1, k / 2 - 1, 0.1) for k in range(5))),
    24: normals(*((2 ** (5 - k) / 63, (65 - 96 * 2**-k) / 21, 32 / 63 * 2**-k) for k in range(6))),
    25: both(caliper),
    26: uniforms((0.5, -1, 1), (0.25, -20.1, -20), (0.25, 20, 20.1)),
    27: sawtooth,
}


def test_all_are_there_or_left_out():
    numbers = [int(name[-2:]) for name in NAMES]
    assert numbers == sorted(CDF)
    assert sorted([*numbers, *benchden.UNBOUNDED]) == list(range(1, 29))
    for name in LEFT_OUT:
        with pytest.raises(ValueError, match=rf"{name}, Berlinet & Devroye's .*: it is unbounded"):
            make_dataset(name)
    with pytest.raises(ValueError, match=r"benchden_01, \.\.\., benchden_27"):
        make_dataset("benchden_29")


@pytest.mark.parametrize("number", CDF)
def test_the_density_is_the_rate_of_the_cdf(number):
    """At a thousand places, by central differences, relative to the peak."""
    density = density_of(f"benchden_{number:02d}")[1]
    y = density.sample(1000).double().numpy()
    h = 1e-6 * np.maximum(np.abs(y), 1e-3)
    rate = (CDF[number](y + h) - CDF[number](y - h)) / (2 * h)
    p = density.log_prob(y).exp().numpy()
    away = np.abs(y[:, None] - density.ends[np.isfinite(density.ends)]).min(axis=1, initial=9) > h
    assert away.mean() > 0.99
    np.testing.assert_allclose(p[away], rate[away], rtol=1e-4, atol=1e-6 * p.max())


@pytest.mark.parametrize("number", CDF)
def test_the_samples_follow_the_cdf(number):
    """Kolmogorov and Smirnov's test, p above 0.001 in 22 of them."""
    data = make_dataset(f"benchden_{number:02d}", n_train=20_000, n_val=2, n_test=2, seed=7)
    assert stats.kstest(data.train.double().numpy(), CDF[number]).pvalue > 0.001 / len(CDF)


@pytest.mark.parametrize("number", CDF)
def test_support_and_entropy(number):
    data = make_dataset(f"benchden_{number:02d}", 2, 2, 2)
    low, high = data.support
    cdf = CDF[number]
    assert cdf(np.array(low)) <= 1.01e-6
    assert 1 - cdf(np.array(high)) <= 1.01e-6
    edges = np.unique(np.concatenate([[low], data.breakpoints, [high]]))
    edges = edges[(edges >= low) & (edges <= high)]

    def p_log_p(y):
        log_p = max(data.log_prob(y).item(), -700)
        return np.exp(log_p) * log_p

    entropy = sum(quad(p_log_p, a, b, epsabs=1e-9, limit=200)[0] for a, b in pairwise(edges))
    assert data.population_log_likelihood == pytest.approx(entropy, abs=1e-4)


@pytest.mark.parametrize(
    ("p", "place"),
    [
        (lambda y: 0.5 * y**-0.5, 0),
        (lambda y: 1 / (y * np.log(y) ** 2), 0),
        (lambda y: -np.log(y), 0),
        (stats.chi2(1).pdf, 0),
        (lambda y: stats.norm.pdf(y ** (1 / 3)) / (3 * y ** (2 / 3)), 0),
        (lambda y: -np.log(y * (1 - y)) / 2, 0),
    ],
    ids=list(benchden.UNBOUNDED.values()),
)
def test_those_left_out_grow_without_bound(p, place):
    values = p(place + 10.0 ** -np.arange(2, 300, 20))
    assert (np.diff(values) > 1).all()


def test_titles_are_the_authors_names():
    assert make_dataset("benchden_20", 2, 2, 2).title == "Inverse exponential"
    assert make_dataset("benchden_24", 2, 2, 2).title == "Smooth comb"
    assert torch.equal(
        make_dataset("benchden_23", 9, 2, 2).train, make_dataset("marron_wand_10", 9, 2, 2).train
    )
