import math
import re
import signal

import pytest
import torch
from torch import nn

from dlutils.data.datasets import make_dataset
from dlutils.flows.fitting import flow_matching, train
from dlutils.flows.nets import LinearDrift
from dlutils.seeding import seeded
from dlutils.training import ASTRAY, History, check_run, fit, on_samples, watched


class Point(nn.Module):
    """One weight; its objective is highest at 2."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def objective(self):
        return -((self.w - 2) ** 2)


SETTINGS = {"n_iterations": 100, "learning_rate": 0.3, "progress": False}


def test_fit_climbs_and_records():
    model, seen = Point(), []
    note = lambda model, history: seen.append((model.w.item(), len(history.val)))
    options = SETTINGS | {"validate_every": 40, "callback": note}
    history = fit(model, model.objective, lambda: -1.0, **options)
    assert model.w.item() == pytest.approx(2, abs=0.02)
    assert len(history.train) == 100
    assert history.val_iteration == [0, 40, 80, 100]
    assert history.val == [-1.0] * 4
    assert history.seconds > 0
    assert history.stopped is None
    assert [count for _, count in seen] == [1, 2, 3, 4]
    assert (seen[0][0], seen[-1][0]) == (0, model.w.item())


def test_the_best_weights_are_kept_whatever_their_layout(capsys):
    """Several tensors, one of them transposed, come back as they were when the judge liked them."""
    model = nn.Module()
    model.register_parameter("b", nn.Parameter(torch.zeros(())))
    model.register_parameter("w", nn.Parameter(torch.arange(6.0).view(2, 3).T))
    assert not model.w.is_contiguous()
    seen = []
    judge = lambda: seen.append([p.clone() for p in model.parameters()]) or -len(seen)
    fit(model, lambda: -(model.w.square().sum() + model.b), lambda: 0.0, judge=judge, **SETTINGS)
    assert "went astray; the weights of iteration 0" in capsys.readouterr().out
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), seen[0], strict=True))
    assert not torch.equal(model.w, seen[1][1])


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


class Script:
    """Values of validation, or of a judge, one after the other; with the weight at each call."""

    def __init__(self, model, *values):
        self.model, self.values, self.weights = model, values, []

    def __call__(self):
        self.weights.append(self.model.w.item())
        return self.values[len(self.weights) - 1]


@pytest.mark.parametrize("then", [interrupt, fold])
def test_a_stop_keeps_the_best_validated_weights_where_the_last_were_worse(then, capsys):
    for values, kept in (((1.0, 3.0, 2.0), 10), ((1.0, 2.0, 3.0), None)):
        model = Point()
        validate, objective = Script(model, *values), Broken(model, 26, then)
        history = fit(model, objective, validate, validate_every=10, **SETTINGS)
        assert history.val == list(values)
        assert history.kept == kept
        said = capsys.readouterr().out
        if kept:
            assert model.w.item() == validate.weights[1] != objective.weights[-1]
            assert "at iteration 25" in said
            assert "; the weights of iteration 10, the best, are kept" in said
        else:
            assert model.w.item() == objective.weights[-1]
            assert "; the last good weights are kept" in said


@pytest.mark.parametrize(("drop", "astray"), [(0.9 * ASTRAY, False), (1.1 * ASTRAY, True)])
def test_a_run_that_the_judge_finds_astray_keeps_its_best_weights(drop, astray, capsys):
    model = Point()
    judge = Script(model, -5.0, -1.0, -1.0 - drop / 2, -1.0 - drop)
    validate = lambda: len(judge.weights)  # what is nominal only climbs
    settings = SETTINGS | {"validate_every": 40, "judge": judge, "label": "small"}
    history = fit(model, model.objective, validate, **settings)
    assert history.val == [0, 1, 2, 3], "recorded is what is nominal"
    assert history.stopped is None
    out = capsys.readouterr().out
    if astray:
        assert history.kept == 40
        assert model.w.item() == judge.weights[1]
        assert "small: went astray; the weights of iteration 40, the best, are" in out
    else:
        assert history.kept is None
        assert model.w.item() == judge.weights[3]
        assert out == ""
    assert judge.weights[1] != judge.weights[3]


def test_without_a_judge_or_a_stop_the_last_weights_stay(capsys):
    model = Point()
    validate = Script(model, 5.0, 4.0, 3.0, -100.0)
    history = fit(model, model.objective, validate, validate_every=40, **SETTINGS)
    assert history.kept is None
    assert model.w.item() == validate.weights[-1] == pytest.approx(2, abs=0.02)
    assert capsys.readouterr().out == ""


class Stairs:
    """Climbs by one a move, n times; looks at what it is told."""

    def __init__(self, model, n, look=None):
        self.model, self.n, self.moves = model, n, 0
        self.look_at = look or (lambda: float(self.moves))

    def look(self):
        return self.look_at()

    def move(self):
        self.moves += 1
        with torch.no_grad():
            self.model.w += 1
        return self.moves < self.n


def no_objective():
    pytest.fail("a climber has its own objective")


def test_a_climber_takes_the_steps_until_it_gains_nothing(capsys):
    model = Point()
    validate = lambda: model.w.item()
    settings = SETTINGS | {"climber": Stairs(model, 5), "validate_every": 2}
    history = fit(model, no_objective, validate, **settings)
    assert history.train == [0, 1, 2, 3, 4]
    assert history.val_iteration == [0, 2, 4, 5]
    assert history.val == [0, 2, 4, 5]
    assert model.w.item() == 5
    assert capsys.readouterr().out == ""
    settings |= {"climber": Stairs(model, 10**6), "n_iterations": 3}
    assert len(fit(model, no_objective, validate, **settings).train) == 3


def test_a_climber_that_cannot_look_raises_at_first_and_stops_later(capsys):
    model = Point()

    def look_fails_at(n):
        def look():
            if climber.moves == n:
                raise ValueError("a step folds the line")
            return float(climber.moves)

        climber = Stairs(model, 10**6, look)
        return SETTINGS | {"climber": climber, "label": "stairs"}

    with pytest.raises(ValueError, match="a step folds the line"):
        fit(model, no_objective, lambda: 0.0, **look_fails_at(0))
    capsys.readouterr()
    history = fit(model, no_objective, lambda: 0.0, **look_fails_at(3))
    assert history.train == [0, 1, 2]
    assert history.stopped == "stopped at iteration 3: a step folds the line"
    assert model.w.item() == 2, "the third move led where nothing can be seen"
    assert f"stairs: {history.stopped}; the last good weights are kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'; choose from adam, natural"),
        ({"optimizer": "natural", "batch_size": 256}, "of all points, not batch_size = 256"),
        ({"device": "abacus"}, "the device 'abacus'; choose from cpu"),
        ({"prior_precision": -1.0}, "prior_precision must be finite, not negative, not -1.0"),
        ({"prior_precision": math.nan}, "prior_precision must be finite, not negative, not nan"),
    ],
)
def test_a_run_is_refused_with_the_value_and_the_choices(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_run(**{"optimizer": "adam"} | settings)


class Unseen(nn.Module):
    """Its weight is there, but autograd does not see it."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def forward(self, x, t):
        return x * self.w.item()


class Frozen(LinearDrift):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class NoWeights(nn.Module):
    def forward(self, x, t):
        return -x


@pytest.mark.parametrize("drift", [Unseen, Frozen, NoWeights])
@pytest.mark.parametrize("optimizer", ["adam", "natural"])
def test_a_run_in_which_nothing_has_a_gradient_is_refused(drift, optimizer):
    data = make_dataset("gaussian", 50, 10, 10)
    with pytest.raises(ValueError, match="objective must have a gradient in the weights, but none"):
        train(data, drift, optimizer=optimizer, n_iterations=3, progress=False)


@pytest.mark.parametrize("drift", [Unseen, Frozen, NoWeights])
def test_a_regression_in_which_nothing_has_a_gradient_is_refused(drift):
    data = make_dataset("gaussian", 50, 10, 10)
    with pytest.raises(ValueError, match="objective must have a gradient in the weights, but none"):
        flow_matching(data, drift, n_iterations=3, progress=False)


def test_a_model_for_each_sample_and_its_seed_in_order(capsys):
    fit_to = lambda sample, seed: (sample, seed)
    found = on_samples(fit_to, ["a", "b", "c"], [3, 1, 2], "three samples")
    assert found == [("a", 3), ("b", 1), ("c", 2)]
    assert "3/3" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_iterations": 0}, "n_iterations must be an integer of at least 1, not 0"),
        ({"validate_every": 1.5}, "validate_every must be an integer of at least 1, not 1.5"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, not nan"),
    ],
)
def test_settings_are_checked_before_anything_is_trained(setting, message):
    model = Point()
    with pytest.raises(ValueError, match=message):
        fit(model, model.objective, lambda: 0.0, **SETTINGS | setting)
    assert model.w.item() == 0


def test_progress_shows_iteration_value_and_its_name(capsys):
    model = Point()
    options = SETTINGS | {"progress": True, "quantity": "bound"}
    fit(model, model.objective, lambda: 0.0, **options)
    out, err = capsys.readouterr()
    assert "100/100" in out
    assert "bound" in out
    assert err == ""


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


def test_a_prior_is_around_zero_or_around_the_start_and_is_not_recorded():
    """The optimum of -(w - 3)^2 - precision (w - center)^2 / 2."""
    for around_start, expected in ((False, 3 / 2), (True, (3 + 1) / 2)):
        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        objective = lambda model=model: -((model.weight - 3) ** 2).sum()
        value = lambda objective=objective: objective().item()
        options = {"precision": 2.0, "around_start": around_start, "n_iterations": 400}
        history = fit(model, objective, value, **options, learning_rate=0.1, progress=False)
        assert model.weight.item() == pytest.approx(expected, abs=1e-3)
        assert history.train[0] == -4
        assert history.train[-1] == pytest.approx(-((expected - 3) ** 2), abs=0.01)


def test_a_loop_that_is_watched_counts_validates_and_takes_time(capsys):
    history, seen = History(), []
    for k in watched(history, 5, lambda: -len(seen), validate_every=2, quantity="bound"):
        seen.append(k)
        history.train.append(float(k))
    assert seen == [0, 1, 2, 3, 4]
    assert history.val_iteration == [0, 2, 4, 5]
    assert history.val == [0, -2, -4, -5]
    assert history.stopped is None
    assert history.seconds > 0
    assert "5/5" in capsys.readouterr().out


def test_an_interrupt_ends_a_watched_loop_after_its_iteration_and_a_second_one_at_once(capsys):
    history, before = History(), signal.getsignal(signal.SIGINT)
    for k in watched(history, 9, lambda: 0.0):
        if k == 3:
            signal.raise_signal(signal.SIGINT)
        history.train.append(float(k))
    assert history.train == [0, 1, 2, 3]
    assert history.val_iteration == [0, 4]
    assert "train: interrupted at iteration 4" in capsys.readouterr().out
    loop = watched(history, 9, lambda: 0.0)
    next(loop)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    loop.close()
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ValueError, match="n_iterations must be an integer of at least 1, not 0"):
        next(watched(history, 0, lambda: 0.0))
