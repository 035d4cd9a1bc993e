"""The notebook runs whole when its configuration cell is changed."""

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

SHORT = {"N_ITERATIONS": 12, "COMPLEXITY_STEPS": (2, 4, 8)}
CONFIGURATIONS = {
    "other data, net and integrator": {
        "DATASET": "laplace_mixture",
        "DRIFT": "concat_squash",
        "METHOD": "rk4",
        "N_STEPS": 7,
        "LOGDET": "map",
        "STANDARDIZE": True,
    },
    "plain backprop": {"GRADIENT": "backprop", "METHOD": "rk2", "N_STEPS": 5, "N_BINS": 20},
    "narrow steps": {"DRIFT": "sigmoid_basis", "DATASET": "marron_wand_12", "SEED": 3},
    "heavy tails, linear drift": {"DATASET": "student_t", "DRIFT": "linear", "N_STEPS": 300},
    "random frequencies": {"DRIFT": "fourier", "MIXTURE": "marron_wand_04", "DATASET": "uniform"},
}


def configured(**settings):
    """The notebook with the lines of its configuration cell replaced."""
    notebook = nbformat.read(ROOT / "ODE.ipynb", 4)
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    lines = cell.source.splitlines()
    for name, value in settings.items():
        (where,) = (k for k, line in enumerate(lines) if line.startswith(f"{name} = "))
        lines[where] = f"{name} = {value!r}"
    cell.source = "\n".join(lines)
    return notebook


def run(notebook, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (folder / "ODE.ipynb").write_bytes((ROOT / "ODE.ipynb").read_bytes())  # for its processes
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_notebook_runs_with(name, tmp_path, monkeypatch):
    notebook = configured(**SHORT, **CONFIGURATIONS[name])
    run(notebook, tmp_path, monkeypatch)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output.text
    assert len(list((tmp_path / "figures").glob("*.pdf"))) == 10
