"""Real files through both notebooks' programs: held-out log-likelihood beside what one tries first.

The files are columns of data sets that come with statsmodels, scikit-learn and vega_datasets,
written as .csv and read back as `DATASET = "file.csv:column"` would be. Of our four models the one
with the highest log-likelihood of the validation points is compared with the yardsticks on the test
points. A process a core, one thread each; a run that was stopped goes on where it was.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from math import inf
from pathlib import Path

import pandas as pd
import torch

from benchmarks.common import Row, Tables, command, runs
from benchmarks.estimators import notebook
from dlutils.data.datasets import Dataset, load_dataset
from dlutils.estimators import held_out
from dlutils.estimators.view import bends_of

PACKAGES = ("torch", "numpy", "scipy", "pandas", "statsmodels", "scikit-learn", "vega_datasets")
FOLDER = Path("build/own_data")
OURS = ("ODE", "ODE, matched", "SDE", "SDE, solved")


def table(library: str, name: str) -> pd.DataFrame:
    """A data set that comes with a library."""
    if library == "statsmodels":
        import statsmodels.api as sm

        return getattr(sm.datasets, name).load_pandas().data
    if library == "sklearn":
        from sklearn import datasets

        options = {"scaled": False} if name == "diabetes" else {}
        return getattr(datasets, f"load_{name}")(as_frame=True, **options).data
    from vega_datasets import local_data

    return getattr(local_data, name)()


POSITIVE = {"support": (0.0, inf)}
# The column of a file; whose data set it is; what `load_dataset` is told; what the numbers are.
FILES: dict[str, tuple[str, dict[str, object], str]] = {
    "sunspots.csv:SUNACTIVITY": (
        "statsmodels",
        POSITIVE | {"rounding": 0.1},
        "a year's sunspots, 1700 to 2008",
    ),
    "nile.csv:volume": ("statsmodels", {"rounding": 1}, "a year's flow of the Nile"),
    "randhie.csv:mdvis": (
        "statsmodels",
        POSITIVE | {"rounding": 1},
        "visits to a physician, counts",
    ),
    "engel.csv:income": ("statsmodels", POSITIVE, "incomes of Belgian households"),
    "co2.csv:co2": (
        "statsmodels",
        {"drop_missing": True, "rounding": 0.1},
        "carbon dioxide, weekly",
    ),
    "star98.csv:AVYRSEXP": (
        "statsmodels",
        POSITIVE | {"weights": "NABOVE"},
        "teachers' years in schools, weighted by pupils",
    ),
    "breast_cancer.csv:mean area": ("sklearn", POSITIVE, "areas of cell nuclei"),
    "wine.csv:alcohol": ("sklearn", {"rounding": 0.01}, "alcohol in Italian wines"),
    "diabetes.csv:bmi": ("sklearn", {"rounding": 0.1}, "body mass index of patients"),
    "seattle_weather.csv:precipitation": (
        "vega",
        POSITIVE | {"rounding": 0.1},
        "a day's rain, half of them none",
    ),
    "seattle_temps.csv:temp": ("vega", {"rounding": 0.1}, "hourly temperatures"),
    "cars.csv:Miles_per_Gallon": (
        "vega",
        POSITIVE | {"drop_missing": True, "rounding": 0.1},
        "cars' miles a gallon",
    ),
}
QUICK = ("nile.csv:volume", "engel.csv:income")


def read(source: str, seed: int) -> Dataset:
    """Write the table to a file, and read the column as a notebook does."""
    library, options, _ = FILES[source]
    FOLDER.mkdir(parents=True, exist_ok=True)
    file, column = source.split(":")
    path = FOLDER / f"{seed}_{file}"
    table(library, file.removesuffix(".csv")).to_csv(path, index=False)
    return load_dataset(f"{path}:{column}", seed=seed, **options)


def measure(config: Mapping[str, object]) -> dict[str, object]:
    """All models on one split of one file.

    Args:
        config: source, one of `FILES`, and seed, which names the split.

    Returns:
        n; chosen, the one of ours that is best on the validation points; log_likelihood of the
        test points by model, nats; ahead, the chosen one's minus that of each, and the standard
        error of that; seconds by model; notes: errors, and what the notebook says of the data.
    """
    torch.set_num_threads(1)
    data, seed = read(config["source"], config["seed"]), config["seed"]
    ode, sde = notebook("ODE.ipynb"), notebook("SDE.ipynb")
    proper = {"method": "rk4", "n_steps": 10, "logdet": "map", "n_bins": 64, "progress": False}
    fits = {
        "ODE": lambda: ode.train(data, "auto", seed=seed, optimizer="natural", **proper),
        "ODE, matched": lambda: ode.flow_matching(data, smooth=True),
        "SDE": lambda: sde.train(data, seed=seed, progress=False),
        "SDE, solved": lambda: sde.least_squares(data),
    }
    weights, found, on_val, seconds, notes = data.weights, {}, {}, {}, [data.description]
    for name, fit in fits.items():
        start = time.perf_counter()
        try:
            model = fit()
            found[name] = held_out.log_likelihood(model, data)
            on_val[name], _ = held_out.mean_and_error(
                model.log_likelihood(data.val), weights.get("val")
            )
        except ValueError as error:
            found.pop(name, None)
            notes.append(f"{name}: {error}")
        seconds[name] = time.perf_counter() - start
    for name, log_q in held_out.rivals(data).items():
        found[name] = held_out.log_likelihood(log_q, data)
    chosen, summary = max(on_val, key=on_val.get), lambda v: held_out.mean_and_error(
        v, weights.get("test")
    )  # fmt: skip
    return {
        "n": len(data.points),
        "chosen": chosen,
        "log_likelihood": {name: summary(log_p) for name, log_p in found.items()},
        "ahead": {name: summary(found[chosen] - log_p) for name, log_p in found.items()},
        "seconds": seconds,
        "bends": [type(bend).__name__ for bend in bends_of(data)],
        "notes": notes,
    }


def make(options: argparse.Namespace) -> Tables:
    """Fit ODE and SDE to twelve real files and compare them with four yardsticks."""
    sources = QUICK if options.quick else tuple(FILES)
    configs = [{"source": source, "seed": 0} for source in sources]
    rows = {row["source"]: row for row in runs(measure, configs, options)}
    return {
        "Files": [_file(source, rows[source]) for source in sources],
        "Held-out points": [_line(source, rows[source]) for source in sources],
        "Ours": [_ours(source, rows[source]) for source in sources],
    }


def _file(source: str, row: Row) -> Row:
    _, options, what = FILES[source]
    told = ", ".join(f"{name.upper()} = {value}" for name, value in options.items()) or "–"
    seen = ", ".join(row["bends"]) or "–"
    return {"file": source, "what": what, "n": row["n"], "told": told, "coordinate": seen}


def _line(source: str, row: Row) -> Row:
    """Ours and its lead over the yardsticks."""
    ahead = {name: pair for name, pair in row["ahead"].items() if name not in OURS}
    best = min(ahead, key=lambda name: ahead[name][0])
    mean, error = ahead[best]
    return {
        "file": source.partition(":")[2],
        "ours": row["chosen"],
        "log-likelihood": f"{row['log_likelihood'][row['chosen']][0]:.3f}",
        **{name: f"{mean:.3f} ± {error:.3f}" for name, (mean, error) in ahead.items()},
        "behind by": "–" if mean >= 0 else f"{-mean / error:.1f} se, {best}",
    }


def _ours(source: str, row: Row) -> Row:
    """The four models beside each other."""
    cells = {
        name: f"{row['log_likelihood'][name][0]:.3f}" if name in row["log_likelihood"] else "–"
        for name in OURS
    }
    seconds = ", ".join(f"{row['seconds'][name]:.1f}" for name in OURS)
    return {"file": source.partition(":")[2], **cells, "seconds": seconds}


if __name__ == "__main__":
    sys.exit(command(make, PACKAGES, "two files"))
