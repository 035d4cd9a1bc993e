"""The command `python -m dlutils fit data.csv:height`."""

import argparse
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from dlutils import plotting
from dlutils.density.fitting import MODELS, FittedDensity, fit_density


def main(arguments: list[str] | None = None) -> int:
    """Fit a density to a column of numbers: print what was chosen, draw it with its band, save it.

    Written are a figure (PDF and PNG), the curve with its band (CSV) and the fit itself (.pt, for
    torch.load with weights_only=False).
    """
    parser = argparse.ArgumentParser(prog="python -m dlutils", description="Densities on the line.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fit = commands.add_parser("fit", help="a column of numbers", description=main.__doc__)
    fit.add_argument("source", help="data.csv, or data.csv:height for one of its columns")
    ends = {"nargs": 2, "type": float}
    fit.add_argument("--support", **ends, metavar=("LOW", "HIGH"), help="bounds; inf for none")
    fit.add_argument("--truncated", **ends, metavar=("A", "B"), help="the window of the records")
    fit.add_argument("--rounding", type=float, metavar="STEP", help="of rounded data; 1 for counts")
    fit.add_argument("--weights", metavar="COLUMN", help="what each row counts")
    fit.add_argument("--censored", metavar="COLUMN", help="0 known, 1 lies above, -1 lies below")
    fit.add_argument("--drop-missing", action="store_true", help="leave out rows without a value")
    fit.add_argument("--model", choices=MODELS, default="best", help="default: %(default)s")
    fit.add_argument("--level", type=float, default=0.95, help="of the band; default: %(default)s")
    fit.add_argument("--folder", type=Path, default=Path("figures"), help="default: %(default)s")
    options = vars(parser.parse_args(arguments))
    source, level, folder = (options.pop(name) for name in ("source", "level", "folder"))
    try:
        q = fit_density(source, **options)
        path = save(q, folder, level)
    except (ValueError, OSError) as error:
        fit.error(str(error))
    print(q.summary())
    print(f"written: {path}.pdf, .png, .csv, .pt")
    return 0


def save(q: FittedDensity, folder: Path, level: float = 0.95) -> Path:
    """Write figure, curve and fit into a folder, which is made; their path without an ending."""
    name = re.sub(r"\W+", "_", q.observations.name).strip("_") + "_density"
    plotting.use_style()
    ax = q.plot(level=level)
    plotting.save_figure(ax.figure, name, folder)
    plt.close(ax.figure)
    y = np.linspace(*q.range(), 1001)
    low, high = q.band(y, level)
    columns = {"y": y, "density": q.pdf(y), "low": low, "high": high, "cdf": q.cdf(y)}
    path = folder / name
    pd.DataFrame(columns).to_csv(f"{path}.csv", index=False, lineterminator="\n")
    torch.save(q, f"{path}.pt")
    return path
