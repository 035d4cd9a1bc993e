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
from dlutils.tables import markdown_table
from dlutils.tools import sweep
from dlutils.tools.sweep.__main__ import main
from dlutils.tools.sweep.jobs import identity, process_pool, run_all

SMALL = """
notebook = "ODE.ipynb"
dataset = ["gaussian", "marron_wand_10"]
drift = ["linear", "mlp"]
method = ["euler", "rk2"]
n_steps = [2, 3]
seed = [0, 1, 2]
n_iterations = 2
n_train = 50
n_val = 10
n_test = 10
"""
MEASURED = ("seconds", "finished")  # what differs from run to run


def grid(tmp_path, text=SMALL, **changes):
    """A TOML file with some lines replaced."""
    lines = [line for line in text.splitlines() if line.partition(" = ")[0] not in changes]
    lines += [f"{key} = {json.dumps(value)}" for key, value in changes.items()]
    path = tmp_path / "grid.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def start(path, *options):
    command = [sys.executable, "-m", "dlutils.tools.sweep", str(path), *options]
    # `make test &` ignores SIGINT, and so would what it starts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for_lines(path, n, process):
    """Until the file has n lines; the process must still be at work."""
    end = time.monotonic() + HANGS
    while not path.exists() or path.read_bytes().count(b"\n") < n:
        assert process.poll() is None, f"ended before it had {n} results"
        assert time.monotonic() < end, f"{HANGS} s for {n} results"
        time.sleep(0.01)


def numbers(row):
    return {key: value for key, value in row.items() if key not in MEASURED}


def test_grid_is_complete(tmp_path):
    configs = sweep.read(grid(tmp_path))
    assert len(configs) == 48
    assert len({identity(config) for config in configs}) == 48
    assert all(config["n_bins"] == 32 for config in configs), "defaults are written down too"
    assert all("progress" not in config for config in configs)
    assert Counter(config["seed"] for config in configs) == {0: 16, 1: 16, 2: 16}


def test_the_other_notebook_has_other_keys(tmp_path):
    text = 'notebook = "SDE.ipynb"\ndataset = "uniform"\npath = ["linear", "learned"]'
    configs = sweep.read(grid(tmp_path, text))
    assert [config["path"] for config in configs] == ["linear", "learned"]
    with pytest.raises(ValueError, match=r"unknown key 'path'; ODE.ipynb has dataset, n_train"):
        sweep.read(grid(tmp_path, text, notebook="ODE.ipynb"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"notebook": "No.ipynb"}, "no notebook .*No.ipynb"),
        ({"notebook": ["ODE.ipynb"]}, "notebook must be one file name"),
        ({"dataset": ["gausian"]}, "unknown dataset 'gausian'; choose from gaussian"),
        ({"steps": 3}, "unknown key 'steps'; ODE.ipynb has dataset, n_train, .*n_steps"),
        ({"seed": []}, "the list of seed is empty"),
    ],
)
def test_bad_grid(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        sweep.read(grid(tmp_path, **changes))


FILES = """
notebook = "ODE.ipynb"
dataset = ["data.csv:height", "gaussian"]
seed = [0, 1]
n_iterations = 2
n_steps = 3
n_train = 50
n_val = 10
n_test = 10
"""


@pytest.fixture
def data(tmp_path):
    """A file of heights that are positive, rounded to 0.1 and weighted, and one without a value."""
    y = np.random.default_rng(0).gamma(4.0, 1.0, 200).round(1)
    rows = [f"{value:.1f},{1 + k % 3},{'' if k == 5 else k}" for k, value in enumerate(y)]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["height,n,other", *rows]), encoding="utf-8")
    return path


def test_files_have_their_own_keys_and_simulated_samples_theirs(data, tmp_path):
    configs = sweep.read(grid(tmp_path, FILES, n_train=[50, 60]))
    assert [(c["dataset"], c["seed"], c.get("n_train")) for c in configs] == [
        (f"{data}:height", 0, None), (f"{data}:height", 1, None),
        ("gaussian", 0, 50), ("gaussian", 0, 60), ("gaussian", 1, 50), ("gaussian", 1, 60),
    ]  # fmt: skip
    own = {"drop_missing": False, "support": None, "rounding": None, "weights": None}
    assert own.items() <= configs[0].items()
    assert not own.keys() & configs[2].keys()


def test_a_file_is_sought_beside_the_grid_then_in_the_working_directory(
    data, tmp_path, monkeypatch
):
    folder = tmp_path / "grids"
    folder.mkdir()
    path = grid(folder, FILES)
    monkeypatch.chdir(tmp_path)
    assert sweep.read(path)[0]["dataset"] == f"{data}:height"
    beside = folder / "data.csv"
    beside.write_bytes(data.read_bytes())
    assert sweep.read(path)[0]["dataset"] == f"{beside}:height"


def test_bounds_are_one_value_and_a_list_of_bounds_is_an_axis(data, tmp_path):
    path = tmp_path / "grid.toml"
    for text, bounds in (
        ("[0, inf]", [[0, "inf"]]),
        ("[[0, inf], [-1, 100.5], [-inf, inf]]", [[0, "inf"], [-1, 100.5], ["-inf", "inf"]]),
    ):
        path.write_text(FILES.replace("seed = [0, 1]", f"rounding = 0.1\nsupport = {text}"))
        configs = sweep.read(path)
        assert [config["support"] for config in configs if "support" in config] == bounds
        assert len(configs) == len(bounds) + 1, "of the simulated sample there is one"
        assert all(identity(config) for config in configs)


def test_the_documented_grid_of_files_can_be_read(data, tmp_path):
    page = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```\n(notebook = .*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "grid.toml").write_text(text.replace('"count"', '"n"'), encoding="utf-8")
    configs = sweep.read(tmp_path / "grid.toml")
    assert Counter(config["dataset"] for config in configs) == {f"{data}:height": 3, "gaussian": 3}
    assert configs[0]["support"] == [0, "inf"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "none.csv"}, "dataset: no file 'none.csv' in "),
        ({"dataset": "data.csv:width"}, "dataset .*data.csv:width': .*width"),
        ({"support": [1, 0]}, r"data.csv:height' with support = \[1, 0\]: .* low < high"),
        ({"weights": "m"}, "data.csv:height' with weights = 'm': .*'m'"),
        ({"dataset": "gaussian", "support": [0, 1]}, "support: for files, and no dataset is one"),
        ({"wieghts": "n"}, "unknown key 'wieghts'; .*files have drop_missing, support, rounding"),
    ],
)
@pytest.mark.usefixtures("data")
def test_an_error_names_the_file_and_the_key(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        sweep.read(grid(tmp_path, FILES, **changes))


def test_a_file_is_measured_by_its_held_out_points(data, tmp_path, ode):
    own = {"support": [0, 100], "rounding": 0.1, "weights": "n"}
    (config,) = sweep.read(grid(tmp_path, FILES, dataset=f"{data.name}:height", seed=1, **own))
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


def test_a_bound_is_measured_where_the_truth_is_known(data, tmp_path):
    for name, known in ((f"{data.name}:height", False), ("gaussian", True)):
        text = FILES.replace("n_steps = 3\n", "")
        changes = {"notebook": "SDE.ipynb", "dataset": name, "seed": 0}
        (config,) = sweep.read(grid(tmp_path, text, **changes))
        bound = sweep.train_and_measure(config)["bound_kl"]
        assert (bound is not None) == known


def test_where_a_value_makes_up_much_of_a_file_there_is_no_test(tmp_path):
    y = torch.cat([torch.zeros(100), torch.linspace(1, 2, 100)])
    np.savetxt(tmp_path / "half.csv", y.numpy())
    (config,) = sweep.read(grid(tmp_path, FILES, dataset="half.csv", seed=0))
    assert sweep.train_and_measure(config)["test"] is None


def test_command_trains_prints_a_summary_and_says_what_failed(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    here = lambda workers, preload: lambda: ThreadPoolExecutor(workers)
    monkeypatch.setattr("dlutils.tools.sweep.__main__.process_pool", here)
    path = grid(tmp_path, FILES, rounding=0.1, drift=["linear", "liner"])
    assert main([str(path), "--workers", "1"]) == 1
    output = capsys.readouterr().out
    assert "8 runs, 4 failed" in output
    rows = sweep.load(path.with_suffix(".jsonl"))
    failed = [row for row in rows if row["status"] == "failed"]
    assert all("unknown drift 'liner'; choose from linear" in row["error"] for row in failed)
    of_file = [row for row in rows if row["dataset"] == f"{data}:height" and row not in failed]
    assert [row["normalized_kl"] for row in of_file] == [None, None]
    test = f"{np.mean([row['test'] for row in of_file]):.4g}"
    assert f"| linear | {data}:height | 2 | 0 | – | – | {test} | " in output
    assert "None" not in output
    assert main([str(path)]) == 1, "nothing is left to do"


def test_a_plot_leaves_out_what_has_no_value():
    rows = rows_of([(2, "a", 1.0), (4, "a", 5.0), (2, "b", None)])
    ax = sweep.plot(rows, x="n_steps", by="method")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a"]
    plt.close("all")
    with pytest.raises(ValueError, match="no row has normalized_kl: of files there is test"):
        sweep.plot(rows[2:], x="n_steps")
    assert not plt.get_fignums()


def test_bounds_can_tell_rows_apart():
    rows = rows_of([(2, "a", 1.0), (2, "b", 2.0), (2, "c", 4.0)])
    for row, support in zip(rows, ([0, "inf"], [0, "inf"], None), strict=True):
        row["support"] = support
    table = sweep.summarize(rows, ["support"])
    assert [(row["support"], row["normalized_kl"]) for row in table] == [
        ("[0, 'inf']", 1.5), (None, 4.0),
    ]  # fmt: skip


def test_bad_file(tmp_path, capsys):
    with pytest.raises(ValueError, match="no file"):
        sweep.read(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("dataset = [")
    with pytest.raises(ValueError, match=r"bad.toml is not TOML"):
        sweep.read(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text('dataset = "gaussian"')
    with pytest.raises(SystemExit):
        main([str(tmp_path / "bad.toml")])
    assert "does not say which notebook" in capsys.readouterr().err


def test_twice_the_same_configuration(tmp_path):
    with pytest.raises(ValueError, match="1 configurations are there twice"):
        run_all(dict, [{"a": 1}, {"a": 1}], tmp_path / "r.jsonl", lambda: ThreadPoolExecutor(1), 1)


def square(config):
    if config["x"] == 3:
        raise ArithmeticError("three")
    return {"y": config["x"] ** 2}


def test_a_run_that_fails_does_not_stop_the_rest(tmp_path):
    configs = [{"x": x} for x in range(6)]
    path, executor = tmp_path / "r.jsonl", lambda: ThreadPoolExecutor(2)
    assert run_all(square, configs, path, executor, 3) == 1
    rows = {row["x"]: row for row in sweep.load(path)}
    assert rows.keys() == set(range(6))
    assert rows[3]["status"] == "failed"
    assert rows[3]["error"] == "ArithmeticError: three"
    assert [rows[x]["y"] for x in (0, 1, 2, 4, 5)] == [0, 1, 4, 16, 25]
    before = path.read_bytes()
    assert run_all(square, configs, path, executor, 3) == 1, "nothing is left to do"
    assert path.read_bytes() == before
    assert run_all(square, configs, path, executor, 3, retry_failed=True) == 1
    assert len(sweep.load(path)) == 6
    assert path.read_bytes().count(b"\n") == 7


def not_a_number(config):
    return {"y": float("nan")}


def test_a_result_that_is_not_finite_is_a_failure(tmp_path):
    run_all(not_a_number, [{"x": 1}], tmp_path / "r.jsonl", lambda: ThreadPoolExecutor(1), 1)
    (row,) = sweep.load(tmp_path / "r.jsonl")
    assert row["status"] == "failed"
    assert "not JSON compliant" in row["error"]


def kill_own_process(config):
    if config["x"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"y": config["x"]}


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_run_that_kills_its_process_is_found_and_the_others_finish(tmp_path):
    configs = [{"x": x} for x in range(4)]
    assert run_all(kill_own_process, configs, tmp_path / "r.jsonl", process_pool(2), 4) == 1
    rows = {row["x"]: row for row in sweep.load(tmp_path / "r.jsonl")}
    assert rows[2]["error"].startswith("its process died 3 times")
    assert [rows[x]["y"] for x in (0, 1, 3)] == [0, 1, 3]


def test_a_half_line_is_cut_off_and_its_run_repeated(tmp_path):
    path, executor = tmp_path / "r.jsonl", lambda: ThreadPoolExecutor(1)
    run_all(square, [{"x": 1}, {"x": 2}], path, executor, 1)
    path.write_bytes(path.read_bytes()[:-20])
    assert [row["x"] for row in sweep.load(path)] == [1]
    run_all(square, [{"x": 1}, {"x": 2}], path, executor, 1)
    assert [row["x"] for row in sweep.load(path)] == [1, 2]
    assert path.read_bytes().count(b"\n") == 2
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"r.jsonl, line 1: not a result"):
        sweep.load(path)


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    path, executor = tmp_path / "r.jsonl", lambda: ThreadPoolExecutor(1)
    run_all(square, [{"x": 1}], path, executor, 1)
    write = os.write
    monkeypatch.setattr(
        "dlutils.tools.sweep.jobs.os.write", lambda file, data: write(file, data[:9])
    )
    with pytest.raises(OSError, match="No space left"):
        run_all(square, [{"x": 2}], path, executor, 1)
    monkeypatch.undo()
    assert [row["x"] for row in sweep.load(path)] == [1]
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.filterwarnings("default")
def test_whoever_is_killed_nothing_is_lost_done_twice_or_torn(tmp_path, monkeypatch):
    """A sweep of 64 runs loses a worker, is killed, goes on, is interrupted, and ends by Dask."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    path = grid(tmp_path, seed=list(range(4)))
    results = path.with_suffix(".jsonl")
    process = start(path, "--workers", "2")
    wait_for_lines(results, 5, process)
    server = max(psutil.Process(process.pid).children(), key=lambda p: len(p.children()))
    server.children()[0].kill()
    wait_for_lines(results, 15, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=HANGS)
    _, alive = psutil.wait_procs(workers, timeout=HANGS)
    assert not alive, "workers end with their parent"

    process = start(path, "--workers", "2")
    wait_for_lines(results, len(sweep.load(results)) + 5, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 130
    assert b"the same command goes on" in errors
    assert b"Traceback" not in errors
    assert 20 <= len(sweep.load(results)) < 64, "the runs under way are written down"

    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        assert main([str(path), "--scheduler", cluster.scheduler_address]) == 0
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 64
    configs = {identity(config): config for config in sweep.read(path)}
    assert {row["run"] for row in rows} == configs.keys()
    assert all(row["status"] == "done" for row in rows)
    for row in (rows[0], rows[-1]):  # by a process of its own, and by Dask: the same as here
        assert numbers(sweep.train_and_measure(configs[row["run"]])).items() <= row.items()


@pytest.mark.skipif(os.name == "nt", reason="file locks")
def test_one_job_a_file(tmp_path):
    path = tmp_path / "r.jsonl"

    def meddle(config):
        run_all(square, [{"x": 1}], path, lambda: ThreadPoolExecutor(1), 1)

    run_all(meddle, [{"x": 0}], path, lambda: ThreadPoolExecutor(1), 1)
    assert "another job is writing to" in sweep.load(path)[0]["error"]


@pytest.mark.filterwarnings("default")
def test_dask_workers_with_several_threads_are_refused(tmp_path, capsys, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(ROOT)
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    cluster = distributed.LocalCluster(processes=False, **options)
    with cluster, pytest.raises(SystemExit):
        main([str(grid(tmp_path)), "--scheduler", cluster.scheduler_address])
    assert "must have one thread each" in capsys.readouterr().err


def test_a_dask_scheduler_that_does_not_answer(tmp_path, capsys, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("distributed.Client", Silent)
    with pytest.raises(SystemExit):
        main([str(grid(tmp_path)), "--scheduler", "tcp://127.0.0.1:1"])
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:1'" in capsys.readouterr().err


class Silent:
    def __init__(self, address, timeout):
        raise OSError("timed out")


def rows_of(values):
    return [
        {"run": str(k), "status": "done", "n_steps": n, "method": m, "normalized_kl": v}
        for k, (n, m, v) in enumerate(values)
    ]


def test_summary_and_plot():
    rows = rows_of([(2, "a", 1.0), (2, "a", 3.0), (4, "a", 5.0), (2, "b", 7.0)])
    rows.append({"run": "x", "status": "failed", "n_steps": 2, "method": "b", "error": "?"})
    table = sweep.summarize(rows, ["method", "n_steps"])
    assert table[0] == {
        "method": "a", "n_steps": 2, "runs": 2, "failed": 0,
        "normalized_kl": 2.0, "normalized_kl ±": 1.0,
    }  # fmt: skip
    assert table[2] == {
        "method": "b", "n_steps": 2, "runs": 1, "failed": 1,
        "normalized_kl": 7.0, "normalized_kl ±": None,
    }  # fmt: skip
    assert "| a | 2 | 2 | 0 | 2 | 1 |" in markdown_table(table)
    ax = sweep.plot(rows, x="n_steps", by="method")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert ax.get_xscale() == "log"
    assert list(ax.lines[0].get_ydata()) == [2.0, 5.0]
    assert sweep.plot(rows, x="method").get_xscale() == "linear"
    plt.close("all")
    with pytest.raises(ValueError, match="no row has size"):
        sweep.summarize(rows, ["size"])
