import pytest
import torch
from torch import nn

from dlutils.nets import forward_mode, perceptron
from dlutils.seeding import seeded


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_derivative_along_a_direction(depth):
    with seeded(0):
        net, x, x_dot = perceptron(2, 3, 8, depth), torch.randn(5, 2), torch.randn(5, 2)
    value, rate = forward_mode(net, x, x_dot)
    wanted, wanted_rate = torch.autograd.functional.jvp(net, x, x_dot)
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(rate, wanted_rate)
    assert rate.abs().min() > 1e-6
    assert sum(isinstance(layer, nn.Linear) for layer in net) == depth + 1


def test_zero_is_zero_at_first_and_can_learn():
    net = perceptron(2, 1, 8, zero=True)
    out = net(torch.randn(5, 2))
    assert (out == 0).all()
    out.sum().backward()
    assert net[-1].weight.grad.abs().sum() > 0
