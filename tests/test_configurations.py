"""The notebook runs whole when its configuration cell is changed."""

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

SHORT = {
    "ODE": {"N_ITERATIONS": 12, "COMPLEXITY_STEPS": (2, 4, 8)},
    "SDE": {
        "N_ITERATIONS": 12,
        "TABLE_ITERATIONS": 2,
        "TABLE_STEPS": 20,
        "COMPLEXITY_STEPS": (2, 4),
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
    "ODE: plain backprop": {"GRADIENT": "backprop", "METHOD": "rk2", "N_STEPS": 5, "N_BINS": 20},
    "ODE: narrow steps": {"DRIFT": "sigmoid_basis", "DATASET": "marron_wand_12", "SEED": 3},
    "ODE: heavy tails, linear drift": {"DATASET": "student_t", "DRIFT": "linear", "N_STEPS": 300},
    "ODE: random frequencies": {
        "DRIFT": "fourier",
        "MIXTURE": "marron_wand_04",
        "DATASET": "uniform",
    },
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


def configured(path, **settings):
    """A notebook with the lines of its configuration cell replaced."""
    notebook = nbformat.read(path, 4)
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    lines = cell.source.splitlines()
    for name, value in settings.items():
        (where,) = (k for k, line in enumerate(lines) if line.startswith(f"{name} = "))
        lines[where] = f"{name} = {value!r}"
    cell.source = "\n".join(lines)
    return notebook


def run(notebook, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for path in ROOT.glob("*.ipynb"):  # for its processes, and for each other
        (folder / path.name).write_bytes(path.read_bytes())
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
    which = name.partition(":")[0]
    notebook = configured(ROOT / f"{which}.ipynb", **SHORT[which], **CONFIGURATIONS[name])
    run(notebook, tmp_path, monkeypatch)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output.text
    assert len(list((tmp_path / "figures").glob(f"{which}_*.pdf"))) == 10
