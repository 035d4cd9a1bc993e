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
ATOM, SPIKES = 0.03, 0.1  # of one value, and of all repeated ones, from which on none is compared
FEW_TIED = 10  # points: fewer may be so by chance
NOTABLE, NEARLY = 0.2, 0.6  # share of the points that are heaped; of the largest such share
N_FREQUENT, MOST_LOOKED_AT = 24, 20_000  # values between which steps are looked for; points
FEW = 100  # training points below which it is said that there are few
NEAREST = 8  # powers of four of a distance, how near to its end the nearest breakpoint is


@dataclass(frozen=True)
class Ties:
    """How often values are repeated.

    Attributes:
        repeated: Share of the points whose value is there more than once; zero if they are few.
        value: The most frequent value.
        share: The share of the points that have it; zero if it is there less than three times.
        step: The step to which they were rounded, or that on which they are heaped; None if there
            is none to be seen.
        on_step: The share of the points that differ from the most frequent value by its multiples.
    """

    repeated: float
    value: float
    share: float
    step: float | None
    on_step: float = 1.0

    @classmethod
    def of(cls, y: Tensor) -> Self:
        """Of a sample, shape `(n,)`."""
        values, counts = (v.numpy() for v in y.double().unique(return_counts=True))
        most, tied = int(counts.max()), counts[counts > 1].sum().item()
        repeated = tied / len(y) if tied >= FEW_TIED else 0.0
        step = _step(values, counts) if repeated >= OFTEN else None
        return cls(
            repeated=repeated,
            value=values[counts.argmax()].item(),
            share=most / len(y) if most > 2 else 0.0,
            step=step,
            on_step=counts[_on(values, counts, step)].sum().item() / len(y) if step else 0.0,
        )

    @property
    def is_atom(self) -> bool:
        """Whether one value has so large a share that a density has a jump or a peak there."""
        return self.share > ATOM

    @property
    def are_spikes(self) -> bool:
        """Whether the likelihood of a density is unbounded: it may pile up at single values."""
        return self.is_atom or self.repeated > SPIKES

    @property
    def hint(self) -> str:
        """What to do about it."""
        if self.step is None:
            return "if rows are copies, give each once and count them by WEIGHTS"
        step, rest = f"{self.step:.15g}", f"{100 * self.on_step:.3g} % differ"
        share = "all differ" if self.on_step == 1 else rest
        return f"{share} by multiples of {step}: ROUNDING = {step}?"

    def __str__(self) -> str:
        if self.repeated < OFTEN:
            return ""
        return (
            f"{100 * self.repeated:.3g} % of the values are there more than once, most often "
            f"{self.value:g} ({100 * self.share:.2g} %); {self.hint}"
        )


def _step(values: np.ndarray, counts: np.ndarray) -> float | None:
    """The step to which values were rounded, or a coarser one on which notably many are heaped.

    Of hourly wages in cents a quarter may be multiples of 0.25, where one in 25 would be by chance.
    Among the steps between frequent values it is the largest of those that have nearly as many in
    excess of chance as any.

    Args:
        values: Increasing, `(m,)`.
        counts: How often each is there.
    """
    finest, points = _common_step(values), np.repeat(values, counts)
    if len(points) > MOST_LOOKED_AT:
        points = np.random.default_rng(0).choice(points, MOST_LOOKED_AT, replace=False)
        values, counts = np.unique(points, return_counts=True)
    base = finest or _common_step(values[counts > 1])
    if base is None:
        return None
    frequent = values[np.argsort(-counts, kind="stable")[:N_FREQUENT]]
    apart = np.unique(np.round(np.abs(frequent[:, None] - frequent) / base))
    multiples = {k // parts for k in apart for parts in (1, 2, 5, 10) if k and k % parts == 0}
    multiples = multiples - {1.0} if finest else multiples | {1.0}
    steps = [float(f"{k * base:.15g}") for k in sorted(multiples)]
    excess = [_excess(values, counts, step, finest) for step in steps]
    most = max(excess, default=0.0)
    if most < _least_excess(counts):
        return finest
    enough = max(NEARLY * most, _least_excess(counts))
    return max(step for step, found in zip(steps, excess, strict=True) if found >= enough)


def _common_step(values: np.ndarray) -> float | None:
    """The largest step of which all differences are multiples, with as few digits as it needs."""
    if len(values) < 2:
        return None
    gaps, from_first, room = np.diff(values), values - values[0], 4 * _last_place(values)
    step, rest = gaps.min(), gaps
    while step > max(20 * room, 1e-9 * from_first[-1]):  # Euclid's algorithm
        times = np.round(gaps / step)
        rest = np.abs(gaps - times * step)
        rest = rest[rest > room * (times + 1)]
        if not len(rest):
            break
        step = rest.min()
    if len(rest):
        return None
    step = from_first[-1] / np.round(from_first[-1] / step)
    for digits in range(1, 17):
        written = float(f"{step:.{digits}g}")
        if (np.abs(from_first - written * np.round(from_first / written)) <= room).all():
            return written
    return None


def _on(values: np.ndarray, counts: np.ndarray, step: float) -> np.ndarray:
    """Which of the values differ from the most frequent one by multiples of a step."""
    away = values - values[counts.argmax()]
    return np.abs(away - step * np.round(away / step)) <= 4 * _last_place(values)


def _excess(values: np.ndarray, counts: np.ndarray, step: float, finest: float | None) -> float:
    """The share of the points that lie on a coarse step, but for the most frequent value.

    It is in excess of chance, zero where they are spread over the finest step, and one at most.
    """
    others = np.where(values == values[counts.argmax()], 0, counts)
    share = others[_on(values, counts, step)].sum() / max(others.sum(), 1)
    by_chance = finest / step if finest else 0.0
    return (share - by_chance) / (1 - by_chance)


def _least_excess(counts: np.ndarray) -> float:
    """From which on an excess is notable, and none of chance."""
    return max(NOTABLE, 5 / math.sqrt(counts.sum()))


def _last_place(values: np.ndarray) -> float:
    """A unit in the last place of the largest: of single precision if that is what they come in."""
    single = values.astype(np.float32)
    is_single = np.abs(single - values) <= 1e-3 * np.spacing(np.abs(single))  # as it is written
    is_single = is_single.all() and not (np.round(values, 6) == values).all()  # as integers are
    return float(np.spacing(np.abs(single if is_single else values).max()))


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
    """Make sure that intervals of that length around the values do not overlap.

    Unless notably many of the values are heaped on that step: `on_steps` rounds the others to it.
    """
    is_number = isinstance(rounding, Real) and not isinstance(rounding, bool)
    if not (is_number and 0 < rounding < math.inf):
        raise ValueError(f"rounding must be a positive number, or None, not {rounding!r}")
    if (k := _too_near(y, rounding)) is None:
        return
    values, counts = (v.numpy() for v in y.double().unique(return_counts=True))
    finest = _common_step(values)
    is_coarser = finest is None or rounding > finest
    if not is_coarser or _excess(values, counts, rounding, finest) < _least_excess(counts):
        raise ValueError(
            f"values rounded to {rounding:g} cannot be {values[k]:g} and {values[k + 1]:g}, "
            f"which are {values[k + 1] - values[k]:g} apart"
        )


def _too_near(y: Tensor, rounding: float) -> int | None:
    """Which of the different values, in order, is nearer to the next one than their rounding."""
    values = y.double().unique()
    gaps = values.diff()
    if not len(gaps) or gaps.min() >= 0.999 * rounding - 4 * _last_place(values.numpy()):
        return None
    return int(gaps.argmin())


def on_steps(y: Tensor, rounding: float, bounds: Range = EVERYWHERE) -> Tensor:
    """The values, checked, and where some lie between steps all of them on the nearest step.

    Steps are counted from the most frequent value; none is empty inside the bounds.
    """
    check_rounding(rounding, y)
    if _too_near(y, rounding) is None:
        return y
    values, counts = y.unique(return_counts=True)
    first, inside = values[counts.argmax()], 1e-6 * rounding
    y = y.clamp(bounds[0] + inside, bounds[1] - inside)
    return first + rounding * ((y - first) / rounding).round()


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
