r"""The ordinary differential equation that has the marginals of an SDE: its probability flow.

On a path $x_t=a\,y+\beta\,\epsilon$ a prediction $\hat y(x,t)$ of the data point is a score,
$s=(a\,\hat y-x)/\beta^2$, and without noise the same prediction makes the flow
$$\frac{dx}{dt}=\dot a\,\hat y+\dot\beta\,\frac{x-a\,\hat y}\beta .$$
As far as s is the score of the marginals, the flow and the SDEs of any noise have the same ones;
for a prediction that was trained, flow and SDE differ.

Source:
    Song et al., Score-based generative modeling through stochastic differential equations (2021),
    eq. 13; Lu et al., Maximum likelihood training for score-based diffusion ODEs (2022), for the
    difference.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from dlutils.checks import check_drift
from dlutils.diffusion.denoising import Path
from dlutils.settings import check_count

Marginals = tuple[np.ndarray, np.ndarray, np.ndarray]


class ProbabilityFlow:
    """The flow of a prediction, on the clock u of its path, by the classical Runge-Kutta method.

    The prediction y_hat is called with states and times, `(n,)` each; the steps are equal on the
    clock, from 0 to 1.

    Raises:
        ValueError: If `n_steps` is out of range, or the slope of the prediction, of which the
            density is made, is not what autograd says (`dlutils.checks.check_drift`).
    """

    def __init__(
        self, path: Path, y_hat: Callable[[Tensor, Tensor], Tensor], n_steps: int = 200
    ) -> None:
        check_count("n_steps", n_steps)
        check_drift(y_hat, scalar_time=False)
        self.path, self.y_hat, self.n_steps = path, y_hat, n_steps

    def velocity(self, x: Tensor, u: float) -> Tensor:
        """dx/du, `(n,)`."""
        t = self.path.time(torch.full_like(x, u)).clamp(0, 1)
        a, beta, a_dot, beta_dot = self.path.schedule(t)
        y = self.y_hat(x, t)
        return (a_dot * y + beta_dot * (x - a * y) / beta) * self.path.time_rate(t)

    def paths(self, x: Tensor) -> Tensor:
        """The states at all steps of the clock, `(n_steps + 1, n)`, from those at u = 0, `(n,)`."""
        states, h = [x], 1 / self.n_steps
        with torch.no_grad():
            for k in range(self.n_steps):
                states.append(self._step(states[-1], k * h, h))
        return torch.stack(states)

    def log_density(
        self, x: Tensor, since: float = 0.0, marginals: Marginals | None = None
    ) -> Tensor:
        """Log-density of the state at u = 1, nats: the map of the steps back, differentiated.

        Args:
            x: States, `(n,)`.
            since: Where the flow begins on the clock, from 0 to 1.
            marginals: Times at equal steps of the clock, states `(m,)` and the density of the state
                `(k, m)`, as `fokker_planck.Evolution.marginals`: that at `since` is what the flow
                begins with. None for N(0, 1).

        Raises:
            ValueError: If `since` is out of range, or a step folds the line.
        """
        if not 0 <= since < 1:
            raise ValueError(f"since must be at least 0 and below 1, not {since!r}")
        n_steps = max(1, round((1 - since) * self.n_steps))
        h, log_det = (since - 1) / n_steps, torch.zeros_like(x)
        for k in range(n_steps):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                after = self._step(x, 1 + k * h, h)
                (stretch,) = torch.autograd.grad(after.sum(), x)
            if not (stretch > 0).all():
                raise ValueError(f"a step of the flow folds the line: raise n_steps = {n_steps}")
            x, log_det = after.detach(), log_det + stretch.log()
        if marginals is None:
            return Normal(0.0, 1.0).log_prob(x) + log_det
        times, states, density = marginals
        log_p = np.log(density[round(since * (len(times) - 1))] + np.finfo(float).tiny)
        return torch.from_numpy(np.interp(x.double(), states, log_p)) + log_det

    def _step(self, x: Tensor, u: float, h: float) -> Tensor:
        first = self.velocity(x, u)
        second = self.velocity(x + h / 2 * first, u + h / 2)
        third = self.velocity(x + h / 2 * second, u + h / 2)
        fourth = self.velocity(x + h * third, u + h)
        return x + h / 6 * (first + 2 * second + 2 * third + fourth)
