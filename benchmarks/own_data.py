"""Real files through both notebooks' programs: held-out log-likelihood beside what one tries first.

The files are columns of data sets that come with statsmodels, scikit-learn and vega_datasets,
written as .csv and read back as `DATASET = "file.csv:column"` would be. Of our four models the one
with the highest log-likelihood of the validation points is compared with the yardsticks on the test
points. A process a core, one thread each; a run that was stopped goes on where it was.
"""

import time
from collections.abc import Mapping
from math import inf
from pathlib import Path

import pandas as pd
import torch

from benchmarks.common import Options, Row, Tables, command, runs
from dlutils import diffusion, flows
from dlutils.data.datasets import Dataset, load_dataset
from dlutils.estimators import held_out
from dlutils.estimators.view import bends_of

PACKAGES = ("torch", "numpy", "scipy", "pandas", "statsmodels", "scikit-learn", "vega_datasets")
FOLDER = Path("build/own_data")
OURS = ("ODE", "ODE, matched", "SDE", "SDE, solved")


def table(library: str, name: str) -> pd.DataFrame:
    """A data set that comes with a library."""
    if library == "statsmodels":
        from statsmodels.api import datasets

        return getattr(datasets, name).load_pandas().data
    if library == "sklearn":
        from sklearn import datasets

        options = {"scaled": False} if name == "diabetes" else {}
        return getattr(datasets, f"load_{name}")(as_frame=True, **options).data
    from vega_datasets import local_data

    return getattr(local_data, name)()


POSITIVE = {"support": (0.0, inf)}
# The column of a file; whose data set it is; what the numbers are; what `load_dataset` is told.
FILES: dict[str, tuple[str, str, dict[str, object]]] = {
    "sunspots.csv:SUNACTIVITY": (
        "statsmodels", "a year's sunspots, 1700 to 2008", POSITIVE | {"rounding": 0.1}),
    "nile.csv:volume": ("statsmodels", "a year's flow of the Nile", {"rounding": 1}),
    "randhie.csv:mdvis": (
        "statsmodels", "visits to a physician, counts", POSITIVE | {"rounding": 1}),
    "engel.csv:income": ("statsmodels", "incomes of Belgian households", POSITIVE),
    "co2.csv:co2": (
        "statsmodels", "carbon dioxide, weekly", {"drop_missing": True, "rounding": 0.1}),
    "star98.csv:AVYRSEXP": (
        "statsmodels", "teachers' years in schools, weighted by pupils",
        POSITIVE | {"weights": "NABOVE"}),
    "breast_cancer.csv:mean area": ("sklearn", "areas of cell nuclei", POSITIVE),
    "wine.csv:alcohol": ("sklearn", "alcohol in Italian wines", {"rounding": 0.01}),
    "diabetes.csv:bmi": ("sklearn", "body mass index of patients", {"rounding": 0.1}),
    "seattle_weather.csv:precipitation": (
        "vega", "a day's rain, half of them none", POSITIVE | {"rounding": 0.1}),
    "seattle_temps.csv:temp": ("vega", "hourly temperatures", {"rounding": 0.1}),
    "cars.csv:Miles_per_Gallon": (
        "vega", "cars' miles a gallon", POSITIVE | {"drop_missing": True, "rounding": 0.1}),
}  # fmt: skip
QUICK = ("nile.csv:volume", "engel.csv:income")


def read(source: str, seed: int) -> Dataset:
    """Write the table to a file, and read the column as a notebook does."""
    library, _, told = FILES[source]
    FOLDER.mkdir(parents=True, exist_ok=True)
    file, column = source.split(":")
    path = FOLDER / f"{seed}_{file}"
    table(library, file.removesuffix(".csv")).to_csv(path, index=False)
    return load_dataset(f"{path}:{column}", seed=seed, **told)


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
    proper = {"method": "rk4", "n_steps": 10, "logdet": "map", "n_bins": 64, "progress": False}
    fits = {
        "ODE": lambda: flows.train(data, "auto", seed=seed, optimizer="natural", **proper),
        "ODE, matched": lambda: flows.flow_matching(data, smooth=True),
        "SDE": lambda: diffusion.train(data, seed=seed, progress=False),
        "SDE, solved": lambda: diffusion.least_squares(data),
    }
    mean = lambda values, part: held_out.mean_and_error(values, data.weights.get(part))
    found, on_val, seconds, notes = {}, {}, {}, [data.description]
    for name, fit in fits.items():
        start = time.perf_counter()
        try:
            model = fit()
            of_test = held_out.log_likelihood(model, data)
            on_val[name], _ = mean(model.log_likelihood(data.val), "val")
            found[name] = of_test
        except ValueError as error:
            notes.append(f"{name}: {error}")
        seconds[name] = time.perf_counter() - start
    rivals = held_out.rivals(data).items()
    found |= {name: held_out.log_likelihood(log_q, data) for name, log_q in rivals}
    chosen = max(on_val, key=on_val.get)
    return {
        "n": len(data.points),
        "chosen": chosen,
        "log_likelihood": {name: mean(log_p, "test") for name, log_p in found.items()},
        "ahead": {name: mean(found[chosen] - log_p, "test") for name, log_p in found.items()},
        "seconds": seconds,
        "bends": [type(bend).__name__ for bend in bends_of(data)],
        "notes": notes,
    }


def results(rows: list[Row]) -> Tables:
    """The files; ours and its lead over the yardsticks; our four models beside each other."""
    files, lines, ours = [], [], []
    for row in rows:
        _, what, told = FILES[row["source"]]
        column, chosen, of = row["source"].partition(":")[2], row["chosen"], row["log_likelihood"]
        told = ", ".join(f"{name.upper()} = {value}" for name, value in told.items()) or "–"
        file: Row = {"file": row["source"], "what": what, "n": row["n"], "told": told}
        files.append(file | {"coordinate": ", ".join(row["bends"]) or "–"})

        ahead = {name: pair for name, pair in row["ahead"].items() if name not in OURS}
        best = min(ahead, key=lambda name: ahead[name][0])
        mean, error = ahead[best]
        line = {"file": column, "ours": chosen, "log-likelihood": f"{of[chosen][0]:.3f}"}
        line |= {name: f"{mean:.3f} ± {error:.3f}" for name, (mean, error) in ahead.items()}
        behind = "–" if mean >= 0 else f"{-mean / error:.1f} se, {best}"
        lines.append(line | {"behind by": behind})

        cells = {name: f"{of[name][0]:.3f}" if name in of else "–" for name in OURS}
        seconds = ", ".join(f"{row['seconds'][name]:.1f}" for name in OURS)
        ours.append({"file": column} | cells | {"seconds": seconds})
    return {"Files": files, "Held-out points": lines, "Ours": ours}


def make(options: Options) -> Tables:
    """Fit ODE and SDE to twelve real files and compare them with four yardsticks."""
    sources = QUICK if options.quick else FILES
    return results(runs(measure, [{"source": source, "seed": 0} for source in sources], options))


if __name__ == "__main__":
    raise SystemExit(command(make, PACKAGES, "two files"))
