"""The notebook runs whole when its configuration cell is changed, here by papermill."""

import subprocess
import sys

import papermill
import pytest
from conftest import ROOT

SHORT = {
    "ODE": {"N_ITERATIONS": 12, "COMPLEXITY_STEPS": [2, 4, 8]},
    "SDE": {
        "N_ITERATIONS": 12,
        "TABLE_ITERATIONS": 2,
        "TABLE_STEPS": 20,
        "COMPLEXITY_STEPS": [2, 4],
    },
}
CONFIGURATIONS = {
    "ODE: other data, net and integrator": {
        "DATASET": "laplace_mixture",
        "DRIFT": "concat_squash",
        "METHOD": "rk4",
        "N_STEPS": 7,
        "LOGDET": "map",
        "STANDARDIZE": True,
    },
    "ODE: plain backprop, random frequencies": {
        "GRADIENT": "backprop",
        "METHOD": "rk2",
        "N_STEPS": 5,
        "N_BINS": 20,
        "DRIFT": "fourier",
        "MIXTURE": "marron_wand_04",
        "DATASET": "uniform",
    },
    "ODE: narrow steps": {"DRIFT": "sigmoid_basis", "DATASET": "marron_wand_12", "SEED": 3},
    "ODE: heavy tails, linear drift": {"DATASET": "student_t", "DRIFT": "linear", "N_STEPS": 300},
    "SDE: learned path, noise that depends on the state": {
        "DATASET": "student_t",
        "PATH": "learned",
        "DIFFUSION": "learned_in_x_and_t",
        "DRIFT": "free",
        "T_SAMPLER": "iid",
    },
    "SDE: variance-preserving path, constant noise": {
        "DATASET": "uniform",
        "PATH": "variance_preserving",
        "DIFFUSION": "constant",
        "DRIFT": "predict_y",
        "T_SAMPLER": "low_discrepancy",
        "MIXTURE": "marron_wand_10",
        "SEED": 3,
    },
    "SDE: optimal noise, wide observation noise": {
        "DIFFUSION": "optimal",
        "T_SAMPLER": "frozen",
        "DELTA": 0.05,
        "BATCH_SIZE": 200,
    },
}


def run(notebook, folder, monkeypatch, parameters):
    """Execute a copy of a notebook in a folder of its own; return it with its outputs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for path in ROOT.glob("*.ipynb"):  # for its processes, and for each other
        (folder / path.name).write_bytes(path.read_bytes())
    return papermill.execute_notebook(
        folder / notebook,
        folder / "out.ipynb",
        parameters,
        kernel_name="python3",
        cwd=folder,
        progress_bar=False,
        execution_timeout=600,
    )


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_notebook_runs_with(name, tmp_path, monkeypatch):
    which = name.partition(":")[0]
    parameters = SHORT[which] | CONFIGURATIONS[name]
    notebook = run(f"{which}.ipynb", tmp_path, monkeypatch, parameters)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output.text
    assert len(list((tmp_path / "figures").glob(f"{which}_*.pdf"))) == 10


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("notebook", "parameters", "message"),
    [
        ("ODE.ipynb", {"DATASET": "gausian"}, "unknown dataset 'gausian'; choose from gaussian"),
        ("SDE.ipynb", {"PATH": "straight"}, "unknown path 'straight'; choose from linear"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, monkeypatch, notebook, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError, match=message):
        run(notebook, tmp_path, monkeypatch, parameters)


def test_command_of_the_readme(tmp_path, monkeypatch):
    """The papermill command as it stands there, with fewer iterations."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = (line for line in readme.splitlines() if line.startswith("papermill "))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "ODE.ipynb").write_bytes((ROOT / "ODE.ipynb").read_bytes())
    short = ["-p", "N_ITERATIONS", "4", "-y", "{COMPLEXITY_STEPS: [2, 4, 8]}", "-p", "N_STEPS", "5"]
    command = [sys.executable, "-m", *line.split(), *short, "--no-progress-bar"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    out = (tmp_path / "out.ipynb").read_text(encoding="utf-8")
    assert "0.5 Laplace(-1.5, 0.5) + 0.5 Laplace(1.5, 0.5)" in out
