r"""Bounds that tighten: a mean over simulated variational paths, inside the logarithm.

With the importance weights $w_k=p(\text{path},y)/q(\text{path}\mid y)$ of K paths that lead to y,
$$E\log\frac1K\sum_{k=1}^Kw_k$$
is the evidence lower bound at $K=1$, never falls with K, and tends to $\log p(y)$.

Source:
    Burda, Grosse & Salakhutdinov, Importance weighted autoencoders (2016).
"""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from dlutils.settings import check_count

LEAST_GROUPS = 16  # from which a standard error is worth its name


class Diffusion(Protocol):
    """dx = f dt + sigma dW from N(0, 1), y ~ N(x_1, sigma_y^2), and a variational path to y."""

    path: nn.Module  # mean and standard deviation at (y, t), and `time` at which the clock shows u
    noise: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | float]]  # sigma, slope of sigma^2 / 2
    drift: Callable[[Tensor, Tensor, Tensor, Tensor | float], Tensor]  # at (x, t, *noise), (n,)
    sigma_y: float


class Bound(NamedTuple):
    """The bound by groups of samples, a mean over points and groups, and its error; nats."""

    mean: float
    error: float


def log_weights(
    model: Diffusion,
    y: Tensor,
    n_samples: int,
    n_steps: int = 800,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Log importance weights of simulated variational paths.

    The model is stepped by Euler and Maruyama's method, $x_{n+1}\sim\mathcal N(x_n+f\Delta t,
    \sigma^2\Delta t)$; the paths are drawn with the same variance and a mean that gives them the
    marginals $\mathcal N(\alpha,\beta^2)$ of the variational path, exactly if sigma does not depend
    on x and $\sigma^2\Delta t\le\beta_{n+1}^2$,
    $$x_{n+1}=\alpha_{n+1}+\sqrt{\beta_{n+1}^2-\sigma^2\Delta t}\;\epsilon_n
    +\sigma\sqrt{\Delta t}\,z.$$
    With d the difference of the two means in units of $\sigma\sqrt{\Delta t}$ a step adds
    $-\frac12d^2-d\,z$.

    Args:
        model: What is stepped, with its variational path.
        y: Data, in the model's units, shape `(n,)`.
        n_samples: Paths for each of them.
        n_steps: Steps, equal on the clock.
        generator: Of the random numbers; None for torch's own.

    Returns:
        Nats, shape `(n_samples, n)`: independent of each other for a given y.

    Raises:
        ValueError: If a number is below one.
    """
    check_count("n_samples", n_samples)
    check_count("n_steps", n_steps)
    y = y.repeat(n_samples)
    times = model.path.time(torch.linspace(0, 1, n_steps + 1, dtype=y.dtype)).clamp(0, 1)
    alpha, beta = model.path(y, torch.zeros_like(y))
    eps = torch.randn(len(y), generator=generator, dtype=y.dtype)
    x = alpha + beta * eps
    log_w = Normal(0.0, 1.0).log_prob(x) - Normal(alpha, beta).log_prob(x)
    for t, after in pairwise(times):
        sigma, half_slope = model.noise(x, t.expand(len(y)))
        mean_p = x + model.drift(x, t.expand(len(y)), sigma, half_slope) * (after - t)
        sd = sigma * (after - t).sqrt()
        alpha, beta = model.path(y, after.expand(len(y)))
        mean_q = alpha + (beta**2 - sd**2).clamp(min=0).sqrt() * eps
        z = torch.randn(len(y), generator=generator, dtype=y.dtype)
        d = (mean_q - mean_p) / sd
        log_w = log_w - d**2 / 2 - d * z
        x = mean_q + sd * z
        eps = (x - alpha) / beta
    return (log_w + Normal(y, model.sigma_y).log_prob(x)).view(n_samples, -1)


def tightening(log_w: Tensor, sizes: Iterable[int]) -> list[Bound]:
    r"""The bound by groups of K samples, a mean over the points, for each K.

    Of log importance weights, nats, `(n_samples, n)`. All groups for a K are disjoint, so they are
    independent; bounds of different K are made of the same samples and are not. The standard error
    is that of the mean over the groups, for these n points.

    Raises:
        ValueError: If there are fewer than 16 groups, or a K is below one.
    """
    n_samples, found = len(log_w), []
    for K in sizes:
        check_count("the number of samples in a group", K)
        n_groups = n_samples // K
        if n_groups < LEAST_GROUPS:
            raise ValueError(
                f"{n_samples} samples make {n_groups} groups of {K}, too few for a standard error: "
                f"{LEAST_GROUPS} groups need {LEAST_GROUPS * K} samples"
            )
        together = log_w[: n_groups * K].double().view(n_groups, K, -1)
        groups = (together.logsumexp(1) - math.log(K)).mean(1)
        error = groups.std().item() / n_groups**0.5
        found.append(Bound(groups.mean().item(), error))
    return found
