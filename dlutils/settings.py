"""Settings that a user gives: refused with the value, and with what would be right."""

from collections.abc import Iterable


def check_choice(label: str, name: str, choices: Iterable[str]) -> None:
    """Raise a `ValueError` that names the value and the choices, unless it is one of them."""
    if name not in choices:
        raise ValueError(f"unknown {label} {name!r}; choose from {', '.join(choices)}")


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raise a `ValueError` that names the value, unless it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")
