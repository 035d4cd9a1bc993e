import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import nbformat
import pytest
import torch
from hypothesis import settings
from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_client.manager import start_new_kernel
from torch import nn

from dlutils import diffusion, flows
from dlutils.flows.matching import path_nodes
from dlutils.flows.nets import SigmoidBasisDrift
from dlutils.notebook import load
from dlutils.seeding import seeded

mpl.use("Agg")
ROOT = Path(__file__).parents[1]
settings.register_profile("few", max_examples=30)  # make test
settings.register_profile("many", max_examples=500)  # make test-all
settings.load_profile("few")
LONG = ("test_whole_runs.py", "test_configurations.py")  # minutes each: they come first
HANGS = 600  # seconds after which something is taken to hang, on however busy a machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the notebooks, so that no core waits in the end for another that runs one."""
    items.sort(key=lambda item: item.path.name not in LONG)


class WithoutKernel(nn.Module):
    """Hides the kernel() that a drift may have."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x, t):
        return self.f(x, t)


@pytest.fixture(autouse=True)
def seed_and_default_type():
    """The same random numbers in every test, and torch's default type put back after it."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def float64(seed_and_default_type):
    """Double precision for tensors made by hand, for tests of maths: see `pytestmark`."""
    torch.set_default_dtype(torch.float64)


def ode_definitions(path: Path = ROOT / "ODE.ipynb") -> SimpleNamespace:
    """What ODE.ipynb defines and `dlutils.flows` offers.

    The notebook's readable solver and likelihood are called as the package's are, by method.
    """
    notebook = load(path)
    by = lambda method, logdet="trace": partial(
        notebook.runge_kutta_step, method=method, logdet=logdet
    )

    def integrate(f, x, t0, t1, n_steps=100, method="euler"):
        return notebook.solve(f, x, t0, t1, n_steps, by(method))[0]

    def log_likelihood(f, y, n_steps=100, method="euler", logdet="trace"):
        return notebook.log_likelihood(f, y, n_steps, by(method, logdet))

    names = {name: getattr(flows, name) for name in flows.__all__}
    names |= {"integrate": integrate, "log_likelihood": log_likelihood}
    return SimpleNamespace(**vars(notebook) | names)


def sde_definitions() -> SimpleNamespace:
    """What SDE.ipynb defines and `dlutils.diffusion` offers."""
    names = {name: getattr(diffusion, name) for name in diffusion.__all__}
    return SimpleNamespace(**vars(load(ROOT / "SDE.ipynb")) | names)


@pytest.fixture(scope="session")
def ode() -> SimpleNamespace:
    """See `ode_definitions`."""
    return ode_definitions()


@pytest.fixture(scope="session")
def sde() -> SimpleNamespace:
    """See `sde_definitions`."""
    return sde_definitions()


def perturbed(model: nn.Module, seed: int = 1) -> nn.Module:
    """The model with random numbers added to its weights, so that no layer is zero."""
    with seeded(seed), torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def fit_steps(y: torch.Tensor, coupling: str, penalty: float = 0.01) -> SigmoidBasisDrift:
    """Steps whose heights are the least squares on the straight paths to the data y, `(n,)`."""
    f = SigmoidBasisDrift.for_paths(y, coupling)
    x, t, v, w = path_nodes(y, coupling)
    with torch.no_grad():
        phi = f.basis(x, t).flatten(1)
        gram = phi.T @ (w[:, None] * phi) + penalty * f.roughness()
        f.c.copy_(torch.linalg.solve(gram, phi.T @ (w * v)).view_as(f.c))
    return f


def run_by_papermill(
    folder: Path, command: str, parameters: dict[str, object], package: Path = ROOT
) -> str:
    """What a notebook, run whole in a folder, prints and writes; nothing goes to stderr."""
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *command.split(), "-y", json.dumps(parameters)]
    command += ["--no-progress-bar"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    text = ""
    for cell in nbformat.read(folder / "out.ipynb", 4).cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output.text
            text += str(output.get("text") or output.get("data", {}).get("text/markdown", ""))
    return text


@pytest.fixture
def kernel(monkeypatch) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel as a notebook's, with the package, in the repository."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    manager, client = start_new_kernel(startup_timeout=HANGS, cwd=str(ROOT))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
