r"""What the known density of the data says about denoising them, and what a wrong denoiser costs.

A path $x_t=a(t)\,y+\beta(t)\,\epsilon$ shows of a standardized data point y no more than
$$g=x/\beta=s\,y+\epsilon,\qquad s=a/\beta=\sqrt{\mathrm{SNR}}.$$
The posterior mean $E[y\mid g]$ is the best denoiser, its mean square error the mmse, and by
Tweedie's formula it is the score of g as well,
$$\frac{d}{dg}\log p(g)=s\,E[y\mid g]-g.$$
With $\sigma_*^2=\beta^2\,d\log\mathrm{SNR}/dt$ what a stochastic differential equation loses of its
bound is known from these alone.

Source:
    Robbins, An empirical Bayes approach to statistics (1956); Efron, Tweedie's formula and
    selection bias (2011).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dlutils.arrays import dtype_of
from dlutils.data.datasets import Dataset
from dlutils.quadrature import gauss_legendre

STEP = 1 / 5  # of the grid in g; the noise has standard deviation 1
REACH = 9.0  # how far the noise may carry a data point
N_NODES = 12  # of a piece in y
WIDEST = 4.0  # piece, in standard deviations of the noise
FINE, MOST = 0.1, 64  # pieces of a panel are no wider in y, or are as many
TAIL = 1e-12  # probability that is left out at either end
FARTHEST = 1e4  # how many standard deviations the rest may span
BLOCK = 64  # points of the grid that share their neighbours in y


class Path(Protocol):
    r"""A path $a(t)\,y+\beta(t)\,\epsilon$ and its clock u, from 0 to 1; all `(n,)` to `(n,)`.

    `schedule` gives a, beta and their time derivatives, `time` the time at which the clock shows u,
    and `time_rate` dt/du.
    """

    schedule: Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
    time: Callable[[Tensor], Tensor]
    time_rate: Callable[[Tensor], Tensor]


Coefficient = Callable[[Tensor, Tensor], Tensor]  # of states and times, (m,) each


@dataclass(frozen=True)
class Posterior:
    r"""What $g=s\,y+\epsilon$ tells of y, on a grid in g; float64, shape `(m,)` each.

    Attributes:
        root_snr: The s in it.
        g: Equally spaced, over all that has a probability.
        density: That of g.
        y_hat: Posterior mean $E[y\mid g]$.
        variance: Posterior variance $\mathrm{Var}[y\mid g]$.
    """

    root_snr: float
    g: Tensor = field(repr=False)
    density: Tensor = field(repr=False)
    y_hat: Tensor = field(repr=False)
    variance: Tensor = field(repr=False)

    @property
    def score(self) -> Tensor:
        """The derivative of the density's logarithm in g, by Tweedie's formula."""
        return self.root_snr * self.y_hat - self.g

    @property
    def mmse(self) -> float:
        """The mean of the posterior variance, the least mean square error of a denoiser."""
        return self.mean(self.variance)

    def mean(self, values: Tensor) -> float:
        """The mean over g of a function's values on the grid, `(m,)`."""
        return ((self.g[1] - self.g[0]) * self.density @ values.double()).item()


def posterior(dataset: Dataset, loc: float, scale: float, root_snr: float) -> Posterior:
    """What the density of the data says about y = (data - loc) / scale when it is seen in noise.

    The scale is positive, root_snr, the root s of the signal-to-noise ratio, not negative. Both
    integrals, over y and over g, are quadratures: of Gauss and Legendre in y, between the places
    where the density is not smooth, and the trapezoidal rule in g.

    Raises:
        ValueError: If the density is unknown or its tails are too heavy, or root_snr is negative.
    """
    if not 0 <= root_snr < math.inf:
        raise ValueError(f"root_snr must be finite and not negative, not {root_snr!r}")
    y, w = _nodes(dataset, loc, scale, root_snr)
    low, high = root_snr * y[0] - REACH, root_snr * y[-1] + REACH
    g = np.linspace(low, high, math.ceil((high - low) / STEP) + 1)
    p, first, second = _moments(g, y, w, root_snr)
    with np.errstate(invalid="ignore"):
        y_hat = np.where(p > 0, first / p, 0)  # in a gap so wide that no probability is left
        variance = np.where(p > 0, second / p - y_hat**2, 0)
    return Posterior(root_snr, *(torch.from_numpy(v) for v in (g, p, y_hat, variance)))


def mmse(dataset: Dataset, loc: float, scale: float, root_snr: float) -> float:
    """The least mean square error of standardized data, E[(y - E[y | g])^2]: see `posterior`."""
    return posterior(dataset, loc, scale, root_snr).mmse


def best_loss(
    path: Path, diffusion: Coefficient, mmse: Callable[[float], float], n: int = 200
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""What the best drift loses of the bound with a given noise and with the best noise.

    With $r=\sigma^2/\sigma_*^2$ the loss per unit of time is
    $$\frac{(1+r)^2}{4r}\cdot\tfrac12\,\frac{d\,\mathrm{SNR}}{dt}\;\mathrm{mmse}.$$

    Args:
        path: Path and clock.
        diffusion: sigma at states and times, which may not depend on the state.
        mmse: Of the data, as a function of the root of SNR.
        n: Gauss and Legendre's nodes on the clock.

    Returns:
        Nodes u, their weights, and in nats per unit of the clock the loss with this noise and with
        the best one; float64, shape `(n,)` each.
    """
    u, w = map(torch.from_numpy, gauss_legendre(n, 0, 1))
    t = path.time(u)
    a, beta, a_dot, beta_dot = path.schedule(t)
    root_snr, rate = a / beta, (a_dot * beta - a * beta_dot) / beta**2
    r = diffusion(torch.zeros_like(t), t) ** 2 * root_snr / (2 * beta**2 * rate)
    error = torch.tensor([mmse(s) for s in root_snr.tolist()], dtype=u.dtype)
    least = root_snr * rate * error * path.time_rate(t)
    return u, w, (1 + r) ** 2 / (4 * r) * least, least


def fisher_gap(
    denoiser: Coefficient, path: Path, posterior: Callable[[float], Posterior], n: int = 60
) -> tuple[Tensor, Tensor, Tensor]:
    r"""What a denoiser loses of the bound beyond the best one, with the noise $\sigma_*$.

    A denoiser is a score, $(a\,\hat y-x)/\beta^2$, and its loss per unit of time is half of
    $\sigma_*^2$ times the Fisher divergence,
    $$\tfrac12\,\beta^2\,\frac{d\log\mathrm{SNR}}{dt}\;
    E\Big(\frac{a\,\hat y(x,t)-x}{\beta^2}-\partial_x\log p(x,t)\Big)^2.$$

    Args:
        denoiser: y_hat at states and times, `(m,)` each, of torch's default type.
        path: Path and clock.
        posterior: Of the data, as a function of the root of SNR.
        n: Gauss and Legendre's nodes on the clock.

    Returns:
        Nodes u, their weights, and the loss in nats per unit of the clock; float64, shape `(n,)`
        each. Their weighted sum is the gap.

    Source:
        Hyvärinen, Estimation of non-normalized statistical models by score matching (2005); Song,
        Durkan, Murray & Ermon, Maximum likelihood training of score-based diffusion models (2021).
    """
    u, w = map(torch.from_numpy, gauss_legendre(n, 0, 1))
    t = path.time(u)
    a, beta, a_dot, beta_dot = path.schedule(t)
    best_noise = 2 * beta**2 * (a_dot / a - beta_dot / beta)  # sigma_*^2
    divergence = torch.empty_like(u)
    for k in range(n):
        true, found = _both_scores(path, denoiser, posterior, t[k])
        divergence[k] = true.mean((found - true.score) ** 2) / beta[k] ** 2
    return u, w, best_noise / 2 * divergence * path.time_rate(t)


def scores(
    path: Path, denoiser: Coefficient, posterior: Callable[[float], Posterior], u: float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The true score and a denoiser's where the clock shows u, times $\beta$: see `fisher_gap`.

    Returns:
        States in units of $\sqrt{a^2+\beta^2}$, where they have a probability to speak of, and
        both scores there; float64, shape `(m,)` each.
    """
    t = path.time(torch.tensor([u], dtype=torch.float64))[0]
    true, found = _both_scores(path, denoiser, posterior, t)
    seen = true.density > 1e-4 * true.density.max()
    return true.g[seen] / math.hypot(true.root_snr, 1), true.score[seen], found[seen]


def _both_scores(
    path: Path, denoiser: Coefficient, posterior: Callable[[float], Posterior], t: Tensor
) -> tuple[Posterior, Tensor]:
    """What is known of the data at one time, and a denoiser's score there times beta."""
    a, beta, _, _ = (value.item() for value in path.schedule(t[None]))
    true, dtype = posterior(a / beta), dtype_of(denoiser)
    with torch.no_grad():
        y_hat = denoiser((beta * true.g).to(dtype), t.to(dtype).expand_as(true.g)).double()
    return true, a / beta * y_hat - true.g


def _nodes(
    dataset: Dataset, loc: float, scale: float, root_snr: float
) -> tuple[np.ndarray, np.ndarray]:
    """Standardized data y, increasing, and their probabilities."""
    dataset.log_prob(0.0)  # an unknown density says so here

    def rule(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gauss and Legendre's nodes between neighbouring ends, and their probabilities."""
        y, w = gauss_legendre(N_NODES, ends[:-1], ends[1:])
        return y, w * scale * dataset.log_prob(loc + scale * y).exp().numpy()

    ends = (dataset.distribution.breakpoints - loc) / scale
    used = _used(rule(ends)[1].sum(1))
    ends = ends[used.start : used.stop + 1]
    if ends[-1] - ends[0] > FARTHEST:
        raise ValueError(
            f"the tails of {dataset.name} are too heavy: all but {2 * TAIL:g} of the probability "
            f"spans {ends[-1] - ends[0]:.2g} standard deviations"
        )
    width = np.diff(ends)
    pieces = np.ceil(np.maximum(np.minimum(width / FINE, MOST), width * root_snr / WIDEST))
    panels = zip(pairwise(ends), pieces.astype(int), strict=True)
    pieces = [np.linspace(*panel, n, endpoint=False) for panel, n in panels]
    y, w = (v.ravel() for v in rule(np.concatenate([*pieces, ends[-1:]])))
    used = _used(w)
    return y[used], w[used]


def _used(mass: np.ndarray) -> slice:
    """Where all but the tails lies."""
    inside = np.flatnonzero((mass.cumsum() > TAIL) & (mass[::-1].cumsum()[::-1] > TAIL))
    return slice(inside[0], inside[-1] + 1)


def _moments(g: np.ndarray, y: np.ndarray, w: np.ndarray, root_snr: float) -> np.ndarray:
    """Density of g times the posterior means of 1, y and y^2, shape (3, len(g)).

    Block by block, with those y alone that the noise can carry there.
    """
    weighted = np.stack([w, w * y, w * y**2], axis=1) / math.sqrt(2 * math.pi)
    centres, blocks = root_snr * y, []
    for start in range(0, len(g), BLOCK):
        at = g[start : start + BLOCK]
        near = slice(*np.searchsorted(centres, [at[0] - REACH, at[-1] + REACH]))
        kernel = np.exp(-((at[:, None] - centres[near]) ** 2) / 2)
        blocks.append(kernel @ weighted[near])
    return np.concatenate(blocks).T
