"""What one would try first on a sample, and how far models are apart where no truth is known.

The densities come from well-kept libraries: SciPy's kernels and scikit-learn's mixtures. Each
takes a sample, shape `(n,)`, and returns a log-density, `(m,)` to `(m,)`, in nats.
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from scipy.stats import gaussian_kde
from torch import Tensor
from torch.distributions import Normal

from dlutils.tables import plus_minus

LogDensity = Callable[[Tensor], Tensor]


def gaussian(y: Tensor, seed: int = 0) -> LogDensity:
    """One normal distribution with the sample's mean and standard deviation."""
    y = y.double()
    normal = Normal(y.mean(), y.std())
    return lambda points: normal.log_prob(points.double())


def kde(y: Tensor, seed: int = 0, bandwidth: float | str = "scott") -> LogDensity:
    """Gaussian kernels (SciPy); the bandwidth is Scott's, or given in standard deviations.

    Where the estimate underflows, its logarithm is that of the smallest number.
    """
    estimate = gaussian_kde(y.double().numpy(), bandwidth)

    def log_density(points: Tensor) -> Tensor:
        p = np.maximum(estimate(points.double().numpy()), np.finfo(float).tiny)
        return torch.from_numpy(np.log(p))

    return log_density


def em_mixture(y: Tensor, seed: int = 0, most: int = 15) -> LogDensity:
    """A mixture of up to `most` Gaussians by EM, their number by BIC (scikit-learn)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    loc, scale = y.double().mean(), y.double().std()
    x = ((y.double() - loc) / scale).numpy()[:, None]  # scikit-learn's least variance is absolute
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        models = [
            GaussianMixture(k, max_iter=500, random_state=seed).fit(x)
            for k in range(1, 1 + min(most, len(np.unique(x))))
        ]
    best = min(models, key=lambda model: model.bic(x))

    def log_density(points: Tensor) -> Tensor:
        x = ((points.double() - loc) / scale).numpy()[:, None]
        return torch.from_numpy(best.score_samples(x)) - scale.log()

    return log_density


YARDSTICKS: dict[str, Callable[[Tensor, int], LogDensity]] = {
    "one Gaussian": gaussian,
    "KDE (Scott)": kde,
    "EM mixture (BIC)": em_mixture,
}


def fit_all(y: Tensor, seed: int = 0) -> dict[str, LogDensity]:
    """The log-densities of all `YARDSTICKS` for a sample of at least two different values."""
    return {name: fit(y, seed) for name, fit in YARDSTICKS.items()}


def held_out(models: Mapping[str, LogDensity], y: Tensor) -> list[dict[str, str]]:
    """Mean log-likelihood of points that no model has seen, in nats, with standard errors.

    Models are compared by the paired difference on the same points, whose standard error is much
    smaller than that of either mean.

    Args:
        models: Log-densities by name; the first is the one that the others are compared with.
        y: The held-out points, shape `(n,)`, at least 2.

    Returns:
        A row a model: model, log-likelihood ± standard error, the first minus it ± standard error.

    Raises:
        ValueError: If there are fewer than 2 points or no models.
    """
    if len(y) < 2 or not models:
        raise ValueError(
            f"{len(models)} models on {len(y)} held-out points: at least 1 and 2 are needed; "
            "a larger sample, or a larger test_fraction, leaves more"
        )
    values = {name: log_density(y).double() for name, log_density in models.items()}
    first, reference = next(iter(values.items()))
    return [
        {
            "model": name,
            "log-likelihood": plus_minus(log_p, ""),
            f"{first} minus it": "–" if name == first else plus_minus(reference - log_p, ""),
        }
        for name, log_p in values.items()
    ]
