r"""One SDE with its variational path, and the three terms of the evidence lower bound.

Source:
    Li, Wong, Chen & Duvenaud, Scalable gradients for stochastic differential equations (2020),
    eq. 10; Bartosh, Vetrov & Naesseth, SDE matching (2025), without a simulation.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from dlutils.checks import check_corrects, check_positive, check_sde
from dlutils.diffusion.parts import DIFFUSIONS, DRIFTS, PATHS
from dlutils.settings import check_times, choose


def variational_drift(path, y, x, t, sigma, half_slope):
    """f_q(x, t) for the data point y, (n,); half_slope is the x-derivative of sigma^2 / 2."""
    alpha, beta, alpha_dot, beta_dot = path.with_rates(y, t)
    eps = (x - alpha) / beta
    return alpha_dot + beta_dot * eps + half_slope - sigma**2 * eps / (2 * beta)


class SDE(nn.Module):
    """dx = f dt + sigma dW from N(0, 1), observed with noise sigma_y, and its variational path."""

    def __init__(self, path: nn.Module, diffusion: nn.Module, drift: nn.Module, sigma_y: float):
        super().__init__()
        if not 0 < sigma_y < math.inf:
            raise ValueError(f"sigma_y must be positive, not {sigma_y!r}")
        self.path, self.diffusion, self.net, self.sigma_y = path, diffusion, drift, sigma_y

    def noise(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor | float]:
        """sigma, and half the slope of sigma^2 in x."""
        sigma, slope = self.diffusion.with_slope(x, t)
        check_positive("sigma", sigma, t)
        return sigma, sigma * slope

    def drift(self, x: Tensor, t: Tensor, sigma: Tensor, half_slope: Tensor | float) -> Tensor:
        """f(x, t) when sigma there is known."""
        out = self.net(x, t)
        if not self.net.predicts_y:
            return out
        return variational_drift(self.path, out, x, t, sigma, half_slope)

    def sigma(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise, `(n,)`."""
        return self.noise(x, t)[0]

    def f(self, x: Tensor, t: Tensor) -> Tensor:
        """The drift, `(n,)`."""
        return self.drift(x, t, *self.noise(x, t))


def build_sde(
    path="linear", diffusion="learned_in_t", drift="preconditioned", delta=0.01, **denoiser
) -> SDE:
    """A model with sigma_y = delta from parts, each a name in its table or a class of one's own.

    Args:
        path: In `PATHS`, or called with delta.
        diffusion: In `DIFFUSIONS`, or called with the path.
        drift: In `DRIFTS`, or called with the path.
        delta: Standard deviation left at t = 1, and of the observation.
        denoiser: `denoiser=...`, what the drift corrects.

    Raises:
        ValueError: If a name is unknown, or a part is not what it must be; the error names it.
    """
    route = choose("path", path, PATHS)(delta)
    noise = choose("diffusion", diffusion, DIFFUSIONS)(route)
    net = choose("drift", drift, DRIFTS)
    check_corrects(drift, net, **denoiser)
    net = net(route, **denoiser)
    check_sde(route, noise, net)
    return SDE(route, noise, net, delta)


def prior_kl(model: SDE, y: Tensor) -> Tensor:
    """KL(q_0(x | y) || N(0, 1)) in nats, (n,)."""
    alpha, beta = model.path(y, torch.zeros_like(y))
    return (alpha**2 + beta**2 - 1) / 2 - beta.log()


def reconstruction(model: SDE, y: Tensor) -> Tensor:
    """E log N(y; x_1, sigma_y^2) under q_1(x | y) in nats, (n,)."""
    alpha, beta = model.path(y, torch.ones_like(y))
    misfit = ((y - alpha) ** 2 + beta**2) / (2 * model.sigma_y**2)
    return -0.5 * math.log(2 * math.pi) - math.log(model.sigma_y) - misfit


def diffusion_loss(model: SDE, y: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """(f - f_q)^2 / (2 sigma^2) at x = alpha + beta eps, nats per unit of time; all (n,)."""
    check_times(t)
    alpha, beta, alpha_dot, beta_dot = model.path.with_rates(y, t)
    check_positive("beta", beta, t)
    x = alpha + beta * eps
    sigma, half_slope = model.noise(x, t)
    f_q = alpha_dot + beta_dot * eps + half_slope - sigma**2 * eps / (2 * beta)
    return (model.drift(x, t, sigma, half_slope) - f_q) ** 2 / (2 * sigma**2)


def quadrature(n_u: int, n_eps: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gauss-Legendre nodes u and weights, Gauss-Hermite nodes eps and weights; typed like y."""
    u, w_u = np.polynomial.legendre.leggauss(n_u)
    eps, w_eps = np.polynomial.hermite_e.hermegauss(n_eps)
    values = (u + 1) / 2, w_u / 2, eps, w_eps / w_eps.sum()
    return tuple(torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in values)


def loss_on_grid(model: SDE, y: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """diffusion_loss for all combinations, (len(y), len(t), len(eps))."""
    grid = torch.broadcast_tensors(y[:, None, None], t[:, None], eps)
    return diffusion_loss(model, *(v.reshape(-1) for v in grid)).view(grid[0].shape)


def elbo(model: SDE, y: Tensor, n_t: int = 48, n_eps: int = 24) -> Tensor:
    """The evidence lower bound by quadrature with n_t * n_eps nodes, nats, (n,)."""
    u, w_u, eps, w_eps = quadrature(n_t, n_eps, y)
    t = model.path.time(u)
    w_t = w_u * model.path.time_rate(t)
    values = []
    for part in y.split(max(1, 2**16 // (n_t * n_eps))):
        loss = loss_on_grid(model, part, t, eps) @ w_eps @ w_t
        values.append(reconstruction(model, part) - prior_kl(model, part) - loss)
    return torch.cat(values)


def hierarchical_elbo(model: SDE, y: Tensor, n_levels: int, n_eps: int = 24) -> Tensor:
    """The bound of a hierarchy whose levels stand at equal steps of the clock, nats, (n,)."""
    _, _, eps, w_eps = quadrature(1, n_eps, y)
    t = model.path.time(torch.linspace(0, 1, n_levels + 1, dtype=y.dtype)).clamp(max=1)
    a, beta, _, _ = model.path.schedule(t)
    gain, loss = ((a / beta) ** 2).diff(), []
    for point in y:
        x = a[:-1, None] * point + beta[:-1, None] * eps
        y_hat = model.net(x.flatten(), t[:-1].repeat_interleave(n_eps)).view_as(x)
        loss.append(gain @ ((point - y_hat) ** 2 @ w_eps) / 2)
    return reconstruction(model, y) - prior_kl(model, y) - torch.stack(loss)
