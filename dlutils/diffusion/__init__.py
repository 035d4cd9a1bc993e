"""Behind SDE.ipynb: the bound, the exact density, and how an SDE is fitted or solved for."""

from dlutils.diffusion import bound, denoising, fokker_planck, sobol
from dlutils.diffusion.closed_form import search
from dlutils.diffusion.denoisers import DENOISERS, GaussianDenoiser
from dlutils.diffusion.fitting import (
    FittedSDE,
    least_squares,
    simulate,
    train,
    units_and_reach,
    weighted_points,
    with_r,
)
from dlutils.diffusion.importance import log_weights, tightening
from dlutils.diffusion.lattices import even_lattice, importance_noise
from dlutils.diffusion.model import (
    SDE,
    build_sde,
    diffusion_loss,
    elbo,
    hierarchical_elbo,
    loss_on_grid,
    prior_kl,
    quadrature,
    reconstruction,
    variational_drift,
)
from dlutils.diffusion.parts import (
    DIFFUSIONS,
    DRIFTS,
    PATHS,
    BasisDrift,
    ConstantDiffusion,
    LearnedInTimeDiffusion,
    LinearPath,
    OptimalDiffusion,
    Path,
    PreconditionedDrift,
)
from dlutils.diffusion.probability_flow import ProbabilityFlow
from dlutils.diffusion.quadratic import Table
from dlutils.diffusion.samplers import (
    T_SAMPLERS,
    Draw,
    frozen,
    iid,
    lattice,
    minibatch,
    sampled_elbo,
)

__all__ = [
    "DENOISERS",
    "DIFFUSIONS",
    "DRIFTS",
    "PATHS",
    "SDE",
    "T_SAMPLERS",
    "BasisDrift",
    "ConstantDiffusion",
    "Draw",
    "FittedSDE",
    "GaussianDenoiser",
    "LearnedInTimeDiffusion",
    "LinearPath",
    "OptimalDiffusion",
    "Path",
    "PreconditionedDrift",
    "ProbabilityFlow",
    "Table",
    "bound",
    "build_sde",
    "denoising",
    "diffusion_loss",
    "elbo",
    "even_lattice",
    "fokker_planck",
    "frozen",
    "hierarchical_elbo",
    "iid",
    "importance_noise",
    "lattice",
    "least_squares",
    "log_weights",
    "loss_on_grid",
    "minibatch",
    "prior_kl",
    "quadrature",
    "reconstruction",
    "sampled_elbo",
    "search",
    "simulate",
    "sobol",
    "tightening",
    "train",
    "units_and_reach",
    "variational_drift",
    "weighted_points",
    "with_r",
]
