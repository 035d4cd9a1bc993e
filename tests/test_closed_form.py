"""The bound solved in closed form: the quadratic is the notebook's bound, the solve its minimum."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from dlutils.data.datasets import make_dataset
from dlutils.diffusion import closed_form, quadratic
from dlutils.diffusion.closed_form import Sample, Solution, data_nodes, search
from dlutils.diffusion.denoisers import GaussianDenoiser, MixtureDenoiser
from dlutils.diffusion.quadratic import Table, change, curvature, diffusion_terms
from dlutils.estimators.yardsticks import Mixture
from dlutils.evaluation import compare

maths = pytest.mark.usefixtures("float64")  # on tensors made by hand

DELTA = 0.01


def standardized(name="laplace_mixture", n=2000):
    y = make_dataset(name, n_train=n, n_test=2).train.double()
    return (y - y.mean()) / y.std()


def two_bells():
    parts = [[0.4, 0.6], [-0.9, 0.6], [0.5, 0.8]]
    return MixtureDenoiser(Mixture(*torch.tensor(parts).double()))


def small_table(n_knots=21, n_times=6):
    return Table(torch.linspace(-4, 4, n_knots, dtype=torch.float64), n_times)


def loss_of(table, nodes=None, denoiser=None, delta=DELTA):
    nodes = data_nodes(standardized()) if nodes is None else nodes
    return diffusion_terms(table, [nodes], delta, denoiser or GaussianDenoiser())[0]


def small_penalty(table, factor=1e-3):
    return factor * (curvature(table, DELTA) + change(table, DELTA))


def bound_of(sde, model, nodes, n_t=200, n_eps=100):
    """The notebook's bound by quadrature, a mean over the nodes."""
    y, weights = (torch.from_numpy(values) for values in nodes)
    return weights @ sde.elbo(model, y, n_t, n_eps)


def basis_model(sde, path="linear", denoiser=None, n_knots=33):
    """A model with a small table, what it loses, and some sixty points."""
    nodes = (values.numpy() for values in closed_form.compress(standardized(), 30))
    y, weights = nodes
    nodes = y, weights / weights.sum()
    route = sde.PATHS[path](DELTA)
    drift = sde.BasisDrift(route, denoiser, Table(closed_form.knots_for(*nodes, n_knots)))
    model = sde.SDE(route, sde.OptimalDiffusion(route), drift, DELTA)
    return model, loss_of(drift.net, nodes, denoiser), nodes


@pytest.mark.parametrize(
    ("path", "denoiser"), [("linear", None), ("variance_preserving", two_bells)]
)
def test_the_quadratic_is_what_the_notebooks_bound_loses(sde, path, denoiser):
    model, loss, nodes = basis_model(sde, path, denoiser and denoiser())
    table = model.net.net
    with torch.no_grad():
        table.c.copy_((3 * table.knots).cos()[:, None] * torch.linspace(0.2, 1, 24))
        y, weights = (torch.from_numpy(values) for values in nodes)
        rest = weights @ (sde.reconstruction(model, y) - sde.prior_kl(model, y))
        lost = rest - bound_of(sde, model, nodes)
    value = loss(table.c.detach().numpy())
    assert value == pytest.approx(lost.item(), rel=2e-4)
    assert abs(value - loss.constant) > 0.02, "the table matters"


def test_the_noisy_data_are_a_convolution():
    y, w = nodes = np.array([-0.7, 0.31, 1.3]), np.array([0.2, 0.5, 0.3])
    other = np.array([0.0, 0.5]), np.array([0.5, 0.5])
    for s in (0.02, 1.0, 30.0):
        g, mass = quadratic.noisy([nodes, other], s, 0.1)
        for i, (points, weights) in enumerate((nodes, other)):
            phi = 0.1 * np.exp(-((g[:, None] - s * points) ** 2) / 2) / np.sqrt(2 * np.pi)
            np.testing.assert_allclose(mass[i, 0], phi @ weights, atol=1e-4)
            np.testing.assert_allclose(mass[i, 1], phi @ (weights * points), atol=1e-4)
    y, w = np.linspace(-1, 1, 1001), np.full(1001, 1 / 1001)
    for s in (1.0, 30.0):
        g, mass = quadratic.noisy([(y, w)], s, 0.5)
        spread = mass[0, 0] @ g**2 - s**2 * (w @ y**2)
        assert spread == pytest.approx(1, abs=3e-3), "what the grid adds is taken from the noise"


@pytest.mark.parametrize("shape", [(3, 2), (5, 6)])
def test_the_banded_solve_equals_the_dense_one(shape):
    J, K = shape
    table = Table(torch.linspace(-3, 3, J, dtype=torch.float64), K)
    total = loss_of(table) + small_penalty(table)
    dense = np.zeros((J, K, J, K))
    for (d, e), band in total.bands.items():
        for j in range(J - d):
            for k in range(max(0, -e), min(K, K - e)):
                dense[j, k, j + d, k + e] = dense[j + d, k + e, j, k] = band[j, k]
    A, b = dense.reshape(J * K, J * K), total.linear.ravel()
    assert np.linalg.eigvalsh(A).min() > 0
    np.testing.assert_allclose(total.minimum().ravel(), np.linalg.solve(A, b), rtol=1e-6)
    c = np.random.default_rng(0).normal(size=shape)
    by_hand = total.constant - 2 * b @ c.ravel() + c.ravel() @ A @ c.ravel()
    assert total(c) == pytest.approx(by_hand, rel=1e-10)


@maths
def test_the_table_is_bilinear_and_constant_beyond_its_knots():
    table = Table(torch.tensor([-2.0, -0.5, 0.1, 3.0]), 5)
    torch.nn.init.normal_(table.c)
    knots = table.knots.numpy(), np.linspace(0, 1, 5)
    expected = RegularGridInterpolator(knots, table.c.detach().numpy())
    z, u = 10 * torch.rand(500) - 5, torch.rand(500)
    u[:2] = torch.tensor([0.0, 1.0])
    points = np.stack([z.clamp(-2, 3).numpy(), u.numpy()], axis=1)
    found = table(z, u).detach().numpy()
    np.testing.assert_allclose(found, expected(points), atol=1e-12)


@maths
def test_penalties_leave_alone_what_they_are_not_about():
    table = Table(torch.tensor([-2.0, -0.5, 0.1, 0.5, 3.0]), 4)
    line = np.outer(table.knots.numpy(), [1.0, -2.0, 0.5, 3.0])
    still = np.outer([1.0, -1.0, 2.0, 0.0, 5.0], np.ones(4))
    bends, moves = curvature(table, DELTA), change(table, DELTA)
    assert bends(line) == pytest.approx(0, abs=1e-9)
    assert bends(still) > 1e-3
    assert moves(still) < 0.01 * moves(line), "but for its size"


@maths
def test_the_curvature_is_that_of_a_parabola():
    table = Table(torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]), 4)
    bends = curvature(table, DELTA)
    parabola = np.outer(table.knots.numpy() ** 2 / 2, [0.0, 0.0, 0.0, 1.0])
    s = quadratic.root_snr(np.array([1.0]), DELTA)
    weight = quadratic._bounds_weight(s, DELTA)[0] / 3 / (1 + s[0] ** 2) ** 2
    assert bends(parabola) == pytest.approx(1.5 * weight), "one, on three intervals of a half"


def test_smooth_nodes_have_the_moments_of_the_data():
    y = standardized("marron_wand_08")
    (x, weights), parameters = closed_form.smooth_nodes(y)
    assert (np.diff(x) > 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    for k in (1, 2, 3):
        assert weights @ x**k == pytest.approx((y**k).mean().item(), abs=0.03)
    assert 3 < parameters < 20


def test_the_penalties_are_the_validation_points_choice():
    """Without any held out the weakest; nothing is known without them, so the first."""
    table, y = small_table(), standardized()
    nodes, pairs = data_nodes(y), [(1e3, 1e3), (1e-6, 1e-6)]
    solve = lambda **more: closed_form.solve(
        table, GaussianDenoiser(), Sample(nodes, **more), DELTA, pairs
    )
    plain, weak = solve(val=nodes, n_val=len(y))
    assert weak.penalties == pairs[1]
    assert plain.penalties is None
    assert not plain.table.c.any()
    loss = loss_of(table, nodes)
    gain = loss.constant - loss(weak.table.c.detach().numpy())
    assert gain > 0.01
    assert weak.bound - plain.bound == pytest.approx(gain)
    few = Sample(data_nodes(y[:30]), val=data_nodes(y[30:]), n_val=len(y) - 30)
    chosen = closed_form.solve(table, GaussianDenoiser(), few, DELTA, [(1e-6, 1e-6), (1e-2, 1e-2)])
    assert chosen[1].penalties == (1e-2, 1e-2), "and not the training points'"
    (blind,) = solve()
    assert blind.penalties == pairs[0]
    assert (blind.bound, blind.evidence) == (None, None)
    assert blind.table.c.abs().max() < 0.1 * weak.table.c.abs().max()


def test_evidence_is_the_bound_on_all_points_less_the_parameters():
    table, denoiser = small_table(), two_bells()
    train, val = (data_nodes(standardized(n=n)) for n in (2000, 500))
    more = {"val": val, "n_val": 500, "train": train, "n_train": 2000}
    solve = lambda **more: closed_form.solve(table, denoiser, Sample(train, 9.0, **more), DELTA)
    for solution, parameters in zip(solve(**more), (3, 9), strict=True):
        c = solution.table.c.detach().numpy()
        losses = diffusion_terms(table, [train, val, train], DELTA, denoiser)[1:]
        lost = [loss(c) for loss in losses]
        rest = -np.log(DELTA) - (1 + np.log(2 * np.pi)) / 2
        assert solution.bound == pytest.approx(rest - lost[0])
        expected = 500 * (rest - lost[0]) + 2000 * (rest - lost[1]) - parameters
        assert solution.evidence == pytest.approx(expected)
    plain, corrected = solve(val=val, n_val=500)
    for solution in (plain, corrected):
        assert solution.evidence == pytest.approx(500 * solution.bound), "they alone"


@maths
def test_what_is_more_needs_strong_evidence():
    solution = Solution(GaussianDenoiser(), small_table(), DELTA, None, 0.0, 10.0)
    little, much = (replace(solution, evidence=value) for value in (12.9, 13.1))
    assert closed_form.preferred([solution, little]) is solution
    assert closed_form.preferred([solution, little, much]) is much
    assert closed_form.preferred([much, solution]) is much


@pytest.mark.parametrize(
    ("name", "denoiser", "corrected"),
    [("marron_wand_06", "a mixture of 2 Gaussians", False), ("laplace_mixture", "a mixture", True)],
)
def test_a_table_corrects_where_the_truth_is_no_mixture(name, denoiser, corrected):
    data = make_dataset(name, seed=3)
    y, val = ((points - data.train.mean()) / data.train.std() for points in (data.train, data.val))
    found = search(y, val, n_knots=200, n_times=16)
    assert str(found).startswith(denoiser)
    assert (found.penalties is not None) == corrected
    assert found.table.c.any() == corrected
    assert ("not corrected" in str(found)) != corrected


def test_the_bound_that_chooses_is_the_notebooks(sde):
    data = make_dataset("marron_wand_08", n_train=2000, n_val=300)
    fitted = sde.least_squares(data, "variance_preserving")
    val = fitted.units(data.val.double())
    exact = sde.elbo(fitted.model, val, 200, 60).mean().item()
    found = search(fitted.units(data.train.double()), val)
    assert found.bound == pytest.approx(exact, abs=2e-4)
    assert found.bound - np.log(fitted.units.scale) == pytest.approx(
        fitted.elbo(data.val).mean().item(), abs=5e-4
    )


def test_delta_is_halved_where_teeth_are_narrow(monkeypatch):
    y = standardized("marron_wand_14", 4000)
    y, val = y[:2000], y[2000:]
    few = {"n_knots": 150, "n_times": 12, "n_bins": 200}
    found = []
    for most in (0, 1, 3):
        monkeypatch.setattr(closed_form, "MOST_HALVINGS", most)
        found.append(search(y, val, DELTA, "mixture", **few))
    coarse, once, free = found
    assert (coarse.delta, once.delta) == (DELTA, DELTA / 2)
    assert free.delta <= once.delta
    assert coarse.evidence + 3 < once.evidence <= free.evidence
    smooth = standardized("gaussian", 4000)
    assert search(smooth[:2000], smooth[2000:], DELTA, **few).delta == DELTA


def test_nothing_is_chosen_where_there_is_no_choice():
    y = standardized()
    few = {"n_knots": 60, "n_times": 8, "n_bins": 100, "penalties": [(1e-3, 1e-3)]}
    found, other = (
        search(y, val, 0.02, "gaussian", **few) for val in (y[:50], torch.full((3,), 50.0))
    )
    assert torch.equal(found.table.c, other.table.c), "not looked at"
    assert (found.delta, found.bound, found.penalties) == (0.02, None, (1e-3, 1e-3))
    assert found.table.c.shape == (60, 8)
    assert str(found) == "one Gaussian, corrected, penalties 0.001 and 0.001, delta 0.02"


LIMITS = {  # of KL and gap, nats
    "laplace_mixture": (0.0015, 0.004),
    "marron_wand_10": (0.003, 0.004),
}


@pytest.mark.parametrize(
    ("name", "preconditioning"),
    [("laplace_mixture", "gaussian"), ("marron_wand_10", "best")],
)
def test_least_squares_come_close_to_the_truth(sde, name, preconditioning):
    """And bound <= log-likelihood <= truth."""
    data, (largest, gap) = make_dataset(name, seed=1), LIMITS[name]
    fitted = replace(sde.least_squares(data, preconditioning=preconditioning), n_steps=200)
    found = compare(data, fitted.log_likelihood, 2001)
    assert found.mass == pytest.approx(1, abs=1e-3)
    assert 0 < found.kl < largest
    assert found.kl < compare(data, fitted.elbo, 1001).kl < gap, "the bound is a bound"


def test_the_smooth_density_is_what_makes_it_good(sde):
    data = make_dataset("marron_wand_10", seed=1)
    fit = lambda smooth: sde.least_squares(data, preconditioning="gaussian", smooth=smooth)
    raw, smooth = (compare(data, fit(way).elbo).kl for way in (False, True))
    assert raw > 2 * smooth


@pytest.mark.parametrize("n", [5, 50])
def test_few_points(sde, n):
    data = make_dataset("gaussian", n_train=n, n_val=max(2, n // 5))
    fitted = replace(sde.least_squares(data), n_steps=100)
    assert fitted.log_likelihood(data.test).isfinite().all()
    assert compare(data, fitted.log_likelihood, 1001).kl < 10 / n


def test_bad_settings_name_the_value(sde):
    for knots in (torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0]), torch.zeros(2, 3)):
        with pytest.raises(ValueError, match="increasing"):
            Table(knots)
    data = make_dataset("gaussian", 50, 20, 20)
    for options, message in (
        ({"path": "crooked"}, "unknown path 'crooked'"),
        ({"preconditioning": "none"}, "unknown preconditioning 'none'; choose from best, gaussian"),
        ({"delta": 0.0}, "delta must lie between 0 and 1, not 0.0"),
        ({"penalties": []}, "at least one pair of penalties"),
        ({"penalties": [1.0]}, "penalties must be pairs of positive numbers, not"),
        ({"n_knots": 2}, "n_knots must be an integer of at least 3, not 2"),
        ({"n_times": 1}, "n_times must be an integer of at least 2, not 1"),
        ({"n_bins": 5}, "n_bins must be an integer of at least 50, not 5"),
    ):
        with pytest.raises(ValueError, match=message):
            sde.least_squares(data, **options)


def test_without_validation_points_the_training_points_choose():
    """What is fitted is their smooth density, and its parameters count."""
    y = standardized(n=2000)
    found = closed_form.search(y, y[:0], n_knots=60, n_times=8)
    assert found.evidence == pytest.approx(
        2000 * found.bound - closed_form.smooth_nodes(y)[1]
        if found.penalties
        else 2000 * found.bound - found.denoiser.n_parameters
    )
    with pytest.raises(ValueError, match="without validation points nothing can be chosen"):
        closed_form.search(y, y[:0], smooth=False)
