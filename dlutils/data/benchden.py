"""The 28 densities of Berlinet & Devroye (1994), those that are bounded.

Six grow without bound somewhere. A flow from a Gaussian has a bounded density, so its distance from
them would say how the peak is cut off: they stand in `LEFT_OUT`.

Source:
    Berlinet & Devroye, A comparison of kernel density estimates, Publications de l'Institut de
    Statistique de l'Université de Paris 38 (1994), section 3.2; R's package benchden: Mildenberger
    & Weinert, Journal of Statistical Software 46 (2012), number 14, table 1.
"""

from collections.abc import Callable
from math import inf, log

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Cauchy,
    Exponential,
    Gumbel,
    Laplace,
    LogNormal,
    Normal,
    Pareto,
    Uniform,
    Weibull,
)
from torch.nn.functional import logsigmoid

from dlutils.data.densities import Triple
from dlutils.data.marron_wand import marron_wand, mixture, single


def benchden() -> dict[str, tuple[str, Callable | Triple]]:
    """The 22 bounded ones: name, description and density."""
    same = {name: density for name, (_, density) in marron_wand().items()}
    table = [
        (1, "uniform", "on [0, 1]", lambda: single(Uniform, 0.0, 1.0)),
        (2, "exponential", "rate 1", lambda: single(Exponential, 1.0)),
        (3, "Maxwell", "y exp(-y²/2) for y > 0", lambda: single(Weibull, 2**0.5, 2.0)),
        (4, "double exponential", "Laplace(0, 1)", lambda: single(Laplace, 0.0, 1.0)),
        (5, "logistic", "location 0, scale 1", LOGISTIC),
        (6, "Cauchy", "location 0, scale 1", lambda: single(Cauchy, 0.0, 1.0)),
        (7, "extreme value", "exp(-y - exp(-y))", lambda: single(Gumbel, 0.0, 1.0)),
        (9, "Pareto", "1 / (2 y^(3/2)) for y > 1", lambda: single(Pareto, 1.0, 0.5)),
        (10, "symmetric Pareto", "1 / (4 (1 + |y|)^(3/2))", SYMMETRIC_PARETO),
        (11, "normal", "N(0, 1)", same["marron_wand_01"]),
        (12, "log-normal", "exp of N(0, 1)", lambda: single(LogNormal, 0.0, 1.0)),
        (
            13,
            "uniform scale mixture",
            "0.5 U(-0.5, 0.5) + 0.5 U(-5, 5)",
            lambda: mixture(Uniform, [0.5, 0.5], [-0.5, -5.0], [0.5, 5.0]),
        ),
        (16, "isosceles triangle", "1 - |y| on [-1, 1]", TRIANGLE),
        (17, "beta 2,2", "6 y (1 - y) on [0, 1]", lambda: single(Beta, 2.0, 2.0)),
        (20, "inverse exponential", "exp(-1/√y) / (2 y^(3/2)) for y > 0", INVERSE_EXPONENTIAL),
        (
            21,
            "Marronite",
            "1/3 N(-20, 0.25²) + 2/3 N(0, 1)",
            lambda: mixture(Normal, [1 / 3, 2 / 3], [-20.0, 0.0], [0.25, 1.0]),
        ),
        (22, "skewed bimodal", "3/4 N(0, 1) + 1/4 N(3/2, (1/3)²)", same["marron_wand_08"]),
        (23, "claw", "number 10 of Marron & Wand", same["marron_wand_10"]),
        (24, "smooth comb", "number 14 of Marron & Wand", same["marron_wand_14"]),
        (25, "caliper", "2 (1 - (|y| - 0.1)^(1/3)) for 0.1 < |y| < 1.1", CALIPER),
        (
            26,
            "trimodal uniform",
            "0.5 U(-1, 1) + 0.25 U(20, 20.1) + 0.25 U(-20.1, -20)",
            lambda: mixture(Uniform, [0.5, 0.25, 0.25], [-1.0, 20.0, -20.1], [1.0, 20.1, -20.0]),
        ),
        (27, "sawtooth", "ten triangles side by side on [-10, 10]", SAWTOOTH),
    ]
    return {
        f"benchden_{number:02d}": (
            f"Berlinet & Devroye (1994) number {number}, {name}: {formula}",
            density,
        )
        for number, name, formula, density in table
    }


LEFT_OUT = {
    "benchden_08": "infinite peak, 1 / (2√y) on (0, 1)",
    "benchden_14": "Matterhorn, 1 / (|y| log²|y|) for |y| < exp(-2)",
    "benchden_15": "logarithmic peak, -log y on (0, 1)",
    "benchden_18": "chi-square 1, exp(-y/2) / √(2πy) for y > 0",
    "benchden_19": "normal cubed, the cube of N(0, 1)",
    "benchden_28": "bilogarithmic peak, -log(y (1 - y)) / 2 on (0, 1)",
}


def _by_quantile(
    log_prob: Callable[[Tensor], Tensor], quantile: Callable[[Tensor], Tensor], *support: float
) -> Triple:
    """What `Density` takes, sampled by the inverse of the distribution function."""
    return log_prob, lambda n: quantile(torch.rand(n, dtype=torch.float64)), support


def _symmetric(quantile: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The quantile function of y with a random sign, from that of |y|."""
    return lambda p: (2 * p - 1).sign() * quantile((2 * p - 1).abs())


_triangle = _symmetric(lambda p: 1 - (1 - p).sqrt())


def _log_caliper(y: Tensor) -> Tensor:
    u = y.abs() - 0.1
    return (2 - 2 * u.clamp(0) ** (1 / 3)).log().where(u > 0, -inf)


def _sample_caliper(n: int) -> Tensor:
    """The density of v = (|y| - 0.1)^(1/3) is 12 v² (1 - v)."""
    v = single(Beta, 3.0, 2.0).sample((n,))
    return (torch.rand_like(v) - 0.5).sign() * (0.1 + v**3)


LOGISTIC = _by_quantile(lambda y: logsigmoid(y) + logsigmoid(-y), torch.logit, -inf, inf)
SYMMETRIC_PARETO = _by_quantile(
    lambda y: -log(4) - 1.5 * y.abs().log1p(),
    _symmetric(lambda p: (1 - p) ** -2 - 1),
    *(-inf, 0, inf),
)
TRIANGLE = _by_quantile(lambda y: (1 - y.abs()).log(), _triangle, -1, 0, 1)
INVERSE_EXPONENTIAL = _by_quantile(
    lambda y: -(y**-0.5) - log(2) - 1.5 * y.log(), lambda p: p.log() ** -2, 0, inf
)
CALIPER = (_log_caliper, _sample_caliper, (-1.1, -0.1, 0.1, 1.1))
SAWTOOTH = _by_quantile(
    lambda y: ((1 - (y.remainder(2) - 1).abs()) / 10).log(),
    lambda p: 2 * (10 * p).floor() - 9 + _triangle((10 * p).frac()),
    *range(-10, 11),
)
