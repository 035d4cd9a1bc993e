r"""The bound of an SDE with optimal noise, maximised over the drift by linear solves.

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
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import solveh_banded
from torch import Tensor, nn

from dlutils.compression import compress
from dlutils.data.own_data import FEW
from dlutils.diffusion.denoisers import DENOISERS
from dlutils.estimators.smoothing import fit
from dlutils.settings import check_choice, check_count

Nodes = tuple[np.ndarray, np.ndarray]  # points, increasing, and weights with sum one, (m,) each

FARTHEST = 6.0  # standard deviations of the noise
PER_NOISE = 8  # points of a grid in one of them, at least
PER_KNOT = 4  # and between neighbouring knots, on average
PER_INTERVAL = 3  # nodes between neighbouring entries on the clock
NEGLIGIBLE = 1e-9  # share of the probability
STRONG = 3.0  # evidence, nats
PENALTIES = tuple(product((1e-4, 1e-3, 1e-2), (1e-5, 1e-3, 1e-1)))  # on curvature and on change


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
        bands: From (d, e) to A between the entries (j, k) and (j + d, k + e), `(J, K)`, zero where
            there is no such entry; d >= 0, and e >= 0 where d = 0. The rest by symmetry.
    """

    constant: float
    linear: np.ndarray
    bands: dict[tuple[int, int], np.ndarray]

    def __call__(self, c: np.ndarray) -> float:
        """The value at entries `(J, K)`."""
        product = 0.0
        for (d, e), band in self.bands.items():
            here, there = _pair(d, e)
            term = (c[here] * band[here] * c[there]).sum()
            product += term if (d, e) == (0, 0) else 2 * term
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
        lower = np.zeros((1 + max(d * K + e for d, e in self.bands), J * K))
        for (d, e), band in self.bands.items():
            lower[d * K + e] += band.ravel()
        return solveh_banded(lower, self.linear.ravel(), lower=True).reshape(J, K)


@dataclass(frozen=True)
class Solution:
    """A denoiser and the table that corrects it; printed, it says what was chosen.

    Attributes:
        denoiser: One of `dlutils.diffusion.denoisers`.
        table: All zero if there is no correction.
        delta: Of the path.
        penalties: On the table's curvature and change; None if there is no correction.
        bound: On the points that chose the penalties, nats, for standardized data; None if nothing
            was chosen.
        evidence: The bound on all points together less the parameters, nats; None likewise.
        seconds: That it took to find it.
    """

    denoiser: nn.Module
    table: Table
    delta: float
    penalties: tuple[float, float] | None
    bound: float | None = None
    evidence: float | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        how = "not corrected"
        if self.penalties:
            how = "corrected, penalties {:g} and {:g}".format(*self.penalties)
        return f"{self.denoiser}, {how}, delta {self.delta:g}"


@dataclass(frozen=True)
class Sample:
    """What a table is fitted to, and what judges it: standardized points with weights.

    Attributes:
        nodes: The smooth density of the training data, or these themselves.
        parameters: The effective number of that density's.
        val: Validation points, if they judge.
        n_val: What they count in all; zero if they do not.
        train: Training points, if they judge too.
        n_train: What they count in all; zero if they do not.
    """

    nodes: Nodes
    parameters: float = 0.0
    val: Nodes | None = None
    n_val: float = 0
    train: Nodes | None = None
    n_train: float = 0


def search(
    y: Tensor,
    val: Tensor,
    delta: float = 0.01,
    preconditioning: str = "best",
    *,
    smooth: bool = True,
    weights: Tensor | None = None,
    val_weights: Tensor | None = None,
    penalties: Sequence[tuple[float, float]] = PENALTIES,
    most_halvings: int = 3,
    n_knots: int = 400,
    n_times: int = 24,
    n_bins: int = 400,
) -> Solution:
    """The denoiser, its correction and delta, chosen by the exact bound.

    The penalties are chosen by the bound on the validation points. For all else one rule holds:
    what is more must be strongly preferred, by three nats, by all points together, of which the
    training points count less the effective number of parameters (Akaike's criterion). A table that
    gains less is left at zero; delta is halved as long as that gains enough; and a corrected
    Gaussian takes the place of a mixture, at the same delta, if it is so much better.

    With one pair of penalties and one denoiser nothing is chosen: delta is what is given, the table
    is not zero, and the validation points are not looked at. If the table is fitted to the data
    themselves, the number of its parameters is not known, and the validation points alone choose.
    Without validation points the training points choose the penalties too: the table is fitted to
    the smooth density and not to them.

    Args:
        y: Training data, standardized, shape `(n,)`.
        val: Validation data, standardized in the same way; may be empty.
        delta: The largest to try.
        preconditioning: "gaussian", "mixture", or "best", the better one of the two.
        smooth: To fit the smooth density of `dlutils.estimators.smoothing`, or the data themselves.
        weights: What the training points count, `(n,)`; None for one each.
        val_weights: What the validation points count.
        penalties: Factors of `curvature` and of `change`.
        most_halvings: Of delta.
        n_knots: Of the table.
        n_times: Its entries on the clock.
        n_bins: Of the smooth density.

    Raises:
        ValueError: If the preconditioning is unknown, a number is out of range, there are no
            penalties, or no validation points where they alone choose.

    Source:
        Akaike, A new look at the statistical model identification (1974); Kass & Raftery, Bayes
        factors (1995), for three nats.
    """
    start = time.perf_counter()
    check_choice("preconditioning", preconditioning, ["best", *DENOISERS])
    for label, count, least in (
        ("most_halvings", most_halvings, 0), ("n_knots", n_knots, 3), ("n_bins", n_bins, 50)
    ):  # fmt: skip
        check_count(label, count, least)
    _check(delta, penalties)
    names = ["mixture", "gaussian"] if preconditioning == "best" else [preconditioning]
    if smooth:
        nodes, parameters = smooth_nodes(y, n_bins, weights=weights)
    else:
        nodes, parameters = data_nodes(y, weights), 0.0
    count = lambda points, w: len(points) if w is None else w.sum().item()
    sample = Sample(nodes, parameters)
    if len(names) * len(penalties) > 1:
        if len(val):
            judged = data_nodes(val, val_weights)
            sample = replace(sample, val=judged, n_val=count(val, val_weights))
        elif not smooth:
            raise ValueError("without validation points nothing can be chosen, unless smooth=True")
        if smooth:
            sample = replace(sample, train=data_nodes(y, weights), n_train=count(y, weights))
    table = Table(knots_for(*nodes, n_knots), n_times)
    at = lambda denoiser, delta: solve(table, denoiser, sample, delta, penalties)
    best = preferred(at(DENOISERS[names[0]](y, weights), delta))
    for _ in range(most_halvings if sample.val or sample.train else 0):
        before, best = best, preferred([best, *at(best.denoiser, best.delta / 2)])
        if best is before:
            break
    others = [
        solution for name in names[1:] for solution in at(DENOISERS[name](y, weights), best.delta)
    ]
    chosen = preferred([best, *others])
    return replace(chosen, seconds=time.perf_counter() - start)


def preferred(solutions: Sequence[Solution]) -> Solution:
    """The first, unless there is strong evidence for a later one."""
    best, *rest = solutions
    for solution in rest:
        if solution.evidence > best.evidence + STRONG:
            best = solution
    return best


def solve(
    table: Table,
    denoiser: nn.Module,
    sample: Sample,
    delta: float,
    penalties: Sequence[tuple[float, float]] = PENALTIES,
) -> list[Solution]:
    """The table that raises the bound most, one linear solve for each pair of penalties.

    Args:
        table: Its knots and its number of entries.
        denoiser: What it corrects.
        sample: Training data, and what judges.
        delta: Of the path.
        penalties: To choose from, by the validation points, or the training points without them.

    Returns:
        The denoiser without a correction, and with the best one; only the latter, with the first
        penalties, where nothing judges.
    """
    judges = [data for data in (sample.val, sample.train) if data]
    loss, *losses = diffusion_terms(table, [sample.nodes, *judges], delta, denoiser)
    bends, moves = curvature(table, delta), change(table, delta)
    solved = lambda p, q: (loss + p * bends + q * moves).minimum()
    rest = -math.log(delta) - (1 + math.log(2 * math.pi)) / 2  # of the bound, whatever the data

    def solution(entries: np.ndarray, pair, parameters: float) -> Solution:
        corrected = Table(table.knots, table.c.shape[1])
        with torch.no_grad():
            corrected.c.copy_(torch.from_numpy(entries))
        if not judges:
            return Solution(denoiser, corrected, delta, pair)
        bounds = [rest - lost(entries) for lost in losses]
        all_points = np.dot([n for n in (sample.n_val, sample.n_train) if n], bounds)
        evidence = float(all_points) - (parameters if sample.train else 0)
        return Solution(denoiser, corrected, delta, pair, bounds[0], evidence)

    if not judges:
        return [solution(solved(*penalties[0]), tuple(penalties[0]), 0)]
    tables = {tuple(pair): solved(*pair) for pair in penalties}
    pair = min(tables, key=lambda pair: losses[0](tables[pair]))
    plain = solution(np.zeros(table.c.shape), None, price(denoiser.n_parameters, sample.n_train))
    return [plain, solution(tables[pair], pair, price(sample.parameters, sample.n_train))]


def price(n_parameters: float, n: float) -> float:
    """What parameters cost in Akaike's criterion, nats; below a hundred points as corrected.

    Source:
        Hurvich & Tsai, Regression and time series model selection in small samples (1989).
    """
    if n >= FEW:
        return n_parameters
    return n_parameters * n / (n - n_parameters - 1) if n > n_parameters + 1 else math.inf


def diffusion_terms(
    table: Table, data: Sequence[Nodes], delta: float, denoiser: nn.Module
) -> list[Quadratic]:
    r"""What the bound of an SDE with optimal noise loses by its drift, nats, a mean over the data.

    On the clock Gauss and Legendre's rule between the table's entries. At each of its nodes the
    density of $g=sy+\epsilon$, and that times $\mathrm E[y\mid g]$, on a grid by convolution.

    Args:
        table: Its knots and its number of entries.
        data: Standardized points and weights, once or several times.
        delta: Of the path.
        denoiser: What the table corrects.

    Returns:
        One for each of the data.
    """
    knots, (J, K) = table.knots.double().numpy(), table.c.shape
    v, w_v = np.polynomial.legendre.leggauss(PER_INTERVAL)
    v = (np.arange(K - 1)[:, None] + (v + 1) / 2).ravel()  # on the clock, in units of its entries
    s = root_snr(v / (K - 1), delta)
    weight = _bounds_weight(s, delta) / (K - 1) * np.tile(w_v / 2, K - 1)
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
        hats = lambda values, j=j, at=at: (
            np.bincount(j, values * (1 - at), J) + np.bincount(j + 1, values * at, J)
        )
        for i, (p, p_y) in enumerate(mass):
            inner = np.bincount(j, p * at * (1 - at), J)
            gram[i, 1, q] = inner
            gram[i, 0, q] = hats(p)
            gram[i, 0, q] -= inner + np.roll(inner, 1)
            linear[i, q] = c_2 * hats(p_y - p * known)
            error = second_moments[i] - (2 * p_y - p * known) @ known
            constant[i] += weight[q] * c_2**2 * error
    hats = np.maximum(0, 1 - np.abs(v[:, None] - np.arange(K)))  # (nodes on the clock, K)
    same, next_ = (weight[:, None] * hats * np.roll(hats, -e, axis=1) for e in (0, 1))
    next_[:, -1] = 0
    terms = []
    for A, b, value in zip(gram, linear, constant, strict=True):
        bands = {(d, 0): A[d].T @ same for d in (0, 1)} | {(d, 1): A[d].T @ next_ for d in (0, 1)}
        bands[1, -1] = np.roll(bands[1, 1], 1, axis=1)
        terms.append(Quadratic(float(value), b.T @ (weight[:, None] * hats), bands))
    return terms


def noisy(data: Sequence[Nodes], s: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    r"""The distribution of $g=sy+\epsilon$ on a grid.

    Points are shared by their two neighbours on the grid, which spreads them by a variance of a
    sixth of its squared step; the noise is narrower by as much.

    Args:
        data: Points y and weights, once or several times.
        s: Factor of y.
        step: Of the grid, at most one.

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
        for values, out in ((w, share[0]), (w * y, share[1])):
            out[:] = np.bincount(k, values * (1 - at), m) + np.bincount(k + 1, values * at, m)
    frequency = 2 * np.pi / (m * step) * np.arange(m // 2 + 1)
    blur = np.exp(-(frequency**2) * (1 - step**2 / 6) / 2)
    return low + step * np.arange(m), irfft(rfft(shares) * blur, m)


def smooth_nodes(
    y: Tensor, n_bins: int = 400, per_bin: int = 10, *, weights: Tensor | None = None
) -> tuple[Nodes, float]:
    """The smooth density of `dlutils.estimators.smoothing` as weighted points, close to each other.

    Args:
        y: Data, standardized, shape `(n,)`.
        n_bins: Of the smooth density.
        per_bin: Points in each of them.
        weights: What the data count, `(n,)`; None for one each.

    Returns:
        The points with their weights, and the density's effective number of parameters.
    """
    x, log_p, parameters = fit(y, n_bins, weights=weights)
    k = np.arange(len(x))
    edges = np.interp(np.linspace(0, k[-1], per_bin * k[-1] + 1), k, x)
    middle = (edges[1:] + edges[:-1]) / 2
    mass = np.diff(edges) * np.exp(np.interp(middle, x, log_p))
    mass /= mass.sum()
    kept = mass > NEGLIGIBLE
    return (middle[kept], mass[kept]), parameters


def data_nodes(y: Tensor, weights: Tensor | None = None, n_bins: int = 2500) -> Nodes:
    """The data themselves, compressed if they are many: see `dlutils.compression.compress`.

    Args:
        y: Data, standardized, shape `(n,)`.
        weights: What they count, `(n,)`; None for one each.
        n_bins: Half as many as the points, at most.
    """
    y, counts = y.double(), torch.ones(len(y)) if weights is None else weights
    if len(y) > 2 * n_bins:
        y, counts = compress(y, n_bins, weights)
    points, order = y.sort()
    points, counts = points.numpy(), counts[order].double().numpy()
    return points, counts / counts.sum()


def knots_for(y: np.ndarray, weights: np.ndarray, n_knots: int = 400) -> Tensor:
    """Places equally far apart in the mean of rank and position, over the noise and the data.

    Args:
        y: Standardized data, increasing, shape `(m,)`.
        weights: Their weights with sum one, `(m,)`.
        n_knots: How many places.

    Returns:
        Increasing, shape `(n_knots,)`.
    """
    low, high = min(-4.0, y[0]), max(4.0, y[-1])
    at = np.concatenate([[low - 1e-3], y, [high + 1e-3]])
    rank = np.concatenate([[0], weights.cumsum() - weights / 2, [1]])
    along = (rank + (at - at[0]) / (at[-1] - at[0])) / 2
    knots = np.interp(np.linspace(0, 1, n_knots), along, at)
    return torch.from_numpy(knots)


def root_snr(u: np.ndarray, delta: float) -> np.ndarray:
    """The root s of SNR when the clock shows u."""
    return delta * np.expm1(math.log1p(delta**-2) * u)


def curvature(table: Table, delta: float) -> Quadratic:
    r"""The integral of $(\partial_z^2C)^2$ in units that make it dimensionless everywhere.

    The weight in u is the bound's, times the fourth power of the noise in z: its factor says how
    wide, in units of the noise, a bend has to be to be believed.

    Args:
        table: Its knots and its number of entries.
        delta: Of the path.
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
        bands[d, 0] = np.outer(band, weight)
    return Quadratic(0.0, np.zeros((J, K)), bands)


def change(table: Table, delta: float) -> Quadratic:
    """The integral over z of the squared differences between neighbours on the clock.

    With a thousandth of the squared entries, so that the two penalties together are positive
    definite. The weight is the bound's.

    Args:
        table: Its knots and its number of entries.
        delta: Of the path.
    """
    (J, K), width = table.c.shape, np.gradient(table.knots.double().numpy())
    weight = _bounds_weight(root_snr(np.linspace(0, 1, K), delta), delta) / (K - 1)
    between = np.append((weight[1:] + weight[:-1]) / 2, 0)
    own = between + np.roll(between, 1) + 1e-3 * weight
    bands = {(0, 0): np.outer(width, own), (0, 1): -np.outer(width, between)}
    return Quadratic(0.0, np.zeros((J, K)), bands)


def _check(delta: float, penalties: Sequence[tuple[float, float]]) -> None:
    """Raise a `ValueError` that names a value that is out of range."""
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, not {delta!r}")
    if len(penalties) == 0:
        raise ValueError("at least one pair of penalties is needed")
    if np.shape(penalties)[1:] != (2,) or not np.min(penalties) > 0:
        raise ValueError(f"penalties must be pairs of positive numbers, not {penalties!r}")


def _bounds_weight(s: np.ndarray, delta: float) -> np.ndarray:
    """What the bound pays for C^2, per unit of the clock."""
    return math.log1p(delta**-2) * ((s + delta / 2) / (1 + s**2)) ** 2


def _pair(d: int, e: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the entries that have a neighbour (d, e), and of these neighbours."""
    here = tuple(slice(None, -n) if n > 0 else slice(-n, None) for n in (d, e))
    there = tuple(slice(n, None) if n > 0 else slice(None, n or None) for n in (d, e))
    return here, there
