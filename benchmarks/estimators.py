"""One interface to what estimates a density: our ODE and SDE, and what people would use instead.

Each takes a dataset and a seed and returns a log-density. All see the n training points. What one
chooses (a net, a number of components) it chooses by an information criterion on the same points;
the spline flow alone sees the validation points besides, to know when to stop.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from dlutils import adjoint, yardsticks
from dlutils.comparison import compare
from dlutils.datasets import Dataset, make_dataset
from dlutils.notebooks import load
from dlutils.seeding import seeded
from dlutils.yardsticks import LogDensity

GRID = 8001  # points of the quadrature
ROOT = Path(__file__).resolve().parents[1]


@cache
def notebook(name: str) -> ModuleType:
    """The definitions of ODE.ipynb or SDE.ipynb; the former with a drift of twice as many steps."""
    module = load(ROOT / name)
    if name == "ODE.ipynb":
        module.DRIFTS["sigmoid_basis_96"] = partial(module.SigmoidBasisDrift, 96)
    return module


# drift net, precision of the prior on its weights, bins, peak learning rate, iterations
NETS = (
    ("mlp", 10.0, 32, 0.02, 250),
    ("mlp", 1.0, 32, 0.02, 250),
    ("sigmoid_basis", 100.0, 64, 0.03, 300),
    ("sigmoid_basis_96", 30.0, 96, 0.03, 300),
)


def ode(dataset: Dataset, seed: int) -> LogDensity:
    """Four flows, rk4 with ten steps, exact density; the best by `information_criterion`."""
    models = []
    for drift, prior_precision, n_bins, learning_rate, n_iterations in NETS:
        model = notebook("ODE.ipynb").train(
            dataset,
            drift,
            "rk4",
            10,
            seed,
            logdet="map",
            n_bins=n_bins,
            prior_precision=prior_precision,
            learning_rate=learning_rate,
            n_iterations=n_iterations,
            progress=False,
        )
        score = information_criterion(model, dataset, n_bins, prior_precision)
        models.append((score, model.log_likelihood))
    return max(models, key=lambda pair: pair[0])[1]


def information_criterion(model, dataset: Dataset, n_bins: int, prior_precision: float) -> float:
    r"""Akaike's criterion with the effective number of parameters, a point: higher is better.

    $\frac1n\sum_i\log p(y_i)-\frac{\gamma}{n}$ with
    $\gamma=\sum_k\lambda_k/(\lambda_k+\kappa/n)$, where $\lambda$ are the eigenvalues of the Fisher
    information, the mean of the products of the scores, and $\kappa$ is the prior's precision. The
    scores are taken at the compressed points, so the matrix is as small as their number.

    Source:
        Akaike (1974); MacKay, Bayesian interpolation (1992), eq. 4.9, for the number.
    """
    n = len(dataset.train)
    nodes, weights = dataset.compress(n_bins)
    x_1 = ((nodes - model.loc) / model.scale).float()
    _, scores = adjoint.scores(model.drift, x_1, model.n_steps, model.method, model.logdet)
    scores = scores.double() * (weights / n).sqrt()[:, None]
    eigenvalues = torch.linalg.eigvalsh(scores @ scores.T).clamp(min=0)
    effective = (eigenvalues / (eigenvalues + prior_precision / n)).sum().item()
    mean = model.log_likelihood(dataset.train).double().mean().item()
    return mean - effective / n


def sde(dataset: Dataset, seed: int) -> LogDensity:
    """The notebook's default; its exact density from the Fokker-Planck equation."""
    return notebook("SDE.ipynb").train(dataset, seed=seed, progress=False).log_likelihood


def kde_botev(dataset: Dataset, seed: int) -> LogDensity:
    """Gaussian kernels, the bandwidth of Botev, Grotowski & Kroese 2010 (KDEpy)."""
    from KDEpy.bw_selection import improved_sheather_jones

    y = dataset.train.double().numpy()
    return yardsticks.kde(dataset.train, seed, improved_sheather_jones(y[:, None]) / y.std(ddof=1))


def em_sklearn(dataset: Dataset, seed: int, most: int = 15, n_init: int = 1) -> LogDensity:
    """A mixture of up to `most` Gaussians by BIC, each from `n_init` starts (scikit-learn)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    y = dataset.train.double()
    loc, scale = y.mean(), y.std()
    x = ((y - loc) / scale).numpy()[:, None]  # scikit-learn's least variance is absolute
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        models = [
            GaussianMixture(k, max_iter=500, n_init=n_init, random_state=seed).fit(x)
            for k in range(1, 1 + min(most, len(np.unique(x))))
        ]
    best = min(models, key=lambda model: model.bic(x))

    def log_density(points: Tensor) -> Tensor:
        x = ((points.double() - loc) / scale).numpy()[:, None]
        return torch.from_numpy(best.score_samples(x)) - scale.log()

    return log_density


def nsf(dataset: Dataset, seed: int, n_iterations: int = 1500, batch: int = 256) -> LogDensity:
    """A neural spline flow as zuko builds it, on data scaled into [-5, 5] where its splines are.

    Args:
        dataset: Trains on `train`; the weights of the best validation on `val` are kept.
        seed: Of weights and batches.
        n_iterations: Of Adam with a cosine from 0.01 to 0.
        batch: Points an iteration.
    """
    import zuko

    y = dataset.train
    loc = y.mean()
    scale = max(y.std(), (y - loc).abs().max() / 5)
    with seeded(seed):
        flow = zuko.flows.NSF(features=1)

    def log_density(y: Tensor) -> Tensor:
        with torch.no_grad():
            return flow().log_prob(((y - loc) / scale).float()[:, None]) - scale.log()

    optimizer = torch.optim.Adam(flow.parameters(), lr=0.01)
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
        if iteration % 25 == 0 and (value := log_density(dataset.val).mean().item()) > best:
            best, kept = value, {k: v.clone() for k, v in flow.state_dict().items()}
    flow.load_state_dict(kept)
    return log_density


ESTIMATORS: dict[str, Callable[[Dataset, int], LogDensity]] = {
    "ODE": ode,
    "SDE": sde,
    "KDE, Scott": lambda dataset, seed: yardsticks.kde(dataset.train, seed),
    "KDE, Botev": kde_botev,
    "EM, grown": lambda dataset, seed: yardsticks.em_mixture(dataset.train, seed),
    "EM, scikit-learn": em_sklearn,
    "NSF": nsf,
}


def measure(config: Mapping[str, object]) -> dict[str, object]:
    """Estimate one density from one sample, one thread: a run of a benchmark's grid.

    Args:
        config: density, n, seed and estimator.

    Returns:
        kl (mass divided out, nats), mass, seconds; and the ODE's log-density on a grid for seed 0.
    """
    torch.set_num_threads(1)
    dataset = make_dataset(config["density"], n_train=config["n"], seed=config["seed"])
    start = time.perf_counter()
    estimate = ESTIMATORS[config["estimator"]](dataset, config["seed"])
    seconds = time.perf_counter() - start
    found = compare(dataset, estimate, GRID)
    row = {"kl": found.normalized_kl, "mass": found.mass, "seconds": seconds}
    if config["seed"] == 0 and config["estimator"] == "ODE":
        row["log_q"] = [round(float(value), 4) for value in found.log_q[::10]]
    return row
