"""One-dimensional data with an exact density, and a user's own sample.

`make_dataset` simulates training, validation and test data from a named distribution;
`Dataset.from_samples` and `Dataset.from_file` take data whose density nobody knows. `load_dataset`
does either, by what it is given: a name or a file.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
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

from dlutils.arrays import check_precision, doubles
from dlutils.benchden import LEFT_OUT, benchden
from dlutils.densities import LEVELS, Density, Triple
from dlutils.marron_wand import marron_wand, mixture, single
from dlutils.samples import is_source, read_sample, split_source
from dlutils.seeding import seeded

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

    Attributes:
        name: What `make_dataset` was asked for, or the name of a user's sample.
        description: One line: the distribution and its parameters.
        train: Training points $y$, float32, shape `(n_train,)`.
        val: Validation points, float32, shape `(n_val,)`.
        test: Test points, float32, shape `(n_test,)`.
        support: Interval for plots and quadrature, `(low, high)`. Outside lies a probability of
            2e-6; an end of the density's range has a margin of 10 % (`dlutils.densities`).
        distribution: The true density, or None for a user's sample.
    """

    name: str
    description: str
    train: Tensor = field(repr=False)
    val: Tensor = field(repr=False)
    test: Tensor = field(repr=False)
    support: tuple[float, float]
    distribution: Density | None = field(default=None, repr=False)

    @classmethod
    def from_samples(
        cls,
        y: ArrayLike | Tensor,
        name: str = "sample",
        *,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        seed: int = 0,
    ) -> Self:
        """Take a user's own one-dimensional data, shuffle and split it.

        Args:
            y: The sample, shape `(n,)`, at least 4 finite numbers that are not all equal.
            name: Name for titles and files.
            val_fraction: Share of the points that goes to `val` (at least one point).
            test_fraction: Share of the points that goes to `test` (at least one point).
            seed: Names the shuffle.

        Returns:
            A `Dataset` without a density: what needs one (`log_prob`, `expected_log_likelihood`,
            `standard_error`, `population_log_likelihood`) raises `ValueError`.

        Raises:
            ValueError: If `y` is empty, not 1-D, not finite, constant or too short.
        """
        y = check_sample(y)
        for label, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 < fraction < 1:
                raise ValueError(f"{label} must lie between 0 and 1, not {fraction!r}")
        n = len(y)
        n_val, n_test = (max(1, round(share * n)) for share in (val_fraction, test_fraction))
        if n - n_val - n_test < 2:
            raise ValueError(
                f"{n} values are too few for val_fraction {val_fraction} and test_fraction "
                f"{test_fraction}: at least 2 must remain for training"
            )
        with seeded(seed):
            y_shuffled = y[torch.randperm(n)]
        val, test, train = y_shuffled.split([n_val, n_test, n - n_val - n_test])
        check_sample(train)
        low, high = float(y.min()), float(y.max())
        margin = 0.1 * (high - low)
        return cls(
            name=name,
            description=f"{name}: sample of {n} values, true density unknown",
            train=train,
            val=val,
            test=test,
            support=(low - margin, high + margin),
        )

    @classmethod
    def from_file(cls, source: str | Path, *, drop_missing: bool = False, **options: float) -> Self:
        """Read a user's own sample from a file and split it.

        Args:
            source: `file.csv`, `file.csv:column`, or a .txt or .npy file: see
                `dlutils.samples.read_sample`.
            drop_missing: Whether to leave out NaN and empty cells.
            options: `name`, `val_fraction`, `test_fraction` and `seed` of `from_samples`.

        Raises:
            ValueError: If the file cannot be read, or its numbers are no proper sample.
        """
        y = read_sample(source, drop_missing=drop_missing)
        path, column = split_source(source)
        name = path.stem + (f", {column}" if column else "")
        return cls.from_samples(y, **{"name": name} | options)

    @property
    def is_known(self) -> bool:
        """Whether the true density is known."""
        return self.distribution is not None

    @property
    def title(self) -> str:
        """The name in words, as it stands at the beginning of a caption: "Laplace mixture"."""
        numbered = re.search(r"number \d+, ([^:]+):", self.description)  # of a published set
        name = numbered[1] if numbered else self.name
        return name[:1].upper() + name[1:].replace("_", " ")

    def log_prob(self, y: ArrayLike | Tensor) -> Tensor:
        """True log p(y) in nats, float64, with the shape of `y`.

        Raises:
            ValueError: If the true density is unknown.
        """
        if self.distribution is None:
            raise ValueError(
                f"the true density of {self.name!r} is unknown: it is a user's sample, so there is "
                "no log_prob, expected or population log-likelihood to compare with; the mean "
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

    @cached_property
    def breakpoints(self) -> np.ndarray:
        """Points between which a density of such data is smooth on its own scale, increasing.

        Of the true density where it is known (`Density.breakpoints`); else quantiles of all points
        (`dlutils.densities.LEVELS`), and distances beyond both ends that grow geometrically.
        """
        if self.distribution is not None:
            return self.distribution.breakpoints
        y = torch.cat([self.train, self.val, self.test]).double().numpy()
        y = np.quantile(y, LEVELS)
        out = (y[-1] - y[0]) * 4.0 ** np.arange(-8, 0)
        return np.unique(np.concatenate([y[0] - out, y, y[-1] + out]))

    def units(self, standardize: bool) -> tuple[float, float]:
        """Location and scale in which a model sees the data: (0, 1), or training mean and sd.

        A user's own sample is always standardized, since nothing is known of its units.
        """
        if standardize or not self.is_known:
            return self.train.mean().item(), self.train.std().item()
        return 0.0, 1.0

    def summary(self) -> str:
        """What was drawn, how many points, and what any model can expect, in lines to print."""
        sizes = ", ".join(
            f"{len(y)} {name}"
            for name, y in (("training", self.train), ("validation", self.val), ("test", self.test))
        )
        lines = [self.description, f"{sizes} points"]
        if self.is_known:
            value, error = self.expected_log_likelihood, self.standard_error
            population = self.population_log_likelihood
            lines += [
                f"expected log-likelihood  {value:.4f} ± {error:.4f}: mean over the test points",
                f"population value         {population:.4f}: the integral of p log p",
            ]
        return "\n".join(lines)

    def compress(self, n_bins: int) -> tuple[Tensor, Tensor]:
        """The training data as about `2 * n_bins` weighted points: see `compress`."""
        return compress(self.train, n_bins)


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
    sizes = {"n_train": n_train, "n_val": n_val, "n_test": n_test}
    for label, n in sizes.items():
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 2:
            raise ValueError(f"{label} must be an integer of at least 2, not {n!r}")
    splits = []
    for split, n in enumerate(sizes.values()):
        with seeded(seed, split):
            splits.append(density.sample(n))
    return Dataset(name, description, *splits, density.support, density)


def load_dataset(source: str, *, seed: int = 0, drop_missing: bool = False) -> Dataset:
    """Simulate a named distribution, or read a user's own file.

    Args:
        source: One of `DISTRIBUTIONS`, `file.csv`, `file.csv:column`, or a .txt or .npy file.
        seed: Of the simulation, or of the split of the file's numbers.
        drop_missing: Whether to leave out NaN and empty cells of a file.

    Raises:
        ValueError: If there is no such distribution or file, or its numbers are no proper sample.
    """
    if is_source(source):
        return Dataset.from_file(source, seed=seed, drop_missing=drop_missing)
    try:
        return make_dataset(source, seed=seed)
    except ValueError as error:
        if source in DISTRIBUTIONS:
            raise
        more = "a file of your own ends in .csv, .tsv, .txt, .dat or .npy"
        raise ValueError(f"{error}; {more}") from error


def waiting_times(seed: int = 0) -> Dataset:
    """An example of a user's own data: a file of 3000 waiting times with a long tail, read back."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "waiting_times.csv"
        np.savetxt(path, np.random.default_rng(seed).gamma(2.0, 30.0, size=3000), fmt="%.6f")
        return load_dataset(str(path), seed=seed)


def check_sample(y: ArrayLike | Tensor) -> Tensor:
    """Return `y` as float32 of shape `(n,)`, or say what is wrong with it.

    Raises:
        ValueError: If `y` is not of real numbers, has missing ones, is empty, not 1-D, not finite,
            constant, or too coarse in single precision (`dlutils.arrays`).
    """
    y = doubles(y)
    if len(y) == 0:
        raise ValueError("data must not be empty")
    y_single = y.float()
    if not y_single.isfinite().all():
        first = int((~y_single.isfinite()).nonzero()[0])
        count = int((~y_single.isfinite()).sum())
        raise ValueError(
            f"data must be finite in single precision: {count} of {len(y)} values are not, "
            f"the first is {y[first].item()} at index {first}"
        )
    check_precision(y)
    if y_single.min() == y_single.max():
        raise ValueError(
            f"data must not be constant: all {len(y)} values are {y_single[0].item():g}, "
            "and a point mass has no density"
        )
    return y_single


def compress(y: ArrayLike | Tensor, n_bins: int) -> tuple[Tensor, Tensor]:
    r"""Replace data by weighted points with the same mass, mean, variance and skewness in each bin.

    The bins are equally long in the average of position and rank, both from 0 to 1: none is wider
    than twice the mean width, and none holds more than twice the mean number of points. A flow that
    can tell nodes apart would fit the nodes in place of the density; where most points are, such
    bins are narrow enough in half the number that equal widths would need.

    In a bin with mean $m$, standard deviation $s$ and skewness $g$ stands the two-point Gauss rule:
    nodes $m+s(g/2\pm r)$ with weights $\frac12\mp\frac g{4r}$ of the bin's count,
    $r=\sqrt{1+g^2/4}$. Sums of smooth functions are off by O(width⁴). Empty bins leave no node;
    bins whose points coincide leave one.

    Args:
        y: Data, shape `(n,)`.
        n_bins: Number of bins between the smallest and the largest point, at least 1.

    Returns:
        Nodes, increasing, and their positive weights, which sum to n: float64, shape `(k,)` with
        k at most `2 * n_bins`.

    Raises:
        ValueError: If `n_bins` is below 1 or the data are no proper sample (`check_sample`).

    Source:
        Golub & Welsch, Calculation of Gauss quadrature rules (1969), for two points.
    """
    if isinstance(n_bins, bool) or not isinstance(n_bins, (int, np.integer)) or n_bins < 1:
        raise ValueError(f"n_bins must be an integer of at least 1, not {n_bins!r}")
    y = check_sample(y).double().numpy(force=True)
    increasing = np.sort(y)
    position = (increasing - increasing[0]) / (increasing[-1] - increasing[0])
    rank = np.linspace(0, 1, len(y))
    edges = np.interp(np.arange(1, n_bins) / n_bins, (position + rank) / 2, increasing)
    bins = np.searchsorted(edges, y, side="right")
    _, bins, count = np.unique(bins, return_inverse=True, return_counts=True)
    mean = np.bincount(bins, y) / count
    deviation = y - mean[bins]
    s = np.sqrt(np.bincount(bins, deviation**2) / count)
    spread = s > 1e-9 * (increasing[-1] - increasing[0]) / n_bins
    g = np.bincount(bins, deviation**3) / count / np.where(spread, s, 1.0) ** 3
    r = np.sqrt(1 + g**2 / 4)
    sides = np.array([-1.0, 1.0])[:, None]
    nodes = mean + s * (g / 2 + sides * r)
    weights = count * (0.5 - sides * g / (4 * r))
    one = ~spread
    nodes = np.concatenate([nodes[:, spread].ravel(), mean[one]])
    weights = np.concatenate([weights[:, spread].ravel(), count[one]])
    order = np.argsort(nodes)
    return torch.from_numpy(nodes[order]), torch.from_numpy(weights[order])


def check_name(name: str) -> None:
    """Make sure that `DISTRIBUTIONS` has the name.

    Raises:
        ValueError: If it has not; the message says why, or gives the names, of a numbered family
            the first and the last.
    """
    if name in DISTRIBUTIONS:
        return
    if name in LEFT_OUT:
        raise ValueError(f"{name!r} is left out: {LEFT_OUT[name]}")
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
            (`dlutils.densities`).
    """
    check_name(name)
    entry = DISTRIBUTIONS[name]
    made_from, *found = _DENSITIES.get(name, (None,))
    if made_from is not entry:
        description, source = entry if _is_pair(entry) else (None, entry)
        if not isinstance(source, Distribution) and callable(source):
            source = source()
        if description is None:
            description = _describe(name, source)
        found = description, Density(source, name)
        _DENSITIES[name] = (entry, *found)
    return tuple(found)


_DENSITIES: dict[str, tuple[object, str, Density]] = {}  # what `density_of` has made, from what


def _is_pair(entry: object) -> bool:
    return isinstance(entry, tuple) and len(entry) == 2


def _describe(name: str, source: Distribution | Triple) -> str:
    """The family and its parameters, or the name where those are not numbers."""
    if not isinstance(source, Distribution) or not source.arg_constraints:
        return name.replace("_", " ")
    parameters = ((key, float(getattr(source, key))) for key in source.arg_constraints)
    return f"{type(source).__name__}: " + ", ".join(f"{key} {value:g}" for key, value in parameters)
