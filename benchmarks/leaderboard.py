"""Every contender on every density of two collections, from 100 to 10 000 points.

The densities of Marron & Wand are mixtures of Gaussians, those of Berlinet & Devroye mostly are
not. Samples are seeds 10 to 14, at which nothing was chosen. A process
a core, one thread each; a run that was stopped goes on where it was.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from math import inf

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import rankdata

from benchmarks.common import Row, Tables, command, runs
from benchmarks.estimators import CONTENDERS, measure
from dlutils import plotting
from dlutils.data.datasets import DISTRIBUTIONS, density_of

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "KDEpy", "zuko", "suftware")
SEEDS = range(10, 15)
SIZES = (100, 1000, 10_000)
SUITES = {
    suite: [name for name in DISTRIBUTIONS if name.startswith(prefix)]
    for suite, prefix in (("Marron & Wand", "marron_wand"), ("Berlinet & Devroye", "benchden"))
}
QUICK = {
    "Marron & Wand": ["marron_wand_02", "marron_wand_10"],
    "Berlinet & Devroye": ["benchden_05"],
}
OURS = "ODE or SDE"
Distances = dict[str, np.ndarray]  # by contender, thousandths of a nat, (densities, seeds)


def title(density: str) -> str:
    """Its number and its authors' name for it."""
    return density_of(density)[0].partition("number ")[2].partition(":")[0].replace(", ", " ", 1)


def distances(rows: Sequence[Row], densities: Sequence[str], n: int) -> Distances:
    """KL in thousandths of a nat; infinite where there is no density, or it is zero at data."""
    seeds = sorted({row["seed"] for row in rows})
    found = {name: np.full((len(densities), len(seeds)), np.nan) for name in CONTENDERS}
    for row in rows:
        if row["n"] == n and row["density"] in densities:
            at = densities.index(row["density"]), seeds.index(row["seed"])
            for name, of in found.items():
                of[at] = inf if row["kl"][name] is None else 1e3 * row["kl"][name]
    return found


def closest(kl: Distances) -> tuple[list[str], dict[str, np.ndarray]]:
    """The closest contender on each density, and whose distance is within one standard error.

    The standard error is that of the mean difference on the same samples.
    """
    names, means = list(kl), np.stack([of.mean(axis=1) for of in kl.values()])
    best = [names[k] for k in means.argmin(axis=0)]
    near = {}
    for name, of in kl.items():
        with np.errstate(invalid="ignore"):  # infinity less infinity
            behind = of - np.stack([kl[b][i] for i, b in enumerate(best)])
        near[name] = np.isfinite(of).all(axis=1) & (behind.mean(axis=1) <= _error(behind))
    return best, near


def table(kl: Distances, densities: Sequence[str]) -> list[Row]:
    """Mean and standard error, a line a density; the closest in bold."""
    best, _ = closest(kl)
    lines = []
    for i, density in enumerate(densities):
        cells = {name: _cell(of[i]) for name, of in kl.items()}
        cells[best[i]] = f"**{cells[best[i]]}**"
        lines.append({"density": title(density), "floor": floor(density)} | cells)
    means = {name: f"{of.mean():.3g}" if np.isfinite(of).all() else "–" for name, of in kl.items()}
    return [*lines, {"density": "mean", "floor": ""} | means]


def standings(rows: Sequence[Row], densities: Sequence[str], sizes: Sequence[int]) -> list[Row]:
    """A line a contender: its mean rank, on how many it is closest or near, and seconds a fit."""
    lines = {name: {"contender": name} for name in CONTENDERS}
    for n in sizes:
        kl = distances(rows, densities, n)
        best, near = closest(kl)
        ranks = rankdata([of.mean(axis=1) for of in kl.values()], axis=0).mean(axis=1)
        for name, rank in zip(kl, ranks, strict=True):
            lines[name] |= {
                f"rank, n = {n:,}": float(rank),
                f"closest, n = {n:,}": best.count(name),
                f"or near, n = {n:,}": int(near[name].sum()),
            }
    for name, line in lines.items():
        of = [
            r["seconds"][name] for r in rows if r["n"] == max(sizes) and r["density"] in densities
        ]
        line["seconds"] = float(np.median(of))
    return sorted(lines.values(), key=lambda line: line[f"rank, n = {max(sizes):,}"])


def mean_ranks(tables: Tables, suites: Iterable[str], sizes: Sequence[int]) -> list[Row]:
    """From the standings, the ranks alone: a line a contender."""
    lines = {name: {"contender": name} for name in CONTENDERS}
    for suite, n in product(suites, sizes):
        for row in tables[f"Standings, {suite}"]:
            lines[row["contender"]][f"{suite}, n = {n:,}"] = row[f"rank, n = {n:,}"]
    return list(lines.values())


def losses(rows: Sequence[Row], suites: dict[str, list[str]], sizes: Sequence[int]) -> list[Row]:
    """Where ours is behind the closest by more than a standard error."""
    lines = []
    for (suite, densities), n in product(suites.items(), sizes):
        kl = distances(rows, densities, n)
        best, near = closest(kl)
        for i, density in enumerate(densities):
            if not near[OURS][i]:
                behind = kl[OURS][i] - kl[best[i]][i]
                lines.append(
                    {
                        "suite": suite,
                        "n": n,
                        "density": title(density),
                        "closest": best[i],
                        "its KL": _cell(kl[best[i]][i]),
                        OURS: _cell(kl[OURS][i]),
                        "behind": _cell(behind),
                    }
                )
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
        for k, (name, of) in enumerate(distances(rows, densities, n).items()):
            style = plotting.line_style(k) | {"ls": "", "mfc": "none", "label": name}
            if name == OURS:
                style |= {"mfc": plotting.COLORS["model"], "color": plotting.COLORS["model"]}
            ax.plot(np.minimum(of.mean(axis=1), 1e4), range(len(densities)), **style)
        ax.set_yticks(range(len(densities)), [title(density) for density in densities], fontsize=6)
        ax.set(xscale="log", title=f"{suite}, n = {n:,}", ylim=(len(densities) - 0.5, -0.5))
        ax.grid(axis="y", lw=0.3)
    fig.supxlabel("KL from the truth, thousandths of a nat", fontsize=8)
    fig.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, fontsize=6
    )
    plotting.save_figure(fig, "leaderboard")
    plt.close(fig)


def make(options: argparse.Namespace) -> Tables:
    """Rank ODE, SDE, mixtures, penalised likelihood, kernels and a spline flow."""
    suites, sizes, seeds = (QUICK, (1000,), (10,)) if options.quick else (SUITES, SIZES, SEEDS)
    configs = [
        {"density": density, "n": n, "seed": seed}
        for seed in seeds
        for n in reversed(sizes)
        for densities in suites.values()
        for density in densities
    ]
    rows = runs(measure, configs, options)
    if not options.quick:
        draw(rows, [("Marron & Wand", max(sizes)), ("Berlinet & Devroye", 1000)])
    what = [{"contender": name} | row for name, (_, row) in CONTENDERS.items()]
    tables = {"Contenders": what}
    for suite, densities in suites.items():
        tables[f"Standings, {suite}"] = standings(rows, densities, sizes)
    tables["Mean ranks"] = mean_ranks(tables, suites, sizes)
    if len(seeds) > 1:
        tables[f"Where “{OURS}” is behind"] = losses(rows, suites, sizes)
    for (suite, densities), n in product(suites.items(), reversed(sizes)):
        tables[f"{suite}, n = {n:,}"] = table(distances(rows, densities, n), densities)
    return tables


def _cell(kl: np.ndarray) -> str:
    """Mean ± standard error."""
    if not np.isfinite(kl).all():
        return "–"
    digits = 2 if abs(kl.mean()) < 100 else 0
    return f"{kl.mean():.{digits}f}" + (f" ± {_error(kl):.{digits}f}" if len(kl) > 1 else "")


def _error(values: np.ndarray) -> np.ndarray:
    """The standard error of the mean along the last axis; zero for one value."""
    n = values.shape[-1]
    with np.errstate(invalid="ignore"):
        return values.std(axis=-1, ddof=1) / n**0.5 if n > 1 else np.zeros(values.shape[:-1])


if __name__ == "__main__":
    sys.exit(command(make, PACKAGES, "three densities, one sample of 1000 points each"))
