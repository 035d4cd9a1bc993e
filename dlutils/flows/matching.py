r"""Flow matching: pairs of noise and data as weighted nodes, and the regression for any drift.

Flow matching regresses a drift on the velocity $y-x_0$ of the straight path between noise $x_0$ and
data $y$ (Lipman et al. 2023; Liu, Gong & Liu 2023). Which noise goes with which data is free, as
long as both have their own distribution (Pooladian et al. 2023; Tong et al. 2024). On the line the
pairs of optimal transport are those of equal rank, $y=Q(\Phi(x_0))$ with the quantile function $Q$.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from dlutils.arrays import dtype_of
from dlutils.quadrature import gauss_legendre
from dlutils.settings import check_batch, check_choice
from dlutils.training import History, fit

Pairs = tuple[Tensor, Tensor, Tensor]
PENALTIES = 10.0 ** np.arange(-3, 9)  # times the number of points: what a solve chooses from
N_SORTED, N_INDEPENDENT = 600, 4096  # nodes
MOST_TIMES = 8  # as many steps, if fewer would fold the line


def sorted_pairs(y: Tensor) -> Pairs:
    """Noise and data of equal rank: the coupling of optimal transport.

    Neighbouring ranks are put together where neither the rank nor a position changes much: the
    nodes are equally far apart in the mean of all three, each in units of its range.

    Returns:
        Noise, data and weights with sum one, float64, shape `(m,)` each with m up to 600;
        noise and data increase.
    """
    x_0, y, along = _quantile_curve(y)
    cell = np.minimum((along * N_SORTED).astype(int), N_SORTED - 1)
    count = np.bincount(cell)
    mean = lambda values: np.bincount(cell, values)[count > 0] / count[count > 0]
    nodes = mean(x_0), mean(y), count[count > 0] / len(y)
    return tuple(torch.from_numpy(values) for values in nodes)


def independent_pairs(y: Tensor) -> Pairs:
    r"""Noise and data that know nothing of each other: see `sorted_pairs`.

    The ranks of both are a lattice that fills the unit square evenly, $((i+\frac12)/m,\;
    ig\bmod1)$ with the golden ratio $g$; in place of all $n\cdot m$ pairs.

    Source:
        Niederreiter, Random number generation and quasi-Monte Carlo methods (1992), chapter 5.
    """
    i = np.arange(N_INDEPENDENT)
    x_0 = ndtri((i + 0.5) / N_INDEPENDENT)
    rank = (i * (5**0.5 - 1) / 2 + 0.5) % 1
    y = np.sort(y.double().numpy())[(rank * len(y)).astype(int)]
    return tuple(torch.from_numpy(v) for v in (x_0, y, np.full(len(i), 1 / N_INDEPENDENT)))


COUPLINGS: dict[str, Callable[[Tensor], Pairs]] = {
    "independent": independent_pairs,
    "sorted": sorted_pairs,
}


def path_nodes(y: Tensor, coupling: str, n_times: int = 8) -> Tensor:
    """Nodes along the straight paths between paired noise and data: what a drift is regressed on.

    Of data `(n,)`, a coupling in `COUPLINGS`, and Gauss and Legendre's times between 0 and 1.

    Returns:
        States, their times, velocities and weights with sum one, float64, shape `(4, m)`.

    Raises:
        ValueError: If the coupling is unknown.
    """
    check_choice("coupling", coupling, COUPLINGS)
    x_0, x_1, w = COUPLINGS[coupling](y)
    t, w_t = (torch.from_numpy(values)[:, None] for values in gauss_legendre(n_times, 0, 1))
    x, v = torch.lerp(x_0, x_1, t), (x_1 - x_0).expand(n_times, -1)
    return torch.stack([x, t.expand_as(x), v, w_t * w]).flatten(1)


def regress(
    f: nn.Module,
    y: Tensor,
    val: Tensor,
    coupling: str,
    batch_size: int = 2048,
    seed: int = 0,
    **options: object,
) -> History:
    r"""Minimise $E(f(x_t,t)-(y-x_0))^2$ over random batches of nodes, by Adam.

    Args:
        f: Drift, trained in place.
        y: Data, shape `(n,)`.
        val: Validation data.
        coupling: One of `COUPLINGS`.
        batch_size: Nodes an iteration.
        seed: Names the batches.
        options: Of `dlutils.training.fit`, whose history, of minus the mean square, is returned.

    Raises:
        ValueError: If the coupling is unknown, the batch size out of range, or as `fit`.
    """
    check_batch(batch_size)
    dtype = dtype_of(f)
    nodes, at_val = (path_nodes(points, coupling).to(dtype) for points in (y, val))
    random = torch.Generator().manual_seed(int(seed))
    batch = lambda: nodes[:, torch.randint(nodes.shape[1], (batch_size,), generator=random)]
    gain = lambda x, t, v, w: -(w @ (f(x, t) - v).square()) / w.sum()
    options = {"quantity": "minus the mean square"} | options
    return fit(f, lambda: gain(*batch()), lambda: gain(*at_val).item(), **options)


def most_likely(
    candidates: Iterable[nn.Module], log_likelihood: Callable[[nn.Module], float]
) -> tuple[float, nn.Module]:
    """The best value and the drift that has it; those whose steps fold the line are passed over.

    `log_likelihood`, of validation points, raises a `ValueError` where the line is folded; if all
    fold it, so does this.
    """
    found = []
    for f in candidates:
        try:
            with torch.no_grad():
                found.append((log_likelihood(f), f))
        except ValueError as error:
            folds = error
    if not found:
        raise ValueError(f"none of the drifts has a density: {folds}")
    return max(found, key=lambda pair: pair[0])


def in_steps(
    drifts: Sequence[nn.Module],
    value: Callable[[nn.Module, int], float],
    is_map: Callable[[nn.Module, int], object],
    n_steps: int,
) -> tuple[float, nn.Module, int]:
    """The best value, the drift that has it, and how many steps it takes not to fold the line.

    The steps are doubled as long as a drift folds the line that may be better: that has a higher
    value, or bends more than the best, by the next weaker penalty.

    Args:
        drifts: The one that bends most first.
        value: The log-likelihood of validation points in so many steps, as in `most_likely`.
        is_map: A solve everywhere, likewise a `ValueError` where the line is folded.
        n_steps: To begin with; there are `MOST_TIMES` as many at most.

    Raises:
        ValueError: If all drifts fold the line.
    """
    maps: dict[int, tuple[float, int]] = {}
    valid, folds = set(), None
    for n in (n_steps * 2**k for k in range(MOST_TIMES.bit_length())):
        better = {}
        for k in set(range(len(drifts))) - maps.keys():
            try:
                better[k] = value(drifts[k], n)
            except ValueError as error:
                folds = error
        valid |= better.keys()
        for k in sorted(better, key=better.get, reverse=True):
            if maps and better[k] <= max(maps.values())[0]:
                break
            try:
                is_map(drifts[k], n)
                maps[k] = better.pop(k), n
            except ValueError as error:
                folds = error
        if maps:
            best = max(maps, key=maps.get)
            highest = max(better.values(), default=-math.inf)
            if highest <= maps[best][0] and (best == 0 or best - 1 in valid):
                break
    if not maps:
        raise ValueError(f"none of the drifts has a density in up to {n} steps: {folds}")
    value_of_best, n = maps[best]
    return value_of_best, drifts[best], n


@torch.no_grad()
def mean_squares(f: nn.Module, y: Tensor, coupling: str) -> tuple[float, float]:
    """What is left of the regression's loss, and what there was: see `regress`.

    Mean squares over the paths, of the drift minus the velocity and of the velocity itself; y is in
    the drift's units.
    """
    x, t, v, w = path_nodes(y, coupling).to(dtype_of(f))
    return (w @ (f(x, t) - v).square()).item(), (w @ v.square()).item()


def along_quantiles(y: Tensor, n_places: int) -> Tensor:
    """Noise and data of equal rank at places that are equally far apart: see `sorted_pairs`.

    Both ends of the paths, noise and data, float64, shape `(2, n_places)`, increasing.
    """
    x_0, y, along = _quantile_curve(y)
    at = (np.arange(n_places) + 0.5) / n_places
    ends = np.stack([np.interp(at, along, x_0), np.interp(at, along, y)])
    least = 1e-3 * (ends[:, -1:] - ends[:, :1]) / n_places  # ties are moved apart
    return torch.from_numpy(ends + least * np.arange(n_places))


def _quantile_curve(y: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise and data by rank, and how far along: a mean of rank and positions, 0 to 1."""
    y = np.sort(y.double().numpy())
    rank = (np.arange(len(y)) + 0.5) / len(y)
    x_0 = ndtri(rank)
    unit = lambda v: (v - v[0]) / (v[-1] - v[0])
    return x_0, y, (unit(rank) + unit(x_0) + 4 * unit(y)) / 6
