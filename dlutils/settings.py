"""Settings that a user gives: refused with the value, and with what would be right."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import TypeVar

import numpy as np
from torch import Tensor

T = TypeVar("T")
MOST_IN_BATCH = 1_000_000  # points of a step: a net of 64 units takes some gigabytes for them


def check_choice(label: str, name: str, choices: Iterable[str]) -> None:
    """Raise a `ValueError` that names the value and the choices, unless it is one of them."""
    if name not in choices:
        raise ValueError(f"unknown {label} {name!r}; choose from {', '.join(choices)}")


def choose(label: str, name: str | T, choices: Mapping[str, T]) -> T:
    """What has that name, or a `ValueError` that names the value and the choices.

    A class or function in place of a name stands for itself.
    """
    if callable(name):
        return name
    check_choice(label, name, choices)
    return choices[name]


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raise a `ValueError` that names the value, unless it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")


def check_flag(name: str, value: object) -> None:
    """Raise a `ValueError` that names the value, unless it is True or False: a text counts as true.

    Papermill hands over `false` as a text, and `False` as what it is.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, with a capital, not {value!r}")


def check_batch(batch_size: int) -> None:
    """Raise a `ValueError` that names the value, unless a step can have so many points."""
    check_count("batch_size", batch_size)
    if batch_size > MOST_IN_BATCH:
        raise ValueError(
            f"batch_size must be at most {MOST_IN_BATCH:,}, since all points of a step are in "
            f"memory together, not {batch_size:,}"
        )


def check_times(t: Tensor) -> None:
    """Raise a `ValueError` that names the first time that lies outside [0, 1]."""
    inside = (t >= 0) & (t <= 1)
    if not inside.all():
        raise ValueError(f"times must lie in [0, 1], not {t[~inside][0]:g}")


def check_points(y: Tensor) -> None:
    """Raise a `ValueError` that says how many points are NaN, and where the first is."""
    wrong = y.isnan()
    if wrong.any():
        raise ValueError(
            f"points must be numbers: {int(wrong.sum())} of {len(y)} are NaN, the first at index "
            f"{int(wrong.nonzero()[0])}"
        )
