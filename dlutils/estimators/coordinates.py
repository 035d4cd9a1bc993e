r"""Which coordinate a sample is seen in, and the one in which a mixture is one Gaussian.

A model sees the data in units of their standard deviation. Where a few points far out rule that, it
sees the others as one narrow peak, and a solver of the Fokker-Planck equation needs a grid over all
of the distance: then $x=\operatorname{arsinh}\frac{y-m}{s}$ (`dlutils.data.units`). Groups that are
narrow and far apart are one bell in $\Phi^{-1}(F(y))$, with the distribution function F of a
mixture.

Source:
    Chen & Gopinath, Gaussianization (2000), for the mixture; Akaike, A new look at the statistical
    model identification (1974).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import log_ndtr, logsumexp, ndtri_exp
from torch import Tensor

from dlutils.data.units import Arsinh, Coordinate, Inside, Range, Units
from dlutils.estimators import smoothing
from dlutils.estimators.yardsticks import Mixture, em_mixture, mass
from dlutils.processes import limited

FAR, FARTHEST = 40.0, 60.0  # interquartile ranges between the extremes
NARROW, NOTABLE = 40.0, 0.02  # how much narrower a component is than the whole; its least share
STRONG = 3.0  # evidence, nats


@dataclass(frozen=True)
class Gaussianized:
    """x = ndtri(F(y)) with the distribution function F of a mixture of Gaussians.

    Attributes:
        mixture: Its density is that of y where x is standard normal.
    """

    mixture: Mixture

    def __call__(self, y: Tensor) -> Tensor:
        """The coordinate x."""
        z = ((y.double()[:, None] - self.mixture.means) / self.mixture.sds).numpy()
        below, above = (logsumexp(log_ndtr(s * z), 1, self.mixture.weights) for s in (1, -1))
        return torch.from_numpy(np.where(below < above, ndtri_exp(below), -ndtri_exp(above)))

    def inverse(self, x: Tensor) -> Tensor:
        """The y whose coordinate is x."""
        x = x.double()
        ends = self.mixture.means + self.mixture.sds * x[:, None]
        low, high = ends.amin(1), ends.amax(1)  # each component has its quantile in between
        for _ in range(64):
            middle = (low + high) / 2
            less = self(middle) < x
            low, high = torch.where(less, middle, low), torch.where(less, high, middle)
        return (low + high) / 2

    def log_slope(self, y: Tensor) -> Tensor:
        """Log dx/dy."""
        x = self(y)
        return self.mixture(y) + x**2 / 2 + math.log(2 * math.pi) / 2


def choose(
    y: Tensor, weights: Tensor | None = None, ends: Range | None = None
) -> tuple[Arsinh, ...]:
    """Arsinh if there is strong evidence for it, by Akaike's criterion; else nothing.

    What is compared is the log-likelihood less the parameters of the better of two densities, a
    mixture of Gaussians and one by penalised likelihood, fitted in either coordinate. For a sample
    that reaches over more than forty interquartile ranges it is the other way round: arsinh,
    unless there is strong evidence against it. One that reaches over more than sixty is not asked.

    Args:
        y: Sample, shape `(n,)`.
        weights: How many points each stands for, or None for one each.
        ends: The extremes, if points that are not in the sample lie farther out.
    """
    low, median, high = np.quantile(y.double().numpy(), [0.25, 0.5, 0.75]).tolist()
    if not high > low:
        return ()
    arsinh = (Arsinh(median, (high - low) / 2),)
    first, last = ends or (y.min().item(), y.max().item())
    reach = (last - first) / (high - low)
    if reach > FARTHEST:
        return arsinh
    gain = evidence(y, arsinh, weights) - evidence(y, (), weights)
    return arsinh if gain > (-STRONG if reach > FAR else STRONG) else ()


@limited()
def bends_for(
    y: Tensor,
    bounds: Range | None = None,
    weights: Tensor | None = None,
    ends: Range | None = None,
) -> tuple[Coordinate, ...]:
    """What a user's own sample is seen through: away from bounds, heavy tails and empty stretches.

    First the logarithm or logit that a bounded range asks for. Then arsinh where `choose` finds so;
    or, where a mixture of Gaussians by EM has a notable component that is forty times as narrow as
    the whole, the coordinate in which that mixture is one Gaussian.

    Args:
        y: Sample, shape `(n,)`.
        bounds: Of the data, low and high, or None.
        weights: How many points each stands for, or None for one each.
        ends: See `choose`.
    """
    bends: tuple[Coordinate, ...] = ()
    if bounds is not None and not all(map(math.isinf, bounds)):
        bends = (Inside(*bounds),)
        y, ends = bends[0](y), None
    if arsinh := choose(y, weights, ends):
        return bends + arsinh
    mixture = em_mixture(y, weights=weights)
    narrowest = mixture.sds[mixture.weights > NOTABLE].min()
    is_wide = Units.of(y, weights=weights).scale > NARROW * narrowest
    return (*bends, Gaussianized(mixture)) if is_wide else bends


@limited()
def evidence(y: Tensor, bends: tuple[Coordinate, ...] = (), weights: Tensor | None = None) -> float:
    """Akaike's criterion of the better of two simple densities in a coordinate, nats in all.

    Args:
        y: Sample, shape `(n,)`, of at least two different values.
        bends: In which the densities are fitted; what is summed is the log-density of y.
        weights: How many points each stands for, or None for one each.
    """
    units, y = Units(bends=bends), y.double()
    x = units(y)
    counts = torch.ones_like(x) if weights is None else weights.double()
    mixture = em_mixture(x, weights=weights)
    by_mixture = (counts @ mixture(x)).item() - (mixture.n_parameters - 2)  # mean and sd have both
    x_std = (x - x.mean()) / x.std()
    place, log_p, n_parameters = smoothing.fit(x_std, weights=weights)
    smooth = np.interp(x_std, place, log_p) - math.log(mass(place, log_p)) - x.std().log().item()
    by_smoothing = float(counts.numpy() @ smooth) - n_parameters
    found = max(by_mixture, by_smoothing)
    return found + counts.sum().item() * units.mean_log_slope(y, weights)
