from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from conftest import WithoutKernel
from dlutils.evaluation import slope
from dlutils.flows.adjoint import log_likelihood, mean_log_likelihood
from dlutils.processes import fresh_processes
from dlutils.tools import complexity


def test_every_way_has_the_same_gradient(ode):
    """That whose derivatives are written out, and so by autograd."""
    y = torch.linspace(-2, 2, 7, dtype=torch.float64)
    f = ode.MLPDrift(hidden=8).double()
    mean_log_likelihood(WithoutKernel(f), y, None, 40).backward()
    expected = [p.grad.clone() for p in f.parameters()]
    for way in ("backprop", "checkpointing", "adjoint, one batch", "adjoint, chunks"):
        f.zero_grad()
        complexity.WAYS[way](f, y, 40)
        for p, g in zip(f.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, g, rtol=1e-9, atol=1e-12, msg=way)


def peaks() -> tuple[int, int]:
    """Of nothing, and of a tensor of 160 MB that is freed at once."""
    nothing = complexity.peak_memory(int)
    return nothing, complexity.peak_memory(lambda: torch.ones(40_000_000).sum())


def test_peak_memory_sees_a_large_tensor_that_is_gone_again():
    """In a fresh process: one that kept what it freed before would not grow."""
    with ProcessPoolExecutor(1, fresh_processes([])) as pool:
        before, peak = pool.submit(peaks).result()
    assert 150e6 < peak - before < 200e6


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
    model = complexity._sde()
    complexity.WAYS["simulation-free"](None, torch.linspace(-2, 2, 50, dtype=torch.float64), 7)
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("steps", "message"), [([0], "n_steps"), ((3, 2), r"must increase, not \(3, 2\)")]
)
def test_bad_numbers_of_steps(steps, message):
    with pytest.raises(ValueError, match=message):
        complexity.measure(["forward"], steps)


def test_sizes_are_measured_one_by_one(monkeypatch):
    """By the number of points of each gradient, after one to warm up."""
    calls, mean = [], complexity.mean_log_likelihood

    def recorded(f, y, weights=None, n_steps=100, chunk=None):
        calls.append(len(y))
        return mean(f, y, weights, n_steps, chunk=chunk)

    monkeypatch.setattr(complexity, "mean_log_likelihood", recorded)
    few, many = complexity.by_points([100, 300], n_bins=8)
    assert (few["points"], many["points"]) == (100, 300)
    assert max(few["nodes"], many["nodes"]) <= 16
    sizes = [100, few["nodes"], 100, 300, many["nodes"], 256]
    assert calls[::4] == sizes


def test_the_continuous_adjoint_is_off_by_the_size_of_a_step(ode, monkeypatch):
    steps = [25, 50, 100]
    errors = complexity.continuous_errors(steps)
    assert slope(steps, errors) == pytest.approx(-1, abs=0.2)
    assert 1e-4 < errors[-1] < 0.1

    def a_tenth_too_long(f, y, weights, n_steps):
        value = weights @ log_likelihood(f, y, n_steps)
        return [1.1 * g for g in torch.autograd.grad(value, list(f.parameters()))]

    monkeypatch.setattr(complexity, "continuous_gradient", a_tenth_too_long)
    assert complexity.continuous_errors([3, 5]) == pytest.approx([0.1, 0.1], rel=1e-9)


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


def test_a_summary_has_the_slope_and_what_is_needed_at_most():
    measured = complexity.Measured(
        (10, 100),
        {"forward": np.array([1.0, 10.0]), "backprop": np.array([2.0, 200.0])},
        {"forward": np.array([1.0, 1.0]), "backprop": np.array([3.0, 30.0])},
    )
    found = complexity.summary(measured)
    assert vars(found["forward"]) == pytest.approx({"time": 1, "slope": 1, "megabytes": 1})
    assert vars(found["backprop"]) == pytest.approx({"time": 11, "slope": 2, "megabytes": 30})
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
