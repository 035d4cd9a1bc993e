"""Which of several nets: the one that there is most evidence for."""

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Protocol

import torch
from torch import nn

from dlutils.data.datasets import Dataset
from dlutils.data.units import Units
from dlutils.estimators.view import seen_in
from dlutils.flows import adjoint
from dlutils.processes import limited
from dlutils.training import DataSource


class Flow(Protocol):
    """A trained flow, such as the ODE notebook's `train` returns."""

    drift: nn.Module
    units: Units
    n_steps: int
    method: str


def effective_parameters(
    flow: Flow, dataset: Dataset, prior_precision: float, n_bins: int = 64
) -> float:
    r"""How many numbers the training points determine, and not the prior.

    $\sum_k\lambda_k/(\lambda_k+\kappa/n)$, where $\lambda$ are the eigenvalues of the Fisher
    information, the mean of the products of the scores, and $\kappa$ is the prior's precision. The
    scores are taken at the compressed points, so the matrix is as small as their number.

    Source:
        MacKay, Bayesian interpolation (1992), eq. 4.9.
    """
    nodes, weights = dataset.compress(n_bins)
    x = flow.units(nodes).to(next(flow.drift.parameters()).dtype)
    _, scores = adjoint.scores(flow.drift, x, flow.n_steps, flow.method, "map")
    scores = scores.double() * (weights / weights.sum()).sqrt()[:, None]
    eigenvalues = torch.linalg.eigvalsh(scores @ scores.T).clamp(min=0)
    return (eigenvalues / (eigenvalues + prior_precision / dataset.n_effective)).sum().item()


@limited()
def evidence(flow: Flow, dataset: Dataset, prior_precision: float) -> float:
    """Akaike's criterion on training and validation points together, nats in all.

    The log-likelihood of all of them, counted by `map`, less the number of parameters that the
    training points have paid for.

    Raises:
        ValueError: If the steps fold the line.

    Source:
        Akaike, A new look at the statistical model identification (1974).
    """
    value = -effective_parameters(flow, dataset, prior_precision)
    for seen in seen_in(dataset, flow.units):
        nodes = DataSource(seen.x, 1000, weights=seen.weights)()
        mean = adjoint.mean_log_likelihood(flow.drift, *nodes, flow.n_steps, flow.method, "map")
        value += nodes[1].sum().item() * (mean.item() + seen.log_slope)
    return value


def automatic(**nets: float) -> Callable[[Callable[..., Flow]], Callable[..., Flow]]:
    """Let a function `train(dataset, drift, ...)` choose among drift nets, as the drift "auto".

    Each of the nets, by name with the precision of the prior on its weights, is trained; the one
    with most `evidence` is returned. On a user's own data that needs no more points than there are:
    a validation set of a few points could not tell.
    """

    def decorate(train: Callable[..., Flow]) -> Callable[..., Flow]:
        @wraps(train)
        def chosen(dataset: Dataset, drift: str = "mlp", *args: object, **options: object) -> Flow:
            if not isinstance(drift, str) or drift != "auto":
                return train(dataset, drift, *args, **options)
            found = {}
            for net, precision in nets.items():
                with suppress(ValueError):  # the steps fold the line
                    flow = train(dataset, net, *args, **options | {"prior_precision": precision})
                    found[net] = evidence(flow, dataset, precision), flow
            if not found:
                raise ValueError(f"the steps of all nets fold the line: {', '.join(nets)}")
            best = max(found, key=lambda net: found[net][0])
            value, flow = found.pop(best)
            others = (f"{value - less:.1f} nats before {net}" for net, (less, _) in found.items())
            print(f"drift: {best}, by Akaike's criterion {', '.join(others)}")
            return flow

        return chosen

    return decorate
