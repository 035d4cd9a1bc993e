"""Fit a flow to data: by maximum likelihood with every option, or by flow matching.

ODE.ipynb shows maximum likelihood in a dozen lines; `train` gives the same weights and is faster.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Normal

from dlutils.arrays import dtype_of, points
from dlutils.checks import check_drift
from dlutils.data.datasets import Dataset
from dlutils.data.units import Units
from dlutils.estimators.smoothing import smoothed_sample
from dlutils.estimators.view import seen_in, units_of
from dlutils.evaluation import quadrature
from dlutils.flows import adjoint
from dlutils.flows.choice import automatic
from dlutils.flows.matching import PENALTIES, in_steps, path_nodes, regress
from dlutils.flows.methods import check_solver, runge_kutta_step, step_and_slope
from dlutils.flows.natural import NaturalGradient
from dlutils.flows.nets import DRIFTS, SigmoidBasisDrift
from dlutils.processes import limited
from dlutils.saving import Portable
from dlutils.seeding import seeded
from dlutils.settings import check_flag, choose
from dlutils.training import DataSource, History, check_run, fit

Net = str | Callable[[], nn.Module]


@dataclass(frozen=True)
class FittedODE(Portable):
    """A trained flow of x; what it returns is in the data's own units.

    Attributes:
        drift: f(x, t).
        history: What training recorded.
        units: How x is made of y, mostly x = (y - loc) / scale.
        n_steps: Number of steps T.
        method: One of `METHODS`.
        logdet: One of `LOGDETS`.

    Raises:
        ValueError: If the drift is none (`dlutils.checks.check_drift`).
    """

    drift: nn.Module
    history: History
    units: Units
    n_steps: int
    method: str
    logdet: str

    def __post_init__(self) -> None:
        check_drift(self.drift)

    def log_likelihood(self, y: ArrayLike | Tensor, logdet: str | None = None) -> Tensor:
        """Log p(y) in nats, `(n,)`, in the net's type, without a gradient; -inf at infinity."""
        solver, dtype = (self.n_steps, self.method, logdet or self.logdet), dtype_of(self.drift)
        log_q = lambda x: adjoint.log_likelihood(self.drift, x.to(dtype), *solver)
        with torch.no_grad():
            return self.units.log_density(log_q, points(y)).to(dtype)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw n values: noise moved forward along the drift, shape `(n,)`."""
        with torch.no_grad(), seeded(seed, dtype=dtype_of(self.drift)):
            x, h = torch.randn(n), 1 / self.n_steps
            for k in range(self.n_steps):
                x = runge_kutta_step(self.drift, x, k * h, h, self.method)
            return self.units.inverse(x)


@limited()
@automatic(mlp=1.0, sigmoid_basis=30.0)  # what drift = "auto" chooses from, with their priors
def train(
    dataset: Dataset,
    drift: Net = "mlp",
    method: str = "euler",
    n_steps: int = 100,
    seed: int = 0,
    *,
    logdet: str = "trace",
    standardize: bool = True,
    n_bins: int = 32,
    batch_size: int | None = None,
    prior_precision: float | None = None,
    device: str = "cpu",
    optimizer: str = "adam",
    start: nn.Module | None = None,
    **options: object,
) -> FittedODE:
    r"""Fit a flow to dataset.train by maximum likelihood.

    A weak Gaussian prior on the weights, $-\frac\kappa{2n}\sum_k\theta_k^2$, is climbed with the
    log-likelihood and not reported. A run that is stopped, or ends more than a hundredth of a nat
    below its best by `map` on the same points, returns the best weights.

    Args:
        dataset: Its training points are fitted, its validation points watched.
        drift: A name in `DRIFTS`, "auto" for the one with most evidence, or what builds a net
            f(x, t) of your own, such as its class.
        method: One of `METHODS`, in n_steps steps T, counted by logdet, one of `LOGDETS`.
        n_steps: See method.
        seed: Names the first weights and the minibatches.
        logdet: See method.
        standardize: Whether the flow sees data of a known density less their mean, by their sd.
        n_bins: The data come as two weighted nodes a bin; a net may ask for more bins.
        batch_size: Random points for each iteration instead.
        prior_precision: $\kappa$; None for the net's own, or 1.
        device: Where to train; the model comes back to the CPU.
        optimizer: "adam", or "natural" for the natural gradient.
        start: A drift to go on from; the prior is then around its weights.
        options: Of `dlutils.training.fit`.

    Returns:
        The flow, without a gradient.

    Raises:
        ValueError: If a name is unknown, a setting is out of range, or the net is no drift.
    """
    check_solver(n_steps, method, logdet)
    net = choose("drift", drift, DRIFTS)
    check_run(optimizer, batch_size, prior_precision, device, dataset.train.dtype)
    units = units_of(dataset, standardize)
    (x, w, rise), (x_val, w_val, rise_val) = seen_in(dataset, units)
    kappa = getattr(net, "prior_precision", 1.0) if prior_precision is None else prior_precision
    prior = {"precision": kappa / dataset.n_effective, "around_start": start is not None}
    n_bins, solver = max(n_bins, getattr(net, "min_bins", 1)), (n_steps, method, logdet)
    draw = DataSource(x, n_bins, batch_size, seed, device, w)
    val = DataSource(x_val, n_bins, device=device, weights=w_val)()
    with seeded(seed, dtype=x.dtype):
        f = (net() if start is None else copy.deepcopy(start)).to(device)
    check_drift(f)
    if optimizer == "natural":
        options["climber"] = NaturalGradient(f, *draw(), *solver, shift=rise, **prior)
    mean = adjoint.mean_log_likelihood
    climbed = lambda: mean(f, *draw(), *solver) + rise
    validate = lambda: mean(f, *val, *solver).item() + rise_val
    by_map = lambda: mean(f, *draw.nodes, n_steps, method, "map").item()
    history = fit(f, climbed, validate, judge=by_map, **prior, **options)
    return FittedODE(f.cpu(), history, units, *solver)


def least_squares(
    f: SigmoidBasisDrift, x: Tensor, t: Tensor, v: Tensor, w: Tensor, penalties: Sequence[float]
) -> Iterator[SigmoidBasisDrift]:
    """Yield f with the weights c of the least weighted squares of f - v, for each penalty.

    Args:
        f: A drift that is linear in its weights c.
        x: States, shape `(m,)`, at times t, `(m,)`, with velocities v and weights w.
        t: See x.
        v: See x.
        w: See x.
        penalties: On how much the weights bend from step to step.
    """
    exact = copy.deepcopy(f).double()
    phi, rough = exact.basis(x, t).flatten(1), exact.roughness()
    gram, moment = phi.T @ (w[:, None] * phi), phi.T @ (w * v)
    for penalty in penalties:
        g = copy.deepcopy(f)
        g.c.data = torch.linalg.solve(gram + penalty * rough, moment).view_as(f.c).to(f.c)
        yield g


@limited()
def flow_matching(
    dataset: Dataset,
    drift: Net = "sigmoid_basis",
    coupling: str = "sorted",
    seed: int = 0,
    *,
    smooth: bool = False,
    method: str = "rk4",
    n_steps: int = 10,
    n_times: int = 8,
    penalties: np.ndarray = PENALTIES,
    **options: float,
) -> FittedODE:
    """Fit a flow to dataset.train by regression: at once where the drift is linear in its weights.

    Args:
        dataset: Its training points are fitted; the penalty is chosen by its validation points.
        drift: See `train`. A net that is not linear in its weights is trained by `regress`.
        coupling: How noise and data are paired, one of `COUPLINGS`.
        seed: Of a net's first weights and batches; the solve has nothing random.
        smooth: Whether noise is paired with a smooth density in place of the points.
        method: Of the flow that is returned, in n_steps steps, counted by `map`. Where the drift is
            solved for, in up to `matching.MOST_TIMES` as many if these would fold the line.
        n_steps: See method.
        n_times: Times at which the solve looks at the paths.
        penalties: To choose from; they are divided by the number of points.
        options: Of `dlutils.flows.matching.regress`.

    Raises:
        ValueError: If a name is unknown, a setting is out of range, or no penalty gives a flow.

    Source:
        Lipman et al., Flow matching for generative modeling (2023); Pooladian et al., Multisample
        flow matching (2023).
    """
    check_solver(n_steps, method)
    check_flag("smooth", smooth)
    net = choose("drift", drift, DRIFTS)
    start = time.perf_counter()
    seen, val = seen_in(dataset)
    y = smoothed_sample(seen.x, weights=seen.weights) if smooth else seen.even
    flow = partial(FittedODE, units=units_of(dataset), method=method, logdet="map")
    if not hasattr(net, "for_paths"):
        with seeded(seed, dtype=y.dtype):
            f = net()
        check_drift(f)
        history = regress(f, y, val.even, coupling, seed=seed, **options)
        return flow(f, history, n_steps=n_steps)
    basis, penalties = net.for_paths(y, coupling, smooth), np.sort(penalties) / len(y)
    drifts = list(least_squares(basis, *path_nodes(y, coupling, n_times), penalties))
    y_val, w = DataSource(val.x, 128, weights=val.weights)()
    value = lambda f, n: adjoint.mean_log_likelihood(f, y_val, w, n, method, "map").item()
    is_map = lambda f, n: None  # simulated validation points are as many as one likes
    if not dataset.is_known:
        everywhere = units_of(dataset)(torch.from_numpy(quadrature(dataset)[0]).to(y.dtype))
        is_map = lambda f, n: adjoint.log_likelihood(f, everywhere, n, method, "map")
    with torch.no_grad():
        best, f, n_steps = in_steps(drifts, value, is_map, n_steps)
    history = History([], [0], [best + val.log_slope], time.perf_counter() - start)
    return flow(f, history, n_steps=n_steps)


def push(f: nn.Module, x_0: Tensor, n_steps: int, method: str) -> tuple[Tensor, Tensor]:
    r"""Move states forward, and the standard normal density with them.

    $p(x_{t+h},t+h)=p(x_t,t)/r$ with the slope $r=\partial x_{t+h}/\partial x_t$ of the step.

    Args:
        f: Drift.
        x_0: States at t = 0, shape `(n,)`.
        n_steps: Number of steps T.
        method: One of `METHODS`.

    Returns:
        States, shape `(T + 1, n)`, and the density there.

    Raises:
        ValueError: If a step folds the line.
    """
    states, log_p, h = [x_0], [Normal(0.0, 1.0).log_prob(x_0)], 1 / n_steps
    for k in range(n_steps):
        after, r = step_and_slope(f, states[-1], k * h, h, method)
        if not (r > 0).all():
            raise ValueError(f"the {method} step at t = {k * h:.3g} folds the line: raise n_steps")
        states.append(after)
        log_p.append(log_p[-1] - r.log())
    return torch.stack(states), torch.stack(log_p).exp()


def evolution(
    model: FittedODE, n_steps: int = 50, method: str = "rk4", start: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """How a flow carries noise to data, in the data's units.

    Args:
        model: The flow.
        n_steps: Steps to show.
        method: One of `METHODS`.
        start: Noise from which paths start, shape `(m,)`; None for 40 random ones.

    Returns:
        Times, `(T + 1,)`; states, `(T + 1, 501)`, and the density there; paths, `(T + 1, m)`.
    """
    with seeded(0, dtype=dtype_of(model.drift)):
        x_0, start = torch.linspace(-4.5, 4.5, 501), torch.randn(40) if start is None else start
    x, p = push(model.drift, x_0, n_steps, method)
    paths, _ = push(model.drift, start, n_steps, method)
    y = model.units.inverse(x)
    p, times = p * model.units.log_slope(y).exp(), np.linspace(0, 1, n_steps + 1)
    return times, y.numpy(), p.numpy(), model.units.inverse(paths).numpy()
