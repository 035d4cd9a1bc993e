"""One interface to what estimates a density: our ODE and SDE, and what people would use instead.

Each takes a dataset and a seed and returns a log-density. All see the n training points and nothing
else: what one chooses (a net, a number of components) it chooses by an information criterion on the
same points, or by a tenth of them that it holds out. All compute in the data's type, double
precision; the neural spline flow does too.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from dlutils import diffusion, fit_density, flows
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.data.units import Units
from dlutils.estimators import coordinates, smoothing, yardsticks
from dlutils.estimators.histogram import Histogram, irregular_histogram
from dlutils.estimators.yardsticks import LogDensity
from dlutils.evaluation import compare
from dlutils.flows.choice import effective_parameters
from dlutils.notebook import load
from dlutils.seeding import seeded

ROOT = Path(__file__).resolve().parents[1]
Scored = tuple[float, LogDensity]  # Akaike's criterion, a point: higher is better


@cache
def notebook(name: str) -> ModuleType:
    """The definitions of a notebook; SDE.ipynb adds its parameterizations to the package's."""
    return load(ROOT / name)


def by_backprop(
    f: nn.Module,
    y: Tensor,
    weights: Tensor | None,
    n_steps: int,
    method: str,
    logdet: str = "trace",
) -> Tensor:
    """The weighted mean of log p(y) by the notebook's readable solver, with backprop through it."""
    ode = notebook("ODE.ipynb")
    step = partial(ode.runge_kutta_step, method=method, logdet=logdet)
    weights = torch.ones_like(y) if weights is None else weights
    return weights @ ode.log_likelihood(f, y, n_steps, step) / weights.sum()


def in_units(units: Units, log_density: LogDensity) -> LogDensity:
    """Of y, from that of x = units(y)."""
    return lambda y: log_density(units(y)) + units.log_slope(y)


# drift net, precision of the prior on its weights, bins, T, natural gradient's steps at most
NETS = (("mlp", 1.0, 64, 5, 40), (partial(flows.SigmoidBasisDrift, 96), 30.0, 96, 10, 25))


@lru_cache(maxsize=1)
def ode_likelihood(dataset: Dataset, seed: int) -> Scored:
    """Two flows by rk4, their exact density; the better by `information_criterion`."""
    found = []
    for drift, prior_precision, n_bins, n_steps, n_iterations in NETS:
        with suppress(ValueError):  # the steps fold the line
            model = flows.train(
                replace(dataset, val=dataset.train), drift, "rk4", n_steps, seed, logdet="map",
                n_bins=n_bins, prior_precision=prior_precision, optimizer="natural",
                n_iterations=n_iterations, progress=False,
            )  # fmt: skip
            score = information_criterion(model, dataset, n_bins, prior_precision)
            found.append((score, model.log_likelihood))
    if not found:
        raise ValueError("the steps of all nets fold the line")
    return max(found, key=lambda pair: pair[0])


def information_criterion(model, dataset: Dataset, n_bins: int, prior_precision: float) -> float:
    """Akaike's criterion, a point; see `effective_parameters`."""
    effective = effective_parameters(model, dataset, prior_precision, n_bins)
    mean = model.log_likelihood(dataset.train).double().mean().item()
    return mean - effective / len(dataset.train)


def ode_flow_matching(dataset: Dataset, seed: int) -> LogDensity:
    """Flow matching in closed form, to a density by penalised likelihood.

    The penalty is chosen by the likelihood of the training points, to which the flow is not fitted.
    Ten steps, or as many more as it takes for none to fold the line.
    """
    data, y = replace(dataset, val=dataset.train), torch.linspace(*dataset.support, 2001)
    for n_steps in (10, 20, 40, 80):
        model = flows.flow_matching(data, smooth=True, n_steps=n_steps)
        with suppress(ValueError):
            model.log_likelihood(y)
            break
    return model.log_likelihood


def sde_bound(dataset: Dataset, seed: int) -> LogDensity:
    """The notebook's default net and path; its exact density from the Fokker-Planck equation."""
    train = diffusion.train
    data = replace(dataset, val=dataset.train)
    return train(data, seed=seed, n_iterations=300, progress=False).log_likelihood


@lru_cache(maxsize=1)
def sde_closed_form(dataset: Dataset, seed: int) -> Scored:
    """The bound solved for; the training points choose, less what was fitted to them.

    Mean and variance are two more parameters.
    """
    fitted = diffusion.least_squares(replace(dataset, val=dataset.val[:0]))
    y, net = dataset.train, fitted.model.net
    corrected = net.net.c.any()
    fitted_numbers = smoothing.fit(fitted.units(y))[2] if corrected else net.denoiser.n_parameters
    mean = fitted.log_likelihood(y).mean().item()
    return mean - (2 + fitted_numbers) / len(y), fitted.log_likelihood


def chosen(dataset: Dataset, seed: int) -> LogDensity:
    """The flow by likelihood or the SDE in closed form, by Akaike's criterion."""
    found = [sde_closed_form(dataset, seed)]
    with suppress(ValueError):
        found.append(ode_likelihood(dataset, seed))
    return max(found, key=lambda pair: pair[0])[1]


def fitted(dataset: Dataset) -> LogDensity:
    """What users get in one line."""
    q = fit_density(dataset.train)
    return lambda y: torch.from_numpy(q.log_prob(y))


def kde_botev(dataset: Dataset, seed: int) -> LogDensity:
    """Gaussian kernels, the bandwidth of Botev, Grotowski & Kroese 2010 (KDEpy)."""
    from KDEpy.bw_selection import improved_sheather_jones

    y = dataset.train.double().numpy()
    return yardsticks.kde(dataset.train, improved_sheather_jones(y[:, None]) / y.std(ddof=1))


def em_sklearn(dataset: Dataset, seed: int) -> LogDensity:
    """A mixture of up to ten Gaussians by BIC, each the best of ten starts (scikit-learn).

    It ends when six more components have not lowered BIC. Three would be too few: on 1000 points of
    the claw BIC rises from one component to the fourth, and is lowest at seven.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    units = Units.of(dataset.train.double())  # scikit-learn's least variance is absolute
    column = lambda x: x.double().numpy()[:, None]
    x = column(units(dataset.train.double()))
    best, lowest = None, math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for k in range(1, 1 + min(10, len(np.unique(x)))):
            model = GaussianMixture(k, max_iter=500, n_init=10, random_state=seed).fit(x)
            if (bic := model.bic(x)) < lowest:
                best, lowest = model, bic
            elif k == best.n_components + 6:
                break
    return in_units(units, lambda x: torch.from_numpy(best.score_samples(column(x))))


def deft(dataset: Dataset, seed: int) -> LogDensity:
    """Density estimation using field theory: penalised likelihood that keeps three moments.

    The third derivative of log p is penalised, and the penalty is the one of highest evidence. The
    box is the package's, a fifth of the sample's length beyond both ends, but not moved to 0, 1 or
    100 where it is near: that would depend on the unit. Its 100 nodes are too few for narrow peaks.
    Beyond the box, where the package has no density, log p goes on with the slope of the end.

    Source:
        Kinney, Unification of field theory and maximum entropy methods for learning probability
        densities (2015); Chen, Tareen & Kinney, Density estimation on small data sets (2018).
    """
    from suftware import DensityEstimator

    y = dataset.train.double().numpy()
    margin = 0.2 * np.ptp(y)
    box = [y.min() - margin, y.max() + margin]
    options = {"num_grid_points": 400, "bounding_box": box, "num_posterior_samples": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # of numpy.matrix
        try:
            fit = DensityEstimator(y, **options).density_func
        except SystemExit:  # its way to say that it failed
            raise ValueError("suftware found no density") from None
    slopes = -np.diff(fit.field_values)[[0, -1]] / np.diff(fit.grid)[[0, -1]]

    def log_density(points: Tensor) -> Tensor:
        x = points.double().numpy()
        inside = np.clip(x, fit.grid[0], fit.grid[-1])
        beyond = np.where(x < inside, *slopes) * (x - inside)
        return torch.from_numpy(beyond - fit.field(inside) - math.log(fit.Z))

    return log_density


def mdl_histogram(dataset: Dataset, seed: int) -> LogDensity:
    """A histogram of bins of any width by minimum description length, as its package finds it.

    The package asks for a resolution, which is a 300th of the sample's length, and for the most
    bins. A bin without points has a density of nearly nothing.

    Source:
        Kontkanen & Myllymäki, MDL histogram density estimation (2007).
    """
    from mdl_density_hist import mdl_optimal_histogram

    y = dataset.train.double().numpy()
    edges, _ = mdl_optimal_histogram(y, epsilon=np.ptp(y) / 300, K_max=40)
    edges[0], edges[-1] = min(edges[0], y.min()), max(edges[-1], y.max())
    counts = np.histogram(y, edges)[0]
    density = np.maximum(counts / len(y) / np.diff(edges), 1e-300)
    return Histogram(edges, density, counts, math.nan)


def held_out(dataset: Dataset) -> Dataset:
    """A tenth of the training points for validation."""
    n_val = max(2, round(0.1 * len(dataset.train)))
    return replace(dataset, train=dataset.train[n_val:], val=dataset.train[:n_val])


def spline_flow(
    y: Tensor, seed: int, transforms: int = 1, bins: int = 16
) -> tuple[nn.Module, Units, LogDensity]:
    """A neural spline flow as zuko builds it, for data scaled into [-5, 5], where its splines are.

    Args:
        y: The data, `(n,)`.
        seed: Of the weights.
        transforms: Splines, one after the other.
        bins: Of each.

    Returns:
        The flow, the units it is in, and its log-density in these, with a gradient.
    """
    import zuko

    loc = y.mean().item()
    units = Units(loc, max(y.std(), (y - loc).abs().max() / 5).item())
    with seeded(seed, dtype=y.dtype):
        flow = zuko.flows.NSF(features=1, transforms=transforms, bins=bins)
    return flow, units, lambda x: flow().log_prob(x[:, None])


def nsf(dataset: Dataset, seed: int) -> LogDensity:
    """A neural spline flow of one transform: several would be a spline of a spline.

    500 iterations of Adam on batches of 256, with a cosine from 0.05 to 0; the weights stay that
    are best on a tenth of the training points that is held out.
    """
    parts, n_iterations = held_out(dataset), 500
    flow, units, log_density = spline_flow(parts.train, seed)
    x, x_val = units(parts.train), units(parts.val)
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_iterations)
    random, best, kept = torch.Generator().manual_seed(seed), -math.inf, None
    for iteration in range(1, n_iterations + 1):
        points = x[torch.randint(len(x), (min(256, len(x)),), generator=random)]
        optimizer.zero_grad()
        (-log_density(points).mean()).backward()
        optimizer.step()
        schedule.step()
        if iteration % 25 == 0 and (value := log_density(x_val).mean().item()) > best:
            best, kept = value, {k: v.clone() for k, v in flow.state_dict().items()}
    flow.load_state_dict(kept)
    return in_units(units, lambda x: log_density(x).detach())


# the estimate; what it is; what it chooses, and how. A further one is a line here: a function of a
# dataset, of which it may see `train`, and a seed, to a function that returns log-densities
CONTENDERS: dict[str, tuple[Callable[[Dataset, int], LogDensity], str, str]] = {
    "ODE, likelihood": (
        lambda dataset, seed: ode_likelihood(dataset, seed)[1],
        "flow, natural gradient", "one of two nets, by Akaike's criterion"),
    "ODE, flow matching": (
        ode_flow_matching, "flow, one linear solve", "the penalty, by the points' likelihood"),
    "SDE, bound": (
        sde_bound,
        "the SDE notebook's default net, 300 iterations of Adam (its default: 500)", "nothing"),
    "SDE, closed form": (
        lambda dataset, seed: sde_closed_form(dataset, seed)[1],
        "EM's mixture or one Gaussian, corrected by a linear solve",
        "what is corrected, how, delta, by Akaike's criterion"),
    "ODE or SDE": (
        chosen, "ODE by likelihood or SDE in closed form", "by Akaike's criterion"),
    "fit_density": (
        lambda dataset, seed: fitted(dataset),
        "flow by flow matching or SDE of EM's mixture", "by Akaike's criterion"),
    "EM, grown": (
        lambda dataset, seed: yardsticks.em_mixture(dataset.train),
        "mixture of Gaussians", "their number, by BIC"),
    "EM, scikit-learn": (
        em_sklearn, "mixture of Gaussians, ten starts", "their number, by BIC"),
    "penalised": (
        lambda dataset, seed: yardsticks.penalized(dataset.train),
        "penalised likelihood on a grid", "the penalty, by the evidence"),
    "DEFT": (deft, "suftware", "the smoothness, by the evidence"),
    "histogram": (
        lambda dataset, seed: irregular_histogram(dataset.train),
        "constant in bins of any width; zero outside the sample", "number and places, by evidence"),
    "histogram, MDL": (
        mdl_histogram,
        "constant in bins of any width (MDL-Density-Histogram); zero outside the sample",
        "number and places, by description length"),
    "KDE, Scott": (
        lambda dataset, seed: yardsticks.kde(dataset.train),
        "Gaussian kernels", "nothing: Scott's bandwidth"),
    "KDE, Botev": (kde_botev, "Gaussian kernels (KDEpy)", "the bandwidth, by plug-in"),
    "NSF": (
        nsf, "neural spline flow (zuko), 500 iterations of Adam",
        "when to stop, by a tenth of the points"),
}  # fmt: skip


def measure(config: Mapping[str, object]) -> dict[str, object]:
    """All contenders on one sample, one thread: a run of a benchmark's grid.

    All see the sample in the coordinate that `dlutils.estimators.coordinates` chooses from it.

    Args:
        config: density, n, and seed; contenders, if not all.

    Returns:
        The coordinate's name; kl (mass divided out, nats; None where there is no density, or it is
        zero at data), ise and squared_hellinger (None where there is no density), seconds and
        error, each by contender.
    """
    torch.set_num_threads(1)
    dataset = make_dataset(config["density"], config["n"], 2, 2, seed=config["seed"])
    bends = coordinates.choose(dataset.train)
    units = Units(bends=bends)
    points = {part: units(getattr(dataset, part)) for part in ("train", "val", "test")}
    ends = units(torch.tensor(dataset.support, dtype=torch.float64)).tolist()
    seen = replace(dataset, **points, support=tuple(ends), distribution=None)
    seconds, errors = {}, {}
    names = config.get("contenders", list(CONTENDERS))
    distances = {what: dict.fromkeys(names) for what in ("kl", "ise", "squared_hellinger")}
    for name in names:
        estimate = CONTENDERS[name][0]
        start = time.perf_counter()
        try:
            log_q = estimate(seen, config["seed"])
            seconds[name] = time.perf_counter() - start
            found = compare(dataset, in_units(units, log_q), 8001)
            kl = found.normalized_kl
            distances["kl"][name] = kl if math.isfinite(kl) else None
            distances["ise"][name] = found.ise
            distances["squared_hellinger"][name] = found.squared_hellinger
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            seconds.setdefault(name, time.perf_counter() - start)
            errors[name] = f"{type(error).__name__}: {error}"
    if "ODE or SDE" in names:  # had both
        seconds["ODE or SDE"] += seconds["ODE, likelihood"] + seconds["SDE, closed form"]
    coordinate = "Arsinh" if bends else "Identity"
    return {"coordinate": coordinate} | distances | {"seconds": seconds, "errors": errors}
