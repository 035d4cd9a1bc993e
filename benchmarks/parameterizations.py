"""Question 2.4 in full: every path with every noise and every drift net, on several seeds.

A process a core, one thread each; a run that was stopped goes on where it was.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from benchmarks.common import Options, Row, Tables, command, page, runs, short, write_csv
from benchmarks.estimators import notebook
from dlutils import plotting
from dlutils.data.datasets import make_dataset
from dlutils.evaluation import compare
from dlutils.tools.sweep.jobs import Config

PACKAGES = ("torch", "numpy", "scipy")
AXES = ("path", "noise", "drift")
POINTS = 401  # of the quadrature
STEPS = 200  # of the Fokker-Planck equation
SEEDS, ITERATIONS = 3, 300
PAGE = Path("docs/parameterizations.md")
RAW = Path("benchmarks/results/parameterizations.csv")
FIGURE = "SDE_parameterizations"
BRIGHT = "gap / nats (bright: a tight bound)"


def grid(seeds: int, iterations: int, quick: bool = False) -> list[Config]:
    """All runs; quick: of the first path and the first two noises and drifts alone."""
    sde = notebook("SDE.ipynb")
    drifts = [name for name in sde.DRIFTS if name != "basis"]  # that one is solved for
    axes = [list(sde.PATHS), list(sde.DIFFUSIONS), drifts]
    if quick:
        axes = [axes[0][:1], axes[1][:2], axes[2][:2]]
    return [
        {**dict(zip(AXES, names, strict=True)), "seed": seed, "iterations": iterations}
        for seed in range(seeds)
        for names in product(*axes)
    ]


def measure(config: Config) -> Row:
    """Train one model, sample and weights with the same seed; its two distances from the truth.

    Returns:
        gap: of the bound, and KL: of the model's own density, nats; six digits, for the last ones
        differ by machine.
    """
    torch.set_num_threads(1)
    sde, names = notebook("SDE.ipynb"), [config[axis] for axis in AXES]
    mixture = make_dataset("laplace_mixture", seed=config["seed"])
    model = sde.train(
        mixture,
        *names,
        t_sampler="lattice",
        seed=config["seed"],
        delta=sde.DELTA,
        batch_size=sde.BATCH_SIZE // 2,
        n_iterations=config["iterations"],
        learning_rate=sde.LEARNING_RATE,
        progress=False,
    )
    gap = compare(mixture, lambda y: model.elbo(y, 32, 16), POINTS).kl
    kl = compare(mixture, replace(model, n_steps=STEPS).log_likelihood, POINTS).kl
    return {"gap": float(f"{gap:.6g}"), "KL": float(f"{kl:.6g}")}


def means(rows: Sequence[Row]) -> pd.DataFrame:
    """Gap and KL over the seeds, and the standard error of the gap; by path, noise and drift."""
    found = pd.DataFrame(rows).groupby(list(AXES), sort=False)
    return found.agg(gap=("gap", "mean"), error=("gap", "sem"), KL=("KL", "mean"))


def tables(rows: Sequence[Row]) -> Tables:
    """For each path the mean gap, its standard error and the mean KL, by noise and drift."""
    words = lambda name: name.replace("_", " ")
    found: dict[str, dict[str, Row]] = {}
    for (path, noise, drift), mean in means(rows).iterrows():
        lines = found.setdefault(f"{words(path)} path".capitalize(), {})
        error = "" if pd.isna(mean.error) else f" ± {short(mean.error)}"  # of one seed
        cell = {words(drift): f"{short(mean.gap)}{error} ({short(mean.KL)})"}
        lines[noise] = lines.get(noise, {"noise": words(noise)}) | cell
    return {caption: list(lines.values()) for caption, lines in found.items()}


def draw(rows: Sequence[Row], folder: Path) -> None:
    """A map for each path: the mean gaps, in brackets the mean KLs."""
    found = means(rows)
    labels = "{} path", "noise", "drift (in each cell: gap, in brackets KL; bold: the least gap)"
    with plt.style.context("dlutils.report"):
        fig = plotting.heat_maps(found.gap.to_dict(), found.KL.to_dict(), labels, BRIGHT)
        plotting.save_figure(fig, FIGURE, folder)
    plt.close(fig)


def lines(rows: Sequence[Row]) -> list[str]:
    """What was run, and how to read the tables."""
    seeds, iterations = len({row["seed"] for row in rows}), rows[0]["iterations"]
    return [
        f"Every path with every noise (diffusion coefficient) and every drift net of "
        f"[SDE.ipynb](../SDE.ipynb), {len(means(rows))} models, trained by the bound for "
        f"{iterations} iterations on the Laplace mixture; seeds: {seeds}, each with a sample and "
        "first weights of its own.",
        "A cell has the mean over the seeds of the gap, which is how far the bound lies below the "
        "truth, ± its standard error, and in brackets the mean KL from the truth to the model's "
        "own density, both in nats. The gap less the KL is how loose the bound is. All have "
        "the same seeds, so two of them are compared by their paired differences, which the CSV "
        f"has. What was still to learn after {iterations} iterations is part of every number.",
        "`python -m benchmarks.parameterizations` writes this page, its figure and "
        f"`{RAW.as_posix()}`, a row a run.",
    ]


def make(options: Options) -> Tables:
    """Train and measure every parameterization of question 2.4, on several seeds."""
    configs = grid(1, 2, True) if options.quick else grid(SEEDS, ITERATIONS)
    keys = (*AXES, "seed", "iterations", "gap", "KL")
    rows = [{key: row[key] for key in keys} for row in runs(measure, configs, options)]
    found = tables(rows)
    if not options.quick:
        draw(rows, Path("figures"))
        write_csv(RAW, rows)
        figure = (
            f"![The tables as maps: the brighter, the tighter the bound](../figures/{FIGURE}.png)"
        )
        text = [*lines(rows), figure, *options.machine]
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page("Parameterizations of the SDE", text, found), encoding="utf-8")
    return found


if __name__ == "__main__":
    quick = "four models, one seed, two iterations; the page stays"
    raise SystemExit(command(make, PACKAGES, quick))
