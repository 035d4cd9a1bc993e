import subprocess
import sys

import pytest
import torch
from torch import nn

from conftest import ROOT
from dlutils.seeding import seeded
from dlutils.training import History, fit, iterations_table


class Point(nn.Module):
    """One weight; its objective is highest at 2."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def objective(self):
        return -((self.w - 2) ** 2)


SETTINGS = {"n_iterations": 100, "learning_rate": 0.3, "progress": False}


def test_fit_climbs_and_records():
    model = Point()
    history = fit(model, model.objective, lambda: -1.0, validate_every=40, **SETTINGS)
    assert model.w.item() == pytest.approx(2, abs=0.02)
    assert len(history.train) == 100
    assert history.val_iteration == [0, 40, 80, 100]
    assert history.val == [-1.0] * 4
    assert history.seconds > 0
    assert history.stopped is None


def test_callback_sees_model_and_history_after_each_validation():
    model, seen = Point(), []
    fit(
        model,
        model.objective,
        lambda: 0.0,
        validate_every=40,
        callback=lambda model, history: seen.append((model.w.item(), len(history.val))),
        **SETTINGS,
    )
    assert [count for _, count in seen] == [1, 2, 3, 4]
    assert seen[0][0] == 0
    assert seen[-1][0] == model.w.item()


class Broken:
    """An objective that does something else at its nth call."""

    def __init__(self, model, n, then):
        self.model, self.n, self.then, self.calls, self.weights = model, n, then, 0, []

    def __call__(self):
        self.calls += 1
        if self.calls == self.n:
            return self.then(self.model)
        self.weights.append(self.model.w.item())
        return self.model.objective()


def interrupt(model):
    raise KeyboardInterrupt


def fold(model):
    raise ValueError("a step folds the line")


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (lambda model: model.w * torch.nan, "the objective became nan"),
        (lambda model: model.w / 0, "the objective became inf"),
        (lambda model: (model.w - model.w).sqrt(), "the gradient is not finite"),
        (fold, "a step folds the line"),
        (interrupt, "interrupted at iteration 6"),
    ],
)
def test_a_stop_keeps_the_last_good_weights_and_the_history(then, message, capsys):
    model = Point()
    objective = Broken(model, 7, then)
    history = fit(model, objective, lambda: 0.0, label="small", **SETTINGS)
    assert message in history.stopped
    assert len(history.train) == 6
    assert model.w.item() == objective.weights[-1]
    assert f"small: {history.stopped}; the last good weights are kept" in capsys.readouterr().out


def test_an_interrupt_inside_validation_loses_nothing():
    model = Point()
    calls = iter([0.0, 0.0])

    def validate():
        try:
            return next(calls)
        except StopIteration:
            raise KeyboardInterrupt from None

    history = fit(model, model.objective, validate, validate_every=10, **SETTINGS)
    assert len(history.train) == 21
    assert history.val_iteration == [0, 10]
    assert len(history.val) == 2


def test_a_first_value_that_is_not_finite_is_an_error():
    model = Point()
    with pytest.raises(ValueError, match="became nan"):
        fit(model, lambda: model.w * torch.nan, lambda: 0.0, **SETTINGS)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_iterations": 0}, "n_iterations must be an integer of at least 1, not 0"),
        ({"validate_every": 1.5}, "validate_every must be an integer of at least 1, not 1.5"),
        ({"learning_rate": -1.0}, "learning_rate must be positive, not -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, not nan"),
    ],
)
def test_settings_are_checked_before_anything_is_trained(setting, message):
    model = Point()
    with pytest.raises(ValueError, match=message):
        fit(model, model.objective, lambda: 0.0, **SETTINGS | setting)
    assert model.w.item() == 0


def test_progress_shows_iteration_value_and_time_left(capsys):
    model = Point()
    fit(model, model.objective, lambda: 0.0, **SETTINGS | {"progress": True})
    out, err = capsys.readouterr()
    assert "100/100" in out
    assert "log-likelihood" in out
    assert err == ""
    fit(model, model.objective, lambda: 0.0, quantity="bound", **SETTINGS | {"progress": True})
    out, _ = capsys.readouterr()
    assert "bound" in out
    assert "log-likelihood" not in out


def test_seeded_streams():
    with seeded(1, 2):
        first = torch.rand(3)
    torch.rand(5)
    before = torch.get_rng_state()
    with seeded(1, 2):
        assert torch.equal(torch.rand(3), first)
    with seeded(2, 1):
        assert not torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="non-negative integer, not -2"), seeded(-2):
        pass


PAGE_FAULTS = """
import resource, torch
from dlutils.memory import keep_freed_memory

def page_faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        arrays = [torch.ones(2000, 64) for _ in range(10)]  # 0.5 MB each
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

offered = keep_freed_memory(megabytes=0)
handed_back = page_faults(20)
keep_freed_memory()
page_faults(20)
print(int(offered), handed_back, page_faults(20))
"""


def test_freed_memory_is_kept_for_the_next_array():
    """In a process of its own, whose memory nothing else has touched."""
    pytest.importorskip("resource")
    command = [sys.executable, "-c", PAGE_FAULTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    offered, handed_back, kept = map(int, done.stdout.split())
    if not offered:
        pytest.skip("this C library has no mallopt")
    assert kept < handed_back / 10


def test_iterations_to_a_distance():
    slow = History([0.0] * 20, [0, 10, 20], [-3.0, -2.05, -2.01], seconds=2.0)
    assert slow.iterations_to(-2.1) == 10
    assert slow.iterations_to(-2.0) is None
    fast = History([0.0] * 20, [0, 10, 20], [-2.001, -2.0, -2.0], seconds=1.0)
    rows = iterations_table({"slow": slow, "fast": fast}, -2.0, (0.1, 0.001))
    assert rows[0] == {
        "model": "slow", "to 0.1 nats": 10, "to 0.001 nats": "–", "ms each": "100.0",
        "seconds to 0.1": "1.00", "seconds to 0.001": "–",
    }  # fmt: skip
    assert [rows[1]["to 0.1 nats"], rows[1]["to 0.001 nats"]] == [0, 0]
