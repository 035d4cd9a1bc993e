"""Fit an SDE to data: by the simulation-free bound, or by solving for the best drift at once.

SDE.ipynb shows training by the bound in a few lines; `train` gives the same weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from dlutils.arrays import dtype_of, points
from dlutils.checks import check_sde, check_t_sampler
from dlutils.data.datasets import Dataset
from dlutils.data.units import Units
from dlutils.diffusion import fokker_planck
from dlutils.diffusion.closed_form import search
from dlutils.diffusion.denoisers import DENOISERS
from dlutils.diffusion.model import SDE, build_sde, elbo
from dlutils.diffusion.parts import PATHS, BasisDrift, OptimalDiffusion
from dlutils.diffusion.samplers import T_SAMPLERS, Draw, minibatch, sampled_elbo
from dlutils.estimators.view import caution, farthest, seen_in, units_of
from dlutils.evaluation import through_nodes
from dlutils.processes import limited
from dlutils.saving import Portable
from dlutils.seeding import seeded
from dlutils.settings import check_batch, check_count, check_flag, choose
from dlutils.training import DataSource, History, check_device, fit

Part = str | type[nn.Module]


def simulate(model: SDE, n: int, n_steps: int = 200, generator=None) -> tuple[Tensor, Tensor]:
    """Times, (n_steps + 1,), and n paths from x_0 ~ N(0, 1), (n_steps + 1, n)."""
    check_count("n", n)
    check_count("n_steps", n_steps)
    like = {"dtype": dtype_of(model)}
    times = model.path.time(torch.linspace(0, 1, n_steps + 1, **like)).clamp(0, 1)
    x = [torch.randn(n, generator=generator, **like)]
    with torch.no_grad():
        for t, dt in zip(times, times.diff(), strict=False):
            sigma, half_slope = model.noise(x[-1], t.expand(n))
            f = model.drift(x[-1], t.expand(n), sigma, half_slope)
            z = torch.randn(n, generator=generator, **like)
            x.append(x[-1] + f * dt + sigma * dt.sqrt() * z)
            if not x[-1].isfinite().all():
                raise ValueError(f"the paths explode at t = {t:.3g}: raise n_steps")
    return times, torch.stack(x)


@dataclass(frozen=True)
class FittedSDE(Portable):
    """A trained SDE of x; what it returns is in the data's own units, y of x_1 + noise.

    Attributes:
        model: The SDE.
        history: What training recorded.
        units: How x is made of y, mostly x = (y - loc) / scale.
        reach: How far the standardized data go.
        n_steps: Of the Fokker-Planck equation.

    Raises:
        ValueError: If a part of the model is not what it must be (`dlutils.checks.check_sde`).
    """

    model: SDE
    history: History
    units: Units
    reach: float
    n_steps: int = 400

    def __post_init__(self) -> None:
        check_sde(self.model.path, self.model.diffusion, self.model.net)

    def standardized(self, y: ArrayLike | Tensor) -> Tensor:
        """The points as the model sees them, in its type."""
        return self.units(points(y)).to(dtype_of(self.model))

    def elbo(self, y: ArrayLike | Tensor, n_t: int = 48, n_eps: int = 24) -> Tensor:
        """The bound by quadrature, nats, (n,), without a gradient; -inf at infinity."""
        dtype = dtype_of(self.model)
        log_q = torch.no_grad()(lambda x: elbo(self.model, x.to(dtype), n_t, n_eps))
        return self.units.log_density(lambda x: through_nodes(log_q, x), points(y)).to(dtype)

    @cached_property
    def exact(self) -> fokker_planck.Evolution:
        """The exact density: of x_t on the standardized line, and of x_1 with noise."""
        m, time = self.model, lambda u: self.model.path.time(u).clamp(max=1)
        how = self.reach, m.sigma_y, self.n_steps, time, dtype_of(m)
        return fokker_planck.Evolution(m.f, m.sigma, *how)

    def log_likelihood(self, y: ArrayLike | Tensor) -> Tensor:
        """Log p(y), nats, `(n,)`, float64, without a gradient; -inf at infinity."""
        log_q = lambda x: torch.from_numpy(self.exact.log_density(x))
        return self.units.log_density(log_q, points(y))

    def sample(self, n: int, seed: int = 0, n_steps: int = 200) -> Tensor:
        """Draw n values by simulation, `(n,)`."""
        random = torch.Generator().manual_seed(int(seed))
        x = simulate(self.model, n, n_steps, random)[1][-1]
        noise = torch.randn(n, generator=random, dtype=x.dtype)
        return self.units.inverse(x + self.model.sigma_y * noise)


def with_r(fitted: FittedSDE, r: float) -> FittedSDE:
    """The same prediction of y, with the noise sigma^2 = r sigma_*^2."""
    m = fitted.model
    return replace(fitted, model=SDE(m.path, OptimalDiffusion(m.path, r), m.net, m.sigma_y))


def weighted_points(fitted: FittedSDE, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """The training data as some sixty standardized points, and weights that sum to one."""
    y, weights = dataset.compress(32)
    y = fitted.standardized(y)
    return y, (weights / weights.sum()).to(y)


def units_and_reach(dataset: Dataset) -> tuple[Units, float]:
    """In what the SDE sees the data, standardized, and how far they go there."""
    return units_of(dataset), max(6.5, 1.05 * farthest(dataset, units_of(dataset)))


@limited()
def train(
    dataset: Dataset,
    path: Part = "linear",
    diffusion: Part = "learned_in_t",
    drift: Part = "preconditioned",
    *,
    t_sampler: str | Callable[..., Draw] = "lattice",
    preconditioning: str = "gaussian",
    seed: int = 0,
    delta: float = 0.01,
    batch_size: int = 1024,
    device: str = "cpu",
    **options: object,
) -> FittedSDE:
    """Fit an SDE to dataset.train by the simulation-free bound.

    Args:
        dataset: Its training points are fitted, its validation points watched.
        path: Of these parts each is a name in `PATHS`, `DIFFUSIONS` or `DRIFTS`, or a class of
            one's own.
        diffusion: See path.
        drift: See path.
        t_sampler: A name in `T_SAMPLERS`, or a function of one's own.
        preconditioning: Whether the drift corrects the denoiser of one Gaussian or of a mixture.
        seed: Names the first weights and the draws.
        delta: Standard deviation of q_1 and of the observation, for standardized data.
        batch_size: Random points for each iteration.
        device: Where to train; the model comes back to the CPU.
        options: Of `dlutils.training.fit`.

    Raises:
        ValueError: If a name is unknown, a setting is out of range, or a part is not what it must
            be; the error names it.
    """
    sampler = choose("t_sampler", t_sampler, T_SAMPLERS)
    check_batch(batch_size)
    check_device(device, dataset.train.dtype)
    seen, _ = seen_in(dataset)
    x = seen.even.sort().values
    known = choose("preconditioning", preconditioning, DENOISERS)
    with seeded(seed, dtype=x.dtype):
        corrects = {} if preconditioning == "gaussian" else {"denoiser": known(x)}
        model = build_sde(path, diffusion, drift, delta, **corrects).to(device, x.dtype)
    check_t_sampler(sampler, model.path)
    fitted = FittedSDE(model, History(), *units_and_reach(dataset))
    x, random = x.to(device), torch.Generator().manual_seed(int(seed))
    nodes, w = DataSource(dataset.val, 32, device=device, weights=dataset.weights.get("val"))()

    def objective() -> Tensor:
        batch = minibatch(model.path, x, t_sampler, batch_size, random)
        return sampled_elbo(model, *batch).mean() + seen.log_slope

    def validate() -> float:
        return (w.double() @ fitted.elbo(nodes, 32, 16).double() / w.sum()).item()

    options = {"n_iterations": 1000, "validate_every": 50, "quantity": "ELBO"} | options
    history = fit(model, objective, validate, precision=caution(dataset), **options)
    return replace(fitted, model=model.cpu(), history=history)


@limited()
def least_squares(
    dataset: Dataset,
    path: Part = "linear",
    delta: float = 0.01,
    seed: int = 0,
    preconditioning: str = "best",
    smooth: bool = True,
    **options: object,
) -> FittedSDE:
    """The SDE with optimal noise and `basis` drift that maximises the bound, by linear equations.

    The bound chooses the penalties, by dataset.val; and by all points, less the parameters that the
    training points paid for: delta or its halves, whether the table corrects the denoiser at all,
    and which denoiser.

    Args:
        dataset: Its training points are fitted.
        path: A name in `PATHS`, or a class of one's own.
        delta: See `train`.
        seed: As in `train`; nothing is random.
        preconditioning: A name in `DENOISERS`, or "best".
        smooth: Whether the smooth density of dataset.train is fitted in place of its points.
        options: Of `dlutils.diffusion.closed_form.search`.

    Raises:
        ValueError: If a name is unknown or a setting is out of range.
    """
    check_flag("smooth", smooth)
    build_path = choose("path", path, PATHS)
    (y, w, _), (val, val_w, _) = seen_in(dataset, dtype=torch.float64)
    weights = {"weights": w, "val_weights": val_w}
    found = search(y, val, delta, preconditioning, smooth=smooth, **weights, **options)
    route = build_path(found.delta)
    drift = BasisDrift(route, found.denoiser, found.table)
    model = SDE(route, OptimalDiffusion(route), drift, found.delta)
    return FittedSDE(model, History(seconds=found.seconds), *units_and_reach(dataset))
