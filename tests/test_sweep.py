"""A sweep writes each run down once, whoever is killed and when, and the same on any executor."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import numpy as np
import psutil
import pytest
import torch

from conftest import HANGS, ROOT
from dlutils.data.datasets import load_dataset
from dlutils.estimators import held_out
from dlutils.tools import sweep
from dlutils.tools.sweep.__main__ import main
from dlutils.tools.sweep.jobs import identity, process_pool, run_all

GRID = """
notebook = "ODE.ipynb"
dataset = ["data.csv:height", "gaussian"]
seed = [0, 1]
n_iterations = 2
n_steps = 3
n_train = 50
n_val = 10
n_test = 10
"""
unix = pytest.mark.skipif(os.name == "nt", reason="signals and file locks")


def grid(folder, text=GRID, **changes):
    """A TOML file with some lines replaced."""
    lines = [line for line in text.splitlines() if line.partition(" = ")[0] not in changes]
    lines += [f"{key} = {json.dumps(value)}" for key, value in changes.items()]
    path = folder / "grid.toml"
    path.write_text("\n".join(lines).replace("Infinity", "inf"), encoding="utf-8")
    return path


def one(folder, **changes):
    """The only configuration of a grid."""
    (config,) = sweep.read(grid(folder, **{"seed": 1} | changes))
    return config


@pytest.fixture
def data(tmp_path):
    """A file of heights that are positive, rounded to 0.1 and weighted."""
    y = np.random.default_rng(0).gamma(4.0, 1.0, 200).round(1)
    rows = [f"{value:.1f},{1 + k % 3}" for k, value in enumerate(y)]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["height,n", *rows]), encoding="utf-8")
    return path


def test_a_grid_is_every_combination_each_complete(tmp_path):
    axes = {"drift": ["linear", "mlp"], "method": ["euler", "rk2"], "n_steps": [2, 3]}
    configs = sweep.read(grid(tmp_path, dataset=["gaussian", "laplace"], **axes))
    assert len({identity(config) for config in configs}) == len(configs) == 32
    assert Counter(config["seed"] for config in configs) == {0: 16, 1: 16}
    assert all(config["n_bins"] == 32 for config in configs), "defaults are written down too"
    assert all("progress" not in config for config in configs)
    text = 'notebook = "SDE.ipynb"\ndataset = "uniform"\npath = ["linear", "learned"]'
    configs = sweep.read(grid(tmp_path, text))
    assert [config["path"] for config in configs] == ["linear", "learned"]


def test_files_have_their_own_keys_and_simulated_samples_theirs(data, tmp_path, monkeypatch):
    inf = float("inf")
    bounds = [[0, inf], [-1, 100.5], [-inf, inf]]  # an axis
    configs = sweep.read(grid(tmp_path, n_train=[50, 60], support=bounds, rounding=0.1, seed=0))
    assert [(c["dataset"], c.get("n_train"), c.get("support")) for c in configs] == [
        (f"{data}:height", None, [0, "inf"]), (f"{data}:height", None, [-1, 100.5]),
        (f"{data}:height", None, ["-inf", "inf"]), ("gaussian", 50, None), ("gaussian", 60, None),
    ]  # fmt: skip
    assert {"drop_missing": False, "weights": None}.items() <= configs[0].items()
    page = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```\n(notebook = .*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    folder = tmp_path / "grids"
    folder.mkdir()
    path = grid(folder, text.replace('"count"', '"n"'))
    monkeypatch.chdir(tmp_path)
    configs = sweep.read(path)
    assert Counter(config["dataset"] for config in configs) == {f"{data}:height": 3, "gaussian": 3}
    assert configs[0]["support"] == [0, "inf"], "these bounds are one value"
    data.rename(folder / data.name)
    assert sweep.read(path)[0]["dataset"] == f"{folder / data.name}:height", "beside the grid"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "dataset = ["}, "grid.toml is not TOML"),
        ({"text": 'dataset = "gaussian"'}, "does not say which notebook"),
        ({"notebook": "No.ipynb"}, "no notebook .*No.ipynb"),
        ({"notebook": ["ODE.ipynb"]}, "notebook must be one file name"),
        ({"dataset": ["gausian"]}, "unknown dataset 'gausian'; choose from gaussian"),
        ({"path": "linear"}, "unknown key 'path'; ODE.ipynb has dataset, n_train, .*n_steps"),
        ({"wieghts": "n"}, "unknown key 'wieghts'; .* drop_missing, support, rounding, weights"),
        ({"seed": []}, "the list of seed is empty"),
        ({"dataset": "none.csv"}, "dataset: no file 'none.csv' in "),
        ({"dataset": "data.csv:width"}, "dataset .*data.csv:width': .*width"),
        ({"support": [1, 0]}, r"data.csv:height' with support = \[1, 0\]: .* low < high"),
        ({"weights": "m"}, "data.csv:height' with weights = 'm': .*'m'"),
        ({"dataset": "gaussian", "support": [0, 1]}, "support: for files, and no dataset is one"),
        ({"thousands": "x"}, "data.csv:height' with thousands = 'x': .*must be one of"),
        ({"text": GRID + "learning_rate = nan"}, "learning_rate = nan cannot be: settings are fin"),
        (
            {"text": GRID + "n_bins = [2, 2024-01-01]"},
            "n_bins = 2024-01-01 cannot be: settings are",
        ),
        ({"text": GRID + "[n_bins]\na = 1"}, "n_bins = {'a': 1} cannot be: settings are"),
        ({"text": GRID + "support = [0, nan]"}, "support = .* cannot be"),
    ],
)
@pytest.mark.usefixtures("data")
def test_a_wrong_grid_is_refused(tmp_path, capsys, changes, message):
    with pytest.raises(SystemExit):
        main([str(grid(tmp_path, **changes))])
    assert re.search(message, capsys.readouterr().err)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.toml")])
    assert "no file" in capsys.readouterr().err


def test_files_that_cannot_be_read_or_written_are_named(tmp_path, capsys):
    path = grid(tmp_path, dataset="gaussian", seed=0)
    text = path.read_bytes()
    assert len(sweep.read(path)) == 1
    path.write_bytes(b"\xef\xbb\xbf" + text)
    assert len(sweep.read(path)) == 1, "with the mark that Windows' editor puts before it"
    (tmp_path / "latin.toml").write_bytes(text + "# höhe".encode("latin-1"))
    (tmp_path / "wrong.jsonl").write_bytes(b"\xff\n")
    (tmp_path / "taken").write_text("")
    for arguments, message in (
        ([tmp_path / "latin.toml"], "latin.toml is not UTF-8, as TOML must be"),
        ([tmp_path], "cannot be read"),
        ([path, "--results", tmp_path], str(tmp_path)),
        ([path, "--results", tmp_path / "taken" / "x.jsonl"], "taken"),
        ([path, "--results", tmp_path / "wrong.jsonl"], "wrong.jsonl, line 1: not a result"),
    ):
        with pytest.raises(SystemExit):
            main([*map(str, arguments)])
        assert message in capsys.readouterr().err


def test_a_file_is_measured_by_its_held_out_points(data, tmp_path, ode):
    own = {"support": [0, 100], "rounding": 0.1, "weights": "n"}
    config = one(tmp_path, dataset=f"{data.name}:height", **own)
    row = sweep.train_and_measure(config)
    unknown = {"normalized_kl", "kl", "expected"}
    assert {key for key, value in row.items() if value is None} - {"stopped"} == unknown
    assert row["mass"] == pytest.approx(1, abs=0.2)

    dataset = load_dataset(f"{data}:height", seed=1, **own)
    model = ode.train(dataset, seed=1, n_iterations=2, n_steps=3, progress=False)
    log_p, w = held_out.log_likelihood(model, dataset), dataset.weights["test"].double()
    assert row["test"] == pytest.approx((w @ log_p / w.sum()).item(), rel=1e-6)
    assert row["test"] != pytest.approx(log_p.mean().item(), rel=1e-6), "the weights count"
    assert "test" not in config
    assert json.loads(json.dumps(row, allow_nan=False)) == row


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(("name", "known"), [("data.csv:height", False), ("gaussian", True)])
def test_a_bound_is_measured_where_the_truth_is_known(tmp_path, name, known):
    text = GRID.replace("n_steps = 3\n", "")
    config = one(tmp_path, text=text, notebook="SDE.ipynb", dataset=name)
    assert (sweep.train_and_measure(config)["bound_kl"] is not None) == known


def test_where_a_value_makes_up_much_of_a_file_there_is_no_test(tmp_path):
    y = torch.cat([torch.zeros(100), torch.linspace(1, 2, 100)])
    np.savetxt(tmp_path / "half.csv", y.numpy())
    assert sweep.train_and_measure(one(tmp_path, dataset="half.csv"))["test"] is None


def test_command_trains_prints_a_summary_and_says_what_failed(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    here = lambda workers, preload: lambda: ThreadPoolExecutor(workers)
    monkeypatch.setattr("dlutils.tools.sweep.__main__.process_pool", here)
    path = grid(tmp_path, rounding=0.1, drift=["linear", "liner"])
    assert main([str(path), "--workers", "1"]) == 1
    output = capsys.readouterr().out
    assert "8 runs, 4 failed" in output
    rows = sweep.load(path.with_suffix(".jsonl"))
    failed = [row for row in rows if row["status"] == "failed"]
    assert all("unknown drift 'liner'; choose from linear" in row["error"] for row in failed)
    of_file = [row for row in rows if row["dataset"] == f"{data}:height" and row not in failed]
    assert [row["normalized_kl"] for row in of_file] == [None, None]
    test = f"{np.mean([row['test'] for row in of_file]):.4g}"
    assert f"| {data}:height | linear | 2 | 0 | – | – | {test} | " in output
    assert "None" not in output
    assert main([str(path)]) == 1, "nothing is left to do"


# Jobs


def square(config):
    if config["x"] == 3:
        raise ArithmeticError("three")
    return {"y": config["x"] ** 2 if config["x"] else float("nan")}


def threads():
    return ThreadPoolExecutor(2)


def test_a_run_that_fails_does_not_stop_the_rest(tmp_path):
    configs, path = [{"x": x} for x in range(6)], tmp_path / "r.jsonl"
    assert run_all(square, configs, path, threads) == 2
    rows = {row["x"]: row for row in sweep.load(path)}
    assert {x for x, row in rows.items() if row["status"] == "failed"} == {0, 3}
    assert rows.keys() == set(range(6))
    assert rows[3]["error"] == "ArithmeticError: three"
    assert "not JSON compliant" in rows[0]["error"], "nor is it a result if it is not finite"
    assert [rows[x]["y"] for x in (1, 2, 4, 5)] == [1, 4, 16, 25]
    before = path.read_bytes()
    assert run_all(square, configs, path, threads) == 2, "nothing is left to do"
    assert path.read_bytes() == before
    assert run_all(square, configs, path, threads, retry_failed=True) == 2
    assert len(sweep.load(path)) == 6
    assert path.read_bytes().count(b"\n") == 8
    with pytest.raises(ValueError, match="1 configurations are there twice"):
        run_all(square, [{"x": 1}, {"x": 1}], path, threads)


def test_a_half_line_is_cut_off_and_its_run_repeated(tmp_path):
    path, configs = tmp_path / "r.jsonl", [{"x": 1}, {"x": 2}]
    run_all(square, configs, path, threads)
    path.write_bytes(path.read_bytes()[:-20])
    assert len(sweep.load(path)) == 1
    run_all(square, configs, path, threads)
    assert sorted(row["x"] for row in sweep.load(path)) == [1, 2]
    assert path.read_bytes().count(b"\n") == 2
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"r.jsonl, line 1: not a result"):
        sweep.load(path)


@pytest.mark.usefixtures("capsys")  # the bar writes to no file
def test_where_the_disk_is_full_what_was_written_is_kept(tmp_path):
    resource = pytest.importorskip("resource")
    path, configs = tmp_path / "r.jsonl", [{"x": x} for x in (1, 2)]
    run_all(square, configs[:1], path, threads)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            run_all(square, configs, path, threads)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [row["x"] for row in sweep.load(path)] == [1]
    run_all(square, configs, path, threads)
    assert [row["x"] for row in sweep.load(path)] == [1, 2]


def die(config):
    """The first run's process is always killed, the second's once; Ctrl-C reaches a process too."""
    if config["x"] == 0 or (config["x"] == 1 and not os.path.exists(config["seen"])):
        open(config["seen"], "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGINT)
    if config["x"] == 3:
        os.kill(config["parent"], signal.SIGINT)
        time.sleep(0.5)
    return {"y": config["x"]}


@unix
def test_a_run_whose_process_dies_is_repeated_and_ctrl_c_waits_for_those_under_way(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT / "tests")  # from where this module is loaded
    path, common = tmp_path / "r.jsonl", {"seen": f"{tmp_path}/seen", "parent": os.getpid()}
    configs, pool = [{"x": x, **common} for x in range(8)], process_pool(1, ["test_sweep"])
    with pytest.raises(KeyboardInterrupt):
        run_all(die, configs, path, pool)
    assert "waiting for the runs under way" in capsys.readouterr().err
    dead, *rows = sweep.load(path)
    assert dead["error"].endswith("its process died 3 times: killed, or no memory")
    done = sorted(row["y"] for row in rows)
    assert done == [1, 2, 3], "what is under way is written down, no more"
    assert run_all(die, configs, path, pool) == 1
    assert [row["x"] for row in sweep.load(path)] == list(range(8))


@unix
@pytest.mark.filterwarnings("default")
def test_a_sweep_that_is_killed_goes_on_and_dask_has_the_same_numbers(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD", "forkserver")
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    path = grid(tmp_path, dataset="gaussian", seed=list(range(16)))
    results = path.with_suffix(".jsonl")
    command = [sys.executable, "-m", "dlutils.tools.sweep", str(path), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end = time.monotonic() + HANGS
    while not results.exists() or results.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        assert time.monotonic() < end, f"{HANGS} s for 3 results"
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(SystemExit):
        main([str(path)])
    assert "another job is writing to" in capsys.readouterr().err
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.wait(HANGS)
    _, alive = psutil.wait_procs(workers, timeout=HANGS)
    assert not alive, "workers end with their parent"
    assert 3 <= len(sweep.load(results)) < 16

    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        assert main([str(path), "--scheduler", cluster.scheduler_address]) == 0
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    configs = {identity(config): config for config in sweep.read(path)}
    assert len(rows) == 16
    assert {row["run"] for row in rows} == configs.keys()
    assert all(row["status"] == "done" for row in rows)
    for row in (rows[0], rows[-1]):  # by a process of its own, and by Dask: the same as here
        here = sweep.train_and_measure(configs[row["run"]]) | {"seconds": row["seconds"]}
        assert here.items() <= row.items()


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_that_will_not_do_is_refused(tmp_path, capsys, monkeypatch):
    distributed = pytest.importorskip("distributed")
    path = str(grid(tmp_path, dataset="gaussian"))
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    cluster = distributed.LocalCluster(processes=False, **options)
    with cluster, pytest.raises(SystemExit):
        main([path, "--scheduler", cluster.scheduler_address])
    assert "not one thread each" in capsys.readouterr().err

    def silent(address, timeout):
        raise OSError("timed out")

    monkeypatch.setattr("distributed.Client", silent)
    with pytest.raises(SystemExit):
        main([path, "--scheduler", "tcp://127.0.0.1:1"])
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:1'" in capsys.readouterr().err


# Results


def test_summary_and_plot():
    values = (4, "a", 5.0), (2, "a", 1.0), (2, "a", 3.0), (2, "b", 7.0), (2, "c", None)
    rows = [
        {"status": "done", "n_steps": n_steps, "method": method, "normalized_kl": value}
        for n_steps, method, value in values
    ]
    rows.append({"status": "failed", "n_steps": 2, "method": "b", "error": "?"})
    table = sweep.summarize(rows, ["method", "n_steps"], ["normalized_kl", "kl"])
    columns = "method", "n_steps", "runs", "failed", "normalized_kl", "normalized_kl ±"
    assert tuple(table[0]) == columns
    assert [tuple(row.values()) for row in table] == [
        ("a", 4, 1, 0, 5.0, None),
        ("a", 2, 2, 0, 2.0, 1.0),
        ("b", 2, 1, 1, 7.0, None),
        ("c", 2, 1, 0, None, None),
    ]
    ax = sweep.plot(rows, x="n_steps", by="method")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert ax.get_xscale() == "log"
    assert list(ax.lines[0].get_ydata()) == [2.0, 5.0]
    with pytest.raises(ValueError, match="no row has normalized_kl: of files there is test"):
        sweep.plot(rows[4:5], x="n_steps")
    with pytest.raises(ValueError, match="no row has size"):
        sweep.plot(rows, x="size")
    for row, support in zip(rows, ([0, "inf"], None, [0, "inf"], [0, 1]), strict=False):
        row["support"] = support
    ax = sweep.plot(rows[:4], x="support")
    assert ax.get_xscale() == "linear"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["[0, 'inf']", "None", "[0, 1]"]
    assert list(ax.lines[0].get_ydata()) == [4.0, 1.0, 7.0]
    plt.close("all")
