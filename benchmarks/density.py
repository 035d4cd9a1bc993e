"""One line from data to density: do its bands cover the truth, and how near is it to it?

All 37 densities of two collections. The settings of `fit_density` and its band were chosen on
samples of seeds from 100 to 111, with some results of seeds 10 to 14 and 20 to 27 in sight; what is
reported are seeds from 200 on.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtr
from scipy.stats import rankdata

from benchmarks.common import Options, Row, Tables, command, runs
from benchmarks.leaderboard import QUICK, SUITES, standard_error, title
from dlutils import fit_density
from dlutils.data.datasets import make_dataset
from dlutils.estimators.histogram import irregular_histogram
from dlutils.evaluation import compare

PACKAGES = ("torch", "numpy", "scipy")
PUBLISHED = Path(__file__).parent / "published" / "thornton2026_marron_wand_ise.csv"
LEVEL, FIRST_SEED = 0.95, 200
SIZES, SIZES_PUBLISHED = (1000, 10_000), (100, 500, 5000)
OURS = "fit_density"
STEPS, N_STEPS = ("benchden_01", "benchden_13", "benchden_26"), 1000  # constant between jumps
SIZES_CHOICE, MOST_CHOICE = (100, 500), 5  # samples on which what could be chosen is compared

# two bells, and their spikes: share of each, centres, standard deviation
SPIKED = "marron_wand_13"
BELLS = 0.46, (-1, 1), 2 / 3
SPIKES = {"narrow spikes": (1 / 300, (-1.5, -1, -0.5), 0.01),
          "wide spikes": (7 / 300, (0.5, 1, 1.5), 0.07)}  # fmt: skip


def measure(config: Mapping[str, object]) -> Row:
    """One sample: coverage of the band on average over the density, and distances from the truth.

    Args:
        config: density, n, and seed.

    Returns:
        model, coordinate, coverage, kl (nats), ise, squared_hellinger and the processor's seconds;
        of a density in steps also squared_hellinger_histogram, of an irregular histogram; of one
        with spikes also the coverage in each part.
    """
    torch.set_num_threads(1)
    dataset = make_dataset(config["density"], config["n"], 2, 2, seed=config["seed"])
    start = time.process_time()  # one thread: what it takes where nothing else runs
    q = fit_density(dataset.train)
    seconds = time.process_time() - start
    found = compare(dataset, lambda y: torch.from_numpy(q.log_prob(y)))
    p, (low, high) = np.exp(found.log_p), q.band(found.y, LEVEL)
    within = (low <= p) & (p <= high)
    further = {}
    if config["density"] in STEPS and config["n"] == N_STEPS:
        alone = compare(dataset, irregular_histogram(dataset.train))
        further["squared_hellinger_histogram"] = alone.squared_hellinger
    mass = found.weights * p
    covered = lambda part: float(mass[part] @ within[part] / mass[part].sum())
    if config["density"] == SPIKED:
        further |= {name: covered(part) for name, part in parts(found.y).items()}
    return further | {
        "model": q.chosen.name.partition(" ")[0],
        "coordinate": ", ".join(type(bend).__name__ for bend in q.units.bends) or "Identity",
        "coverage": covered(slice(None)),
        "kl": found.normalized_kl,
        "ise": found.ise,
        "squared_hellinger": found.squared_hellinger,
        "seconds": seconds,
    }


def measure_choice(config: Mapping[str, object]) -> Row:
    """One sample: integrated squared errors of the flow, the SDE, what is chosen, and of a mean.

    Args:
        config: density, n, and seed.

    Returns:
        In thousandths: chosen, flow, SDE, nearer, and weighted, the mean of flow and SDE by
        Akaike's weights.
    """
    torch.set_num_threads(1)
    dataset = make_dataset(config["density"], config["n"], 2, 2, seed=config["seed"])
    fits = [fit_density(dataset.train, model=model) for model in ("best", "flow", "sde")]
    evidence = np.array([fit.chosen.evidence for fit in fits[1:]])
    weights = np.exp(evidence - evidence.max())

    def weighted(y: torch.Tensor) -> torch.Tensor:
        densities = [fit.pdf(y) for fit in fits[1:]]
        return torch.from_numpy(np.average(densities, axis=0, weights=weights)).log()

    of_fits = (lambda y, fit=fit: torch.from_numpy(fit.log_prob(y)) for fit in fits)
    ise = [1e3 * compare(dataset, log_q).ise for log_q in (*of_fits, weighted)]
    found = dict(zip(("chosen", "flow", "SDE", "weighted"), ise, strict=True))
    return found | {"nearer": min(found["flow"], found["SDE"])}


def parts(y: np.ndarray) -> dict[str, np.ndarray]:
    """Which places lie within two standard deviations of a spike, and which of none."""
    found = {
        name: (np.abs(y[:, None] - centres) < 2 * sd).any(axis=1)
        for name, (_, centres, sd) in SPIKES.items()
    }
    return found | {"elsewhere": ~np.any(list(found.values()), axis=0)}


def mean(values: Sequence[float], factor: float = 1.0, digits: int = 3) -> str:
    """Mean ± standard error of the samples."""
    values = factor * np.asarray(values, dtype=float)
    error = f" ± {standard_error(values):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}"


def of(rows: Sequence[Row], density: str, n: int, what: str) -> list[float]:
    """A measured quantity on all samples of a density and a size."""
    return [row[what] for row in rows if row["density"] == density and row["n"] == n]


def coverage(rows: Sequence[Row], densities: Sequence[str], sizes: Sequence[int]) -> list[Row]:
    """Mean share of the density, by probability, that lies in its band; a line a density."""
    lines = []
    for density in densities:
        line = {"density": title(density)}
        for n in sizes:
            line[f"coverage, n = {n:,}"] = mean(of(rows, density, n, "coverage"))
            line[f"KL, n = {n:,}"] = mean(of(rows, density, n, "kl"), 1e3, 2)
            line[f"H², n = {n:,}"] = mean(of(rows, density, n, "squared_hellinger"), 1e3, 2)
        lines.append(line)
    return lines


def coverage_in_short(rows: Sequence[Row], sizes: Sequence[int]) -> list[Row]:
    """The mean over the densities, the least, which it is, and seconds a fit."""
    lines = []
    for n in sizes:
        densities = dict.fromkeys(row["density"] for row in rows if row["n"] == n)
        means = {density: np.mean(of(rows, density, n, "coverage")) for density in densities}
        least = min(means, key=means.get)
        seconds = [row["seconds"] for row in rows if row["n"] == n]
        lines.append(
            {
                "n": n,
                "densities": len(means),
                "samples each": len({row["seed"] for row in rows if row["n"] == n}),
                "mean coverage": f"{np.mean(list(means.values())):.3f}",
                "least": f"{means[least]:.3f}, {title(least)}",
                "below 0.8": ", ".join(title(d) for d, m in means.items() if m < 0.8) or "none",
                "seconds, median": float(np.median(seconds)),
                "within 1 s": f"{np.mean(np.array(seconds) <= 1):.0%}",
            }
        )
    return lines


def at_spikes(rows: Sequence[Row], sizes: Sequence[int]) -> list[Row]:
    """Coverage by places; and within two deviations of one spike how many points are its own.

    And how many are the bells', on the mean of its like, with the deviation of their number.
    """
    lines = []
    for name in (*SPIKES, "elsewhere"):
        line = {"places": name}
        for n in sizes:
            if name in SPIKES:
                share, centres, sd = SPIKES[name]
                height, tops, width = BELLS
                ends = np.add.outer((-2 * sd, 2 * sd), centres)[..., None]
                below = height * ndtr((ends - tops) / width).sum(axis=-1)
                bells = n * np.diff(below, axis=0).mean()
                own = n * share * (ndtr(2) - ndtr(-2))
                line[f"own points, n = {n:,}"] = f"{own:.0f}"
                line[f"the bells', n = {n:,}"] = f"{bells:.0f} ± {bells**0.5:.0f}"
            line[f"coverage, n = {n:,}"] = mean(of(rows, SPIKED, n, name))
        lines.append(line)
    return lines


def in_steps(rows: Sequence[Row]) -> list[Row]:
    """Thousandths of H², ours and that of an irregular histogram of the same samples."""
    lines = []
    for density in STEPS:
        if ours := of(rows, density, N_STEPS, "squared_hellinger"):
            alone = of(rows, density, N_STEPS, "squared_hellinger_histogram")
            line = {"density": title(density), OURS: mean(ours, 1e3, 2)}
            line["irregular histogram"] = mean(alone, 1e3, 2)
            lines.append(line | {"ratio of the means": float(np.mean(ours) / np.mean(alone))})
    return lines


def choices(rows: Sequence[Row], n: int) -> list[Row]:
    """Mean ISE in thousandths by density, and on the mean: what choosing better could bring."""
    densities = dict.fromkeys(row["density"] for row in rows)
    names = ("chosen", "flow", "SDE", "nearer", "weighted")
    means = np.array([[np.mean(of(rows, d, n, name)) for name in names] for d in densities])
    table = dict(zip(map(title, densities), means, strict=True)) | {"mean": means.mean(axis=0)}
    return [
        {"density": density} | dict(zip(names, line.tolist(), strict=True))
        for density, line in table.items()
    ]


def published(rows: Sequence[Row], n: int) -> list[tuple[str, dict[str, float], np.ndarray]]:
    """The density, published mean ISE by estimator, and ours on each sample, in thousandths."""
    table = pd.read_csv(PUBLISHED)
    table = table[table["n"] == n].drop(columns="n")
    found = []
    for record in table.to_dict("records"):
        density = f"marron_wand_{record.pop('density'):02d}"
        if values := of(rows, density, n, "ise"):
            found.append((density, record, 1e3 * np.array(values)))
    return found


def ranks(rows: Sequence[Row], sizes: Sequence[int]) -> list[Row]:
    """Mean rank of each by mean ISE, and on how many densities ours is below it and above it.

    In brackets those by more than two of our standard errors; the published have none.
    """
    lines = {}
    for n in sizes:
        of_n = published(rows, n)
        if not of_n:
            continue
        theirs = np.array([list(record.values()) for _, record, _ in of_n])
        ours = np.array([values.mean() for *_, values in of_n])[:, None]
        sure = 2 * np.array([standard_error(values) for *_, values in of_n])[:, None]
        mean_ranks = rankdata(np.hstack([theirs, ours]), axis=1).mean(axis=0)
        won, lost = (theirs > ours).sum(axis=0), (theirs < ours).sum(axis=0)
        surely_won = (theirs > ours + sure).sum(axis=0)
        surely_lost = (theirs < ours - sure).sum(axis=0)
        for k, name in enumerate([*of_n[0][1], OURS]):
            line = lines.setdefault(name, {"estimator": name})
            line[f"rank, n = {n:,}"] = float(mean_ranks[k])
            if name != OURS:
                counts = f"{won[k]} : {lost[k]} ({surely_won[k]} : {surely_lost[k]})"
                line[f"ours below : above, n = {n:,}"] = counts
    return list(lines.values())


def beside_published(rows: Sequence[Row], n: int) -> list[Row]:
    """Mean ISE in thousandths: the published columns, and ours with its standard error.

    That of the last line is of the mean over the densities, sample by sample.
    """
    lines, ours = [], []
    for density, record, values in published(rows, n):
        ours.append(values)
        lines.append({"density": title(density)} | record | {OURS: mean(values, digits=2)})
    if not lines:
        return []
    means = {name: float(np.mean([line[name] for line in lines])) for name in record}
    best = [min(line[name] for name in record) for line in lines]
    wins = int((np.mean(ours, axis=1) < best).sum())
    last = {"density": f"mean; ours is below all on {wins} of {len(lines)}"} | means
    return [*lines, last | {OURS: mean(np.mean(ours, axis=0), digits=2)}]


def make(options: Options) -> Tables:
    """Measure coverage of bands and distances from the truth of `fit_density`."""
    samples = 1 if options.quick else options.samples
    suites = QUICK if options.quick else SUITES
    densities = [density for suite in suites.values() for density in suite]
    seeds = range(FIRST_SEED, FIRST_SEED + samples)
    normal = suites["Marron & Wand"]
    grid = [*product(seeds, SIZES_PUBLISHED, normal), *product(seeds, SIZES, densities)]
    grid.sort(key=lambda run: run[0])
    configs = [{"density": density, "n": n, "seed": seed} for seed, n, density in grid]
    rows = runs(measure, configs, options, options.workers)
    few = [config | {"of": "choice"} for config in configs if config["n"] in SIZES_CHOICE]
    few = [config for config in few if config["seed"] < FIRST_SEED + MOST_CHOICE]
    choice = runs(measure_choice, few, options, options.workers)
    tables = {"Coverage in short": coverage_in_short(rows, SIZES)}
    for suite, of_suite in suites.items():
        tables[f"Coverage, {suite}"] = coverage(rows, of_suite, SIZES)
    if SPIKED in densities:
        tables[f"Coverage by places, {title(SPIKED)}"] = at_spikes(rows, SIZES)
    tables["Where the density is constant between jumps"] = in_steps(rows)
    for n in SIZES_CHOICE:
        tables[f"What choosing better could bring, n = {n:,}"] = choices(choice, n)
    tables["Ranks by mean ISE"] = ranks(rows, SIZES_PUBLISHED)
    for n in SIZES_PUBLISHED:
        tables[f"ISE, n = {n:,}"] = beside_published(rows, n)
    keys = ("density", "n", "seed", "model", "coordinate", "coverage", "kl", "ise",
            "squared_hellinger", "squared_hellinger_histogram", "seconds")  # fmt: skip
    keys += (*SPIKES, "elsewhere")
    options.fits = [{key: row[key] for key in keys if key in row} for row in rows]
    return tables


if __name__ == "__main__":
    more = {
        "--samples": {"type": int, "default": 50, "help": "of each density; default: %(default)s"},
        "--workers": {"type": int, "default": None, "help": "processes; default: one a core"},
    }
    raise SystemExit(command(make, PACKAGES, "three densities, one sample", options=more))
