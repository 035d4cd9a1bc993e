"""The notebook runs whole when its configuration cell is changed, by papermill or by nbval."""

import os
import re
import subprocess
import sys

import numpy as np
import papermill
import pytest

from conftest import ROOT, run_by_papermill
from dlutils.tools import handout

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGURATIONS = {
    "slow ODE: the command of the README, on the hand-out": {"N_STEPS": 7, "MIXTURE": "uniform"},
    "slow ODE: few nodes, heavy tails": {
        "N_STEPS": 5,
        "N_BINS": 20,
        "MIXTURE": "marron_wand_04",
        "DATASET": "student_t",
    },
    "slow ODE: a file": {
        "DATASET": "people.csv:height",
        "DROP_MISSING": True,
        "MIXTURE": "marron_wand_12",
        "SEED": 3,
    },
    "slow SDE: heavy tails and fine structure, on the hand-out": {
        "DATASET": "student_t",
        "MIXTURE": "marron_wand_10",
        "SEED": 3,
    },
    "SDE: a file, wide observation noise": {
        "DATASET": "people.csv:2",
        "DROP_MISSING": True,
        "DELTA": 0.05,
        "BATCH_SIZE": 200,
        "MIXTURE": "uniform",
    },
    "BEYOND: fine structure, by nbval": {"MIXTURE": "marron_wand_10", "DELTA": 0.02, "SEED": 3},
}


def prepare(folder):
    """The notebooks, for each other and their processes, and a file of heights, one missing."""
    for path in ROOT.glob("*.ipynb"):
        (folder / path.name).write_bytes(path.read_bytes())
    heights = [f"{170 + 10 * z:.1f}" for z in np.random.default_rng(0).standard_normal(400)]
    lines = [f"{k},{height}" for k, height in enumerate([*heights, ""])]
    (folder / "people.csv").write_text("\n".join(["number,height", *lines]), encoding="utf-8")


def run_by_nbval(folder):
    """Run out.ipynb as the README's command for a CI of one's own does."""
    (options,) = re.findall(
        r"^python -m pytest (--nbval.*) ODE.ipynb SDE.ipynb BEYOND.ipynb$", README, re.M
    )
    command = [sys.executable, "-m", "pytest", *options.split(), "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "out.ipynb"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]


def marked(name):
    return pytest.param(name, marks=[pytest.mark.slow] * name.startswith("slow"))


@pytest.mark.parametrize("name", [marked(name) for name in CONFIGURATIONS])
def test_the_notebook_runs_with(name, tmp_path):
    which = name.partition(":")[0].removeprefix("slow ")
    prepare(tmp_path)
    package = ROOT
    if "hand-out" in name:  # with what lies beside it, and nothing of this folder
        package = tmp_path
        handout.write(sorted(ROOT.glob("*.ipynb")), tmp_path)
    command = f"papermill {which}.ipynb out.ipynb"
    if "README" in name:
        (command,) = re.findall(r"^papermill .*$", README, flags=re.MULTILINE)
    settings, by_nbval = {"FAST": True} | CONFIGURATIONS[name], "nbval" in name
    command += " --prepare-only" * by_nbval
    text = run_by_papermill(tmp_path, command, settings, package)
    if by_nbval:
        run_by_nbval(tmp_path)
    wanted = (ROOT / f"{which}.ipynb").read_text(encoding="utf-8").count("report.figure(")
    assert len(list((tmp_path / "figures").glob(f"{which}_*.pdf"))) == wanted
    assert not re.search(r"\bnan\b|\bNone\b", text), "what is not known is not printed"
    if "README" in name:
        assert "0.5 Laplace(-1.5, 0.5) + 0.5 Laplace(1.5, 0.5)" in text
    if "a file" in name and not by_nbval:
        assert "sample of 400 values, true density unknown" in text
        assert "EM mixture (BIC)" in text


@pytest.mark.filterwarnings("default")
def test_a_wrong_value_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    prepare(tmp_path)
    paths = tmp_path / "ODE.ipynb", tmp_path / "out.ipynb"
    with pytest.raises(
        papermill.PapermillExecutionError, match="unknown dataset 'gausian'; choose from gaussian"
    ):
        papermill.execute_notebook(
            *paths, {"DATASET": "gausian"}, kernel_name="python3", cwd=tmp_path, progress_bar=False
        )
