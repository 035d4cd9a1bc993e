r"""The best predictions of a data point from a noisy one that can be written down.

Each is called with $g=x/\beta=sy+\epsilon$ and the root $s=a/\beta$ of SNR, both `(n,)`, and
returns the posterior mean $\mathrm E[y\mid g]$, `(n,)`, of standardized data.

Source:
    Efron, Tweedie's formula and selection bias (2011); Karras et al., Elucidating the design space
    of diffusion-based generative models (2022), for the correction by a net.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.special import log_ndtr

from dlutils.estimators.yardsticks import Mixture, em_mixture
from dlutils.quadrature import gauss_legendre

N_NODES = 6  # of an integral over a bin


class GaussianDenoiser(nn.Module):
    """For the prior N(0, 1): linear in g."""

    n_parameters = 0

    def forward(self, g: Tensor, s: Tensor) -> Tensor:
        """E[y | g], `(n,)`."""
        return s * g / (1 + s**2)

    def __str__(self) -> str:
        return "one Gaussian"


class MixtureDenoiser(nn.Module):
    r"""For the prior $\sum_j\pi_jN(\mu_j,\tau_j^2)$: linear for each component, mixed by its share.

    $$\mathrm E[y\mid g]=\sum_j\omega_j\,\frac{\mu_j+s\tau_j^2g}{1+s^2\tau_j^2},\qquad
    \omega_j\propto\pi_j\,N(g;\,s\mu_j,\,1+s^2\tau_j^2).$$

    The mixture has m components, in standardized units. `n_parameters` are the numbers that EM
    found, besides the data's mean and variance, which standardization took out.
    """

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        for name in ("weights", "means", "sds"):
            self.register_buffer(name, getattr(mixture, name)[:, None])
        self.n_parameters = mixture.n_parameters - 2

    def forward(self, g: Tensor, s: Tensor) -> Tensor:
        """E[y | g], `(n,)`."""
        spread = s * self.sds
        variance = 1 + spread**2  # of g given the component, (m, n) like all below
        log_p = self.weights.log() - (variance.log() + (g - s * self.means) ** 2 / variance) / 2
        return (log_p.softmax(0) * (self.means + spread * self.sds * g) / variance).sum(0)

    def __str__(self) -> str:
        m = len(self.weights)
        return f"a mixture of {m} Gaussians" if m > 1 else "a mixture of one Gaussian"


class UniformsDenoiser(nn.Module):
    r"""For a prior that is constant in bins, a histogram: truncated normals, mixed by their share.

    In a bin from a to b of density h, with $u=sa-g$ and $v=sb-g$,
    $$\omega\propto h\,(\Phi(v)-\Phi(u)),\qquad
    \mathrm E[y\mid g,\text{bin}]
    =\frac1s\Big(g+\frac{\varphi(u)-\varphi(v)}{\Phi(v)-\Phi(u)}\Big).$$
    Where the noise is wide beside a bin, $v-u<\frac12$, both are integrals by Gauss and Legendre's
    rule. The edges, `(m + 1,)`, and the densities, `(m,)`, not all zero, are in standardized units.
    `n_parameters` are the densities and the places of the inner edges.
    """

    def __init__(self, edges: Tensor, density: Tensor) -> None:
        super().__init__()
        there = density > 0
        ends = torch.stack([edges[:-1], edges[1:]])[:, there]
        self.register_buffer("ends", ends[..., None])  # (2, m, 1)
        self.register_buffer("density", density[there, None])
        nodes, weights = gauss_legendre(N_NODES, *ends.numpy())
        self.register_buffer("nodes", torch.from_numpy(nodes)[..., None])  # (m, N_NODES, 1)
        self.register_buffer("weights", torch.from_numpy(weights)[..., None])
        self.n_parameters = 2 * (len(density) - 1)

    def forward(self, g: Tensor, s: Tensor) -> Tensor:
        """E[y | g], `(n,)`."""
        u, v = s * self.ends - g
        far = torch.where(u > 0, u, torch.where(v < 0, v, 0.0)).square().amin(0) / 2
        phi = lambda at: (far - at.square() / 2).exp() / math.sqrt(2 * math.pi)  # scaled: not zero
        upper = u + v > 0  # the difference of the smaller tails
        low, high = (log_ndtr(torch.where(upper, -of, to)) for of, to in ((v, u), (u, v)))
        mass = (far + high).exp() * -torch.expm1(low - high)
        least = s.clamp(min=1e-8)
        integral, moment = mass / least, (g * mass + phi(u) - phi(v)) / least**2
        kernel, wide = phi(s * self.nodes - g) * self.weights, v - u < 0.5
        integral = self.density * torch.where(wide, kernel.sum(1), integral)
        moment = self.density * torch.where(wide, (self.nodes * kernel).sum(1), moment)
        return moment.sum(0) / integral.sum(0)

    def __str__(self) -> str:
        return f"a histogram of {len(self.density)} bins"


DENOISERS: dict[str, Callable[..., nn.Module]] = {  # from standardized data and their weights
    "gaussian": lambda y, weights=None: GaussianDenoiser(),
    "mixture": lambda y, weights=None: MixtureDenoiser(em_mixture(y, weights=weights)),
}
