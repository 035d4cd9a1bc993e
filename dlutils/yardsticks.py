"""What one would try first on a sample, and how far models are apart where no truth is known.

Each takes a sample, shape `(n,)`, and returns a log-density, `(m,)` to `(m,)`, in nats.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import gaussian_kde
from torch import Tensor
from torch.distributions import Normal

from dlutils.datasets import compress
from dlutils.tables import plus_minus

LogDensity = Callable[[Tensor], Tensor]


def gaussian(y: Tensor, seed: int = 0) -> LogDensity:
    """One normal distribution with the sample's mean and standard deviation."""
    y = y.double()
    normal = Normal(y.mean(), y.std())
    return lambda points: normal.log_prob(points.double())


def kde(y: Tensor, seed: int = 0, bandwidth: float | str = "scott") -> LogDensity:
    """Gaussian kernels (SciPy); the bandwidth is Scott's, or given in standard deviations.

    Where the estimate underflows, its logarithm is that of the smallest number.
    """
    estimate = gaussian_kde(y.double().numpy(), bandwidth)

    def log_density(points: Tensor) -> Tensor:
        p = np.maximum(estimate(points.double().numpy()), np.finfo(float).tiny)
        return torch.from_numpy(np.log(p))

    return log_density


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


def em_mixture(
    y: Tensor,
    seed: int = 0,
    *,
    weights: Tensor | None = None,
    criterion: str = "bic",
    n_bins: int = 512,
) -> Mixture:
    """A mixture of Gaussians by an EM that grows one component at a time, at most n / 10.

    From one Gaussian on, candidates at 128 quantiles of the data, of six widths and four shares,
    are mixed in; the one that raises the likelihood most stays, and EM refines all components. When
    the criterion rises, the mixture before it is kept. A penalty keeps components of few points
    wide: one of a single point among 20 has 0.7 of the data's standard deviation. None is narrower
    than half the median distance of neighbouring values, so rounded data do not become spikes, nor
    than about a twentieth of the kernel bandwidth (Silverman).

    Args:
        y: Sample, shape `(n,)`, of at least two different values; above `2 * n_bins` points, EM
            runs on their nodes by `dlutils.datasets.compress`.
        seed: Not used, there is nothing random; here because all yardsticks have one.
        weights: How many points each value stands for, shape `(n,)`, positive; None for one each.
        criterion: "bic", Bayesian (Schwarz 1978), or "aic", Akaike's (1974).
        n_bins: Bins of the compression.

    Raises:
        ValueError: If the criterion is unknown, a value is not finite, all are the same, or the
            weights are not positive or not as many.

    Source:
        Vlassis & Likas, A greedy EM algorithm for Gaussian mixture learning (2002); Chen, Tan &
        Zhang, Inference for normal mixtures in mean and variance (2008), for the penalty.
    """
    if criterion not in ("bic", "aic"):
        raise ValueError(f"unknown criterion {criterion!r}; choose from bic, aic")
    y = y.double()
    counts = torch.ones_like(y) if weights is None else weights.double()
    if counts.shape != y.shape or not ((counts > 0) & counts.isfinite()).all():
        raise ValueError(f"weights must be {len(y)} positive numbers, one for each value")
    n = counts.sum()
    loc = counts @ y / n
    scale = (counts @ (y - loc) ** 2 / n).sqrt()
    if not 0 < scale < np.inf:
        raise ValueError(f"a mixture needs finite values, at least two of them different: {y}")
    x, order = ((y - loc) / scale).sort()
    counts, gaps = counts[order], x.unique().diff()
    least = gaps.median() * max(0.5, 0.02 * len(gaps) * n.item() ** -0.2)
    if weights is None and n > 2 * n_bins:
        x, counts = compress(x, n_bins)
    best = _grow(x, counts, n.log() if criterion == "bic" else 2.0, min(least.item(), 1.0))
    return Mixture(best.weights, loc + scale * best.means, scale * best.sds)


def _grow(x: Tensor, counts: Tensor, price: Tensor | float, least: float) -> Mixture:
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
        value = mixture.n_parameters * price - 2 * _objective(counts, mixture, log_p)
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


YARDSTICKS: dict[str, Callable[[Tensor, int], LogDensity]] = {
    "one Gaussian": gaussian,
    "KDE (Scott)": kde,
    "EM mixture (BIC)": em_mixture,
}


def fit_all(y: Tensor, seed: int = 0) -> dict[str, LogDensity]:
    """The log-densities of all `YARDSTICKS` for a sample of at least two different values."""
    return {name: fit(y, seed) for name, fit in YARDSTICKS.items()}


def held_out(models: Mapping[str, LogDensity], y: Tensor) -> list[dict[str, str]]:
    """Mean log-likelihood of points that no model has seen, in nats, with standard errors.

    Models are compared by the paired difference on the same points, whose standard error is much
    smaller than that of either mean.

    Args:
        models: Log-densities by name; the first is the one that the others are compared with.
        y: The held-out points, shape `(n,)`, at least 2.

    Returns:
        A row a model: model, log-likelihood ± standard error, the first minus it ± standard error.

    Raises:
        ValueError: If there are fewer than 2 points or no models.
    """
    if len(y) < 2 or not models:
        raise ValueError(
            f"{len(models)} models on {len(y)} held-out points: at least 1 and 2 are needed; "
            "a larger sample, or a larger test_fraction, leaves more"
        )
    values = {name: log_density(y).double() for name, log_density in models.items()}
    first, reference = next(iter(values.items()))
    return [
        {
            "model": name,
            "log-likelihood": plus_minus(log_p, ""),
            f"{first} minus it": "–" if name == first else plus_minus(reference - log_p, ""),
        }
        for name, log_p in values.items()
    ]
