from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import pytest
import torch

from dlutils.notebooks import load

mpl.use("Agg")
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def float64_and_seed():
    """Double precision and the same random numbers in every test; both put back afterwards."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def ode() -> ModuleType:
    """The definitions of ODE.ipynb."""
    return load(ROOT / "ODE.ipynb")
