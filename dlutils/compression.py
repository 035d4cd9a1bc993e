"""A sample as few weighted points, for sums of smooth functions."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dlutils.settings import check_count


def compress(
    y: ArrayLike | Tensor, n_bins: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Replace data by weighted points with the same mass, mean, variance and skewness in each bin.

    The bins are equally long in the average of position and rank, both from 0 to 1: none is wider
    than twice the mean width, and none holds more than twice the mean number of points. A flow that
    can tell nodes apart would fit the nodes in place of the density; where most points are, such
    bins are narrow enough in half the number that equal widths would need.

    In a bin with mean $m$, standard deviation $s$ and skewness $g$ stands the two-point Gauss rule:
    nodes $m+s(g/2\pm r)$ with weights $\frac12\mp\frac g{4r}$ of the bin's count,
    $r=\sqrt{1+g^2/4}$. Sums of smooth functions are off by O(width⁴). Empty bins leave no node;
    bins whose points coincide leave one.

    Args:
        y: Data, shape `(n,)`.
        n_bins: Number of bins between the smallest and the largest point, at least 1.
        weights: What the points count, positive, shape `(n,)`; None for one each.

    Returns:
        Nodes, increasing, and their positive weights, which sum to n, or to those of the points:
        float64, shape `(k,)` with k at most `2 * n_bins`.

    Raises:
        ValueError: If `n_bins` is below 1 or the data are not finite, of one dimension, or all
            the same.

    Source:
        Golub & Welsch, Calculation of Gauss quadrature rules (1969), for two points.
    """
    check_count("n_bins", n_bins)
    y = torch.as_tensor(y).detach().double().numpy(force=True)
    if y.ndim != 1 or len(y) == 0 or not np.isfinite(y).all() or y.min() == y.max():
        raise ValueError(f"only finite values, at least two of them different, not {y}")
    w = np.ones(len(y)) if weights is None else weights.double().numpy(force=True)
    increasing = np.sort(y)
    edges = np.interp(np.arange(1, n_bins) / n_bins, along(increasing), increasing)
    bins = np.searchsorted(edges, y, side="right")
    bins = np.unique(bins, return_inverse=True)[1]
    count = np.bincount(bins, w)
    mean = np.bincount(bins, w * y) / count
    deviation = y - mean[bins]
    s = np.sqrt(np.bincount(bins, w * deviation**2) / count)
    spread = s > 1e-9 * np.ptp(y) / n_bins
    g = np.bincount(bins, w * deviation**3) / count / np.where(spread, s, 1.0) ** 3
    r = np.sqrt(1 + g**2 / 4)
    sides = np.array([-1.0, 1.0])[:, None]
    nodes, shares = mean + s * (g / 2 + sides * r), count * (0.5 - sides * g / (4 * r))
    nodes = np.concatenate([nodes[:, spread].ravel(), mean[~spread]])
    shares = np.concatenate([shares[:, spread].ravel(), count[~spread]])
    order = np.argsort(nodes)
    return torch.from_numpy(nodes[order]), torch.from_numpy(shares[order])


def bin_linearly(at: np.ndarray, weights: np.ndarray, m: int) -> np.ndarray:
    """What lies at nodes 0 to m - 1; a point between two belongs to both, the nearer one more.

    Args:
        at: Places, `(n,)`, in units of the nodes' distance.
        weights: What the points count, `(n,)`.
        m: Number of nodes.
    """
    left = np.minimum(at.astype(int), m - 2)
    right = at - left
    shares = ((left, 1 - right), (left + 1, right))
    return sum(np.bincount(node, weights * share, m) for node, share in shares)


def along(y: np.ndarray, by_position: float = 1.0) -> np.ndarray:
    """How far along increasing points are, 0 to 1: a mean of rank and, so much more, position."""
    position = (y - y[0]) / (y[-1] - y[0])
    return (np.linspace(0, 1, len(y)) + by_position * position) / (1 + by_position)
