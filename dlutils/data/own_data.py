"""What a user's own data are: bounded, rounded, weighted, repeated; and what to make of it."""

import math
import re
from dataclasses import dataclass
from numbers import Real
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dlutils.arrays import check_precision, doubles
from dlutils.data.densities import LEVELS
from dlutils.data.units import Range

EVERYWHERE = (-math.inf, math.inf)
LARGEST, LEAST = 1e100, 1e-100  # of the data and of what they span: squares must be numbers
OFTEN = 0.05  # share of repeated values from which on it is worth saying
ATOM = 0.03  # and of one value from which on likelihoods are not compared
FEW = 100  # training points below which it is said that there are few
NEAREST = 8  # powers of four of a distance, how near to its end the nearest breakpoint is


@dataclass(frozen=True)
class Ties:
    """How often values are repeated.

    Attributes:
        repeated: Share of the points whose value is there more than once.
        value: The most frequent value.
        share: The share of the points that have it; zero if it is there less than three times.
        step: Of which all differences are multiples, or None if there is none to be seen.
    """

    repeated: float
    value: float
    share: float
    step: float | None

    @classmethod
    def of(cls, y: Tensor) -> Self:
        """Of a sample, shape `(n,)`."""
        values, counts = y.double().unique(return_counts=True)
        most = int(counts.max())
        return cls(
            repeated=counts[counts > 1].sum().item() / len(y),
            value=values[counts.argmax()].item(),
            share=most / len(y) if most > 2 else 0.0,
            step=_step(values.numpy()) if len(values) <= len(y) / 2 else None,
        )

    @property
    def is_atom(self) -> bool:
        """Whether one value has so large a share that the likelihood of a density is unbounded."""
        return self.share > ATOM

    def __str__(self) -> str:
        if self.repeated < OFTEN:
            return ""
        step = f"{self.step:g}" if self.step else ""
        hint = f"; all differ by multiples of {step}: ROUNDING = {step}?" if step else ""
        return (
            f"{100 * self.repeated:.3g} % of the values are there more than once, most often "
            f"{self.value:g} ({100 * self.share:.2g} %){hint}"
        )


def _step(values: np.ndarray) -> float | None:
    """The largest step of which all gaps are multiples, among the smallest gap and its parts."""
    gaps = np.diff(values)
    room = 4 * _last_place(values)
    for parts in (1, 2, 3, 4, 5, 10):
        step = float(f"{gaps.min() / parts:.3g}")
        if step > 20 * room and (np.abs(gaps / step - np.round(gaps / step)) < 0.05).all():
            return step
    return None


def _last_place(values: np.ndarray) -> float:
    """A unit in the last place of the largest: of single precision if that is what they come in."""
    single = values.astype(np.float32)
    return float(np.spacing(np.abs(single if (single == values).all() else values).max()))


def check_sample(y: ArrayLike | Tensor) -> Tensor:
    """Return `y` as float64 of shape `(n,)`, or say what is wrong with it.

    Raises:
        ValueError: If `y` is not of real numbers, has missing ones, is empty, not 1-D, not finite,
            beyond what squares can hold, constant, or too coarse in double precision
            (`dlutils.arrays`).
    """
    y = doubles(y)
    if len(y) == 0:
        raise ValueError("data must not be empty")
    _refuse(~(y.abs() <= LARGEST), y, f"data must be finite, and between ±{LARGEST:g}")
    if y.min() == y.max():
        raise ValueError(
            f"data must not be constant: all {len(y)} values are {y[0].item():g}, "
            "and a point mass has no density"
        )
    if (span := (y.max() - y.min()).item()) < LEAST:
        raise ValueError(f"data must span at least {LEAST:g}, not {span:g}: multiply them")
    check_precision(y, torch.float64)
    return y


def check_support(support: Range | None, y: Tensor, rounding: float | None = None) -> Range:
    """The bounds of the data as two floats, or a `ValueError` that says what lies outside.

    They may be a text, "[0, 100]" or "(0, inf)": papermill hands over no other. None is no bound.
    """
    given = EVERYWHERE if support is None else support
    if isinstance(given, str):
        given = re.sub(r"(math|np|numpy|torch)?\.(?=inf)", "", given.strip(" ([])")).split(",")
    try:
        low, high = (
            float(far if end is None or str(end).strip() == "None" else end)
            for end, far in zip(given, EVERYWHERE, strict=True)
        )
    except (TypeError, ValueError):
        low = high = math.nan
    if not low < high:
        raise ValueError(f"support must be (low, high) with low < high, not {support!r}")
    inside = (y > low) & (y < high) if rounding is None else (y >= low) & (y <= high)
    rule = (
        f"data must lie inside their support ({low:g}, {high:g}); on a bound, where no density has "
        "a logarithm, only with their rounding (in a notebook: ROUNDING)"
    )
    _refuse(~inside, y, rule)
    return low, high


def check_rounding(rounding: float, y: Tensor) -> None:
    """Make sure that intervals of that length around the values do not overlap."""
    is_number = isinstance(rounding, Real) and not isinstance(rounding, bool)
    if not (is_number and 0 < rounding < math.inf):
        raise ValueError(f"rounding must be a positive number, or None, not {rounding!r}")
    values = y.double().unique()
    gaps = values.diff()
    if len(gaps) and gaps.min() < 0.999 * rounding - 4 * _last_place(values.numpy()):
        k = int(gaps.argmin())
        raise ValueError(
            f"values rounded to {rounding:g} cannot be {values[k]:g} and {values[k + 1]:g}, "
            f"which are {gaps[k]:g} apart"
        )


def check_weights(weights: ArrayLike | Tensor, n: int) -> Tensor:
    """Weights as float64, shape `(n,)`: finite, none negative, two or more positive."""
    weights = torch.as_tensor(np.asarray(weights, dtype=float).copy())
    if weights.shape != (n,):
        raise ValueError(f"{n} values need as many weights, not the shape {tuple(weights.shape)}")
    wrong = ~(weights.isfinite() & (weights >= 0))
    _refuse(wrong, weights, "weights must be finite and not negative")
    if (weights > 0).sum() < 2:
        raise ValueError(f"of {n} weights {int((weights > 0).sum())} are positive: too few")
    return weights


def _refuse(wrong: Tensor, values: Tensor, rule: str) -> None:
    """Raise a `ValueError` with the rule, and which values break it, if some do."""
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"{rule}: {int(wrong.sum())} of {len(values)} values are not, the first is "
            f"{values[first].item()} at index {first}"
        )


def intervals(y: Tensor, rounding: float, bounds: Range = EVERYWHERE) -> tuple[Tensor, Tensor]:
    """What rounded values stand for: half a step to either side, up to the bounds; float64."""
    y = y.double()
    return (y - rounding / 2).clamp(min=bounds[0]), (y + rounding / 2).clamp(max=bounds[1])


def spread(y: Tensor, rounding: float, bounds: Range = EVERYWHERE) -> Tensor:
    """Rounded values evenly over the intervals that they stand for.

    A density fitted to these maximises a lower bound of the likelihood of the intervals, the mean
    of log q over each, which is exact where q is constant in it.

    Args:
        y: Sample, shape `(n,)`.
        rounding: Its step.
        bounds: Nothing lies outside.

    Returns:
        Shape `(n,)`, a value for a value, of the type of y.

    Source:
        Theis, van den Oord & Bethge, A note on the evaluation of generative models (2016), eq. 8,
        with even in place of random points.
    """
    _, where, counts = y.unique(return_inverse=True, return_counts=True)
    order = where.argsort(stable=True)
    first = counts.cumsum(0) - counts
    number = torch.empty_like(where)
    number[order] = torch.arange(len(y)) - first.repeat_interleave(counts)
    low, high = intervals(y, rounding, bounds)
    return (low + (high - low) * (number + 0.5) / counts[where]).to(y.dtype)


def evenly(y: Tensor, weights: Tensor | None) -> Tensor:
    """As many regular quantiles of a weighted sample as it has points; itself without weights.

    Args:
        y: Sample, shape `(n,)`.
        weights: What its points count, `(n,)`.

    Returns:
        Shape `(n,)`.
    """
    if weights is None:
        return y
    order = y.argsort()
    cdf = weights[order].cumsum(0)
    rank = (torch.arange(len(y), dtype=cdf.dtype) + 0.5) / len(y) * cdf[-1]
    return y[order][torch.searchsorted(cdf, rank).clamp(max=len(y) - 1)]


def panels(points: Tensor, reach: Range, ties: Ties) -> np.ndarray:
    """Places between which a density of such data is smooth on its own scale, increasing.

    Quantiles (`densities.LEVELS`) and both ends of the reach; and where these are much farther
    apart than their neighbours, and beside a bound or the most frequent value, distances from them
    that grow geometrically.
    """
    atom = [ties.value] * ties.is_atom
    edges = np.quantile(points.numpy(), LEVELS, method="lower")
    edges = np.unique([*reach, *edges, *atom])
    gaps, added = np.diff(edges), []
    for k, gap in enumerate(gaps):
        for end, sign, near in ((k, 1, k - 1), (k + 1, -1, k + 1)):
            first = gaps[near] if 0 <= near < len(gaps) else gap  # or at an end of the reach
            if first == gap or edges[end] in atom:
                first = min(first, gap) / 4.0**NEAREST
            out = first * 4.0 ** np.arange(math.log(gap / first / 2, 4))
            added.append(edges[end] + sign * out)
    return np.unique(np.concatenate([edges, *added]))
