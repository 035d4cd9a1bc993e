"""The fifteen normal mixtures of Marron & Wand, and how single laws and mixtures are written."""

from collections.abc import Callable, Sequence

import torch
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal


def mixture(
    family: type[Distribution], weights: Sequence[float], *parameters: Sequence[float]
) -> MixtureSameFamily:
    """A mixture of one family; of each parameter, a number for each component."""
    weights, *parameters = (
        torch.tensor(values, dtype=torch.float64) for values in (weights, *parameters)
    )
    return MixtureSameFamily(Categorical(probs=weights / weights.sum()), family(*parameters))


def single(family: type[Distribution], *parameters: float) -> Distribution:
    """Unvalidated: outside a bounded support log p is -inf, not an error."""
    parameters = (torch.tensor(value, dtype=torch.float64) for value in parameters)
    return family(*parameters, validate_args=False)


def marron_wand() -> dict[str, tuple[str, Callable[[], Distribution]]]:
    """The fifteen normal mixtures of Marron & Wand (1992), table 1: name, weights, means, sds."""
    table = [
        ("Gaussian", [1], [0], [1]),
        ("skewed unimodal", [1 / 5, 1 / 5, 3 / 5], [0, 1 / 2, 13 / 12], [1, 2 / 3, 5 / 9]),
        (
            "strongly skewed",
            [1 / 8] * 8,
            [3 * ((2 / 3) ** k - 1) for k in range(8)],
            [(2 / 3) ** k for k in range(8)],
        ),
        ("kurtotic unimodal", [2 / 3, 1 / 3], [0, 0], [1, 1 / 10]),
        ("outlier", [1 / 10, 9 / 10], [0, 0], [1, 1 / 10]),
        ("bimodal", [1 / 2] * 2, [-1, 1], [2 / 3] * 2),
        ("separated bimodal", [1 / 2] * 2, [-3 / 2, 3 / 2], [1 / 2] * 2),
        ("asymmetric bimodal", [3 / 4, 1 / 4], [0, 3 / 2], [1, 1 / 3]),
        ("trimodal", [9 / 20, 9 / 20, 1 / 10], [-6 / 5, 6 / 5, 0], [3 / 5, 3 / 5, 1 / 4]),
        ("claw", [1 / 2] + [1 / 10] * 5, [0] + [k / 2 - 1 for k in range(5)], [1] + [1 / 10] * 5),
        (
            "double claw",
            [49 / 100] * 2 + [1 / 350] * 7,
            [-1, 1] + [(k - 3) / 2 for k in range(7)],
            [2 / 3] * 2 + [1 / 100] * 7,
        ),
        (
            "asymmetric claw",
            [1 / 2] + [2 ** (1 - k) / 31 for k in range(-2, 3)],
            [0] + [k + 1 / 2 for k in range(-2, 3)],
            [1] + [2**-k / 10 for k in range(-2, 3)],
        ),
        (
            "asymmetric double claw",
            [46 / 100] * 2 + [1 / 300] * 3 + [7 / 300] * 3,
            [-1, 1] + [-k / 2 for k in (1, 2, 3)] + [k / 2 for k in (1, 2, 3)],
            [2 / 3] * 2 + [1 / 100] * 3 + [7 / 100] * 3,
        ),
        (
            "smooth comb",
            [2 ** (5 - k) / 63 for k in range(6)],
            [(65 - 96 * 2**-k) / 21 for k in range(6)],
            [(32 / 63) * 2**-k for k in range(6)],
        ),
        (
            "discrete comb",
            [2 / 7] * 3 + [1 / 21] * 3,
            [(12 * k - 15) / 7 for k in range(3)] + [2 * k / 7 for k in (8, 9, 10)],
            [2 / 7] * 3 + [1 / 21] * 3,
        ),
    ]
    return {
        f"marron_wand_{number:02d}": (
            f"Marron & Wand (1992) number {number}, {title}: mixture of {len(weights)} "
            f"normal distribution{'s' if len(weights) > 1 else ''}",
            lambda row=(weights, means, sds): mixture(Normal, *row),
        )
        for number, (title, weights, means, sds) in enumerate(table, start=1)
    }
