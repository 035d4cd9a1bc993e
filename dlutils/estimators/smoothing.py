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

import numpy as np
import torch
from scipy.ndimage import uniform_filter1d
from torch import Tensor

from dlutils.compression import along
from dlutils.processes import limited

BEYOND = 0.2  # how far the bins go on beyond the sample, in units of its length
LEAST, MOST = 1e-9, 100.0  # of a variance
WINDOW = 25  # bins of the moving means
N_ROUNDS = 12  # of a Newton step and new variances; in the first four one variance for all


def smoothed_sample(y: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """As many regular quantiles of the smooth density as there are points.

    Args:
        y: Data, standardized, shape `(n,)`.
        weights: See `fit`.

    Returns:
        Increasing, shape `(n,)`, of y's dtype.
    """
    x, log_p, _ = fit(y, weights=weights)
    k = np.arange(len(x))
    x_fine = np.interp(np.linspace(0, len(x) - 1, 6 * (len(x) - 1) + 1), k, x)
    middle = (x_fine[1:] + x_fine[:-1]) / 2
    mass = np.diff(x_fine) * np.exp(np.interp(middle, x, log_p))
    cdf = np.concatenate([[0], mass.cumsum()]) / mass.sum()
    rank = (np.arange(len(y)) + 0.5) / len(y)
    return torch.from_numpy(np.interp(rank, cdf, x_fine)).to(y.dtype)


@limited()
def fit(
    y: Tensor, n_bins: int = 400, weights: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """The smooth density, and how many numbers the sample had to say for it.

    Args:
        y: Data, standardized, shape `(n,)`.
        n_bins: Number of bins K: narrow where the points are dense, and of bounded width.
        weights: What the points count, `(n,)`; None for one each.

    Returns:
        Places and log-density in nats, `(n_bins,)` each, and the effective number of parameters.
    """
    edges = _edges(y.double().numpy(), n_bins)
    counts = np.ones(len(y)) if weights is None else weights.double().numpy()
    n, width = counts.sum(), np.diff(edges)
    share = np.histogram(y.numpy(), edges, weights=counts)[0] / n
    x = (edges[1:] + edges[:-1]) / 2
    normal = -(x**2 + np.log(2 * np.pi)) / 2
    D = np.diff(np.eye(n_bins), n=2, axis=0)
    excess, variance = np.zeros(n_bins), np.full(n_bins - 2, 1e-4)  # of log p, of its bends

    def state(excess: np.ndarray) -> tuple[np.ndarray, float]:
        """The bins' masses, and the penalised log-likelihood a point."""
        mass = width * np.exp(np.minimum(normal + excess, 50))
        return mass, share @ excess - mass.sum() - excess @ penalty @ excess / 2

    for k in range(N_ROUNDS):
        penalty = D.T @ (D / (n * variance)[:, None])
        for _ in range(8 if k == 0 else 1):
            mass, height = state(excess)
            # no Cholesky: far out nothing but rounding is positive
            inverse = torch.linalg.inv(torch.from_numpy(np.diag(mass + 1e-12) + penalty)).numpy()
            step, fraction = inverse @ (share - mass - penalty @ excess), 1.0
            while state(excess + fraction * step)[1] < height and fraction > 1e-3:
                fraction /= 2
            excess = excess + fraction * step
        known = 1 - (D @ inverse * D).sum(axis=1) / (n * variance)  # by the counts, 0 to 1
        mean = np.mean if k < 4 else lambda values: uniform_filter1d(values, WINDOW)
        found = mean((D @ excess) ** 2) / np.maximum(mean(known), 1e-3)
        variance = np.clip(found, LEAST, MOST) * np.ones(n_bins - 2)
    return x, normal + excess, float(known.sum())


def _edges(y: np.ndarray, n_bins: int) -> np.ndarray:
    """Equally far apart in a mean of rank and, eight times as much, position; then beyond both."""
    y = np.sort(y)
    length = y[-1] - y[0]
    far = 9 / 8 * BEYOND * length
    at = np.linspace(-BEYOND, 1 + BEYOND, n_bins + 1)
    edges = np.interp(at, [-BEYOND, *along(y, 8.0), 1 + BEYOND], [y[0] - far, *y, y[-1] + far])
    return edges + 1e-4 * length * at  # ties are moved apart
