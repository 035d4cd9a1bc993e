"""Behind SDE.ipynb: exact densities, the bound in closed form, denoising, bounds that tighten."""

from dlutils.diffusion.closed_form import search
from dlutils.diffusion.denoisers import DENOISERS, GaussianDenoiser
from dlutils.diffusion.importance import log_weights, tightening
from dlutils.diffusion.lattices import even_lattice, importance_noise
from dlutils.diffusion.probability_flow import ProbabilityFlow
from dlutils.diffusion.quadratic import Table

__all__ = [
    "DENOISERS",
    "GaussianDenoiser",
    "ProbabilityFlow",
    "Table",
    "even_lattice",
    "importance_noise",
    "log_weights",
    "search",
    "tightening",
]
