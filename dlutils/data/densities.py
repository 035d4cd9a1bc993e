"""A density on the line with what its use as truth needs: support, mass, integral of p log p.

`Density` is made from any continuous distribution of `torch.distributions` on the line, mixtures
and transformed ones included, or from a triple (log_prob, sample, support). All integrals are
quadratures of log_prob in float64, so nothing else is asked of a distribution: no cdf, no moments.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from math import inf

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.integrate import tanhsinh
from scipy.optimize import brentq
from torch import Tensor
from torch.distributions import (
    Distribution,
    Laplace,
    MixtureSameFamily,
    TransformedDistribution,
    VonMises,
)
from torch.distributions.transforms import Transform

from dlutils.quadrature import gauss_legendre
from dlutils.seeding import seeded

TAIL = 1e-6  # probability on either side of `Density.support`
N_PROBES = 4096  # random points that show where a density is
_RARE = 2.0 ** -np.arange(7, 12)
LEVELS = np.sort(np.concatenate([np.linspace(0, 1, 65), _RARE, 1 - _RARE]))  # of the CDF
TOO_FAR = 0.05  # from their distribution, which happens once in 1e8 samplers that are right

Triple = tuple[Callable[[Tensor], Tensor], Callable[[int], Tensor], Sequence[float]]


class Density:
    """A continuous distribution on the line.

    Args:
        distribution: Of `torch.distributions`, of a single number; or a triple: log_prob, called
            with points, float64, `(n,)`; sample, called with a number n of points to draw from
            torch's random numbers; and the support, `(low, high)`, which may be infinite. Where
            the density jumps or has a kink in between: `(low, place, ..., high)`.
        name: For messages.

    Raises:
        ValueError: If it is no such distribution, is discrete, does not integrate to one, is
            unbounded, or its samples do not follow it.
    """

    def __init__(self, distribution: Distribution | Triple, name: str = "density") -> None:
        self.name = name
        if isinstance(distribution, Distribution):
            if shape := tuple(distribution.batch_shape + distribution.event_shape):
                raise ValueError(
                    f"{name} must be a distribution of one number, not of shape {shape}: "
                    "parameters are numbers, not tensors of shape (1,)"
                )
            if _is_on_circle(distribution):
                raise ValueError(
                    f"{name} is a density on the circle, not on the line: log_prob of a VonMises "
                    "comes again every 2 pi; the triple (log_prob, sample, (-pi, pi)) is on the "
                    "line"
                )
            if distribution.support.is_discrete:
                raise ValueError(f"{name} is discrete, and a discrete distribution has no density")
            distribution = _in_double(distribution)
            self._log_prob, self.ends = distribution.log_prob, _ends(distribution)
            self._sample = lambda n: distribution.sample((n,))
        elif isinstance(distribution, tuple | list) and len(distribution) == 3:
            self._log_prob, self._sample, support = distribution
            self.ends = np.asarray(support, dtype=float)
            if self.ends.ndim != 1 or len(self.ends) < 2 or not (np.diff(self.ends) > 0).all():
                raise ValueError(f"the support of {name} must increase, not {support!r}")
        else:
            raise ValueError(
                f"{name} must be a distribution of torch.distributions or a triple "
                f"(log_prob, sample, support), not {distribution!r}"
            )
        self._check_samples()
        self._check_bounded()
        self._check_mass()

    def log_prob(self, y: ArrayLike | Tensor) -> Tensor:
        """Log p(y) in nats, float64, with the shape of `y`; -inf outside the support."""
        y = torch.as_tensor(y if isinstance(y, Tensor) else np.array(y, dtype=float)).double()
        flat = y.reshape(-1)
        inside = (flat >= self.ends[0]) & (flat <= self.ends[-1])
        log_p = torch.full_like(flat, -inf)
        log_p[inside] = torch.as_tensor(self._log_prob(flat[inside])).double()
        return log_p.nan_to_num(nan=-inf, posinf=inf, neginf=-inf).view(y.shape)

    def sample(self, n: int) -> Tensor:
        """Draw n points, float64, `(n,)`, none rounded to or over a place in the support."""
        return between(torch.as_tensor(self._sample(n)).double(), self.ends)

    @cached_property
    def support(self) -> tuple[float, float]:
        """Interval for plots and quadrature, with a probability of `TAIL` on either side.

        Where the density's range ends practically there, the interval includes the end and a margin
        of 10 %.
        """
        quantiles = np.array([self._quantile(upper) for upper in (False, True)])
        ends = self.ends[[0, -1]]
        reached = np.abs(quantiles - ends) < 1e-5 * np.diff(quantiles)
        low, high = np.where(reached, ends, quantiles)
        margins = 0.1 * (high - low) * reached
        return float(low - margins[0]), float(high + margins[1])

    @cached_property
    def population_log_likelihood(self) -> float:
        r"""$\int p\log p\,dy$ in nats, to 1e-6 (tanh-sinh between breakpoints)."""

        def integrand(y: np.ndarray) -> np.ndarray:
            log_p = self.log_prob(y).numpy()
            return np.exp(log_p) * np.maximum(log_p, -1e300)

        return float(_integrals(integrand, self.breakpoints).sum())

    @cached_property
    def breakpoints(self) -> np.ndarray:
        """Points between which the density is smooth on its own scale, out to where it is gone."""
        y = self._quantiles
        out = self._spread * 4.0 ** np.arange(-2, 51)
        y = np.concatenate([y[0] - out, y, y[-1] + out, self.ends])
        y = np.unique(y[(y >= self.ends[0]) & (y <= self.ends[-1]) & np.isfinite(y)])
        apart = np.diff(y) > 1e-9 * self._spread + 1e-12 * np.abs(y[1:])  # or rounding errors
        return y[np.concatenate([[True], apart]) | np.isin(y, self.ends)]

    def _probes(self) -> Tensor:
        """Random points that show where the density is, the same each time."""
        with seeded(0, dtype=torch.float64):
            return torch.as_tensor(self._sample(N_PROBES)).double()

    @cached_property
    def _quantiles(self) -> np.ndarray:
        """Those of random points, at `LEVELS`."""
        return np.quantile(self._probes().numpy(), LEVELS, method="lower")

    @property
    def _spread(self) -> float:
        """The range of the middle half."""
        return float(np.diff(np.interp([0.25, 0.75], LEVELS, self._quantiles))[0])

    @cached_property
    def _mass(self) -> np.ndarray:
        """Probability between each breakpoint and the next."""
        return _integrals(lambda y: self.log_prob(y).exp().numpy(), self.breakpoints)

    def _quantile(self, upper: bool) -> float:
        """Where a probability of `TAIL` is left on one side."""
        y, mass = self.breakpoints, self._mass
        if upper:
            y, mass = y[::-1], mass[::-1]
        k = int(np.searchsorted(np.cumsum(mass), TAIL))
        before = mass[:k].sum()

        def excess(z: float) -> float:
            nodes, weights = gauss_legendre(64, y[k], z)
            return before + abs(self.log_prob(nodes).exp().numpy() @ weights) - TAIL

        return brentq(excess, y[k], y[k + 1], xtol=1e-9 * abs(y[k + 1] - y[k]))

    def _check_samples(self) -> None:
        """As many as asked for, from torch's random numbers, in the support; log p of each."""
        y = self._probes()
        if y.shape != (N_PROBES,) or not y.isfinite().all():
            raise ValueError(
                f"sample(n) of {self.name} must return n finite numbers, shape (n,), not shape "
                f"{tuple(y.shape)} with {int(y.isfinite().sum())} finite"
            )
        if not torch.equal(y, self._probes()):
            raise ValueError(
                f"sample of {self.name} must draw from torch's random numbers: with the same seed "
                "it gave others"
            )
        if (n := len(y.unique())) < 0.9 * N_PROBES:
            raise ValueError(
                f"sample of {self.name} must have no values several times, as numbers that are "
                f"rounded have: of {N_PROBES} only {n} are different; draw in double precision, or "
                "subtract a constant"
            )
        outside = (y < self.ends[0]) | (y > self.ends[-1])
        if outside.any():
            raise ValueError(
                f"sample of {self.name} draws {y[outside][0]:g}, which is outside its support "
                f"{self.ends[0]:g} to {self.ends[-1]:g}"
            )
        if (shape := tuple(self._log_prob(y).shape)) != (N_PROBES,):
            raise ValueError(
                f"log_prob of {self.name} must return a number for each point, shape "
                f"{(N_PROBES,)}, not {shape}"
            )

    def _check_bounded(self) -> None:
        """A density may not grow without bound towards a finite end or break of its support."""
        steps = self._spread * np.array([1e-4, 1e-7, 1e-10])
        for end in self.ends[np.isfinite(self.ends)]:
            for side in (-1, 1):
                log_p = self.log_prob(end + side * steps).numpy()
                if log_p[0] > -inf and (np.diff(log_p) > 0.01).all():
                    raise ValueError(
                        f"the density of {self.name} grows without bound towards {end:g}, where "
                        "no grid and no flow from a Gaussian can follow: transform the data"
                    )

    def _check_mass(self) -> None:
        """It is one, and below any place lies as much of it as of the samples."""
        mass = self._mass.sum()
        if not abs(mass - 1) < 1e-6:
            raise ValueError(
                f"the density of {self.name} integrates to {mass:.7g}, not to 1: "
                "log_prob must be the natural logarithm of a normalised density"
            )
        cdf = np.concatenate([[0.0], np.cumsum(self._mass)])
        y = np.sort(self._probes().numpy())
        share = np.searchsorted(y, self.breakpoints, side="right") / N_PROBES
        k = np.abs(cdf - share).argmax()
        if abs(cdf[k] - share[k]) > TOO_FAR:
            raise ValueError(
                f"the samples of {self.name} do not follow its density: below "
                f"{self.breakpoints[k]:.3g} lie {share[k]:.3f} of them and a probability of "
                f"{cdf[k]:.3f}"
            )


def between(y: Tensor, ends: ArrayLike, dtype: torch.dtype = torch.float64) -> Tensor:
    """Points in a type, none rounded to or over one of these places.

    Args:
        y: Points between the first of the ends and the last, float64, shape `(n,)`.
        ends: Places, increasing, two or more.
        dtype: Of the result.
    """
    ends = torch.as_tensor(np.asarray(ends, dtype=float))
    k = torch.bucketize(y.contiguous(), ends).clamp(1, len(ends) - 1)  # ends[k - 1] < y <= ends[k]
    low, high = ends[k - 1].to(dtype), ends[k].to(dtype)
    limit = torch.tensor(inf, dtype=dtype)
    return y.to(dtype).clamp(low.nextafter(limit), high.nextafter(-limit))


def _integrals(f: Callable[[np.ndarray], np.ndarray], y: np.ndarray) -> np.ndarray:
    """The integral of f between each point and the next."""
    return tanhsinh(f, y[:-1], y[1:], rtol=1e-10, atol=1e-14).integral


def _in_double(part: object, seen: dict[int, object] | None = None) -> object:
    """A distribution in double precision, unvalidated: log p outside its range is no error."""
    seen = {} if seen is None else seen
    if isinstance(part, Tensor):
        return part.double() if part.is_floating_point() else part
    if type(part) in (list, tuple):
        return type(part)(_in_double(value, seen) for value in part)
    if not isinstance(part, Distribution | Transform):
        return part
    if id(part) not in seen:  # a transform and its inverse hold each other
        seen[id(part)] = copied = object.__new__(type(part))
        vars(copied).update({name: _in_double(value, seen) for name, value in vars(part).items()})
        if isinstance(part, Distribution):
            copied._validate_args = False
    return seen[id(part)]


def _is_on_circle(distribution: Distribution) -> bool:
    parts = (getattr(distribution, name, None) for name in ("component_distribution", "base_dist"))
    return isinstance(distribution, VonMises) or any(map(_is_on_circle, filter(None, parts)))


def _ends(distribution: Distribution) -> np.ndarray:
    """Ends of the range, those of each component of a mixture, and kinks; increasing."""
    if isinstance(distribution, MixtureSameFamily):
        return _ends(distribution.component_distribution)
    if type(distribution) is TransformedDistribution and all(
        transform.bijective for transform in distribution.transforms
    ):  # a named family knows its support, a transform only the one of all its inputs
        ends = torch.from_numpy(_ends(distribution.base_dist))
        for transform in distribution.transforms:
            ends = transform(ends)
        return np.unique(ends.numpy())
    support = distribution.support
    support = getattr(support, "base_constraint", support)
    low, high = (
        np.ravel(torch.as_tensor(getattr(support, name, far)).numpy())
        for name, far in (("lower_bound", -inf), ("upper_bound", inf))
    )
    loc = np.ravel(distribution.loc.numpy()) if isinstance(distribution, Laplace) else []
    return np.unique(np.concatenate([low, loc, high]))
