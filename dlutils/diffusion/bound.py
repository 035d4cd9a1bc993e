r"""A lower bound of the log-likelihood beside the density that the same model really has.

The gap of a bound to the truth is the sum of two numbers that the bound alone cannot tell apart:
how far the model's density is from the truth, and how far the bound lies below the model's own
log-likelihood.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from dlutils.data.datasets import Dataset
from dlutils.evaluation import Comparison, compare
from dlutils.tables import plus_minus


class Bounded(Protocol):
    """A model with a log-likelihood and a bound of it, `(n,)` to `(n,)` in nats."""

    elbo: Callable[[Tensor], Tensor]
    log_likelihood: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tightness:
    """The exponential of a bound, and a model's density, each beside the true density."""

    dataset: Dataset
    model: Bounded
    bound: Comparison
    exact: Comparison

    @cached_property
    def final(self) -> float:
        """Mean of the model's log-likelihood over the test points, nats."""
        return self.model.log_likelihood(self.dataset.test).double().mean().item()

    @cached_property
    def final_bound(self) -> float:
        """Mean of the bound over them, nats."""
        return self.model.elbo(self.dataset.test).double().mean().item()

    @property
    def expected(self) -> float:
        """Mean of the true log-likelihood over them, nats."""
        return self.dataset.expected_log_likelihood if self.dataset.is_known else math.nan

    @property
    def gap(self) -> float:
        """Truth minus bound, an integral over the true density, nats; NaN if it is unknown."""
        return self.bound.kl

    @property
    def kl(self) -> float:
        """KL from the truth to the model's density, nats."""
        return self.exact.kl

    @property
    def looseness(self) -> float:
        """The model's log-likelihood minus the bound, under the true density, nats."""
        return self.gap - self.kl

    @property
    def words(self) -> str:
        """For a caption: how far density and bound are from the truth, or from each other."""
        if not self.dataset.is_known:
            return f"the bound lies {self.final - self.final_bound:.4f} nats below it"
        return f"KL {self.kl:.4f} nats, gap of the bound {self.gap:.4f} nats"

    def __str__(self) -> str:
        lines = [
            f"final ELBO               {self.final_bound:.4f}",
            f"final log-likelihood     {self.final:.4f}",
            f"mass of the model         {self.exact.mass:.4f}",
        ]
        if self.dataset.is_known:
            test = self.dataset.test
            excess = plus_minus(self.model.log_likelihood(test) - self.dataset.log_prob(test))
            lines.insert(0, f"expected log-likelihood  {self.expected:.4f}")
            lines += [
                f"final minus expected     {excess}, on the same test points",
                f"gap: truth - ELBO         {self.gap:.5f} nats, by quadrature",
                f"  KL(truth || model)      {self.kl:.5f} nats",
                f"  looseness               {self.looseness:.5f} nats: model - ELBO",
                f"largest error of density  {100 * self.exact.worst:.1f} % of the peak",
            ]
        return "\n".join(lines)


def tightness(dataset: Dataset, model: Bounded, n_nodes: int = 1001) -> Tightness:
    """Compare a model's bound and its density with the truth, by `dlutils.evaluation.compare`."""
    bound, exact = (compare(dataset, f, n_nodes) for f in (model.elbo, model.log_likelihood))
    return Tightness(dataset, model, bound, exact)


def side_by_side(
    dataset: Dataset, models: Mapping[str, Callable[[Tensor], Tensor]], n_nodes: int = 1001
) -> tuple[dict[str, Comparison], list[dict[str, str]]]:
    """Log-densities and bounds compared with a known truth, and with the first of them.

    The truth of the data is known. Models are by name, `(n,)` to `(n,)` in nats; the exponential of
    a bound has a mass below one.

    Returns:
        The comparisons by name, and a row a model: mean over the test points; minus the truth and
        minus the first model on the same points, with the standard errors of these differences;
        the integral of p (log p - log q); and that of q.
    """
    fits = {name: compare(dataset, model, n_nodes) for name, model in models.items()}
    values = {name: model(dataset.test).double() for name, model in models.items()}
    truth, (first, reference) = dataset.log_prob(dataset.test), next(iter(values.items()))
    return fits, [
        {
            "data": dataset.title,
            "model": name,
            "final": f"{log_q.mean():.4f}",
            "minus expected": plus_minus(log_q - truth),
            f"minus {first}": "–" if name == first else plus_minus(log_q - reference),
            "KL or gap": f"{fits[name].kl:.4f}",
            "mass": f"{fits[name].mass:.4f}",
        }
        for name, log_q in values.items()
    ]
