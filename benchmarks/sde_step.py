"""One training step of the SDE: our simulation-free bound against a simulated one by torchsde.

Both have the same path, noise, drift net, weights and points, in single precision. torchsde
simulates the posterior SDE in T steps with the ratio of path densities (`logqp`) and backpropagates
through them, which is how a latent SDE is trained.
"""

import contextlib
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import psutil
import torch
from torch import Tensor, nn

from benchmarks.common import Options, Row, Tables, command, interleaved
from dlutils import diffusion
from dlutils.data.datasets import make_dataset
from dlutils.processes import fresh_processes
from dlutils.seeding import seeded
from dlutils.tools.complexity import peak_memory

with contextlib.suppress(ImportError):  # `command` says so
    import torchsde

PACKAGES = ("torch", "torchsde")
OURS = "simulation-free"
WAYS = {OURS: None, "torchsde sdeint": "sdeint", "torchsde sdeint_adjoint": "sdeint_adjoint"}


class Posterior(nn.Module):
    """The variational SDE for each data point, with the model's drift as its prior's."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, model: nn.Module, y: Tensor):
        super().__init__()
        self.model, self.y = model, y

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        """Drift of the posterior, f_q, (n, 1)."""
        x, t = x[:, 0], t.expand(len(x))
        drift = diffusion.variational_drift
        return drift(self.model.path, self.y, x, t, *self.model.noise(x, t))[:, None]

    def h(self, t: Tensor, x: Tensor) -> Tensor:
        """Drift of the prior, the model's f, (n, 1)."""
        return self.model.f(x[:, 0], t.expand(len(x)))[:, None]

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        """Diffusion coefficient of both, (n, 1)."""
        return self.model.sigma(x[:, 0], t.expand(len(x)))[:, None]


def step(n_steps: int, name: str, n: int = 256) -> Callable[[], float]:
    """A function that makes one step, value and gradient, and returns the mean bound in nats."""
    y = make_dataset("laplace_mixture").to(torch.float32).train[:n]
    with seeded(0, dtype=y.dtype):
        model = diffusion.build_sde("linear", "optimal", "preconditioned")
    y = ((y - y.mean()) / y.std()).sort().values
    weights = [p for p in model.parameters() if p.requires_grad]
    random = torch.Generator().manual_seed(0)

    def simulation_free() -> Tensor:
        draw = diffusion.lattice(model.path, n, random)
        return diffusion.sampled_elbo(model, y[(draw.v * n).long().clamp(max=n - 1)], draw).mean()

    def simulated() -> Tensor:
        alpha, beta = model.path(y, torch.zeros_like(y))
        x_0 = (alpha + beta * torch.randn(n))[:, None]
        ends, dt = torch.tensor([0.0, 1.0]), 1 / n_steps
        noise = torchsde.BrownianInterval(0.0, 1.0, size=(n, 2), dt=dt)  # sooner when it knows dt
        solve, options = getattr(torchsde, WAYS[name]), {"method": "euler", "dt": dt}
        x, log_ratio = solve(Posterior(model, y), x_0, ends, noise, logqp=True, **options)
        misfit = (y - x[-1, :, 0]) ** 2 / (2 * model.sigma_y**2)
        top = -math.log(model.sigma_y) - 0.5 * math.log(2 * math.pi)
        return (top - misfit - diffusion.prior_kl(model, y) - log_ratio[-1]).mean()

    def run() -> float:
        value = simulation_free() if name == OURS else simulated()
        torch.autograd.grad(value, weights, allow_unused=True)
        return value.item()

    return run


def megabytes(n_steps: int, name: str) -> float:
    """The peak of a step's memory above what the process held before."""
    step(10, name, 2)()  # loads what is loaded at first use
    run, before = step(n_steps, name), psutil.Process().memory_info().rss
    return (peak_memory(run) - before) / 1e6


def make(options: Options) -> Tables:
    """Time one simulation-free step of the SDE against simulated ones by torchsde."""
    rows: list[Row] = []
    for n_steps in (10,) if options.quick else (10, 30, 100, 300, 1000):
        run = {name: step(n_steps, name) for name in WAYS}
        rounds = 2 if options.quick or n_steps >= 100 else 10
        times = interleaved(run, rounds, 1, label=f"T = {n_steps}")
        context = fresh_processes([megabytes.__module__])
        with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
            memory = list(pool.map(partial(megabytes, n_steps), WAYS))
        for name, mb in zip(WAYS, memory, strict=True):
            row: Row = {"T": n_steps, "contender": name} | times[name]
            row |= {"ratio to ours": row["ms"] / times[OURS]["ms"], "MB": mb}
            rows.append(row | {"bound": sum(run[name]() for _ in range(4)) / 4})
    return {"One step": rows}


if __name__ == "__main__":
    raise SystemExit(command(make, PACKAGES, "T = 10 alone"))
