"""The densities of Berlinet & Devroye against SciPy's, piece by piece, and the six left out."""

import numpy as np
import pytest
import torch
from scipy import stats

from dlutils.data.benchden import LEFT_OUT
from dlutils.data.datasets import DISTRIBUTIONS, check_name, density_of, make_dataset
from dlutils.data.densities import TAIL, Density

FALSE_ALARM = 1e-6  # probability that right samplers, all together, fail


class Mixture:
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


def root(y):
    return np.clip(y - 0.1, 0, 1) ** (1 / 3)


PARETO, BETA = stats.pareto(0.5, -1), stats.beta(3, 2)
CALIPER = RandomSign(  # the cube of a beta
    lambda y: np.divide(BETA.pdf(root(y)), 3 * root(y) ** 2, where=root(y) > 0, out=0 * y),
    lambda y: BETA.cdf(root(y)),
)
TEETH = (32, 16, 8, 4, 2, 1)
GAMMA = np.euler_gamma

# Number: name, SciPy's distribution, the integral of p log p (None: by the trapezoidal rule).
EXACT = {
    1: ("uniform", stats.uniform(0, 1), 0),
    2: ("exponential", stats.expon(), -1),
    3: ("Maxwell", stats.rayleigh(), np.log(2) / 2 - 1 - GAMMA / 2),
    4: ("double exponential", stats.laplace(), -1 - np.log(2)),
    5: ("logistic", stats.logistic(), -2),
    6: ("Cauchy", stats.cauchy(), -np.log(4 * np.pi)),
    7: ("extreme value", stats.gumbel_r(), -1 - GAMMA),
    9: ("Pareto", stats.pareto(0.5), -3 - np.log(2)),
    10: ("symmetric Pareto", RandomSign(PARETO.pdf, PARETO.cdf), -3 - np.log(4)),
    11: ("normal", stats.norm(), -np.log(2 * np.pi * np.e) / 2),
    12: ("log-normal", stats.lognorm(1), -np.log(2 * np.pi * np.e) / 2),
    13: (
        "uniform scale mixture",
        Mixture([0.5, 0.5], stats.uniform(-0.5, 1), stats.uniform(-5, 10)),
        0.55 * np.log(0.55) + 0.45 * np.log(0.05),
    ),
    16: ("isosceles triangle", stats.triang(0.5, -1, 2), -1 / 2),
    17: ("beta 2,2", stats.beta(2, 2), np.log(6) - 5 / 3),
    20: ("inverse exponential", stats.invweibull(0.5), -1 - 3 * GAMMA - np.log(2)),
    21: ("Marronite", normals([1 / 3, 2 / 3], [-20, 0], [1 / 4, 1]), None),
    22: ("skewed bimodal", normals([3 / 4, 1 / 4], [0, 3 / 2], [1, 1 / 3]), None),
    23: ("claw", normals([0.5] + [0.1] * 5, [0, -1, -0.5, 0, 0.5, 1], [1] + [0.1] * 5), None),
    24: (
        "smooth comb",
        normals(
            [k / 63 for k in TEETH],
            [m / 21 for m in (-31, 17, 41, 53, 59, 62)],
            [k / 63 for k in TEETH],
        ),
        None,
    ),
    25: ("caliper", CALIPER, np.log(2) - 13 / 12),
    26: (
        "trimodal uniform",
        Mixture(
            [0.5, 0.25, 0.25],
            stats.uniform(-1, 2),
            stats.uniform(20, 0.1),
            stats.uniform(-20.1, 0.1),
        ),
        np.log(0.25 * 2.5) / 2,
    ),
    27: (
        "sawtooth",
        Mixture([0.1] * 10, *(stats.triang(0.5, 2 * k - 10, 2) for k in range(10))),
        -1 / 2 - np.log(10),
    ),
}


def density(number):
    return density_of(f"benchden_{number:02d}")[1]


@pytest.mark.parametrize("number", EXACT)
def test_a_density_is_scipys(number):
    """Point by point, each piece between breakpoints, the support, and the integral of p log p."""
    p, (_, exact, population) = density(number), EXACT[number]
    y = np.concatenate([np.linspace(-25, 25, 5000), p._quantiles])  # none at a jump
    np.testing.assert_allclose(p.log_prob(y).exp(), exact.pdf(y), rtol=1e-9, atol=1e-14)
    with np.errstate(over="ignore"):  # SciPy's Gumbel, far out
        expected = np.diff(exact.cdf(p.breakpoints))
    np.testing.assert_allclose(p._mass, expected, rtol=0, atol=1e-11)
    low, high = exact.cdf(np.array(p.support))
    assert low == pytest.approx(TAIL, rel=1e-3) or low == 0
    assert 1 - high == pytest.approx(TAIL, rel=1e-3) or high == 1
    if population is None:
        y = np.linspace(-40, 40, 400_001)
        log_p = np.log(exact.pdf(y) + 1e-300)
        population = np.trapezoid(np.exp(log_p) * log_p, y)
    assert p.population_log_likelihood == pytest.approx(population, abs=1e-6)


@pytest.mark.parametrize("number", EXACT)
def test_samples_follow_the_density(number):
    name, exact, _ = EXACT[number]
    dataset = make_dataset(f"benchden_{number:02d}", n_train=50_000)
    y = dataset.train
    assert dataset.log_prob(y).isfinite().all()
    assert stats.kstest(y.numpy(), exact.cdf).pvalue > FALSE_ALARM / len(EXACT)  # Bonferroni
    assert dataset.title == name[:1].upper() + name[1:]
    assert dataset.description.startswith(f"Berlinet & Devroye (1994) number {number}, {name}: ")


def uniform(n):
    return torch.rand(n, dtype=torch.float64)


UNBOUNDED = {  # between its two ends, and at one of them but slowly
    14: (
        lambda y: -(y.abs() * y.abs().log() ** 2).log(),
        lambda n: (uniform(n) - 0.5).sign() * (-2 / uniform(n)).exp(),
        (-np.exp(-2), 0, np.exp(-2)),
    ),
    15: (lambda y: (-y.log()).log(), lambda n: uniform(n) * uniform(n), (0, 1)),
}


@pytest.mark.parametrize("number", UNBOUNDED)
def test_those_left_out_are_unbounded_and_the_error_says_so(number):
    log_prob, sample, support = UNBOUNDED[number]
    with pytest.raises(ValueError, match="grows without bound towards 0"):
        Density((log_prob, sample, support))
    name = f"benchden_{number:02d}"
    why = rf"'{name}' is left out: Berlinet & Devroye \(1994\) number {number}, .* without bound"
    for use in (make_dataset, check_name):
        with pytest.raises(ValueError, match=why):
            use(name)


def test_there_are_28():
    names = [name for name in DISTRIBUTIONS if name.startswith("benchden")]
    assert sorted([*names, *LEFT_OUT]) == [f"benchden_{k:02d}" for k in range(1, 29)]
    with pytest.raises(ValueError, match=r"marron_wand_15, benchden_01 \.\.\. benchden_27$"):
        make_dataset("benchden_29")
