"""The bound solved in closed form: the quadratic is the notebook's bound, the solve its minimum."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from dlutils.compression import compress
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.diffusion import closed_form, quadratic
from dlutils.diffusion.closed_form import Sample, Solution, data_nodes, search
from dlutils.diffusion.denoisers import GaussianDenoiser, MixtureDenoiser
from dlutils.diffusion.quadratic import Table, change, curvature, diffusion_terms
from dlutils.estimators.yardsticks import Mixture
from dlutils.evaluation import compare

DELTA = 0.01
FEW = {"n_knots": 60, "n_times": 8, "n_bins": 100}


def standardized(name="laplace_mixture", n=2000):
    y = make_dataset(name, n_train=n, n_test=2).train.double()
    return (y - y.mean()) / y.std()


def two_bells():
    parts = [[0.4, 0.6], [-0.9, 0.6], [0.5, 0.8]]
    return MixtureDenoiser(Mixture(*torch.tensor(parts).double()))


def table_of(knots, n_times, entries=None):
    table = Table(torch.as_tensor(knots, dtype=torch.float64), n_times)
    if entries is not None:
        table.c.data = torch.as_tensor(entries)
    return table


SMALL = table_of(torch.linspace(-4, 4, 21), 6)


def loss_of(table, nodes=None, denoiser=None):
    nodes = data_nodes(standardized())[0] if nodes is None else nodes
    return diffusion_terms(table, [nodes], DELTA, denoiser or GaussianDenoiser())[0]


@pytest.mark.parametrize(
    ("path", "denoiser"),
    [("linear", GaussianDenoiser()), ("variance_preserving", two_bells())],
)
def test_the_quadratic_is_what_the_notebooks_bound_loses(sde, path, denoiser):
    y, w = compress(standardized(), 30)
    w /= w.sum()
    knots = closed_form.knots_for(y.numpy(), w.numpy(), 33)
    table = table_of(knots, 24, (3 * knots).cos()[:, None] * torch.linspace(0.2, 1, 24))
    route = sde.PATHS[path](DELTA)
    drift = sde.BasisDrift(route, denoiser, table)
    model = sde.SDE(route, sde.OptimalDiffusion(route), drift, DELTA)
    with torch.no_grad():
        bound = sde.elbo(model, y, 200, 100)
        lost = w @ (sde.reconstruction(model, y) - sde.prior_kl(model, y) - bound)
    loss = loss_of(table, (y.numpy(), w.numpy()), denoiser)
    value = loss(table.c.detach().numpy())
    assert value == pytest.approx(lost.item(), rel=2e-4)
    assert abs(value - loss.constant) > 0.02, "the table matters"


def test_the_noisy_data_are_a_convolution():
    nodes = np.array([-0.7, 0.31, 1.3]), np.array([0.2, 0.5, 0.3])
    other = np.array([0.0, 0.5]), np.array([0.5, 0.5])
    for s in (0.02, 1.0, 30.0):
        g, mass = quadratic.noisy([nodes, other], s, 0.1)
        for (y, w), found in zip((nodes, other), mass, strict=True):
            phi = 0.1 * np.exp(-((g[:, None] - s * y) ** 2) / 2) / np.sqrt(2 * np.pi)
            np.testing.assert_allclose(found, [phi @ w, phi @ (w * y)], atol=1e-4)
    y, w = np.linspace(-1, 1, 1001), np.full(1001, 1 / 1001)
    for s in (1.0, 30.0):
        g, mass = quadratic.noisy([(y, w)], s, 0.5)
        spread = mass[0, 0] @ g**2 - s**2 * (w @ y**2)
        assert spread == pytest.approx(1, abs=3e-3), "what the grid adds is taken from the noise"


@pytest.mark.parametrize("shape", [(3, 2), (5, 6)])
def test_the_banded_solve_equals_the_dense_one(shape):
    J, K = shape
    table = table_of(torch.linspace(-3, 3, J), K)
    total = loss_of(table) + 1e-3 * (curvature(table, DELTA) + change(table, DELTA))
    A = sum(np.diag(band.ravel()[: J * K - n], -n) for n, band in total.bands.items())
    A, b = A + np.tril(A, -1).T, total.linear.ravel()
    assert np.linalg.eigvalsh(A).min() > 0
    np.testing.assert_allclose(total.minimum().ravel(), np.linalg.solve(A, b), rtol=1e-6)
    c = np.random.default_rng(0).normal(size=shape)
    by_hand = total.constant - 2 * b @ c.ravel() + c.ravel() @ A @ c.ravel()
    assert total(c) == pytest.approx(by_hand, rel=1e-10)


def test_the_table_is_bilinear_and_constant_beyond_its_knots():
    knots, entries = [-2.0, -0.5, 0.1, 3.0], torch.randn(4, 5).double()
    expected = RegularGridInterpolator((knots, np.linspace(0, 1, 5)), entries.numpy())
    z, u = (10 * torch.rand(500) - 5).double(), torch.rand(500).double()
    u[:2] = torch.tensor([0.0, 1.0])
    found = table_of(knots, 5, entries)(z, u).detach().numpy()
    points = np.stack([z.clamp(-2, 3).numpy(), u.numpy()], axis=1)
    np.testing.assert_allclose(found, expected(points), atol=1e-12)


def test_penalties_leave_alone_what_they_are_not_about():
    table = table_of([-1.0, -0.5, 0.0, 0.5, 1.0], 4)
    knots, bends, moves = table.knots.numpy(), curvature(table, DELTA), change(table, DELTA)
    line = np.outer(knots, [1.0, -2.0, 0.5, 3.0])
    still = np.outer([1.0, -1.0, 2.0, 0.0, 5.0], np.ones(4))
    assert bends(line) == pytest.approx(0, abs=1e-9)
    assert bends(still) > 1e-3
    assert moves(still) < 0.01 * moves(line), "but for its size"
    parabola = np.outer(knots**2 / 2, [0.0, 0.0, 0.0, 1.0])
    s = quadratic.root_snr(np.array([1.0]), DELTA)[0]
    weight = np.log1p(DELTA**-2) * (s + DELTA / 2) ** 2 / (1 + s**2) ** 4 / 3
    assert bends(parabola) == pytest.approx(1.5 * weight), "one, on three intervals of a half"


def test_smooth_nodes_have_the_moments_of_the_data():
    y = standardized("marron_wand_08")
    (x, weights), parameters = closed_form.smooth_nodes(y)
    assert (np.diff(x) > 0).all()
    for k in (0, 1, 2, 3):
        assert weights @ x**k == pytest.approx((y**k).mean().item(), abs=0.03 if k else 1e-6)
    assert 3 < parameters < 20


def test_the_penalties_are_the_validation_points_choice():
    """Without any held out the weakest; nothing is known without them, so the first."""
    y, strong, weak = standardized(), (1e3, 1e3), (1e-6, 1e-6)
    nodes, n = data_nodes(y)
    solve = lambda sample, *pairs: closed_form.solve(
        SMALL, GaussianDenoiser(), sample, DELTA, pairs
    )
    plain, best = solve(Sample(nodes, val=(nodes, n)), strong, weak)
    assert (plain.penalties, best.penalties) == (None, weak)
    assert not plain.table.c.any()
    loss = loss_of(SMALL, nodes)
    gain = loss.constant - loss(best.table.c.detach().numpy())
    assert best.bound - plain.bound == pytest.approx(gain)
    assert gain > 0.01
    few = Sample(data_nodes(y[:30])[0], val=data_nodes(y[30:]))
    _, chosen = solve(few, weak, (1e-2, 1e-2))
    assert chosen.penalties == (1e-2, 1e-2), "and not the training points'"
    (blind,) = solve(Sample(nodes), strong, weak)
    assert (blind.penalties, blind.bound, blind.evidence) == (strong, None, None)
    assert blind.table.c.abs().max() < 0.1 * best.table.c.abs().max()


def test_evidence_is_the_bound_on_all_points_less_the_parameters():
    denoiser, rest = two_bells(), -np.log(DELTA) - (1 + np.log(2 * np.pi)) / 2
    train, val = (data_nodes(standardized(n=n)) for n in (2000, 500))
    solve = lambda **more: closed_form.solve(SMALL, denoiser, Sample(train[0], 9, **more), DELTA)
    _, *losses = diffusion_terms(SMALL, [train[0], val[0], train[0]], DELTA, denoiser)
    for solution, parameters in zip(solve(val=val, train=train), (3, 9), strict=True):
        by_val, by_train = (rest - loss(solution.table.c.detach().numpy()) for loss in losses)
        assert solution.bound == pytest.approx(by_val)
        assert solution.evidence == pytest.approx(500 * by_val + 2000 * by_train - parameters)
    for solution in solve(val=val):
        assert solution.evidence == pytest.approx(500 * solution.bound), "they alone"


def test_what_is_more_needs_strong_evidence():
    solution = Solution(GaussianDenoiser(), SMALL, DELTA, None, 0.0, 10.0)
    little, much = (replace(solution, evidence=value) for value in (12.9, 13.1))
    assert closed_form.preferred([solution, little]) is solution
    assert closed_form.preferred([solution, little, much]) is much


def test_a_mixture_is_not_corrected(sde):
    """And what chooses is the notebook's bound."""
    data = make_dataset("marron_wand_06", 2000, 200, 2, seed=3)
    fitted = sde.least_squares(data, "variance_preserving")
    y, val = (fitted.units(points.double()) for points in (data.train, data.val))
    found = search(y, val)
    assert str(found).startswith("a mixture of 2 Gaussians, not corrected, delta 0.0")
    assert not found.table.c.any()
    exact = sde.elbo(fitted.model, val, 200, 60).mean().item()
    assert found.bound == pytest.approx(exact, abs=2e-4)
    with_units = fitted.elbo(data.val).mean().item()
    assert found.bound - np.log(fitted.units.scale) == pytest.approx(with_units, abs=5e-4)


def test_delta_is_halved_where_teeth_are_narrow(monkeypatch):
    few, y = {"n_knots": 150, "n_times": 12, "n_bins": 200}, standardized("marron_wand_14", 4000)
    found = []
    for most in (0, 1, 3):
        monkeypatch.setattr(closed_form, "MOST_HALVINGS", most)
        found.append(search(y[:2000], y[2000:], DELTA, "mixture", **few))
    coarse, once, free = found
    assert (coarse.delta, once.delta) == (DELTA, DELTA / 2)
    assert free.delta <= once.delta
    assert coarse.evidence + 3 < once.evidence <= free.evidence
    smooth = standardized("gaussian", 4000)
    assert search(smooth[:2000], smooth[2000:], DELTA, **few).delta == DELTA


def test_bins_and_knots_are_finer_where_the_sample_says_more(monkeypatch):
    teeth = standardized("gaussian", 6000).mul(4).round()
    y = teeth + 0.05 * standardized("gaussian", 6000).flip(0)
    y, found = (y - y.mean()) / y.std(), []
    for finest in (1, 4):
        monkeypatch.setattr(closed_form, "FINEST", finest)
        found.append(search(y[::2], y[1::2], DELTA, "gaussian", **FEW))
    coarse, fine = found
    assert len(coarse.table.knots) <= FEW["n_knots"] < len(fine.table.knots)
    assert fine.bound > coarse.bound + 0.05
    smooth = search(standardized(), standardized()[:50], DELTA, "gaussian", **FEW)
    assert len(smooth.table.knots) <= FEW["n_knots"], "not where it says little"


def test_nothing_is_chosen_where_there_is_no_choice():
    y, settings = standardized(), FEW | {"penalties": [(1e-3, 1e-3)]}
    found, other = (
        search(y, val, 0.02, "gaussian", **settings) for val in (y[:50], torch.full((3,), 50.0))
    )
    assert torch.equal(found.table.c, other.table.c), "not looked at"
    assert found.bound is None
    assert found.table.c.shape == (60, 8)
    assert str(found) == "one Gaussian, corrected, penalties 0.001 and 0.001, delta 0.02"


@pytest.mark.parametrize("sd", [5, 12])
def test_a_peak_that_is_narrow_beside_the_tails_is_solved_for(sde, sd):
    """Log-normal data: knots that follow their ranks would be nearer than the noise can tell."""
    y = np.exp(sd * np.random.default_rng(0).normal(size=600))
    data, few = Dataset.from_samples(y), {"penalties": [(1e-4, 1e-5), (1e-2, 1e-1)]}
    model = sde.least_squares(data, preconditioning="gaussian", **few)
    assert model.elbo(data.test).isfinite().all()


def test_equations_that_cannot_be_solved_are_named():
    y = np.linspace(-3, 3, 200)
    table = Table(torch.cat([torch.linspace(-1e-9, 1e-9, 100), torch.tensor([1.0])]).double(), 4)
    sample = Sample((y, np.full(len(y), 1 / len(y))))
    with pytest.raises(ValueError, match=r"delta must be larger than 0.01, or n_knots smaller"):
        closed_form.solve(table, GaussianDenoiser(), sample, 0.01)


def test_without_validation_points_the_training_points_choose():
    """What is fitted is their smooth density, and its parameters count."""
    y = standardized()
    found = search(y, y[:0], **FEW)
    assert found.penalties, "corrected"
    parameters = closed_form.smooth_nodes(y, FEW["n_bins"])[1]
    assert found.evidence == pytest.approx(2000 * found.bound - parameters)
    with pytest.raises(ValueError, match="without validation points nothing can be chosen"):
        search(y, y[:0], smooth=False)


LIMITS = {  # of KL and gap, nats
    "laplace_mixture": (0.0015, 0.004),
    "marron_wand_10": (0.003, 0.004),
}


@pytest.mark.parametrize(
    ("name", "preconditioning"),
    [("laplace_mixture", "gaussian"), ("marron_wand_10", "best")],
)
def test_least_squares_come_close_to_the_truth(sde, name, preconditioning):
    """And bound <= log-likelihood <= truth; not so close where the data are not smoothed."""
    data, (largest, gap) = make_dataset(name, seed=1), LIMITS[name]
    fitted = replace(sde.least_squares(data, preconditioning=preconditioning), n_steps=200)
    found, bound = compare(data, fitted.log_likelihood, 2001), compare(data, fitted.elbo, 1001).kl
    assert found.mass == pytest.approx(1, abs=1e-3)
    assert 0 < found.kl < largest
    assert found.kl < bound < gap, "the bound is a bound"
    if preconditioning == "best":
        raw = sde.least_squares(data, preconditioning="gaussian", smooth=False)
        assert compare(data, raw.elbo, 1001).kl > 2 * bound


@pytest.mark.parametrize("n", [5, 50])
def test_few_points(sde, n):
    data = make_dataset("gaussian", n_train=n, n_val=max(2, n // 5))
    fitted = replace(sde.least_squares(data), n_steps=100)
    assert fitted.log_likelihood(data.test).isfinite().all()
    assert compare(data, fitted.log_likelihood, 1001).kl < 10 / n


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "crooked"}, "unknown path 'crooked'"),
        ({"preconditioning": "none"}, "unknown preconditioning 'none'; choose from best, gaussian"),
        ({"delta": 0.0}, "delta must lie between 0 and 1, not 0.0"),
        ({"penalties": []}, "penalties must be pairs of positive numbers, not"),
        ({"penalties": [1.0]}, "penalties must be pairs of positive numbers, not"),
        ({"penalties": [(0.0, 1.0)]}, "penalties must be pairs of positive numbers, not"),
        ({"n_knots": 2}, "n_knots must be an integer of at least 3, not 2"),
        ({"n_times": 1}, "n_times must be an integer of at least 2, not 1"),
        ({"n_bins": 5}, "n_bins must be an integer of at least 50, not 5"),
    ],
)
def test_bad_settings_name_the_value(sde, options, message):
    with pytest.raises(ValueError, match=message):
        sde.least_squares(make_dataset("gaussian", 50, 20, 20), **options)


@pytest.mark.parametrize("knots", [[0.0, 1.0], [0.0, 1.0, 1.0], [[0.0] * 3] * 2])
def test_knots_must_increase(knots):
    with pytest.raises(ValueError, match="increasing"):
        Table(torch.tensor(knots))
