"""The page for the browser: opened as a file without a network, and held against the package.

On the same sample and the same nodes the page's flow, mass and KL are Python's. Each oracle is
shown to fail on a page with a wrong formula. Screenshots are left in build/browser.
"""

import math
import re
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
import torch
from scipy.special import ndtri

from dlutils import evaluation
from dlutils.data.datasets import Dataset, density_of
from dlutils.data.units import Units
from dlutils.diffusion.denoisers import MixtureDenoiser
from dlutils.diffusion.denoising import best_loss, mmse
from dlutils.diffusion.model import SDE, elbo
from dlutils.diffusion.parts import ConstantDiffusion, LinearPath, OptimalDiffusion
from dlutils.estimators import smoothing
from dlutils.estimators.yardsticks import Mixture
from dlutils.evaluation import compare
from dlutils.flows import matching
from dlutils.flows.fitting import flow_matching
from dlutils.flows.methods import runge_kutta_step

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "page" / "index.html"
SCREENSHOTS = ROOT / "build" / "browser"
AXE = "axe-core@4.10.3"  # from npm, for the tests alone
DRAWN = "new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)))"
CLOSE = {"rtol": 1e-6, "atol": 1e-12}

pytestmark = pytest.mark.filterwarnings("default")


class Opened:
    """The page in a browser without a network, and what it did there."""

    def __init__(self, browser, file=PAGE, width=1200, dark=False):
        self.requests, self.errors = [], []
        scheme = "dark" if dark else "light"
        size = {"width": width, "height": 900}
        self.context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(file.as_uri())
        self.settle()

    def settle(self):
        """Wait until what was changed is drawn: that is done before the next frame."""
        self.page.evaluate(f"() => {DRAWN}")

    def show(self, **state):
        """A situation, by its address; what the page has computed for it."""
        self.page.evaluate(
            f"""async hash => {{
                history.replaceState(null, "", "#");
                const changed = new Promise(go => addEventListener("hashchange", go));
                location.hash = hash;
                await changed;
                await {DRAWN};
            }}""",
            "&".join(f"{key}={value}" for key, value in (state | {"seed": 3}).items()),
        )
        return self.read("page.state")

    def read(self, expression):
        """A value of the page; vectors as lists."""
        return self.page.evaluate(
            f"""() => {{
                const plain = value => ArrayBuffer.isView(value) ? Array.from(value)
                    : Array.isArray(value) ? value.map(plain) : value;
                const {{ page }} = window;
                return plain({expression});
            }}"""
        )

    def array(self, expression):
        return np.array(self.read(expression), dtype=float)

    def number(self, name):
        return float(self.page.locator(f"#value-{name}").get_attribute("data-value"))

    def text(self, selector):
        return self.page.locator(selector).inner_text()


@pytest.fixture(scope="module")
def opened(browser):
    opened = Opened(browser)
    yield opened
    opened.context.close()


@pytest.fixture
def fresh(browser):
    opened = Opened(browser)
    yield opened
    opened.context.close()


@pytest.fixture
def with_fault(browser, tmp_path):
    """The page with one wrong formula."""
    pages = []

    def wrong(old, new):
        text, file = PAGE.read_text(encoding="utf-8"), tmp_path / f"{len(pages)}.html"
        assert text.count(old) == 1, old
        file.write_text(text.replace(old, new), encoding="utf-8")
        pages.append(Opened(browser, file))
        return pages[-1]

    yield wrong
    for opened in pages:
        opened.context.close()


# The flow, its mass and its KL.


def fitted(opened, state, monkeypatch):
    """The flow that Python fits to the page's sample, and the sample."""
    package_name = opened.read("page.ode.density.inPackage")
    truth = density_of(package_name)[1]
    y, test = (torch.from_numpy(opened.array(f"page.ode.sample.{k}")) for k in ("y", "test"))
    dataset = Dataset(package_name, "", y, y[::50], test, truth.support, truth)
    monkeypatch.setattr(matching, "N_INDEPENDENT", opened.read("page.constants.N_INDEPENDENT"))
    model = flow_matching(
        dataset,
        coupling=state["coupling"],
        penalties=[state["penalty"]],
        n_times=opened.read(f"page.constants.N_TIMES.{state['coupling']}"),
    )
    steps = {"n_steps": state["T"], "method": state["method"], "logdet": state["count"]}
    return replace(model, **steps), dataset


def check_flow(opened, monkeypatch, **situation):
    """The paths, the density, the integrals and the means: all that the page says of a flow."""
    state = opened.show(**situation)
    model, dataset = fitted(opened, state, monkeypatch)
    y, weights = opened.array("page.ode.sample.quadrature")
    x, T = torch.from_numpy(model.units(torch.from_numpy(y)).numpy()), state["T"]
    states = opened.array("page.ode.solved.states")
    with torch.no_grad():
        for k in range(T, -1, -1):
            np.testing.assert_allclose(states[k], x, rtol=1e-6, atol=1e-7)
            x = runge_kutta_step(model.drift, x, k / T, -1 / T, state["method"])
    log_q = model.log_likelihood(torch.from_numpy(y)).numpy()
    np.testing.assert_allclose(opened.array("page.ode.logQ"), log_q, rtol=1e-6, atol=1e-7)

    by_package = compare(dataset, model.log_likelihood, 2001)
    with monkeypatch.context() as here:
        here.setattr(evaluation, "quadrature", lambda *_: (y, weights))
        on_nodes = compare(dataset, model.log_likelihood)
    np.testing.assert_allclose(opened.number("mass"), on_nodes.mass, **CLOSE)
    np.testing.assert_allclose(opened.read("page.ode.found.kl"), on_nodes.kl, **CLOSE)
    np.testing.assert_allclose(opened.number("kl"), on_nodes.normalized_kl, **CLOSE)
    assert opened.number("mass") == pytest.approx(by_package.mass, rel=1e-3), "other nodes"
    assert opened.number("kl") == pytest.approx(by_package.normalized_kl, rel=0.02, abs=1e-5)

    final = model.log_likelihood(dataset.test).mean().item()
    assert opened.number("final") == pytest.approx(final, abs=1e-3), "by a spline"
    np.testing.assert_allclose(opened.number("expected"), dataset.expected_log_likelihood, **CLOSE)
    mass, shown = opened.number("mass"), opened.text("#value-mass")
    assert shown == (f"{mass:.4f}" if mass < 1e4 else f"{mass:.2e}")
    assert opened.text("#value-kl") == f"{opened.number('kl'):.5f}"
    assert opened.text("#value-final") == f"{opened.number('final'):.4f}".replace("-", "−")


SITUATIONS = [  # density, steps, method, count, penalty, points
    ("claw", 10, "euler", "trace", 100, 10000),
    ("laplace_mixture", 10, "euler", "map", 10, 3000),
    ("gaussian_mixture", 100, "rk2", "trace", 1, 1000),
    ("student_t", 50, "rk4", "map", 1000, 10000),
    ("asymmetric_claw", 20, "rk4", "trace", 1000, 10000),
    ("skewed_unimodal", 30, "rk2", "map", 1e5, 300),
]


@pytest.mark.parametrize("coupling", matching.COUPLINGS)
@pytest.mark.parametrize("situation", SITUATIONS, ids=[row[0] for row in SITUATIONS])
def test_flow_mass_and_kl_are_those_of_the_package(opened, situation, coupling, monkeypatch):
    names = ("density", "T", "method", "count", "penalty", "n")
    chosen = dict(zip(names, situation, strict=True))
    check_flow(opened, monkeypatch, coupling=coupling, **chosen)
    assert opened.errors == []


SORTED = {"density": "claw", "T": 6, "method": "rk2", "n": 1000}
CROSSING = {"density": "laplace_mixture", "T": 12, "coupling": "independent", "count": "map"}
NOISY = {"density": "gaussian_mixture", "noise": "root"}


def test_the_right_page_passes_what_wrong_ones_fail(opened, monkeypatch):
    for situation in (SORTED, CROSSING):
        check_flow(opened, monkeypatch, **situation)
    check_sde(opened, **NOISY)


FLOW_FAULTS = {
    "standard deviation": ("squares / (y.length - 1)", "squares / y.length"),
    "penalty": ("penalty / x.length * value", "penalty * value"),
    "places": ("at[n - 1] - at[0]) / n", "at[n - 1] - at[0])"),
    "time": ("const t = (1 + z) / 2, root", "const t = (1 + z) / 2.01, root"),
    "far steps": ("before[first] - (before[J] - before[last])", "before[first]"),
    "slope of the drift": ("slope += steepness[j] *", "slope += height[j] *"),
    "midpoint": ("[[], [1 / 2]], [0, 1]", "[[], [1 / 2]], [1 / 2, 1 / 2]"),
    "trace": ("add(like(), like(), b, G)", "add(like(), like(), b, GU)"),
    "mass divided out": ("kl + Math.log(mass)", "kl - Math.log(mass)"),
    "direction of KL": ("Math.exp(p) * (p - logQ[i])", "Math.exp(logQ[i]) * (p - logQ[i])"),
    "weights of nodes": ("weights[i] = half * w[i % n]", "weights[i] = half * w[0]"),
    "units of the density": ("value => value - Math.log(scale)", "value => value"),
}


@pytest.mark.parametrize("fault", FLOW_FAULTS)
def test_a_wrong_flow_is_found(with_fault, fault, monkeypatch):
    opened = with_fault(*FLOW_FAULTS[fault])
    with pytest.raises(AssertionError):
        check_flow(opened, monkeypatch, **SORTED)


def check_band(opened, tolerance=1e-3, **situation):
    """The page's band is that of the package's smooth density of the same points.

    Where the density is above a twentieth of its peak. Beside a jump the package's own changes by
    half a percent if the points are moved by 1e-12 of their size, so there it is one percent.
    """
    opened.show(**situation)
    y = torch.from_numpy(opened.array("page.ode.sample.y"))
    units = Units.of(y)
    smooth = smoothing.posterior(units(y))
    log_p = smooth.log_p - math.log(units.scale)
    at = log_p > log_p.max() - 3
    x = units(torch.from_numpy(opened.array("page.ode.band.y"))).numpy()
    np.testing.assert_allclose(x, smooth.x, rtol=1e-9, atol=1e-9)
    for end, sign in (("low", -1), ("high", 1)):
        log_end = np.log(opened.array(f"page.ode.band.{end}")[at])
        wanted = (log_p + sign * ndtri(0.975) * smooth.sd)[at]
        np.testing.assert_allclose(log_end, wanted, rtol=0, atol=tolerance, err_msg=end)


@pytest.mark.parametrize("n", [30, 300, 10000])
@pytest.mark.parametrize("density", ["claw", "laplace_mixture", "uniform", "skewed_unimodal"])
def test_the_band_is_that_of_the_package(opened, density, n):
    check_band(opened, 1e-2 if density == "uniform" else 1e-3, density=density, n=n)
    assert "95 % band" in opened.text("#curve-caption")
    opened.show(density=density, n=n, band="off")
    assert opened.read("page.ode.band") is False
    assert "band" not in opened.text("#curve-caption")


BAND_FAULTS = {
    "level": ("DEVIATIONS = 1.959964", "DEVIATIONS = 1.645"),
    "variance a point": ("Math.max(inverse[0][k], 0) / n", "Math.max(inverse[0][k], 0)"),
    "bends": ("BEND = [1, -2, 1]", "BEND = [1, -2, 1.01]"),
    "inverse": ("second[i] = -u[i] * next[i + 1]", "second[i] = u[i] * next[i + 1]"),
    "what is known": ("- 4 * (next[j] + next[j + 1])", "- 2 * (next[j] + next[j + 1])"),
    "window": ("WINDOW = 25", "WINDOW = 23"),
}


@pytest.mark.parametrize("fault", BAND_FAULTS)
def test_a_wrong_band_is_found(with_fault, fault):
    opened = with_fault(*BAND_FAULTS[fault])
    with pytest.raises(AssertionError):
        check_band(opened, density="claw", n=1000)


def test_a_wrong_lattice_and_a_wrong_slope_of_steps_are_found(with_fault, monkeypatch):
    opened = with_fault("(i * golden + 0.5) % 1", "(i * golden) % 1")
    with pytest.raises(AssertionError):
        check_flow(opened, monkeypatch, **CROSSING)
    opened = with_fault("r.map(Math.log)", "r.map(v => v - 1)")
    with pytest.raises(AssertionError):
        check_flow(opened, monkeypatch, **CROSSING)


@pytest.mark.parametrize("T", [1, 4])
def test_a_fold_is_said_in_words_and_is_that_of_the_package(opened, T, monkeypatch):
    chosen = {"density": "laplace_mixture", "coupling": "independent", "T": T, "t": 0.5}
    state = opened.show(**chosen)
    model, _ = fitted(opened, state, monkeypatch)
    nodes = torch.tensor(opened.read("page.ode.sample.quadrature[0]"))
    with pytest.raises(ValueError, match="folds the line") as error:
        model.log_likelihood(nodes)
    fold, words = opened.read("page.ode.solved.fold"), opened.text("#words")
    r, t = (float(re.search(rf"{name} = ([-.\d]+)", str(error.value))[1]) for name in "rt")
    assert (fold["t"], fold["r"]) == pytest.approx((t, r), rel=5e-3)
    assert f"size {1 / T:g} back from t = {t:g} folds the line" in words
    assert "sorted pairs" in words
    assert opened.text("#value-mass") == opened.text("#value-kl") == "–"
    assert "problem" in opened.page.locator("#words").get_attribute("class")


def test_euler_by_trace_exceeds_one_and_says_so_and_map_does_not(opened):
    chosen = {"density": "laplace_mixture", "T": 4, "method": "euler"}
    opened.show(**chosen, count="trace")
    assert opened.number("mass") > 1.05
    assert f"The mass is {opened.number('mass'):.3f}, not 1" in opened.text("#words")
    opened.show(**chosen, count="map")
    assert opened.number("mass") == pytest.approx(1, abs=1e-4)
    assert "one to within 0.01" in opened.text("#words")


def check_densities(opened, names):
    """Each density is the package's, and what is drawn from it follows it."""
    for name in names:
        of = f"page.densities.get({name!r})"
        truth = density_of(opened.read(f"{of}.inPackage"))[1]
        y, weights = opened.array(f"{of}.quadrature")
        log_p = opened.array(f"{of}.quadrature[0].map(y => {of}.logP(y))")
        np.testing.assert_allclose(log_p, truth.log_prob(y), rtol=1e-9, atol=1e-9, err_msg=name)
        p = np.exp(log_p)
        assert weights @ p == pytest.approx(1, abs=1e-4), name
        expected = (weights * p)[p > 0] @ log_p[p > 0]
        assert expected == pytest.approx(truth.population_log_likelihood, abs=2e-4), name
        of_draws = truth.log_prob(opened.array(f"{of}.sample(10000, 0, 0)")).numpy()
        error = of_draws.std() / len(of_draws) ** 0.5
        assert abs(of_draws.mean() - expected) < 4.5 * error + 2e-4, f"{name}: one in 1e5"


def test_the_densities_are_those_of_the_package(opened):
    names = opened.read("[...page.densities.keys()]")
    assert len(names) > 30
    check_densities(opened, names)


DENSITY_FAULTS = [
    ("laplace", "-Math.abs(z) - Math.log(2)", "-Math.abs(z)"),
    ("student_t", "3 * Math.log1p(z * z / 5)", "2.5 * Math.log1p(z * z / 5)"),
    ("isosceles_triangle", "random => random() - random()", "random => 2 * random() - 1"),
    ("caliper", "(0.1 + middle(random, 2, 4) ** 3)", "(0.1 + middle(random, 1, 4) ** 3)"),
]


@pytest.mark.parametrize(("name", "old", "new"), DENSITY_FAULTS)
def test_a_wrong_density_is_found(with_fault, name, old, new):
    opened = with_fault(old, new)
    with pytest.raises(AssertionError, match=name):
        check_densities(opened, [name])


# The SDE.


class RootTwoBeta(ConstantDiffusion):
    """sigma = sqrt(2 beta)."""

    def forward(self, x, t):
        return (2 * self.path.schedule(t)[1]).sqrt()


class Prediction(MixtureDenoiser):
    """The denoiser as a drift net: called with x and t."""

    predicts_y = True

    def __init__(self, path, mixture):
        super().__init__(mixture)
        self.path = path

    def forward(self, x, t):
        a, beta, _, _ = self.path.schedule(t)
        return super().forward(x / beta, a / beta)


def check_sde(opened, **situation):
    """The paths from the page's own random numbers, its bound, and the density it says it has."""
    state = opened.show(view="sde", **situation)
    truth = density_of(opened.read("page.sde.density.inPackage"))[1]
    loc, scale = (opened.read(f"page.sde.model.{k}") for k in ("loc", "scale"))
    path = LinearPath(opened.read("page.constants.DELTA"))
    noise = {
        "r": OptimalDiffusion(path, state["r"]),
        "one": ConstantDiffusion(path),
        "root": RootTwoBeta(path),
    }[state["noise"]]
    weights, means, sds = torch.from_numpy(opened.array("page.sde.model.parts")).T
    model = SDE(path, noise, Prediction(path, Mixture(weights, means, sds)), path.delta)

    y, w = opened.array("page.sde.density.quadrature")
    y, w_p = torch.from_numpy(y), w * truth.log_prob(y).exp().numpy()
    assert loc == pytest.approx(w_p @ y.numpy(), abs=1e-4)
    assert scale == pytest.approx((w_p @ (y.numpy() - loc) ** 2) ** 0.5, rel=2e-4)
    expected = truth.population_log_likelihood
    assert opened.number("expected") == pytest.approx(expected, abs=1e-4)
    widened = Mixture(weights, means, (sds**2 + 2 * path.delta**2).sqrt())
    log_q = widened((y - loc) / scale) - math.log(scale)
    kl = w_p @ (truth.log_prob(y) - log_q).numpy()
    assert opened.number("kl") == pytest.approx(kl, rel=1e-6)

    states, z = (torch.from_numpy(opened.array(f"page.sde.{k}")) for k in ("states", "noise"))
    n_steps = len(states) - 1
    times = path.time(torch.linspace(0, 1, n_steps + 1, dtype=torch.float64)).clamp(max=1)
    for k in (0, 1, n_steps // 2, n_steps - 1):
        x, t, dt = states[k], times[k].expand(states.shape[1]), times.diff()[k]
        sigma = noise(x, t)
        after = x + model.drift(x, t, sigma, 0.0) * dt + sigma * dt.sqrt() * z[k + 1]
        torch.testing.assert_close(states[k + 1], after, rtol=1e-6, atol=1e-9)
    if state["noise"] == "r" and state["r"] == 0:
        assert opened.text("#value-gap") == "∞"
        return
    known = Dataset("", "", y, y, y, truth.support, truth)
    lost = best_loss(path, noise, lambda s: mmse(known, loc, scale, s), 48)
    at_ends = -0.5 * math.log(2 * math.pi) - math.log(path.delta) - 0.5
    bound = at_ends - (lost[1] @ lost[2]).item() - math.log(scale)
    assert opened.number("bound") == pytest.approx(bound, rel=1e-6)
    gap = opened.number("gap")
    assert gap == pytest.approx(opened.number("expected") - opened.number("bound"), abs=1e-12)
    by_point = elbo(model, (y - loc) / scale, 48, 64).numpy() - math.log(scale)
    mean = np.average(by_point, weights=w_p)
    assert opened.number("bound") == pytest.approx(mean, abs=0.01 + 0.02 * gap), "point by point"


SDES = [
    ("claw", {"r": 1}),
    ("gaussian_mixture", {"r": 0.25}),
    ("separated_bimodal", {"r": 16}),
    ("skewed_unimodal", {"noise": "one"}),
    ("outlier", {"noise": "root"}),
    ("gaussian", {"r": 0}),
]


@pytest.mark.parametrize(("density", "noise"), SDES, ids=[row[0] for row in SDES])
def test_the_sde_is_that_of_the_package(opened, density, noise):
    with np.errstate(divide="ignore"):
        check_sde(opened, density=density, **noise)
    assert opened.errors == []


SDE_FAULTS = {
    "bound": ("variance * a / (2 * beta * beta)", "variance * a / (beta * beta)"),
    "drift": ("variance * eps / (2 * path.beta)", "variance * eps / path.beta"),
    "prediction": ("gain: a * sd * sd / variance", "gain: a * sd / variance"),
    "noise": ("root: path => 2 * path.beta", "root: path => path.beta"),
    "density": ("a: 1, beta: Math.SQRT2 * DELTA", "a: 1, beta: DELTA"),
    "standard deviation": ("(loc - mean) ** 2 + scale ** 2", "scale ** 2"),
    "error of the prediction": ("(spread + miss * miss)", "(spread)"),
}


@pytest.mark.parametrize("fault", SDE_FAULTS)
def test_a_wrong_sde_is_found(with_fault, fault):
    opened = with_fault(*SDE_FAULTS[fault])
    with pytest.raises(AssertionError):
        check_sde(opened, **NOISY)


def test_marginals_stay_and_the_bound_moves(opened):
    found = {}
    for r in (0.25, 1, 4):
        opened.show(view="sde", density="claw", r=r)
        found[r] = [opened.number(name) for name in ("kl", "gap")]
    assert found[0.25][0] == found[1][0] == found[4][0]
    assert found[1][1] < found[4][1]
    assert found[1][1] < found[0.25][1]


# The controls.


def moved(opened, move):
    """What of the state a control has changed, once drawn; the address says the same."""
    before = opened.read("page.state")
    move()
    opened.settle()
    after = opened.read("page.state")
    opened.page.wait_for_timeout(250)
    hash = opened.page.evaluate("location.hash")[1:]
    changed = {key: value for key, value in after.items() if before[key] != value}
    for key, value in changed.items():
        assert parse_qs(hash).get(key, [f"{opened.read(f'page.start.{key}')}"]) == [f"{value}"]
    return changed


def test_each_control_moves_what_it_says(fresh):
    page = fresh.page
    press = lambda name, key: lambda: page.locator(f"#{name}").press(key)
    choose = lambda value: lambda: page.locator(f"label:has(input[value={value}])").click()
    assert moved(fresh, press("T", "ArrowRight")) == {"T": 11}
    assert moved(fresh, press("n", "ArrowLeft")) == {"n": 3000}
    assert moved(fresh, press("seed", "ArrowRight")) == {"seed": 1}
    assert moved(fresh, press("penalty", "ArrowLeft")) == {"penalty": 10}
    assert moved(fresh, press("t", "ArrowLeft")) == {"t": 0.99}
    assert moved(fresh, choose("independent")) == {"coupling": "independent"}
    assert moved(fresh, choose("rk4")) == {"method": "rk4"}
    assert moved(fresh, choose("rk2")) == {"method": "rk2"}
    assert moved(fresh, choose("map")) == {"count": "map"}
    select = lambda name, value: lambda: page.locator(f"#{name}").select_option(value)
    assert moved(fresh, select("density", "trimodal")) == {"density": "trimodal"}
    assert moved(fresh, select("theme", "dark")) == {"theme": "dark"}
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert not page.locator("#r").is_visible()
    assert moved(fresh, choose("sde")) == {"view": "sde"}
    assert not page.locator("#T").is_visible()
    gap = fresh.number("gap")
    assert moved(fresh, press("r", "ArrowRight")) == {"r": 1.19}
    assert fresh.number("gap") > gap
    assert moved(fresh, press("r", "Home")) == {"r": 0}
    assert moved(fresh, choose("one")) == {"noise": "one"}
    assert page.locator("#r").is_disabled()
    assert moved(fresh, choose("root")) == {"noise": "root"}
    page.locator("#copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    assert fresh.errors == []
    assert {url.partition("#")[0] for url in fresh.requests} == {PAGE.as_uri()}, "no request"


def test_an_address_is_read_and_what_is_wrong_in_it_is_said(fresh):
    fresh.show(density="marron_wand_10", T=4)
    assert fresh.read("page.state.density") == "claw"
    assert fresh.page.locator("#T-out").inner_text() == "4"
    fresh.show(T=1000, methods="euler", density="magic")
    words = fresh.text("#words")
    assert "T must be 1 to 100, not “1000”" in words
    assert "“methods”; known are view, density" in words
    assert "not “magic”" in words
    fresh.show(view="sde", density="laplace_mixture")
    assert "Laplace mixture is no mixture of Gaussians" in fresh.text("#words")


def test_play_moves_t_to_one_and_can_be_stopped(fresh):
    fresh.show(t=0.8)
    play = fresh.page.locator("#play")
    play.press("Enter")
    assert play.inner_text() == "Stop"
    fresh.page.wait_for_function("window.page.state.t === 1")
    assert play.inner_text() == "Play"
    play.click()
    fresh.page.wait_for_function("window.page.state.t > 0 && window.page.state.t < 1")
    play.click()
    t = fresh.read("page.state.t")
    fresh.page.wait_for_timeout(200)
    assert fresh.read("page.state.t") == pytest.approx(t, abs=0.03)
    assert fresh.errors == []


def test_a_pasted_column_has_a_flow_and_no_truth(fresh):
    page, rng = fresh.page, np.random.default_rng(0)
    paste = lambda text: (page.locator("#pasted").fill(text), page.locator("#use").click())
    page.locator("#own summary").click()
    paste("waiting\n1.5\nsoon\n")
    assert page.locator("#own-problem").inner_text() == "Line 3: “soon” is not a number."
    paste("1\n2\n3")
    assert "3 numbers are too few" in page.locator("#own-problem").inner_text()
    values = rng.gamma(4, size=500)
    text = "waiting\n" + "\n".join(f"{value:.6f}" for value in values)
    assert moved(fresh, lambda: paste(text)) == {"density": "own"}
    assert fresh.number("mass") == pytest.approx(1, abs=0.02)
    assert fresh.text("#value-kl") == fresh.text("#value-expected") == "–"
    used = fresh.read("[...page.ode.sample.y, ...page.ode.sample.test]")
    np.testing.assert_allclose(sorted(used), sorted(values.round(6)))
    moved(fresh, lambda: paste(text.replace(".", ",")))
    assert sorted(fresh.read("[...page.ode.sample.y, ...page.ode.sample.test]")) == sorted(used)
    assert fresh.errors == []


# How it looks, and whether all can use it.


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("view", ["ode", "sde"])
def test_it_fits_and_is_drawn(browser, width, dark, view):
    opened = Opened(browser, width=width, dark=dark)
    opened.show(view=view, density="claw", t=0.8, r=4)
    name = f"page-{view}-{width}-{'dark' if dark else 'light'}.png"
    opened.page.screenshot(path=SCREENSHOTS / name, full_page=True)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    for canvas in opened.page.locator("canvas:visible").all():
        colours = canvas.evaluate(
            "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height)"
            ".data.buffer)).size"
        )
        assert colours > 20
    opened.context.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The script of axe-core, which looks for what keeps people from using a page."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm, by which axe-core comes")
    done = subprocess.run([npm, "pack", AXE], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm could not fetch {AXE}: {done.stderr[-300:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as packed:
        return packed.extractfile("package/axe.min.js").read().decode()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("state", [{}, {"view": "sde"}, {"coupling": "independent", "T": 1}])
def test_axe_finds_no_fault(browser, axe, dark, state):
    opened = Opened(browser, dark=dark)
    opened.show(**state)
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    opened.page.evaluate(axe)
    faults = lambda: opened.page.evaluate("axe.run().then(found => found.violations)")
    assert [(fault["id"], fault["impact"], fault["nodes"][0]["html"]) for fault in faults()] == []
    opened.page.evaluate("document.querySelector('label[for=seed]').remove()")
    assert [fault["id"] for fault in faults()] == ["label"], "the test can fail"
    opened.context.close()
