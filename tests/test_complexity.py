import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from conftest import ROOT
from dlutils.evaluation import slope
from dlutils.flows.adjoint import log_likelihood, mean_log_likelihood
from dlutils.flows.kernels import AutogradKernel
from dlutils.tools import complexity


def test_every_way_has_the_same_gradient(ode):
    y = torch.linspace(-2, 2, 7, dtype=torch.float64)
    f = ode.MLPDrift(hidden=8).double()
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
        "import torch; from dlutils.tools.complexity import peak_memory as peak; "
        "before = peak(int); "
        "print(peak(lambda: torch.ones(40_000_000, dtype=torch.float32).sum()) - before)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 150e6 < int(done.stdout) < 200e6


def test_each_way_has_a_process_of_its_own():
    """One batch needs an array of 3000 steps; chunks, measured after it, do not find it freed."""
    ways = ("adjoint, one batch", "adjoint, chunks")
    measured = complexity.measure(ways, [10, 3000])
    assert measured.steps == (10, 3000)
    assert tuple(measured.seconds) == ways
    assert all((seconds > 0).all() for seconds in measured.seconds.values())
    batch, chunks = (megabytes[1] for megabytes in measured.megabytes.values())
    assert batch > 10 * chunks > 10


def test_the_way_without_simulation_reaches_every_weight():
    _, model = complexity._sde()
    complexity.WAYS["simulation-free"](None, torch.linspace(-2, 2, 50, dtype=torch.float64), 7)
    assert all(p.grad is not None for p in model.parameters())


def test_bad_numbers_of_steps():
    with pytest.raises(ValueError, match="n_steps"):
        complexity.measure(["forward"], [0])
    with pytest.raises(ValueError, match=r"must increase, not \(3, 2\)"):
        complexity.measure(["forward"], (3, 2))


@pytest.fixture
def calls(monkeypatch):
    """The net, the number of points and the chunk of each gradient, without the time it takes."""
    made, mean = [], complexity.mean_log_likelihood

    def recorded(f, y, weights=None, n_steps=100, chunk=None):
        made.append((type(f).__name__, len(y), n_steps, chunk))
        return mean(f, y, weights, n_steps, chunk=chunk)

    monkeypatch.setattr(complexity, "mean_log_likelihood", recorded)
    return made


def test_the_parts_of_the_speed_are_measured_one_by_one(ode, calls):
    rows = complexity.parts(4)
    assert [row["training step"] for row in rows] == [
        "backprop through the solver", "adjoint, step by step", "adjoint, in batches of steps"
    ]  # fmt: skip
    columns = ["training step", "derivatives by autograd, ms", "derivatives written out, ms"]
    assert all(list(row) == columns for row in rows)
    values = [row[column] for row in rows for column in columns[1:]]
    assert values.pop(1) == "–", "backprop has no derivatives of its own"
    assert all(value > 0 for value in values)
    n = calls[0][1]
    assert list(dict.fromkeys(calls)) == [
        ("_ByAutograd", n, 4, 1), ("MLPDrift", n, 4, 1),
        ("_ByAutograd", n, 4, None), ("MLPDrift", n, 4, None),
    ]  # fmt: skip


def test_derivatives_by_autograd_hide_those_that_are_written_out(ode):
    f, y = ode.MLPDrift(hidden=8), torch.linspace(-2, 2, 7)
    hidden = complexity._ByAutograd(f)
    assert type(hidden.kernel()) is AutogradKernel is not type(f.kernel())
    found, expected = (
        torch.autograd.grad(mean_log_likelihood(net, y, None, 5), list(f.parameters()))
        for net in (hidden, f)
    )
    torch.testing.assert_close(found, expected)


def test_a_step_is_measured_by_the_number_of_points(ode, calls):
    rows = complexity.by_points([100, 300], n_bins=8)
    assert [row["points"] for row in rows] == [100, 300]
    columns = ["points", "nodes", "all points, ms", "compressed, ms", "256 points, ms"]
    assert all(list(row) == columns for row in rows)
    assert all(row[column] > 0 for row in rows for column in columns)
    few, many = (row["nodes"] for row in rows)
    assert max(few, many) <= 16
    sizes = [100, few, 100, 300, many, 256]
    assert [n for _, n, _, _ in calls[::4]] == sizes, "three of each, after one to warm up"


def test_the_continuous_adjoint_is_off_by_the_size_of_a_step(ode):
    steps = [25, 50, 100]
    errors = complexity.continuous_errors(steps)
    assert slope(steps, errors) == pytest.approx(-1, abs=0.2)
    assert 1e-4 < errors[-1] < 0.1


def test_the_way_of_the_continuous_adjoint_has_almost_the_gradient_of_the_mean(ode, monkeypatch):
    found, gradient = [], complexity.continuous_gradient
    monkeypatch.setattr(
        complexity, "continuous_gradient", lambda *settings: found.extend(gradient(*settings))
    )
    f, y = ode.MLPDrift(hidden=8), torch.linspace(-2, 2, 7)
    complexity.WAYS["continuous adjoint"](f, y, 200)
    exact = torch.autograd.grad(mean_log_likelihood(f, y, None, 200), list(f.parameters()))
    for name, g, e in zip(dict(f.named_parameters()), found, exact, strict=True):
        assert (g - e).norm() < 0.05 * e.norm(), name


def test_the_way_of_flow_matching_has_the_gradient_of_independent_pairs(ode):
    """Closed form for a linear drift: E x^2 = (1 + E y^2) / 3, 2 E xv = E y^2 - 1, 2 E x = E y."""
    f, y = ode.LinearDrift(), 2 + torch.linspace(-1.5, 1.5, 200_000)
    nn.init.constant_(f.gamma, 0.7)
    nn.init.constant_(f.b, 0.3)
    gradients = []
    for n_steps in (3, 300):
        f.zero_grad()
        torch.manual_seed(0)
        complexity.WAYS["flow matching"](f, y, n_steps)
        gradients.append(torch.stack([f.gamma.grad, f.b.grad]))
    first, second = y.mean(), y.square().mean()
    along_gamma = 2 * 0.7 * (1 + second) / 3 + 0.3 * first - (second - 1)
    expected = torch.stack([along_gamma, 0.7 * first + 2 * 0.3 - 2 * first])
    torch.testing.assert_close(gradients[0], expected, rtol=0, atol=0.04)  # 4 standard errors
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0, msg="no T in it")


def test_the_error_of_the_continuous_adjoint_is_relative_and_of_the_same_steps(ode, monkeypatch):
    def a_tenth_too_long(f, y, weights, n_steps):
        value = weights @ log_likelihood(f, y, n_steps)
        return [1.1 * g for g in torch.autograd.grad(value, list(f.parameters()))]

    monkeypatch.setattr(complexity, "continuous_gradient", a_tenth_too_long)
    assert complexity.continuous_errors([3, 5]) == pytest.approx([0.1, 0.1], rel=1e-9)


def test_a_summary_has_the_slope_and_what_is_needed_at_most():
    measured = complexity.Measured(
        (10, 100),
        {"forward": np.array([1.0, 10.0]), "backprop": np.array([2.0, 200.0])},
        {"forward": np.array([1.0, 1.0]), "backprop": np.array([3.0, 30.0])},
    )
    found = complexity.summary(measured)
    assert found["forward"] == complexity.Summary(1.0, pytest.approx(1), 1.0)
    assert found["backprop"] == complexity.Summary(11.0, pytest.approx(2), 30.0)
    assert complexity.table(measured, ["MB"])[1] == {
        "T": 100, "forward, MB": "1", "backprop, MB": "30"
    }  # fmt: skip
    assert complexity.table(measured, ["ms"])[0]["backprop, ms"] == "2000"


def test_the_median_of_turns_counts_and_the_most_of_their_memory(monkeypatch):
    """Each turn asks every way once, at the same T."""
    made = []

    def measured(way, n_steps):
        made.append((way, n_steps))
        k = made.count((way, n_steps))
        return [9.0, 1.0, 2.0][k - 1], 10.0 * k

    monkeypatch.setattr(complexity, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(complexity, "measure_once", measured)
    found = complexity.measure(["forward", "backprop"], [10, 1000])
    for way in ("forward", "backprop"):
        assert found.seconds[way].tolist() == [2, 9], "one turn of the many"
        assert found.megabytes[way].tolist() == [30, 10]
    turn = [("forward", 10), ("backprop", 10)]
    assert made[:4] == turn + turn
