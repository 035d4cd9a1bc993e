"""Densities on the line by differential equations, where the truth is known.

`data` is what is fitted; `flows` stands behind ODE.ipynb and `diffusion` behind SDE.ipynb;
`estimators` is what one would try first; `tools` are commands, and what is not needed to compute.
What the notebooks share stands beside them.
"""

from dlutils.arrays import dtype_of
from dlutils.data import DISTRIBUTIONS, Dataset, load_dataset, make_dataset
from dlutils.evaluation import compare
from dlutils.notebook import load
from dlutils.seeding import seeded

__all__ = [
    "DISTRIBUTIONS",
    "Dataset",
    "compare",
    "dtype_of",
    "load",
    "load_dataset",
    "make_dataset",
    "seeded",
]
