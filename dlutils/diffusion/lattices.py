r"""Points that fill a cube evenly, and noise that is drawn where a square of it counts.

Source:
    Niederreiter, Random number generation and quasi-Monte Carlo methods (1992), chapter 5; Cranley
    & Patterson, Randomization of number theoretic methods for multiple integration (1976).
"""

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from dlutils.settings import check_count

PLASTIC = 1.324717957244746  # its powers make an even lattice in two more dimensions
EPS = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
EPS_CDF = Normal(0.0, 1.0).cdf(EPS) - EPS * Normal(0.0, 1.0).log_prob(EPS).exp() / 2


def even_lattice(n: int, generator: torch.Generator | None = None) -> Tensor:
    """A lattice of n points in the unit cube, with one random shift; float64, shape `(3, n)`.

    Each point alone is uniform in the cube, so a mean over them has no bias.
    """
    check_count("n", n)
    steps = torch.tensor([[1 / n], [1 / PLASTIC], [1 / PLASTIC**2]], dtype=torch.float64)
    shift = torch.rand(3, 1, generator=generator, dtype=torch.float64)
    return (shift + steps * torch.arange(n)) % 1


def importance_noise(w: Tensor) -> Tensor:
    r"""Quantiles of the density $\tfrac12(1+\epsilon^2)\,\phi(\epsilon)$, float64, at w, `(n,)`."""
    return torch.from_numpy(np.interp(w.double().numpy(), EPS_CDF.numpy(), EPS.numpy()))
