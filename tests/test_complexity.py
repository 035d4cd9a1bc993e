import subprocess
import sys

import pytest
import torch

from conftest import ROOT
from dlutils import complexity
from dlutils.adjoint import mean_log_likelihood


def test_every_way_has_the_same_gradient(ode):
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


def test_measures_each_way_for_each_number_of_steps():
    ways = ("adjoint, chunks", "simulation-free")
    measured = complexity.measure(ways, [10, 30])
    assert tuple(measured) == ways
    for rows in measured.values():
        assert [row["n_steps"] for row in rows] == [10, 30]
        assert all(row["seconds"] > 0 for row in rows)


def test_each_way_has_a_process_of_its_own():
    """One batch needs an array of 3000 steps; chunks, measured after it, do not find it freed."""
    measured = complexity.measure(("adjoint, one batch", "adjoint, chunks"), [3000])
    batch, chunks = (rows[0]["megabytes"] for rows in measured.values())
    assert batch > 10 * chunks > 10


@pytest.mark.parametrize(
    ("ways", "steps", "message"),
    [(("magic",), [10], "unknown way 'magic'; choose from"), (("backprop",), [0], "n_steps")],
)
def test_bad_requests(ways, steps, message):
    with pytest.raises(ValueError, match=message):
        complexity.measure(ways, steps)


def test_steps_must_increase():
    with pytest.raises(ValueError, match=r"must increase, not \(3, 2\)"):
        complexity.measure(["forward"], (3, 2))
