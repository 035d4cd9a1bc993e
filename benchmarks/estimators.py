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
from torch import Tensor

from dlutils.data.datasets import Dataset, make_dataset
from dlutils.data.units import Units
from dlutils.estimators import coordinates, smoothing, yardsticks
from dlutils.estimators.yardsticks import LogDensity
from dlutils.evaluation import compare
from dlutils.flows.choice import effective_parameters
from dlutils.notebook import load
from dlutils.seeding import seeded

GRID = 8001  # points of the quadrature
ROOT = Path(__file__).resolve().parents[1]


@cache
def notebook(name: str) -> ModuleType:
    """The definitions of ODE.ipynb or SDE.ipynb; the former with a drift of twice as many steps."""
    module = load(ROOT / name)
    if name == "ODE.ipynb":
        module.DRIFTS["sigmoid_basis_96"] = partial(module.SigmoidBasisDrift, 96)
    return module


# drift net, precision of the prior on its weights, bins, T, natural gradient's steps at most
NETS = (("mlp", 1.0, 64, 5, 40), ("sigmoid_basis_96", 30.0, 96, 10, 25))


@lru_cache(maxsize=1)
def ode_likelihood(dataset: Dataset, seed: int) -> tuple[float, LogDensity]:
    """Two flows by rk4, their exact density; the better by `information_criterion`, and that."""
    models = []
    for drift, prior_precision, n_bins, n_steps, n_iterations in NETS:
        with suppress(ValueError):  # the steps fold the line
            model = notebook("ODE.ipynb").train(
                replace(dataset, val=dataset.train),
                drift,
                "rk4",
                n_steps,
                seed,
                logdet="map",
                n_bins=n_bins,
                prior_precision=prior_precision,
                optimizer="natural",
                n_iterations=n_iterations,
                progress=False,
            )
            score = information_criterion(model, dataset, n_bins, prior_precision)
            models.append((score, model.log_likelihood))
    if not models:
        raise ValueError("the steps of all nets fold the line")
    return max(models, key=lambda pair: pair[0])


def ode_flow_matching(dataset: Dataset, seed: int) -> LogDensity:
    """Flow matching in closed form, to a density by penalised likelihood.

    The penalty is chosen by the likelihood of the training points, to which the flow is not fitted.
    Ten steps, or as many more as it takes for none to fold the line.
    """
    data, y = replace(dataset, val=dataset.train), torch.linspace(*dataset.support, 2001)
    for n_steps in (10, 20, 40, 80):
        model = notebook("ODE.ipynb").flow_matching(data, smooth=True, n_steps=n_steps)
        with suppress(ValueError):
            model.log_likelihood(y)
            break
    return model.log_likelihood


def information_criterion(model, dataset: Dataset, n_bins: int, prior_precision: float) -> float:
    """Akaike's criterion, a point: higher is better; see `effective_parameters`."""
    effective = effective_parameters(model, dataset, prior_precision, n_bins)
    mean = model.log_likelihood(dataset.train).double().mean().item()
    return mean - effective / len(dataset.train)


def sde_bound(dataset: Dataset, seed: int) -> LogDensity:
    """The notebook's default net and path; its exact density from the Fokker-Planck equation."""
    train = notebook("SDE.ipynb").train
    data = replace(dataset, val=dataset.train)
    return train(data, seed=seed, n_iterations=300, progress=False).log_likelihood


@lru_cache(maxsize=1)
def sde_closed_form(dataset: Dataset, seed: int) -> tuple[float, LogDensity]:
    """The bound solved for; the training points choose, less what was fitted to them.

    Returns:
        Akaike's criterion, a point, with mean and variance as two more parameters; the density.
    """
    fitted = notebook("SDE.ipynb").least_squares(replace(dataset, val=dataset.val[:0]))
    y, net = dataset.train, fitted.model.net
    n_parameters = 2 + net.denoiser.n_parameters
    if net.net.c.any():
        n_parameters = 2 + smoothing.fit(fitted.units(y.double()))[2]
    mean = fitted.log_likelihood(y).double().mean().item()
    return mean - n_parameters / len(y), fitted.log_likelihood


def chosen(dataset: Dataset, seed: int) -> LogDensity:
    """The flow by likelihood or the SDE in closed form, by Akaike's criterion."""
    found = [sde_closed_form(dataset, seed)]
    with suppress(ValueError):
        found.append(ode_likelihood(dataset, seed))
    return max(found, key=lambda pair: pair[0])[1]


def held_out(dataset: Dataset, share: float = 0.1) -> Dataset:
    """A tenth of the training points for validation."""
    n_val = max(2, round(share * len(dataset.train)))
    return replace(dataset, train=dataset.train[n_val:], val=dataset.train[:n_val])


def kde_botev(dataset: Dataset, seed: int) -> LogDensity:
    """Gaussian kernels, the bandwidth of Botev, Grotowski & Kroese 2010 (KDEpy)."""
    from KDEpy.bw_selection import improved_sheather_jones

    y = dataset.train.double().numpy()
    return yardsticks.kde(dataset.train, improved_sheather_jones(y[:, None]) / y.std(ddof=1))


def em_sklearn(dataset: Dataset, seed: int, most: int = 10, n_init: int = 10) -> LogDensity:
    """A mixture of up to `most` Gaussians by BIC, each the best of `n_init` starts (scikit-learn).

    It ends when six more components have not lowered BIC. Three would be too few: on 1000 points of
    the claw BIC rises from one component to the fourth, and is lowest at seven.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    y = dataset.train.double()
    loc, scale = y.mean(), y.std()
    x = ((y - loc) / scale).numpy()[:, None]  # scikit-learn's least variance is absolute
    best, lowest = None, math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for k in range(1, 1 + min(most, len(np.unique(x)))):
            model = GaussianMixture(k, max_iter=500, n_init=n_init, random_state=seed).fit(x)
            if (bic := model.bic(x)) < lowest:
                best, lowest = model, bic
            elif k == best.n_components + 6:
                break

    def log_density(points: Tensor) -> Tensor:
        x = ((points.double() - loc) / scale).numpy()[:, None]
        return torch.from_numpy(best.score_samples(x)) - scale.log()

    return log_density


def deft(dataset: Dataset, seed: int, n_grid: int = 400) -> LogDensity:
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
    options = {"num_grid_points": n_grid, "bounding_box": box, "num_posterior_samples": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # of numpy.matrix
        try:
            fit = DensityEstimator(y, **options).density_func
        except SystemExit:  # its way to say that it failed
            raise ValueError("suftware found no density") from None
    log_p = -fit.field_values - math.log(fit.Z)
    slopes = np.diff(log_p)[[0, -1]] / np.diff(fit.grid)[[0, -1]]

    def log_density(points: Tensor) -> Tensor:
        x = points.double().numpy()
        inside = np.clip(x, fit.grid[0], fit.grid[-1])
        beyond = np.where(x < inside, *slopes) * (x - inside)
        return torch.from_numpy(beyond - fit.field(inside) - math.log(fit.Z))

    return log_density


def nsf(
    dataset: Dataset, seed: int, bins: int = 16, n_iterations: int = 500, batch: int = 256
) -> LogDensity:
    """A neural spline flow as zuko builds it, on data scaled into [-5, 5], where its splines are.

    With one transform: several would be a spline of a spline.

    Args:
        dataset: A tenth of its training points is held out; the weights that are best there stay.
        seed: Of weights and batches.
        bins: Of the spline.
        n_iterations: Of Adam with a cosine from 0.05 to 0.
        batch: Points an iteration.
    """
    import zuko

    parts = held_out(dataset)
    y = parts.train
    loc = y.mean()
    scale = max(y.std(), (y - loc).abs().max() / 5)
    with seeded(seed, dtype=y.dtype):
        flow = zuko.flows.NSF(features=1, transforms=1, bins=bins)

    def log_density(y: Tensor) -> Tensor:
        with torch.no_grad():
            return flow().log_prob(((y - loc) / scale)[:, None]) - scale.log()

    optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_iterations)
    random, x = torch.Generator().manual_seed(seed), ((y - loc) / scale)[:, None]
    best, kept = -math.inf, None
    for iteration in range(1, n_iterations + 1):
        points = x[torch.randint(len(x), (min(batch, len(x)),), generator=random)]
        loss = -flow().log_prob(points).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if iteration % 25 == 0 and (value := log_density(parts.val).mean().item()) > best:
            best, kept = value, {k: v.clone() for k, v in flow.state_dict().items()}
    flow.load_state_dict(kept)
    return log_density


Row = dict[str, str]
CONTENDERS: dict[str, tuple[Callable[[Dataset, int], LogDensity], Row]] = {
    "ODE, likelihood": (
        lambda dataset, seed: ode_likelihood(dataset, seed)[1],
        {"what": "flow, natural gradient", "chooses": "one of two nets, by Akaike's criterion"},
    ),
    "ODE, flow matching": (
        ode_flow_matching,
        {"what": "flow, one linear solve", "chooses": "the penalty, by the points' likelihood"},
    ),
    "SDE, bound": (
        sde_bound,
        {"what": "the SDE notebook's default net, 300 iterations of Adam (its default: 500)",
         "chooses": "nothing"},
    ),
    "SDE, closed form": (
        lambda dataset, seed: sde_closed_form(dataset, seed)[1],
        {"what": "EM's mixture or one Gaussian, corrected by a linear solve",
         "chooses": "what is corrected, how, delta, by Akaike's criterion"},
    ),
    "ODE or SDE": (
        chosen,
        {"what": "ODE by likelihood or SDE in closed form", "chooses": "by Akaike's criterion"},
    ),
    "EM, grown": (
        lambda dataset, seed: yardsticks.em_mixture(dataset.train),
        {"what": "mixture of Gaussians", "chooses": "their number, by BIC"},
    ),
    "EM, scikit-learn": (
        em_sklearn,
        {"what": "mixture of Gaussians, ten starts", "chooses": "their number, by BIC"},
    ),
    "penalised": (
        lambda dataset, seed: yardsticks.penalized(dataset.train),
        {"what": "penalised likelihood on a grid", "chooses": "the penalty, by the evidence"},
    ),
    "DEFT": (deft, {"what": "suftware", "chooses": "the smoothness, by the evidence"}),
    "KDE, Scott": (
        lambda dataset, seed: yardsticks.kde(dataset.train),
        {"what": "Gaussian kernels", "chooses": "nothing: Scott's bandwidth"},
    ),
    "KDE, Botev": (
        kde_botev, {"what": "Gaussian kernels (KDEpy)", "chooses": "the bandwidth, by plug-in"},
    ),
    "NSF": (
        nsf,
        {"what": "neural spline flow (zuko), 500 iterations of Adam",
         "chooses": "when to stop, by a tenth of the points"},
    ),
}  # fmt: skip


def measure(config: Mapping[str, object]) -> dict[str, object]:
    """All contenders on one sample, one thread: a run of a benchmark's grid.

    All see the sample in the coordinate that `dlutils.estimators.coordinates` chooses from it.

    Args:
        config: density, n, and seed.

    Returns:
        The coordinate's name; kl (mass divided out, nats; None where there is no density, or it is
        zero at data), seconds and error, each by contender.
    """
    torch.set_num_threads(1)
    dataset = make_dataset(config["density"], config["n"], 2, 2, seed=config["seed"])
    bends = coordinates.choose(dataset.train)
    units = Units(bends=bends)
    points = {part: units(getattr(dataset, part)) for part in ("train", "val", "test")}
    ends = units(torch.tensor(dataset.support, dtype=torch.float64)).tolist()
    seen = replace(dataset, **points, support=tuple(ends), distribution=None)
    kl, seconds, errors = {}, {}, {}
    for name, (estimate, _) in CONTENDERS.items():
        start = time.perf_counter()
        try:
            log_q = estimate(seen, config["seed"])
            seconds[name] = time.perf_counter() - start
            of_y = lambda y, log_q=log_q: log_q(units(y)).double() + units.log_slope(y)
            found = compare(dataset, of_y, GRID)
            kl[name] = found.normalized_kl if math.isfinite(found.normalized_kl) else None
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            seconds.setdefault(name, time.perf_counter() - start)
            kl[name], errors[name] = None, f"{type(error).__name__}: {error}"
    seconds["ODE or SDE"] += seconds["ODE, likelihood"] + seconds["SDE, closed form"]  # had both
    coordinate = "Arsinh" if bends else "Identity"
    return {"coordinate": coordinate, "kl": kl, "seconds": seconds, "errors": errors}
