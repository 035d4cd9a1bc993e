"""The contenders of the leaderboard that are quick, a thousand points: Hellinger distances.

On all densities of both collections, at seeds at which nothing was chosen.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from benchmarks.common import Options, Row, Tables, command, runs
from benchmarks.density import mean
from benchmarks.estimators import measure
from benchmarks.leaderboard import QUICK, SUITES, title

PACKAGES = ("torch", "numpy", "scipy", "KDEpy", "suftware", "MDL-Density-Histogram")
NAMES = ["fit_density", "histogram", "histogram, MDL", "EM, grown", "penalised", "DEFT"]
NAMES += ["KDE, Scott", "KDE, Botev"]
OURS, BESIDE = "fit_density", "histogram"
JUMPS = [f"benchden_{number:02d}" for number in (1, 2, 9, 13, 25, 26)]
FIRST_SEED, N_POINTS = 300, 1000
DISTANCES = ("kl", "ise", "squared_hellinger")


def squared_distances(rows: Sequence[Row], density: str, name: str) -> np.ndarray:
    """Squared Hellinger distances in thousandths, by seed; NaN where there is no density."""
    of = [row["squared_hellinger"][name] for row in rows if row["density"] == density]
    return 1e3 * np.array(of, dtype=float)


def table(rows: Sequence[Row], densities: Sequence[str]) -> list[Row]:
    """Mean and standard error of the samples, a line a density."""
    lines = []
    for density in densities:
        found = {name: squared_distances(rows, density, name) for name in NAMES}
        cells = {
            name: mean(of, 1.0, 2) if np.isfinite(of).all() else "–" for name, of in found.items()
        }
        lines.append({"density": title(density)} | cells)
    return lines


def beside(rows: Sequence[Row], densities: Sequence[str]) -> list[Row]:
    """Ours beside the histogram: ratio of the means, and the difference on the same samples."""
    lines = []
    for density in densities:
        ours, its = (squared_distances(rows, density, name) for name in (OURS, BESIDE))
        line = {"density": title(density), "samples": len(ours)}
        line |= {OURS: mean(ours, 1.0, 2), BESIDE: mean(its, 1.0, 2)}
        line |= {"ratio": float(ours.mean() / its.mean()), "difference": mean(ours - its, 1.0, 2)}
        lines.append(line)
    return lines


def make(options: Options) -> Tables:
    """Measure distances of what is quick: ours, histograms, mixtures, kernels."""
    suites = QUICK if options.quick else SUITES
    densities = [density for suite in suites.values() for density in suite]
    seeds = range(FIRST_SEED, FIRST_SEED + (1 if options.quick else options.samples))
    configs = [
        {"density": density, "n": N_POINTS, "seed": seed, "contenders": NAMES}
        for seed, density in product(seeds, densities)
    ]
    rows = runs(measure, configs, options, options.workers)
    options.fits = [
        {key: row[key] for key in ("density", "n", "seed", "coordinate")}
        | {"contender": name}
        | {what: row[what][name] for what in DISTANCES}
        | {"seconds": row["seconds"][name]}
        for row, name in product(rows, NAMES)
    ]
    tables = {suite: table(rows, of_suite) for suite, of_suite in suites.items()}
    jumps = [density for density in JUMPS if density in densities]
    return tables | {"Where the density jumps": beside(rows, jumps)}


if __name__ == "__main__":
    more = {
        "--samples": {"type": int, "default": 8, "help": "of each density; default: %(default)s"},
        "--workers": {"type": int, "default": None, "help": "processes; default: one a core"},
    }
    raise SystemExit(command(make, PACKAGES, "three densities, one sample", options=more))
