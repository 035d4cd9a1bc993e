r"""The densities of Berlinet & Devroye that are bounded: 22 of the 28.

Most are no mixtures of Gaussians: they end in a jump, have a kink or a cusp, tails without a
variance or a mean, or parts twenty units apart. Those that are unbounded, six, are left out: KL
against a model whose density is bounded would say how it cuts the peak off, and no quadrature of
finitely many nodes sees all of that peak.

Source:
    Berlinet & Devroye, A comparison of kernel density estimates (1994), section 3.2; Mildenberger &
    Weinert, The benchden package (2012), for the numbers and names.
"""

import math
from collections.abc import Callable
from math import inf

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Categorical,
    Cauchy,
    Distribution,
    Exponential,
    Gumbel,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
    Uniform,
)
from torch.distributions.transforms import SigmoidTransform

from dlutils.densities import Triple

UNBOUNDED = {
    8: "infinite peak",
    14: "Matterhorn",
    15: "logarithmic peak",
    18: "chi-square with 1 degree of freedom",
    19: "normal cubed",
    28: "bilogarithmic peak",
}
AS_MARRON_WAND = {22: ("skewed bimodal", 8), 23: ("claw", 10), 24: ("smooth comb", 14)}


def _uniforms(weights: list[float], edges: list[tuple[float, float]]) -> MixtureSameFamily:
    low, high = torch.tensor(edges, dtype=torch.float64).T
    parts = Uniform(low, high, validate_args=False)
    return MixtureSameFamily(Categorical(torch.tensor(weights, dtype=torch.float64)), parts)


def _logistic() -> Distribution:
    return TransformedDistribution(Uniform(0.0, 1.0), [SigmoidTransform().inv])


def _maxwell() -> Triple:
    log_prob = lambda y: y.log() - y**2 / 2
    return log_prob, lambda n: (-2 * _uniform(n).log()).sqrt(), (0, inf)


def _pareto() -> Triple:
    """Tail exponent 1/2: no mean."""
    return lambda y: -math.log(2) - 1.5 * y.log(), lambda n: _uniform(n) ** -2, (1, inf)


def _symmetric_pareto() -> Triple:
    log_prob = lambda y: -math.log(4) - 1.5 * y.abs().log1p()
    return log_prob, lambda n: _sign(n) * (_uniform(n) ** -2 - 1), (-inf, 0, inf)


def _triangle() -> Triple:
    return lambda y: (-y.abs()).log1p(), lambda n: _uniform(2, n).diff(dim=0)[0], (-1, 0, 1)


def _inverse_exponential() -> Triple:
    """That of 1 / X² where X is exponential: no mean."""
    log_prob = lambda y: -(y**-0.5) - math.log(2) - 1.5 * y.log()
    return log_prob, lambda n: _uniform(n).log() ** -2, (0, inf)


def _caliper() -> Triple:
    """2 (1 - u^(1/3)) on either side, u = |y| - 0.1 from 0 to 1."""
    ends = (-1.1, -0.1, 0.1, 1.1)
    log_prob = lambda y: math.log(2) + (1 - (y.abs() - 0.1).clamp(min=0) ** (1 / 3)).log()

    def sample(n: int) -> Tensor:
        """u^(1/3) has density 12 r² (1 - r), Beta(3, 2)."""
        return _sign(n) * (0.1 + Beta(3.0, 2.0).sample((n,)).double() ** 3)

    return lambda y: torch.where(y.abs() < 0.1, -inf, log_prob(y)), sample, ends


def _sawtooth() -> Triple:
    """Ten triangles side by side."""
    peak = lambda y: 2 * (y / 2).floor() + 1
    log_prob = lambda y: (-(y - peak(y)).abs()).log1p() - math.log(10)
    sample = lambda n: 2 * torch.randint(-5, 5, (n,)) + 1 + _uniform(2, n).diff(dim=0)[0]
    return log_prob, sample, range(-10, 11)


def _marronite() -> MixtureSameFamily:
    weights, means, sds = torch.tensor([[1 / 3, 2 / 3], [-20, 0], [1 / 4, 1]]).double()
    return MixtureSameFamily(Categorical(weights), Normal(means, sds))


def _uniform(*shape: int) -> Tensor:
    """In (0, 1], float64."""
    return 1 - torch.rand(shape, dtype=torch.float64)


def _sign(n: int) -> Tensor:
    return 2 * torch.randint(2, (n,)) - 1


BOUNDED: dict[int, tuple[str, Callable[[], Distribution | Triple]]] = {
    1: ("uniform: on [0, 1]", lambda: Uniform(0.0, 1.0, validate_args=False)),
    2: ("exponential: mean 1", lambda: Exponential(1.0)),
    3: ("Maxwell: y exp(-y²/2), y > 0", _maxwell),
    4: ("double exponential: location 0, scale 1", lambda: Laplace(0.0, 1.0)),
    5: ("logistic: location 0, scale 1", _logistic),
    6: ("Cauchy: location 0, scale 1", lambda: Cauchy(0.0, 1.0)),
    7: ("extreme value: Gumbel's, location 0, scale 1", lambda: Gumbel(0.0, 1.0)),
    9: ("Pareto: 1/2 y^(-3/2), y > 1", _pareto),
    10: ("symmetric Pareto: 1/4 (1 + |y|)^(-3/2)", _symmetric_pareto),
    11: ("normal: mean 0, standard deviation 1", lambda: Normal(0.0, 1.0)),
    12: ("log-normal: exp of N(0, 1)", lambda: LogNormal(0.0, 1.0)),
    13: (
        "uniform scale mixture: 1/2 U(-1/2, 1/2) + 1/2 U(-5, 5)",
        lambda: _uniforms([0.5, 0.5], [(-0.5, 0.5), (-5, 5)]),
    ),
    16: ("isosceles triangle: on [-1, 1]", _triangle),
    17: ("beta 2, 2: 6 y (1 - y) on [0, 1]", lambda: Beta(2.0, 2.0)),
    20: ("inverse exponential: 1/2 y^(-3/2) exp(-y^(-1/2)), y > 0", _inverse_exponential),
    21: ("Marronite: 1/3 N(-20, 1/16) + 2/3 N(0, 1)", _marronite),
    25: ("caliper: 2 (1 - (|y| - 0.1)^(1/3)), 0.1 < |y| < 1.1", _caliper),
    26: (
        "trimodal uniform: 1/2 U(-1, 1) + 1/4 U(-20.1, -20) + 1/4 U(20, 20.1)",
        lambda: _uniforms([0.5, 0.25, 0.25], [(-1, 1), (-20.1, -20), (20, 20.1)]),
    ),
    27: ("sawtooth: ten triangles on [-10, 10]", _sawtooth),
}
