"""Every contender on every density of two collections, from 100 to 10 000 points.

The densities of Marron & Wand are mixtures of Gaussians, those of Berlinet & Devroye mostly are
not. Samples are seeds 10 to 14, at which nothing was chosen. A process
a core, one thread each; a run that was stopped goes on where it was.
"""

from collections.abc import Iterable, Sequence
from itertools import product
from math import inf

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import rankdata

from benchmarks.common import SEEDS, Options, Row, Tables, command, runs
from benchmarks.estimators import CONTENDERS, measure
from dlutils import plotting
from dlutils.data.datasets import DISTRIBUTIONS, density_of

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "KDEpy", "zuko", "suftware")
PACKAGES += ("MDL-Density-Histogram",)
SIZES = (100, 1000, 10_000)
SUITES = {
    suite: [name for name in DISTRIBUTIONS if name.startswith(prefix)]
    for suite, prefix in (("Marron & Wand", "marron_wand"), ("Berlinet & Devroye", "benchden"))
}
QUICK = {
    "Marron & Wand": ["marron_wand_02", "marron_wand_10"],
    "Berlinet & Devroye": ["benchden_05"],
}
NAMES, OURS = list(CONTENDERS), "ODE or SDE"
FURTHER = {"ISE": "ise", "squared Hellinger distance": "squared_hellinger"}  # from the same fits


def title(density: str) -> str:
    """Its number and its authors' name for it."""
    return density_of(density)[0].partition("number ")[2].partition(":")[0].replace(", ", " ", 1)


def distances(
    rows: Sequence[Row], densities: Sequence[str], n: int, what: str = "kl"
) -> np.ndarray:
    """KL in thousandths of a nat, `(contenders, densities, seeds)`; NaN where nothing was measured.

    Or thousandths of another distance of `FURTHER`. Infinite where there is no density, or it is
    zero at data.
    """
    seeds = sorted({row["seed"] for row in rows})
    found = np.full((len(NAMES), len(densities), len(seeds)), np.nan)
    for row in rows:
        if row["n"] == n and row["density"] in densities:
            values = [row[what].get(name) for name in NAMES]
            values = [inf if value is None else 1e3 * value for value in values]
            found[:, densities.index(row["density"]), seeds.index(row["seed"])] = values
    return found


def closest(kl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of the closest on each density, and who is within one standard error of it.

    The standard error is that of the mean difference on the same samples.
    """
    best = kl.mean(axis=2).argmin(axis=0)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        behind = kl - np.take_along_axis(kl, best[None, :, None], axis=0)
    return best, np.isfinite(kl).all(axis=2) & (behind.mean(axis=2) <= standard_error(behind))


def standard_error(values: np.ndarray) -> np.ndarray:
    """Of the mean along the last axis; zero for one value."""
    n = values.shape[-1]
    with np.errstate(invalid="ignore"):
        return values.std(axis=-1, ddof=1) / n**0.5 if n > 1 else np.zeros(values.shape[:-1])


def cell(kl: np.ndarray) -> str:
    """Mean ± standard error of the samples, `(seeds,)`."""
    if not np.isfinite(kl).all():
        return "–"
    digits = 2 if abs(kl.mean()) < 100 else 0
    error = f" ± {standard_error(kl):.{digits}f}" if len(kl) > 1 else ""
    return f"{kl.mean():.{digits}f}{error}"


def table(kl: np.ndarray, densities: Sequence[str]) -> list[Row]:
    """Mean and standard error, a line a density; the closest in bold."""
    best, _ = closest(kl)
    lines = []
    for i, density in enumerate(densities):
        cells = [cell(of) for of in kl[:, i]]
        cells[best[i]] = f"**{cells[best[i]]}**"
        line = {"density": title(density), "floor": floor(density)}
        lines.append(line | dict(zip(NAMES, cells, strict=True)))
    means = [f"{of.mean():.3g}" if np.isfinite(of).all() else "–" for of in kl]
    return [*lines, {"density": "mean", "floor": "–"} | dict(zip(NAMES, means, strict=True))]


def standings(rows: Sequence[Row], densities: Sequence[str], sizes: Sequence[int]) -> list[Row]:
    """A line a contender: its mean rank, on how many it is closest or near, and seconds a fit."""
    lines = {name: {"contender": name} for name in NAMES}
    for n in sizes:
        kl = distances(rows, densities, n)
        best, near = closest(kl)
        ranks = rankdata(kl.mean(axis=2), axis=0).mean(axis=1)
        for k, line in enumerate(lines.values()):
            line[f"rank, n = {n:,}"] = float(ranks[k])
            line[f"closest, n = {n:,}"] = int((best == k).sum())
            line[f"or near, n = {n:,}"] = int(near[k].sum())
    largest = [row for row in rows if row["n"] == max(sizes) and row["density"] in densities]
    for name, line in lines.items():
        line["seconds"] = float(np.median([row["seconds"][name] for row in largest]))
    return sorted(lines.values(), key=lambda line: line[f"rank, n = {max(sizes):,}"])


def mean_ranks(tables: Tables, suites: Iterable[str], sizes: Sequence[int]) -> list[Row]:
    """From the standings, the ranks alone: a line a contender."""
    lines = {name: {"contender": name} for name in NAMES}
    for suite, n in product(suites, sizes):
        for row in tables[f"Standings, {suite}"]:
            lines[row["contender"]][f"{suite}, n = {n:,}"] = row[f"rank, n = {n:,}"]
    return list(lines.values())


def ranks_by(rows: Sequence[Row], what: str, suites: dict[str, list[str]], sizes: Sequence[int]):
    """Mean ranks by another distance: a line a contender."""
    lines = {name: {"contender": name} for name in NAMES}
    for (suite, densities), n in product(suites.items(), sizes):
        means = distances(rows, densities, n, what).mean(axis=2)
        for line, rank in zip(lines.values(), rankdata(means, axis=0).mean(axis=1), strict=True):
            line[f"{suite}, n = {n:,}"] = float(rank)
    return list(lines.values())


def fits(rows: Sequence[Row]) -> list[Row]:
    """One row a fit: what was measured, unrounded."""
    return [
        {key: row[key] for key in ("density", "n", "seed", "coordinate")}
        | {"contender": name}
        | {what: row[what].get(name) for what in ("kl", *FURTHER.values(), "seconds")}
        for row, name in product(rows, NAMES)
    ]


def losses(rows: Sequence[Row], suites: dict[str, list[str]], sizes: Sequence[int]) -> list[Row]:
    """Where ours is behind the closest by more than a standard error."""
    lines = []
    for (suite, densities), n in product(suites.items(), sizes):
        kl = distances(rows, densities, n)
        best, near = closest(kl)
        ours = NAMES.index(OURS)
        for i in np.flatnonzero(~near[ours]):
            its, of_ours = kl[best[i], i], kl[ours, i]
            line = {"suite": suite, "n": n, "density": title(densities[i])}
            line |= {"closest": NAMES[best[i]], "its KL": cell(its)}
            lines.append(line | {OURS: cell(of_ours), "behind": cell(of_ours - its)})
    return lines


def floor(density: str, n: int = 10_000) -> str:
    """What the true family costs, k/2n for k parameters, thousandths of a nat: of mixtures."""
    components = density_of(density)[0].partition("mixture of ")[2].partition(" ")[0]
    return f"{1e3 * (3 * int(components) - 1) / (2 * n):.2f}" if components.isdigit() else "–"


def draw(rows: Sequence[Row], shown: Sequence[tuple[str, int]]) -> None:
    """All distances of a suite at a size, a line a density, a mark a contender."""
    plotting.use_style()
    fig, axes = plt.subplots(1, len(shown), figsize=(plotting.PAGE, 4.6))
    for ax, (suite, n) in zip(axes, shown, strict=True):
        densities = SUITES[suite]
        means = np.minimum(distances(rows, densities, n).mean(axis=2), 1e4)
        for k, (name, of) in enumerate(zip(NAMES, means, strict=True)):
            style = plotting.line_style(k) | {"ls": "", "mfc": "none", "label": name}
            if name == OURS:
                style |= {"mfc": plotting.COLORS["model"], "color": plotting.COLORS["model"]}
            ax.plot(of, range(len(densities)), **style)
        ax.set_yticks(range(len(densities)), map(title, densities), fontsize=6)
        ax.set(xscale="log", title=f"{suite}, n = {n:,}", ylim=(len(densities) - 0.5, -0.5))
        ax.grid(axis="y", lw=0.3)
    fig.supxlabel("KL from the truth, thousandths of a nat", fontsize=8)
    lines = axes[0].get_legend_handles_labels()
    fig.legend(*lines, loc="outside upper center", ncols=6, fontsize=6)
    plotting.save_figure(fig, "leaderboard")
    plt.close(fig)


def make(options: Options) -> Tables:
    """Rank ODE, SDE, mixtures, penalised likelihood, kernels and a spline flow."""
    suites, sizes, seeds = (QUICK, (1000,), (10,)) if options.quick else (SUITES, SIZES, SEEDS)
    densities = [density for of_suite in suites.values() for density in of_suite]
    grid = product(seeds, reversed(sizes), densities)
    configs = [{"density": density, "n": n, "seed": seed} for seed, n, density in grid]
    rows = runs(measure, configs, options)
    tables = {
        "Contenders": [
            {"contender": name, "what": what, "chooses": chooses}
            for name, (_, what, chooses) in CONTENDERS.items()
        ]
    }
    for suite, densities in suites.items():
        tables[f"Standings, {suite}"] = standings(rows, densities, sizes)
    tables["Mean ranks"] = mean_ranks(tables, suites, sizes)
    for name, what in FURTHER.items():
        tables[f"Mean ranks, {name}"] = ranks_by(rows, what, suites, sizes)
    options.fits = fits(rows)
    if not options.quick:
        draw(rows, [("Marron & Wand", max(sizes)), ("Berlinet & Devroye", 1000)])
        tables[f"Where “{OURS}” is behind"] = losses(rows, suites, sizes)
    for (suite, densities), n in product(suites.items(), reversed(sizes)):
        tables[f"{suite}, n = {n:,}"] = table(distances(rows, densities, n), densities)
    return tables


if __name__ == "__main__":
    raise SystemExit(command(make, PACKAGES, "three densities, one sample of 1000 points each"))
