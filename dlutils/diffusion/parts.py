r"""What an SDE is made of: a variational path, a diffusion coefficient and a drift net, by name.

SDE.ipynb adds the other parameterizations of its question 2.4 to `PATHS`, `DIFFUSIONS` and `DRIFTS`
when it is loaded, as a user adds his own.
"""

import math

import torch
from torch import Tensor, nn

from dlutils.diffusion.denoisers import GaussianDenoiser
from dlutils.diffusion.quadratic import Table
from dlutils.perceptron import perceptron


class Path(nn.Module):
    """alpha = a(t) y and beta(t), from N(0, 1) at t = 0 to N(y, delta^2) at t = 1.

    A subclass gives `schedule(t)`: a, beta and their time derivatives, `(n,)` each; and
    `time_at(root_snr)`: the time at which a / beta has a value. `clock` runs from 0 to 1 evenly in
    log(a / beta + delta), which is evenly in log SNR but for the start.

    Args:
        delta: Standard deviation left at t = 1, between 0 and 1.

    Raises:
        ValueError: If delta is out of range.
    """

    def __init__(self, delta: float = 0.01) -> None:
        super().__init__()
        if not 0 < delta < 1:
            raise ValueError(f"delta must lie between 0 and 1, not {delta!r}")
        self.delta, self.kappa = delta, math.log1p(delta**-2)

    def with_rates(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The path's alpha, beta and their time derivatives, each `(n,)`."""
        a, beta, a_dot, beta_dot = self.schedule(t)
        return a * y, beta, a_dot * y, beta_dot

    def forward(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The path's alpha and beta, each `(n,)`."""
        return self.with_rates(y, t)[:2]

    def clock(self, t: Tensor) -> Tensor:
        """The clock u at times t."""
        a, beta, _, _ = self.schedule(t)
        return torch.log1p(a / (beta * self.delta)) / self.kappa

    def time(self, u: Tensor) -> Tensor:
        """The inverse of the clock."""
        return self.time_at(self.delta * torch.expm1(self.kappa * u))

    def time_rate(self, t: Tensor) -> Tensor:
        """dt/du: what a step of the clock takes in time."""
        a, beta, a_dot, beta_dot = self.schedule(t)
        return self.kappa * (a / beta + self.delta) * beta**2 / (a_dot * beta - a * beta_dot)


class LinearPath(Path):
    """a = t, beta = 1 - t + delta t."""

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The factor a, beta and their time derivatives, each `(n,)`."""
        one = torch.ones_like(t)
        return t, 1 - (1 - self.delta) * t, one, (self.delta - 1) * one

    def time_at(self, root_snr: Tensor) -> Tensor:
        """The time at which a / beta has this value."""
        return root_snr / (1 + (1 - self.delta) * root_snr)


PATHS: dict[str, type[Path]] = {"linear": LinearPath}


class ConstantDiffusion(nn.Module):
    """sigma = value; the other coefficients are its subclasses."""

    def __init__(self, path: nn.Module, value: float = 1.0) -> None:
        super().__init__()
        self.path, self.value = path, value

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise sigma(x, t), `(n,)`."""
        return torch.full_like(x, self.value)

    def with_slope(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor | float]:
        """The noise and its derivative in x."""
        return self(x, t), 0.0


class OptimalDiffusion(ConstantDiffusion):
    """sigma^2 = r beta^2 d log SNR / dt with r = value: for r = 1 the bound is tightest.

    At t = 0 that is infinite; a / beta + delta in place of a / beta costs about 1e-4 nats.
    """

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise sigma(x, t), `(n,)`."""
        a, beta, a_dot, beta_dot = self.path.schedule(t)
        rate = 2 * (a_dot * beta - a * beta_dot) / (a / beta + self.path.delta)
        return (self.value * rate).sqrt()


class LearnedInTimeDiffusion(ConstantDiffusion):
    """log sigma = kappa / 2 (line(2 u - 1) + net(2 u - 1)), zero at first."""

    n_in = 1

    def __init__(self, path: nn.Module, hidden: int = 16) -> None:
        super().__init__(path)
        self.line = perceptron(1, 1, 1, depth=0, zero=True)
        self.net = perceptron(self.n_in, 1, hidden, depth=1, zero=True)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise sigma(x, t), `(n,)`."""
        centred = 2 * self.path.clock(t)[..., None] - 1
        return (self.path.kappa / 2 * (self.line(centred) + self.net(centred)).squeeze(-1)).exp()


DIFFUSIONS: dict[str, type[ConstantDiffusion]] = {
    "constant": ConstantDiffusion,
    "learned_in_t": LearnedInTimeDiffusion,
    "optimal": OptimalDiffusion,
}


class PreconditionedDrift(nn.Module):
    """y_hat = denoiser(x / beta, a / beta) + beta / c net(x / c, 2 u - 1), c^2 = a^2 + beta^2."""

    predicts_y = True

    def __init__(self, path: nn.Module, hidden: int = 64, denoiser=None, net=None) -> None:
        super().__init__()
        self.path, self.denoiser = path, denoiser or GaussianDenoiser()
        self.net = perceptron(2, 1, hidden, zero=True) if net is None else net

    def correction(self, z: Tensor, u: Tensor, spread: Tensor) -> Tensor:
        """What is added to the denoiser's y, where z = x / c and spread = beta / c."""
        return spread * self.net(torch.stack([z, 2 * u - 1], dim=-1)).squeeze(-1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted y at states and times, `(n,)`."""
        a, beta, _, _ = self.path.schedule(t)
        scale = (a**2 + beta**2).rsqrt()  # 1 / c
        known = self.denoiser(x / beta, a / beta)
        return known + self.correction(scale * x, self.path.clock(t), scale * beta)


class BasisDrift(PreconditionedDrift):
    """y_hat = denoiser(x / beta, a / beta) + (beta / c)^2 C(x / c, u) with a table of numbers C."""

    def __init__(self, path: nn.Module, denoiser=None, table: Table | None = None) -> None:
        table = Table(torch.linspace(-4, 4, 65)) if table is None else table
        super().__init__(path, denoiser=denoiser, net=table)

    def correction(self, z: Tensor, u: Tensor, spread: Tensor) -> Tensor:
        """What is added to the denoiser's y."""
        return spread**2 * self.net(z, u)


DRIFTS: dict[str, type[nn.Module]] = {"preconditioned": PreconditionedDrift, "basis": BasisDrift}
