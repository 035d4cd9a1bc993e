"""Each check takes the parts that are there, and names what is wrong with a wrong one."""

import pytest
import torch
from torch import nn

from conftest import ROOT
from dlutils.checks import check_diffusion, check_drift, check_path, check_sde, check_t_sampler
from dlutils.flows import adjoint
from dlutils.flows.methods import METHODS, check_solver, order_of
from dlutils.notebook import load

ODE, SDE = load(ROOT / "ODE.ipynb"), load(ROOT / "SDE.ipynb")


@pytest.mark.parametrize("name", ODE.DRIFTS)
def test_the_drifts_pass(name):
    check_drift(ODE.DRIFTS[name]())


@pytest.mark.parametrize("delta", [1e-4, 0.5])
@pytest.mark.parametrize("name", SDE.PATHS)
def test_the_parts_of_an_sde_pass(name, delta):
    path = SDE.PATHS[name](delta)
    for diffusion, drift in zip(SDE.DIFFUSIONS.values(), [*SDE.DRIFTS.values()] * 2, strict=False):
        check_sde(path, diffusion(path), drift(path))
    for sampler in SDE.T_SAMPLERS.values():
        check_t_sampler(sampler, path)


class Flat(nn.Module):
    """A net with some layers of one's own."""

    def __init__(self, *layers):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), *layers, nn.Linear(8, 1))

    def forward(self, x, t):
        return self.net(ODE.with_time(x, t)).squeeze(-1)


class ZeroAtFirst(Flat):
    def __init__(self):
        super().__init__(nn.BatchNorm1d(8))
        nn.init.zeros_(self.net[-1].weight)


class Damped(ODE.MLPDrift):
    """Has a forward of its own, and the kernel of its parent."""

    def forward(self, x, t):
        return super().forward(x, t) - x


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (
            lambda x, t: (x * t)[:, None],
            r"value for each point, shape \(n,\).*for n = 7 .* not shape \(7, 1\)",
        ),
        (lambda x, t: x.float(), r"and the points' type.*not shape \(7,\), torch.float32"),
        (lambda x, t: x * float(t), r"times of shape \(n,\), a time for each state: .*one element"),
        (
            lambda x, t: x * t.reshape(-1)[0],
            r"act on each point alone: .*nor one time in place of all",
        ),
        (
            lambda x, t: x * t[: len(x)],
            r"must take one time for all points, a tensor of shape \(\)",
        ),
        (lambda x, t: x * (1 + t.ndim), r"the same with one time for all points"),
        (lambda x, t: x / (x - x), "must be finite, not -inf"),
        (Flat(nn.BatchNorm1d(8)), r"a single point, shape \(1,\): Expected more than 1 value"),
        (ZeroAtFirst(), "a single point"),
        (lambda x, t: t * (x - x.mean()), "act on each point alone: .*no batch normalisation"),
        (Flat(nn.Dropout(0.5)), "differs from call to call: no dropout"),
        (Damped(), r"kernel\(\) of the drift does not belong to its forward"),
    ],
)
def test_a_wrong_drift(f, message):
    with pytest.raises(ValueError, match=message):
        check_drift(f)


class ForgottenTime(SDE.LinearPath):
    time_at = SDE.VariancePreservingPath.time_at


class WrongEnd(SDE.LinearPath):
    def forward(self, y, t):
        alpha, beta = super().forward(y, t)
        return alpha, beta + self.delta * t


class WrongRate(SDE.LinearPath):
    def schedule(self, t):
        a, beta, a_dot, beta_dot = super().schedule(t)
        return a, beta, a_dot, -beta_dot


class RateOfTheSchedule(SDE.LinearPath):
    def forward(self, y, t):
        alpha, beta = super().forward(y, t)
        return alpha + t * (1 - t) * y, beta


class WrongClockRate(SDE.LinearPath):
    def time_rate(self, t):
        return 1 / super().time_rate(t)


class Negative(SDE.LinearPath):
    def schedule(self, t):
        bump = 4 * t * (1 - t)
        return t, 1 - t + self.delta * t - bump, 1 + 0 * t, self.delta - 1 - 4 * (1 - 2 * t)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (ForgottenTime, r"time\(clock\(t\)\), the clock read backwards, must be 0\.\d+ at t = "),
        (WrongEnd, r"beta\(y, t = 1\) must be 0.01 at y = .*, not 0.02"),
        (WrongRate, r"beta_dot of with_rates must be -0.99 at t = .*, not 0.99"),
        (RateOfTheSchedule, "alpha of with_rates must be"),
        (WrongClockRate, r"time_rate\(time\(u\)\), dt/du, must be"),
        (Negative, r"beta must be positive and finite, not -0\.\d+ \(at t = "),
        (lambda delta: nn.Linear(1, 1), "a path must have delta; Linear does not"),
    ],
)
def test_a_wrong_path(path, message):
    with pytest.raises(ValueError, match=message):
        check_path(path(0.01))


class SlopeForgotten(SDE.ConstantDiffusion):
    def forward(self, x, t):
        return 1 + x**2


class NotPositive(SDE.ConstantDiffusion):
    def forward(self, x, t):
        return t * (1 - t)


class OneNumber(SDE.ConstantDiffusion):
    def forward(self, x, t):
        return torch.tensor(1.0)


class OtherSigma(SDE.ConstantDiffusion):
    def with_slope(self, x, t):
        return 2 * self(x, t), 0.0


@pytest.mark.parametrize(
    ("diffusion", "message"),
    [
        (SlopeForgotten, "the slope d sigma / dx of with_slope must be -4 at x = -2, not 0"),
        (NotPositive, r"sigma must be positive and finite, not 0 \(at t = 0\)"),
        (OneNumber, r"sigma must have a value for each point.*not 1"),
        (OtherSigma, "sigma of with_slope must be 1 at x = -2, not 2"),
    ],
)
def test_a_wrong_diffusion(diffusion, message):
    with pytest.raises(ValueError, match=message):
        check_diffusion(diffusion(SDE.LinearPath(0.01)))


def changed(**fields):
    """The plain sampler with some fields changed."""

    def sampler(path, n, generator=None):
        draw = SDE.iid(path, n, generator)
        return draw._replace(**{name: change(draw) for name, change in fields.items()})

    return sampler


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (changed(t=lambda d: d.t**2), r"keep means: that of t is 0\.33\d ± .*, not 0.5"),
        (changed(weight=lambda d: d.weight / 2), "that of 1 is 0.500"),
        (changed(eps=lambda d: 2 * d.eps), r"that of eps\^2 is"),
        (changed(eps=lambda d: d.eps + 0.2), "that of eps is"),
        (changed(t=lambda d: 2 * d.t), "t of a sampler must lie between 0 and 1, not 1"),
        (changed(weight=lambda d: torch.ones(1)), r"weight of a sampler must be n finite"),
        (changed(v=lambda d: torch.rand(len(d.v))), "v of a sampler must depend on the generator"),
    ],
)
def test_a_wrong_sampler_of_times(sampler, message):
    with pytest.raises(ValueError, match=message):
        check_t_sampler(sampler, SDE.LinearPath(0.01))


def test_an_sde_must_say_what_its_drift_returns():
    path = SDE.LinearPath(0.01)
    with pytest.raises(ValueError, match="Flat must say what it returns: predicts_y = True"):
        check_sde(path, SDE.ConstantDiffusion(path), Flat())


TABLEAUS = {
    "implicit midpoint": ([[1 / 2]], [1], [1 / 2]),
    "trapezoid": ([[0, 0], [1 / 2, 1 / 2]], [1 / 2, 1 / 2], [0, 1]),
    "adaptive": ([[], [1]], [[1 / 2, 1 / 2], [1, 0]], [0, 1]),
    "embedded": ([[], [1]], [1 / 2, 1 / 2], [1, 0], [0, 1]),
    "lengths": ([[], [1]], [1], [0, 1]),
    "sum of b": ([[], [1]], [1 / 2, 1 / 3], [0, 1]),
    "c": ([[], [1]], [1 / 2, 1 / 2], [0, 1 / 2]),
    "a name": "euler",
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("implicit midpoint", "is implicit: stage 0 .*no implicit or adaptive ones"),
        ("trapezoid", "is implicit: stage 1"),
        ("adaptive", "one number in b and in c"),
        ("embedded", "must be lists of numbers a, b, c .*no implicit or adaptive ones"),
        ("lengths", "of one length, not of 2, 1 and 2"),
        ("sum of b", "b of the method .* must sum to 1, not to 0.8333"),
        ("c", r"c\[1\] of the method .* must be 1, the sum of a\[1\], not 0.5"),
        ("a name", "must be lists of numbers"),
    ],
)
def test_a_wrong_tableau(name, message, monkeypatch):
    monkeypatch.setitem(METHODS, name, TABLEAUS[name])
    with pytest.raises(ValueError, match=message):
        check_solver(10, name)


def test_orders(monkeypatch):
    heun = ([[], [1 / 3], [0, 2 / 3]], [1 / 4, 0, 3 / 4], [0, 1 / 3, 2 / 3])
    three_eighths = (
        [[0] * 4, [1 / 3, 0, 0, 0], [-1 / 3, 1, 0, 0], [1, -1, 1, 0]],
        [1 / 8, 3 / 8, 3 / 8, 1 / 8],
        [0, 1 / 3, 2 / 3, 1],
    )
    monkeypatch.setitem(METHODS, "heun3", heun)
    monkeypatch.setitem(METHODS, "three_eighths", three_eighths)
    monkeypatch.setitem(
        METHODS, "quadrature only", ([[], [0.5], [1, 0]], [1 / 6, 2 / 3, 1 / 6], [0, 0.5, 1])
    )
    found = {name: order_of(name) for name in METHODS}
    assert found == {
        "euler": 1, "rk2": 2, "rk4": 4, "heun3": 3, "three_eighths": 4, "quadrature only": 2
    }  # fmt: skip
    y, f, steps = torch.linspace(-2, 2, 9).double(), lambda x, t: x.sin() * t, [16, 32, 64]
    exact = adjoint.log_likelihood(f, y, 512, "rk4")
    for name, order in found.items():
        log_p = [adjoint.log_likelihood(f, y, n, name, "map") for n in steps]
        errors = [(found - exact).abs().max() for found in log_p]
        slope = torch.log2(errors[0] / errors[2]).item() / 2
        assert slope > order - 0.2, name


def test_the_checks_leave_random_numbers_and_weights_alone():
    path, f = SDE.LearnedPath(0.01), ODE.MLPDrift()
    parts = SDE.DIFFUSIONS["learned_in_t"](path), SDE.DRIFTS["free"](path)
    weights = [p.clone() for part in (path, f, *parts) for p in part.parameters()]
    state = torch.get_rng_state()
    check_drift(f)
    check_sde(path, *parts)
    for sampler in SDE.T_SAMPLERS.values():
        check_t_sampler(sampler, path)
    assert torch.equal(state, torch.get_rng_state())
    same = zip(weights, (p for part in (path, f, *parts) for p in part.parameters()), strict=True)
    assert all(torch.equal(before, p) for before, p in same)
