r"""The density of a sample, in one line, with a band.

The one with most evidence is kept: a flow that is matched to a smooth density by penalised
likelihood, or the SDE whose drift is the best denoiser for a mixture of Gaussians by EM, or for a
histogram, where the density jumps. All are closed forms, so it takes about a second. The posterior
of the smooth density, or of the histogram, gives the band.

Evidence is the log-likelihood less the effective number of parameters, by Akaike's criterion; the
histogram's is its marginal likelihood, which asks more of it, less two for its ends and three nats.
It is asked only where its bins are flat in the data's own units, or those of their bounds: seen
through arsinh it may well have most evidence for a long slope, but its band would know of none.

Source:
    Akaike, A new look at the statistical model identification (1974).
"""

import math
import time
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from dlutils.compression import compress
from dlutils.data.units import Arsinh, Coordinate, Inside, Range, Units
from dlutils.density.curve import Curve
from dlutils.density.observations import Observations, observe
from dlutils.diffusion.closed_form import price
from dlutils.diffusion.denoisers import MixtureDenoiser, UniformsDenoiser
from dlutils.diffusion.fitting import FittedSDE
from dlutils.diffusion.model import SDE
from dlutils.diffusion.parts import BasisDrift, LinearPath, OptimalDiffusion
from dlutils.diffusion.quadratic import Table
from dlutils.estimators import smoothing
from dlutils.estimators.coordinates import FARTHEST, NOTABLE, STRONG
from dlutils.estimators.histogram import Histogram, irregular_histogram
from dlutils.estimators.smoothing import Smooth
from dlutils.estimators.yardsticks import LogDensity, Mixture, em_mixture
from dlutils.flows import adjoint
from dlutils.flows.fitting import FittedODE, least_squares
from dlutils.flows.matching import most_likely, path_nodes
from dlutils.flows.nets import SigmoidBasisDrift
from dlutils.settings import check_choice, check_count
from dlutils.training import History

NAMES = {
    "flow": "flow",
    "sde": "SDE from a mixture of Gaussians",
    "histogram": "SDE from a histogram",
}
MODELS = ("best", *NAMES)
N_QUANTILES = 2000  # of the smooth density: what the flow is fitted to
PENALTIES = 1e-6, 1e-3  # of the flow's solve
STEPS = (10, 20, 40, 80)  # of the flow, until none folds the line
PER_BIN = 4  # nodes of the curve in a bin of the smooth density
DELTA, LEAST_DELTA = 0.01, 0.001  # of the SDE, for standardized data
PER_COMPONENT = 10  # deltas in the standard deviation of the narrowest component
PER_BOX = 200  # and in the width of the narrowest bin that holds a notable share
N_BINS = 200  # of the compression of EM's points
ROUNDS = 3  # of EM's mixture where values are hidden
NEAR = 5.0  # interquartile ranges between the extremes, up to which tails are not heavy


@dataclass(frozen=True)
class Candidate:
    """A density that was fitted, in a model's units, and what speaks for it.

    Attributes:
        name: What it is, in words.
        model: The flow or the SDE itself.
        curve: Its density.
        n_parameters: How many numbers the sample had to say for it.
        evidence: Of the data, nats in all.
        sd: Places, increasing, and the standard deviation of the log-density there, `(m,)` each.
    """

    name: str
    model: FittedODE | FittedSDE
    curve: Curve
    n_parameters: float
    evidence: float
    sd: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, repr=False)
class FittedDensity:
    """A density with its band; what it takes and returns is in the data's own units.

    Points may be a number or an array of any shape; what is returned is NumPy's, of that shape.

    Attributes:
        observations: What it was fitted to.
        chosen: The candidate that it is.
        others: The evidence for what was not chosen, by name.
        seconds: That it took.
    """

    observations: Observations
    chosen: Candidate
    others: dict[str, float]
    seconds: float

    def __repr__(self) -> str:
        return f"<FittedDensity: {self.chosen.name}; {self.observations.summary()}>"

    @property
    def units(self) -> Units:
        """In which the model sees the data."""
        return self.chosen.model.units

    @property
    def model(self) -> FittedODE | FittedSDE:
        """The flow or the SDE, for paths, bounds, marginals and more."""
        return self.chosen.model

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log q(x), nats; -inf outside the support."""
        z, slope = self._seen(x)
        return self._outside(x, self.chosen.curve.log_density(z) + slope, -math.inf, -math.inf)

    def pdf(self, x: np.ndarray) -> np.ndarray:
        """The density q(x), per unit of the data."""
        return np.exp(self.log_prob(x))

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """The probability F(x) of values up to x."""
        z, _ = self._seen(x)
        return self._outside(x, self.chosen.curve.cdf(z), 0.0, 1.0)

    def quantile(self, u: np.ndarray) -> np.ndarray:
        """Where F is u, between 0 and 1.

        Raises:
            ValueError: If a number is not between 0 and 1.
        """
        u = np.asarray(u, dtype=float)
        if not ((u >= 0) & (u <= 1)).all():
            raise ValueError(f"quantiles are asked for by numbers between 0 and 1, not {u}")
        z = self.chosen.curve.quantile(u)
        finite = np.isfinite(z)
        ends = np.where(u < 0.5, *self.observations.bounds)
        y = self.units.inverse(torch.from_numpy(np.where(finite, z, 0.0)))
        return np.where(finite, y.numpy(), ends)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Draw n values, shape `(n,)`, the same for the same seed."""
        check_count("n", n)
        return self.quantile(np.random.default_rng(seed).random(n))

    def band(self, x: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        r"""Low and high ends of a pointwise band of the density.

        $\log q(x)\pm zs(x)$ with the posterior standard deviation s and the normal quantile z. At
        each single place the truth lies in the band with about that probability, on the mean over
        samples and places; not at all places at once. Where the sample cannot show what is there, a
        narrow peak or the place of a jump, it lies outside more often.

        Args:
            x: Places, of any shape.
            level: Probability, between 0 and 1.

        Raises:
            ValueError: If the level is out of range.

        Source:
            Wahba, Bayesian “confidence intervals” for the cross-validated smoothing spline (1983);
            Nychka, Bayesian confidence intervals for smoothing splines (1988), for “on the mean”.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {level!r}")
        z, _ = self._seen(x)
        sd = np.interp(z, *self.chosen.sd)
        log_q, half = self.log_prob(x), ndtri((1 + level) / 2) * sd
        return np.exp(log_q - half), np.exp(log_q + half)

    @property
    def log_likelihood(self) -> float:
        """Of the sample, nats a value; of what is known of those that are censored or truncated."""
        return _log_likelihood(self.chosen.curve, self.units, self.observations)

    def summary(self) -> str:
        """Which model, its evidence, mass and effective parameters; lines to print."""
        seen, chosen = self.observations, self.chosen
        how = "as asked for"
        if self.others:
            how = "by evidence " + ", ".join(
                f"{chosen.evidence - evidence:.1f} nats before the {name}"
                for name, evidence in self.others.items()
            )
        bends = ", ".join(type(bend).__name__ for bend in self.units.bends)
        lines = {
            "values": seen.summary(),
            "model": f"{chosen.name}, {how}",
            "coordinate": bends,
            "effective parameters": f"{chosen.n_parameters:.1f}",
            "log-likelihood": f"{self.log_likelihood:.4f} nats a value",
            "mass": f"{chosen.curve.mass:.6f}",
            "seconds": f"{self.seconds:.2f}",
        }
        return "\n".join(f"{name:<22}{text}" for name, text in lines.items() if text)

    def plot(self, ax: Axes | None = None, level: float = 0.95, n_points: int = 801) -> Axes:
        """The density with its band over a histogram of the known values.

        Args:
            ax: Where to draw; None for a new figure.
            level: Of the band: see `band`.
            n_points: Of the curve.
        """
        from dlutils import plotting  # here, so that pyplot is not loaded by who draws nothing

        y, weights = self.observations.y.numpy(), self.observations.weights
        low, high = self.range()
        x = np.linspace(low, high, n_points)
        known = len(y) if weights is None else weights.sum().item()
        sample = y, weights, known / self.observations.n
        ax = plotting.banded(x, self.pdf(x), self.band(x, level), sample, ax, level=level)
        ax.set(title=self.observations.name.replace("$", r"\$"), xlim=(low, high))
        return ax

    def range(self) -> Range:
        """From where to where there is something to see: the sample and a twentieth more."""
        places, (first, last) = self.observations.places, self.observations.bounds
        low, high = places.min().item(), places.max().item()
        margin = 0.05 * (high - low)
        return max(low - margin, first), min(high + margin, last)

    def _seen(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Points in the model's units and the log-slope; what is outside is moved to the middle."""
        y = torch.from_numpy(np.asarray(x, dtype=float).copy())
        low, high = self.observations.bounds
        y = torch.where((y > low) & (y < high), y, self.observations.y.median())
        slope = self.units.log_slope(y).expand(y.shape)
        return self.units(y).numpy(), slope.numpy()

    def _outside(self, x: ArrayLike, value: np.ndarray, below: float, above: float) -> np.ndarray:
        """The value, but for points below or above the support; NaN stays."""
        x, (low, high) = np.asarray(x, dtype=float), self.observations.bounds
        value = np.where(x <= low, below, np.where(x >= high, above, value))
        return np.where(np.isnan(x), np.nan, value)


def fit_density(
    y: ArrayLike | Tensor | str,
    *,
    support: Range | None = None,
    rounding: float | None = None,
    weights: ArrayLike | Tensor | str | None = None,
    censored: ArrayLike | str | None = None,
    truncated: Range | None = None,
    drop_missing: bool = False,
    model: str = "best",
) -> FittedDensity:
    """Fit a density to a sample; nothing is random, and there is nothing to set.

    Args:
        y: Numbers, shape `(n,)`: an array, a tensor, a Series, or a file, `data.csv:height`. Two
            columns, `(n, 2)`, say between what each value lies: equal where it is known, infinite
            where there is no end.
        support: Bounds `(low, high)` outside which nothing can lie; one may be infinite.
        rounding: The step of rounded data, or 1 for counts.
        weights: What each value counts, `(n,)`, or a column of the file.
        censored: What is known of each value, `(n,)`, or a column of the file: 0 (or False) that it
            is what is given, 1 (True, "right") that it lies above that, -1 ("left") below.
        truncated: The window `(a, b)` outside which nothing was recorded. The density is that of
            all values, so what it is outside the window is a guess.
        drop_missing: Whether to leave out rows of a file in which something is missing.
        model: "best", "flow", "sde" or "histogram", an SDE too.

    Raises:
        ValueError: If the sample is no proper one, or contradicts what is said of it.
    """
    start = time.perf_counter()
    check_choice("model", model, MODELS)
    seen = observe(y, support, rounding, weights, censored, truncated, drop_missing)
    simple = _seen_through(seen)
    if model != "best":
        if model == "histogram" and simple.histogram is None:
            raise ValueError(f"model = {model!r} takes no censored or truncated values")
        chosen, others = MAKE[model](seen, simple), {}
    else:
        chosen, others = _choose(seen, simple)
    return FittedDensity(seen, chosen, others, time.perf_counter() - start)


@dataclass(frozen=True)
class _Simple:
    """What a flow or an SDE is to be, in one coordinate."""

    units: Units
    smooth: Smooth
    mixture: Mixture
    histogram: Histogram | None  # None where something is censored or truncated
    evidence: dict[str, float]  # by the names in `NAMES`; of no histogram seen through arsinh

    @property
    def best(self) -> float:
        return max(self.evidence.values())


def _choose(seen: Observations, simple: _Simple) -> tuple[Candidate, dict[str, float]]:
    """The one with most evidence, and what speaks for the others.

    What is expected to be behind is made only if it may be first after all.
    """
    made, others = {}, dict(simple.evidence)
    for name in sorted(others, key=others.get, reverse=True):
        if made and max(of.evidence for of in made.values()) >= others[name]:
            break
        others[name] = -math.inf
        with suppress(ValueError):  # a flow whose steps fold the line
            made[name] = MAKE[name](seen, simple)
            others[name] = made[name].evidence
    best = max(made, key=lambda name: made[name].evidence)
    return made[best], {NAMES[name]: others[name] for name in others if name != best}


def _seen_through(seen: Observations) -> _Simple:
    """What there is to choose from in the coordinate that the sample asks for.

    The logarithm or logit of bounded data; then arsinh, where there is strong evidence for it. Data
    that do not reach far are not asked.
    """
    bounds = () if all(map(math.isinf, seen.bounds)) else (Inside(*seen.bounds),)
    places = seen.places
    for bend in bounds:
        places = bend(places)
    low, median, high = np.quantile(places.numpy(), [0.25, 0.5, 0.75]).tolist()
    reach = (places.max() - places.min()).item() / (high - low) if high > low else 0.0
    simple = None
    if reach <= FARTHEST:
        simple = _simple(seen, bounds)
    if reach > NEAR:
        bent = _simple(seen, (*bounds, Arsinh(median, (high - low) / 2)))
        if simple is None or bent.best > simple.best + STRONG:
            simple = bent
    return simple


def _simple(seen: Observations, bends: tuple[Coordinate, ...]) -> _Simple:
    """All in a coordinate, with the evidence for each."""
    units = Units.of(seen.places, bends)
    x, incomplete = units(seen.y), seen.incomplete(units)
    smooth = smoothing.posterior(x, weights=seen.weights, incomplete=incomplete)
    mixture = _mixture(x, seen.weights) if incomplete is None else _filled(x, seen, smooth)
    evidence = {
        "flow": _evidence(Curve(smooth.x, smooth.log_p), units, seen, _numbers(smooth)),
        "sde": _evidence(_curve(smooth, mixture), units, seen, mixture.n_parameters),
    }
    histogram = None
    if incomplete is None:
        histogram = irregular_histogram(x, weights=seen.weights)
        if not any(isinstance(bend, Arsinh) for bend in bends):
            evidence["histogram"] = _evidence_of_jumps(histogram, units, seen)
    return _Simple(units, smooth, mixture, histogram, evidence)


def _filled(x: Tensor, seen: Observations, smooth: Smooth) -> Mixture:
    """A mixture by EM of the known values, x, and of the hidden where one would expect them.

    At first by the smooth density, then by the mixture itself.
    """
    curve = Curve(smooth.x, smooth.log_p)
    known = torch.ones_like(x) if seen.weights is None else seen.weights
    for _ in range(ROUNDS):
        hidden = smooth.hidden.expected(np.diff(curve.cdf(smooth.edges)), seen.n)
        at = hidden > 1e-9 * seen.n
        filled = torch.cat([x, torch.from_numpy(smooth.x[at])])
        mixture = _mixture(filled, torch.cat([known, torch.from_numpy(hidden[at])]))
        curve = _curve(smooth, mixture)
    return mixture


def _numbers(smooth: Smooth) -> float:
    """What a smooth density has taken from the sample: its own numbers, mean and variance."""
    return smooth.n_parameters + 2


def _mixture(x: Tensor, weights: Tensor | None) -> Mixture:
    """By EM, of the sample's nodes if it is long: the same within what it can tell, and sooner."""
    if len(x) > 2 * N_BINS:
        x, weights = compress(x, N_BINS, weights)
    return em_mixture(x, weights=weights)


def _curve(smooth: Smooth, log_density: LogDensity) -> Curve:
    """A curve through a log-density at several nodes in each bin."""
    x = _between(smooth)
    return Curve(x.numpy(), np.maximum(log_density(x).numpy(), -700))


def _between(smooth: Smooth) -> Tensor:
    """Several nodes in each bin, increasing."""
    k = np.arange(len(smooth.edges))
    return torch.from_numpy(np.interp(np.linspace(0, k[-1], PER_BIN * k[-1] + 1), k, smooth.edges))


def _log_likelihood(curve: Curve, units: Units, seen: Observations) -> float:
    """Nats a value, of what is known of each; see `fit_density`."""
    x, weights = units(seen.y).numpy(), seen.weights
    counts = np.ones(len(x)) if weights is None else weights.numpy()
    slope = units.log_slope(seen.y).expand(len(x)).numpy()
    total = counts @ (curve.log_density(x) + slope)
    if (incomplete := seen.incomplete(units)) is not None:
        a, b = incomplete.window
        low, high = np.maximum(incomplete.low, a), np.minimum(incomplete.high, b)
        inside = np.diff(curve.cdf(np.array([a, b])))[0]
        masses = np.maximum(curve.cdf(high) - curve.cdf(low), 1e-300)
        total += incomplete.counts @ np.log(masses) - seen.n * math.log(inside)
    return float(total / seen.n)


def _evidence(curve: Curve, units: Units, seen: Observations, n_parameters: float) -> float:
    """Akaike's criterion, nats in all."""
    return seen.n * _log_likelihood(curve, units, seen) - price(n_parameters, seen.n)


def _evidence_of_jumps(histogram: Histogram, units: Units, seen: Observations) -> float:
    """A histogram's; its ends are fitted, too, and who says that it jumps must be preferred."""
    slope = units.mean_log_slope(seen.y, seen.weights)
    return histogram.evidence + seen.n * slope - 2 - STRONG


def _flow(seen: Observations, simple: _Simple) -> Candidate:
    """Flow matching, in closed form, to the smooth density."""
    start = time.perf_counter()
    units, smooth = simple.units, simple.smooth
    y = torch.from_numpy(smooth.quantiles(N_QUANTILES))
    basis, nodes = SigmoidBasisDrift.for_paths(y, "sorted", True), path_nodes(y, "sorted")
    everywhere = _between(smooth)
    for n_steps in STEPS:
        solver = n_steps, "rk4", "map"

        def value(f: nn.Module, solver=solver) -> float:
            log_q = adjoint.log_likelihood(f, everywhere, *solver)  # a map wherever it is asked for
            return float(np.interp(y, everywhere, log_q).mean())

        try:
            best, f = most_likely(least_squares(basis, *nodes, PENALTIES), value)
            break
        except ValueError:
            if n_steps == STEPS[-1]:
                raise
    seconds = time.perf_counter() - start
    model = FittedODE(f, History([], [0], [best], seconds), units, *solver)
    with torch.no_grad():
        curve = Curve(everywhere.numpy(), adjoint.log_likelihood(f, everywhere, *solver).numpy())
    evidence = _evidence(curve, units, seen, _numbers(smooth))
    return Candidate("flow", model, curve, _numbers(smooth), evidence, (smooth.x, smooth.sd))


def _sde(seen: Observations, simple: _Simple) -> Candidate:
    """The SDE with the drift of EM's mixture; its density is that mixture, widened by the noise."""
    mixture, smooth = simple.mixture, simple.smooth
    narrow = mixture.sds.min().item() / PER_COMPONENT
    model = _with_denoiser(MixtureDenoiser(mixture), max(LEAST_DELTA, min(DELTA, narrow)), simple)
    variance = 2 * model.model.sigma_y**2
    curve = _curve(smooth, replace(mixture, sds=(mixture.sds**2 + variance).sqrt()))
    evidence = _evidence(curve, simple.units, seen, mixture.n_parameters)
    name = f"SDE from a mixture of {len(mixture.weights)} Gaussians"
    return Candidate(name, model, curve, mixture.n_parameters, evidence, (smooth.x, smooth.sd))


def _of_histogram(seen: Observations, simple: _Simple) -> Candidate:
    """The SDE with the drift of a histogram; its density is that, its jumps widened by the noise.

    One part in n is the smooth density's: there may be more beyond the ends.
    """
    histogram, smooth = simple.histogram, simple.smooth
    edges, heights = histogram.edges, histogram.density
    denoiser = UniformsDenoiser(torch.from_numpy(edges), torch.from_numpy(heights))
    notable = histogram.counts > NOTABLE * seen.n
    narrow = np.diff(edges)[notable].min().item() if notable.any() else 1.0
    model = _with_denoiser(denoiser, min(LEAST_DELTA, narrow / PER_BOX), simple)
    blur = 2**0.5 * model.model.sigma_y
    x = edges[:, None] + blur * np.linspace(-6, 6, 49)
    x = np.unique(np.concatenate([x.ravel(), smooth.edges]))
    p = ndtr((x[:, None] - edges) / blur)
    p = (1 - 1 / seen.n) * (p[:, :-1] - p[:, 1:]) @ heights
    beyond = np.interp(x, smooth.x, smooth.log_p) - math.log(seen.n)
    curve = Curve(x, np.maximum(np.logaddexp(np.log(np.maximum(p, 1e-300)), beyond), -700))
    at = np.repeat(edges, 2)[1:-1] + np.tile([1e-9, -1e-9], len(heights)) * np.ptp(edges)
    sd = at, np.repeat(np.maximum(histogram.counts, 1.0) ** -0.5, 2)
    name = f"SDE from a histogram of {len(heights)} bins"
    numbers = denoiser.n_parameters + 2  # with its ends
    evidence = _evidence_of_jumps(histogram, simple.units, seen)
    return Candidate(name, model, curve, numbers, evidence, sd)


def _with_denoiser(denoiser: nn.Module, delta: float, simple: _Simple) -> FittedSDE:
    """The SDE with the best noise for a drift that predicts y by a denoiser."""
    path = LinearPath(delta)
    nothing = Table(torch.linspace(-4, 4, 3, dtype=torch.float64), 2)
    drift = BasisDrift(path, denoiser, nothing)
    reach = max(6.5, 1.05 * np.abs(simple.smooth.x[[0, -1]]).max().item())
    return FittedSDE(
        SDE(path, OptimalDiffusion(path), drift, delta), History(), simple.units, reach
    )


MAKE = {"flow": _flow, "sde": _sde, "histogram": _of_histogram}
