r"""The density of a stochastic differential equation on the line, by the Fokker-Planck equation.

For $dx=f(x,t)\,dt+\sigma(x,t)\,dW$ (Itô) the density of $x_t$ obeys
$$\partial_tp=-\partial_xJ,\qquad J=fp-\partial_x(Dp),\qquad D=\tfrac12\sigma^2.$$
In one dimension that is a small linear system per time step, so the density that a trained model
*really has* costs about a second, whatever bound it was trained with.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.linalg import solve_banded
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.distributions import Normal

from dlutils.processes import few_threads
from dlutils.settings import check_count, check_points

Coefficient = Callable[[Tensor, Tensor], Tensor]

CACHED_POINTS = 1 << 14  # points at which the coefficients are evaluated together
MOST_CELLS = 100_000
ATTEMPTS = 5  # to find a grid
EDGE_MASS = 1e-5  # what a hundredth of the support may hold at the density of its ends
MASS_ERROR = 1e-3  # what the initial density may lack on the grid
LARGEST_RATIO = np.e**2  # of the density in neighbouring cells, where it matters
PER_NOISE = 1.5  # cells per standard deviation of the observation noise, at least


class SupportError(ValueError):
    """Probability reaches the ends of the support: the density does not fit into it."""


class ResolutionError(ValueError):
    """The density changes too fast for the cells."""


@few_threads
def solve(
    f: Coefficient,
    sigma: Coefficient,
    p0: Callable[[Tensor], Tensor],
    support: tuple[float, float],
    n_cells: int = 2000,
    n_steps: int = 500,
    warp: Callable[[Tensor], Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Density of x_t for dx = f dt + sigma dW from t = 0 to 1, on equal cells.

    In space the flux between two cells is that of the stationary problem with frozen coefficients,
    with Bernoulli's function $B(z)=z/(e^z-1)$ and $z=hf/D$ at the face:
    $$J_{i+1/2}=\frac1h\big(B(-z)\,D_ip_i-B(z)\,D_{i+1}p_{i+1}\big);$$
    in time each step is implicit, $(1-\Delta t\,A(t_{n+1}))\,p_{n+1}=p_n$. So the density stays
    positive, and its mass the same to rounding errors; the error is of second order in the cells'
    width and of first in the steps'. Nothing flows through the ends of the support.

    Args:
        f: Drift, called with states and times, both of shape `(n,)`.
        sigma: Diffusion coefficient, called likewise; positive.
        p0: Density of x_0, called with states of shape `(n,)`.
        support: Interval `(low, high)`.
        n_cells: Number of cells, at least 10.
        n_steps: Number of time steps, at least 1.
        warp: Increasing map from [0, 1] to time: step n ends at `warp(n / n_steps)`. None for equal
            steps. More steps belong where the coefficients change fast.
        dtype: In which `f` and `sigma` are evaluated; None for double precision.

    Returns:
        times, shape `(n_steps + 1,)`; centres x of the cells, shape `(n_cells,)`; density, shape
        `(n_steps + 1, n_cells)`; all float64.

    Raises:
        SupportError: If probability reaches the ends of the support.
        ResolutionError: If the density at t = 1 changes too fast for the cells.
        ValueError: If an argument is out of range, a coefficient is not finite, or sigma is not
            positive. The two errors above are of this kind too.

    Source:
        Scharfetter & Gummel, Large-signal analysis of a silicon Read diode oscillator (1969);
        Chang & Cooper, A practical difference scheme for Fokker-Planck equations (1970).
    """
    low, high = support
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"support must be (low, high) with low < high, not {support!r}")
    check_count("n_cells", n_cells, 10)
    check_count("n_steps", n_steps)
    share = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64)
    times = (share if warp is None else warp(share)).numpy()
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise ValueError("warp must be increasing and finite on [0, 1]")

    faces, h = np.linspace(low, high, n_cells + 1, retstep=True)
    x = (faces[1:] + faces[:-1]) / 2
    density = np.empty((n_steps + 1, n_cells))
    density[0] = _initial(p0, x, h)
    chunk = max(1, CACHED_POINTS // n_cells)
    for start in range(0, n_steps, chunk):
        t, dt = (values[start : start + chunk] for values in (times[1:], np.diff(times)))
        D = 0.5 * _evaluate(sigma, "sigma must be positive and finite", x, t, dtype, 0) ** 2
        F = _evaluate(f, "f must be finite", faces[1:-1], t, dtype)
        z = 2 * h * F / (D[:, :-1] + D[:, 1:])
        right = _bernoulli(-z) * D[:, :-1] / h**2  # rate from cell i to cell i + 1
        left = _bernoulli(z) * D[:, 1:] / h**2  # and back
        for k in range(len(t)):
            step = dt[k] * right[k], dt[k] * left[k]
            density[start + k + 1] = _implicit_step(density[start + k], *step)
    _check(times, x, h, density)
    return times, x, density


@dataclass
class Evolution:
    """p(x, t) from N(0, 1) on, observed at t = 1 with noise; solved when it is first asked for.

    The equation is solved on [-reach, reach] with two cells to `sigma_y`; where the density does
    not fit, the interval is doubled or the cells are halved, up to four times.

    Raises:
        SupportError: By what asks first, if the density does not fit in the end.
        ResolutionError: Likewise, if it changes too fast in the end.
        ValueError: Likewise, if it would take more than `MOST_CELLS` cells.
    """

    f: Coefficient  # see `solve`, as sigma, n_steps, warp and dtype
    sigma: Coefficient
    reach: float  # where to try first; positive
    sigma_y: float  # standard deviation of the observation noise; positive
    n_steps: int = 400
    warp: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype | None = None

    @cached_property
    def marginals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times, states and p(x, t): what `solve` returns."""
        return self._solve(self.n_steps)

    @cached_property
    def _coarse(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Likewise, with half as many steps and twice the error in time."""
        return self._solve(max(1, self.n_steps // 2))

    def log_density(self, y: np.ndarray) -> np.ndarray:
        """Log p(y) in nats, `(n,)`, to second order in time by Richardson's extrapolation.

        Raises:
            ValueError: If a point is NaN.
        """
        check_points(torch.as_tensor(y))
        fine, coarse = (
            log_density(x, observed(x, p[-1], self.sigma_y), y)
            for _, x, p in (self.marginals, self._coarse)
        )
        with np.errstate(invalid="ignore"):  # outside, where both are -inf
            return np.where(np.isfinite(fine), 2 * fine - coarse, fine)

    def _solve(self, n_steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        prior = lambda x: Normal(0.0, 1.0).log_prob(x).exp()
        reach, cells_per_noise, failed = self.reach, 2, None
        for _ in range(ATTEMPTS):
            n_cells = math.ceil(2 * reach * cells_per_noise / self.sigma_y)
            if n_cells > MOST_CELLS:
                raise ValueError(
                    f"the grid must keep to {MOST_CELLS:,} cells, and {n_cells:,} would be needed "
                    f"for x from {-reach:g} to {reach:g}: the data reach over too many of their "
                    "standard deviations; see dlutils.estimators.coordinates"
                )
            how = n_cells, n_steps, self.warp, self.dtype
            try:
                return solve(self.f, self.sigma, prior, (-reach, reach), *how)
            except SupportError as error:
                reach, cells_per_noise, failed = 2 * reach, 2, error
            except ResolutionError as error:
                cells_per_noise, failed = 2 * cells_per_noise, error
        raise failed


def observed(x: np.ndarray, density: np.ndarray, sigma_y: float) -> np.ndarray:
    """Density of y = x + sigma_y * noise from the density of x on equal cells, shape `(n_cells,)`.

    Raises:
        ValueError: If `sigma_y` is not positive, or the cells are too coarse for it.
    """
    if not 0 < sigma_y < np.inf:
        raise ValueError(f"sigma_y must be positive, not {sigma_y!r}")
    h = x[1] - x[0]
    if h * PER_NOISE > sigma_y:
        least = math.ceil(len(x) * h * PER_NOISE / sigma_y)
        raise ValueError(
            f"cells of width {h:.3g} are too coarse for sigma_y = {sigma_y:g}: "
            f"raise n_cells to {least} or more"
        )
    return gaussian_filter1d(density, sigma_y / h, mode="constant", truncate=8)


def log_density(x: np.ndarray, density: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Logarithm of a density at y, by a cubic spline through its logarithm at the cells' centres.

    -inf outside the cells, where there is no probability.
    """
    log_p = CubicSpline(x, np.log(np.maximum(density, 1e-300)))(y)
    return np.where((y < x[0]) | (y > x[-1]), -np.inf, log_p)


def _initial(p0: Callable[[Tensor], Tensor], x: np.ndarray, h: float) -> np.ndarray:
    p = p0(torch.from_numpy(x)).double().numpy()
    mass = h * p.sum()
    if not (abs(mass - 1) <= MASS_ERROR and (p >= 0).all()):
        raise ValueError(
            f"the initial density must not be negative, and its mass is {mass:.4f} on {len(x)} "
            f"cells from {x[0] - h / 2:g} to {x[-1] + h / 2:g}: widen the support, or raise n_cells"
        )
    return p / mass


def _evaluate(
    function: Coefficient,
    demand: str,
    x: np.ndarray,
    t: np.ndarray,
    dtype: torch.dtype | None,
    above: float = -np.inf,
) -> np.ndarray:
    """A coefficient at all x for all t, shape (len(t), len(x))."""
    dtype = dtype or torch.float64
    states = torch.from_numpy(np.tile(x, len(t))).to(dtype)
    at = torch.from_numpy(np.repeat(t, len(x))).to(dtype)
    with torch.no_grad():
        values = function(states, at).double().numpy(force=True)
    right = (above < values) & (values < np.inf)
    if not right.all():
        first = int(right.argmin())
        where = f"x = {states[first]:.4g}, t = {at[first]:.4g}"
        raise ValueError(f"{demand}: it is {values[first]:g} at {where}")
    return values.reshape(len(t), len(x))


def _bernoulli(z: np.ndarray) -> np.ndarray:
    """The function z / (exp(z) - 1), smooth at zero."""
    z = np.clip(z, -700, 700)
    small = np.abs(z) < 1e-5
    safe = np.where(small, 1.0, z)
    return np.where(small, 1 - z / 2, safe / np.expm1(safe))


def _implicit_step(p: np.ndarray, right: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Solve (1 - dt A) p' = p, where cell i loses right[i] p'[i] and gets left[i] p'[i + 1]."""
    bands = np.zeros((3, len(p)))
    bands[1] = 1
    bands[1, :-1] += right
    bands[1, 1:] += left
    bands[0, 1:] = -left
    bands[2, :-1] = -right
    return solve_banded((1, 1), bands, p, overwrite_ab=True, check_finite=False)


def _check(times: np.ndarray, x: np.ndarray, h: float, density: np.ndarray) -> None:
    """Say where the support is too narrow or the cells are too coarse."""
    at_ends = 0.01 * h * len(x) * np.maximum(density[:, 0], density[:, -1])
    if at_ends.max() > EDGE_MASS:
        n = int((at_ends > EDGE_MASS).argmax())
        raise SupportError(
            f"the support from {x[0] - h / 2:.4g} to {x[-1] + h / 2:.4g} is too narrow: at "
            f"t = {times[n]:.3g} the density is {density[n, 0]:.1e} and {density[n, -1]:.1e} there"
        )
    p = density[-1]
    a, b = np.minimum(p[1:], p[:-1]), np.maximum(p[1:], p[:-1])
    steep = (b > LARGEST_RATIO * a) & (b > 1e-2 * p.max())
    if steep.any():
        i = int(steep.argmax())
        raise ResolutionError(
            f"{len(x)} cells are too coarse: at t = 1 the density changes from {p[i]:.3g} to "
            f"{p[i + 1]:.3g} between neighbours at x = {x[i]:.4g}; raise n_cells"
        )
