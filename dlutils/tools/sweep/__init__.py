"""Train over a grid: every combination of the lists in a TOML file, in parallel, resumable.

    notebook = "ODE.ipynb"
    dataset = ["gaussian", "laplace_mixture"]
    drift = ["mlp", "sigmoid_basis"]
    method = ["euler", "rk4"]
    n_steps = [10, 100]
    seed = [0, 1, 2]
    n_iterations = 300

`python -m dlutils.tools.sweep CONFIG` runs the 48 trainings. Keys are what the notebook's `train`,
`dlutils.training.fit` and `make_dataset` take, for a dataset that is a file `load_dataset`; a list
is an axis of the grid, anything else is the same for all. `seed` names both the data and the
training.

    from dlutils.tools import sweep
    rows = sweep.load("CONFIG.jsonl")
    sweep.plot(rows, x="n_steps", by="method")
"""

from dlutils.tools.sweep.grid import read, train_and_measure
from dlutils.tools.sweep.results import load, plot, summarize

__all__ = ["load", "plot", "read", "summarize", "train_and_measure"]
