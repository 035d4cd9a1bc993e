"""The noise of the SDE's objective: the time samplers of SDE.ipynb side by side.

One model is trained on the Laplace mixture; then each sampler estimates the bound and its gradient
from many batches. `python -m benchmarks.variance --help` lists the options.
"""

import argparse
import math
import sys

import numpy as np
import torch

from benchmarks.common import Row, Tables, command, interleaved
from benchmarks.estimators import notebook
from dlutils.data.datasets import make_dataset

PACKAGES = ("torch",)


def batches(fitted, x, name: str, batch: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Objective (nats) and gradient in the weights of so many batches, as in training."""
    sde, random = notebook("SDE.ipynb"), torch.Generator().manual_seed(0)
    weights = [p for p in fitted.model.parameters() if p.requires_grad]
    values, gradients = [], []
    for _ in range(repeats):
        draw = sde.T_SAMPLERS[name](fitted.model.path, batch, random)
        points = x[(draw.v * len(x)).long().clamp(max=len(x) - 1)]
        value = sde.sampled_elbo(fitted.model, points, draw).mean() - math.log(fitted.units.scale)
        found = torch.autograd.grad(value, weights, allow_unused=True)
        gradients.append(torch.cat([g.flatten() for g in found if g is not None]).numpy())
        values.append(value.item())
    return np.array(values), np.array(gradients)


def make(options: argparse.Namespace) -> tuple[list[str], Tables]:
    """Notes and tables."""
    sde, dataset = notebook("SDE.ipynb"), make_dataset("laplace_mixture")
    n_iterations, repeats = (100, 40) if options.quick else (1000, 400)
    fitted = sde.train(dataset, n_iterations=n_iterations)
    x = fitted.standardized(dataset.train).sort().values
    nodes, weights = dataset.compress(64)
    exact = np.average(fitted.elbo(nodes), weights=weights)
    names = [name for name in sde.T_SAMPLERS if name != "frozen"]
    tables: Tables = {}
    for batch in (256,) if options.quick else (64, 256, 1024):
        run = {n: lambda n=n, b=batch: batches(fitted, x, n, b, 1) for n in names}
        times = interleaved(run, 10 if options.quick else 50, label=f"batch {batch}")
        rows: list[Row] = []
        for name in names:
            values, gradients = batches(fitted, x, name, batch, repeats)
            rows.append(
                {
                    "sampler": name,
                    "minus quadrature": float(values.mean() - exact),
                    "standard error": float(values.std() / repeats**0.5),
                    "sd of objective": float(values.std()),
                    "sd of gradient": float(np.sqrt(gradients.var(0).sum())),
                    "ms a step": times[name].ms,
                }
            )
        worst = rows[0]
        for row in rows:
            ratio = row["sd of gradient"] / worst["sd of gradient"]
            row["batch for the gradient's sd of iid"] = round(batch * ratio**2, 1)
        tables[f"Batch {batch}"] = rows
    note = (
        f"Laplace mixture, default model after {n_iterations} iterations; bound by quadrature "
        f"{exact:.4f} nats; {repeats} batches each. The sd of the gradient is the root of the sum "
        "of the variances of its components. The last column is the batch with which the sampler "
        "would have the sd that iid has with the whole batch, if variances fell like 1/batch."
    )
    return [note], tables


def main(arguments: list[str] | None = None) -> int:
    """Compare the standard deviations of the ELBO and its gradient between time samplers."""
    quick = "a model trained less, one batch size, few batches"
    return command("variance", main.__doc__, quick, PACKAGES, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
