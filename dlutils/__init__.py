"""Densities on the line by differential equations, where the truth is known.

`data` is what is fitted; `flows` stands behind ODE.ipynb and `diffusion` behind SDE.ipynb;
`estimators` is what one would try first; `density` goes from a sample to its density in one line;
`tools` are commands, and what is not needed to compute. What the notebooks share stands beside
them.
"""

from dlutils.arrays import dtype_of
from dlutils.data import DISTRIBUTIONS, Dataset, load_dataset, make_dataset
from dlutils.density import FittedDensity, fit_density
from dlutils.evaluation import compare
from dlutils.notebook import load
from dlutils.seeding import seeded

__all__ = [
    "DISTRIBUTIONS",
    "Dataset",
    "FittedDensity",
    "compare",
    "dtype_of",
    "fit_density",
    "load",
    "load_dataset",
    "make_dataset",
    "seeded",
]
