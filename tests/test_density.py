"""A density in one line: its functions agree with each other, with its model and with the truth."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import CensoredData, ecdf, expon, kstest, laplace, norm, pareto

from conftest import ROOT
from dlutils import FittedDensity, fit_density
from dlutils.data.datasets import make_dataset
from dlutils.data.units import Arsinh, Inside
from dlutils.density.command import main
from dlutils.density.curve import Curve
from dlutils.density.observations import observe
from dlutils.flows.methods import runge_kutta_step


@pytest.fixture(scope="module")
def laplaces():
    return make_dataset("laplace_mixture", 800, 2, 2, seed=3)


@pytest.fixture(scope="module")
def fits(laplaces) -> dict[str, FittedDensity]:
    return {model: fit_density(laplaces.train, model=model) for model in ("best", "flow", "sde")}


def test_a_curve_has_its_closed_forms():
    x = np.linspace(-6, 6, 2001)
    curve = Curve(x, norm.logpdf(x) + 2)
    at, u = np.array([-9.0, -6, -1, 0, 0.3, 2, 6, 9]), np.array([0, 1e-4, 0.01, 0.5, 0.7, 1])
    assert curve.mass == pytest.approx(math.exp(2), rel=1e-5)
    np.testing.assert_allclose(curve.cdf(at), norm.cdf(at), atol=1e-6)
    np.testing.assert_allclose(curve.log_density(at[1:-1]), norm.logpdf(at[1:-1]), atol=1e-4)
    np.testing.assert_allclose(curve.cdf(curve.quantile(u)), u, atol=1e-12)
    np.testing.assert_allclose(curve.quantile(u), norm.ppf(u), atol=1e-4)
    kinked = Curve(np.array([-9.0, 0, 9]), laplace.logpdf([-9, 0, 9]))  # log-linear: exact
    np.testing.assert_allclose(kinked.cdf(at), laplace.cdf(at), atol=1e-14)
    flat = Curve(np.array([0.0, 1, 2]), np.array([0.0, 0, -700]))
    assert flat.quantile(flat.cdf(np.array([0.25, 0.75]))) == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("model", ["best", "flow", "sde"])
def test_the_functions_are_of_one_density_that_is_near_the_truth(fits, laplaces, model):
    q = fits[model]
    y = np.linspace(-5, 5, 20001)
    p = q.pdf(y)
    assert q.cdf(5.0) - q.cdf(-5.0) == pytest.approx(np.trapezoid(p, y), abs=1e-6)
    np.testing.assert_allclose(np.gradient(q.cdf(y), y)[1:-1], p[1:-1], atol=2e-3)
    np.testing.assert_allclose(q.quantile(q.cdf(y[::500])), y[::500], atol=1e-6)
    log_p = laplaces.log_prob(y).numpy()
    assert 0 < np.trapezoid(np.exp(log_p) * (log_p - q.log_prob(y)), y) < 0.02
    assert q.log_prob(y[:6].reshape(2, 3)).shape == (2, 3)
    assert np.ndim(q.pdf(0.0)) == 0
    assert np.isnan(q.pdf(np.nan))


def test_a_flow_is_what_it_says(fits):
    """F(y) is the normal's at the noise that the flow carries to y; its density is the model's."""
    q = fits["flow"]
    y = torch.linspace(-4, 4, 41, dtype=torch.float64)
    x, h = q.units(y), 1 / q.model.n_steps
    for k in reversed(range(q.model.n_steps)):
        x = runge_kutta_step(q.model.drift, x, (k + 1) * h, -h, q.model.method)
    np.testing.assert_allclose(q.cdf(y), norm.cdf(x.detach()), atol=1e-4)
    np.testing.assert_allclose(q.log_prob(y), q.model.log_likelihood(y), atol=5e-3)
    assert q.chosen.curve.mass == pytest.approx(1, abs=1e-3)


def test_the_sde_is_what_it_says(fits):
    q = fits["sde"]
    y = torch.linspace(-4, 4, 41, dtype=torch.float64)
    np.testing.assert_allclose(q.pdf(y), q.model.log_likelihood(y).exp(), atol=2e-3)


def test_draws_follow_the_density_and_repeat(fits):
    q = fits["best"]
    draws = q.sample(2000, seed=1)
    assert kstest(draws, q.cdf).pvalue > 1e-4, "once in 10 000 seeds"
    np.testing.assert_array_equal(draws, q.sample(2000, seed=1))
    assert (draws != q.sample(2000, seed=2)).all()


def test_the_band_covers_and_widens_with_the_level(laplaces, fits):
    y = np.linspace(-4, 4, 801)
    (low, high), (wider_low, wider_high) = (fits["best"].band(y, level) for level in (0.8, 0.95))
    assert (wider_low < low).all()
    assert (low < fits["best"].pdf(y)).all()
    assert (high < wider_high).all()
    p, covered = laplaces.log_prob(y).exp().numpy(), []
    for seed in range(4):
        low, high = fit_density(make_dataset("laplace_mixture", 400, 2, 2, seed).train).band(y)
        covered.append(p @ ((low < p) & (p < high)) / p.sum())
    assert np.mean(covered) > 0.8
    with pytest.raises(ValueError, match="level must lie between 0 and 1, not 95"):
        fits["best"].band(y, 95)


def test_the_summary_says_what_was_chosen(fits):
    text = fits["best"].summary()
    for word in (
        "sample: 800",
        "by evidence",
        "nats before",
        "effective parameters",
        "mass",
        "seconds",
    ):
        assert word in text
    assert "as asked for" in fits["sde"].summary()


def test_all_count_mean_and_variance_among_their_parameters():
    y = make_dataset("gaussian", 300, 2, 2, seed=0).train
    for q in (flow := fit_density(y, model="flow"), sde := fit_density(y, model="sde")):
        height, chosen = 300 * q.log_likelihood, q.chosen
        assert chosen.evidence == pytest.approx(height - chosen.n_parameters)
    assert sde.chosen.n_parameters == 2, "one Gaussian"
    assert flow.chosen.n_parameters > 2


def test_the_picture_has_density_band_and_histogram(fits):
    ax = fits["best"].plot()
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert labels == {"data", "density", "95% band"}
    assert ax.get_xlim() == pytest.approx(fits["best"].range())


def test_bounds_weights_and_rounding_are_kept():
    y = np.random.default_rng(0).gamma(2, size=600)
    q = fit_density(y, support=(0, math.inf))
    assert isinstance(q.units.bends[0], Inside)
    assert q.pdf([-1.0, 0.0]).tolist() == [0, 0]
    assert q.cdf([-1.0, 0.0, math.inf]).tolist() == [0, 0, 1]
    assert q.quantile([0.0, 1.0]).tolist() == [0, math.inf]
    assert q.sample(1000).min() > 0
    counts = 1 + 3 * (y > 2)
    many, few = fit_density(np.repeat(y, counts)), fit_density(y, weights=counts)
    assert few.cdf(2.0) == pytest.approx(many.cdf(2.0), abs=0.02)
    assert abs(few.cdf(2.0) - q.cdf(2.0)) > 0.2, "they matter"
    rounded = fit_density(np.round(2 * y) / 2, support=(0, math.inf), rounding=0.5)
    assert rounded.cdf(2.25) == pytest.approx(q.cdf(2.25), abs=0.03)


def test_heavy_tails_are_seen_through_arsinh():
    y = make_dataset("benchden_06", 500, 2, 2, seed=1).train  # Cauchy
    assert any(isinstance(bend, Arsinh) for bend in fit_density(y).units.bends)


def test_a_file_a_series_and_an_array_are_the_same(tmp_path):
    y = np.random.default_rng(1).normal(170, 8, 200).round(2)
    frame = pd.DataFrame({"height": y, "censored": 0})
    frame.to_csv(tmp_path / "people.csv", index=False)
    file = fit_density(f"{tmp_path / 'people.csv'}:height", censored="censored")
    at = np.linspace(150, 190, 9)
    for q in (fit_density(frame["height"]), fit_density(y)):
        np.testing.assert_array_equal(q.pdf(at), file.pdf(at))
    assert file.observations.name == "people, height"
    assert fit_density(frame["height"]).observations.name == "height"


def censored_exponential(share: float, n: int = 1000, seed: int = 0):
    """Times, censored at random so that this share is; and whether each is."""
    random = np.random.default_rng(seed)
    t, c = random.exponential(size=n), random.exponential((1 - share) / share, size=n)
    return np.minimum(t, c), t > c


def test_censored_values_count_as_what_is_known_of_them():
    y, censored = censored_exponential(0.5)
    q = fit_density(y, censored=censored, support=(0, math.inf))
    at = np.array([0.25, 0.5, 1.0])
    known = ecdf(CensoredData.right_censored(y, censored)).cdf
    np.testing.assert_allclose(q.cdf(at), expon.cdf(at), atol=0.08)  # some four standard errors
    np.testing.assert_allclose(q.cdf(at), known.evaluate(at), atol=0.05)
    ignored = fit_density(y, support=(0, math.inf)).cdf(1.0)
    assert ignored - expon.cdf(1.0) > 0.15, "as if they were known"
    z = q.band(1.0)
    assert z[1] - z[0] > np.ptp(fit_density(y, support=(0, math.inf)).band(1.0)), "knows less"


def test_left_and_interval_censored_values():
    y = np.random.default_rng(2).normal(size=800)
    at = np.array([-1.0, 0.0, 1.0])
    left = fit_density(np.maximum(y, -0.5), censored=np.where(y < -0.5, "left", "no"))
    np.testing.assert_allclose(left.cdf(at)[1:], norm.cdf(at)[1:], atol=0.07)
    low = np.where(y > 0, np.floor(2 * y) / 2, y)  # the positive ones to a half
    both = fit_density(np.stack([low, np.where(y > 0, low + 0.5, y)], axis=1))
    np.testing.assert_allclose(both.cdf(at), norm.cdf(at), atol=0.07)


def test_truncated_data_are_of_the_whole():
    y = np.random.default_rng(3).normal(size=3000)
    seen = y[(y > -1) & (y < 2)]
    q = fit_density(seen, truncated=(-1, 2))
    at = np.array([0.0, 1.0])
    inside = lambda cdf: (cdf(at) - cdf(-1.0)) / (cdf(2.0) - cdf(-1.0))
    np.testing.assert_allclose(inside(q.cdf), inside(norm.cdf), atol=0.04)
    assert q.cdf(-1.0) > 0.05, "something lies where nothing was recorded"
    assert fit_density(seen).cdf(-1.0) < 0.03


def test_a_histogram_where_the_density_jumps_and_not_where_points_are_few():
    box = fit_density(make_dataset("uniform", 400, 2, 2, seed=1).train)
    assert box.chosen.name == "SDE from a histogram of 1 bins"
    assert box.pdf([-0.9, 0.0, 0.9]) == pytest.approx([0.5] * 3, rel=0.03)
    y = torch.linspace(-0.9, 0.9, 5, dtype=torch.float64)
    quick = replace(box.model, n_steps=120)  # of the Fokker-Planck equation
    np.testing.assert_allclose(box.pdf(y), quick.log_likelihood(y).exp(), rtol=0.01)
    few = fit_density(np.random.default_rng(0).normal(size=7))
    assert few.chosen.name != "SDE from a histogram of 1 bins"


def test_no_histogram_through_arsinh():
    """Steps for the slope of Pareto's density have most evidence here, and no band for it."""
    y = make_dataset("benchden_09", 10_000, 2, 2, seed=102).train
    q, steps = fit_density(y), fit_density(y, model="histogram")
    assert q.chosen.name == "flow"
    assert steps.chosen.evidence > q.chosen.evidence
    at = np.geomspace(1.05, 100, 50)
    covered = []
    for low, high in (q.band(at), steps.band(at)):
        covered.append(np.mean((low < pareto(0.5).pdf(at)) & (pareto(0.5).pdf(at) < high)))
    assert covered[0] > 0.8 > 0.5 > covered[1]


def test_boxes_far_apart_have_a_density_everywhere():
    y = make_dataset("benchden_26", 10_000, 2, 2, seed=11).train  # forty times as far as wide
    q = fit_density(y, model="histogram")
    assert np.isfinite(q.log_prob(np.linspace(-24, 24, 101))).all()
    assert q.cdf(10.0) - q.cdf(1.0) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": [1.0, 2, 3]}, "3 values are too few for a density: at least 5"),
        ({"y": [1.0, 2, math.nan, 4, 5, 6]}, "data must be finite.*nan at index 2"),
        ({"model": "spline"}, "unknown model 'spline'; choose from best, flow, sde"),
        ({"weights": "w"}, "weights = 'w' names a column, so the data must be a file"),
        ({"censored": [0, 1]}, "6 values need as many marks in censored, not 2"),
        ({"censored": [0, 0, 0, 0, 0, 7]}, "not 7 at index 5"),
        ({"censored": [1, 1, 0, 0, 0, 0]}, "4 are known: at least 5"),
        ({"truncated": (3, 1)}, r"truncated must be \(a, b\) with a < b, not \(3, 1\)"),
        ({"truncated": (1, 4)}, r"nothing outside truncated = \(1, 4\).*2 of 6 values.*5"),
        ({"y": [[1, 2], [3, 2]]}, r"an interval must be \(low, high\), not \(3.0, 2.0\) in row 1"),
        ({"y": [[1, 2, 3]]}, r"\(n, 2\) for intervals, not \(1, 3\)"),
        ({"support": (2, 9)}, "data must lie inside their support"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        fit_density(**{"y": [1.0, 2, 3, 4, 5, 6]} | options)


def test_nothing_hidden_is_no_censoring():
    seen = observe([1.0, 2, 3, 4, 5], censored=[False, 0, "no", 0, ""])
    assert seen.is_complete
    assert seen.n == 5


def test_the_command_draws_and_saves(tmp_path, capsys):
    y = np.random.default_rng(0).gamma(4, size=200)
    pd.DataFrame({"height": y}).to_csv(tmp_path / "data.csv", index=False)
    source, folder = f"{tmp_path / 'data.csv'}:height", tmp_path / "out"
    assert main(["fit", source, "--support", "0", "inf", "--folder", str(folder)]) == 0
    assert "effective parameters" in capsys.readouterr().out
    saved = torch.load(folder / "data_height_density.pt", weights_only=False)
    table = pd.read_csv(folder / "data_height_density.csv")
    np.testing.assert_allclose(saved.pdf(table["y"].to_numpy()), table["density"], rtol=1e-9)
    assert (folder / "data_height_density.png").exists()
    with pytest.raises(SystemExit):
        main(["fit", str(tmp_path / "none.csv")])
    assert "there is no file" in capsys.readouterr().err


def test_the_package_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "dlutils", "fit", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert "data.csv:height" in done.stdout, done.stderr
