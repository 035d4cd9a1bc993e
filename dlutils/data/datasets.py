"""One-dimensional data with an exact density, and a user's own sample.

`make_dataset` simulates training, validation and test data from a named distribution;
`Dataset.from_samples` and `Dataset.from_file` take data whose density nobody knows. `load_dataset`
does either, by what it is given: a name or a file.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import Distribution, Laplace, Normal, StudentT, Uniform

from dlutils.arrays import check_precision
from dlutils.compression import compress
from dlutils.data.benchden import LEFT_OUT, benchden
from dlutils.data.densities import Density, Triple, between
from dlutils.data.marron_wand import marron_wand, mixture, single
from dlutils.data.own_data import (
    EVERYWHERE,
    FEW,
    Ties,
    check_sample,
    check_support,
    check_weights,
    on_steps,
    panels,
    spread,
)
from dlutils.data.reading import SUFFIXES, is_source, split_source
from dlutils.data.samples import load_sample
from dlutils.data.units import Coordinate, Inside, Range, Units
from dlutils.seeding import seeded
from dlutils.settings import check_count, check_flag

Target = Distribution | Triple | Callable[[], Distribution | Triple]

# What `density_of` reads.
DISTRIBUTIONS: dict[str, Target | tuple[str, Target]] = {
    "gaussian": ("N(1, 0.5²): mean 1, standard deviation 0.5", lambda: single(Normal, 1.0, 0.5)),
    "laplace": ("Laplace: location 0, scale 1", lambda: single(Laplace, 0.0, 1.0)),
    "gaussian_mixture": (
        "0.3 N(-2, 0.5²) + 0.7 N(1, 0.8²)",
        lambda: mixture(Normal, [0.3, 0.7], [-2.0, 1.0], [0.5, 0.8]),
    ),
    "laplace_mixture": (
        "0.5 Laplace(-1.5, 0.5) + 0.5 Laplace(1.5, 0.5): location, scale",
        lambda: mixture(Laplace, [0.5, 0.5], [-1.5, 1.5], [0.5, 0.5]),
    ),
    "student_t": (
        "Student t with 5 degrees of freedom: location 0, scale 1",
        lambda: single(StudentT, 5.0, 0.0, 1.0),
    ),
    "uniform": ("uniform on [-1, 1]", lambda: single(Uniform, -1.0, 1.0)),
} | marron_wand()
DISTRIBUTIONS |= benchden()


@dataclass(frozen=True)
class Dataset:
    r"""Training, validation and test data, with their true density where it is known.

    Data are float64, and what is fitted to them takes over their type: nets, draws and solves. In
    single precision training would carry a processor's rounding into the digits that are printed;
    `to` is for a GPU.

    Attributes:
        name: What `make_dataset` was asked for, or the name of a user's sample.
        description: One line: the distribution and its parameters.
        train: Training points $y$, shape `(n_train,)`.
        val: Validation points, shape `(n_val,)`.
        test: Test points, shape `(n_test,)`.
        support: Interval for plots and quadrature, `(low, high)`. Outside lies a probability of
            2e-6; an end of the density's range has a margin of 10 % (`dlutils.data.densities`).
        distribution: The true density, or None for a user's sample.
        bounds: Of a user's own data, nothing lies outside; infinite where there is none.
        rounding: The step to which they were rounded, or None. All points are then spread over the
            intervals that the values stand for.
        as_read: The test points before that, shape `(n_test,)`; None where nothing is rounded.
        weights: What the points of `train`, `val` and `test` count, by these names, shape `(n,)`
            each, in all the effective number of points; empty if all count the same.
        coordinates: What models see the data through; None for
            those that `dlutils.estimators.view.bends_of` chooses.
    """

    name: str
    description: str
    train: Tensor = field(repr=False)
    val: Tensor = field(repr=False)
    test: Tensor = field(repr=False)
    support: tuple[float, float]
    distribution: Density | None = field(default=None, repr=False)
    bounds: Range = EVERYWHERE
    rounding: float | None = None
    as_read: Tensor | None = field(default=None, repr=False)
    weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False, hash=False)
    coordinates: tuple[Coordinate, ...] | None = field(default=(), repr=False)

    @classmethod
    def from_samples(
        cls,
        y: ArrayLike | Tensor,
        name: str = "sample",
        *,
        support: Range | str | None = None,
        rounding: float | None = None,
        weights: ArrayLike | Tensor | None = None,
        seed: int = 0,
    ) -> Self:
        """Take a user's own one-dimensional data, shuffle and split it.

        A tenth of the points goes to `val` and a fifth to `test`, two at least to each.

        Args:
            y: The sample, shape `(n,)`, at least 6 finite numbers that are not all equal.
            name: Name for titles and files.
            support: Bounds `(low, high)` outside which nothing can lie, one of them may be
                infinite: models see the logarithm of the distance from a bound.
            rounding: The step of rounded data or counts: a value stands for the interval of half a
                step to either side, and a model's likelihood of it is that of the interval.
            weights: How much each value counts, shape `(n,)`, not negative; only ratios matter.
            seed: Names the shuffle.

        Returns:
            A `Dataset` without a density: what needs one (`log_prob`, `expected_log_likelihood`,
            `standard_error`, `population_log_likelihood`) raises `ValueError`.

        Raises:
            ValueError: If `y` is empty, not 1-D, not finite, constant or too short, a value lies
                outside the support or on a bound, two lie nearer than the rounding, or the weights
                are negative, not finite or not as many as the values.
        """
        y = check_sample(y)
        if weights is not None:
            weights = check_weights(weights, len(y))
            y, weights = y[weights > 0], weights[weights > 0]
            weights = weights * (weights.sum() / (weights @ weights))
        n = len(y)
        sizes = {"val": max(2, round(0.1 * n)), "test": max(2, round(0.2 * n))}
        sizes["train"] = n - sum(sizes.values())
        if sizes["train"] < 2:
            raise ValueError(f"{n} values are too few: to train, validate and test takes 2 each")
        bounds, as_given = check_support(support, y, rounding), y
        if rounding is not None:
            y = on_steps(y, rounding, bounds)
        with seeded(seed):
            where = dict(zip(sizes, torch.randperm(n).split([*sizes.values()]), strict=True))
        parts = {part: y[k] for part, k in where.items()}
        check_sample(parts["train"])
        as_read = None
        if rounding is not None:
            as_read = parts["test"]
            parts = {part: spread(points, rounding, bounds) for part, points in parts.items()}
        low, high = y.min().item(), y.max().item()
        margin = 0.1 * (high - low) + (rounding or 0) / 2
        moved = ((y - as_given).abs() > 1e-3 * (rounding or 1)).double().mean().item()
        coarser = f", {100 * moved:.2g} % rounded to multiples of {rounding:g}" if moved else ""
        return cls(
            name=name,
            description=f"{name}: sample of {n} values{coarser}, true density unknown",
            **parts,
            support=(max(low - margin, bounds[0]), min(high + margin, bounds[1])),
            bounds=bounds,
            rounding=rounding,
            as_read=as_read,
            weights={} if weights is None else {part: weights[k] for part, k in where.items()},
            coordinates=None,
        )

    @classmethod
    def from_file(
        cls,
        source: str | Path,
        *,
        support: Range | str | None = None,
        rounding: float | None = None,
        seed: int = 0,
        **reading: object,
    ) -> Self:
        """Read a user's own sample from a file and split it.

        Args:
            source: `file.csv`, `file.csv:column`, or another file: see
                `dlutils.data.samples.load_sample`.
            support: See `from_samples`, as for the next two.
            rounding: The step of rounded data or counts.
            seed: Names the shuffle.
            reading: Of `load_sample`: `drop_missing`, a column of `weights`, how it is written.

        Raises:
            ValueError: If the file cannot be read, or its numbers are no proper sample.
        """
        sample = load_sample(source, **reading)
        path, column = split_source(source)
        name = path.name.partition(".")[0] + (f", {column}" if column else "")
        options = {"support": support, "rounding": rounding, "seed": seed}
        own = cls.from_samples(sample.values, name, weights=sample.weights, **options)
        return replace(own, description=f"{own.description}; {sample.description}")

    def to(self, dtype: torch.dtype) -> Self:
        """The same data in another type: float32, for a GPU, say.

        Raises:
            ValueError: If single precision does not keep apart what is apart
                (`dlutils.arrays.check_precision`), or cannot hold it.
        """
        ends, move = self.distribution.ends if self.is_known else self.bounds, lambda y: y.to(dtype)
        if dtype == torch.float32:
            check_precision(self.points)
            move = lambda y: between(y.double(), ends, dtype)
        return replace(self, train=move(self.train), val=move(self.val), test=move(self.test))

    @cached_property
    def points(self) -> Tensor:
        """Training, validation and test points together, float64."""
        return torch.cat([self.train, self.val, self.test]).double()

    @property
    def is_known(self) -> bool:
        """Whether the true density is known."""
        return self.distribution is not None

    @property
    def title(self) -> str:
        r"""The name in words, as it stands at the beginning of a caption: "Laplace mixture".

        A dollar sign is written \$, for captions and titles, where others are around mathematics.
        """
        numbered = re.search(r"number \d+, ([^:]+):", self.description)  # of a published set
        name = numbered[1] if numbered else self.name
        return (name[:1].upper() + name[1:].replace("_", " ")).replace("$", r"\$")

    def log_prob(self, y: ArrayLike | Tensor) -> Tensor:
        """True log p(y) in nats, float64, with the shape of `y`.

        Raises:
            ValueError: If the true density is unknown.
        """
        if self.distribution is None:
            raise ValueError(
                f"the true density of {self.name!r} is unknown, a user's sample; the mean "
                "log-likelihood on its test points compares models with each other"
            )
        return self.distribution.log_prob(y)

    @cached_property
    def expected_log_likelihood(self) -> float:
        r"""Mean of the true log p over the test set, $\frac1n\sum_i\log p(y_i)$, in nats."""
        return float(self.log_prob(self.test).mean())

    @cached_property
    def standard_error(self) -> float:
        """Standard error of `expected_log_likelihood`, in nats."""
        return float(self.log_prob(self.test).std() / len(self.test) ** 0.5)

    @cached_property
    def population_log_likelihood(self) -> float:
        r"""$\int p(y)\log p(y)\,dy$ in nats, to 1e-6 (tanh-sinh between breakpoints)."""
        self.log_prob(0.0)  # an unknown density says so here
        return self.distribution.population_log_likelihood

    @property
    def unbounded(self) -> Units:
        """The coordinate of quadratures: y, or for bounded data of one's own one without bounds."""
        is_bounded = not self.is_known and any(map(math.isfinite, self.bounds))
        return Units(bends=(Inside(*self.bounds),) if is_bounded else ())

    @cached_property
    def breakpoints(self) -> np.ndarray:
        """Between them a density of such data is smooth on its own scale; increasing, `unbounded`.

        The first and the last are the ends of the `reach`.
        """
        if self.is_known:
            return self.distribution.breakpoints
        special = torch.tensor([*self.reach, self.ties.value], dtype=torch.float64)
        low, high, often = self.unbounded(special).tolist()
        return panels(self.unbounded(self.points), (low, high), replace(self.ties, value=often))

    @property
    def reach(self) -> Range:
        """The interval of quadratures: the support, or as good as the line for a user's own.

        That is a billion times the length of the data to either side, or up to their bounds.
        """
        if self.is_known:
            return self.support
        first, last = self.points.min().item(), self.points.max().item()
        far = 1e9 * (last - first)
        return max(first - far, self.bounds[0]), min(last + far, self.bounds[1])

    @property
    def n_effective(self) -> float:
        """Number of training points, or Kish's effective number of weighted ones."""
        weights = self.weights.get("train")
        return len(self.train) if weights is None else weights.sum().item()

    @cached_property
    def ties(self) -> Ties:
        """What of a user's own sample, in all three parts, is there several times.

        Nothing is, where the rounding is known: the values are then spread.
        """
        if self.rounding is not None:
            return Ties(0.0, self.points[0].item(), 0.0, self.rounding)
        return Ties.of(self.points)

    def summary(self) -> str:
        """What was drawn, how many points, and what any model can expect, in lines to print."""
        lines = [
            self.description,
            f"{len(self.train)} training, {len(self.val)} validation, {len(self.test)} test points",
        ]
        if self.is_known:
            value, error = self.expected_log_likelihood, self.standard_error
            population = self.population_log_likelihood
            lines += [
                f"expected log-likelihood  {value:.4f} ± {error:.4f}: mean over the test points",
                f"population value         {population:.4f}: the integral of p log p",
            ]
            return "\n".join(lines)
        lines += [str(self.ties)] if str(self.ties) else []
        if self.n_effective < len(self.train):
            lines.append(f"weights: {self.n_effective:.0f} training points effectively")
        if len(self.train) < FEW:
            lines.append(f"{len(self.test)} test points are few: differences will be uncertain")
        return "\n".join(lines)

    def compress(self, n_bins: int) -> tuple[Tensor, Tensor]:
        """The training data as about `2 * n_bins` weighted points: see `compress`."""
        return compress(self.train, n_bins, self.weights.get("train"))


def make_dataset(
    name: str, n_train: int = 10_000, n_val: int = 2_000, n_test: int = 10_000, seed: int = 0
) -> Dataset:
    """Simulate training, validation and test data from a distribution with a known density.

    The same arguments give the same numbers, whatever ran before; the global random state is left
    as it was. The three splits have streams of their own, so `test` does not change with `n_train`.

    Args:
        name: One of `DISTRIBUTIONS`.
        n_train: Number of training points, at least 2.
        n_val: Number of validation points, at least 2.
        n_test: Number of test points, at least 2.
        seed: Non-negative integer.

    Raises:
        ValueError: If the name is unknown or that of an unbounded density, a size is below 2, or
            the seed is negative.

    Source:
        Marron & Wand, Exact mean integrated squared error, Annals of Statistics 20 (1992), table 1;
        Berlinet & Devroye, A comparison of kernel density estimates, Publications de l'Institut de
        Statistique de l'Université de Paris 38 (1994), section 3.2.
    """
    description, density = density_of(name)
    splits = []
    sizes = {"n_train": n_train, "n_val": n_val, "n_test": n_test}
    for split, (label, n) in enumerate(sizes.items()):
        check_count(label, n, least=2)
        with seeded(seed, split, dtype=torch.float64):
            splits.append(density.sample(n))
    return Dataset(name, description, *splits, density.support, density)


def load_dataset(
    source: str | Path,
    *,
    seed: int = 0,
    drop_missing: bool = False,
    support: Range | str | None = None,
    rounding: float | None = None,
    weights: str | int | None = None,
    thousands: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    skip_rows: int | None = None,
) -> Dataset:
    """Simulate a named distribution, or read a user's own file.

    Args:
        source: One of `DISTRIBUTIONS`, `file.csv`, `file.csv:column`, or another file: see
            `dlutils.data.samples.load_sample`.
        seed: Of the simulation, or of the split of the file's numbers.
        drop_missing: Whether to leave out NaN and empty cells of a file.
        support: Of a file's numbers, their bounds: see `Dataset.from_samples`, as for the next two.
        rounding: Their step.
        weights: The column of their weights.
        thousands: Of a file, what is between thousands: see `load_sample`, as for the rest.
        decimal: "." or ",".
        encoding: Of a text.
        skip_rows: How many lines stand above the table.

    Raises:
        ValueError: If there is no such distribution or file, or its numbers are no proper sample.
    """
    source = str(source)
    check_flag("drop_missing", drop_missing)
    own = {"support": support, "rounding": rounding, "weights": weights, "thousands": thousands}
    own |= {"decimal": decimal, "encoding": encoding, "skip_rows": skip_rows}
    if is_source(source):
        return Dataset.from_file(source, seed=seed, drop_missing=drop_missing, **own)
    for label, option in own.items():
        if option is not None:
            raise ValueError(f"{label} = {option!r} is for a file of your own, not for {source!r}")
    try:
        check_name(source)
    except ValueError as error:
        raise ValueError(f"{error}; a file of your own ends in {', '.join(SUFFIXES)}") from error
    return make_dataset(source, seed=seed)


def waiting_times(seed: int = 0, support: Range | None = None) -> Dataset:
    """An example of a user's own data: a file of 3000 waiting times with a long tail, read back."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "waiting_times.csv"
        np.savetxt(path, np.random.default_rng(seed).gamma(2.0, 30.0, size=3000), fmt="%.6f")
        return load_dataset(str(path), seed=seed, support=support)


def check_name(name: str) -> None:
    """Make sure that `DISTRIBUTIONS` has the name.

    Raises:
        ValueError: If it has not; the message says why, or gives the names, of a numbered family
            the first and the last.
    """
    if name in DISTRIBUTIONS:
        return
    if name in LEFT_OUT:
        raise ValueError(
            f"{name!r} is left out: the {LEFT_OUT[name]}, grows without bound, so a distance from "
            "a bounded density would say how the peak is cut off"
        )
    families = [
        list(members) for _, members in groupby(DISTRIBUTIONS, lambda key: key.rstrip("0123456789"))
    ]
    known = (f"{m[0]} ... {m[-1]}" if len(m) > 2 else ", ".join(m) for m in families)
    raise ValueError(f"unknown dataset {name!r}; choose from {', '.join(known)}")


def density_of(name: str) -> tuple[str, Density]:
    """The description and the density of an entry of `DISTRIBUTIONS`, checked at its first use.

    An entry is a distribution of `torch.distributions`, a triple (log_prob, sample, support), a
    function that builds one of these, or a pair of a description and one of these. Distributions
    are taken to double precision.

    Raises:
        ValueError: If the name is unknown (`check_name`), or the entry is no density
            (`dlutils.data.densities`).
    """
    check_name(name)
    entry = DISTRIBUTIONS[name]
    if _DENSITIES.get(name, (None,))[0] is not entry:
        is_pair = isinstance(entry, tuple) and len(entry) == 2
        description, source = entry if is_pair else ("", entry)
        if not isinstance(source, Distribution) and callable(source):
            with seeded(0, dtype=torch.float64):
                source = source()
        _DENSITIES[name] = entry, description or _describe(name, source), Density(source, name)
    return _DENSITIES[name][1:]


_DENSITIES: dict[str, tuple[object, str, Density]] = {}  # what `density_of` has made, from what


def _describe(name: str, source: Distribution | Triple) -> str:
    """The family and its parameters, or the name where those are not numbers."""
    if not isinstance(source, Distribution) or not source.arg_constraints:
        return name.replace("_", " ")
    parameters = (f"{key} {float(getattr(source, key)):g}" for key in source.arg_constraints)
    return f"{type(source).__name__}: {', '.join(parameters)}"
