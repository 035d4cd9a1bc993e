"""SDE.ipynb against closed forms; each oracle is also shown to fail on a wrong program."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Normal

from conftest import perturbed
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.data.units import Units
from dlutils.diffusion import model, samplers
from dlutils.evaluation import compare

maths = pytest.mark.usefixtures("float64")  # on tensors made by hand

FALSE_ALARM = 1e-6  # probability that a right sampler fails one random test
Z = stats.norm.isf(FALSE_ALARM / 2)  # that many standard errors


class Line(nn.Module):
    """x_0 ~ N(0, 1), dx = g dW, y ~ N(x_1, r^2): alpha and beta of the exact posterior."""

    def __init__(self, g=1.5, r=0.5, tilt=1.0):
        super().__init__()
        self.g, self.tilt = g, tilt
        self.V = 1 + g**2 + r**2

    def forward(self, y, t):
        v = 1 + self.g**2 * t
        return self.tilt * v * y / self.V, (v * (self.V - v) / self.V).sqrt()

    def with_rates(self, y, t):
        v, v_dot = 1 + self.g**2 * t, self.g**2
        alpha, beta = self(y, t)
        beta_dot = v_dot * (self.V - 2 * v) / (2 * self.V * beta)
        return alpha, beta, self.tilt * v_dot * y / self.V, beta_dot

    def time(self, u):
        return u

    def time_rate(self, t):
        return torch.ones_like(t)


class Still(nn.Module):
    """No drift."""

    predicts_y = False

    def forward(self, x, t):
        return torch.zeros_like(x)


def linear_gaussian(sde, tilt=1.0):
    """The bound and log p(y) of the linear-Gaussian model at a few points."""
    path = Line(tilt=tilt)
    model = sde.SDE(path, sde.ConstantDiffusion(path, path.g), Still(), 0.5)
    y = torch.linspace(-3, 3, 7)
    with torch.no_grad():
        return sde.elbo(model, y), Normal(0.0, math.sqrt(path.V)).log_prob(y)


def check_linear_gaussian(sde):
    bound, log_p = linear_gaussian(sde)
    torch.testing.assert_close(bound, log_p, rtol=0, atol=1e-6)


@maths
def test_the_bound_is_tight_for_the_exact_posterior(sde):
    check_linear_gaussian(sde)


@maths
def test_any_other_path_lies_below(sde):
    bound, log_p = linear_gaussian(sde, tilt=1.1)
    away = log_p - bound
    assert (away[[0, 1, 2, 4, 5, 6]] > 1e-3).all()  # at y = 0 a tilt changes nothing
    assert away.min() > -1e-9


def toy_elbo(sde, diffusion):
    """Mean ELBO for y ~ N(0, 1), linear path, delta = .01, with the exact drift."""
    path = sde.LinearPath(0.01)
    model = sde.SDE(path, diffusion(path), sde.PreconditionedDrift(path), 0.01).double()
    y, w = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(20))
    with torch.no_grad():
        return (w @ sde.elbo(model, y, 96, 40) / w.sum()).item()


TOY = {  # by sigma^2: sigma_*^2 = 2 beta / t, 2 beta, 0.1 and 1; the truth is -1.4189
    "optimal": -1.4190,
    "root_two_beta": -1.612,
    "tenth": -8.15,
    "one": -12.20,
}


def check_toy(sde):
    diffusions = {
        "optimal": sde.OptimalDiffusion,
        "root_two_beta": sde.RootTwoBetaDiffusion,
        "tenth": lambda path: sde.ConstantDiffusion(path, 0.1**0.5),
        "one": sde.ConstantDiffusion,
    }
    for name, value in TOY.items():
        digits = 2e-4 if name == "optimal" else 1e-3 if name == "root_two_beta" else 6e-3
        assert toy_elbo(sde, diffusions[name]) == pytest.approx(value, abs=digits), name


def test_four_noises_give_the_values_of_the_toy_table(sde):
    check_toy(sde)


@maths
def test_the_terms_of_the_bound(sde):
    """With the boundary values of a path: no prior KL, and a reconstruction in closed form."""
    model = sde.build_sde("learned", "constant", "free", 0.05)
    y = torch.linspace(-2, 2, 5)
    torch.testing.assert_close(sde.prior_kl(model, y), torch.zeros(5))
    value = -math.log(0.05) - 0.5 * math.log(2 * math.pi) - 0.5
    torch.testing.assert_close(sde.reconstruction(model, y), torch.full((5,), value))


@maths
@pytest.mark.parametrize("name", ["linear", "variance_preserving"])
def test_the_clock_is_even_in_log_snr(sde, name):
    path = sde.PATHS[name](0.02)
    a, beta, _, _ = path.schedule(path.time(torch.linspace(0.5, 1, 6)))
    steps = (a / beta).log().diff()
    assert steps.max() / steps.min() < 1.03


PARTS = [  # every path, diffusion and drift
    ("linear", "constant", "free"),
    ("variance_preserving", "root_two_beta", "predict_y"),
    ("learned", "learned_in_t", "preconditioned"),
    ("linear", "learned_in_x_and_t", "basis"),
    ("learned", "optimal", "free"),
]


@pytest.mark.parametrize("parts", PARTS)
def test_the_bound_lies_below_the_exact_log_likelihood(sde, parts):
    """With random weights and after a little training."""
    dataset, y = make_dataset("laplace_mixture", 500, 50, 50), torch.linspace(-3, 3, 13)
    settings = {"n_iterations": 4, "batch_size": 128, "progress": False, "delta": 0.05}
    trained = replace(sde.train(dataset, *parts, **settings), n_steps=200)
    kinks = "basis" in parts
    for fitted in (trained, replace(trained, model=perturbed(trained.model, 3))):
        below = fitted.log_likelihood(y) - fitted.elbo(y, *((96, 100) if kinks else (48, 24)))
        assert below.min() > (-1e-3 if kinks else -1e-4)


def test_fokker_planck_agrees_with_the_simulation(sde):
    """Kolmogorov-Smirnov test of simulated values against the exact density."""
    dataset = make_dataset("laplace_mixture", 2000, 50, 50)
    settings = {"n_iterations": 150, "batch_size": 256, "progress": False, "delta": 0.05}
    fitted = sde.train(dataset, "linear", "learned_in_x_and_t", "preconditioned", **settings)
    fitted = replace(fitted, n_steps=200)
    y = np.linspace(-8, 8, 4001)
    density = fitted.log_likelihood(torch.from_numpy(y)).exp().numpy()
    cdf = np.cumsum(density) * (y[1] - y[0])
    assert cdf[-1] == pytest.approx(1, abs=1e-3)
    sample = fitted.sample(2000, seed=3, n_steps=800).numpy()
    assert stats.kstest(sample, lambda v: np.interp(v, y, cdf)).pvalue > FALSE_ALARM
    wrong = lambda v: np.interp(v - 0.2, y, cdf)
    assert stats.kstest(sample, wrong).pvalue < FALSE_ALARM, "the test sees a shift"


@maths
def test_an_exact_gaussian_model(sde):
    """Untrained, the preconditioned drift is exact for standard normal data."""
    model = sde.build_sde("variance_preserving", "optimal", "preconditioned", 0.02)
    fitted = sde.FittedSDE(model, None, Units(), 6.5)
    y = torch.linspace(-3, 3, 13)
    exact = Normal(0.0, math.sqrt(1 + 2 * 0.02**2)).log_prob(y)
    torch.testing.assert_close(fitted.log_likelihood(y), exact, rtol=0, atol=1e-4)
    times, x, density = fitted.exact.marginals
    assert times[0] == 0
    assert times[-1] == 1
    assert np.abs(density.sum(1) * (x[1] - x[0]) - 1).max() < 1e-10


SAMPLERS = ["iid", "low_discrepancy", "log_snr", "lattice"]


def check_unbiased(sde, name, n_repeats=200):
    """Means of many small batches against the quadrature, and the standard error of all."""
    model = perturbed(sde.build_sde("linear", "optimal", "preconditioned", 0.1))
    y, random, means = torch.linspace(-2, 2, 256), torch.Generator().manual_seed(0), []
    with torch.no_grad():
        exact = sde.elbo(model, y).mean()
        for _ in range(n_repeats):
            order = torch.randperm(len(y), generator=random)  # y is sorted, as the times may be
            draw = sde.T_SAMPLERS[name](model.path, len(y), random)
            means.append(sde.sampled_elbo(model, y[order], draw).mean())
    means = torch.stack(means)
    error = means.std() / n_repeats**0.5
    assert abs(means.mean() - exact) < Z * error
    return error


@maths
def test_samplers_are_unbiased_and_differ_in_variance_and_not_in_shape(sde):
    errors = {name: check_unbiased(sde, name) for name in SAMPLERS}
    assert errors["lattice"] < errors["log_snr"] < errors["iid"]
    path = sde.LinearPath()
    for name in sde.T_SAMPLERS:
        draw = sde.T_SAMPLERS[name](path, 64, torch.Generator().manual_seed(1))
        assert all(z.shape == (64,) for z in draw)
        assert draw.t.min() >= 0
        assert draw.t.max() <= 1
        assert draw.v.max() < 1
    first, second = (sde.frozen(path, 16, torch.Generator().manual_seed(k)) for k in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@maths
def test_gradients_arrive_in_every_net(sde):
    y = torch.linspace(-2, 2, 64)
    for parts in PARTS:
        model = perturbed(sde.build_sde(*parts))
        draw = sde.lattice(model.path, 64, torch.Generator().manual_seed(0))
        sde.sampled_elbo(model, y, draw).mean().backward()
        for label, parameter in model.named_parameters():
            assert parameter.grad is not None, (parts, label)
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().sum() > 0, (parts, label)


MUTATIONS = {
    "the score term has the wrong sign": (
        "f_q = alpha_dot + beta_dot * eps + half_slope - sigma**2 * eps / (2 * beta)\n",
        "f_q = alpha_dot + beta_dot * eps + half_slope + sigma**2 * eps / (2 * beta)\n",
        check_linear_gaussian,
    ),
    "the loss without its half": (
        "- f_q) ** 2 / (2 * sigma**2)",
        "- f_q) ** 2 / sigma**2",
        check_linear_gaussian,
    ),
    "the prior term is dropped": (
        "return (alpha**2 + beta**2 - 1) / 2 - beta.log()",
        "return torch.zeros_like(alpha)",
        check_linear_gaussian,
    ),
    "the reconstruction forgets the spread of x": (
        "misfit = ((y - alpha) ** 2 + beta**2) /",
        "misfit = ((y - alpha) ** 2) /",
        check_linear_gaussian,
    ),
    "the drift forgets the velocity of beta": (
        "return alpha_dot + beta_dot * eps + half_slope -",
        "return alpha_dot + half_slope -",
        check_toy,
    ),
    "the quadrature forgets dt/du": (
        "w_t = w_u * model.path.time_rate(t)",
        "w_t = w_u",
        check_toy,
    ),
    "times on the clock without their weight": (
        "return t, path.time_rate(t)",
        "return t, torch.ones_like(t)",
        lambda sde: check_unbiased(sde, "log_snr"),
    ),
    "importance noise without its weight": (
        "rate * 2 / (1 + eps**2)",
        "rate",
        lambda sde: check_unbiased(sde, "lattice"),
    ),
}


def with_fault(sde, right, wrong):
    """All of `sde`, with a fault in the one module of the package that has this text."""
    for module in (model, samplers):
        source = Path(module.__file__).read_text(encoding="utf-8")
        if right in source:
            assert source.count(right) == 1, "the mutation should hit one place"
            scope = {"__name__": module.__name__}
            exec(source.replace(right, wrong), scope)
            return SimpleNamespace(**vars(sde) | scope)
    raise AssertionError(f"nowhere: {right}")


@maths
@pytest.mark.parametrize("name", MUTATIONS)
def test_the_oracles_catch_a_wrong_package(sde, name):
    right, wrong, check = MUTATIONS[name]
    with pytest.raises(AssertionError, match=r"^(?!nowhere|the mutation)"):
        check(with_fault(sde, right, wrong))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "crooked"}, "unknown path 'crooked'; choose from linear"),
        ({"diffusion": "none"}, "unknown diffusion 'none'; choose from constant, learned_in_t"),
        ({"drift": "big"}, "unknown drift 'big'; choose from preconditioned, basis"),
        ({"t_sampler": "sobol"}, "unknown t_sampler 'sobol'; choose from iid, low_discrepancy"),
        ({"delta": 0}, "delta must lie between 0 and 1, not 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
        ({"seed": -1}, "a seed is a non-negative integer, not -1"),
    ],
)
def test_bad_settings_name_the_value_and_the_choices(sde, arguments, message):
    with pytest.raises(ValueError, match=message):
        sde.train(make_dataset("gaussian", 20, 20, 20), progress=False, **arguments)


@maths
def test_bad_input_is_named(sde):
    model = sde.build_sde("linear", "constant", "free")
    y = torch.zeros(3)
    with pytest.raises(ValueError, match=r"times must lie in \[0, 1\], not 1.5"):
        sde.diffusion_loss(model, y, torch.tensor([0.5, 1.5, 0.0]), y)
    with pytest.raises(ValueError, match=r"times must lie in .* not nan"):
        sde.diffusion_loss(model, y, torch.tensor([0.5, torch.nan, 0.0]), y)
    with pytest.raises(ValueError, match="sigma_y must be positive, not 0"):
        sde.SDE(model.path, model.diffusion, model.net, 0)

    class Thin(sde.LinearPath):
        def schedule(self, t):
            a, beta, a_dot, beta_dot = super().schedule(t)
            return a, beta - 4 * t * (1 - t), a_dot, beta_dot

    thin = sde.SDE(Thin(), sde.ConstantDiffusion(None), model.net, 0.01)
    message = r"beta must be positive and finite, not -0.495 \(at t = 0.5\)"
    with pytest.raises(ValueError, match=message):
        sde.diffusion_loss(thin, y, torch.full((3,), 0.5), y)
    quiet = sde.SDE(model.path, sde.ConstantDiffusion(None, 0.0), model.net, 0.01)
    message = r"sigma must be positive and finite, not 0 \(at t = 0.25\)"
    with pytest.raises(ValueError, match=message):
        sde.diffusion_loss(quiet, y, torch.full((3,), 0.25), y)


def test_paths_that_explode_are_named(sde):
    class Blast(Still):
        def forward(self, x, t):
            return x.abs() ** 9 * 1e9

    path = sde.LinearPath()
    model = sde.SDE(path, sde.ConstantDiffusion(path), Blast(), 0.01)
    with pytest.raises(ValueError, match=r"the paths explode at t = .*raise n_steps"):
        sde.simulate(model, 10, 20, torch.Generator().manual_seed(0))


def test_same_seed_same_model(sde):
    dataset = make_dataset("laplace", 500, 50, 50)
    settings = {"n_iterations": 6, "batch_size": 64, "progress": False}
    first = sde.train(dataset, seed=2, **settings)
    torch.manual_seed(77)
    again = sde.train(dataset, seed=2, **settings)
    other = sde.train(dataset, seed=3, **settings)
    assert first.history.train == again.history.train
    assert first.history.train != other.history.train
    assert torch.equal(first.sample(5), again.sample(5))


def test_results_are_in_the_datas_own_units(sde):
    """Data a thousand times as wide, a shift away: densities a thousand times as low."""
    y = make_dataset("laplace_mixture", 2000, 50, 50).train
    settings = {"n_iterations": 5, "batch_size": 128, "progress": False, "delta": 0.05}
    small, large = (
        replace(sde.train(Dataset.from_samples(v), **settings), n_steps=100)
        for v in (y, 1024 * y + 4096)
    )
    for value in ("elbo", "log_likelihood"):
        of_small = getattr(small, value)(y[:50].double())
        of_large = getattr(large, value)(1024 * y[:50].double() + 4096) + math.log(1024)
        torch.testing.assert_close(of_large, of_small, rtol=0, atol=1e-3)
    assert large.history.val[-1] + math.log(1024) == pytest.approx(small.history.val[-1], abs=1e-3)


def test_a_short_training_fits_the_gaussian(sde):
    dataset = make_dataset("gaussian")
    settings = {"n_iterations": 200, "batch_size": 256, "progress": False}
    fitted = sde.train(dataset, **settings)
    gap, exact = compare(dataset, fitted.elbo, 401).kl, compare(dataset, fitted.log_likelihood)
    assert 0 < exact.kl < 0.01
    assert exact.kl < gap < 0.05
    assert exact.mass == pytest.approx(1, abs=1e-4)
    assert fitted.history.val[-1] > fitted.history.val[0] + 5, "from sigma = 1 to the optimal noise"
