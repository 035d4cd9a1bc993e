"""Drift nets and perceptrons against their formulas."""

import math

import pytest
import torch
from torch import nn

from dlutils.checks import check_drift
from dlutils.flows.nets import ConcatSquashDrift, FourierDrift, SigmoidBasisDrift, with_time
from dlutils.perceptron import forward_mode, perceptron

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("depth", [0, 2])
def test_the_derivative_along_a_direction(depth):
    net, x, x_dot = perceptron(2, 3, 8, depth), torch.randn(5, 2), torch.randn(5, 2)
    found = forward_mode(net, x, x_dot)
    torch.testing.assert_close(found, torch.autograd.functional.jvp(net, x, x_dot))
    assert found[1].abs().min() > 1e-6
    assert sum(isinstance(layer, nn.Linear) for layer in net) == depth + 1


def test_zero_is_zero_at_first_and_can_learn():
    net = perceptron(2, 1, 8, zero=True)
    out = net(torch.randn(5, 2))
    assert (out == 0).all()
    out.sum().backward()
    assert net[-1].weight.grad.abs().sum() > 0


PLACES = torch.tensor([[-2.0, -1.2, 0.1, 0.9, 2.3], [-1.0, -0.8, 0.5, 2.0, 2.2]]).double()
NETS = {
    "concat squash": lambda: ConcatSquashDrift(hidden=6),
    "fourier": lambda: FourierDrift(n_frequencies=3, hidden=6),
    "steps": lambda: moved(SigmoidBasisDrift(n_steps=5)),
    "moving steps": lambda: moved(SigmoidBasisDrift(n_cosines=2, places=PLACES)),
    "moving steps of one height": lambda: moved(SigmoidBasisDrift(n_cosines=1, places=PLACES)),
}


def moved(f):
    """With all weights at random: the heights start as zero."""
    for p in f.parameters():
        nn.init.normal_(p, std=0.4)
    return f


def test_time_broadcasts_to_the_states():
    x = torch.randn(3, 5)
    for t in (0.25, 1, torch.tensor(0.25).float(), torch.rand(5), torch.rand(3, 1)):
        assert torch.equal(with_time(x, t), torch.stack([x, torch.zeros(3, 5) + t], dim=-1))
    assert with_time(x.float(), torch.rand(5)).dtype == torch.float32


@pytest.mark.parametrize("name", NETS)
def test_a_drift_has_a_velocity_for_each_point_alone_at_any_time(name):
    f, x, t = NETS[name](), torch.randn(3, 5), torch.rand(3, 1)
    check_drift(f)
    torch.testing.assert_close(f(x, t), torch.stack([f(*row) for row in zip(x, t, strict=True)]))
    assert (f(x[0], 0.2) - f(x[0], 0.8)).abs().min() > 1e-4, "it depends on time"


@pytest.mark.parametrize("name", [name for name in NETS if "steps" in name])
def test_the_steps_are_the_sum_of_their_formula(name):
    f, x, t = NETS[name](), 2 * torch.randn(7), torch.rand(7)
    cosines = torch.stack([(math.pi * i * t).cos() / (1 + i) for i in range(f.c.shape[1])])
    *C, gamma, b = f.c @ cosines
    d = f.places.diff(dim=1)
    gaps = torch.cat([d[:, :1], (d[:, 1:] + d[:, :-1]) / 2, d[:, -1:]], dim=1)
    expected = gamma * x + b
    for j, C_j in enumerate(C):
        m, g = ((1 - t) * v[0, j] + t * v[1, j] for v in (f.places, gaps))
        expected = expected + C_j * (f.log_k[j].exp() * ((x - m) / g - f.shift[j])).tanh()
    torch.testing.assert_close(f(x, t), expected)
    torch.testing.assert_close(f.basis(x, t).flatten(1) @ f.c.flatten(), expected)


def test_roughness_is_of_the_heights_alone():
    f = moved(SigmoidBasisDrift(n_steps=6, n_cosines=2))
    heights = f.c[:-2]
    expected = heights.diff(n=2, dim=0).square().sum() + 0.1 * heights.square().sum()
    torch.testing.assert_close(f.c.flatten() @ f.roughness() @ f.c.flatten(), expected)


@pytest.mark.parametrize(
    ("coupling", "J", "n_cosines"), [("sorted", 128, 1), ("independent", 64, 6)]
)
def test_steps_for_paths_lie_along_them(coupling, J, n_cosines):
    y = torch.randn(500) ** 3
    f = SigmoidBasisDrift.for_paths(y, coupling)
    assert f.places.shape == f.gaps.shape == (2, J)
    assert f.c.shape == (J + 2, n_cosines)
    assert (f.gaps > 0).all()
    noise, at_data = f.places
    assert y.min() < at_data.min() < at_data.max() < y.max()
    assert noise.abs().max() < 3.2
    assert (f(y, 0.5) == 0).all(), "it starts as nothing"
