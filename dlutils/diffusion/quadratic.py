r"""A table of numbers that corrects a denoiser, and what the bound of an SDE pays for its entries.

With $\alpha=ay$ and the optimal noise the diffusion term depends on the drift only through its
prediction $\hat y(x,t)$ of the data point, and is quadratic in that. With $s=a/\beta$ and the clock
u, $s=\delta(e^{\kappa u}-1)$, it is
$$\int_0^1\kappa\,(s+\tfrac\delta2)^2\;\mathrm E\,(y-\hat y)^2\,du .$$
A denoiser that can be written down, $\hat y_0$, is corrected by a table of numbers,
$\hat y=\hat y_0+C(z,u)/(1+s^2)$ with $z=(sy+\epsilon)/\sqrt{1+s^2}$, which is x in units of its
standard deviation. C is linear between its knots in z and on the clock, so the bound is quadratic
in the table's entries: its maximum solves linear equations, sparse ones, since an entry has to do
with its eight neighbours only. The expectation over $\epsilon$ is a convolution, by FFT.

Where $\hat y_0$ is that of N(0, 1), $\hat y=(ax+\beta^2C)/(a^2+\beta^2)$: the posterior mean for
the prior N(C, 1), whose mean depends on where x is.

Source:
    Kingma et al., Variational diffusion models (2021), for the quadratic form; Eilers & Marx,
    Flexible smoothing with B-splines and penalties (1996), for the penalties.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import solveh_banded
from torch import Tensor, nn

from dlutils.quadrature import gauss_legendre
from dlutils.settings import check_count

Nodes = tuple[np.ndarray, np.ndarray]  # points, increasing, and weights with sum one, (m,) each

FARTHEST = 6.0  # standard deviations of the noise
PER_NOISE = 8  # points of a grid in one of them, at least
PER_KNOT = 4  # and between neighbouring knots, on average
PER_INTERVAL = 3  # nodes between neighbouring entries on the clock


class Table(nn.Module):
    """C(z, u), linear between its entries in either direction, and constant beyond the knots in z.

    Args:
        knots: States z, increasing, shape `(J,)`.
        n_times: Number K of equally spaced places on the clock, from 0 to 1.

    Attributes:
        c: The entries, `(J, K)`, zero at first.

    Raises:
        ValueError: If the knots do not increase, there are fewer than three, or `n_times` is below
            two.
    """

    def __init__(self, knots: Tensor, n_times: int = 24) -> None:
        super().__init__()
        check_count("n_times", n_times, 2)
        if knots.ndim != 1 or len(knots) < 3 or not (knots.diff() > 0).all():
            raise ValueError(f"at least three knots are needed, increasing, not {knots}")
        self.register_buffer("knots", knots)
        self.c = nn.Parameter(torch.zeros(len(knots), n_times, dtype=knots.dtype))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """C at states and on the clock, `(n,)`."""
        (J, K), flat = self.c.shape, self.c.view(-1)
        j = (torch.searchsorted(self.knots, z.contiguous()) - 1).clamp(0, J - 2)
        left, right = self.knots[j], self.knots[j + 1]
        at = (u * (K - 1)).clamp(0, K - 1)
        k = at.long().clamp(max=K - 2)
        p, q, first = ((z - left) / (right - left)).clamp(0, 1), at - k, j * K + k
        before, after = (torch.lerp(flat[i], flat[i + 1], q) for i in (first, first + K))
        return torch.lerp(before, after, p)


@dataclass(frozen=True)
class Quadratic:
    """A quadratic function of a table's entries, constant - 2 linear c + c A c.

    Attributes:
        constant: Its value at zero.
        linear: `(J, K)`.
        bands: From n = d K + e >= 0 to A between the entries (j, k) and (j + d, k + e), `(J, K)`,
            zero where there is no such entry. The rest by symmetry.
    """

    constant: float
    linear: np.ndarray
    bands: dict[int, np.ndarray]

    def __call__(self, c: np.ndarray) -> float:
        """The value at entries `(J, K)`."""
        product, flat = 0.0, c.ravel()
        for n, band in self.bands.items():
            last = flat.size - n
            term = (flat[:last] * band.ravel()[:last] * flat[n:]).sum()
            product += 2 * term if n else term
        return float(self.constant - 2 * (self.linear * c).sum() + product)

    def __add__(self, other: "Quadratic") -> "Quadratic":
        bands = {
            key: self.bands.get(key, 0.0) + other.bands.get(key, 0.0)
            for key in self.bands | other.bands
        }
        return Quadratic(self.constant + other.constant, self.linear + other.linear, bands)

    def __rmul__(self, factor: float) -> "Quadratic":
        bands = {key: factor * band for key, band in self.bands.items()}
        return Quadratic(factor * self.constant, factor * self.linear, bands)

    def minimum(self) -> np.ndarray:
        """Where it is smallest, `(J, K)`: Cholesky's method for a band of width 2 K.

        Raises:
            LinAlgError: If A is not positive definite: add a penalty.
        """
        J, K = self.linear.shape
        lower = np.zeros((1 + max(self.bands), J * K))
        for n, band in self.bands.items():
            lower[n] = band.ravel()
        return solveh_banded(lower, self.linear.ravel(), lower=True).reshape(J, K)


def diffusion_terms(
    table: Table, data: Sequence[Nodes], delta: float, denoiser: nn.Module
) -> list[Quadratic]:
    r"""What the bound of an SDE with optimal noise loses by its drift, nats, a mean over the data.

    On the clock Gauss and Legendre's rule between the table's entries. At each of its nodes the
    density of $g=sy+\epsilon$, and that times $\mathrm E[y\mid g]$, on a grid by convolution.

    One for each of the data, standardized points with weights. Of the table, which corrects the
    denoiser, only the knots and the number of entries matter.
    """
    knots, (J, K) = table.knots.double().numpy(), table.c.shape
    entries = np.arange(K)
    v, w_v = (rule.ravel() for rule in gauss_legendre(PER_INTERVAL, entries[:-1], entries[1:]))
    s = root_snr(v / (K - 1), delta)  # v is the clock in units of its entries
    weight = _bounds_weight(s, delta) / (K - 1) * w_v
    gram, linear = np.zeros((len(data), 2, len(v), J)), np.zeros((len(data), len(v), J))
    constant = np.zeros(len(data))
    second_moments = np.array([w @ y**2 for y, w in data])
    for q, s_q in enumerate(s):
        c_2 = 1 + s_q**2
        step = min(1 / PER_NOISE, (knots[-1] - knots[0]) * np.sqrt(c_2) / (PER_KNOT * J))
        g, mass = noisy(data, s_q, step)
        with torch.no_grad():
            known = denoiser(torch.from_numpy(g), torch.tensor(s_q, dtype=torch.float64)).numpy()
        at = np.interp(g / np.sqrt(c_2), knots, np.arange(J))
        j = np.minimum(at.astype(int), J - 2)
        at -= j
        for i, (p, p_y) in enumerate(mass):
            inner = np.bincount(j, p * at * (1 - at), J)
            gram[i, 1, q] = inner
            gram[i, 0, q] = _shared(j, at, p, J) - (inner + np.roll(inner, 1))
            linear[i, q] = c_2 * _shared(j, at, p_y - p * known, J)
            error = second_moments[i] - (2 * p_y - p * known) @ known
            constant[i] += weight[q] * c_2**2 * error
    hats = np.maximum(0, 1 - np.abs(v[:, None] - entries))  # (nodes on the clock, K)
    same, next_ = (weight[:, None] * hats * np.roll(hats, -e, axis=1) for e in (0, 1))
    next_[:, -1] = 0
    terms = []
    for A, b, value in zip(gram, linear, constant, strict=True):
        bands = {d * K: A[d].T @ same for d in (0, 1)}
        bands |= {d * K + 1: A[d].T @ next_ for d in (0, 1)}
        bands[K - 1] = bands.get(K - 1, 0) + np.roll(bands[K + 1], 1, axis=1)  # twice if K is two
        terms.append(Quadratic(float(value), b.T @ (weight[:, None] * hats), bands))
    return terms


def noisy(data: Sequence[Nodes], s: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    r"""The distribution of $g=sy+\epsilon$ on a grid whose step is at most one.

    Points are shared by their two neighbours on the grid, which spreads them by a variance of a
    sixth of its squared step; the noise is narrower by as much.

    Returns:
        The grid, `(m,)`; for each of the data the masses there, and these times the mean of y given
        g, `(len(data), 2, m)`.
    """
    low = min(s * y[0] for y, _ in data) - FARTHEST
    high = max(s * y[-1] for y, _ in data) + FARTHEST
    m = next_fast_len(math.ceil((high - low) / step) + 2, real=True)
    shares = np.empty((len(data), 2, m))
    for (y, w), share in zip(data, shares, strict=True):
        at = (s * y - low) / step
        k = at.astype(int)
        at -= k
        share[:] = _shared(k, at, w, m), _shared(k, at, w * y, m)
    frequency = 2 * np.pi / (m * step) * np.arange(m // 2 + 1)
    blur = np.exp(-(frequency**2) * (1 - step**2 / 6) / 2)
    return low + step * np.arange(m), irfft(rfft(shares) * blur, m)


def curvature(table: Table, delta: float) -> Quadratic:
    r"""The integral of $(\partial_z^2C)^2$ in units that make it dimensionless everywhere.

    The weight in u is the bound's, times the fourth power of the noise in z: its factor says how
    wide, in units of the noise, a bend has to be to be believed.
    """
    (J, K), gap = table.c.shape, np.diff(table.knots.double().numpy())
    s = root_snr(np.linspace(0, 1, K), delta)
    weight = _bounds_weight(s, delta) / (K - 1) / (1 + s**2) ** 2
    D = np.stack([1 / gap[:-1], -1 / gap[:-1] - 1 / gap[1:], 1 / gap[1:]])  # at j, j + 1, j + 2
    rows, bands = D / np.sqrt((gap[1:] + gap[:-1]) / 2), {}
    for d in range(3):
        band = np.zeros(J)
        for i in range(3 - d):
            band[i : i + J - 2] += rows[i] * rows[i + d]
        bands[d * K] = np.outer(band, weight)
    return Quadratic(0.0, np.zeros((J, K)), bands)


def change(table: Table, delta: float) -> Quadratic:
    """The integral over z of the squared differences between neighbours on the clock.

    With a thousandth of the squared entries, so that the two penalties together are positive
    definite. The weight is the bound's.
    """
    (J, K), width = table.c.shape, np.gradient(table.knots.double().numpy())
    weight = _bounds_weight(root_snr(np.linspace(0, 1, K), delta), delta) / (K - 1)
    between = np.append((weight[1:] + weight[:-1]) / 2, 0)
    own = between + np.roll(between, 1) + 1e-3 * weight
    bands = {0: np.outer(width, own), 1: -np.outer(width, between)}
    return Quadratic(0.0, np.zeros((J, K)), bands)


def root_snr(u: np.ndarray, delta: float) -> np.ndarray:
    """The root s of SNR when the clock shows u."""
    return delta * np.expm1(math.log1p(delta**-2) * u)


def _bounds_weight(s: np.ndarray, delta: float) -> np.ndarray:
    """What the bound pays for C^2, per unit of the clock."""
    return math.log1p(delta**-2) * ((s + delta / 2) / (1 + s**2)) ** 2


def _shared(k: np.ndarray, right: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Sums at n places of values between places k and k + 1; the latter gets the share `right`."""
    return np.bincount(k, values * (1 - right), n) + np.bincount(k + 1, values * right, n)
