"""The batched adjoint against backprop through ODE.ipynb's readable solver."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from conftest import WithoutKernel
from dlutils.flows import adjoint
from dlutils.flows.adjoint import log_likelihood, mean_log_likelihood, scores
from dlutils.flows.kernels import AutogradKernel, MLPKernel
from dlutils.flows.methods import LOGDETS, METHODS, order_of
from dlutils.flows.nets import ConcatSquashDrift, FourierDrift, SigmoidBasisDrift

pytestmark = pytest.mark.usefixtures("float64")


class Wave(nn.Module):
    """A sine, or a function of time alone, without even a formal dependence on x."""

    def __init__(self, of_x=True):
        super().__init__()
        self.a, self.of_x = nn.Parameter(torch.tensor(0.8)), of_x

    def forward(self, x, t):
        return self.a * torch.sin(1.3 * x + t) if self.of_x else (self.a * t).expand(x.shape)


def steps(places=None):
    f = SigmoidBasisDrift(n_steps=5, places=places)
    for p in f.parameters():
        nn.init.normal_(p, std=0.3)
    return f


DRIFTS = {
    "mlp": lambda ode: WithoutKernel(ode.MLPDrift(hidden=8)),
    "kernel, depth 1": lambda ode: ode.MLPDrift(hidden=8, depth=1),
    "kernel, depth 2": lambda ode: ode.MLPDrift(hidden=8),
    "kernel, depth 3": lambda ode: ode.MLPDrift(hidden=8, depth=3),
    "steps": lambda ode: WithoutKernel(steps()),
    "steps, kernel": lambda ode: steps(),
    "moving steps, kernel": lambda ode: steps(torch.randn(2, 6).cumsum(1)),
    "concat squash": lambda ode: ConcatSquashDrift(hidden=5),
    "fourier, with a buffer": lambda ode: FourierDrift(n_frequencies=3, hidden=5),
    "sine": lambda ode: Wave(),
    "time only": lambda ode: Wave(of_x=False),
}
NETS = ("mlp", "kernel, depth 2", "steps, kernel")  # one with each kernel


def data(n=11):
    return 1.5 * torch.randn(n), torch.rand(n) + 0.1


def value_and_gradients(f, y, objective):
    """The objective, its gradient in y, and in every weight that wants one."""
    y = y.clone().requires_grad_()
    value = objective(y)
    wanted = [p for p in f.parameters() if p.requires_grad]
    return [value.detach(), *torch.autograd.grad(value, [y, *wanted])]


def distance(found, expected):
    """The largest difference of two lists of tensors, each relative to its largest entry."""
    return max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, expected, strict=True)
    )


def relative_difference(ode, f, method, logdet, chunk=None):
    """From backprop through the solver: of log p, the sums, and their gradients."""
    y, w = data()
    settings = (7, method, logdet)
    expected = lambda y: ode.log_likelihood(f, y, *settings)
    with torch.no_grad():  # another way to the same values
        found = log_likelihood(f, y, *settings, chunk), mean_log_likelihood(f, y, w, *settings)
        points = distance(found, [expected(y), w @ expected(y) / w.sum()])
    sums = distance(
        value_and_gradients(f, y, lambda y: w @ log_likelihood(f, y, *settings, chunk)),
        value_and_gradients(f, y, lambda y: w @ expected(y)),
    )
    means = distance(  # the factor: a derivative that is not 1 arrives from above
        value_and_gradients(f, y, lambda y: -2 * mean_log_likelihood(f, y, w, *settings, chunk)),
        value_and_gradients(f, y, lambda y: -2 * (w @ expected(y)) / w.sum()),
    )
    return max(points, sums, means)


CASES = [(drift, "rk4", "map", 3) for drift in DRIFTS]
CASES += [(NETS[1], method, logdet, None) for method in METHODS for logdet in LOGDETS]


@pytest.mark.parametrize(("drift", "method", "logdet", "chunk"), CASES)
def test_values_and_gradients_are_those_of_backprop(ode, drift, method, logdet, chunk):
    assert relative_difference(ode, DRIFTS[drift](ode), method, logdet, chunk) < 1e-9


COSTATES, DERIVATIVES = adjoint._Solver.costates, MLPKernel.derivatives


def change_costates(change):
    def costates(self, G, H, U, r, v, costate):
        parts = {"G": G, "H": H, "U": U, "r": r, "costate": costate}
        return COSTATES(self, v=v, **parts | change(**parts))

    return (adjoint._Solver, "costates"), costates


def change_pullback(change):
    def derivatives(self, x, t):
        F, G, H, pullback = DERIVATIVES(self, x, t)
        return F, G, H, lambda w, c, n=None: pullback(*change(w, c), n)

    return (MLPKernel, "derivatives"), derivatives


zeros = lambda tensors: [torch.zeros_like(v) for v in tensors]
ones = lambda tensors: [torch.ones_like(v) for v in tensors]
MUTATIONS = {  # what to replace, and by what
    "no H": change_costates(lambda H, **_: {"H": zeros(H)}),
    "sign flipped at the start": change_costates(lambda costate, **_: {"costate": -costate}),
    "no G": change_costates(lambda G, **_: {"G": zeros(G)}),
    "map: no slopes of the stages": change_costates(lambda U, **_: {"U": ones(U)}),
    "map: no slope of the step": change_costates(lambda r, **_: {"r": torch.ones_like(r)}),
    "no c": change_pullback(lambda w, c: (w, torch.zeros_like(c))),
    "no w": change_pullback(lambda w, c: (torch.zeros_like(w), c)),
    "steps exchanged": change_pullback(lambda w, c: (w.flip(0), c)),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_comparison_catches_a_wrong_adjoint(ode, monkeypatch, name):
    (owner, attribute), wrong = MUTATIONS[name]
    monkeypatch.setattr(owner, attribute, wrong)
    for logdet in LOGDETS if "map" not in name else ("map",):
        assert relative_difference(ode, ode.MLPDrift(hidden=8), "rk4", logdet) > 1e-4


def test_a_weight_of_k_is_k_points():
    f, (y, _) = Wave(), data()
    counts = torch.arange(len(y)) % 4  # integers, some of them zero
    gradient = lambda y, w: value_and_gradients(f, y, lambda y: mean_log_likelihood(f, y, w, 6))
    value, _, by_weight = gradient(y, counts)
    repeated, _, by_points = gradient(y.repeat_interleave(counts), None)
    assert distance([value, by_weight], [repeated, by_points]) < 1e-12


@pytest.mark.parametrize("name", DRIFTS)
def test_scores_are_the_gradient_of_each_point(ode, monkeypatch, name):
    f, (y, _) = DRIFTS[name](ode), data(5)
    monkeypatch.setattr(adjoint, "CACHED_POINTS", 40)  # four of the six steps
    values, found = scores(f, y, 6, "rk2", "map")
    log_p = ode.log_likelihood(f, y, 6, "rk2", "map")
    gradients = [torch.autograd.grad(v, f.parameters(), retain_graph=True) for v in log_p]
    by_backprop = torch.stack([parameters_to_vector(g) for g in gradients])
    assert torch.allclose(values, log_p.detach())
    assert distance([found], [by_backprop]) < 1e-9


@pytest.mark.parametrize("drift", NETS)
def test_a_frozen_parameter_gets_no_gradient(ode, drift):
    f, (y, _) = DRIFTS[drift](ode), data()
    whole = scores(f, y, 5, "rk2")[1]
    frozen, *others = f.parameters()
    frozen.requires_grad_(False)
    expected = torch.autograd.grad(ode.log_likelihood(f, y, 5, "rk2").mean(), others)
    for function in (log_likelihood, mean_log_likelihood):
        f.zero_grad()
        function(f, y, n_steps=5, method="rk2").mean().backward()
        assert frozen.grad is None
        assert distance([p.grad for p in others], expected) < 1e-9
    assert torch.equal(scores(f, y, 5, "rk2")[1], whole[:, frozen.numel() :])


def test_weights_changed_before_backward_are_noticed(ode):
    """The derivatives wait for backward: with other weights they would be wrong."""
    for drift in NETS:
        f = DRIFTS[drift](ode)
        value = log_likelihood(f, data()[0], 5).sum()
        with torch.no_grad():
            next(f.parameters()).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


WEIGHT = torch.tensor(0.5, requires_grad=True)
folding = lambda x, t: torch.where(torch.as_tensor(t) < 0.35, 20.0, 0.1) * x  # not at t = 1
FOLD = r"euler step of size 0.1 at t = 0.[123] folds the line \(r = -1, .*: raise n_steps"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "rk3"}, "unknown method 'rk3'; choose from euler, rk2, rk4"),
        ({"logdet": "exact"}, "unknown logdet 'exact'; choose from trace, map"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, not 0"),
        ({"chunk": 0}, "chunk must be an integer of at least 1, not 0"),
        ({"y": torch.zeros(3, 1)}, r"y must have shape \(n,\) .* not \(3, 1\)"),
        ({"y": torch.zeros(0)}, r"y must have shape \(n,\) .* not \(0,\)"),
        *[({"f": folding, "chunk": 3, "logdet": logdet}, FOLD) for logdet in LOGDETS],
        (
            {"f": lambda x, t: -50 * x**3, "n_steps": 20},
            "not finite from t = 0.7 on: the drift",
        ),
        ({"f": lambda x, t: WEIGHT * x}, r"is not an nn\.Module"),
        *[
            (
                {"weights": torch.tensor(weights)},
                r"weights must have the shape of y, \(3,\), not",
            )
            for weights in ([1.0, 1], [1, -0.5, 1], [1, math.nan, 1], [0.0, 0, 0], [1, math.inf, 1])
        ],
    ],
)
def test_what_is_wrong_is_named(arguments, message):
    arguments = {"f": Wave(), "y": torch.tensor([0.0, 1.0, 10.0]), "n_steps": 10} | arguments
    for function in (log_likelihood, mean_log_likelihood)["weights" in arguments :]:
        with pytest.raises(ValueError, match=message):
            function(**arguments)


def test_a_bare_function_has_values_and_slopes(ode):
    with torch.no_grad():  # nobody waits for the gradient
        assert log_likelihood(lambda x, t: WEIGHT * x, torch.zeros(3)).isfinite().all()
    sine, (y, _) = lambda x, t: x.sin() * t, data()
    slope = lambda function: torch.autograd.grad(function(sine, leaf, n_steps=9).mean(), leaf)
    leaf = y.requires_grad_()
    for function in (log_likelihood, mean_log_likelihood):
        assert distance(slope(function), slope(ode.log_likelihood)) < 1e-9


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(2, 4, bias=False), nn.Tanh(), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(2, 1)),
    ],
)
def test_the_closed_form_refuses_other_nets(net):
    with pytest.raises(ValueError, match="MLPKernel needs"):
        MLPKernel(net)


def continuous_errors(f, method, all_steps, y, w):
    """Of the continuous adjoint's gradient, relative to that of the steps."""
    for n_steps in all_steps:
        exact = adjoint.flat_gradient(w @ log_likelihood(f, y, n_steps, method), f)
        found = parameters_to_vector(adjoint.continuous_gradient(f, y, w, n_steps, method))
        yield distance([found], [exact])


@pytest.mark.parametrize("method", METHODS)
def test_the_continuous_adjoint_comes_closer_with_the_steps(ode, method):
    """By the order of the method; a term that is left out would stay."""
    few, many = continuous_errors(ode.MLPDrift(hidden=8), method, (8, 32), *data())
    assert math.log2(few / many) / 2 == pytest.approx(order_of(method), abs=0.35)


@pytest.mark.parametrize("left_out", ["G", "H", "w", "c"])
def test_without_a_term_the_continuous_adjoint_does_not_come_closer(monkeypatch, left_out):
    class Lacking(AutogradKernel):
        def derivatives(self, x, t):
            F, G, H, pullback = super().derivatives(x, t)
            keep = {name: float(name != left_out) for name in "GHwc"}
            gradient = lambda w, c: pullback(keep["w"] * w, keep["c"] * c)
            return F, keep["G"] * G, keep["H"] * H, gradient

    f, (y, w) = Wave(), data()
    exact = [adjoint.flat_gradient(w @ log_likelihood(f, y, n, "rk4"), f) for n in (10, 40)]
    monkeypatch.setattr(adjoint, "AutogradKernel", Lacking)
    found = [adjoint.continuous_gradient(f, y, w, n, "rk4")[0] for n in (10, 40)]
    few, many = (distance([a], [b]) for a, b in zip(found, exact, strict=True))
    assert many > 0.5 * few > 1e-3


def test_many_points_without_a_gradient_are_solved_in_parts_that_stay_in_cache():
    """Of a million points the arrays of one stage would be gigabytes; the values are the same."""
    y, seen = torch.linspace(-2, 2, 3000, dtype=torch.float64), []

    def f(x, t):
        seen.append(len(x))
        return x.sin()

    with torch.no_grad():
        found = adjoint.log_likelihood(f, y, 3, "rk4", "map")
        one_by_one = [adjoint.log_likelihood(f, part, 3, "rk4", "map") for part in y.split(7)]
    assert max(seen) <= 4 * adjoint.CACHED_STATES < 4 * len(y), "four stages of a step"
    torch.testing.assert_close(found, torch.cat(one_by_one), rtol=0, atol=1e-12)
