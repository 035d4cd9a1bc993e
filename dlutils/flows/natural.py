r"""Second-order steps: the natural gradient, in the space of the data's nodes.

With the scores $s_j=\nabla_\theta\log p(y_j)$ of the weighted nodes $(y_j,w_j)$ the gradient of the
mean log-likelihood is $g=\sum_jw_js_j$ and its Fisher matrix, estimated on the data, $F=J^\top J$
with rows $\sqrt{w_j}\,s_j$ in $J$. A step is $(F+dI)^{-1}g$; by Woodbury's identity
$$(J^\top J+dI)^{-1}g=\big(g-J^\top(JJ^\top+dI)^{-1}Jg\big)/d,$$
a solve of the size of the nodes, some hundred, and not of the weights, some thousands. Without
compression there would be as many nodes as points.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from dlutils.flows import adjoint
from dlutils.training import Prior, check_gradient

RAISE, LOWER, LEAST = 4.0, 3.0, 1e-9  # of the damping: after a step that failed, and one that rose
TRIALS = 15
TOLERANCE = 1e-6  # nats: the run ends with a step that gains less


class NaturalGradient:
    """Climbs a flow's mean log-likelihood plus the log of a Gaussian prior on its weights.

    Args:
        f: Drift; its parameters are changed in place.
        y: Nodes, shape `(m,)`.
        weights: Of the nodes, shape `(m,)`, or None for equal ones.
        n_steps: Number of steps T.
        method: One of `dlutils.flows.methods.METHODS`.
        logdet: "trace" or "map".
        precision: Of the prior, per point: it is added to the Fisher matrix and never taken away.
        shift: Is added to what is reported, nats: a mean log-slope of the data's units.
        around_start: Whether the prior is around the weights at the start, and not around zero.
        damping: What else is added to the Fisher matrix at first, positive.

    Raises:
        ValueError: As `dlutils.flows.adjoint.log_likelihood`, from `look`.

    Source:
        Amari, Natural gradient works efficiently in learning (1998); Levenberg (1944) and
        Marquardt (1963) for the damping; Dangel et al., ViViT (2022), for the space of the nodes.
    """

    def __init__(
        self,
        f: nn.Module,
        y: Tensor,
        weights: Tensor | None,
        n_steps: int = 100,
        method: str = "euler",
        logdet: str = "trace",
        precision: float = 0.0,
        shift: float = 0.0,
        *,
        around_start: bool = False,
        damping: float = 1e-2,
    ):
        weights = torch.ones_like(y) if weights is None else weights
        self.weights = weights / weights.sum()
        self.parameters = [p for p in f.parameters() if p.requires_grad]
        self.settings = f, y, n_steps, method, logdet
        self.prior, self.shift = Prior(self.parameters, precision, around_start), shift
        self.damping, self.J = damping, None

    def look(self) -> float:
        """The mean log-likelihood at the present weights; gradient and scores are kept."""
        log_p, scores = adjoint.scores(*self.settings)
        if self.J is None:
            check_gradient([scores])
        self.theta = parameters_to_vector(self.parameters).detach()
        from_center = self.theta - parameters_to_vector(self.prior.center)
        self.gradient = self.weights @ scores - self.prior.precision * from_center
        self.J = self.weights.sqrt()[:, None] * scores
        value = (self.weights @ log_p).item()
        if not (math.isfinite(value) and self.gradient.isfinite().all()):
            raise ValueError(f"the objective is {value}, and its gradient must be finite")
        self.height = self._height(value)
        return value + self.shift

    def move(self) -> bool:
        """Take a step uphill, the damping raised until there is one; False if nothing is left."""
        gram, along = self.J @ self.J.T, self.J @ self.gradient
        for _ in range(TRIALS):
            d = self.damping + self.prior.precision
            inner = torch.linalg.solve(gram + d * torch.eye(len(gram)).to(gram), along)
            step = (self.gradient - self.J.T @ inner) / d
            vector_to_parameters(self.theta + step, self.parameters)
            try:
                with torch.no_grad():
                    value = adjoint.mean_log_likelihood(
                        *self.settings[:2], self.weights, *self.settings[2:]
                    )
                height = self._height(value.item())
            except ValueError:
                height = -math.inf  # the step folds the line
            if height > self.height:
                self.damping = max(self.damping / LOWER, LEAST)
                return height - self.height > TOLERANCE
            self.damping *= RAISE
        vector_to_parameters(self.theta, self.parameters)
        return False

    @torch.no_grad()
    def _height(self, value: float) -> float:
        """What is climbed, at the present weights."""
        return value - float(self.prior.cost())
