"""ODE.ipynb against closed forms; each oracle is also shown to fail on a wrong program."""

import math
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from conftest import ROOT, ode_definitions
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.evaluation import compare
from dlutils.seeding import seeded

maths = pytest.mark.usefixtures("float64")  # on tensors made by hand

FALSE_ALARM = 1e-6  # probability that a right sampler fails the random test
ORDERS = {"euler": 1, "rk2": 2, "rk4": 4}
LOGDETS = ("trace", "map")


def slope(n_steps, errors):
    """Order of convergence: the negative slope of log(error) over log(T)."""
    return -np.polyfit(np.log(n_steps), np.log(errors), 1)[0]


def sine(x, t):
    return torch.sin(x)


def check_order_of_the_state(ode: SimpleNamespace, method: str) -> None:
    """dx/dt = sin x: x(t) = 2 arctan(e^t tan(x_0 / 2))."""
    x_0 = torch.linspace(-2, 2, 21)
    x_1 = 2 * torch.atan(math.e * torch.tan(x_0 / 2))
    n_steps = [8, 16, 32, 64]
    errors = [(ode.integrate(sine, x_0, 0, 1, T, method) - x_1).abs().max().item() for T in n_steps]
    assert abs(slope(n_steps, errors) - ORDERS[method]) < 0.15
    assert errors[-1] < 0.02


def check_order_of_the_likelihood(ode: SimpleNamespace, method: str, logdet: str) -> None:
    """The same flow: log|dx/dx_0| = log(e^t (1 + tau²) / (1 + e^{2t} tau²)), tau = tan(x_0 / 2)."""
    y = torch.linspace(-2, 2, 21)
    tau = torch.tan(y / 2)
    x_0 = 2 * torch.atan(tau / math.e)
    stretch = torch.log((1 + tau**2) / math.e / (1 + tau**2 / math.e**2))
    log_p = Normal(0.0, 1.0).log_prob(x_0) + stretch
    n_steps = [8, 16, 32, 64]
    errors = [
        (ode.log_likelihood(sine, y, T, method, logdet) - log_p).abs().max().item() for T in n_steps
    ]
    assert abs(slope(n_steps, errors) - ORDERS[method]) < 0.15
    assert errors[-1] < 0.05


def check_time_dependence(ode: SimpleNamespace, method: str) -> None:
    """dx/dt = x cos t: log x grows by sin 1."""
    x_0 = torch.tensor([1.0, -2.0])
    n_steps, f = [16, 32, 64, 128], lambda x, t: x * math.cos(t)
    exact = x_0 * math.exp(math.sin(1))
    errors = [(ode.integrate(f, x_0, 0, 1, T, method) - exact).abs().max().item() for T in n_steps]
    assert abs(slope(n_steps, errors) - ORDERS[method]) < 0.15


def check_eulers_own_error(ode: SimpleNamespace) -> None:
    """F = a x + b: T Euler steps back are y -> (1 - a/T)^T y - ..., in closed form."""
    a, b, T = 0.7, -0.3, 10
    y = torch.linspace(-3, 3, 7)
    x_0 = (y + b / a) * (1 - a / T) ** T - b / a
    prior = Normal(0.0, 1.0).log_prob(x_0)
    for logdet, exact in (("trace", -a), ("map", T * math.log(1 - a / T))):
        log_p = ode.log_likelihood(lambda x, t: a * x + b, y, T, "euler", logdet)
        torch.testing.assert_close(log_p, prior + exact, rtol=1e-12, atol=1e-12)


def check_map_is_the_derivative(ode: SimpleNamespace, method: str) -> None:
    """log p by `map` is the prior at x_0 and the derivative of the T steps back, by autograd."""
    with seeded(5):
        f = ode.MLPDrift(hidden=16)
    y = torch.linspace(-2, 2, 9, requires_grad=True)
    x_0 = ode.integrate(f, y, 1, 0, 7, method)
    (derivative,) = torch.autograd.grad(x_0.sum(), y)
    log_p = ode.log_likelihood(f, y.detach(), 7, method, "map")
    expected = Normal(0.0, 1.0).log_prob(x_0) + derivative.log()
    torch.testing.assert_close(log_p, expected, rtol=1e-10, atol=1e-10)


@maths
@pytest.mark.parametrize("method", ORDERS)
def test_order_of_the_state(ode, method):
    check_order_of_the_state(ode, method)


@maths
@pytest.mark.parametrize("method", ORDERS)
@pytest.mark.parametrize("logdet", LOGDETS)
def test_order_of_the_likelihood(ode, method, logdet):
    check_order_of_the_likelihood(ode, method, logdet)


@maths
@pytest.mark.parametrize("method", ORDERS)
def test_time_dependence(ode, method):
    check_time_dependence(ode, method)


@maths
def test_eulers_own_error(ode):
    check_eulers_own_error(ode)


@maths
@pytest.mark.parametrize("method", ORDERS)
def test_map_is_the_derivative(ode, method):
    check_map_is_the_derivative(ode, method)


MUTATIONS = {  # of runge_kutta_step; for those of the program see test_programs.py
    "a stage at the wrong state": (
        "drift_and_slope(f, x + h * dot(a_i, F),",
        "drift_and_slope(f, x - h * dot(a_i, F),",
        lambda ode: check_order_of_the_state(ode, "rk2"),
    ),
    "the stage forgets its time": (
        "t + c_i * h)",
        "t)",
        lambda ode: check_time_dependence(ode, "rk2"),
    ),
    "trace and map exchanged": (
        'if logdet == "trace" else r.log()',
        'if logdet == "map" else r.log()',
        check_eulers_own_error,
    ),
    "map: the stages' slopes dropped": (
        "U.append(1 + h * dot(a_i, [g * u for g, u in zip(G, U, strict=True)]))",
        "U.append(torch.ones_like(x))",
        lambda ode: check_map_is_the_derivative(ode, "rk2"),
    ),
    "trace: at the step's end instead of its stages": (
        "h * dot(b, G) if",
        "h * G[0] if",
        lambda ode: check_order_of_the_likelihood(ode, "rk4", "trace"),
    ),
}


@maths
@pytest.mark.parametrize("name", MUTATIONS)
def test_the_oracles_catch_a_wrong_program(name, tmp_path):
    right, wrong, check = MUTATIONS[name]
    notebook = nbformat.read(ROOT / "ODE.ipynb", 4)
    hits = [c for c in notebook.cells if c.cell_type == "code" and right in c.source]
    assert len(hits) == 1, "the mutation should hit one cell"
    hits[0].source = hits[0].source.replace(right, wrong)
    nbformat.write(notebook, tmp_path / "ODE.ipynb")
    with pytest.raises((AssertionError, ValueError)):
        check(ode_definitions(tmp_path / "ODE.ipynb"))


@maths
@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("rk4", ([[], [1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 4] * 4, [0, 1 / 2, 1 / 2, 1])),
        ("rk2", ([[], [1 / 2]], [1, 0], [0, 1 / 2])),
        ("euler", ([[]], [0.5], [0])),
    ],
)
def test_the_oracles_catch_wrong_coefficients(ode, method, wrong, monkeypatch):
    monkeypatch.setitem(ode.METHODS, method, wrong)
    with pytest.raises((AssertionError, ValueError)):
        check_order_of_the_state(ode, method)
    with pytest.raises((AssertionError, ValueError)):
        check_order_of_the_likelihood(ode, method, "trace")


@maths
@pytest.mark.parametrize("method", ORDERS)
def test_untrained_density_of_the_map_integrates_to_one(ode, method):
    """The trace's does so only up to the order of the method."""
    with seeded(0):
        f = ode.MLPDrift()
    y = torch.linspace(-12, 12, 4001)
    mass = {
        logdet: torch.trapezoid(ode.log_likelihood(f, y, 10, method, logdet).exp(), y).item()
        for logdet in LOGDETS
    }
    assert mass["map"] == pytest.approx(1, abs=1e-7)
    if method == "euler":
        assert abs(mass["trace"] - 1) > 1e-4


@maths
def test_gradient_agrees_with_finite_differences(ode):
    with seeded(1):
        f = ode.MLPDrift(hidden=4, depth=1)
    y = torch.linspace(-1, 1, 3)
    for logdet in LOGDETS:
        weight = f.net[0].weight
        ode.log_likelihood(f, y, 5, "rk2", logdet).sum().backward()
        gradient, weight.grad = weight.grad.clone(), None
        values = []
        for shift in (1e-5, -1e-5):
            with torch.no_grad():
                weight[1, 0] += shift
                values.append(ode.log_likelihood(f, y, 5, "rk2", logdet).sum().item())
                weight[1, 0] -= shift
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(gradient[1, 0].item(), rel=1e-6)


def test_training_options_are_checked(ode):
    dataset = make_dataset("gaussian", 20, 20, 20)
    for options, message in (
        ({"method": "rk3"}, "unknown method 'rk3'; choose from euler, rk2, rk4"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, not 0"),
        ({"logdet": "exact"}, "unknown logdet 'exact'; choose from trace, map"),
        ({"drift": "big"}, "unknown drift 'big'; choose from linear, mlp, concat_squash"),
        ({"prior_precision": -1.0}, "prior_precision must be finite, not negative, not -1.0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
        ({"n_iterations": 0}, "n_iterations must be an integer of at least 1, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ode.train(dataset, progress=False, **options)


@maths
def test_a_step_that_folds_the_line_says_to_raise_n_steps(ode):
    with pytest.raises(ValueError, match=r"step at t = 1 folds the line: raise n_steps"):
        ode.log_likelihood(lambda x, t: 20 * x, torch.linspace(-1, 1, 3), 10, logdet="map")


@pytest.fixture(scope="module")
def fitted(ode):
    dataset = make_dataset("gaussian")
    return dataset, ode.train(dataset, "linear", n_iterations=120, n_steps=50, progress=False)


def test_a_linear_drift_learns_a_gaussian(fitted):
    dataset, model = fitted
    result = compare(dataset, lambda y: model.log_likelihood(y, "map"))
    assert result.mass == pytest.approx(1, abs=1e-4)
    assert 0 <= result.kl < 1e-3
    assert model.history.val[-1] == pytest.approx(model.log_likelihood(dataset.val).mean().item())


def test_same_seed_same_model(ode):
    dataset = make_dataset("laplace", 500, 50, 50)
    settings = {"n_steps": 5, "n_iterations": 5, "batch_size": 32, "progress": False}
    first = ode.train(dataset, seed=2, **settings)
    torch.manual_seed(77)
    again = ode.train(dataset, seed=2, **settings)
    other = ode.train(dataset, seed=3, **settings)
    assert first.history.train == again.history.train
    assert first.history.train != other.history.train
    for a, b in zip(first.drift.parameters(), again.drift.parameters(), strict=True):
        assert torch.equal(a, b)


def test_likelihood_is_in_the_datas_own_units(ode):
    """Data a thousand times as wide, a shift away: densities a thousand times as low."""
    y = make_dataset("laplace_mixture", 2000, 50, 50).train
    settings = {"n_steps": 10, "n_iterations": 5, "progress": False}
    small = ode.train(Dataset.from_samples(y), **settings)
    large = ode.train(Dataset.from_samples(1024 * y + 4096), **settings)
    shifted = large.log_likelihood(1024 * y[:50] + 4096) + math.log(1024)
    torch.testing.assert_close(shifted, small.log_likelihood(y[:50]), rtol=0, atol=1e-4)


def test_samples_follow_the_models_own_density(ode, fitted):
    _, model = fitted
    y = torch.linspace(-3, 5, 8001)
    density = model.log_likelihood(y, "map").exp().numpy()
    cdf = np.cumsum(density) / density.sum()
    sample = model.sample(5000, seed=3).numpy()
    assert stats.kstest(sample, lambda v: np.interp(v, y.numpy(), cdf)).pvalue > FALSE_ALARM
    assert np.array_equal(sample, model.sample(5000, seed=3).numpy())
