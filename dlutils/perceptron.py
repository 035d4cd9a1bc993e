"""A perceptron, and its derivative along a direction in the same pass."""

from itertools import pairwise

from torch import Tensor, nn


def perceptron(
    n_in: int, n_out: int, hidden: int, depth: int = 2, zero: bool = False
) -> nn.Sequential:
    """A perceptron with tanh, `(..., n_in)` to `(..., n_out)`.

    Args:
        n_in: Inputs.
        n_out: Outputs.
        hidden: Units in each hidden layer.
        depth: Number of hidden layers; 0 for a linear map.
        zero: Whether it starts as the function 0.
    """
    sizes = [n_in] + [hidden] * depth
    layers = [m for i, o in pairwise(sizes) for m in (nn.Linear(i, o), nn.Tanh())]
    last = nn.Linear(sizes[-1], n_out)
    if zero:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def forward_mode(net: nn.Sequential, x: Tensor, x_dot: Tensor) -> tuple[Tensor, Tensor]:
    """The output of a `perceptron` and its derivative along x_dot, both `(..., n_out)`.

    Args:
        net: The perceptron.
        x: Inputs, `(..., n_in)`.
        x_dot: Direction, of the same shape.
    """
    for layer in net:
        if isinstance(layer, nn.Linear):
            x, x_dot = layer(x), x_dot @ layer.weight.T
        else:
            x = x.tanh()
            x_dot = (1 - x**2) * x_dot
    return x, x_dot
