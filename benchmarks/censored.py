"""Censored and truncated samples: is `fit_density` near the truth, and do its bands cover it?

A thousand values each. Censored at random are 0, 20 or 50 % of them, by ends of observation of a
like distribution, moved; or those beyond a quantile are truncated: they left no record.
"""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product

import numpy as np
import torch
from scipy import stats
from scipy.special import ndtri
from scipy.stats import CensoredData, ecdf, expon, laplace, lognorm

from benchmarks.common import Options, Row, Tables, command, runs
from dlutils import fit_density
from dlutils.data.own_data import EVERYWHERE
from dlutils.data.units import Range

PACKAGES = ("torch", "numpy", "scipy")
LEVELS = np.array([0.25, 0.5, 0.75])  # of the true CDF, where the estimates are compared
PLACES = (np.arange(400) + 0.5) / 400  # levels of the true CDF: coverage is the mean over them
FIRST_SEED, N_POINTS = 300, 1000
DEVIATIONS = ndtri(0.975)  # between a band's middle and its ends
POSITIVE = (0.0, np.inf)
NAMES = ("exponential", "log-normal", "Laplace mixture")
CENSORED, LOST = (0.0, 0.2, 0.5), (0.2, 0.5)
SIDES = ("above", "below")  # on which values are lost


@cache
def targets() -> dict[str, tuple[object, Range, object]]:
    """By name: the distribution, where it is, and that of the ends of observation, to be moved."""
    Laplace, Exponential, LogNormal = map(stats.make_distribution, (laplace, expon, lognorm))
    times = {"exponential": Exponential(), "log-normal": LogNormal(s=1.0)}
    found = {name: (of, POSITIVE, of) for name, of in times.items()}
    sides = [stats.Normal(mu=mu, sigma=1.0) for mu in (-1.5, 1.5)]
    two = stats.Mixture([Laplace() * 0.5 + mu for mu in (-1.5, 1.5)], weights=[0.5, 0.5])
    return found | {"Laplace mixture": (two, EVERYWHERE, stats.Mixture(sides, weights=[0.5, 0.5]))}


@cache
def truth(name: str, first: float = 0.0, last: float = 1.0) -> tuple[np.ndarray, ...]:
    """Between two levels of the CDF: places of `LEVELS`, places of `PLACES`, the density there."""
    of = targets()[name][0]
    at, places = (of.icdf(first + (last - first) * levels) for levels in (LEVELS, PLACES))
    return at, places, of.pdf(places)


def censored_sample(name: str, share: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What is seen of n values, and which are censored; a share of them on average."""
    of, bounds, end = targets()[name]

    def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        y, c = of.sample(n, rng=random), end.sample(n, rng=random)
        return (np.log(y), np.log(c)) if bounds == POSITIVE else (y, c)

    y, c = draw(100_000, 0)
    moved = np.quantile(y - c, 1 - share) if share else np.inf
    y, c = draw(n, seed)
    seen = np.minimum(y, c + moved)
    return (np.exp(seen) if bounds == POSITIVE else seen), y > c + moved


def covered(q, name: str, first: float = 0.0, last: float = 1.0, of_all: bool = True) -> float:
    """The share of the density between two levels of F, by probability, that lies in q's band.

    Of the density of all values, or of that given that a value lies between them.
    """
    _, places, p = truth(name, first, last)
    low, high = q.band(places)
    if not of_all:
        ends = targets()[name][0].icdf(np.array([first, last]))
        p = p / (last - first) * np.diff(q.cdf(ends))
    return float(np.mean((low <= p) & (p <= high)))


def of_censored(config: Mapping[str, object]) -> Row:
    """Errors of CDF and log-density at the true quartiles, the band's deviation, and coverage."""
    name, share, seed = (config[key] for key in ("density", "share", "seed"))
    y, censored = censored_sample(name, share, config["n"], seed)
    of, bounds, _ = targets()[name]
    at, *_ = truth(name)
    start = time.process_time()
    q = fit_density(y, censored=censored if share else None, support=bounds)
    seconds = time.process_time() - start
    low, high = q.band(at)
    known = ecdf(CensoredData.right_censored(y, censored)).cdf.evaluate(at)
    return {
        "hidden": float(censored.mean()),
        "model": q.chosen.name.partition(" ")[0],
        "errors": (q.cdf(at) - LEVELS).tolist(),
        "errors of Kaplan-Meier": (known - LEVELS).tolist(),
        "errors of log q": (q.log_prob(at) - of.logpdf(at)).tolist(),
        "deviation": (np.log(high / low) / (2 * DEVIATIONS)).tolist(),
        "coverage": covered(q, name),
        "seconds": seconds,
    }


def of_truncated(config: Mapping[str, object]) -> Row:
    """The same inside the window, given that a value is there, and of who ignores the window."""
    name, share, seed = (config[key] for key in ("density", "share", "seed"))
    first, last = (0.0, 1 - share) if config["kind"] == "above" else (share, 1.0)
    of, bounds, _ = targets()[name]
    window = tuple(of.icdf(np.array([first, last])).tolist())
    all_of_them = of.sample(config["n"], rng=np.random.default_rng(seed))
    y = all_of_them[(all_of_them > window[0]) & (all_of_them < window[1])]
    at, *_ = truth(name, first, last)
    start = time.process_time()
    q = fit_density(y, truncated=window, support=bounds)
    seconds = time.process_time() - start
    naive = fit_density(y, support=bounds)
    row = {
        "hidden": 1 - len(y) / config["n"],
        "model": q.chosen.name.partition(" ")[0],
        "errors": (within(q, window, at) - LEVELS).tolist(),
        "errors of naive": (within(naive, window, at) - LEVELS).tolist(),
        "errors of empirical": ((y[:, None] <= at).mean(axis=0) - LEVELS).tolist(),
        "coverage": covered(q, name, first, last),
        "coverage of naive": covered(naive, name, first, last),
        "coverage given the window": covered(q, name, first, last, of_all=False),
        "seconds": seconds,
    }
    return row | {"outside": float(1 - np.diff(q.cdf(np.array(window)))[0])}


def within(q, window: Range, at: np.ndarray) -> np.ndarray:
    """The CDF given that a value lies in the window."""
    low, high = q.cdf(np.array(window))
    return (q.cdf(at) - low) / (high - low)


def measure(config: Mapping[str, object]) -> Row:
    """One sample, with one thread."""
    torch.set_num_threads(1)
    return of_censored(config) if config["kind"] == "censored" else of_truncated(config)


def plus_minus(values: np.ndarray, digits: int = 3) -> str:
    """Mean ± its standard error."""
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{values.mean():+.{digits}f} ± {error:.{digits}f}"


def groups(rows: Sequence[Row], kinds: Sequence[str]) -> list[tuple[Row, dict[str, np.ndarray]]]:
    """By density, kind and share: the first columns of a line, and what was measured, by name."""
    found = []
    for name, kind, share in product(NAMES, kinds, CENSORED):
        keys = (name, kind, share)
        of = [row for row in rows if (row["density"], row["kind"], row["share"]) == keys]
        if of:
            arrays = {key: np.array([row[key] for row in of]) for key in of[0]}
            found.append(({"density": name, "samples": len(of)}, arrays))
    return found


def biases(errors: np.ndarray, of: str = "bias of F") -> Row:
    """A column each for the quartiles."""
    return {f"{of} at {level:g}": plus_minus(errors[:, k]) for k, level in enumerate(LEVELS)}


def error(errors: np.ndarray) -> str:
    """Root mean square."""
    return f"{np.sqrt((errors**2).mean()):.4f}"


def less(ours: np.ndarray, theirs: np.ndarray) -> str:
    """By how much the mean square of errors is less, ten thousandths, on the same samples."""
    return plus_minus(1e4 * (ours**2 - theirs**2).mean(axis=1), 2)


def table_censored(rows: Sequence[Row]) -> list[Row]:
    """Bias and root mean square of the errors of F at the quartiles, and coverage of the bands."""
    lines = []
    for line, of in groups(rows, ["censored"]):
        theirs = of["errors of Kaplan-Meier"]
        line |= {"censored": f"{of['hidden'].mean():.0%}"} | biases(of["errors"])
        line |= biases(theirs, "Kaplan-Meier's")
        line |= {"error": error(of["errors"]), "error, Kaplan-Meier": error(theirs)}
        line |= {"squared, ours less theirs": less(of["errors"], theirs)}
        at = np.abs(of["errors of log q"]) <= DEVIATIONS * of["deviation"]
        line |= {"coverage at the quartiles": f"{at.mean():.2f}"}
        line |= {"coverage": plus_minus(of["coverage"])[1:]}
        lines.append(line | {"seconds": float(np.median(of["seconds"]))})
    return lines


def table_places(rows: Sequence[Row]) -> list[Row]:
    """At each quartile: bias of log q, its spread, the deviation that the band has, coverage."""
    lines = []
    for line, of in groups(rows, ["censored"]):
        for k, level in enumerate(LEVELS):
            errors, deviation = of["errors of log q"][:, k], of["deviation"][:, k]
            lines.append(
                line
                | {"censored": f"{of['hidden'].mean():.0%}", "F": f"{level:g}"}
                | {"bias of log q": plus_minus(errors)}
                | {"spread": f"{errors.std(ddof=1) if len(errors) > 1 else 0:.3f}"}
                | {"the band's deviation": f"{deviation.mean():.3f}"}
                | {"coverage": f"{np.mean(np.abs(errors) <= DEVIATIONS * deviation):.2f}"}
            )
    return lines


def table_truncated(rows: Sequence[Row]) -> list[Row]:
    """Inside the window: bias and errors of F, given that a value is there, and coverage."""
    lines = []
    for line, of in groups(rows, SIDES):
        line |= {"lost": f"{of['share'][0]:.0%} {of['kind'][0]}"}
        line |= {"share outside": plus_minus(of["outside"])[1:]} | biases(of["errors"])
        line |= {"error": error(of["errors"]), "error, naive": error(of["errors of naive"])}
        line |= {"error, empirical": error(of["errors of empirical"])}
        for who in ("naive", "empirical"):
            line |= {f"squared, ours less {who}": less(of["errors"], of[f"errors of {who}"])}
        line |= {"coverage": plus_minus(of["coverage"])[1:]}
        line |= {"given the window": plus_minus(of["coverage given the window"])[1:]}
        line |= {"coverage, naive": plus_minus(of["coverage of naive"])[1:]}
        lines.append(line | {"seconds": float(np.median(of["seconds"]))})
    return lines


def fit_of(row: Row) -> Row:
    """A row of the file with one a fit: what stands at the quartiles in a column for each."""
    left_out = {"run", "status"}
    fit = {k: value for k, value in row.items() if np.isscalar(value) and k not in left_out}
    listed = {key: value for key, value in row.items() if isinstance(value, list)}
    for key, (k, level) in product(listed, enumerate(LEVELS)):
        fit[f"{key} at {level:g}"] = listed[key][k]
    return fit


def make(options: Options) -> Tables:
    """Measure bias and coverage of `fit_density` on censored and on truncated samples."""
    seeds = range(FIRST_SEED, FIRST_SEED + (1 if options.quick else options.samples))
    censored = [("censored", share) for share in CENSORED]
    configs = [
        {"density": name, "kind": kind, "share": share, "n": N_POINTS, "seed": seed}
        for kinds in (censored, [*product(SIDES, LOST)])
        for seed, name, (kind, share) in product(seeds, NAMES, kinds)
    ]
    rows = runs(measure, configs, options, options.workers)
    options.fits = list(map(fit_of, rows))
    return {
        "Censored": table_censored(rows),
        "Censored, by place": table_places(rows),
        "Truncated": table_truncated(rows),
    }


if __name__ == "__main__":
    more = {
        "--samples": {"type": int, "default": 50, "help": "of each; default: %(default)s"},
        "--workers": {"type": int, "default": None, "help": "processes; default: one a core"},
    }
    raise SystemExit(command(make, PACKAGES, "one sample of each", options=more))
