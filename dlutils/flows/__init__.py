"""Behind ODE.ipynb: the exact likelihood of a flow, its gradient, and how a drift is fitted."""

from dlutils.flows.choice import automatic
from dlutils.flows.kernels import AutogradKernel, MLPKernel
from dlutils.flows.matching import (
    COUPLINGS,
    PENALTIES,
    batch_noise,
    mean_squares,
    most_likely,
    path_nodes,
    regress,
)
from dlutils.flows.methods import LOGDETS, METHODS, check_solver, order_of
from dlutils.flows.natural import NaturalGradient
from dlutils.flows.nets import ConcatSquashDrift, FourierDrift, SigmoidBasisDrift, with_time

__all__ = [
    "COUPLINGS",
    "LOGDETS",
    "METHODS",
    "PENALTIES",
    "AutogradKernel",
    "ConcatSquashDrift",
    "FourierDrift",
    "MLPKernel",
    "NaturalGradient",
    "SigmoidBasisDrift",
    "automatic",
    "batch_noise",
    "check_solver",
    "mean_squares",
    "most_likely",
    "order_of",
    "path_nodes",
    "regress",
    "with_time",
]
