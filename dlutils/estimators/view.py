"""A data set as a model sees it: its units, the points in them, and how careful to be."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from dlutils.data.datasets import Dataset
from dlutils.data.own_data import evenly
from dlutils.data.units import Coordinate, Units
from dlutils.estimators.coordinates import bends_for
from dlutils.settings import check_flag


class Seen(NamedTuple):
    """Points in a model's units, what they count (None for one each), and their mean log-slope."""

    x: Tensor
    weights: Tensor | None
    log_slope: float

    @property
    def even(self) -> Tensor:
        """As many points that count the same."""
        return evenly(self.x, self.weights)


@lru_cache(maxsize=16)
def bends_of(dataset: Dataset) -> tuple[Coordinate, ...]:
    """The coordinates that models see the data through: see `bends_for`."""
    if dataset.coordinates is not None:
        return dataset.coordinates
    ends = dataset.points.min().item(), dataset.points.max().item()
    return bends_for(dataset.train, dataset.bounds, dataset.weights.get("train"), ends)


def units_of(dataset: Dataset, standardize: bool = True) -> Units:
    """In what a model sees the data: as they are, or less the mean, by standard deviation.

    A user's own sample is always standardized, since nothing is known of its units.
    """
    check_flag("standardize", standardize)
    if standardize or not dataset.is_known:
        return Units.of(dataset.train, bends_of(dataset), dataset.weights.get("train"))
    return Units()


def seen_in(
    dataset: Dataset, units: Units | None = None, dtype: torch.dtype | None = None
) -> tuple[Seen, Seen]:
    """Training and validation points as a model sees them.

    Args:
        dataset: Has the points, and what they count.
        units: The model's; None for standardized ones.
        dtype: Of the points; None for that of the data.
    """
    units, seen = units or units_of(dataset), []
    for part, y in (("train", dataset.train.to(dtype)), ("val", dataset.val.to(dtype))):
        counts = dataset.weights.get(part)
        seen.append(Seen(units(y), counts, units.mean_log_slope(y, counts)))
    return tuple(seen)


def farthest(dataset: Dataset, units: Units) -> float:
    """How far from zero, in units, the support goes, or own data and a tenth of their length."""
    if dataset.is_known:
        return units(torch.tensor(dataset.support, dtype=torch.float64)).abs().max().item()
    x = units(dataset.points)
    return (x.abs().max() + 0.1 * (x.max() - x.min())).item()


def caution(dataset: Dataset) -> float:
    """Precision of a prior on weights, per point: 0.3 in all for a user's own data.

    Those may be few. A simulated sample has as many points as one likes: zero.
    """
    return 0.0 if dataset.is_known else 0.3 / dataset.n_effective
