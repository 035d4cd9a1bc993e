"""Censored samples: the CDF of `fit_density` beside the truth and Kaplan and Meier's curve.

Censored at random, 20 or 50 % of the values, by ends of observation of a like distribution, moved.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch
from scipy import stats
from scipy.stats import CensoredData, ecdf, expon, laplace, lognorm

from benchmarks.common import Options, Row, Tables, command, runs
from dlutils import fit_density
from dlutils.data.own_data import EVERYWHERE
from dlutils.data.units import Range

PACKAGES = ("torch", "numpy", "scipy")
LEVELS = np.array([0.25, 0.5, 0.75])  # of the true CDF, where the estimates are compared
FIRST_SEED, N_POINTS = 10, 1000
POSITIVE = (0.0, np.inf)
NAMES = ("exponential", "log-normal", "Laplace mixture")


def targets() -> dict[str, tuple[object, Range, object]]:
    """By name: the distribution, where it is, and that of the ends of observation, to be moved."""
    Laplace, Exponential, LogNormal = map(stats.make_distribution, (laplace, expon, lognorm))
    times = {"exponential": Exponential(), "log-normal": LogNormal(s=1.0)}
    found = {name: (of, POSITIVE, of) for name, of in times.items()}
    sides = [stats.Normal(mu=mu, sigma=1.0) for mu in (-1.5, 1.5)]
    two = stats.Mixture([Laplace() * 0.5 + mu for mu in (-1.5, 1.5)], weights=[0.5, 0.5])
    return found | {"Laplace mixture": (two, EVERYWHERE, stats.Mixture(sides, weights=[0.5, 0.5]))}


def censored_sample(name: str, share: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What is seen of n values, and which are censored; a share of them on average."""
    of, bounds, end = targets()[name]

    def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        y, c = of.sample(n, rng=random), end.sample(n, rng=random)
        return (np.log(y), np.log(c)) if bounds == POSITIVE else (y, c)

    y, c = draw(100_000, 0)
    moved = np.quantile(y - c, 1 - share)
    y, c = draw(n, seed)
    seen = np.minimum(y, c + moved)
    return (np.exp(seen) if bounds == POSITIVE else seen), y > c + moved


def measure(config: Mapping[str, object]) -> Row:
    """One sample: errors of the CDF at the true quartiles, and whether the bands cover there."""
    torch.set_num_threads(1)
    name, share, seed = (config[key] for key in ("density", "censored", "seed"))
    y, censored = censored_sample(name, share, config["n"], seed)
    of, bounds, _ = targets()[name]
    at = of.icdf(LEVELS)
    p = of.pdf(at)
    start = time.process_time()
    q = fit_density(y, censored=censored, support=bounds)
    seconds = time.process_time() - start
    low, high = q.band(at)
    known = ecdf(CensoredData.right_censored(y, censored)).cdf.evaluate(at)
    return {
        "share": float(censored.mean()),
        "model": q.chosen.name.partition(" ")[0],
        "errors": (q.cdf(at) - LEVELS).tolist(),
        "errors of Kaplan-Meier": (known - LEVELS).tolist(),
        "covered": ((low <= p) & (p <= high)).tolist(),
        "seconds": seconds,
    }


def table(rows: Sequence[Row]) -> list[Row]:
    """Bias and root mean square of the errors of F at the quartiles, and coverage of the bands."""
    lines = []
    for name, share in dict.fromkeys((row["density"], row["censored"]) for row in rows):
        of = [row for row in rows if (row["density"], row["censored"]) == (name, share)]
        ours, theirs = (np.array([r[k] for r in of]) for k in ("errors", "errors of Kaplan-Meier"))
        numbers = lambda values: " / ".join(f"{value:+.3f}" for value in values)
        lines.append(
            {
                "density": name,
                "censored": f"{np.mean([row['share'] for row in of]):.0%}",
                "samples": len(of),
                "bias of F": numbers(ours.mean(axis=0)),
                "bias, Kaplan-Meier": numbers(theirs.mean(axis=0)),
                "error": f"{np.sqrt((ours**2).mean()):.4f}",
                "error, Kaplan-Meier": f"{np.sqrt((theirs**2).mean()):.4f}",
                "coverage": f"{np.mean([row['covered'] for row in of]):.2f}",
                "seconds": float(np.median([row["seconds"] for row in of])),
            }
        )
    return lines


def make(options: Options) -> Tables:
    """Measure bias and coverage of `fit_density` on censored samples, beside Kaplan and Meier's."""
    seeds = range(FIRST_SEED, FIRST_SEED + (1 if options.quick else options.samples))
    grid = product(seeds, NAMES, (0.2, 0.5))
    configs = [
        {"density": name, "censored": share, "n": N_POINTS, "seed": seed}
        for seed, name, share in grid
    ]
    rows = runs(measure, configs, options, options.workers)
    keys = ("density", "censored", "n", "seed", "share", "model", "seconds")
    options.fits = []
    for row in rows:
        fit = {key: row[key] for key in keys}
        for k, level in enumerate(LEVELS):
            fit |= {f"error at {level}": row["errors"][k]}
            fit |= {f"of Kaplan-Meier at {level}": row["errors of Kaplan-Meier"][k]}
            fit |= {f"covered at {level}": int(row["covered"][k])}
        options.fits.append(fit)
    return {"At the true quartiles": table(rows)}


if __name__ == "__main__":
    more = {
        "--samples": {"type": int, "default": 50, "help": "of each; default: %(default)s"},
        "--workers": {"type": int, "default": None, "help": "processes; default: one a core"},
    }
    raise SystemExit(command(make, PACKAGES, "one sample of each", options=more))
