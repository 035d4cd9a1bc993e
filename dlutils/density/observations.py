"""What a user hands in: values, weights, what is censored or truncated; checked."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dlutils.data.own_data import (
    EVERYWHERE,
    check_rounding,
    check_sample,
    check_support,
    check_weights,
    spread,
)
from dlutils.data.reading import split_source
from dlutils.data.samples import load_sample
from dlutils.data.units import Range, Units
from dlutils.estimators.smoothing import Incomplete

SIDES = {"": 0, "none": 0, "no": 0, "false": 0, "right": 1, "true": 1, "yes": 1, "left": -1}
FEWEST = 5  # values that are known


@dataclass(frozen=True)
class Observations:
    """A sample as it was observed, in the data's units.

    Attributes:
        y: Values that are known, float64, shape `(n,)`; rounded ones spread over their intervals.
        weights: What these count, `(n,)`, in all their effective number; None for one each.
        low: Below which a censored value does not lie, float64, shape `(m,)`.
        high: Above which it does not lie.
        counts: What censored values count, `(m,)`.
        window: Outside which nothing was recorded.
        bounds: Outside which nothing can lie.
        name: For titles.
    """

    y: Tensor
    weights: Tensor | None
    low: Tensor
    high: Tensor
    counts: Tensor
    window: Range
    bounds: Range
    name: str

    @property
    def n(self) -> float:
        """The effective number of values, known and censored."""
        known = len(self.y) if self.weights is None else self.weights.sum().item()
        return known + self.counts.sum().item()

    def summary(self) -> str:
        """How many values, and what is said of them, in one line."""
        parts = [f"{self.name}: {self.n:,.0f}" + ("" if self.weights is None else " effectively")]
        if len(self.low):
            parts.append(f"{self.counts.sum().item():,.0f} of them censored")
        if self.window != EVERYWHERE:
            parts.append("recorded only from {:g} to {:g}".format(*self.window))
        if self.bounds != EVERYWHERE:
            parts.append("bounded by {:g} and {:g}".format(*self.bounds))
        return ", ".join(parts)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is censored or truncated."""
        return len(self.low) == 0 and self.window == EVERYWHERE

    @property
    def places(self) -> Tensor:
        """Known values and the finite ends of censored ones."""
        ends = torch.cat([self.low, self.high])
        return torch.cat([self.y, ends[ends.isfinite() & inside(ends, self.bounds)]])

    def incomplete(self, units: Units) -> Incomplete | None:
        """What is censored and truncated in a model's units; None if nothing is."""
        if self.is_complete:
            return None
        window = torch.tensor(self.window, dtype=torch.float64)
        low, high, window = (
            _ends_in(units, of, self.bounds) for of in (self.low, self.high, window)
        )
        return Incomplete(low, high, self.counts.numpy(), tuple(window))


def inside(y: Tensor, bounds: Range) -> Tensor:
    """Which values lie strictly between the bounds."""
    return (y > bounds[0]) & (y < bounds[1])


def _ends_in(units: Units, ends: Tensor, bounds: Range) -> np.ndarray:
    """Ends of intervals in units; infinite what is infinite, or at or beyond a bound."""
    far = torch.where(ends > bounds[0], math.inf, -math.inf).double()
    within = inside(ends, bounds) & ends.isfinite()
    far[within] = units(ends[within])
    return far.numpy()


def observe(
    y: ArrayLike | Tensor | str | Path,
    support: Range | None = None,
    rounding: float | None = None,
    weights: ArrayLike | Tensor | str | None = None,
    censored: ArrayLike | str | None = None,
    truncated: Range | None = None,
    drop_missing: bool = False,
) -> Observations:
    """Check and sort what `fit_density` is given: see there.

    Raises:
        ValueError: If something is no proper sample; the message names the value.
    """
    name = "sample"
    if isinstance(y, str | Path):
        source = str(y)
        path, column = split_source(source)
        name = path.name.partition(".")[0] + (f", {column}" if column else "")
        if isinstance(censored, str):
            censored = _column(f"{path}:{censored}", weights, drop_missing)
        by_column = weights if isinstance(weights, str) else None
        sample = load_sample(source, weights=by_column, drop_missing=drop_missing)
        y, weights = sample.values, sample.weights if by_column else weights
    elif isinstance(y, pd.Series) and y.name is not None:
        name = str(y.name)
    for label, given in (("weights", weights), ("censored", censored)):
        if isinstance(given, str):
            raise ValueError(f"{label} = {given!r} names a column, so the data must be a file")
    if np.ndim(y) == 2:
        low, high = _intervals(y, censored)
        y = torch.where(low.isfinite(), low, high)
    else:
        y = check_sample(y)
        low, high = _sides(y, censored)
    if weights is not None:
        weights = check_weights(weights, len(y))
        kept = weights > 0
        y, low, high, weights = (part[kept] for part in (y, low, high, weights))
        weights = weights * (weights.sum() / (weights @ weights))
    known = low == high
    if not known.all() and known.sum() < FEWEST:
        raise ValueError(f"of {len(y)} values {int(known.sum())} are known: at least {FEWEST}")
    values = check_sample(y[known])
    if len(values) < FEWEST:
        raise ValueError(f"{len(values)} values are too few for a density: at least {FEWEST}")
    bounds = check_support(support, values, rounding)
    if rounding is not None:
        check_rounding(rounding, values)
        values = spread(values, rounding, bounds)
    low, high = low[~known].clamp(min=bounds[0]), high[~known].clamp(max=bounds[1])
    empty = ~(low < high)
    if empty.any():
        k = int(empty.nonzero()[0])
        raise ValueError(
            f"a censored value must leave room within the support {bounds}, not {low[k]:g} to "
            f"{high[k]:g}, at index {k} of the censored ones"
        )
    counts = torch.ones_like(low) if weights is None else weights[~known]
    window = _window(truncated, values, low, high)
    of_known = None if weights is None else weights[known]
    return Observations(values, of_known, low, high, counts, window, bounds, name)


def _column(source: str, weights: object, drop_missing: bool) -> np.ndarray:
    """A column of the same file that says what is censored, by 0, 1 and -1."""
    if drop_missing:
        raise ValueError(
            "drop_missing would leave out rows of the values and not of the column censored = "
            f"{source.rpartition(':')[2]!r}: take such rows out of the file"
        )
    by_column = weights if isinstance(weights, str) else None
    return load_sample(source, weights=by_column).values


def _sides(y: Tensor, censored: ArrayLike | None) -> tuple[Tensor, Tensor]:
    """Between what each value lies: itself twice where it is known."""
    if censored is None:
        return y, y
    given = censored.tolist() if hasattr(censored, "tolist") else list(censored)
    if len(given) != len(y):
        raise ValueError(f"{len(y)} values need as many marks in censored, not {len(given)}")
    side = torch.tensor([_side(mark, k) for k, mark in enumerate(given)])
    inf = torch.tensor(math.inf, dtype=torch.float64)
    return torch.where(side < 0, -inf, y), torch.where(side > 0, inf, y)


def _side(mark: object, k: int) -> int:
    """0 for a known value, 1 for one that lies above what is given, -1 for one below."""
    if isinstance(mark, str) and mark.strip().lower() in SIDES:
        return SIDES[mark.strip().lower()]
    if isinstance(mark, bool | int | float) and mark in (-1, 0, 1):
        return int(mark)
    raise ValueError(
        f"censored must say of each value 0 (known), 1 or 'right' (it lies above), -1 or 'left' "
        f"(below), not {mark!r} at index {k}; for intervals give two columns, low and high"
    )


def _intervals(y: ArrayLike | Tensor, censored: object) -> tuple[Tensor, Tensor]:
    """Two columns, between what each value lies; they are equal where it is known."""
    if censored is not None:
        raise ValueError("two columns say themselves what is censored: leave out censored=")
    y = torch.as_tensor(np.asarray(y, dtype=float))
    if y.shape[1] != 2:
        raise ValueError(f"data must be (n,), or (n, 2) for intervals, not {tuple(y.shape)}")
    wrong = ~(y[:, 0] <= y[:, 1]) | y.isinf().all(1)
    if wrong.any():
        k = int(wrong.nonzero()[0])
        raise ValueError(f"an interval must be (low, high), not {tuple(y[k].tolist())} in row {k}")
    return y[:, 0], y[:, 1]


def _window(truncated: Range | None, y: Tensor, low: Tensor, high: Tensor) -> Range:
    """The window of what was recorded; all known values lie in it, all censored ones overlap it."""
    if truncated is None:
        return EVERYWHERE
    try:
        first, last = (-math.inf if truncated[0] is None else float(truncated[0]),
                       math.inf if truncated[1] is None else float(truncated[1]))  # fmt: skip
    except (TypeError, ValueError, IndexError):
        first = last = math.nan
    if not first < last:
        raise ValueError(f"truncated must be (a, b) with a < b, not {truncated!r}")
    out = (y < first) | (y > last)
    if out.any():
        raise ValueError(
            f"nothing outside truncated = ({first:g}, {last:g}) can be in the sample: "
            f"{int(out.sum())} of {len(y)} values are, the first is {y[out][0]:g}"
        )
    if ((low >= last) | (high <= first)).any():
        raise ValueError("a censored value lies wholly outside what truncated says was recorded")
    return first, last
