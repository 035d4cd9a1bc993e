"""Drift nets of (x, t), and their names."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from dlutils.flows.kernels import AutogradKernel, MLPKernel, SigmoidBasisKernel
from dlutils.flows.matching import COUPLINGS, along_quantiles
from dlutils.settings import check_choice, check_count


def with_time(x: Tensor, t: Tensor | float) -> Tensor:
    """The pairs (x, t), shape `(..., 2)`, for x and t that broadcast to each other."""
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    return torch.stack(torch.broadcast_tensors(x, t), dim=-1)


class LinearDrift(nn.Module):
    """f(x, t) = gamma x + b: it moves and scales a Gaussian, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(()))
        self.b = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The velocity at states and times, `(n,)`."""
        return self.gamma * x + self.b


class MLPDrift(nn.Module):
    """f(x, t) = a multilayer perceptron of (x, t) with smooth activations.

    Args:
        hidden: Units in each hidden layer.
        depth: Number of hidden layers.
        activation: Class of the activation.
    """

    def __init__(
        self, hidden: int = 64, depth: int = 2, activation: type[nn.Module] = nn.Tanh
    ) -> None:
        super().__init__()
        sizes = pairwise([2] + [hidden] * depth)
        layers = [layer for size in sizes for layer in (nn.Linear(*size), activation())]
        self.net = nn.Sequential(*layers, nn.Linear(hidden, 1))

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The velocity at states and times, `(n,)`."""
        return self.net(with_time(x, t)).squeeze(-1)

    def kernel(self) -> MLPKernel | AutogradKernel:
        """The derivatives that the adjoint needs, in closed form for tanh."""
        return MLPKernel(self.net) if isinstance(self.net[1], nn.Tanh) else AutogradKernel(self)


class ConcatSquashDrift(nn.Module):
    """Layers h -> tanh((W h + b) sigmoid(u t + v) + w t): time scales and shifts each.

    Args:
        hidden: Units in each hidden layer.
        depth: Number of hidden layers.

    Source:
        Grathwohl et al., FFJORD (2019).
    """

    def __init__(self, hidden: int = 32, depth: int = 2) -> None:
        super().__init__()
        sizes = [1] + [hidden] * depth + [1]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.gates = nn.ModuleList(nn.Linear(1, o) for o in sizes[1:])
        self.shifts = nn.ModuleList(nn.Linear(1, o, bias=False) for o in sizes[1:])

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The velocity at states and times, `(n,)`."""
        h, t = with_time(x, t).split(1, dim=-1)
        layers = zip(self.layers, self.gates, self.shifts, strict=True)
        for k, (layer, gate, shift) in enumerate(layers):
            h = layer(h if k == 0 else h.tanh()) * gate(t).sigmoid() + shift(t)
        return h.squeeze(-1)


class FourierDrift(nn.Module):
    """A perceptron of x, t, sin(w x) and cos(w x), with normal random frequencies w.

    Args:
        n_frequencies: How many.
        scale: Their standard deviation.
        hidden: Units in the hidden layer.

    Source:
        Tancik et al., Fourier features let networks learn high frequency functions (2020).
    """

    def __init__(self, n_frequencies: int = 16, scale: float = 1.5, hidden: int = 64) -> None:
        super().__init__()
        self.register_buffer("w", scale * torch.randn(n_frequencies))
        self.net = nn.Sequential(
            nn.Linear(2 * n_frequencies + 2, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The velocity at states and times, `(n,)`."""
        phase = x[..., None] * self.w
        features = torch.cat([with_time(x, t), phase.sin(), phase.cos()], dim=-1)
        return self.net(features).squeeze(-1)


class SigmoidBasisDrift(nn.Module):
    r"""Steps, $f=\sum_jc_j(t)\tanh(k_j((x-m_j)/g_j-s_j))+\gamma(t)x+b(t)$, c, gamma, b cosine sums.

    It is linear in these, so least squares give them at once where the steps are held.

    Args:
        n_steps: Number of steps J, where there are no places.
        n_cosines: Number of cosines in time, the constant one included.
        places: m at t = 0 and at t = 1, increasing, shape `(2, J)`: they move on straight lines,
            and the gaps g between neighbours with them. None for J that stay, from -3.5 to 3.5.

    Raises:
        ValueError: If there are fewer than two steps.
    """

    prior_precision = 100.0  # narrow steps would fit the noise,
    min_bins = 64  # and nodes that are far apart

    def __init__(self, n_steps: int = 48, n_cosines: int = 3, places: Tensor | None = None) -> None:
        super().__init__()
        check_count("n_steps", n_steps, 2)
        places = torch.linspace(-3.5, 3.5, n_steps).expand(2, -1) if places is None else places
        assert places.shape[:-1] == (2,), "on the side of the noise and of the data"
        J, like = places.shape[1], {"dtype": places.dtype}
        self.register_buffer("places", places)
        self.register_buffer("gaps", torch.gradient(places, dim=1)[0])
        self.register_buffer("order", torch.arange(n_cosines))
        self.shift = nn.Parameter(torch.zeros(J, **like))
        self.log_k = nn.Parameter(torch.zeros(J, **like))
        self.c = nn.Parameter(torch.zeros(J + 2, n_cosines, **like))

    @classmethod
    def for_paths(cls, y: Tensor, coupling: str, smooth: bool = False) -> "SigmoidBasisDrift":
        """Steps that go with the straight paths between noise and data y, `(n,)`.

        With a coupling of `matching.COUPLINGS`, else a `ValueError`. With sorted pairs a point that
        moves along with its step keeps its velocity: the heights need not change in time. If y are
        quantiles of a smooth density, more steps do no harm.
        """
        check_choice("coupling", coupling, COUPLINGS)
        n_steps, n_cosines = (192 if smooth else 128, 1) if coupling == "sorted" else (64, 6)
        return cls(n_cosines=n_cosines, places=along_quantiles(y, n_steps).to(y.dtype))

    def basis(self, x: Tensor, t: Tensor | float) -> Tensor:
        """What c multiplies at states and times `(n,)`, shape `(n, J + 2, n_cosines)`."""
        x, t = with_time(x, t).split(1, dim=-1)
        m, g = (torch.lerp(*ends, t) for ends in (self.places, self.gaps))
        steps = (((x - m) / g - self.shift) * self.log_k.exp()).tanh()
        in_x = torch.cat([steps, x, torch.ones_like(x)], dim=-1)
        in_t = (self.order * (math.pi * t)).cos() / (1 + self.order)
        return in_x[..., None] * in_t[..., None, :]

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The velocity at states and times, `(n,)`."""
        return (self.basis(x, t) * self.c).sum(dim=(-2, -1))

    def roughness(self) -> Tensor:
        """The matrix R of c R c, squared second differences of neighbouring heights and a tenth."""
        J, n_cosines = len(self.c) - 2, self.c.shape[1]
        eye = lambda n: torch.eye(n, dtype=self.c.dtype, device=self.c.device)
        D = eye(J).diff(n=2, dim=0)
        R = torch.block_diag(D.T @ D + 0.1 * eye(J), 0 * eye(2))
        return torch.kron(R, eye(n_cosines))

    def kernel(self) -> SigmoidBasisKernel:
        """The derivatives that the adjoint needs, in closed form."""
        return SigmoidBasisKernel(self.places, self.gaps, self.shift, self.log_k, self.c)


DRIFTS: dict[str, type[nn.Module]] = {
    "linear": LinearDrift,
    "mlp": MLPDrift,
    "concat_squash": ConcatSquashDrift,
    "fourier": FourierDrift,
    "sigmoid_basis": SigmoidBasisDrift,
}
