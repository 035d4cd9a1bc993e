"""Each check takes the parts that are there, and names what is wrong with a wrong one."""

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
        (lambda x, t: x * float(t), r"times of shape \(n,\), a time for each state: .*one element"),
        (lambda x, t: x * t.reshape(-1)[0], r"for a point alone \(.*nor one time in place of all"),
        (
            lambda x, t: x * t[: len(x)],
            r"must take one time for all points, a tensor of shape \(\)",
        ),
        (lambda x, t: x * (1 + t.ndim), r"with one time for all points, .* must be .* at x = "),
        (lambda x, t: x / (x - x), "must be finite, not -inf"),
        (Flat(nn.BatchNorm1d(8)), r"a single point, shape \(1,\): Expected more than 1 value"),
        (ZeroAtFirst(), "a single point"),
        (lambda x, t: t * (x - x.mean()), "for a point alone .no batch normalisation"),
        (Flat(nn.Dropout(0.5)), "called again .no dropout"),
        (Damped(), r"kernel\(\) of the drift .*needs `def kernel.* must be "),
    ],
    check_path: [
        (
            wrong_path(time_at=SDE.VariancePreservingPath.time_at),
            r"time\(clock\(t\)\), the clock read backwards, must be 0\.\d+ at t = ",
        ),
        (wrong_path(forward=end_off), r"beta\(y, t = 1\) must be 0.01 at y = .*, not 0.02"),
        (
            wrong_path(schedule=sign_of_a_rate),
            r"beta_dot of with_rates must be -0.99 at t = .*, not 0.99",
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
            wrong_noise(forward=lambda self, x, t: 1 + x**2),
            "the slope d sigma / dx of with_slope must be -4 at x = -2, not 0",
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
