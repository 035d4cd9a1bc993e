"""Drifts put together at random: those that pass the check have mass one, those broken do not pass.

A drift is a stack of layers that act on each point alone, with a time that shifts them, plus or
times what else a part may be. A broken one has one more part that autograd does not see whole, or
that looks at the other points, at the call or at their order.
"""

import math

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from dlutils.data.datasets import Dataset, make_dataset
from dlutils.evaluation import compare
from dlutils.flows.fitting import train
from dlutils.flows.nets import with_time

DATA = Dataset.from_samples(make_dataset("gaussian_mixture", 200, 2, 2).train)
WIDTH = 8
SETTINGS = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
    "phases": [Phase.generate],  # shrinking trains each time and says little
}


class Wave(nn.Module):
    """sin(k x)."""

    def __init__(self, k=2.0):
        super().__init__()
        self.k = k

    def forward(self, h):
        return (self.k * h).sin()


class Residual(nn.Module):
    """h + f(h)."""

    def __init__(self, activation):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(WIDTH, WIDTH), activation())

    def forward(self, h):
        return h + 0.3 * self.f(h)


LAYERS = {
    **{
        activation.__name__: activation
        for activation in (
            nn.Tanh, nn.SiLU, nn.GELU, nn.Softplus, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Hardtanh,
            nn.Softsign, nn.PReLU, Wave,
        )
    },
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "normed": lambda: nn.LayerNorm(WIDTH),
    "residual": lambda: Residual(nn.SiLU),
    "gate": lambda: nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GLU()),
    "weights normed": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    "softmax of a point": lambda: nn.Softmax(dim=-1),
    "dropout at rest": lambda: nn.Dropout(0.5).eval(),
    "batch normalization at rest": lambda: nn.BatchNorm1d(WIDTH).eval(),
}  # fmt: skip
BESIDE = {  # what else a sound drift may have, a function of x
    "nothing": lambda x: 0 * x,
    "a line": lambda x: 0.3 * x,
    "a steep step": lambda x: 0.01 * (50 * (x - 0.3)).tanh(),
    "a clamp": lambda x: 0.2 * x.clamp(-1, 1),
    "its absolute value": lambda x: 0.2 * x.abs(),
    "a wave": lambda x: 0.02 * (9 * x).sin(),
    "single precision": lambda x: 0.2 * (2 * x.float()).sin().to(x.dtype),
    "a bell": lambda x: (-(x**2)).exp(),
}


def in_no_grad(x):
    with torch.no_grad():
        return x.sin()


def by_python(x):
    return torch.tensor([math.sin(value) for value in x.tolist()], dtype=x.dtype)


def in_place(x):
    x += 0.1
    return x.sin()


class Memory:
    """Counts its calls."""

    calls = 0

    def __call__(self, x):
        self.calls += 1
        return x.sin() + 0.01 * self.calls


HIDDEN = {  # from autograd
    "detached": lambda x: x.detach().sin(),
    "detached in a scale": lambda x: (x / x.detach().abs().clamp(min=0.1)).tanh(),
    "detached on one side": lambda x: torch.where(x > 1, x.detach(), x).sin(),
    "rounded": lambda x: x.round().sin(),
    "rounded finely": lambda x: ((20 * x).floor() / 20).sin(),
    "rounded, straight through": lambda x: (x + (x.round() - x).detach()).sin(),
    "a sign": lambda x: x.sign(),
    "a step": lambda x: (x > 0.3).to(x.dtype),
    "no_grad": in_no_grad,
    "data": lambda x: x.data.sin(),
    "numpy": lambda x: torch.from_numpy(x.detach().numpy().copy()).sin(),
    "numbers": by_python,
}
DEPENDENT = {  # on company, order or the call
    "less the mean": lambda x: (x - x.mean()).sin(),
    "by the largest": lambda x: x / x.abs().max(),
    "softmax": lambda x: x.softmax(0),
    "sorted": lambda x: x.sort().values.sin(),
    "summed up": lambda x: 0.01 * x.cumsum(0),
    "the neighbour": lambda x: x.roll(1).sin(),
    "ranks": lambda x: 0.01 * x.argsort().argsort(),
    "the number of points": lambda x: x.sin() / len(x),
    "random": lambda x: x.sin() + 0.1 * torch.randn_like(x),
    "dropout": lambda x: nn.functional.dropout(x.sin(), 0.3),
    "memory": Memory(),
    "batch normalization": lambda x: nn.functional.batch_norm(
        x[:, None], None, None, training=True
    )[:, 0],
    "in place": in_place,
}
BROKEN = HIDDEN | DEPENDENT


class Composed(nn.Module):
    """Layers on (x, t), a part beside them, and what is broken, if anything is."""

    def __init__(self, layers, beside, broken=None):
        super().__init__()
        self.first = nn.Linear(2, WIDTH)
        self.layers = nn.Sequential(*(LAYERS[name]() for name in layers))
        self.last = nn.Linear(WIDTH, 1)
        self.a = nn.Parameter(torch.tensor(0.3))
        self.beside, self.broken = BESIDE[beside], broken and BROKEN[broken]

    def forward(self, x, t):
        net = self.last(self.layers(self.first(with_time(x, t)))).squeeze(-1)
        value = 0.5 * net + self.a * self.beside(x)
        return value + self.a * self.broken(x) if self.broken else value


def trained(*parts):
    """After five steps, by `map`."""
    short = {"logdet": "map", "n_iterations": 5, "learning_rate": 0.01, "progress": False}
    return train(DATA, lambda: Composed(*parts), "rk4", 5, **short)


layers = st.lists(st.sampled_from(list(LAYERS)), min_size=1, max_size=4)
beside = st.sampled_from(list(BESIDE))


@settings(**SETTINGS)
@given(layers=layers, beside=beside)
def test_what_is_sound_is_taken_and_has_mass_one(layers, beside):
    flow = trained(layers, beside)
    assert compare(DATA, flow.log_likelihood, 2001).mass == pytest.approx(1, abs=1e-3)


@settings(**SETTINGS)
@given(layers=layers, beside=beside, broken=st.sampled_from(list(BROKEN)))
def test_what_is_broken_is_refused(layers, beside, broken):
    about = "the slope of the drift, by autograd|the drift.* must (be|have|leave)"
    with pytest.raises(ValueError, match=about):
        trained(layers, beside, broken)
