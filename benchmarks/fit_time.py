"""Seconds from a sample to its density at a thousand places, for a hundred to a million points."""

import time
import warnings
from collections.abc import Callable

import numpy as np
from scipy.stats import gaussian_kde

from benchmarks.common import Options, Tables, command
from dlutils import fit_density
from dlutils.data.datasets import make_dataset

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "KDEpy")
SIZES = (100, 1000, 10_000, 100_000, 1_000_000)
MOST_SECONDS = 10.0  # who took longer is not asked for ten times as many points
At = np.ndarray


def ours(y: np.ndarray, at: At) -> None:
    """The fit, its density and its band."""
    q = fit_density(y)
    q.pdf(at), q.band(at)


def mixture(y: np.ndarray, at: At) -> None:
    """Of up to ten Gaussians, their number by BIC (scikit-learn)."""
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        fits = [GaussianMixture(k, random_state=0).fit(y[:, None]) for k in range(1, 11)]
    min(fits, key=lambda fit: fit.bic(y[:, None])).score_samples(at[:, None])


def botev(y: np.ndarray, at: At) -> None:
    """Kernels by FFT, the bandwidth of Botev, Grotowski & Kroese (KDEpy)."""
    from KDEpy import FFTKDE

    x, p = FFTKDE(bw="ISJ").fit(y).evaluate(2**12)
    np.interp(at, x, p)


CONTENDERS: dict[str, Callable[[np.ndarray, At], None]] = {
    "fit_density, with band": ours,
    "scipy gaussian_kde": lambda y, at: gaussian_kde(y)(at),
    "scikit-learn GaussianMixture, 1 to 10 by BIC": mixture,
    "KDEpy, ISJ by FFT": botev,
}


def make(options: Options) -> Tables:
    """Time `fit_density` beside kernels and mixtures on samples of the claw, one fit each."""
    sizes = SIZES[:2] if options.quick else SIZES
    at = np.linspace(-3, 3, 1000)
    for estimate in CONTENDERS.values():
        estimate(make_dataset("marron_wand_10", 100, 2, 2).train.numpy(), at)  # imports
    lines = []
    for name, estimate in CONTENDERS.items():
        line, seconds = {"estimator": name}, 0.0
        for n in sizes:
            if seconds < MOST_SECONDS:
                y = make_dataset("marron_wand_10", n, 2, 2, seed=10).train.numpy()
                start = time.process_time()
                estimate(y, at)
                seconds = time.process_time() - start
                line[f"n = {n:,}"] = seconds
        lines.append(line)
    return {"Seconds of the processor": lines}


if __name__ == "__main__":
    raise SystemExit(command(make, PACKAGES, "100 and 1000 points"))
