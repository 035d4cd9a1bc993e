r"""Which of its random inputs makes a function fluctuate: Sobol's decomposition of a variance.

For independent inputs a function is in one way a sum of functions $f_S$ of the subsets S of its
inputs, each of mean zero in every input that it has,
$$f_S=\prod_{i\in S}(1-E_i)\prod_{i\notin S}E_i\,f,$$
where $E_i$ is the mean over input i. They are orthogonal, so the variance is the sum of the parts
$D_S=E\,f_S^2$: what single inputs do alone, and what pairs, triples, ... do only together. Unlike a
nested split of the variance it does not depend on the order of the inputs.
"""

import math
from collections.abc import Sequence
from functools import reduce
from itertools import chain, combinations

from torch import Tensor

Parts = dict[tuple[str, ...], float]

SLACK = 1e-3  # by which probabilities from a quadrature may miss the sum of one


def variance_parts(values: Tensor, weights: Sequence[Tensor], names: Sequence[str]) -> Parts:
    """Sobol's parts of the variance of a function on a product grid, in its units squared.

    Args:
        values: The function f, shape `(n_1, ..., n_k)`.
        weights: For each input the probabilities of its grid points, shape `(n_i,)`; their sum is
            one up to the error of a quadrature, which is divided out.
        names: For each input its name.

    Returns:
        For every non-empty subset of the names, in the given order, its part. No part is negative,
        and their sum is the variance.

    Source:
        Sobol', Sensitivity estimates for nonlinear mathematical models (1993); Saltelli et al.,
        Variance based sensitivity analysis of model output (2010).
    """
    assert values.shape == tuple(map(len, weights)), "a weight for each point of the grid"
    assert len(set(names)) == len(names) == len(weights), "a name for each input, all different"
    assert values.isfinite().all(), "values must be finite"
    for w in weights:
        proper = (w >= 0).all() and abs(w.double().sum() - 1) < SLACK
        assert proper, "weights must be probabilities"
    probabilities = [w.double() / w.double().sum() for w in weights]
    along = [p.view(-1, *[1] * (len(names) - 1 - axis)) for axis, p in enumerate(probabilities)]
    mean = lambda values, axis: (values * along[axis]).sum(axis, keepdim=True)
    axes, parts = range(len(names)), {}
    for subset in chain.from_iterable(combinations(axes, size + 1) for size in axes):
        component = values.double()
        for axis in axes:
            average = mean(component, axis)
            component = component - average if axis in subset else average
        part = reduce(mean, axes, component.square())
        parts[tuple(names[axis] for axis in subset)] = part.item()
    return parts


def total(parts: Parts, name: str) -> float:
    """The total effect of an input, the sum of all parts that it has a share in.

    That is the variance which would be gone if this input alone did not vary: E Var(f | others).

    Source:
        Homma & Saltelli, Importance measures in global sensitivity analysis of nonlinear models
        (1996).
    """
    assert (name,) in parts, f"there is no input {name!r}"
    return math.fsum(part for subset, part in parts.items() if name in subset)
