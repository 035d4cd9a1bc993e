r"""A histogram whose bins are as many and as wide as the sample asks for.

Given its bins a histogram with a Dirichlet prior on their probabilities has a marginal likelihood
in closed form, a product over the bins; all partitions with equally many bins are equally likely.
The partition of most evidence is found by dynamic programming over candidate places, then each
place is moved to where it is best between two neighbouring points.

Source:
    Simensen, Christensen & Hjort, Random irregular histograms (2025), for prior and posterior;
    Kontkanen & Myllymäki, MDL histogram density estimation (2007), for dynamic programming.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

from dlutils.compression import along

PRIOR = 5.0  # of the Dirichlet distribution: so many points, spread evenly
N_PLACES = 160  # candidates of the first search
MOST_BINS = 60
SWEEPS = 3
N_GAPS = 10  # of neighbouring values at either end


@dataclass(frozen=True)
class Histogram:
    """A density that is constant in bins; called with points, `(m,)`, it returns its logarithm.

    Attributes:
        edges: Increasing, shape `(k + 1,)`.
        density: In each bin, per unit, `(k,)`, its integral one.
        counts: Points in each bin, or what they count.
        evidence: Log marginal likelihood of sample and partition, nats in all.
    """

    edges: np.ndarray
    density: np.ndarray
    counts: np.ndarray
    evidence: float

    def __call__(self, points: Tensor) -> Tensor:
        """Log-density, -inf outside the bins."""
        k = np.searchsorted(self.edges, points.double().numpy()) - 1
        inside = (k >= 0) & (k < len(self.density))
        log_q = np.full(len(k), -np.inf)
        log_q[inside] = np.log(self.density[k[inside]])
        return torch.from_numpy(log_q)


def irregular_histogram(y: Tensor, *, weights: Tensor | None = None) -> Histogram:
    """The irregular histogram of most evidence.

    Its ends lie beyond the smallest and the largest value by the mean of the gaps next to these.

    Args:
        y: Sample, shape `(n,)`, of at least two different values.
        weights: What the points count, `(n,)`; None for one each.
    """
    points, where = np.unique(y.double().numpy(), return_inverse=True)
    counts = np.ones(len(y)) if weights is None else weights.double().numpy()
    counts = np.bincount(where, counts)
    last = min(N_GAPS, len(points) - 1)
    gaps = points[last] - points[0], points[-1] - points[-1 - last]
    ends = points[0] - gaps[0] / last, points[-1] + gaps[1] / last
    places = np.concatenate([ends[:1], (points[1:] + points[:-1]) / 2, ends[1:]])
    below = np.concatenate([[0.0], counts.cumsum()])  # points below each place
    length, n = ends[1] - ends[0], below[-1]

    def score(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Of bins between the i-th and the j-th place."""
        width, number = (places[j] - places[i]) / length, below[j] - below[i]
        a = PRIOR * width
        return gammaln(a + number) - gammaln(a) - number * np.log(width)

    wanted = min(N_PLACES, len(places) - 1)
    coarse = np.interp(np.linspace(0, 1, wanted + 1), along(places), np.arange(len(places)))
    cuts = _partition(np.unique(coarse.astype(int)), score, len(places))
    for _ in range(SWEEPS):
        for k in range(1, len(cuts) - 1):
            between = np.arange(cuts[k - 1] + 1, cuts[k + 1])
            both = score(cuts[k - 1], between) + score(between, cuts[k + 1])
            cuts[k] = between[both.argmax()]
    total = score(cuts[:-1], cuts[1:]).sum() + gammaln(PRIOR) - gammaln(PRIOR + n)
    evidence = total - n * np.log(length) - _log_partitions(len(cuts) - 1, len(places))
    edges, number = places[cuts], np.diff(below[cuts])
    width = np.diff(edges)
    share = (PRIOR * width / length + number) / (PRIOR + n)
    return Histogram(edges, share / width, number, float(evidence))


def _log_partitions(k: int, n_places: int) -> float:
    """The logarithm of how many ways there are to k bins."""
    inner = n_places - 2
    return gammaln(inner + 1) - gammaln(k) - gammaln(inner - k + 2)


def _partition(at: np.ndarray, score, n_places: int) -> np.ndarray:
    """The best of all partitions with cuts at these places, the first and the last among them."""
    m = len(at)
    i, j = np.triu_indices(m, 1)
    gain = np.full((m, m), -np.inf)
    gain[i, j] = score(at[i], at[j])
    best, back, found = gain[0].copy(), [], []
    for k in range(1, min(MOST_BINS, m - 1) + 1):
        found.append(best[-1] - _log_partitions(k, n_places))
        through = best[:, None] + gain
        back.append(through.argmax(axis=0))
        best = through.max(axis=0)
    k, cuts = int(np.argmax(found)), [m - 1]
    for step in reversed(back[:k]):
        cuts.append(int(step[cuts[-1]]))
    return at[np.array([0, *reversed(cuts)])]
