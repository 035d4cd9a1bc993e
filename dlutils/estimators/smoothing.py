r"""A smooth density by penalised likelihood, its penalty found from the same sample.

The counts of K narrow bins are Poisson variables of mean $nw_jp(x_j)$. The second differences $u_j$
of $\log p$ less the standard normal's, its bends, are normal a priori with mean zero and variance
$\tau_j^2$, so the log-likelihood pays $u_j^2/2\tau_j^2$ for each. And $\tau_j^2$ is estimated from
the same counts: a moving mean of $u_j^2$ over one of how much the counts say on $u_j$ (empirical
Bayes). So the density may bend where the sample bends, and no strength is left to choose.

Source:
    Good & Gaskins, Nonparametric roughness penalties for probability densities (1971); Silverman,
    On the estimation of a probability density function by the maximum penalized likelihood method
    (1982); MacKay, Bayesian interpolation (1992), eq. 4.9, for the variances.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.linalg import solve_banded
from scipy.ndimage import uniform_filter1d
from scipy.sparse import csr_array
from torch import Tensor

from dlutils.compression import along
from dlutils.processes import limited

N_BINS = 400
BEYOND = 0.2  # how far the bins go on beyond the sample, in units of its length
BEYOND_INCOMPLETE = 1.0  # the same where values may lie beyond what was recorded
LEAST, MOST = 1e-9, 100.0  # of a variance
WINDOW = 25  # bins of the moving means
N_ROUNDS = 12  # of a Newton step and new variances; in the first four one variance for all


@dataclass(frozen=True)
class Incomplete:
    """Values of which only an interval is known, and the window outside which none was recorded.

    Attributes:
        low: Below which the value does not lie, may be -inf, shape `(m,)`.
        high: Above which it does not lie, may be inf, `(m,)`.
        counts: How many such values there are, positive, `(m,)`.
        window: Values outside were never recorded, nor that there were any.
    """

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    window: tuple[float, float] = (-np.inf, np.inf)


@dataclass(frozen=True)
class Hidden:
    """Of K bins, which were seen, and which values that are not known may lie in them.

    Attributes:
        seen: Which part of each bin lies in the window, `(K,)`.
        within: Which part of it each interval covers, within the window, `(m, K)`.
        counts: How many values lie in each interval, `(m,)`.
    """

    seen: np.ndarray
    within: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, edges: np.ndarray, incomplete: Incomplete | None) -> Self:
        """Of bins with these edges; all seen where nothing is incomplete."""
        if incomplete is None:
            return cls(np.ones(len(edges) - 1), np.empty((0, len(edges) - 1)), np.empty(0))
        seen = _covered(edges, *(np.array([end]) for end in incomplete.window))[0]
        within, counts = _distinct(edges, incomplete)
        return cls(seen, within * seen, counts)

    def shares(self, mass: np.ndarray) -> np.ndarray:
        """Where in its bins an interval's value is, by the masses `(K,)` of the bins, `(m, K)`."""
        part = self.within * mass
        return part / (part.sum(axis=1, keepdims=True) + 1e-300)

    def expected(self, mass: np.ndarray, n: float) -> np.ndarray:
        """How many values that are not known lie in each bin, `(K,)`; n of all were recorded.

        Those of the intervals, and those outside the window, of which there is no record.
        """
        beyond = n * (1 - self.seen) * mass / (self.seen @ mass)
        return self.counts @ self.shares(mass) + beyond


@dataclass(frozen=True)
class Smooth:
    """A smooth density, and how sure the sample is of it.

    Attributes:
        x: The bins' centres, increasing, shape `(K,)`.
        log_p: Log-density there, nats.
        n_parameters: How many numbers the sample had to say for it.
        covariance: Of `log_p`, given the sample and the variances of the bends, `(K, K)`.
        edges: Of the bins, `(K + 1,)`.
        hidden: What was not seen.
    """

    x: np.ndarray
    log_p: np.ndarray
    n_parameters: float
    covariance: np.ndarray
    edges: np.ndarray
    hidden: Hidden

    @property
    def sd(self) -> np.ndarray:
        """The standard deviation of the log-density, `(K,)`, that of the share unseen in it.

        In the window the counts say how high `log_p` is. That the whole has mass one says the rest:
        the less is known of the share outside, the less of the density inside, too.
        """
        mass = np.diff(self.edges) * np.exp(self.log_p)
        seen = self.hidden.seen * mass
        slope = mass / mass.sum() - seen / seen.sum()  # of the logarithm of all over what is seen
        with_share = self.covariance @ slope
        variance = np.diag(self.covariance) - 2 * with_share + slope @ with_share
        return np.sqrt(np.maximum(variance, 0))

    def quantiles(self, n: int) -> np.ndarray:
        """As many regular quantiles, increasing, shape `(n,)`."""
        k = np.arange(len(self.x))
        x = np.interp(np.linspace(0, len(k) - 1, 6 * (len(k) - 1) + 1), k, self.x)
        middle = (x[1:] + x[:-1]) / 2
        mass = np.diff(x) * np.exp(np.interp(middle, self.x, self.log_p))
        cdf = np.concatenate([[0], mass.cumsum()]) / mass.sum()
        return np.interp((np.arange(n) + 0.5) / n, cdf, x)


def smoothed_sample(y: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """As many regular quantiles of the smooth density as there are points.

    Args:
        y: Data, standardized, shape `(n,)`.
        weights: See `fit`.

    Returns:
        Increasing, shape `(n,)`, of y's dtype.
    """
    return torch.from_numpy(posterior(y, weights=weights).quantiles(len(y))).to(y.dtype)


def fit(
    y: Tensor, n_bins: int = N_BINS, weights: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """The smooth density, and how many numbers the sample had to say for it.

    Args:
        y: Data, standardized, shape `(n,)`.
        n_bins: Number of bins K: narrow where the points are dense, and of bounded width.
        weights: What the points count, `(n,)`; None for one each.

    Returns:
        Places and log-density in nats, `(n_bins,)` each, and the effective number of parameters.
    """
    found = posterior(y, n_bins, weights)
    return found.x, found.log_p, found.n_parameters


@limited()
def posterior(
    y: Tensor,
    n_bins: int = N_BINS,
    weights: Tensor | None = None,
    incomplete: Incomplete | None = None,
) -> Smooth:
    r"""The smooth density, and its covariance in Laplace's approximation.

    With the penalty as a prior on $\log p$ its posterior is about Gaussian, its precision minus the
    Hessian of the penalised log-likelihood, $n\operatorname{diag}(m)+P$ with the bins' masses m and
    the penalty $P=D^\top\operatorname{diag}(1/\tau^2)D$.

    A value that is known to lie in an interval of mass A counts as $\log A$. Its share of a bin is
    what the density says, $\pi_j=m_j/A$; and $\operatorname{diag}(\pi)-\pi\pi^\top$ is what the
    Hessian lacks for not knowing which. Bins outside the window of what was recorded say nothing,
    and there the bends alone decide.

    Args:
        y: Values that are known, standardized, shape `(n,)`.
        n_bins: See `fit`.
        weights: Of y: see `fit`.
        incomplete: Further values, and the window, standardized.

    Source:
        Wahba, Bayesian “confidence intervals” for the cross-validated smoothing spline (1983), for
        the covariance; Turnbull, The empirical distribution function with arbitrarily grouped,
        censored and truncated data (1976), for the shares; Louis, Finding the observed information
        matrix when using the EM algorithm (1982), for the Hessian.
    """
    counts = np.ones(len(y)) if weights is None else weights.double().numpy()
    places, beyond = y.double().numpy(), BEYOND
    if incomplete is not None:
        ends = np.concatenate([incomplete.low, incomplete.high])
        places = np.concatenate([places, ends[np.isfinite(ends)]])
        beyond = BEYOND_INCOMPLETE
    edges = _edges(places, n_bins, beyond)
    width, x = np.diff(edges), (edges[1:] + edges[:-1]) / 2
    hidden = Hidden.of(edges, incomplete)
    seen, n = hidden.seen, counts.sum() + hidden.counts.sum()
    share = np.histogram(y.numpy(), edges, weights=counts)[0] / n
    of_hidden = hidden.counts / n
    normal = -(x**2 + np.log(2 * np.pi)) / 2
    unseen = seen[1:-1] == 0  # bends of which there is no record
    D = np.diff(np.eye(n_bins), n=2, axis=0)
    banded = n_bins > N_BINS and incomplete is None
    D = csr_array(D) if banded else D
    excess, variance = np.zeros(n_bins), np.full(n_bins - 2, 1e-4)  # of log p, of its bends

    def state(excess: np.ndarray) -> tuple[np.ndarray, float]:
        """The bins' masses, and the penalised log-likelihood a point."""
        mass = width * np.exp(np.minimum(normal + excess, 50))
        height = share @ excess - (seen * mass).sum() - excess @ penalty @ excess / 2
        return mass, height + of_hidden @ np.log(hidden.within @ mass + 1e-300)

    for k in range(N_ROUNDS):
        penalty = D.T @ (D / (n * variance)[:, None])
        for _ in range(8 if k == 0 else 1):
            mass, height = state(excess)
            precision, expected = np.diag(seen * mass + 1e-12) + penalty, share
            if len(of_hidden):
                part = hidden.shares(mass)
                filled = of_hidden @ part
                expected = share + filled
                of_known = np.diag(np.maximum(seen * mass - filled, 0) + 1e-12)
                precision = of_known + part.T @ (of_hidden[:, None] * part) + penalty
            inverse = _inverse(precision, banded)
            step = inverse @ (expected - seen * mass - penalty @ excess)
            fraction = 1.0
            while state(excess + fraction * step)[1] < height and fraction > 1e-3:
                fraction /= 2
            excess = excess + fraction * step
        known = 1 - (D @ inverse * D).sum(axis=1) / (n * variance)  # by the counts, 0 to 1
        mean = np.mean if k < 4 else lambda values: uniform_filter1d(values, WINDOW)
        found = mean((D @ excess) ** 2) / np.maximum(mean(known), 1e-3)
        variance = np.clip(found, LEAST, MOST) * np.ones(n_bins - 2)
        if unseen.any():  # there the bends are as inside: that none shows says nothing
            inside = ((D @ excess) ** 2)[~unseen].sum() / max(known[~unseen].sum(), 1e-3)
            variance[unseen] = np.clip(inside, LEAST, MOST)
    return Smooth(x, normal + excess, float(known.sum()), inverse / n, edges, hidden)


def _inverse(precision: np.ndarray, banded: bool) -> np.ndarray:
    """Of a matrix, `(K, K)`; in K squared steps where only five of its diagonals are not zero.

    Not by Cholesky's method: far out nothing but rounding is positive.
    """
    if not banded:
        return torch.linalg.inv(torch.from_numpy(precision)).numpy()
    bands = [np.pad(np.diag(precision, k), (max(k, 0), max(-k, 0))) for k in (2, 1, 0, -1, -2)]
    return solve_banded((2, 2), bands, np.eye(len(precision)))


def _covered(edges: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which part of each bin intervals cover, `(m, K)`."""
    low, high = low[:, None], high[:, None]
    covered = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
    return np.clip(covered / np.diff(edges), 0, 1)


def _distinct(edges: np.ndarray, incomplete: Incomplete) -> tuple[np.ndarray, np.ndarray]:
    """What different intervals cover of each bin, and how many there are of each.

    Ends are taken to eighths of a bin, so that there are no more of them than bins ask for.
    """
    places = np.arange(len(edges))
    ends = np.stack([incomplete.low, incomplete.high])
    at = np.round(8 * np.interp(np.clip(ends, edges[0], edges[-1]), edges, places)) / 8
    at[1] = np.maximum(at[1], at[0] + 1 / 8)
    at, where = np.unique(at, axis=1, return_inverse=True)
    low, high = np.interp(at, places, edges)
    return _covered(edges, low, high), np.bincount(where.ravel(), incomplete.counts)


def _edges(y: np.ndarray, n_bins: int, beyond: float = BEYOND) -> np.ndarray:
    """Equally far apart in a mean of rank and, eight times as much, position; then beyond both."""
    y = np.sort(y)
    length = y[-1] - y[0]
    far = 9 / 8 * beyond * length
    at = np.linspace(-beyond, 1 + beyond, n_bins + 1)
    edges = np.interp(at, [-beyond, *along(y, 8.0), 1 + beyond], [y[0] - far, *y, y[-1] + far])
    return edges + 1e-4 * length * at  # ties are moved apart
