"""One training loop for both notebooks: progress, validation, interruption, non-finite values."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from dlutils.datasets import compress
from dlutils.memory import keep_freed_memory


@dataclass
class History:
    """What a training run recorded.

    Attributes:
        train: Mean training log-likelihood (or bound) before each update, nats.
        val_iteration: Iterations at which the model was validated.
        val: Mean validation log-likelihood (or bound) at those iterations, nats.
        seconds: Wall-clock time of the run, validation included.
        stopped: Why the run ended before its last iteration, or None.
    """

    train: list[float] = field(default_factory=list)
    val_iteration: list[int] = field(default_factory=list)
    val: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None

    def iterations_to(self, target: float) -> int | None:
        """The first validated iteration at which `target` is reached; None if it never is."""
        validated = zip(self.val_iteration, self.val, strict=True)
        return next((k for k, value in validated if value >= target), None)


def iterations_table(
    histories: Mapping[str, History], best: float, distances: Sequence[float]
) -> list[dict[str, object]]:
    """How many iterations each run needed to come close to the best value, and how long that took.

    Args:
        histories: By the model's name.
        best: What the validation points can reach: their truth, nats.
        distances: From it, nats, largest first.

    Returns:
        A row a model: iterations to each distance, milliseconds for each and seconds in all, which
        contain the validations.
    """
    rows = []
    for name, history in histories.items():
        needed = {d: history.iterations_to(best - d) for d in distances}
        each = history.seconds / len(history.train)
        row = {"model": name}
        row |= {f"to {d:g} nats": k if k is not None else "–" for d, k in needed.items()}
        row |= {"ms each": f"{1e3 * each:.1f}"}
        row |= {
            f"seconds to {d:g}": "–" if k is None else f"{each * k:.2f}" for d, k in needed.items()
        }
        rows.append(row)
    return rows


def fit(
    model: nn.Module,
    objective: Callable[[], Tensor],
    validate: Callable[[], float],
    *,
    log_prior: Callable[[], Tensor] | None = None,
    n_iterations: int = 300,
    learning_rate: float = 0.02,
    validate_every: int = 25,
    label: str = "train",
    quantity: str = "log-likelihood",
    progress: bool = True,
    callback: Callable[[nn.Module, History], None] | None = None,
) -> History:
    """Maximise an objective over a model's weights with Adam: warm-up, then a cosine.

    Kernel → Interrupt, a non-finite value or gradient, and an invalid likelihood (`ValueError`
    from the objective) end the run with a message; the model then keeps the last weights at which
    the objective and its gradient were finite, and the history so far is returned. A run in which
    not even the first value was valid raises, because there is nothing to keep.

    Args:
        model: Its parameters are trained in place.
        objective: Returns the mean log-likelihood or bound, a scalar with a gradient, in nats.
        validate: Returns the same on the validation set, without a gradient.
        log_prior: Added to the objective when it is climbed, and not recorded: the logarithm of
            a prior on the weights, per point.
        n_iterations: Number of updates, at least 1.
        learning_rate: Its peak, positive: reached after a fifth of the run, zero at the end.
        validate_every: Iterations between two validations, at least 1.
        label: Text in front of the progress bar.
        quantity: Name of the objective's value behind the bar.
        progress: Whether to show the bar.
        callback: Called with the model and the history so far after each validation.

    Raises:
        ValueError: If a setting is out of range or the first value is not valid.

    Source:
        Kingma & Ba, Adam (2015); Loshchilov & Hutter, SGDR (2017), eq. 5, without restarts.
    """
    for name, value in (("n_iterations", n_iterations), ("validate_every", validate_every)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")
    if not (learning_rate > 0 and learning_rate < float("inf")):
        raise ValueError(f"learning_rate must be positive, not {learning_rate!r}")

    keep_freed_memory()
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.99))
    schedule = LambdaLR(optimizer, lambda iteration: _warm_up_and_cosine(iteration, n_iterations))
    history = History()
    good = None  # the last weights at which objective and gradient were finite
    start = time.perf_counter()
    bar = tqdm(
        total=n_iterations,
        desc=label,
        disable=not progress,
        file=sys.stdout,
        ncols=100,
        mininterval=0.5,
    )
    try:
        for iteration in range(n_iterations):
            optimizer.zero_grad()
            value = objective()
            (-value if log_prior is None else -value - log_prior()).backward()
            _require_finite(value, parameters)
            good = [parameter.detach().clone() for parameter in parameters]
            history.train.append(value.item())
            if iteration % validate_every == 0:
                _validate(history, validate, iteration)
                if callback is not None:
                    callback(model, history)
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix_str(f"{quantity} {history.train[-1]:.4f}", refresh=False)
        _validate(history, validate, n_iterations)
        if callback is not None:
            callback(model, history)
    except KeyboardInterrupt:
        history.stopped = f"interrupted at iteration {len(history.train)}"
    except ValueError as error:
        history.stopped = f"stopped at iteration {len(history.train)}: {error}"
        if good is None:
            raise
    finally:
        bar.close()
        history.seconds = time.perf_counter() - start
    if history.stopped and good is not None:
        with torch.no_grad():
            for parameter, kept in zip(parameters, good, strict=True):
                parameter.copy_(kept)
    if history.stopped:
        print(f"{label}: {history.stopped}; the last good weights are kept")
    return history


def data_source(
    y: Tensor, n_bins: int, batch_size: int | None = None, seed: int = 0, device: str = "cpu"
) -> Callable[[], tuple[Tensor, Tensor | None]]:
    """A function that returns points and weights: all of y, compressed if long, or a minibatch.

    Args:
        y: Data, shape `(n,)`.
        n_bins: See `dlutils.datasets.compress`.
        batch_size: Random points a call, instead of all.
        seed: Names the minibatches.
        device: Where the points are to be.

    Raises:
        ValueError: If `batch_size` is not an integer of at least 1, or None.
    """
    y = y.to(torch.get_default_dtype())
    if batch_size is None:
        data = compress(y, n_bins) if len(y) > 2 * n_bins else (y, torch.ones_like(y))
        nodes, weights = (values.to(device, y.dtype) for values in data)
        return lambda: (nodes, weights)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(
            f"batch_size must be an integer of at least 1, or None, not {batch_size!r}"
        )
    random, y = torch.Generator().manual_seed(seed), y.to(device)
    return lambda: (y[torch.randint(len(y), (batch_size,), generator=random)], None)


def check_device(device: str) -> None:
    """Raise a `ValueError` with the choices, if nothing can be computed there."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        usable = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        raise ValueError(
            f"cannot compute on the device {device!r}; choose from {', '.join(usable)}"
        ) from error


def _warm_up_and_cosine(iteration: int, n_iterations: int) -> float:
    """Factor of the peak learning rate."""
    warm_up = max(1, n_iterations // 5)
    if iteration < warm_up:
        return (iteration + 1) / warm_up
    done = (iteration - warm_up) / max(1, n_iterations - warm_up)
    return 0.5 * (1 + math.cos(math.pi * done))


def _require_finite(value: Tensor, parameters: list[Tensor]) -> None:
    if not value.isfinite():
        raise ValueError(f"the objective became {value.item()}; try a smaller learning_rate")
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not all(gradient.isfinite().all() for gradient in gradients):
        raise ValueError("the gradient is not finite; try a smaller learning_rate")


@torch.no_grad()
def _validate(history: History, validate: Callable[[], float], iteration: int) -> None:
    history.val.append(validate())
    history.val_iteration.append(iteration)
