"""What one would try first on a sample.

Each takes a sample, shape `(n,)`, and returns a log-density, `(m,)` to `(m,)`, in nats. Weights say
how many points each value stands for, positive, shape `(n,)`; without them it is one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cho_solve_banded, cholesky_banded
from scipy.optimize import minimize_scalar
from scipy.signal import fftconvolve
from scipy.sparse import diags_array
from scipy.special import exprel
from scipy.stats import gaussian_kde
from torch import Tensor
from torch.distributions import Normal

from dlutils.compression import bin_linearly, compress
from dlutils.data.units import Units
from dlutils.processes import limited

LogDensity = Callable[[Tensor], Tensor]
N_GRID = 1000  # nodes of the penalised density
MARGIN = 0.2  # how far they go on beyond the sample, in units of its length
N_BINS = 512  # of the compression of a mixture's points
APART = 0.01  # a tenth of the points, in units of the inner eight: of a Gaussian it takes 0.12


def gaussian(y: Tensor, *, weights: Tensor | None = None) -> LogDensity:
    """One normal distribution with the sample's mean and standard deviation."""
    y, counts = _checked(y, weights)
    moments = Units.of(y, weights=counts)
    normal = Normal(*torch.tensor([moments.loc, moments.scale], dtype=torch.float64))
    return lambda points: normal.log_prob(points.double())


def _checked(y: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """A sample and its weights, or ones, in double precision."""
    y = y.double()
    counts = torch.ones_like(y) if weights is None else weights.double()
    if counts.shape != y.shape or not ((counts > 0) & counts.isfinite()).all():
        raise ValueError(f"weights must be {len(y)} positive numbers, one for each value")
    if not 0 < y.std(correction=0) < torch.inf:
        raise ValueError(f"a density needs finite values, at least two of them different: {y}")
    return y, counts


@limited()
def kde(
    y: Tensor, bandwidth: float | str = "scott", *, weights: Tensor | None = None
) -> LogDensity:
    """Gaussian kernels; the bandwidth is Scott's, or given in standard deviations, as in SciPy.

    Within four bandwidths of a point, log p is interpolated between nodes a hundredth of a
    bandwidth apart, to which the points are binned linearly: p is off by less than 2e-4 of itself.
    Farther away, where few kernels matter, their sum is taken. Empty stretches have no nodes.

    Source:
        Silverman, Kernel density estimation using the fast Fourier transform (1982).
    """
    y, counts = (part.numpy() for part in _checked(y, weights))
    order = y.argsort(kind="stable")
    y, counts = y[order], counts[order]
    h = gaussian_kde(y, bandwidth, counts).covariance.item() ** 0.5
    norm = -math.log(counts.sum() * h * math.sqrt(2 * math.pi))
    cut = np.append(0, np.maximum(np.diff(y) - 15 * h, 0).cumsum())
    grid = np.arange(y[0] - 9 * h, y[-1] - cut[-1] + 9.1 * h, h / 100)
    kernel = np.exp(norm - np.linspace(-9, 9, 1801) ** 2 / 2)
    p = fftconvolve(_binned(y - cut, grid, counts), kernel, mode="same")
    log_p = np.log(np.maximum(p, np.finfo(float).tiny))

    def log_density(points: Tensor) -> Tensor:
        x = points.double().numpy()
        right = np.searchsorted(y, x).clip(1, len(y) - 1)
        nearest = right - (x - y[right - 1] < y[right] - x)
        value, distance = np.interp(x - cut[nearest], grid, log_p), np.abs(x - y[nearest])
        for k in np.flatnonzero(distance > 4 * h):
            reach = np.hypot(distance[k], 8 * h)  # other kernels are below exp(-32) of the nearest
            first, last = np.searchsorted(y, (x[k] - reach, x[k] + reach))
            these = slice(min(first, nearest[k]), max(last, nearest[k] + 1))
            part = np.abs(x[k] - y[these])
            kernels = np.exp((distance[k] - part) * (distance[k] + part) / (2 * h**2))
            value[k] = norm - (distance[k] / h) ** 2 / 2 + np.log(counts[these] @ kernels)
        return torch.from_numpy(value)

    return log_density


def _binned(y: np.ndarray, grid: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Numbers of points at the nodes of a grid."""
    return bin_linearly(np.interp(y, grid, np.arange(len(grid))), counts, len(grid))


@limited()
def penalized(y: Tensor, *, weights: Tensor | None = None) -> LogDensity:
    r"""The smooth density of highest penalised likelihood, its penalty by the evidence.

    $\phi=\log p$ maximises
    $\sum_i\phi(y_i)-n\log\int e^\phi\,dy-\frac\lambda2\int(\phi'')^2dy$
    on a grid, and $\lambda$ the likelihood that is left when $\phi$, with that penalty for a prior,
    is integrated out by Laplace's approximation: there is nothing to choose. Between its nodes
    $\phi$ is linear; beyond the grid it goes on with the slope of the end, or falls by one in
    `MARGIN` of the sample's length where that is steeper.

    The nodes are equally far apart in asinh of y, less the median, over four interquartile ranges
    (or over the sample's length, where the quartiles are equal): nearly so in y for most samples,
    but a point far out does not blur the others. $\lambda$ is not less than what smooths over half
    the median distance of neighbouring values, so rounded data do not become spikes.

    Args:
        y: Sample, shape `(n,)`, of at least two different values.
        weights: How many points each value stands for.

    Raises:
        ValueError: If a value is not finite, or all are the same.

    Source:
        Silverman, On the estimation of a probability density function by the maximum penalized
        likelihood method (1982); Gu, Smoothing spline density estimation (1993); MacKay, Bayesian
        interpolation (1992), for the evidence.
    """
    y, points = (part.numpy() for part in _checked(y, weights))
    length = np.ptp(y)
    lower, center, upper = np.quantile(y, [0.25, 0.5, 0.75])
    scale = 4 * (upper - lower) or length
    ends = np.array([y.min() - MARGIN * length, y.max() + MARGIN * length])
    grid = center + scale * np.sinh(np.linspace(*np.arcsinh((ends - center) / scale), N_GRID))
    counts, n = _binned(y, grid, points), points.sum()
    log_n_p = np.full(N_GRID, math.log(n / np.ptp(ends)))

    def minus_evidence(log_penalty: float) -> float:
        nonlocal log_n_p
        log_n_p, evidence = _smooth(grid, counts, math.exp(log_penalty), log_n_p)
        return -evidence

    # a penalty of n p r^4 halves waves in log p of length 2 pi r
    least = max(np.diff(grid).min(), min(np.median(np.diff(np.unique(y))), scale) / 2)
    bounds = math.log(4 * n / scale) + 4 * np.log([least, max(least, min(length / 2, 6 * scale))])
    options = {"bounds": bounds, "method": "bounded", "options": {"xatol": 0.05}}
    found = minimize_scalar(minus_evidence, **options)
    log_p, _ = _smooth(grid, counts, math.exp(found.x), log_n_p)
    slopes = (np.diff(log_p) / np.diff(grid))[[0, -1]]
    fall = np.maximum(slopes * [1, -1], 1 / (MARGIN * length))
    log_p = log_p - math.log(mass(grid, log_p) + (np.exp(log_p[[0, -1]]) / fall).sum())

    def log_density(points: Tensor) -> Tensor:
        x = points.double().numpy()
        beyond = np.maximum([grid[0] - x, x - grid[-1]], 0)
        return torch.from_numpy(np.interp(x, grid, log_p) - fall @ beyond)

    return log_density


def mass(x: np.ndarray, log_p: np.ndarray) -> float:
    """The integral of a density whose logarithm is linear between these places, `(n,)`."""
    return np.diff(x) @ (np.exp(log_p[:-1]) * exprel(np.diff(log_p)))


def _smooth(
    grid: np.ndarray, counts: np.ndarray, penalty: float, start: np.ndarray
) -> tuple[np.ndarray, float]:
    r"""Newton's method for $\phi=\log np$ on the grid, and the log-evidence of the penalty.

    $k^T\phi-\sum_jw_je^{\phi_j}-\frac\lambda2\|D\phi\|^2$, with w the trapezoidal rule's weights
    and $\|D\phi\|^2$ the integral of $(\phi'')^2$, has the maximum of the penalised log-likelihood
    and a banded Hessian $-H=-\operatorname{diag}(we^\phi)-\lambda D^TD$. The evidence is
    $\frac{G-2}2\log\lambda-\frac12\log|H|$ more, but for what does not depend on $\lambda$. Here k
    are the numbers of points at the G places of the grid, and `start` is $\phi$ to begin with.
    """
    h = np.diff(grid)
    weights = np.convolve(h, [0.5, 0.5])
    a, b = np.array([1 / h[:-1], 1 / h[1:]]) / np.sqrt(weights[1:-1])
    bends = diags_array([a, -a - b, b], offsets=[0, 1, 2], shape=(len(a), len(grid)))
    product = penalty * (bends.T @ bends)
    bands = np.array([np.pad(product.diagonal(k), (k, 0)) for k in (2, 1, 0)])

    def height(phi: np.ndarray) -> float:
        return counts @ phi - weights @ np.exp(phi) - penalty / 2 * ((bends @ phi) ** 2).sum()

    phi, value, gain = start, height(start), math.inf
    while gain > 1e-8:
        expected = weights * np.exp(phi)
        factor = cholesky_banded(bands + [[0], [0], [1]] * expected)
        slope = counts - expected - penalty * (bends.T @ (bends @ phi))
        step = cho_solve_banded((factor, False), slope)
        step = step / max(1, step.max() / 2)
        while (gain := height(phi + step) - value) < 0 and np.abs(step).max() > 1e-6:
            step = step / 2
        if gain > 0:
            phi, value = phi + step, value + gain
    evidence = value + (len(h) - 1) / 2 * math.log(penalty) - np.log(factor[2]).sum()
    return phi, evidence


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians; called with points, `(m,)`, it returns its log-density there.

    Attributes:
        weights: Shares of the components, float64, shape `(k,)`, which sum to one.
        means: Their means, in the data's units.
        sds: Their standard deviations.
    """

    weights: Tensor
    means: Tensor
    sds: Tensor

    @property
    def n_parameters(self) -> int:
        """How many numbers a mixture of so many components has."""
        return 3 * len(self.weights) - 1

    def parts(self, points: Tensor) -> Tensor:
        """log(weight times density) of each component, nats, shape `(m, k)`."""
        z = (points[:, None] - self.means) / self.sds
        return (self.weights / (math.sqrt(2 * math.pi) * self.sds)).log() - z**2 / 2

    def __call__(self, points: Tensor) -> Tensor:
        """Log-density, nats, float64, shape `(m,)`."""
        return self.parts(points.double()).logsumexp(dim=1)


@limited()
def em_mixture(y: Tensor, *, weights: Tensor | None = None) -> Mixture:
    """A mixture of Gaussians by an EM that grows one component at a time, at most n / 10.

    From one Gaussian on, candidates at 128 quantiles of the data, of six widths and four shares,
    are mixed in; the one that raises the likelihood most stays, and EM refines all components. When
    Schwarz's Bayesian criterion (1978) rises, the mixture before it is kept. A penalty keeps
    components of few points wide: one of a single point among 20 has 0.7 of the data's standard
    deviation, or of the width of their groups where these are narrow and far apart. None is
    narrower than half the median distance of neighbouring values, so rounded data do not become
    spikes, nor than about a twentieth of the kernel bandwidth (Silverman).

    Args:
        y: Sample, shape `(n,)`, of at least two different values; above `2 * N_BINS` points, EM
            runs on their nodes by `dlutils.compression.compress`.
        weights: How many points each value stands for.

    Raises:
        ValueError: If a value is not finite, all are the same, or the weights are not positive or
            not as many.

    Source:
        Vlassis & Likas, A greedy EM algorithm for Gaussian mixture learning (2002); Chen, Tan &
        Zhang, Inference for normal mixtures in mean and variance (2008), for the penalty.
    """
    y, counts = _checked(y, weights)
    n = counts.sum()
    loc = counts @ y / n
    scale = (counts @ (y - loc) ** 2 / n).sqrt()
    y, order = y.sort()
    tenth = -(-len(y) // 10)
    width = (y[tenth:] - y[:-tenth]).median()
    if 0 < width < APART * (y[-tenth] - y[tenth - 1]):
        scale = 4 * width
    x, counts = (y - loc) / scale, counts[order]
    gaps = x.unique().diff()
    least = gaps.median() * max(0.5, 0.02 * len(gaps) * n.item() ** -0.2)
    if len(x) > 2 * N_BINS:
        x, counts = compress(x, N_BINS, counts)
    best = _grow(x, counts, min(least.item(), 1.0))
    return Mixture(best.weights, loc + scale * best.means, scale * best.sds)


def _grow(x: Tensor, counts: Tensor, least: float) -> Mixture:
    """Add components to standardized points, in order, while three more numbers are worth it."""
    n = counts.sum()
    places = np.interp((np.arange(128) + 0.5) / 128, (counts.cumsum(0) - counts / 2) / n, x)
    sides = np.geomspace(0.003, 0.3, 4), places, np.geomspace(least, 1, 6)
    candidates = torch.cartesian_prod(*map(torch.from_numpy, sides))
    parts, rest = Mixture(*candidates.T).parts(x), torch.log1p(-candidates[:, 0])
    mixture, lowest = Mixture(*torch.tensor([[1.0], [0.0], [1.0]]).double()), torch.inf
    for _ in range(max(1, int(n / 10))):
        mixture = _em(x, counts, mixture, least)
        log_p = mixture(x)
        value = mixture.n_parameters * n.log() - 2 * _objective(counts, mixture, log_p)
        if not value < lowest:
            break
        best, lowest = mixture, value
        gains = counts @ torch.logaddexp(log_p[:, None] + rest, parts)
        added = candidates[gains.argmax(), :, None]
        old = mixture.weights * (1 - added[0]), mixture.means, mixture.sds
        mixture = Mixture(*map(torch.cat, zip(old, added, strict=True)))
    return _em(x, counts, best, least, n_steps=1000)


def _objective(counts: Tensor, mixture: Mixture, log_p: Tensor) -> Tensor:
    """Log-likelihood less 10/n (1/sd² - log(1/sd²) - 1) a component: zero for one of sd 1."""
    inverse = mixture.sds**-2
    return counts @ log_p - 10 / counts.sum() * (inverse - inverse.log() - 1).sum()


def _em(x: Tensor, counts: Tensor, mixture: Mixture, least: float, n_steps: int = 100) -> Mixture:
    """Raise the objective until a step brings less than 0.001, in nats for all points."""
    before, prior = -torch.inf, 20 / counts.sum()
    for _ in range(n_steps):
        parts = mixture.parts(x)
        log_p = parts.logsumexp(dim=1)
        value = _objective(counts, mixture, log_p)
        if value - before < 0.001:
            break
        before = value
        members = counts[:, None] * (parts - log_p[:, None]).exp()
        n = members.sum(0).clamp(min=1e-300)
        means = x @ members / n
        variances = ((members * (x[:, None] - means) ** 2).sum(0) + prior) / (n + prior)
        mixture = Mixture(n / n.sum(), means, variances.sqrt().clamp(min=least))
    return mixture


YARDSTICKS: dict[str, Callable[..., LogDensity]] = {
    "one Gaussian": gaussian,
    "KDE (Scott)": kde,
    "EM mixture (BIC)": em_mixture,
    "penalised likelihood": penalized,
}
