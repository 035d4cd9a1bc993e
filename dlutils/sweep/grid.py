"""From a TOML file to configurations, and from a configuration to a trained and measured model."""

import hashlib
import inspect
import itertools
import platform
import tomllib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import torch

from dlutils import notebooks
from dlutils.comparison import compare
from dlutils.datasets import check_name, make_dataset
from dlutils.sweep.jobs import Config
from dlutils.sweep.results import Row
from dlutils.training import fit

SIZES = ("n_train", "n_val", "n_test")
NOT_AXES = (
    "label",
    "progress",
    "quantity",
    "callback",
    "precision",
    "around_start",
    "climber",
    "judge",
    "astray",
    "start",
)  # not for a user to set


def read(path: str | Path) -> list[Config]:
    """The configurations of a TOML file, each complete: what the file leaves out is filled in.

    Args:
        path: See `dlutils.sweep`; `notebook` and `dataset` must be there.

    Raises:
        ValueError: If the file is not TOML, or a key or a dataset is unknown; the error says which
            and what there is.
    """
    path = Path(path)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no file {str(path)!r}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    for key in ("notebook", "dataset"):
        if key not in given:
            raise ValueError(f"{path} does not say which {key}")
    notebook = given.pop("notebook")
    if not isinstance(notebook, str):
        raise ValueError(f"notebook must be one file name, not {notebook!r}")
    known = _defaults(_load(str(Path(notebook).resolve())))
    axes = {key: value if isinstance(value, list) else [value] for key, value in given.items()}
    for key, values in axes.items():
        if key != "dataset" and key not in known:
            raise ValueError(
                f"unknown key {key!r}; {notebook} has {', '.join(['dataset', *known])}"
            )
        if not values:
            raise ValueError(f"the list of {key} is empty")
    for name in axes["dataset"]:
        check_name(name)
    combinations = itertools.product(*axes.values())
    return [
        {"notebook": notebook, **known, **dict(zip(axes, c, strict=True))} for c in combinations
    ]


def train_and_measure(config: Config) -> Row:
    """One run: simulate the data, train, compare with the truth; one thread.

    Args:
        config: One of `read`; a relative notebook is looked for in the working directory.

    Returns:
        normalized_kl, kl and mass by quadrature, bound_kl if the model has a bound (all nats);
        train, val: last values in training, test: mean log-likelihood of the test points, expected:
        the truth's on the same points; seconds of training, number of weights, why it stopped
        early if it did; versions, and a digest of the notebook's code.

    Raises:
        ValueError: From the notebook, if a value is out of range.
    """
    torch.set_num_threads(1)
    path = str(Path(config["notebook"]).resolve())
    notebook = _load(path)
    settings = {key: value for key, value in config.items() if key not in ("notebook", "dataset")}
    sizes = {key: settings.pop(key) for key in SIZES}
    dataset = make_dataset(config["dataset"], **sizes, seed=settings["seed"])
    model = notebook.train(dataset, **settings, progress=False)
    found = compare(dataset, model.log_likelihood)
    row = {"normalized_kl": found.normalized_kl, "kl": found.kl, "mass": found.mass}
    if hasattr(model, "elbo"):
        row["bound_kl"] = compare(dataset, model.elbo, 401).kl
    net = next(value for value in vars(model).values() if isinstance(value, torch.nn.Module))
    return row | {
        "train": model.history.train[-1],
        "val": model.history.val[-1],
        "test": model.log_likelihood(dataset.test).mean().item(),
        "expected": dataset.expected_log_likelihood,
        "seconds": model.history.seconds,
        "stopped": model.history.stopped,
        "weights": sum(p.numel() for p in net.parameters()),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numpy", "scipy")},
        "code": _digest(path),
    }


def _defaults(notebook: ModuleType) -> dict[str, object]:
    """Every key that a run may have besides notebook and dataset, with its default."""
    known = {}
    for function in (make_dataset, fit, notebook.train):
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not inspect.Parameter.empty and name not in NOT_AXES:
                known[name] = parameter.default
    return known


@cache
def _load(path: str) -> ModuleType:
    return notebooks.load(path)


@cache
def _digest(path: str) -> str:
    """Of the notebook's code, to tell later which version made a row."""
    cells = notebooks.read_cells(path)
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:12]
