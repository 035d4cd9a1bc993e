"""Behind ODE.ipynb: the exact likelihood of a flow, its gradient, and how a drift is fitted."""

from dlutils.flows import adjoint, convergence, newton
from dlutils.flows.choice import automatic
from dlutils.flows.fitting import (
    FittedODE,
    evolution,
    flow_matching,
    least_squares,
    push,
    train,
)
from dlutils.flows.kernels import AutogradKernel, MLPKernel
from dlutils.flows.matching import (
    COUPLINGS,
    PENALTIES,
    mean_squares,
    most_likely,
    path_nodes,
    regress,
)
from dlutils.flows.methods import LOGDETS, METHODS, check_solver, order_of
from dlutils.flows.natural import NaturalGradient
from dlutils.flows.nets import (
    DRIFTS,
    ConcatSquashDrift,
    FourierDrift,
    LinearDrift,
    MLPDrift,
    SigmoidBasisDrift,
    with_time,
)

__all__ = [
    "COUPLINGS",
    "DRIFTS",
    "LOGDETS",
    "METHODS",
    "PENALTIES",
    "AutogradKernel",
    "ConcatSquashDrift",
    "FittedODE",
    "FourierDrift",
    "LinearDrift",
    "MLPDrift",
    "MLPKernel",
    "NaturalGradient",
    "SigmoidBasisDrift",
    "adjoint",
    "automatic",
    "check_solver",
    "convergence",
    "evolution",
    "flow_matching",
    "least_squares",
    "mean_squares",
    "most_likely",
    "newton",
    "order_of",
    "path_nodes",
    "push",
    "regress",
    "train",
    "with_time",
]
