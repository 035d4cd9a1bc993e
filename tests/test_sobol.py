"""Sobol's parts against closed forms, against their definition, and on the SDE's sampled bound."""

import math
from itertools import chain, combinations

import numpy as np
import pytest
import torch
from scipy import stats

from dlutils.data.datasets import make_dataset
from dlutils.diffusion.sobol import total, variance_parts

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
    letters = dict(zip(NAMES, "ijk", strict=True))
    for subset in SUBSETS:
        kept = "".join(letters[name] for name in subset)
        others = [n for n in range(3) if NAMES[n] not in subset]
        given = torch.einsum(
            f"ijk{''.join(',' + 'ijk'[n] for n in others)}->{kept}",
            values,
            *(weights[n] for n in others),
        )
        p = torch.einsum(
            f"{','.join(kept)}->{kept}", *(weights[NAMES.index(name)] for name in subset)
        )
        variance = (p * (given - (p * given).sum()) ** 2).sum().item()
        within = sum(part for s, part in parts.items() if set(s) <= set(subset))
        assert within == pytest.approx(variance, rel=1e-10)
    single = variance_parts(values.float(), [1.0005 * w.float() for w in weights], NAMES)
    assert single == pytest.approx(parts, rel=1e-5), "in single precision, of probabilities nearly"


def sampled_bound_on_a_grid(sde, model, y, lattice):
    """One sample X(y, t, eps) of the bound, and the probabilities of t and eps."""
    u, w_u, eps, p_eps = sde.quadrature(64, 32, y)
    t = model.path.time(u)
    rate = model.path.time_rate(t)
    weight, p_t = (rate, w_u) if lattice else (torch.ones_like(t), w_u * rate)
    ratio = 2 / (1 + eps**2) if lattice else torch.ones_like(eps)
    loss = weight[:, None] * ratio * sde.loss_on_grid(model, y, t, eps)
    value = sde.reconstruction(model, y) - sde.prior_kl(model, y)
    return value[:, None, None] - loss, p_t, p_eps / ratio


def variance_of_samples(sde, model, y, p_y, sampler, n=2**13, n_batches=48):
    """By simulation, and its standard error from independent batches."""
    moments = []
    for k in range(n_batches):
        random = torch.Generator().manual_seed(k)
        draw = sde.T_SAMPLERS[sampler](model.path, n, random)
        points = y[torch.multinomial(p_y, n, replacement=True, generator=random)]
        X = sde.sampled_elbo(model, points, draw)
        moments.append([X.mean().item(), X.square().mean().item()])
    (mean, square), covariance = np.mean(moments, axis=0), np.cov(np.transpose(moments))
    slope = np.array([-2 * mean, 1])
    return square - mean**2, math.sqrt(slope @ covariance @ slope / n_batches)


@torch.no_grad()
@pytest.mark.parametrize("sampler", ["iid", "lattice"])
def test_the_parts_of_the_sampled_bound_agree_with_simulated_samples(sde, sampler):
    dataset = make_dataset("laplace_mixture", 2000, 50, 50)
    y, p_y = dataset.compress(16)
    y, p_y = (y - dataset.train.mean()) / dataset.train.std(), p_y / p_y.sum()
    model = sde.build_sde("linear", "optimal", "preconditioned", 0.1)
    X, p_t, p_eps = sampled_bound_on_a_grid(sde, model, y, sampler == "lattice")
    parts = variance_parts(X, (p_y, p_t, p_eps), NAMES)
    found, error = variance_of_samples(sde, model, y, p_y, sampler)
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
