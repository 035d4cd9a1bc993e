"""The noise of the SDE's objective: the time samplers of SDE.ipynb side by side.

One model is trained on the Laplace mixture; then each sampler estimates the bound and its gradient
from many batches.
"""

import math

import torch

from benchmarks.common import Options, Tables, command, interleaved
from dlutils import diffusion
from dlutils.data.datasets import make_dataset

PACKAGES = ("torch",)
BATCH = 256


def make(options: Options) -> Tables:
    """Compare the standard deviations of the ELBO and its gradient between time samplers."""
    dataset = make_dataset("laplace_mixture")
    n_iterations, repeats, rounds = (100, 40, 10) if options.quick else (1000, 400, 50)
    fitted = diffusion.train(dataset, n_iterations=n_iterations)
    x = fitted.standardized(dataset.train).sort().values
    model, shift = fitted.model, math.log(fitted.units.scale)
    weights = [p for p in model.parameters() if p.requires_grad]

    def batches(sampler: str, repeats: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Objective (nats) and gradient in the weights of so many batches, as in training."""
        random, values, gradients = torch.Generator().manual_seed(0), [], []
        for _ in range(repeats):
            draw = diffusion.T_SAMPLERS[sampler](model.path, BATCH, random)
            points = x[(draw.v * len(x)).long().clamp(max=len(x) - 1)]
            value = diffusion.sampled_elbo(model, points, draw).mean() - shift
            found = torch.autograd.grad(value, weights, allow_unused=True)
            gradients.append(torch.cat([g.flatten() for g in found if g is not None]))
            values.append(value.detach())
        return torch.stack(values), torch.stack(gradients)

    names = [name for name in diffusion.T_SAMPLERS if name != "frozen"]
    once = {name: lambda name=name: batches(name, 1) for name in names}
    times = interleaved(once, rounds, label="samplers")
    rows = []
    for name in names:
        values, gradients = batches(name, repeats)
        rows.append(
            {
                "sampler": name,
                "sd of objective": values.std(correction=0).item(),
                "sd of gradient": gradients.var(0, correction=0).sum().sqrt().item(),
                "ms a step": times[name]["ms"],
            }
        )
    return {f"Batch {BATCH}": rows}


if __name__ == "__main__":
    raise SystemExit(command(make, PACKAGES, "a model trained less, few batches"))
