import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from dlutils.adjoint import mean_log_likelihood


@pytest.fixture(scope="module")
def complexity():
    from dlutils import complexity  # loads ODE.ipynb from the working directory

    return complexity


def test_every_way_has_the_same_gradient(complexity, ode):
    y = torch.linspace(-2, 2, 7)
    f = ode.MLPDrift(hidden=8)
    mean_log_likelihood(f, y, None, 40).backward()
    expected = [p.grad.clone() for p in f.parameters()]
    for way in ("backprop", "checkpointing", "adjoint, one batch", "adjoint, chunks"):
        f.zero_grad()
        complexity.WAYS[way](f, y, 40)
        for p, g in zip(f.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, g, rtol=1e-9, atol=1e-12, msg=way)


def test_peak_memory_sees_a_large_tensor_that_is_gone_again():
    """In a process of its own, which has no freed memory to use again."""
    code = (
        "import torch; from dlutils.complexity import peak_memory as peak; before = peak(int); "
        "print(peak(lambda: torch.ones(40_000_000, dtype=torch.float32).sum()) - before)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 150e6 < int(done.stdout) < 200e6


@pytest.mark.parametrize("way", ["adjoint, chunks", "simulation-free"])
def test_command_prints_a_line_for_each_number_of_steps(way):
    command = [sys.executable, "-m", "dlutils.complexity", way, "30", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["n_steps"] for row in rows] == [10, 30]
    assert all(row["seconds"] > 0 for row in rows)
    assert done.stderr == ""
