"""The fifteen densities of Marron & Wand: how far each estimator is from the truth.

`python -m benchmarks.marron_wand --help` lists the options. Results go to a file as they come, so a
run that was stopped goes on where it was. A process a core, one thread each.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.common import Row, Tables, command
from benchmarks.estimators import ESTIMATORS, GRID, measure
from dlutils import plotting
from dlutils.datasets import DISTRIBUTIONS, make_dataset
from dlutils.processes import cores
from dlutils.sweep.jobs import process_pool, run_all
from dlutils.sweep.results import load, summarize

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "KDEpy", "zuko")
DENSITIES = [name for name in DISTRIBUTIONS if name.startswith("marron_wand")]
RIVALS = [name for name in ESTIMATORS if name not in ("ODE", "SDE")]


def title(density: str) -> str:
    """Its number and Marron & Wand's name for it."""
    description = DISTRIBUTIONS[density][0]
    return description.partition("number ")[2].partition(":")[0].replace(", ", " ", 1)


def table(rows: list[Row], densities: list[str], n: int) -> list[Row]:
    """Mean KL and standard error in thousandths of a nat, a line for each density."""
    means = {
        (row["density"], row["estimator"]): row
        for row in summarize(
            [row for row in rows if row["n"] == n], ["density", "estimator"], ["kl", "seconds"]
        )
    }
    lines, wins = [], 0
    for density in densities:
        line: Row = {"density": title(density)}
        kl = {name: means[density, name]["kl"] for name in ESTIMATORS}
        for name in ESTIMATORS:
            error = means[density, name]["kl ±"]
            text = f"{1e3 * kl[name]:.2f}" + ("" if error is None else f" ± {1e3 * error:.2f}")
            line[name] = f"**{text}**" if kl[name] == min(kl.values()) else text
        wins += kl["ODE"] < min(kl[name] for name in RIVALS)
        lines.append(line)
    seconds: Row = {"density": "seconds a fit, mean"}
    for name in ESTIMATORS:
        mean = np.mean([means[density, name]["seconds"] for density in densities])
        seconds[name] = f"{mean:.2g}" if mean < 10 else f"{mean:.0f}"
    best: Row = dict.fromkeys(lines[0], "") | {
        "density": "the ODE is closer than all but the SDE on",
        "ODE": f"{wins} of {len(densities)}",
    }
    return [*lines, seconds, best]


def draw(rows: list[Row], n: int) -> None:
    """Truth and the ODE's fit to one sample, a panel a density: figures/marron_wand."""
    plotting.use_style()
    fig, axes = plt.subplots(5, 3, figsize=(plotting.PAGE, 7.6))
    found = {row["density"]: row for row in rows if row["n"] == n and "log_q" in row}
    for ax, density in zip(axes.flat, DENSITIES, strict=True):
        row = found[density]
        dataset = make_dataset(density, n_train=n, seed=0)
        y = np.linspace(*dataset.support, GRID)
        ax.plot(y, dataset.log_prob(y).exp(), color=plotting.COLORS["truth"], lw=0.8, label="truth")
        ax.plot(
            y[::10], np.exp(row["log_q"]), "--", color=plotting.COLORS["model"], lw=0.8, label="ODE"
        )
        ax.set_title(f"{title(density)}: KL {1e3 * row['kl']:.1f}", fontsize=7)
        ax.set_yticks([])
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    fig.supxlabel("$y$ (KL in thousandths of a nat)", fontsize=8)
    plotting.save_figure(fig, "marron_wand")
    plt.close(fig)


def make(options: argparse.Namespace) -> tuple[list[str], Tables]:
    """Notes and tables."""
    sizes, seeds = ([10_000], range(1)) if options.quick else ([1000, 10_000], range(5))
    densities = [DENSITIES[k] for k in (1, 3, 9, 14)] if options.quick else DENSITIES
    configs = [
        {"density": density, "n": n, "seed": seed, "estimator": estimator}
        for seed in seeds
        for n in reversed(sizes)
        for density in densities
        for estimator in ESTIMATORS
    ]
    path = Path(options.output) / f"marron_wand{'_quick' if options.quick else ''}.jsonl"
    if options.fresh:
        path.unlink(missing_ok=True)
    pool = process_pool(cores(), ["benchmarks.estimators"])
    failed = run_all(measure, configs, path, pool, cores() + 1, label="marron_wand")
    rows = [row for row in load(path) if row["n"] in sizes and row["seed"] in seeds]
    if failed:
        errors = {row["error"] for row in rows if row["status"] == "failed"}
        raise RuntimeError(f"{failed} fits failed: {'; '.join(sorted(errors))}")
    if not options.quick:
        draw(rows, max(sizes))
    note = (
        f"KL(truth || estimate) with the mass divided out, thousandths of a nat, mean over "
        f"{len(seeds)} sample{'s' if len(seeds) > 1 else ''} ± standard error; the smallest of a "
        "line in bold. ODE: the best of four flows by Akaike's criterion with the effective number "
        "of parameters, which were chosen while looking at samples 0 and 1; SDE: the exact density "
        "of the notebook's default. Fits run side by side, one thread each."
    )
    return [note], {f"n = {n:,}": table(rows, densities, n) for n in sizes}


def main(arguments: list[str] | None = None) -> int:
    """Compare ODE, SDE, kernel estimates, EM mixtures and a spline flow on 15 densities."""
    quick = "four of the densities, one sample of 10,000 points each"
    flags = {"--fresh": "forget the results so far"}
    return command("marron_wand", main.__doc__, quick, PACKAGES, make, arguments, flags)


if __name__ == "__main__":
    sys.exit(main())
