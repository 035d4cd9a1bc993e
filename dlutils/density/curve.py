"""A density whose logarithm is linear between nodes: its CDF and quantiles are closed forms."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import exprel

STEEP = 5.0  # by how much a tail falls at least, over the length of the nodes, nats


@dataclass(frozen=True)
class Curve:
    r"""A density on the line, its mass divided out.

    Between two nodes $\log q$ is linear, beyond the first and the last it goes on with the slope of
    the end, which falls.

    Attributes:
        x: Nodes, increasing, shape `(m,)`.
        height: Log-density there, nats, up to a constant, `(m,)`.
    """

    x: np.ndarray
    height: np.ndarray

    @cached_property
    def slopes(self) -> np.ndarray:
        """Of log q before the first node, between each two, and after the last, `(m + 1,)`."""
        inner = np.diff(self.height) / np.diff(self.x)
        least = STEEP / np.ptp(self.x)
        return np.concatenate([[max(inner[0], least)], inner, [min(inner[-1], -least)]])

    @cached_property
    def mass(self) -> float:
        """The integral of what was given, before it is divided out."""
        return float(self._masses(self.height).sum())

    @cached_property
    def log_q(self) -> np.ndarray:
        """Log-density at the nodes, nats, `(m,)`."""
        return self.height - np.log(self.mass)

    @cached_property
    def below(self) -> np.ndarray:
        """The CDF at the nodes, `(m,)`."""
        return self._masses(self.log_q).cumsum()[:-1]

    def _masses(self, height: np.ndarray) -> np.ndarray:
        """Before the first node, between each two, and after the last, `(m + 1,)`."""
        p, s = np.exp(height), self.slopes
        gap = np.diff(self.x)
        inner = p[:-1] * gap * exprel(np.minimum(s[1:-1] * gap, 700))
        return np.concatenate([[p[0] / s[0]], inner, [-p[-1] / s[-1]]])

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log q(x), nats, of the shape of x."""
        beyond = np.minimum(x - self.x[0], 0) * self.slopes[0]
        beyond += np.maximum(x - self.x[-1], 0) * self.slopes[-1]
        return np.interp(x, self.x, self.log_q) + beyond

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """F(x), of the shape of x."""
        k = np.searchsorted(self.x, x)  # the piece that x is in
        start = np.concatenate([[0.0], self.below])[k]
        left = np.maximum(k - 1, 0)
        u = x - self.x[left]
        p, s = np.exp(self.log_q[left]), self.slopes[k]
        with np.errstate(over="ignore"):
            inner = start + p * u * exprel(np.clip(s * u, -700, 700))
            first = np.exp(self.log_q[0] + np.minimum(self.slopes[0] * u, 0)) / self.slopes[0]
        return np.clip(np.where(k == 0, first, inner), 0, 1)

    def quantile(self, u: np.ndarray) -> np.ndarray:
        """Where F is u, between 0 and 1, of its shape; infinite at 0 and 1."""
        k = np.searchsorted(self.below, u)
        left = np.maximum(k - 1, 0)
        p, s = np.exp(self.log_q[left]), self.slopes[k]
        rest = u - self.below[left]
        with np.errstate(divide="ignore", invalid="ignore"):
            r = s * rest / p
            flat = np.abs(r) < 1e-12
            step = np.where(flat, rest / p, np.log1p(np.maximum(r, -1)) / np.where(s, s, 1))
        return self.x[left] + np.where(u <= 0, -np.inf, np.where(u >= 1, np.inf, step))
