"""Numbers out of whatever holds them; their type, and whether single precision is enough."""

import math
from decimal import Decimal
from numbers import Real

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from dlutils.settings import check_points

FEW = 1e-4  # share of their range by which rounding may move values
NOISE = 1e-12  # of a value, as far as which equal ones differ in double precision


def doubles(y: ArrayLike | Tensor) -> Tensor:
    """One-dimensional data of any type, shape `(n,)`, as float64 on the CPU, without a gradient.

    Raises:
        ValueError: If they are not real numbers (truth values are none), not 1-D, or some are
            missing: masked, or None, NaN or `pandas.NA` among objects.
    """
    if isinstance(y, Tensor):
        if y.is_complex() or y.dtype == torch.bool:
            raise ValueError(f"data must be numbers: real ones, not {y.dtype}")
        masked, y = None, y.detach().to("cpu", torch.float64).numpy()
    else:
        masked = np.ma.getmaskarray(y) if isinstance(y, np.ma.MaskedArray) else None
        try:
            y = np.asarray(y)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"data must be numbers: {error}") from error
    if y.dtype.kind not in "iufO":
        raise ValueError(f"data must be numbers: real ones, not {y.dtype}")
    if y.ndim != 1:
        raise ValueError(f"data must be one-dimensional, shape (n,), not {tuple(y.shape)}")
    missing = pd.isna(y) if y.dtype.kind == "O" and masked is None else masked
    if missing is not None and missing.any():
        raise ValueError(
            f"data must not be missing: {missing.sum()} of {len(y)} values are, the first at index "
            f"{missing.argmax()}"
        )
    if y.dtype.kind == "O":
        for k, value in enumerate(y):
            if not isinstance(value, (Real, Decimal)) or isinstance(value, bool):
                raise ValueError(f"data must be numbers: {value!r} at index {k} is none")
            try:
                float(value)
            except OverflowError as error:
                most = np.finfo(float).max
                raise ValueError(
                    f"data must be numbers up to {most:.3g}: the one at index {k} is beyond"
                ) from error
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(y, dtype=np.float64, order="C"))


def points(y: ArrayLike | Tensor) -> Tensor:
    """Points at which a density is asked for, infinite ones too, as `doubles` takes them.

    Raises:
        ValueError: As `doubles`, or if some are NaN.
    """
    y = doubles(y)
    check_points(y)
    return y


def dtype_of(model: object) -> torch.dtype:
    """The type in which a model computes: that of its weights, or double where it has none."""
    if isinstance(model, nn.Module):
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                return value.dtype
    return torch.float64


def check_precision(y: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Make sure that a type, single precision if not told, keeps apart what is apart.

    It moves no value by more than a ten-thousandth of what all span, nor one of the bulk by more
    than that of what the bulk spans: the values within 20 interquartile ranges of the median (if
    that range is zero, that of the different values). Data in several clusters may not have a tenth
    of their values moved by over a hundredth of what the next tenth of the values spans.

    Args:
        y: Finite numbers, float64, shape `(n,)`.
        dtype: float32, or float64, in which they are already: it may have lost half of a unit in
            the last place of each.

    Raises:
        ValueError: If it does not; the message says which constant to subtract, or that single
            precision cannot hold a number.
    """
    y, name = np.sort(y.numpy()), "double"
    kept, lost = y, np.spacing(np.abs(y)) / 2
    if dtype == torch.float32:
        with np.errstate(over="ignore"):
            name, kept = "single", y.astype(np.float32).astype(float)
        if not np.isfinite(kept).all():
            raise ValueError(
                f"single precision cannot hold {y[~np.isfinite(kept)][0]:g}: its numbers end at "
                f"{np.finfo(np.float32).max:.3g}"
            )
        lost = np.abs(kept - y)
    for values in (y, np.unique(kept)):
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        if high - low > NOISE * max(abs(low), abs(high)):
            break
    near = np.abs(y - middle) <= 20 * (high - low)
    for which, part in (("all", np.full(len(y), True)), ("most", near)):
        if part.any() and (span := np.ptp(y[part])) > 0 and lost[part].max() > FEW * span:
            raise ValueError(_too_coarse(name, y[part], lost[part], which, middle, span))
    k = max(3, len(y) // 10)
    spans, starts = y[k:] - y[:-k], np.abs(y[:-k])
    blurred = np.flatnonzero((lost[:-k] > spans / 100) & (spans > NOISE * starts))
    if len(blurred) > len(y) / 10:
        part, span = y[blurred], np.median(spans[blurred])
        raise ValueError(_too_coarse(name, part, lost[blurred], "many", np.median(part), span))


def _too_coarse(
    name: str, y: np.ndarray, lost: np.ndarray, which: str, middle: float, span: float
) -> str:
    constant = round(middle, -math.floor(math.log10(span)))
    return (
        f"data must keep their differences in {name} precision, but values of up to "
        f"{np.abs(y).max():g} are rounded by up to {lost.max():.2g}, and {which} lie within "
        f"{span:.2g}: subtract a constant from them, such as {constant:.15g}"
    )
