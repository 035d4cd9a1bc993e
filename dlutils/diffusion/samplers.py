r"""The bound by sampling: where to evaluate its integrand, with weights that keep the mean.

A sampler is `sampler(path, n, generator)` to a `Draw`; `T_SAMPLERS` has them by name. `lattice`
draws the noise from $\tfrac12(1+\epsilon^2)\,\phi(\epsilon)$: the loss grows like its square.

Source:
    Kingma, Salimans, Poole & Ho, Variational diffusion models (2021), for low-discrepancy times.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlutils.diffusion.lattices import even_lattice, importance_noise
from dlutils.diffusion.model import SDE, diffusion_loss, prior_kl, reconstruction
from dlutils.settings import choose


class Draw(NamedTuple):
    """Where to evaluate the loss for n points, each (n,)."""

    t: Tensor
    weight: Tensor  # 1 / density
    eps: Tensor
    v: Tensor  # uniform in [0, 1): which data point


def on_the_clock(path, u):
    """Times at which the clock shows u, and the weight dt/du."""
    t = path.time(u).clamp(0, 1)
    return t, path.time_rate(t)


def iid(path, n, generator=None):
    """Independent uniform times."""
    v, t = torch.rand(2, n, generator=generator, dtype=torch.float64)
    return Draw(t, torch.ones_like(t), torch.randn(t.shape, generator=generator, dtype=t.dtype), v)


def low_discrepancy(path, n, generator=None):
    """Evenly spread times with one random shift."""
    draw = iid(path, n, generator)
    return draw._replace(t=(draw.t[0] + torch.arange(n, dtype=draw.t.dtype) / n) % 1)


def log_snr(path, n, generator=None):
    """Evenly spread on the clock, with the weights that belong to it."""
    draw = low_discrepancy(path, n, generator)
    t, weight = on_the_clock(path, draw.t)
    return draw._replace(t=t, weight=weight)


def lattice(path, n, generator=None):
    """Data point, clock and noise evenly spread together; noise with importance weights."""
    v, u, w = even_lattice(n, generator)
    eps = importance_noise(w)
    t, rate = on_the_clock(path, u)
    return Draw(t, rate * 2 / (1 + eps**2), eps, v)


def frozen(path, n, generator=None):
    """One lattice for ever."""
    return lattice(path, n, torch.Generator().manual_seed(0))


T_SAMPLERS: dict[str, Callable[..., Draw]] = {
    f.__name__: f for f in (iid, low_discrepancy, log_snr, lattice, frozen)
}


def sampled_elbo(model: SDE, y: Tensor, draw: Draw) -> Tensor:
    """One sample of the bound for each point, nats, (n,)."""
    t, weight, eps = (z.to(y) for z in draw[:3])
    loss = weight * diffusion_loss(model, y, t, eps)
    return reconstruction(model, y) - prior_kl(model, y) - loss


def minibatch(path: nn.Module, y: Tensor, t_sampler: str, n: int, generator=None):
    """Of the points y, in increasing order, n by a sampler of that name, and its draw."""
    draw = choose("t_sampler", t_sampler, T_SAMPLERS)(path, n, generator)
    return y[(draw.v * len(y)).long().clamp(max=len(y) - 1)], draw
