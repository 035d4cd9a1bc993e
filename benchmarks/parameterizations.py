"""Question 2.4 in full: every path with every noise and every drift net, on several seeds.

A process a core, one thread each; a run that was stopped goes on where it was.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.common import Row, Tables, command, page, runs, short, write_csv
from benchmarks.estimators import notebook
from dlutils import plotting
from dlutils.data.datasets import make_dataset
from dlutils.evaluation import compare
from dlutils.tools.sweep.jobs import Config

PACKAGES = ("torch", "numpy", "scipy")
DATASET = "laplace_mixture"
AXES = ("path", "noise", "drift")
POINTS = 401  # of the quadrature
STEPS = 200  # of the Fokker-Planck equation
SEEDS, ITERATIONS = 3, 300
Names = tuple[str, ...]  # of path, noise and drift
PAGE = Path("docs/parameterizations.md")
RAW = Path("benchmarks/results/parameterizations.csv")
FIGURE = "SDE_parameterizations"


@dataclass(frozen=True)
class Mean:
    """Over the seeds, nats.

    Attributes:
        gap: Of the bound.
        error: Its standard error; None for one seed.
        kl: Of the density.
    """

    gap: float
    error: float | None
    kl: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Mean":
        """From a row of gap and KL a seed."""
        (gap, kl), n = values.T, len(values)
        error = float(gap.std(ddof=1) / n**0.5) if n > 1 else None
        return cls(float(gap.mean()), error, float(kl.mean()))

    def __str__(self) -> str:
        """As in a table."""
        error = "" if self.error is None else f" ± {short(self.error)}"
        return f"{short(self.gap)}{error} ({short(self.kl)})"


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
        gap: of the bound, and KL: of the model's own density, nats.
    """
    torch.set_num_threads(1)
    sde, names = notebook("SDE.ipynb"), [config[axis] for axis in AXES]
    mixture = make_dataset(DATASET, seed=config["seed"])
    model = sde.train(
        mixture,
        *names,
        t_sampler=sde.T_SAMPLER,
        seed=config["seed"],
        delta=sde.DELTA,
        batch_size=sde.BATCH_SIZE // 2,
        n_iterations=config["iterations"],
        learning_rate=sde.LEARNING_RATE,
        progress=False,
    )
    gap = compare(mixture, lambda y: model.elbo(y, 32, 16), POINTS).kl
    kl = compare(mixture, replace(model, n_steps=STEPS).log_likelihood, POINTS).kl
    return {"gap": gap, "KL": kl}


def raw(rows: Sequence[Row]) -> list[Row]:
    """Configuration and results alone; six digits, the last ones differ by machine."""
    digits = lambda row: {key: float(f"{row[key]:.6g}") for key in ("gap", "KL")}
    return [{key: row[key] for key in (*AXES, "seed", "iterations")} | digits(row) for row in rows]


def means(rows: Sequence[Row]) -> dict[Names, Mean]:
    """Over the seeds, by path, noise and drift."""
    found: dict[Names, list[tuple[float, float]]] = {}
    for row in rows:
        names = tuple(row[axis] for axis in AXES)
        found.setdefault(names, []).append((row["gap"], row["KL"]))
    return {names: Mean.of(np.array(values)) for names, values in found.items()}


def tables(rows: Sequence[Row]) -> Tables:
    """For each path the mean gap, its standard error and the mean KL, by noise and drift."""
    found: dict[str, dict[str, Row]] = {}
    for (path, noise, drift), mean in means(rows).items():
        lines = found.setdefault(f"{_words(path)} path".capitalize(), {})
        line = lines.setdefault(noise, {"noise": _words(noise)})
        line[_words(drift)] = str(mean)
    return {caption: list(lines.values()) for caption, lines in found.items()}


def draw(rows: Sequence[Row], folder: Path) -> None:
    """A map for each path: the mean gaps, in brackets the mean KLs."""
    found = means(rows)
    gap, kl = ({names: getattr(of, key) for names, of in found.items()} for key in ("gap", "kl"))
    labels = "{} path", "noise", "drift (in each cell: gap, in brackets KL)"
    with plt.style.context("dlutils.report"):
        fig = plotting.heat_maps(gap, kl, labels, "gap / nats")
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
        "own density, both in nats. The gap less the KL is how loose the bound is. Two cells that "
        "differ by less than twice their standard errors are not told apart by these seeds. What "
        f"was still to learn after {iterations} iterations is part of every number.",
        "`python -m benchmarks.parameterizations` writes this page, its figure and "
        f"`{RAW.as_posix()}`, a row a run.",
    ]


def write(rows: Sequence[Row], machine: Sequence[str], root: Path) -> None:
    """The page, the figure and the rows, in their folders of the project."""
    draw(rows, root / "figures")
    write_csv(root / RAW, rows)
    figure = f"![The tables as maps: the darker, the larger the gap](../figures/{FIGURE}.png)"
    text = page("Parameterizations of the SDE", [*lines(rows), figure, *machine], tables(rows))
    (root / PAGE).parent.mkdir(parents=True, exist_ok=True)
    (root / PAGE).write_text(text, encoding="utf-8")


def make(options: argparse.Namespace) -> Tables:
    """Train and measure every parameterization of question 2.4, on several seeds."""
    configs = grid(1, 2, True) if options.quick else grid(SEEDS, ITERATIONS)
    rows = raw(runs(measure, configs, options))
    if not options.quick:
        write(rows, options.machine, Path())
    return tables(rows)


def _words(name: str) -> str:
    return name.replace("_", " ")


if __name__ == "__main__":
    sys.exit(command(make, PACKAGES, "four models, one seed, two iterations; the page stays"))
