r"""The best predictions of a data point from a noisy one that can be written down.

Each is called with $g=x/\beta=sy+\epsilon$ and the root $s=a/\beta$ of SNR, both `(n,)`, and
returns the posterior mean $\mathrm E[y\mid g]$, `(n,)`, of standardized data.

Source:
    Efron, Tweedie's formula and selection bias (2011); Karras et al., Elucidating the design space
    of diffusion-based generative models (2022), for the correction by a net.
"""

from collections.abc import Callable

from torch import Tensor, nn

from dlutils.estimators.yardsticks import Mixture, em_mixture


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


DENOISERS: dict[str, Callable[..., nn.Module]] = {  # from standardized data and their weights
    "gaussian": lambda y, weights=None: GaussianDenoiser(),
    "mixture": lambda y, weights=None: MixtureDenoiser(em_mixture(y, weights=weights)),
}
