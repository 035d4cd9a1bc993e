"""Sobol's parts against closed forms, against their definition, and on the SDE's sampled bound."""

import math
from itertools import chain, combinations

import numpy as np
import pytest
import torch
from scipy import stats

from conftest import ROOT
from dlutils.data.datasets import make_dataset
from dlutils.diffusion.sobol import total, variance_parts
from dlutils.notebook import load

pytestmark = pytest.mark.usefixtures("float64")

Z = stats.norm.isf(5e-7)  # standard errors: a right program fails a random test once in a million
NAMES = ("y", "t", "eps")
SUBSETS = list(chain.from_iterable(combinations(NAMES, k) for k in (1, 2, 3)))


def random_grid(shape=(5, 7, 6)):
    """Values without a structure, and unequal probabilities."""
    random = np.random.default_rng(0)
    weights = [torch.from_numpy(random.dirichlet(np.ones(n))) for n in shape]
    return torch.from_numpy(random.normal(size=shape) ** 3 + 2), weights


def test_a_product_has_the_products_of_the_variances():
    """Of factors 1 + c g with g standardized: the part of S is the product of c^2 over S."""
    weights, factors, c = random_grid()[1], [], {"y": 0.5, "t": 2.0, "eps": 1.5}
    for w, c_i in zip(weights, c.values(), strict=True):
        g = torch.randn(len(w))
        g = g - w @ g
        factors.append(1 + c_i * g / (w @ g**2).sqrt())
    parts = variance_parts(torch.einsum("i,j,k->ijk", *factors), weights, NAMES)
    assert list(parts) == SUBSETS
    assert parts == pytest.approx({s: math.prod(c[n] ** 2 for n in s) for s in SUBSETS}, rel=1e-10)
    assert total(parts, "t") == pytest.approx(4 * (1 + 0.25) * (1 + 2.25))


def test_the_parts_within_a_subset_are_the_variance_of_a_conditional_mean():
    values, weights = random_grid()
    parts = variance_parts(values, weights, NAMES)
    assert min(parts.values()) > 0
    weighted = torch.einsum("ijk,i,j,k->ijk", torch.ones_like(values), *weights)
    for subset in SUBSETS:
        others = [axis for axis, name in enumerate(NAMES) if name not in subset]
        total_of = lambda v, others=others: v.sum(others) if others else v
        p = total_of(weighted)
        given = total_of(weighted * values) / p
        variance = (p * (given - (p * given).sum()) ** 2).sum().item()
        within = sum(part for s, part in parts.items() if set(s) <= set(subset))
        assert within == pytest.approx(variance, rel=1e-10)
    single = variance_parts(values.float(), [1.0005 * w.float() for w in weights], NAMES)
    assert single == pytest.approx(parts, rel=1e-5), "in single precision, of probabilities nearly"


@torch.no_grad()
@pytest.mark.parametrize("sampler", ["iid", "lattice"])
def test_the_parts_of_the_sampled_bound_agree_with_simulated_samples(sde, sampler):
    """The variance of samples, with its standard error from independent batches."""
    dataset = make_dataset("laplace_mixture", 2000, 50, 50)
    model, n, moments = sde.build_sde("linear", "optimal", "preconditioned", 0.1), 2**13, []
    on_a_grid = load(ROOT / "BEYOND.ipynb").on_a_grid
    fitted = sde.FittedSDE(model, None, *sde.units_and_reach(dataset))
    X, probabilities = on_a_grid(fitted, dataset, *[sampler == "lattice"] * 2)
    parts = variance_parts(X, probabilities, NAMES)
    y, p_y = sde.weighted_points(fitted, dataset)
    for k in range(48):
        random = torch.Generator().manual_seed(k)
        draw = sde.T_SAMPLERS[sampler](model.path, n, random)
        points = y[torch.multinomial(p_y, n, replacement=True, generator=random)]
        values = sde.sampled_elbo(model, points, draw)
        moments.append([values.mean().item(), values.square().mean().item()])
    (mean, square), covariance = np.mean(moments, axis=0), np.cov(np.transpose(moments))
    found, slope = square - mean**2, np.array([-2 * mean, 1])
    error = math.sqrt(slope @ covariance @ slope / len(moments))
    assert error < 0.02 * found
    assert abs(sum(parts.values()) - found) < Z * error
    assert total(parts, "t") + total(parts, "eps") > sum(parts.values()), "much is in both together"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ("y", "t", "t")}, "a name for each input, all different"),
        ({"weights": [torch.ones(5) / 5] * 3}, "a weight for each point"),
        ({"weights": [torch.ones(n) for n in (5, 7, 6)]}, "must be probabilities"),
        ({"values": torch.full((5, 7, 6), torch.nan)}, "values must be finite"),
    ],
)
def test_what_would_give_wrong_parts_is_refused(arguments, message):
    values, weights = random_grid()
    with pytest.raises(AssertionError, match=message):
        variance_parts(**{"values": values, "weights": weights, "names": NAMES} | arguments)
