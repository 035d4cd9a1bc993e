"""Denoisers in closed form: posterior means, and SDEs that start from them."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from dlutils.data.datasets import make_dataset
from dlutils.data.units import Units
from dlutils.diffusion.denoisers import GaussianDenoiser, MixtureDenoiser, UniformsDenoiser
from dlutils.estimators.view import units_of
from dlutils.estimators.yardsticks import Mixture, em_mixture
from dlutils.evaluation import compare
from dlutils.training import History

DELTA = 0.01
ONE = Mixture(*torch.tensor([[1.0], [0.0], [1.0]]).double())
TWO = Mixture(*torch.tensor([[0.4, 0.6], [-0.9, 0.6], [0.5, 0.6**0.5]]).double())  # variance 1.02


@pytest.mark.parametrize(
    ("prior", "denoiser"),
    [(ONE, GaussianDenoiser()), (ONE, MixtureDenoiser(ONE)), (TWO, MixtureDenoiser(TWO))],
)
def test_the_denoisers_are_posterior_means(prior, denoiser):
    y = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    for s in (0.0, 0.3, 2.0, 20.0):
        g = torch.tensor([-3.0, 0.2, 1.0 + s], dtype=torch.float64)
        posterior = (prior(y) - (g[:, None] - s * y) ** 2 / 2).softmax(1)
        found = denoiser(g, torch.full_like(g, s))
        torch.testing.assert_close(found, posterior @ y, rtol=0, atol=1e-6)


def test_for_a_histogram_it_is_the_posterior_mean_whatever_the_noise():
    edges = torch.tensor([-1.7, -0.5, 0.1, 1.7], dtype=torch.float64)
    density = torch.tensor([0.3, 0.0, 0.4], dtype=torch.float64)  # up to a constant
    n = 40_000
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    y = torch.cat([torch.lerp(a, b, middle) for a, b in pairwise(edges)])
    prior = (density * edges.diff()).repeat_interleave(n)
    for s in (0.0, 1e-3, 0.3, 1.0, 5.0, 50.0):
        g = torch.tensor([-3.0, -1.0, 0.5, 2.5], dtype=torch.float64) * (1 + s)
        posterior = (prior.log() - (g[:, None] - s * y) ** 2 / 2).softmax(1)
        found = UniformsDenoiser(edges, density)(g, torch.tensor(s, dtype=torch.float64))
        torch.testing.assert_close(found, posterior @ y, rtol=0, atol=1e-6)
    between = UniformsDenoiser(edges, density)(*torch.tensor([[-300.0], [1e3]]).double())
    assert between.item() == pytest.approx(-0.5, abs=1e-3), "the nearest where there is something"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_from_all_components_there_is_still_a_mean(dtype):
    g, s = torch.tensor([-2e3, 0.0, 2e3], dtype=dtype), torch.tensor(100.0, dtype=dtype)
    found = MixtureDenoiser(TWO).to(dtype)(g, s)
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert found[0] < -10 < 10 < found[2]


def test_an_uncorrected_mixture_is_the_mixture_with_a_little_noise(sde):
    known = MixtureDenoiser(TWO)
    model = sde.build_sde("linear", "optimal", "preconditioned", DELTA, denoiser=known)
    fitted = sde.FittedSDE(model.double(), History(), Units(), 6.5)
    y = torch.linspace(-3, 3, 61, dtype=torch.float64)
    expected = replace(TWO, sds=(TWO.sds**2 + 2 * DELTA**2).sqrt())(y)
    found, bound = fitted.log_likelihood(y), fitted.elbo(y)
    assert (found - expected).abs().max() < 2e-3
    assert (bound < found + 1e-5).all()
    assert (bound - expected).abs().max() < 5e-3, "and its bound is tight"


@pytest.mark.parametrize(
    ("diffusion", "drift"), [("optimal", "preconditioned"), ("learned_in_t", "basis")]
)
def test_training_goes_on_from_a_mixture_and_its_bound_is_one(sde, drift, diffusion):
    """Closer than EM is where the truth is no mixture; bound <= log-likelihood <= truth."""
    data = make_dataset("laplace_mixture", n_train=4000)
    options = {"n_iterations": 80, "learning_rate": 0.005, "progress": False}
    fitted = sde.train(data, "linear", diffusion, drift, preconditioning="mixture", **options)
    fitted = replace(fitted, n_steps=150)
    found, bound = compare(data, fitted.log_likelihood, 2001), compare(data, fitted.elbo, 1001)
    assert found.mass == pytest.approx(1, abs=1e-3)
    assert 0 < found.kl < bound.kl
    assert found.kl < 0.02


def test_the_mixture_is_of_the_standardized_data(sde):
    """The default is one Gaussian."""
    data = make_dataset("marron_wand_08", n_train=500, n_val=50)
    shifted = replace(data, train=1024 * data.train + 4096, val=1024 * data.val + 4096)
    few = {"n_iterations": 2, "progress": False}
    expected = em_mixture(units_of(data)(data.train.double()))
    for d in (data, shifted):
        found = sde.train(d, preconditioning="mixture", **few).model.net.denoiser
        torch.testing.assert_close(found.means.squeeze(1), expected.means, rtol=0, atol=1e-9)
        assert str(found).startswith("a mixture of ")
    assert str(sde.train(data, **few).model.net.denoiser) == "one Gaussian"


@pytest.mark.parametrize("drift", ["free", "predict_y"])
def test_a_drift_without_a_denoiser_refuses_one(sde, drift):
    data, few = make_dataset("gaussian", 50, 20, 20), {"n_iterations": 1, "progress": False}
    with pytest.raises(ValueError, match=f"the drift '{drift}' corrects no denoiser: precon"):
        sde.train(data, drift=drift, preconditioning="mixture", **few)
    fitted = sde.train(data, drift=drift, preconditioning="gaussian", **few)
    assert fitted.elbo(data.test).isfinite().all()
