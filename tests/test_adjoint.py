"""The batched adjoint against backprop through ODE.ipynb's readable solver."""

import math

import pytest
import torch
from torch import nn

from dlutils.flows import adjoint
from dlutils.flows.adjoint import log_likelihood, mean_log_likelihood, scores
from dlutils.flows.kernels import AutogradKernel, MLPKernel
from dlutils.flows.methods import LOGDETS, METHODS, order_of
from dlutils.flows.nets import ConcatSquashDrift, FourierDrift, SigmoidBasisDrift

pytestmark = pytest.mark.usefixtures("float64")

BOTH = pytest.mark.parametrize("function", [log_likelihood, mean_log_likelihood])


class WithoutKernel(nn.Module):
    """Hides the kernel() that a drift may have."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x, t):
        return self.f(x, t)


class Sine(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.8))
        self.b = nn.Parameter(torch.tensor(1.3))

    def forward(self, x, t):
        return self.a * torch.sin(self.b * x + t)


class TimeOnly(nn.Module):
    """Without even a formal dependence on x."""

    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(torch.tensor(0.6))

    def forward(self, x, t):
        return (self.c * t).expand(x.shape)


def with_kernel(ode, depth=2, hidden=8, **settings):
    class KernelDrift(ode.MLPDrift):
        def kernel(self):
            return MLPKernel(self.net)

    return KernelDrift(hidden=hidden, depth=depth, **settings)


def steps(ode, places=None):
    f = SigmoidBasisDrift(n_steps=5, places=places)
    for p in f.parameters():
        nn.init.normal_(p, std=0.3)
    return f


DRIFTS = {
    "mlp": lambda ode: WithoutKernel(ode.MLPDrift(hidden=8)),
    "kernel, depth 1": lambda ode: with_kernel(ode, 1),
    "kernel, depth 2": lambda ode: with_kernel(ode, 2),
    "kernel, depth 3": lambda ode: with_kernel(ode, 3),
    "steps, kernel": steps,
    "steps": lambda ode: WithoutKernel(steps(ode)),
    "moving steps, kernel": lambda ode: steps(ode, torch.randn(2, 6).cumsum(1)),
    "concat squash": lambda ode: ConcatSquashDrift(hidden=5),
    "fourier, with a buffer": lambda ode: FourierDrift(n_frequencies=3, hidden=5),
    "sine": lambda ode: Sine(),
    "time only": lambda ode: TimeOnly(),
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


def relative_difference(ode, f, method, logdet, n_steps=7):
    """From backprop through the solver: of log p, the sums, and their gradients."""
    y, w = data()
    settings = (n_steps, method, logdet)
    with torch.no_grad():  # another way to the same values
        points = distance([log_likelihood(f, y, *settings)], [ode.log_likelihood(f, y, *settings)])
        mean = w @ ode.log_likelihood(f, y, *settings) / w.sum()
        points = max(points, distance([mean_log_likelihood(f, y, w, *settings)], [mean]))
    sums = distance(
        value_and_gradients(f, y, lambda y: w @ log_likelihood(f, y, *settings)),
        value_and_gradients(f, y, lambda y: w @ ode.log_likelihood(f, y, *settings)),
    )
    means = distance(  # the factor: a derivative that is not 1 arrives from above
        value_and_gradients(f, y, lambda y: -2.5 * mean_log_likelihood(f, y, w, *settings)),
        value_and_gradients(
            f, y, lambda y: -2.5 * (w @ ode.log_likelihood(f, y, *settings)) / w.sum()
        ),
    )
    return max(points, sums, means)


CASES = [(drift, "rk4", "map") for drift in DRIFTS]
CASES += [(NETS[1], method, logdet) for method in METHODS for logdet in LOGDETS]


@pytest.mark.parametrize(("drift", "method", "logdet"), dict.fromkeys(CASES))
def test_values_and_gradients_are_those_of_backprop(ode, drift, method, logdet):
    assert relative_difference(ode, DRIFTS[drift](ode), method, logdet) < 1e-9


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
    f = with_kernel(ode)
    for logdet in LOGDETS if "map" not in name else ("map",):
        assert relative_difference(ode, f, "rk4", logdet) < 1e-9
        with monkeypatch.context() as patch:
            patch.setattr(owner, attribute, wrong)
            assert relative_difference(ode, f, "rk4", logdet) > 1e-4


@pytest.mark.parametrize("logdet", LOGDETS)
def test_chunks_change_nothing(ode, logdet):
    f, n_steps = with_kernel(ode), 7
    y, w = data(600)  # so many that None takes a step or two at a time
    for objective in (
        lambda y, k: w @ log_likelihood(f, y, n_steps, "rk2", logdet, k),
        lambda y, k: mean_log_likelihood(f, y, w, n_steps, "rk2", logdet, k),
    ):
        found = [
            value_and_gradients(f, y, lambda y, k=k, objective=objective: objective(y, k))
            for k in (1, 3, n_steps + 5, None)
        ]
        assert max(distance(other, found[0]) for other in found[1:]) < 1e-12


@pytest.mark.parametrize("drift", [name for name in DRIFTS if "kernel" in name])
def test_the_kernels_agree(ode, drift):
    f = DRIFTS[drift](ode)
    closed, reference = f.kernel(), AutogradKernel(f)
    assert all(p is q for p, q in zip(closed.parameters, reference.parameters, strict=True))
    x, t, w, c = 2 * torch.randn(20), torch.rand(20), torch.randn(20), torch.randn(20)
    close = {"rtol": 1e-11, "atol": 1e-13}
    with torch.no_grad():
        for time in (0.0, 0.3, 1.0):
            F, G = reference.velocity(x, time), reference.slope(x, torch.full_like(x, time))
            torch.testing.assert_close(closed.velocity(x, time), F, **close)
            torch.testing.assert_close(closed.with_slope(x, time), (F, G), **close)
    *found, pullback = closed.derivatives(x, t)
    *expected, _ = reference.derivatives(x, t)
    torch.testing.assert_close(reference.slope(x, t), expected[1])
    torch.testing.assert_close(found, expected, **close)
    for n in (None, len(x) // 4):
        expected = reference.derivatives(x, t)[-1](w, c, n)
        torch.testing.assert_close(pullback(w, c, n), expected, **close)


def assert_same(found, expected):
    assert distance(found, expected) < 1e-12


def test_weighted_points(ode):
    f = with_kernel(ode)
    y, w = data()

    def mean(y, w):
        return value_and_gradients(f, y, lambda y: mean_log_likelihood(f, y, w, 6, "rk2", "map"))

    expected = mean(y, w)
    assert_same(mean(y, 37.5 * w), expected)
    by_points = lambda y: (w * log_likelihood(f, y, 6, "rk2", "map")).sum() / w.sum()
    assert_same(value_and_gradients(f, y, by_points), expected)
    assert_same(mean(y, None), mean(y, torch.ones_like(y)))

    counts = torch.arange(len(y)) % 4  # integers, some of them zero
    value, y_gradient, *gradients = mean(y, counts)
    owner = torch.arange(len(y)).repeat_interleave(counts)
    repeated_value, repeated_y_gradient, *repeated = mean(y[owner], None)
    collected = torch.zeros_like(y).index_add(0, owner, repeated_y_gradient)
    assert_same([value, y_gradient, *gradients], [repeated_value, collected, *repeated])


@BOTH
@pytest.mark.parametrize("drift", NETS)
def test_a_frozen_parameter_gets_no_gradient(ode, function, drift):
    f = DRIFTS[drift](ode)
    y, _ = data()
    frozen = list(f.parameters())[1].requires_grad_(False)
    function(f, y, n_steps=5, method="rk2").mean().backward()
    assert frozen.grad is None
    others = [p for p in f.parameters() if p is not frozen]
    expected = torch.autograd.grad(ode.log_likelihood(f, y, 5, "rk2").mean(), others)
    assert distance([p.grad for p in others], expected) < 1e-9


def test_weights_changed_before_backward_are_noticed(ode):
    """The derivatives wait for backward: with other weights they would be wrong."""
    for drift in NETS:
        f = DRIFTS[drift](ode)
        value = log_likelihood(f, data()[0], 5).sum()
        with torch.no_grad():
            next(f.parameters()).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "rk3"}, "unknown method 'rk3'; choose from euler, rk2, rk4"),
        ({"logdet": "exact"}, "unknown logdet 'exact'; choose from trace, map"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, not 0"),
        ({"chunk": 0}, "chunk must be an integer of at least 1, not 0"),
        ({"y": torch.zeros(3, 1)}, r"y must have shape \(n,\) .* not \(3, 1\)"),
        ({"y": torch.zeros(0)}, r"y must have shape \(n,\) .* not \(0,\)"),
    ],
)
def test_bad_settings_name_the_value_and_the_choices(arguments, message):
    with pytest.raises(ValueError, match=message):
        log_likelihood(Sine(), **{"y": torch.zeros(3), **arguments})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 1.0], r"weights must .* shape .*\(3,\), not \(2,\)"),
        ([1.0, -0.5, 1.0], "must not be negative or NaN; the smallest is -0.5"),
        ([1.0, math.nan, 1.0], "must not be negative or NaN; the smallest is nan"),
        ([0.0, 0.0, 0.0], "must have a positive finite sum, not 0"),
        ([1.0, math.inf, 1.0], "must have a positive finite sum, not inf"),
    ],
)
def test_improper_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        mean_log_likelihood(Sine(), torch.zeros(3), torch.tensor(weights))


@BOTH
@pytest.mark.parametrize("logdet", LOGDETS)
def test_the_step_that_folds_is_named(function, logdet):
    """It folds from t = 0.3 down to 0: not in the chunk at t = 1."""
    f = lambda x, t: torch.where(torch.as_tensor(t) < 0.35, 20.0, 0.1) * x
    message = r"euler step of size 0.1 at t = 0.[123] folds the line \(r = -1, .*: raise n_steps"
    with pytest.raises(ValueError, match=message):
        function(f, torch.linspace(-1, 1, 3), n_steps=10, logdet=logdet, chunk=3)


def test_an_exploding_solve_says_from_when():
    with pytest.raises(ValueError, match=r"not finite from t = 0.7 on: the drift explodes"):
        log_likelihood(lambda x, t: -50 * x**3, torch.tensor([0.0, 10.0]), n_steps=20)


@BOTH
def test_a_bare_function_must_not_hide_weights(function):
    weight = torch.tensor(0.5, requires_grad=True)
    f = lambda x, t: weight * x
    with pytest.raises(ValueError, match=r"is not an nn\.Module"):
        function(f, torch.zeros(3))
    with torch.no_grad():  # nobody waits for the gradient
        assert function(f, torch.zeros(3)).isfinite().all()


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


@pytest.mark.parametrize("name", DRIFTS)
def test_scores_are_the_gradient_of_each_point(ode, name):
    f, y = DRIFTS[name](ode), data(5)[0]
    values, found = scores(f, y, 6, "rk2", "map", chunk=4)
    log_p = ode.log_likelihood(f, y, 6, "rk2", "map")
    gradients = [torch.autograd.grad(v, f.parameters(), retain_graph=True) for v in log_p]
    by_backprop = torch.stack([nn.utils.parameters_to_vector(g) for g in gradients])
    assert torch.allclose(values, log_p.detach())
    assert distance([found], [by_backprop]) < 1e-9


def test_scores_leave_out_what_is_frozen(ode):
    f = DRIFTS["mlp"](ode)
    y = data()[0]
    whole = scores(f, y)[1]
    frozen = next(f.parameters())
    frozen.requires_grad_(False)
    assert torch.equal(scores(f, y)[1], whole[:, frozen.numel() :])


@pytest.mark.parametrize("method", METHODS)
def test_the_continuous_adjoint_comes_closer_with_the_steps(ode, method):
    """By the order of the method; a term that is left out would stay."""
    f, (y, w) = with_kernel(ode), data()
    errors = []
    for n_steps in (8, 16, 32):
        exact = adjoint.flat_gradient(w @ log_likelihood(f, y, n_steps, method), f)
        found = adjoint.continuous_gradient(f, y, w, n_steps, method)
        errors.append(distance([nn.utils.parameters_to_vector(found)], [exact]))
    order = math.log2(errors[0] / errors[2]) / 2
    assert order == pytest.approx(order_of(method), abs=0.35)


@pytest.mark.parametrize("left_out", ["G", "H", "w", "c"])
def test_without_a_term_the_continuous_adjoint_does_not_come_closer(monkeypatch, left_out):
    """By none of the four would the test above notice nothing."""
    derivatives = AutogradKernel.derivatives

    def lacking(self, x, t):
        F, G, H, pullback = derivatives(self, x, t)
        keep = {name: float(name != left_out) for name in "GHwc"}
        gradient = lambda w, c: pullback(keep["w"] * w, keep["c"] * c)
        return F, keep["G"] * G, keep["H"] * H, gradient

    f, (y, w) = Sine(), data()

    def error(n_steps):
        exact = adjoint.flat_gradient(w @ log_likelihood(f, y, n_steps, "rk4"), f)
        with monkeypatch.context() as patch:
            patch.setattr(AutogradKernel, "derivatives", lacking)
            found = adjoint.continuous_gradient(f, y, w, n_steps, "rk4")
        return distance([torch.stack(found)], [exact])

    assert error(40) > 0.5 * error(10) > 1e-3
