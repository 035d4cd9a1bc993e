"""dlutils.diffusion.fokker_planck against closed forms; each oracle is also shown to fail once."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch.distributions import Normal

from dlutils.diffusion.fokker_planck import Evolution, SupportError, log_density, observed, solve

standard_normal = lambda x: Normal(0.0, 1.0).log_prob(x).exp()
one = lambda x, t: torch.ones_like(x)


def ornstein_uhlenbeck(rate=1.5, noise=0.8, mean=0.7):
    """Coefficients, and the Gaussian at any t: mean m_t, variance v_t in closed form."""
    m = lambda t: mean * (1 - np.exp(-rate * t))
    end = noise**2 / (2 * rate)
    v = lambda t: end + (1 - end) * np.exp(-2 * rate * t)
    return lambda x, t: rate * (mean - x), lambda x, t: torch.full_like(x, noise), m, v


def error_of_the_gaussian(n_cells, n_steps, warp=None, **options):
    f, sigma, m, v = ornstein_uhlenbeck(**options)
    times, x, density = solve(f, sigma, standard_normal, (-7, 7), n_cells, n_steps, warp)
    exact = stats.norm.pdf(x, m(times)[:, None], np.sqrt(v(times))[:, None])
    return (np.abs(density - exact).max(axis=1) / exact.max(axis=1)).max()  # of the peak


@pytest.mark.parametrize(
    ("noise", "warp"), [(0.2, None), (2.0, None), (0.8, lambda u: u * (1 + u) / 2)]
)
def test_linear_drift_keeps_a_gaussian_gaussian(noise, warp):
    assert error_of_the_gaussian(2000, 2000, warp, noise=noise) < 2e-3


def stationary_error(n_cells):
    """dx = -(x^3 - x) dt + dW has the stationary density exp(x^2 - x^4 / 2)."""
    mass = quad(lambda x: math.exp(x**2 - x**4 / 2), -4, 4)[0]
    p = lambda x: torch.exp(x**2 - x**4 / 2) / mass
    _, _, density = solve(lambda x, t: x - x**3, one, p, (-4, 4), n_cells, 50)
    return np.abs(density[-1] - density[0]).max()


def test_first_order_in_time_and_second_in_space():
    few, many = (error_of_the_gaussian(2000, n) for n in (50, 200))
    assert math.log2(few / many) / 2 == pytest.approx(1, abs=0.1)
    coarse, fine = (stationary_error(n) for n in (60, 240))
    assert math.log2(coarse / fine) / 2 == pytest.approx(2, abs=0.15)


def test_time_dependent_coefficients():
    """dx = cos(3 t) dt + (1 + t) dW: mean sin(3) / 3, variance 1 + 7 / 3."""
    f = lambda x, t: torch.cos(3 * t)
    _, x, density = solve(f, lambda x, t: 1 + t + 0 * x, standard_normal, (-12, 12), 1000, 1500)
    assert np.abs(density[-1] - stats.norm.pdf(x, math.sin(3) / 3, math.sqrt(10 / 3))).max() < 5e-4


def test_geometric_brownian_motion_stays_lognormal():
    """Tests a diffusion that depends on the state, in Itô's sense."""
    mu, s, m0, s0 = 0.3, 0.4, 0.5, 0.3
    p0 = lambda x: torch.from_numpy(stats.lognorm.pdf(x.numpy(), s0, scale=math.exp(m0)))

    def error(noise, drift=mu):
        """Of dx = drift x dt + noise x dW as dx = mu x dt + s x dW: log x stays Gaussian."""
        coefficients = lambda x, t: drift * x, lambda x, t: noise * x
        _, x, density = solve(*coefficients, p0, (1e-3, 25.0), 3000, 800)
        scale, shape = math.exp(m0 + mu - s**2 / 2), math.sqrt(s0**2 + s**2)
        return np.abs(density[-1] - stats.lognorm.pdf(x, shape, scale=scale)).max()

    assert error(s) < 1e-3
    assert error(1.1 * s) > 1e-2, "the oracle sees a wrong sigma"
    assert error(s, mu + s**2 / 2) > 1e-2, "and Stratonovich's calculus"


def test_mass_is_conserved_and_the_density_positive():
    f = lambda x, t: 5 * torch.sin(3 * x) * (1 + t)
    sigma = lambda x, t: 0.3 + 0.2 * torch.cos(x) ** 2 + 0 * t
    times, x, density = solve(f, sigma, standard_normal, (-7, 7), 700, 200, lambda u: u**2 / 2)
    assert times[[0, -1]].tolist() == [0, 0.5]
    mass = density.sum(1) * (x[1] - x[0])
    assert np.abs(mass - 1).max() < 1e-10
    assert density.min() >= 0


def test_observation_noise_adds_its_variance():
    x = (np.arange(2000) + 0.5) / 200 - 5
    exact = stats.norm(0, math.hypot(0.3, 0.02))
    density = observed(x, stats.norm.pdf(x, 0, 0.3), 0.02)
    assert np.abs(density - exact.pdf(x)).max() < 1e-10
    *inside, outside = log_density(x, density, np.array([-1.0, 0.123, 9.0]))
    assert inside == pytest.approx(exact.logpdf([-1.0, 0.123]), abs=1e-7)
    assert outside == -np.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"support": (2, -2)}, r"support must be \(low, high\) with low < high, not \(2, -2\)"),
        ({"n_cells": 5}, "n_cells must be an integer of at least 10, not 5"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, not 0"),
        ({"support": (0, 7)}, "mass is 0.5000 on 200 cells from 0 to 7: widen"),
        ({"sigma": lambda x, t: x}, "sigma must be positive and finite: it is -6.9.* at x = -6.9"),
        ({"f": lambda x, t: x / 0}, "f must be finite: it is -inf at x = -6.9.*, t = 0.01"),
        ({"warp": lambda u: 1 - u}, "warp must be increasing"),
        ({"f": lambda x, t: 0 * x + 9}, "support from -7 to 7 is too narrow: at t = 0"),
        ({"f": lambda x, t: -99 * x, "sigma": lambda x, t: one(x, t) / 99}, "cells are too coarse"),
        ({"p0": lambda x: -x}, "the initial density must not be negative"),
        ({"p0": lambda x: math.nan * x}, "the initial density must .* mass is nan"),
    ],
)
def test_bad_input_is_named(arguments, message):
    defaults = {"f": lambda x, t: -x, "sigma": one, "p0": standard_normal}
    defaults |= {"support": (-7, 7), "n_cells": 200, "n_steps": 100}
    with pytest.raises(ValueError, match=message):
        solve(**defaults | arguments)


@pytest.mark.parametrize(
    ("sigma_y", "message"),
    [(0.01, "cells of width 0.1 are too coarse.*n_cells to 1515"), (0, "sigma_y must be positive")],
)
def test_an_observation_noise_that_does_not_fit_is_named(sigma_y, message):
    x = np.linspace(-5, 5, 101)
    with pytest.raises(ValueError, match=message):
        observed(x, stats.norm.pdf(x), sigma_y)


def test_an_evolution_widens_and_extrapolates():
    """A mean that leaves the interval; the extrapolation takes most of the error."""
    f, sigma, m, v = ornstein_uhlenbeck(mean=9.0, noise=0.8)
    y = np.linspace(m(1) - 0.5, m(1) + 0.5, 9)
    exact = stats.norm.logpdf(y, m(1), math.sqrt(v(1) + 0.05**2))
    evolution = Evolution(f, sigma, 5.0, 0.05, 200)
    _, x, p = evolution.marginals
    assert x[-1] == pytest.approx(10, abs=0.1), "twice the reach"
    plain = np.abs(log_density(x, observed(x, p[-1], 0.05), y) - exact).max()
    assert np.abs(evolution.log_density(y) - exact).max() < 0.3 * plain


def test_an_evolution_without_a_grid_says_so():
    point = np.zeros(1)
    with pytest.raises(SupportError):
        Evolution(lambda x, t: torch.full_like(x, 1e3), one, 5.0, 0.5, 20).log_density(point)
    with pytest.raises(ValueError, match=r"keep to 100,000 cells, and 4,000,000 would be needed"):
        Evolution(lambda x, t: 0 * x, one, 1e4, 0.01).log_density(point)
