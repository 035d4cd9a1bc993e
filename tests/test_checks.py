"""Each check takes the parts that are there, and names what is wrong with a wrong one."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from conftest import ode_definitions, sde_definitions
from dlutils.checks import check_diffusion, check_drift, check_path, check_sde, check_t_sampler
from dlutils.flows import adjoint
from dlutils.flows.methods import METHODS, check_solver, order_of

ODE, SDE = ode_definitions(), sde_definitions()


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


class Counted(Flat):
    calls = 0

    def forward(self, x, t):
        self.calls += 1
        return super().forward(x, t) + 1e-3 * self.calls


class WrongBasis(ODE.SigmoidBasisDrift):
    def basis(self, x, t):
        return 2 * super().basis(x, t)

    def forward(self, x, t):
        return super().forward(x, t) / 2


def of_x(f):
    """A net of which a part is f(x)."""

    class OfX(Flat):
        def forward(self, x, t):
            return super().forward(x, t) + 0.1 * f(x)

    return OfX()


def in_no_grad(x):
    with torch.no_grad():
        return x.sin()


class TwiceTheSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, by_x):
        return 2 * by_x


TABLE = torch.randn(49, generator=torch.Generator().manual_seed(0)).double()
HIDING = [  # of which autograd does not see all
    lambda x: x / x.detach().abs().clamp(min=0.1),
    lambda x: torch.where(x > 3, x.detach(), x),
    lambda x: x.detach(),
    lambda x: x.data.sin(),
    lambda x: torch.from_numpy(np.sin(x.detach().numpy())),
    lambda x: torch.tensor([math.sin(value) for value in x.tolist()], dtype=x.dtype),
    lambda x: x.round(),
    lambda x: (100 * x).floor() / 100,
    lambda x: x + (x.round() - x).detach(),  # straight through
    lambda x: x.sign(),
    lambda x: (x > 0.123).to(x.dtype),
    lambda x: torch.bucketize(x, torch.linspace(-2, 2, 9).double()).to(x.dtype),
    lambda x: TABLE[(x.round().clamp(-24, 24) + 24).long()],
    lambda x: ((x > 0).to(x.dtype) - x.sigmoid()).detach() + x.sigmoid(),
    in_no_grad,
    TwiceTheSlope.apply,
]


def between_entries(x):
    at = 8 * (x.clamp(-3, 2.99) + 3)
    return torch.lerp(TABLE[at.long()], TABLE[at.long() + 1], at - at.floor())


def sorted_and_put_back(x):
    values, order = x.sort()
    return torch.empty_like(x).scatter(0, order, values.tanh())


SOUND = {
    "one entry to the next": between_entries,
    "steep": lambda x: (1e3 * (x - 0.3)).tanh() + (1e9 * (x - 0.3)).tanh(),
    "large slope": lambda x: 1e5 * x,
    "large": lambda x: 1e4 + x.sin(),
    "fast": lambda x: (60 * x).sin() * (1 + x.cos()),
    "kinks": lambda x: (4 * x % 2 - 1).abs() + x.clamp(-1, 1) + (3 * x).relu(),
    "a root": lambda x: x.abs().sqrt() + x.sign() * x.abs() ** (1 / 3),
    "grows": lambda x: x.exp() - x**3,
    "overflows": lambda x: (x**3).exp(),
    "ends": lambda x: (x + 3).log(),
    "single precision inside": lambda x: (3 * x.float()).sin().to(x.dtype),
    "as good as all of x": lambda x: x + ((1e7 * x).round() / 1e7 - x).detach(),
    "sorted and put back": sorted_and_put_back,
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_passes(name):
    check_drift(of_x(SOUND[name]))


class LogOfWeight(Flat):
    """Its weight stays positive in training, but not where all are moved."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.01))

    def forward(self, x, t):
        return super().forward(x, t) * self.scale.log()


class Kept(Flat):
    """Keeps what it has computed, which nothing copies once it has a gradient."""

    def forward(self, x, t):
        self.features = self.net[:2](ODE.with_time(x, t))
        return self.net[2](self.features).squeeze(-1)


class PlainTensor(Flat):
    """A constant that is no buffer."""

    def __init__(self):
        super().__init__()
        self.frequencies = torch.randn(8)

    def forward(self, x, t):
        features = (x[..., None] * self.frequencies).sin()
        return super().forward(features @ self.frequencies, t)


class Potential(Flat):
    """The slope of a net."""

    def forward(self, x, t):
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            height = super().forward(x, t)
            return torch.autograd.grad(height.sum(), x, create_graph=True)[0]


def test_nets_of_other_kinds_pass():
    kept = Kept()
    kept(torch.zeros(3), torch.zeros(3))
    layers = nn.ReLU(), nn.LayerNorm(8), nn.PReLU(), nn.Softsign(), nn.BatchNorm1d(8).eval()
    normed = Flat()
    nn.utils.parametrizations.weight_norm(normed.net[0])
    for f in (LogOfWeight(), kept, PlainTensor(), Potential(), Flat(*layers), normed):
        check_drift(f)
    check_drift(ODE.FourierDrift(scale=20.0))
    check_drift(lambda x, t: torch.zeros_like(x))


def wrong_path(**methods):
    """A linear path with some methods of one's own."""
    return type("Wrong", (SDE.LinearPath,), methods)(0.01)


def wrong_noise(**methods):
    """A constant sigma with some methods of one's own."""
    return type("Wrong", (SDE.ConstantDiffusion,), methods)(SDE.LinearPath(0.01))


def wrong_sampler(**fields):
    """The plain sampler with some fields changed."""

    def sampler(path, n, generator=None):
        draw = SDE.iid(path, n, generator)
        return draw._replace(**{name: change(draw) for name, change in fields.items()})

    return sampler


def end_off(self, y, t):
    alpha, beta = SDE.LinearPath.forward(self, y, t)
    return alpha, beta + self.delta * t


def another_alpha(self, y, t):
    alpha, beta = SDE.LinearPath.forward(self, y, t)
    return alpha + t * (1 - t) * y, beta


def sign_of_a_rate(self, t):
    a, beta, a_dot, beta_dot = SDE.LinearPath.schedule(self, t)
    return a, beta, a_dot, -beta_dot


def in_steps(self, t):
    a, beta, a_dot, beta_dot = SDE.LinearPath.schedule(self, t)
    later = 0.01 * (t > 0.3)
    return a, beta + later * (1 - t), a_dot, beta_dot - later


def no_rate(self, t):
    a, beta, a_dot, beta_dot = SDE.LinearPath.schedule(self, t)
    return a, beta, 0 * a_dot, beta_dot


def shifted_in_place(self, t):
    return SDE.LinearPath.schedule(self, t.clamp_(0, 0.9))


def negative(self, t):
    bump = 4 * t * (1 - t)
    return t, 1 - t + self.delta * t - bump, 1 + 0 * t, self.delta - 1 - 4 * (1 - 2 * t)


def sampler_check(sampler):
    check_t_sampler(sampler, SDE.LinearPath(0.01))


WRONG = {
    check_drift: [
        (
            lambda x, t: (x * t)[:, None],
            r"value for each point, shape \(n,\).*for n = 7 .* not shape \(7, 1\)",
        ),
        (lambda x, t: x.float(), r"and the points' type.*not shape \(7,\), torch.float32"),
        (lambda x, t: x * float(t), r"times of shape \(n,\), a time for each: .*one element"),
        (lambda x, t: x * t.reshape(-1)[0], r"beside others \(.*nor one time in place of all"),
        (
            lambda x, t: x * t[: len(x)],
            r"must take one time for all points, a tensor of shape \(\)",
        ),
        (lambda x, t: x * (1 + t.ndim), r"with one time for all points, .* must be .* at x = "),
        (lambda x, t: x / (x - x), "must be finite, not -inf"),
        (Flat(nn.BatchNorm1d(8)), "for a point beside others .no batch normalisation.* must be"),
        (ZeroAtFirst(), "beside others .no batch normalisation"),
        (lambda x, t: t * (x - x.mean()), "beside others .no batch normalisation"),
        (lambda x, t: x * (1 + (len(x) > 20)), "beside others"),
        (lambda x, t: x + t.cumsum(0), "beside others"),
        (lambda x, t: x.sort().values + 0 * t, "for points in another order must be"),
        (
            lambda x, t: (x * t)[:, None].squeeze(),
            r"for a point alone must have shape \(1,\), not \(\)",
        ),
        (Flat(nn.Dropout(0.5)), "called again .no dropout"),
        (Counted(), "called again .*nor memory"),
        (lambda x, t: x.mul_(2) * t, "changes its first argument in place: x = x"),
        (lambda x, t: x * t.mul_(2), "changes its second argument in place"),
        (
            lambda x, t: torch.from_numpy(x.numpy().copy()),
            "must take states that want a gradient: Can't call numpy",
        ),
        (lambda x, t: x * (1 + torch.is_grad_enabled()), "while gradients are recorded must be"),
        (Damped(), r"kernel\(\) of the drift .*needs `def kernel.* must be "),
        (WrongBasis(), r"basis\(x, t\) of the drift times its weights c must be"),
        *((of_x(f), "slope of the drift, by autograd, .*hide x from autograd") for f in HIDING),
        (of_x(lambda x: torch.where(x > 0, x.sqrt(), 0 * x)), "must be finite, not nan, between x"),
    ],
    check_path: [
        (
            wrong_path(schedule=in_steps),
            r"beta_dot of with_rates must be that of the values, which may not jump.* at t = ",
        ),
        (
            wrong_path(schedule=lambda self, t: (t, 1 - (1 - self.delta) * t, 1 + 0 * t, -0.99)),
            "beta_dot of with_rates, and its values, must be a tensor .*, not -0.99",
        ),
        (wrong_path(schedule=no_rate), r"alpha_dot of with_rates must be .*between t = 0\.\d+ and"),
        (
            wrong_path(schedule=shifted_in_place),
            "alpha must leave what it is given as it is, but changes its second argument",
        ),
        (
            wrong_path(time_at=SDE.VariancePreservingPath.time_at),
            r"time\(clock\(t\)\), the clock read backwards, must be 0\.\d+ at t = ",
        ),
        (wrong_path(forward=end_off), r"beta\(y, t = 1\) must be 0.01 at y = .*, not 0.02"),
        (
            wrong_path(schedule=sign_of_a_rate),
            r"beta_dot of with_rates must be -0.99 on average between t = .*, not 0.99",
        ),
        (wrong_path(forward=another_alpha), "alpha of with_rates must be"),
        (
            wrong_path(time_rate=lambda self, t: 1 / SDE.LinearPath.time_rate(self, t)),
            r"time_rate\(time\(u\)\), dt/du, must be",
        ),
        (wrong_path(schedule=negative), r"beta must be positive and finite, not -0\.\d+ \(at t = "),
        (nn.Linear(1, 1), "a path must have delta; Linear does not"),
    ],
    check_diffusion: [
        (
            wrong_noise(forward=lambda self, x, t: 1 + x.round() ** 2),
            "the slope d sigma / dx of with_slope must be that of the values, which may not jump",
        ),
        (
            wrong_noise(forward=lambda self, x, t: x.std() + t),
            "sigma for a point beside others .no batch normalisation",
        ),
        (
            wrong_noise(forward=lambda self, x, t: 1 + x**2),
            r"the slope d sigma / dx of with_slope must be .* as the values change there, not 0 \(",
        ),
        (
            wrong_noise(forward=lambda self, x, t: t * (1 - t)),
            r"sigma must be positive and finite, not 0 \(at t = 0\)",
        ),
        (
            wrong_noise(forward=lambda self, x, t: torch.tensor(1.0)),
            r"sigma must have a value for each point.*not shape \(\)",
        ),
        (
            wrong_noise(with_slope=lambda self, x, t: (2 * self(x, t), 0.0)),
            "sigma of with_slope must be 1 at x = -2, not 2",
        ),
    ],
    sampler_check: [
        (wrong_sampler(t=lambda d: d.t**2), r"keep means: that of t is 0\.33\d ± .*, not 0.5"),
        (wrong_sampler(weight=lambda d: d.weight / 2), "that of 1 is 0.500"),
        (wrong_sampler(eps=lambda d: 2 * d.eps), r"that of eps\^2 is"),
        (wrong_sampler(eps=lambda d: d.eps + 0.2), "that of eps is"),
        (wrong_sampler(t=lambda d: 2 * d.t), "t of a sampler must lie between 0 and 1, not 1"),
        (wrong_sampler(weight=lambda d: torch.ones(1)), r"weight of a sampler must be n finite"),
        (
            wrong_sampler(v=lambda d: torch.rand(len(d.v))),
            "v of a sampler must depend on the generator",
        ),
    ],
    lambda drift: check_sde(SDE.LinearPath(0.01), wrong_noise(), drift): [
        (Flat(), "Flat must say what it returns: predicts_y = True"),
    ],
}


@pytest.mark.parametrize(
    ("check", "part", "message"), [(check, *row) for check, rows in WRONG.items() for row in rows]
)
def test_a_wrong_part_is_named(check, part, message):
    with pytest.raises(ValueError, match=message):
        check(part)


@pytest.mark.parametrize(
    ("tableau", "message"),
    [
        (([[1 / 2]], [1], [1 / 2]), "is implicit: stage 0 .*no implicit or adaptive ones"),
        (([[0, 0], [1 / 2, 1 / 2]], [1 / 2, 1 / 2], [0, 1]), "is implicit: stage 1"),
        (([[], [1]], [[1 / 2, 1 / 2], [1, 0]], [0, 1]), "one number in b and in c"),
        (
            ([[], [1]], [1 / 2, 1 / 2], [1, 0], [0, 1]),
            "must be lists of numbers a, b, c .*no implicit or adaptive ones",
        ),
        (([[], [1]], [1], [0, 1]), "of one length, not of 2, 1 and 2"),
        (([[], [1]], [1 / 2, 1 / 3], [0, 1]), "b of the method .* must sum to 1, not to 0.8333"),
        (
            ([[], [1]], [1 / 2, 1 / 2], [0, 1 / 2]),
            r"c\[1\] of the method .* must be 1, the sum of a\[1\], not 0.5",
        ),
        ("euler", "must be lists of numbers"),
    ],
)
def test_a_wrong_tableau(tableau, message, monkeypatch):
    monkeypatch.setitem(METHODS, "wrong", tableau)
    with pytest.raises(ValueError, match=message):
        check_solver(10, "wrong")


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
