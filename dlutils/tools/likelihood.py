r"""Whether a program's log-likelihood is that of a density: anyone's, by its values alone.

`check` takes a function that returns a log-density on the line and a dataset whose truth is known.
It asks for the mass, which must be one; for the KL divergence from the truth; whether the same
points give the same values; whether autograd agrees with finite differences; and, for a solver, for
its order in the number of steps T and the T that is enough.

    report = check(model.log_likelihood, make_dataset("laplace_mixture"))
    print(report)
    assert not report.problems
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from math import inf, isnan, nan

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dlutils.data.datasets import Dataset
from dlutils.evaluation import rule, slope
from dlutils.quadrature import gauss_legendre
from dlutils.seeding import seeded

LogProb = Callable[[Tensor], Tensor | ArrayLike]
MASS_TOLERANCE = 1e-3
NOISE_TOLERANCE = 1e-4  # nats, between two calls, and between a point alone and in company
FLOOR = 1e-7  # errors below it are of rounding and of the quadrature, and have no order
N_NODES, N_FEWER = 8, 5  # of the quadrature, a panel
N_REPEATS = 8
N_POINTS = 16  # quantiles of the training data, at which single values are compared
STEPS = (8, 16, 32, 64)  # the numbers T, each twice the one before
FORGOTTEN = (
    "The mass is the data's standard deviation: the logarithm of the scale is to be subtracted."
)


@dataclass(frozen=True)
class Report:
    """What `check` found; NaN where it could not or was not asked to look."""

    mass: float  # of q, from one width of the support below it to one above
    mass_error: float  # its estimated error, by a rule of fewer nodes
    mass_outside: float  # the part of it that lies outside the support
    kl: float  # of the truth p and q, nats; negative only if the mass exceeds one
    sd: float  # of log q between calls, root mean square over the points, nats
    company: float  # the largest difference of a point in other company, or alone, nats
    shuffled: float  # the largest difference of a point between orders of the points, nats
    gradient_y: float  # autograd's error in d log q / dy, the largest, by the largest slope
    gradient_parameters: float  # in the weights, along a random direction; infinite if it has none
    tolerance: float  # what a relative error of a gradient may be in this precision
    data_scale: float  # the data's standard deviation, which a forgotten scale leaves as the mass
    alone: str = ""  # why a single point has no value, if it has none
    changes: bool = False  # whether the points that it is given are others afterwards
    order: float = nan  # in T, of the mean of |log q_T - log q_2T| over the points
    mass_order: float = nan  # in T, of |mass - 1|
    mass_by_steps: dict[int, float] = field(default_factory=dict)  # by T; NaN: there is no density
    steps_enough: int | None = None  # the least T from which on |mass - 1| < 0.001, if any

    @property
    def normalized_kl(self) -> float:
        r"""KL from the truth to $q/\int q$, nats."""
        return self.kl + float(np.log(self.mass))

    @property
    def problems(self) -> list[str]:
        """What is wrong, a sentence each."""
        off, data_scale = abs(self.mass - 1) > MASS_TOLERANCE, self.mass / self.data_scale
        log_mass, no_steps = np.log(self.mass), self.mass_by_steps and not self.steps_enough
        g, h = self.gradient_y, self.gradient_parameters
        found = [
            (off, f"The mass is {self.mass:.4f}, not 1: this is no density."),
            (off and abs(data_scale - 1) < MASS_TOLERANCE, FORGOTTEN),
            (self.kl < -NOISE_TOLERANCE, f"The mean is {-self.kl:.4f} nats above the "
             f"truth's, which only a mass above 1 can do: its logarithm is {log_mass:.4f}."),
            (self.mass_error > MASS_TOLERANCE, f"The mass is uncertain by {self.mass_error:.1g}: "
             "the density is rougher than the data's, or random."),
            (self.sd > NOISE_TOLERANCE, f"It is random, sd {self.sd:.2g} nats between calls: an "
             "unbiased estimate of log q has an exponential that is on average above q."),
            (bool(self.alone), f"A point alone has no value (batch normalization?): {self.alone}"),
            (self.changes, "It changes the points that it is given, in place."),
            (self.company > NOISE_TOLERANCE + 8 * self.sd,
             f"A point alone and beside others differ by {self.company:.2g} nats."),
            (self.shuffled > NOISE_TOLERANCE + 8 * self.sd, "The order of the points matters, by "
             f"{self.shuffled:.2g} nats: are they sorted, or summed up one after the other?"),
            (g > self.tolerance, f"The gradient in y is off by {g:.2g} of the largest slope."),
            (h == inf, "There is no gradient in the parameters."),
            (self.tolerance < h < inf, f"The gradient in the parameters is off by {h:.2g} of it."),
            (no_steps, f"No T brings the mass to within {MASS_TOLERANCE:g} of 1: {self._masses}."),
        ]  # fmt: skip
        return [sentence for is_wrong, sentence in found if is_wrong]

    @property
    def _masses(self) -> str:
        return ", ".join(f"T = {T}: {mass:.5f}" for T, mass in self.mass_by_steps.items())

    def __str__(self) -> str:
        """All numbers, and the problems."""
        kl = f"{self.kl:z.5f} nats, {self.normalized_kl:z.5f} with the mass divided out"
        lines = [
            f"mass            {self.mass:.5f} ± {self.mass_error:.1g}, "
            f"{self.mass_outside:.1g} of it outside the support",
            f"KL from truth   {'unknown' if isnan(self.kl) else kl}",
            f"repeatability   sd {self.sd:.2g} nats; alone and in company {self.company:.2g} nats; "
            f"in another order {self.shuffled:.2g} nats",
            f"gradient        in y {_relative(self.gradient_y)}; in the parameters "
            f"{_relative(self.gradient_parameters)}",
        ]
        if self.mass_by_steps:
            lines += [
                f"order in T      {self.order:.2f}; of the mass {self.mass_order:.2f}",
                f"mass by T       {self._masses}; enough: {self.steps_enough or 'none'}",
            ]
        return "\n".join(lines + [f"PROBLEM: {problem}" for problem in self.problems])


def check(
    log_prob: LogProb,
    dataset: Dataset,
    *,
    log_prob_by_steps: Callable[[int], LogProb] | None = None,
    parameters: Iterable[Tensor] = (),
) -> Report:
    """Hold a log-density to what a density must be.

    Args:
        log_prob: Called with points, `(n,)`, in the type of the parameters, or else of the data;
            returns log q there in nats, `(n,)`, as a tensor or as what NumPy makes an array of.
        dataset: Gives the data's scale and support and, where it is known, the true density.
        log_prob_by_steps: Gives the log_prob that takes T steps. A ValueError of it or of its
            log_prob counts as no density.
        parameters: Leaf tensors on which log_prob depends; they are moved and put back.

    Raises:
        ValueError: If log_prob has not one number a point, or is NaN or +inf.
    """
    parameters = list(parameters)
    dtype, scale = (*parameters, dataset.train)[0].dtype, dataset.train.std().item()
    levels = (np.arange(N_POINTS) + 0.5) / N_POINTS
    y = torch.from_numpy(np.quantile(dataset.train.double().numpy(), levels)).to(dtype)
    calls = torch.stack([_values(log_prob, y) for _ in range(N_REPEATS)])
    in_company, alone = _in_company(log_prob, y)
    orders = [torch.arange(N_POINTS).flip(0), torch.arange(N_POINTS) * 7 % N_POINTS]
    shuffled = [(_values(log_prob, y[k]) - calls[0][k]).abs().max().item() for k in orders]
    given = y.clone()
    differentiable, half = isinstance(log_prob(given), Tensor), y[: N_POINTS // 2]
    small = torch.finfo(dtype).eps ** (1 / 3)  # the best step of a central difference
    return Report(
        **_integrate(log_prob, dataset, dtype),
        sd=calls.std(0).square().mean().sqrt().item(),
        company=(calls[0] - in_company).abs().max().item(),
        shuffled=max(shuffled),
        alone=alone,
        changes=not torch.equal(given, y),
        gradient_y=_gradient_y(log_prob, y, small * scale) if differentiable else nan,
        # of some points, since the mean over all is level at an optimum
        gradient_parameters=_gradient_weights(log_prob, half, small, parameters),
        tolerance=1e-3 if dtype == torch.float64 else 2e-2,
        data_scale=scale,
        **(_by_steps(log_prob_by_steps, dataset, y) if log_prob_by_steps else {}),
    )


def _values(log_prob: LogProb, y: Tensor) -> Tensor:
    """Log q at y without a gradient, float64, held to its shape."""
    with torch.no_grad():
        value = log_prob(y.clone())
    value = (value if isinstance(value, Tensor) else torch.tensor(np.asarray(value))).double().cpu()
    if value.shape != y.shape:
        raise ValueError(
            f"log_prob must return a number for each point, shape {tuple(y.shape)}, not "
            f"{tuple(value.shape)}"
        )
    wrong = value.isnan() | (value == inf)
    if wrong.any():
        raise ValueError(
            f"log_prob must be finite or -inf, not {value[wrong][0]:g} at y = {y[wrong][0]:g}, nor "
            f"at {int(wrong.sum())} of {len(y)} points"
        )
    return value


def _in_company(log_prob: LogProb, y: Tensor) -> tuple[Tensor, str]:
    """The values of points alone; in pairs if those fail, and why."""
    try:
        return torch.cat([_values(log_prob, point) for point in y.split(1)]), ""
    except Exception as error:  # of any kind: it is anyone's program
        return torch.cat([_values(log_prob, points) for points in y.split(2)]), str(error)


def _integrate(log_prob: LogProb, dataset: Dataset, dtype: torch.dtype) -> dict[str, float]:
    """Mass, its error and its part outside the support, and KL, by Gauss and Legendre on panels.

    The panels are those on which the data's density is smooth, none wider than 1/32 of the
    support; the error is the difference from a rule of fewer nodes.
    """
    low, high = dataset.support
    equal = np.linspace(2 * low - high, 2 * high - low, 3 * 32 + 1)
    first, last = dataset.bounds
    beyond = np.append(equal[equal < first], first), np.append(last, equal[equal > last])
    within = np.clip(np.union1d(equal, [low, high]), first, last)
    within = dataset.unbounded(torch.from_numpy(within)).numpy()
    edges = np.union1d(within, dataset.breakpoints)
    edges = edges[(edges >= within[0]) & (edges <= within[-1])]

    def panels(n_nodes: int) -> tuple[np.ndarray, ...]:
        """The nodes in each panel, and the integrals of q and of p log(p / q) over it."""
        parts = [gauss_legendre(n_nodes, ends[:-1], ends[1:]) for ends in beyond]
        parts.append(rule(dataset, edges, n_nodes))
        nodes, weights = map(np.concatenate, zip(*parts, strict=True))
        points = nodes.ravel()
        log_q = _values(log_prob, torch.from_numpy(points).to(dtype)).numpy()
        p_log = np.full_like(log_q, 0.0 if dataset.is_known else nan)
        if dataset.is_known:
            log_p = dataset.log_prob(points).numpy()
            far = (points < low) | (points > high)  # where a grid may have ended: 2e-6 of p
            inside = (log_p > -inf) & ~(far & (log_q == -inf))
            p_log[inside] = np.exp(log_p[inside]) * (log_p[inside] - log_q[inside])
        log_q, p_log = (v.reshape(-1, n_nodes) for v in (log_q, p_log))
        return nodes, np.exp(log_q + np.log(weights)).sum(1), (p_log * weights).sum(1)

    nodes, mass, kl = panels(N_NODES)
    _, fewer, _ = panels(N_FEWER)
    outside = (nodes[:, 0] >= high) | (nodes[:, -1] <= low)
    return {
        "mass": float(mass.sum()),
        "mass_error": float(np.abs(mass - fewer).sum()),
        "mass_outside": float(mass[outside].sum()),
        "kl": float(kl.sum()),
    }


def _gradient_y(log_prob: LogProb, y: Tensor, h: float) -> float:
    """The largest error of d log q / dy, relative to the largest slope; NaN without a gradient."""
    at = y.clone().requires_grad_()
    found = _autograd(lambda: log_prob(at).sum(), [at])
    if found is None:
        return nan
    rate = _rate(lambda s: _values(log_prob, y + s), h)
    return ((found[0] - rate).abs().max() / rate.abs().max()).item()


def _gradient_weights(log_prob: LogProb, y: Tensor, h: float, parameters: list[Tensor]) -> float:
    """The relative error of the mean's derivative along a random direction of the weights."""
    if not parameters:
        return nan
    gradient = _autograd(lambda: log_prob(y.clone()).mean(), parameters)
    if gradient is None:
        return inf
    with seeded(1):
        direction = [torch.randn_like(p) for p in parameters]
    found = sum((g * v).sum() for g, v in zip(gradient, direction, strict=True)).item()
    before = [p.detach().clone() for p in parameters]

    def move(s: float) -> None:
        for p, start, v in zip(parameters, before, direction, strict=True):
            p.data.copy_(start + s * v)

    def moved(s: float) -> Tensor:
        move(s)
        return _values(log_prob, y).mean()

    try:
        rate = _rate(moved, h).item()
    finally:
        move(0)
    return abs(found - rate) / max(abs(found), abs(rate), 1e-300)


def _autograd(f: Callable[[], Tensor], inputs: list[Tensor]) -> Sequence[Tensor] | None:
    """The gradient, zero in what the value does not depend on; None if it depends on nothing."""
    with seeded(0):
        try:
            value = f()
        except RuntimeError as error:
            if "requires grad" not in str(error):  # numpy() of a point that wants a gradient
                raise
            return None
    if not (isinstance(value, Tensor) and value.requires_grad):
        return None
    return torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)


def _rate(f: Callable[[float], Tensor], h: float) -> Tensor:
    """The central difference at zero; both sides draw the same random numbers."""
    sides = []
    for s in (h, -h):
        with seeded(0):
            sides.append(f(s))
    return (sides[0] - sides[1]) / (2 * h)


def _by_steps(
    log_prob_by_steps: Callable[[int], LogProb], dataset: Dataset, y: Tensor
) -> dict[str, object]:
    """The orders in T, the mass for each, and the T that is enough."""
    log_q = {T: torch.full_like(y, nan, dtype=torch.float64) for T in STEPS}
    mass = dict.fromkeys(STEPS, nan)
    for T in STEPS:
        with suppress(ValueError):
            log_prob = log_prob_by_steps(T)
            log_q[T] = _values(log_prob, y)
            mass[T] = _integrate(log_prob, dataset, y.dtype)["mass"]
    errors = [(log_q[2 * T] - log_q[T]).abs().mean().item() for T in STEPS[:-1]]
    mass_errors = [abs(m - 1) for m in mass.values()]
    above = lambda values: [v if v > FLOOR else nan for v in values]
    right = lambda T: abs(mass[T] - 1) < MASS_TOLERANCE
    return {
        "order": -slope(STEPS[:-1], above(errors)),
        "mass_order": -slope(STEPS, above(mass_errors)),
        "mass_by_steps": mass,
        "steps_enough": min(takewhile(right, reversed(STEPS)), default=None),
    }


def _relative(error: float) -> str:
    return "not checked or none" if isnan(error) else f"off by {error:.1g}"
