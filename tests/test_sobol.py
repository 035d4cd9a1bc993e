"""Sobol's parts against closed forms, against pick-freeze, and on the SDE's sampled bound."""

import math
from itertools import chain, combinations

import numpy as np
import pytest
import torch
from scipy import stats

from dlutils.data.datasets import make_dataset
from dlutils.diffusion.sobol import total, variance_parts

pytestmark = pytest.mark.usefixtures("float64")

FALSE_ALARM = 1e-6  # probability that a right program fails one random test
Z = stats.norm.isf(FALSE_ALARM / 2)  # that many standard errors
NAMES = ("y", "t", "eps")


def random_grid(shape=(5, 7, 6), seed=0):
    """Values without a structure, and unequal probabilities."""
    random = np.random.default_rng(seed)
    weights = [torch.from_numpy(random.dirichlet(np.ones(n))) for n in shape]
    return torch.from_numpy(random.normal(size=shape) ** 3 + 2), weights


def standardized(w, seed):
    """A random function of one input, of mean zero and variance one under w."""
    g = torch.from_numpy(np.random.default_rng(seed).normal(size=len(w)))
    g = g - w @ g
    return g / (w @ g**2).sqrt()


def variance(values, weights):
    joint = torch.einsum("i,j,k->ijk", *weights)
    mean = (joint * values).sum()
    return (joint * (values - mean) ** 2).sum().item()


def subsets(names):
    return chain.from_iterable(combinations(names, k) for k in range(1, len(names) + 1))


def test_an_additive_function_has_no_interactions():
    _, weights = random_grid()
    g = [standardized(w, k) for k, w in enumerate(weights)]
    values = 3 * g[0][:, None, None] - 2 * g[1][:, None] + 0.5 * g[2] + 7
    parts = variance_parts(values, weights, NAMES)
    wanted = dict.fromkeys(subsets(NAMES), 0.0) | {("y",): 9.0, ("t",): 4.0, ("eps",): 0.25}
    assert parts == pytest.approx(wanted, abs=1e-12)
    assert total(parts, "t") == pytest.approx(4)


def test_a_product_has_the_products_of_the_variances():
    """Of factors 1 + c g with g standardized: the part of S is the product of c^2 over S."""
    _, weights = random_grid()
    c = {"y": 0.5, "t": 2.0, "eps": 1.5}
    factors = [1 + c[n] * standardized(w, k) for k, (n, w) in enumerate(zip(c, weights, strict=1))]
    parts = variance_parts(torch.einsum("i,j,k->ijk", *factors), weights, NAMES)
    wanted = {s: math.prod(c[n] ** 2 for n in s) for s in subsets(NAMES)}
    assert list(parts) == list(wanted)
    assert parts == pytest.approx(wanted, rel=1e-10)
    assert total(parts, "t") == pytest.approx(4 * (1 + 0.25) * (1 + 2.25))


def test_the_parts_sum_to_the_variance_and_none_is_negative():
    values, weights = random_grid()
    parts = variance_parts(values, weights, NAMES)
    assert sum(parts.values()) == pytest.approx(variance(values, weights), rel=1e-12)
    assert min(parts.values()) > 0


def test_single_precision_and_weights_whose_sum_is_nearly_one():
    values, weights = random_grid()
    parts = variance_parts(values, weights, NAMES)
    single = variance_parts(values.float(), [1.0005 * w.float() for w in weights], NAMES)
    assert single == pytest.approx(parts, rel=1e-5)
    assert sum(single.values()) == pytest.approx(sum(parts.values()), rel=1e-6)


def test_agrees_with_pick_freeze():
    """Of Sobol' (2001): inputs in S kept, the others drawn anew; the covariance is S's closed part.

    And of Jansen (1999): one input drawn anew; half the mean square change is its total effect.
    """
    values, weights = random_grid()
    parts = variance_parts(values, weights, NAMES)
    n = 200_000
    first, second = (
        dict(zip(NAMES, (w.multinomial(n, replacement=True) for w in weights), strict=True))
        for _ in range(2)
    )
    f = lambda draw: values[tuple(draw[name] for name in NAMES)]
    mean = torch.einsum("i,j,k,ijk->", *weights, values).item()
    for kept in subsets(NAMES):
        products = (f(first) - mean) * (f(second | {name: first[name] for name in kept}) - mean)
        closed = sum(part for s, part in parts.items() if set(s) <= set(kept))
        assert abs(products.mean() - closed) < Z * products.std() / n**0.5, kept
    for name in NAMES:
        halves = (f(first) - f(first | {name: second[name]})) ** 2 / 2
        assert abs(halves.mean() - total(parts, name)) < Z * halves.std() / n**0.5, name


SAMPLERS = {  # t on the clock, eps by importance
    "iid": (False, False),
    "lattice": (True, True),
}


def sampled_bound_on_a_grid(sde, model, y, clock, importance):
    """One sample X(y, t, eps) of the bound, and the probabilities of t and eps."""
    u, w_u, eps, p_eps = sde.quadrature(64, 32, y)
    t = model.path.time(u)
    rate = model.path.time_rate(t)
    weight, p_t = (rate, w_u) if clock else (torch.ones_like(t), w_u * rate)
    ratio = 2 / (1 + eps**2) if importance else torch.ones_like(eps)
    with torch.no_grad():
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
        with torch.no_grad():
            X = sde.sampled_elbo(model, points, draw)
        moments.append([X.mean().item(), X.square().mean().item()])
    (mean, square), covariance = np.mean(moments, axis=0), np.cov(np.transpose(moments))
    slope = np.array([-2 * mean, 1])
    return square - mean**2, math.sqrt(slope @ covariance @ slope / n_batches)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_parts_of_the_sampled_bound_agree_with_simulated_samples(sde, sampler):
    dataset = make_dataset("laplace_mixture", 2000, 50, 50)
    y, p_y = dataset.compress(16)
    y, p_y = (y - dataset.train.mean()) / dataset.train.std(), p_y / p_y.sum()
    model = sde.build_sde("linear", "optimal", "preconditioned", 0.1)
    X, p_t, p_eps = sampled_bound_on_a_grid(sde, model, y, *SAMPLERS[sampler])
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
