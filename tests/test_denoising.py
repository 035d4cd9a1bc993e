"""The best denoiser, its error and its score against closed forms; what a wrong one costs."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.distributions import Categorical, Cauchy, MixtureSameFamily, Normal

from conftest import perturbed
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.data.densities import Density
from dlutils.diffusion import denoising
from dlutils.diffusion.denoising import best_loss, fisher_gap, mmse, posterior
from dlutils.estimators.view import units_of

pytestmark = pytest.mark.usefixtures("float64")

LOC, SCALE = 0.2, 1.3
MIXTURES = {  # weights, means, sds
    "one": ([1.0], [0.7], [0.5]),
    "apart": ([0.3, 0.7], [-2.0, 1.0], [0.5, 0.8]),
    "claw": ([0.5] + [0.1] * 5, [0, -1, -0.5, 0, 0.5, 1], [1] + [0.1] * 5),
    "needle": ([0.995, 0.005], [0.0, 2.5], [1.0, 0.02]),
}


def dataset_of(distribution, name="x"):
    density = Density(distribution, name)
    return Dataset(name, name, *[torch.zeros(2)] * 3, density.support, density)


class Mixture:
    """A normal mixture, its standardization, and what is seen of it in noise in closed form."""

    def __init__(self, name):
        weights, means, sds = (torch.tensor(v, dtype=torch.float64) for v in MIXTURES[name])
        self.weights, self.means, self.sds = weights, (means - LOC) / SCALE, sds / SCALE
        self.dataset = dataset_of(MixtureSameFamily(Categorical(weights), Normal(means, sds)))

    def seen(self, g, s):
        """Density of g, posterior mean and variance, and the score, each `(m,)`."""
        at = g[:, None]
        variance = 1 + (s * self.sds) ** 2
        joint = self.weights * Normal(s * self.means, variance.sqrt()).log_prob(at).exp()
        share = joint / joint.sum(1, keepdim=True)
        means = self.means + s * self.sds**2 / variance * (at - s * self.means)
        y_hat = (share * means).sum(1)
        spread = (share * (self.sds**2 / variance + (means - y_hat[:, None]) ** 2)).sum(1)
        return joint.sum(1), y_hat, spread, -(share * (at - s * self.means) / variance).sum(1)

    def mmse(self, s):
        """By a finer grid over a wider range."""
        far = 12 + s * (self.means.abs() + 8 * self.sds).max().item()
        g = torch.linspace(-far, far, math.ceil(50 * far))
        p, _, variance, _ = self.seen(g, s)
        return ((g[1] - g[0]) * p @ variance).item()


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("s", [1e-4, 0.3, 100.0])
def test_a_normal_mixture_is_a_closed_form(name, s):
    mixture = Mixture(name)
    found = posterior(mixture.dataset, LOC, SCALE, s)
    density, *wanted = mixture.seen(found.g, s)
    assert (found.density - density).abs().max() < 1e-10
    seen = density > 1e-6
    for value, exact in zip((found.y_hat, found.variance, found.score), wanted, strict=True):
        assert (value - exact)[seen].abs().max() < 3e-6
        assert found.mean((value - exact).abs()) < 1e-9
    assert found.mmse == pytest.approx(mixture.mmse(s), rel=1e-8)
    assert mmse(mixture.dataset, LOC, SCALE, s) == found.mmse


def test_pieces_that_are_too_wide_are_seen(monkeypatch):
    mixture = Mixture("needle")
    error = lambda: abs(mmse(mixture.dataset, LOC, SCALE, 1.0) / mixture.mmse(1.0) - 1)
    fine = error()
    monkeypatch.setattr(denoising, "MOST", 1)
    assert error() > max(5e-8, 10 * fine)


@pytest.mark.parametrize("name", ["laplace_mixture", "marron_wand_10", "uniform"])
@pytest.mark.parametrize("s", [0.05, 2.0, 100.0])
def test_other_densities_agree_with_adaptive_quadrature(name, s):
    """Corners, teeth and edges."""
    dataset = make_dataset(name, 2000, 20, 20)
    loc, scale = units_of(dataset).loc, units_of(dataset).scale
    low, high = ((end - loc) / scale for end in dataset.support)
    corners = {"laplace_mixture": (-1.5, 1.5), "uniform": (-1, 1)}.get(name, ())
    found = posterior(dataset, loc, scale, s)
    cdf = (found.density.cumsum(0) * (found.g[1] - found.g[0])).numpy()
    for k in np.searchsorted(cdf, [0.02, 0.4, 0.9]):
        g = found.g[k].item()
        places = [(c - loc) / scale for c in corners] + [(g + z) / s for z in (-8, -3, 0, 3, 8)]
        ends = sorted({low - 2, high + 2, *(v for v in places if low < v < high)})

        def moment(n, g=g, ends=ends):
            def integrand(y):
                p = scale * dataset.log_prob(loc + scale * y).exp().item()
                return p * y**n * math.exp(-((g - s * y) ** 2) / 2)

            return sum(quad(integrand, *e, epsabs=1e-13, limit=200)[0] for e in pairwise(ends))

        p, first, second = map(moment, range(3))
        assert found.density[k].item() == pytest.approx(p / math.sqrt(2 * math.pi), rel=1e-6)
        assert found.y_hat[k].item() == pytest.approx(first / p, abs=1e-6)
        assert found.variance[k].item() == pytest.approx(second / p - (first / p) ** 2, abs=1e-6)


@pytest.fixture
def gaussian():
    """The posterior of standard normal data, by the root of SNR."""
    return partial(posterior, make_dataset("gaussian", 20, 20, 20), 1.0, 0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_gap_of_the_bound_is_the_fisher_gap(sde, gaussian, dtype):
    """With the optimal noise, whose start at a finite value costs 1e-4 nats, and delta."""
    model = sde.build_sde("linear", "optimal", "preconditioned", 0.01)
    gap_of = lambda model, n: fisher_gap(model.net, model.path, gaussian, n)[1:]
    w, gap = gap_of(model, 60)
    assert (w @ gap).item() < 1e-11, "the best denoiser has none"
    y, p = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(40))
    with torch.no_grad():
        bound = (p @ sde.elbo(perturbed(model), y, 96, 40) / p.sum()).item()
    truth = (p @ Normal(0.0, math.sqrt(1 + 2 * 0.01**2)).log_prob(y) / p.sum()).item()
    w, gap = gap_of(model.to(dtype), 96)
    assert gap.dtype == torch.float64
    assert truth - bound == pytest.approx((w @ gap).item(), abs=3e-4)
    assert truth - bound > 1e-2


@pytest.mark.parametrize("path", ["linear", "variance_preserving"])
def test_the_loss_of_the_best_drift_is_what_a_wrong_noise_costs(sde, path):
    """For standard normal data, where the untrained drift is the best one."""
    y, w = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(20))
    terms = {}
    for name in ("optimal", "root_two_beta"):
        model = sde.build_sde(path, name, "preconditioned", 0.02)
        _, weights, loss, least = best_loss(model.path, model.diffusion, lambda s: 1 / (1 + s**2))
        with torch.no_grad():
            lost = sde.reconstruction(model, y) - sde.prior_kl(model, y) - sde.elbo(model, y)
        terms[name] = (weights @ loss).item()
        assert (w @ lost / w.sum()).item() == pytest.approx(terms[name], abs=1e-3)
        assert (loss >= least).all()
    assert terms["root_two_beta"] > terms["optimal"] + 0.1


def test_scores_of_the_best_denoiser_and_of_a_wrong_one(sde, gaussian):
    path = sde.LinearPath(0.05)
    best = sde.PreconditionedDrift(path)  # untrained: exact for standard normal data
    z, true, found = denoising.scores(path, best, gaussian, 0.6)
    torch.testing.assert_close(found, true, rtol=0, atol=1e-6)
    assert z.min() < -3 < 3 < z.max()
    a, beta, _, _ = (v.item() for v in path.schedule(path.time(torch.tensor([0.6]))))
    torch.testing.assert_close(true, -z * beta / math.hypot(a, beta), rtol=0, atol=1e-6)
    _, _, worse = denoising.scores(path, lambda x, t: best(x, t) + 0.1, gaussian, 0.6)
    torch.testing.assert_close(worse - true, torch.full_like(true, 0.1 * a / beta))


def test_data_that_lie_far_apart():
    """Two pieces with nothing between them: no probability there, and no error."""
    inside = lambda y: (y.abs() - 50).abs() < 0.5
    log_prob = lambda y: torch.where(inside(y), math.log(0.5), -math.inf)
    sample = lambda n: torch.rand(n) - 0.5 + 50 * torch.randint(2, (n,)).mul(2).sub(1)
    pieces = dataset_of((log_prob, sample, (-50.5, -49.5, 49.5, 50.5)))
    found = posterior(pieces, 0.0, 50.0, 20.0)
    assert torch.stack([found.y_hat, found.variance]).isfinite().all()
    assert found.mean(torch.ones_like(found.g)) == pytest.approx(1, abs=1e-9)
    assert (found.density == 0).any()
    assert found.mmse == pytest.approx((1 / 50) ** 2 / 12, rel=0.02), "each piece but little noise"


@pytest.mark.parametrize(
    ("dataset", "s", "message"),
    [
        *[(None, s, f"finite and not negative, not {s}") for s in (-0.1, math.nan, math.inf)],
        (Dataset.from_samples(torch.linspace(0, 2, 200)), 1.0, "true density of 'sample' is unkn"),
        (dataset_of(Cauchy(0.0, 1.0)), 1.0, "tails of x are too heavy: all but 2e-12 of the prob"),
    ],
)
def test_what_cannot_be_is_named(dataset, s, message):
    with pytest.raises(ValueError, match=message):
        posterior(dataset, 0.0, 1.0, s)
