"""From a TOML file to configurations, and from a configuration to a trained and measured model."""

import hashlib
import inspect
import itertools
import json
import math
import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from dlutils.data.datasets import Dataset, check_name, load_dataset, make_dataset
from dlutils.data.reading import is_source, split_source
from dlutils.estimators import held_out
from dlutils.evaluation import compare
from dlutils.notebook import find, load, read_cells
from dlutils.tools.commands import read_toml
from dlutils.tools.sweep.jobs import Config, identity
from dlutils.tools.sweep.results import Row
from dlutils.training import fit

SIZES = ("n_train", "n_val", "n_test")  # for a simulated sample alone
OF_FILES = (  # for a file alone
    *("drop_missing", "support", "rounding", "weights"),
    *("thousands", "decimal", "encoding", "skip_rows"),
)
NOT_AXES = (  # not for a user to set
    *("label", "progress", "quantity", "callback", "precision", "around_start", "climber"),
    *("judge", "start"),
)
_load = cache(load)


def read(path: str | Path) -> list[Config]:
    """The configurations of a TOML file, each complete: what the file leaves out is filled in.

    A dataset that is a file is made an absolute path; it is looked for beside the TOML file, then
    in the working directory. Its configurations have the keys of `load_dataset` in place of the
    sizes of a simulated sample.

    Args:
        path: See `dlutils.tools.sweep`; `notebook` and `dataset` must be there.

    Raises:
        ValueError: If the file is not TOML, a key or a dataset is unknown, or a dataset's file
            cannot be read so; the error says which and what there is.
    """
    path = Path(path)
    given = read_toml(path)
    for key in ("notebook", "dataset"):
        if key not in given:
            raise ValueError(f"{path} does not say which {key}")
    notebook = given.pop("notebook")
    if not isinstance(notebook, str):
        raise ValueError(f"notebook must be one file name, not {notebook!r}")
    known = {"dataset": None}
    for function in (make_dataset, load_dataset, fit, _load(str(find(notebook).resolve())).train):
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not parameter.empty and name not in NOT_AXES:
                known[name] = parameter.default
    axes = {key: _values(key, value) for key, value in given.items()}
    for key, values in axes.items():
        if key not in known:
            raise ValueError(f"unknown key {key!r}; {notebook} has {', '.join(known)}")
        if not values:
            raise ValueError(f"the list of {key} is empty")
    axes["dataset"] = [_source(name, path.parent) for name in axes["dataset"]]
    if not any(map(is_source, axes["dataset"])) and (alone := [k for k in OF_FILES if k in axes]):
        raise ValueError(f"{', '.join(alone)}: for files, and no dataset is one")
    configs, files = {}, {}
    for values in itertools.product(*axes.values()):
        config = {"notebook": notebook, **known, **dict(zip(axes, values, strict=True))}
        if is_source(config["dataset"]):
            files[str([config[key] for key in ("dataset", *OF_FILES)])] = config
        for key in SIZES if is_source(config["dataset"]) else OF_FILES:
            del config[key]
        configs[identity(config)] = config  # one for all values of a key that does not apply
    for config in files.values():
        _read_file(config)
    return list(configs.values())


def train_and_measure(config: Config) -> Row:
    """One run: simulate the data, train, compare with the truth; one thread.

    Args:
        config: One of `read`; of a relative notebook see `dlutils.notebook.find`.

    Returns:
        normalized_kl, kl and mass by quadrature, bound_kl if the model has a bound (all nats);
        train, val: last values in training, test: mean log-likelihood of the test points, of their
        intervals if they are rounded, expected: the truth's on the same points; seconds of
        training, number of parameters, why it stopped early if it did; versions, and a digest of
        the notebook's code. Of a file normalized_kl, kl, bound_kl and expected are None, and test
        too if values are repeated so often that a density's likelihood is unbounded.

    Raises:
        ValueError: From the notebook, if a value is out of range.
    """
    torch.set_num_threads(1)
    path = str(find(config["notebook"]).resolve())
    not_settings = ("notebook", "dataset", *SIZES, *OF_FILES)
    settings = {key: value for key, value in config.items() if key not in not_settings}
    if is_source(config["dataset"]):
        dataset = _read_file(config)
    else:
        sizes = {key: config[key] for key in SIZES}
        dataset = make_dataset(config["dataset"], **sizes, seed=config["seed"])
    model = _load(path).train(dataset, **settings, progress=False)
    known, found = dataset.is_known, compare(dataset, model.log_likelihood)
    row = {"normalized_kl": found.normalized_kl if known else None}
    row |= {"kl": found.kl if known else None, "mass": found.mass}
    if hasattr(model, "elbo"):
        row["bound_kl"] = compare(dataset, model.elbo, 401).kl if known else None
    log_p, counts = held_out.log_likelihood(model, dataset), dataset.weights.get("test")
    unbounded = not known and dataset.ties.are_spikes
    net = next(value for value in vars(model).values() if isinstance(value, torch.nn.Module))
    code = [cell.source for cell in read_cells(path) if cell.cell_type == "code"]
    return row | {
        "train": model.history.train[-1],
        "val": model.history.val[-1],
        "test": None if unbounded else held_out.mean_and_error(log_p, counts)[0],
        "expected": dataset.expected_log_likelihood if known else None,
        "seconds": model.history.seconds,
        "stopped": model.history.stopped,
        "parameters": sum(p.numel() for p in net.parameters()),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numpy", "scipy")},
        "code": hashlib.sha256("\n".join(code).encode()).hexdigest()[:12],
    }


def _values(key: str, value: object) -> list:
    """The values of a key, of which there may be one; the bounds [low, high] are one, too.

    Infinite ones are text: JSON has no such number.
    """
    values = value if isinstance(value, list) else [value]
    if key == "support":
        values = values if all(isinstance(pair, list) for pair in values) else [values]
        text = lambda end: str(end) if isinstance(end, float) and math.isinf(end) else end
        values = [[text(end) for end in pair] for pair in values]
    for value in values:
        try:
            json.dumps(value, allow_nan=False)
            is_one = not isinstance(value, dict)
        except (TypeError, ValueError):  # a date, NaN
            is_one = False
        if not is_one:
            kind = "finite numbers, texts, true or false, and lists of them"
            raise ValueError(f"{key} = {value} cannot be: settings are {kind}")
    return values


def _source(name: str, folder: Path) -> str:
    """A dataset's name; if it is a file, its absolute path."""
    if not (isinstance(name, str) and is_source(name)):
        check_name(name)
        return name
    path, column = split_source(name)
    found = [place / path for place in (folder, Path.cwd()) if (place / path).is_file()]
    if not found:
        raise ValueError(f"dataset: no file {str(path)!r} in {folder.resolve()} or {Path.cwd()}")
    return os.path.abspath(found[0]) + (f":{column}" if column else "")


def _read_file(config: Config) -> Dataset:
    """The dataset of a file; an error names it, and the keys that are set."""
    options = {key: config[key] for key in OF_FILES}
    try:
        return load_dataset(config["dataset"], seed=config["seed"], **options)
    except ValueError as error:
        given = ", ".join(f"{key} = {value!r}" for key, value in options.items() if value)
        told = f" with {given}" if given else ""
        raise ValueError(f"dataset {config['dataset']!r}{told}: {error}") from error
