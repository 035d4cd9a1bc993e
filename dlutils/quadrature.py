"""Gauss and Legendre's rule on any interval, or on several at once."""

import numpy as np
from numpy.typing import ArrayLike


def gauss_legendre(n: int, low: ArrayLike, high: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The n nodes, increasing, and positive weights of the integral from low to high.

    Exact for polynomials of degree below 2 n.

    Args:
        n: Number of nodes in each interval.
        low: Where the intervals begin, a number or an array of any shape.
        high: Where they end, of the same shape.

    Returns:
        Nodes and weights, float64: that shape, and n along a last axis.
    """
    z, weights = np.polynomial.legendre.leggauss(n)
    low = np.asarray(low, dtype=float)[..., None]
    half = (np.asarray(high, dtype=float)[..., None] - low) / 2
    return low + half * (1 + z), half * weights
