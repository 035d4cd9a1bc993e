r"""The bound of an SDE with optimal noise, maximised over the drift by linear solves.

The drift is that of a denoiser with a `dlutils.diffusion.quadratic.Table` that corrects it. The
bound is quadratic in the table's entries; penalties, denoiser and delta are chosen by its value.
"""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.linalg import LinAlgError
from torch import Tensor, nn

from dlutils.compression import compress
from dlutils.data.own_data import FEW
from dlutils.diffusion.denoisers import DENOISERS
from dlutils.diffusion.quadratic import Nodes, Table, change, curvature, diffusion_terms
from dlutils.estimators.smoothing import fit
from dlutils.processes import limited
from dlutils.settings import check_choice, check_count

NEGLIGIBLE = 1e-9  # share of the probability
STRONG = 3.0  # evidence, nats
MOST_HALVINGS = 3  # of delta
PER_BIN = 10  # points of a smooth density in each of its bins
BINS_PER_PARAMETER = 4  # of a smooth density, at least
FINEST = 4  # how many bins are made of one for that, at most
MOST_NODES = 5000  # of the data themselves, before they are compressed to half as many
PENALTIES = tuple(product((1e-4, 1e-3, 1e-2), (1e-5, 1e-3, 1e-1)))  # on curvature and on change


@dataclass(frozen=True)
class Solution:
    """A denoiser and the table that corrects it; printed, it says what was chosen."""

    denoiser: nn.Module
    table: Table  # all zero if there is no correction
    delta: float
    penalties: tuple[float, float] | None  # on curvature and change; None without a correction
    bound: float | None = None  # nats, standardized; on what chose the penalties, None if nothing
    evidence: float | None = None  # that on all points together less the parameters, nats
    seconds: float = 0.0  # that it took to find it

    def __str__(self) -> str:
        how = "not corrected"
        if self.penalties:
            how = "corrected, penalties {:g} and {:g}".format(*self.penalties)
        return f"{self.denoiser}, {how}, delta {self.delta:g}"


@dataclass(frozen=True)
class Sample:
    """What a table is fitted to, and what judges it: standardized points with weights."""

    nodes: Nodes  # the smooth density of the training data, or these themselves
    parameters: float = 0.0  # effective number of that density's
    val: tuple[Nodes, float] | None = None  # validation points, if they judge; their number
    train: tuple[Nodes, float] | None = None  # training points likewise


@limited()
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

    A sample of many heaps or narrow peaks says more than the bins can hold: they are halved, and
    the knots too, until there are four for each of the smooth density's parameters, twice at most.

    With one pair of penalties and one denoiser nothing is chosen: delta and bins are what is given,
    the table is not zero, and the validation points are not looked at. If the table is fitted to
    the data themselves, the number of its parameters is not known, and the validation points alone
    choose. Without validation points the training points choose the penalties too: the table is
    fitted to the smooth density and not to them.

    Args:
        y: Training data, standardized, shape `(n,)`.
        val: Validation data, standardized in the same way; may be empty.
        delta: The largest to try.
        preconditioning: "gaussian", "mixture", or "best", the better one of the two.
        smooth: To fit the smooth density of `dlutils.estimators.smoothing`, or the data themselves.
        weights: What the training points count, `(n,)`; None for one each.
        val_weights: What the validation points count.
        penalties: Factors of `curvature` and of `change`.
        n_knots: Of the table, at most, where the bins are not halved.
        n_times: Its entries on the clock.
        n_bins: Of the smooth density, at first.

    Raises:
        ValueError: If the preconditioning is unknown, a number is out of range, there are no
            penalties, or no validation points where they alone choose, or delta is so small that
            no solve succeeds.

    Source:
        Akaike, A new look at the statistical model identification (1974); Kass & Raftery, Bayes
        factors (1995), for three nats.
    """
    start = time.perf_counter()
    check_choice("preconditioning", preconditioning, ["best", *DENOISERS])
    check_count("n_knots", n_knots, 3)
    check_count("n_bins", n_bins, 50)
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, not {delta!r}")
    if np.shape(penalties)[1:] != (2,) or not np.min(penalties) > 0:
        raise ValueError(f"penalties must be pairs of positive numbers, not {penalties!r}")
    first, *others = ["mixture", "gaussian"] if preconditioning == "best" else [preconditioning]
    chosen, finer = bool(others) or len(penalties) > 1, 1
    if chosen and not smooth and not len(val):
        raise ValueError("without validation points nothing can be chosen, unless smooth=True")
    if smooth:
        sample = Sample(*smooth_nodes(y, n_bins, weights=weights))
        while chosen and finer < FINEST and BINS_PER_PARAMETER * sample.parameters > finer * n_bins:
            finer *= 2
            sample = Sample(*smooth_nodes(y, finer * n_bins, weights=weights))
    else:
        sample = Sample(data_nodes(y, weights)[0])
    if chosen and len(val):
        sample = replace(sample, val=data_nodes(val, val_weights))
    if chosen and smooth:
        sample = replace(sample, train=data_nodes(y, weights))
    table = Table(knots_for(*sample.nodes, finer * n_knots, delta / 2**MOST_HALVINGS), n_times)
    at = lambda name: DENOISERS[name](y, weights)
    solved = lambda denoiser, delta: solve(table, denoiser, sample, delta, penalties)
    best = preferred(solved(at(first), delta))
    for _ in range(MOST_HALVINGS if chosen else 0):
        before, best = best, preferred([best, *solved(best.denoiser, best.delta / 2)])
        if best is before:
            break
    for name in others:
        best = preferred([best, *solved(at(name), best.delta)])
    return replace(best, seconds=time.perf_counter() - start)


def preferred(solutions: Sequence[Solution]) -> Solution:
    """The first, unless there is strong evidence for a later one."""
    best, *rest = solutions
    for solution in rest:
        if solution.evidence > best.evidence + STRONG:
            best = solution
    return best


@limited()
def solve(
    table: Table,
    denoiser: nn.Module,
    sample: Sample,
    delta: float,
    penalties: Sequence[tuple[float, float]] = PENALTIES,
) -> list[Solution]:
    """The table that raises the bound most, one linear solve for each pair of penalties.

    The validation points choose among these, or the training points without them. Of the given
    table only the knots and the number of entries matter. What is returned is the denoiser without
    a correction, and with the best one; only the latter, with the first penalties, where nothing
    judges.
    """
    judges = [judge for judge in (sample.val, sample.train) if judge]
    data = [sample.nodes, *(nodes for nodes, _ in judges)]
    loss, *losses = diffusion_terms(table, data, delta, denoiser)
    bends, moves = curvature(table, delta), change(table, delta)
    rest = -math.log(delta) - (1 + math.log(2 * math.pi)) / 2  # of the bound, whatever the data

    def solution(entries: np.ndarray, pair, parameters: float) -> Solution:
        corrected = Table(table.knots, table.c.shape[1])
        corrected.c.data.copy_(torch.from_numpy(entries))
        if not judges:
            return Solution(denoiser, corrected, delta, pair)
        bounds = [rest - lost(entries) for lost in losses]
        evidence = float(np.dot([n for _, n in judges], bounds))
        evidence -= price(parameters, sample.train[1]) if sample.train else 0
        return Solution(denoiser, corrected, delta, pair, bounds[0], evidence)

    tables = {}
    for p, q in penalties if judges else penalties[:1]:
        with suppress(LinAlgError):
            tables[p, q] = (loss + p * bends + q * moves).minimum()
    if not tables:
        raise ValueError(
            f"delta must be larger than {delta:g}, or n_knots smaller than {len(table.knots)}: "
            "with knots so close to each other double precision cannot solve the equations"
        )
    pair = min(tables, key=lambda pair: losses[0](tables[pair]) if judges else 0.0)
    corrected = solution(tables[pair], pair, sample.parameters)
    if not judges:
        return [corrected]
    return [solution(np.zeros(table.c.shape), None, denoiser.n_parameters), corrected]


def price(n_parameters: float, n: float) -> float:
    """What parameters cost in Akaike's criterion, nats; below a hundred points as corrected.

    Source:
        Hurvich & Tsai, Regression and time series model selection in small samples (1989).
    """
    if n >= FEW:
        return n_parameters
    return n_parameters * n / (n - n_parameters - 1) if n > n_parameters + 1 else math.inf


def smooth_nodes(
    y: Tensor, n_bins: int = 400, *, weights: Tensor | None = None
) -> tuple[Nodes, float]:
    """The smooth density of `dlutils.estimators.smoothing` as weighted points, close to each other.

    And the density's effective number of parameters. Of the standardized data y, `(n,)`, which
    count as their weights say.
    """
    x, log_p, parameters = fit(y, n_bins, weights=weights)
    k = np.arange(len(x))
    edges = np.interp(np.linspace(0, k[-1], PER_BIN * k[-1] + 1), k, x)
    middle = (edges[1:] + edges[:-1]) / 2
    mass = np.diff(edges) * np.exp(np.interp(middle, x, log_p))
    mass /= mass.sum()
    kept = mass > NEGLIGIBLE
    return (middle[kept], mass[kept]), parameters


def data_nodes(y: Tensor, weights: Tensor | None = None) -> tuple[Nodes, float]:
    """The standardized data themselves, compressed if they are many; and what they count in all."""
    y, counts = y.double(), torch.ones(len(y)) if weights is None else weights
    n = counts.sum().item()
    if len(y) > MOST_NODES:
        y, counts = compress(y, MOST_NODES // 2, weights)
    points, order = y.sort()
    points, counts = points.numpy(), counts[order].double().numpy()
    return (points, counts / counts.sum()), n


def knots_for(y: np.ndarray, weights: np.ndarray, n_knots: int = 400, least: float = 0.0) -> Tensor:
    """Places equally far apart in the mean of rank and position, over the noise and the data.

    Of standardized data y, increasing, and their weights with sum one, `(m,)` each. There are less
    than `n_knots` where they would be nearer to each other than `least`: what is finer than the
    noise of the observation is not seen, and bends over it have no finite price.
    """
    low, high = min(-4.0, y[0]), max(4.0, y[-1])
    at = np.concatenate([[low - 1e-3], y, [high + 1e-3]])
    rank = np.concatenate([[0], weights.cumsum() - weights / 2, [1]])
    along = (rank + (at - at[0]) / (at[-1] - at[0])) / 2
    knots = [at[0]]
    for knot in np.interp(np.linspace(0, 1, n_knots), along, at)[1:]:
        if knot - knots[-1] >= least:
            knots.append(knot)
    return torch.tensor(knots, dtype=torch.float64)
