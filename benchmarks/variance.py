"""The noise of the SDE's objective: the time samplers of SDE.ipynb side by side.

One model is trained on the Laplace mixture; then each sampler estimates the bound and its gradient
from many batches.
"""

import argparse
import math
import sys

import numpy as np
import torch

from benchmarks.common import Tables, command, interleaved
from benchmarks.estimators import notebook
from dlutils.data.datasets import make_dataset

PACKAGES = ("torch",)
BATCH = 256


def batches(fitted, x, name: str, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Objective (nats) and gradient in the weights of so many batches, as in training."""
    sde, random = notebook("SDE.ipynb"), torch.Generator().manual_seed(0)
    weights = [p for p in fitted.model.parameters() if p.requires_grad]
    values, gradients = [], []
    for _ in range(repeats):
        draw = sde.T_SAMPLERS[name](fitted.model.path, BATCH, random)
        points = x[(draw.v * len(x)).long().clamp(max=len(x) - 1)]
        value = sde.sampled_elbo(fitted.model, points, draw).mean() - math.log(fitted.units.scale)
        found = torch.autograd.grad(value, weights, allow_unused=True)
        gradients.append(torch.cat([g.flatten() for g in found if g is not None]).numpy())
        values.append(value.item())
    return np.array(values), np.array(gradients)


def make(options: argparse.Namespace) -> Tables:
    """Compare the standard deviations of the ELBO and its gradient between time samplers."""
    sde, dataset = notebook("SDE.ipynb"), make_dataset("laplace_mixture")
    n_iterations, repeats = (100, 40) if options.quick else (1000, 400)
    fitted = sde.train(dataset, n_iterations=n_iterations)
    x = fitted.standardized(dataset.train).sort().values
    names = [name for name in sde.T_SAMPLERS if name != "frozen"]
    run = {name: lambda name=name: batches(fitted, x, name, 1) for name in names}
    times = interleaved(run, 10 if options.quick else 50, label="samplers")
    rows = []
    for name in names:
        values, gradients = batches(fitted, x, name, repeats)
        rows.append(
            {
                "sampler": name,
                "sd of objective": float(values.std()),
                "sd of gradient": float(np.sqrt(gradients.var(0).sum())),
                "ms a step": times[name]["ms"],
            }
        )
    return {f"Batch {BATCH}": rows}


if __name__ == "__main__":
    sys.exit(command(make, PACKAGES, "a model trained less, few batches"))
