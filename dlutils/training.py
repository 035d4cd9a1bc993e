"""Training with every option, and what a loop of one's own needs: bar, validation, interruption."""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from dlutils.compression import compress
from dlutils.data.own_data import evenly
from dlutils.processes import few_threads, keep_freed_memory
from dlutils.settings import check_batch, check_choice, check_count, check_flag

Model = TypeVar("Model")
ASTRAY = 0.01  # nats
OPTIMIZERS = ("adam", "natural")


@dataclass
class History:
    """What a training run recorded.

    Attributes:
        train: Mean training log-likelihood (or bound) before each update, nats.
        val_iteration: Iterations at which the model was validated.
        val: Mean validation log-likelihood (or bound) at those iterations, nats.
        seconds: Wall-clock time of the run, validation included.
        stopped: Why the run ended before its last iteration, or None.
        kept: The iteration whose weights were kept, or None for the last ones.
    """

    train: list[float] = field(default_factory=list)
    val_iteration: list[int] = field(default_factory=list)
    val: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None
    kept: int | None = None


class Prior:
    """A Gaussian prior on weights: minus its logarithm, but for a constant.

    Args:
        parameters: The weights.
        precision: Of the prior, per point.
        around_start: Whether it is around the weights as they are now, and not around zero.
    """

    def __init__(self, parameters: Sequence[Tensor], precision: float, around_start: bool = False):
        self.parameters, self.precision = parameters, precision
        self.center = [around_start * p.detach().clone() for p in parameters]

    def cost(self) -> Tensor | float:
        """A scalar with a gradient, nats a point."""
        if not self.precision:
            return 0.0
        pairs = zip(self.parameters, self.center, strict=True)
        return self.precision / 2 * sum((p - c).square().sum() for p, c in pairs)


class Climber(Protocol):
    """One way to climb: Adam, or `dlutils.flows.natural.NaturalGradient`."""

    def look(self) -> float:
        """The objective, and what the next step needs; a `ValueError` if they are not finite."""

    def move(self) -> bool:
        """Change the weights; False if nothing more is to be gained."""


@few_threads
def fit(
    model: nn.Module,
    objective: Callable[[], Tensor],
    validate: Callable[[], float],
    *,
    precision: float = 0.0,
    around_start: bool = False,
    climber: Climber | None = None,
    judge: Callable[[], float] | None = None,
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
    from the objective) end the run with a message, and the history so far is returned. The model
    then keeps the last weights at which the objective and its gradient were finite, or those of
    the best validation where the last one was worse. A run in which not even the first value was
    valid raises, because there is nothing to keep.

    Args:
        model: Its parameters are trained in place.
        objective: Returns the mean log-likelihood or bound, a scalar with a gradient, in nats.
        validate: Returns the same on the validation set, without a gradient.
        precision: Of a Gaussian prior on the weights, per point: minus half of it times their
            squared norm is added to the objective when it is climbed, and not recorded.
        around_start: Whether the prior is around the weights as they come, and not around zero.
        climber: Takes the steps instead of Adam, and has an objective and a prior of its own.
        judge: Where what is climbed is only nominal, the true value, nats.
            A run that ends more than `ASTRAY` below its best keeps the weights of that.
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
    check_count("n_iterations", n_iterations)
    check_count("validate_every", validate_every)
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be positive, not {learning_rate!r}")

    keep_freed_memory()
    parameters = list(model.parameters())
    if not any(p.requires_grad for p in parameters):
        check_gradient([])
    if climber is None:
        prior = Prior(parameters, precision, around_start)
        climber = _Adam(parameters, objective, prior, learning_rate, n_iterations)
    history = History()
    copy = lambda: torch.cat([p.detach().flatten() for p in parameters])  # one, not one a tensor
    good = best = None  # the last weights that were sound; value, iteration, weights of the best
    judged = -math.inf

    def check(iteration: int) -> None:
        nonlocal best, judged
        with torch.no_grad():
            value = validate()
            judged = value if judge is None else judge()
            judged = -math.inf if math.isnan(judged) else judged
        history.val.append(value)
        history.val_iteration.append(iteration)
        if best is None or judged >= best[0]:
            best = judged, iteration, copy()
        if callback is not None:
            callback(model, history)

    start = time.perf_counter()
    bar = progress_bar(n_iterations, label, progress)
    try:
        for iteration in range(n_iterations):
            value = climber.look()
            good = copy()
            history.train.append(value)
            if iteration % validate_every == 0:
                check(iteration)
            going_on = climber.move()
            bar.update()
            bar.set_postfix_str(f"{quantity} {value:.4f}", refresh=False)
            if not going_on:
                break
        check(len(history.train))
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
        vector_to_parameters(good, parameters)
    margin = 0 if history.stopped else math.inf if judge is None else ASTRAY
    kept = "the last good weights"
    if best is not None and best[0] - judged > margin:
        history.kept, kept = best[1], f"the weights of iteration {best[1]}, the best,"
        vector_to_parameters(best[2], parameters)
    if history.stopped or history.kept is not None:
        print(f"{label}: {history.stopped or 'went astray'}; {kept} are kept")
    return history


def watched(
    history: History,
    n_iterations: int,
    validate: Callable[[], float],
    validate_every: int = 25,
    label: str = "train",
    quantity: str = "log-likelihood",
) -> Iterator[int]:
    """Count the iterations of a training loop: a bar, validation, interruption without loss.

    `for k in watched(history, n_iterations, validate):` the loop appends the value of each
    iteration to `history.train`. Kernel → Interrupt lets the iteration that runs come to its end,
    validates, and ends the loop; a second one stops at once.

    Args:
        history: Is filled with validated values and the time taken.
        n_iterations: At least 1.
        validate: Returns the objective on the validation set, without a gradient.
        validate_every: Iterations between two validations.
        label: Text in front of the bar.
        quantity: Name of the objective's value behind it.

    Raises:
        ValueError: If a number is out of range.
    """
    check_count("n_iterations", n_iterations)
    check_count("validate_every", validate_every)
    interrupted = threading.Event()

    def check(iteration: int) -> None:
        with torch.no_grad():
            history.val.append(float(validate()))
        history.val_iteration.append(iteration)

    def interrupt(*_: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, interrupt) if in_main else None
    start, bar = time.perf_counter(), progress_bar(n_iterations, label)
    try:
        for iteration in range(n_iterations):
            if iteration % validate_every == 0:
                check(iteration)
            yield iteration
            bar.update()
            bar.set_postfix_str(f"{quantity} {history.train[-1]:.4f}", refresh=False)
            if interrupted.is_set():
                history.stopped = f"interrupted at iteration {iteration + 1}"
                break
        check(iteration + 1)
    finally:
        bar.close()
        history.seconds = time.perf_counter() - start
        if in_main:
            signal.signal(signal.SIGINT, before)
        if history.stopped:
            print(f"{label}: {history.stopped}")


def progress_bar(total: int, label: str, progress: bool = True) -> tqdm:
    """The bar of a training loop."""
    check_flag("progress", progress)
    how = {"file": sys.stdout, "ncols": 100, "mininterval": 0.5}
    return tqdm(total=total, desc=label, disable=not progress, **how)


class _Adam:
    """Adam as `fit` uses it: look at the objective and its gradient, then move."""

    def __init__(self, parameters, objective, prior, learning_rate, n_iterations):
        self.parameters, self.objective, self.prior = parameters, objective, prior
        self.is_first = True
        self.optimizer = torch.optim.Adam(
            parameters,
            lr=learning_rate,
            betas=(0.9, 0.99),
            fused=True,  # one call for all tensors: they are small, and a call is what costs
        )
        factor = lambda iteration: warm_up_and_cosine(iteration, n_iterations)
        self.schedule = LambdaLR(self.optimizer, factor)

    @torch.enable_grad()
    def look(self) -> float:
        self.optimizer.zero_grad()
        value = self.objective()
        if value.requires_grad:
            (-value).backward()
        if self.is_first:
            check_gradient(p.grad for p in self.parameters)
            self.is_first = False
        if self.prior.precision:
            self.prior.cost().backward()
        _require_finite(value, self.parameters)
        return value.item()

    def move(self) -> bool:
        self.optimizer.step()
        self.schedule.step()
        return True


def on_samples(
    fit_to: Callable[..., Model], samples: Sequence[object], seeds: Sequence[int], label: str
) -> list[Model]:
    """What `fit_to(sample, seed=seed)` returns for each sample and seed, with a progress bar."""
    runs = list(zip(samples, seeds, strict=True))
    bar = tqdm(runs, label, file=sys.stdout, ncols=100)
    return [fit_to(sample, seed=seed) for sample, seed in bar]


class DataSource:
    """Points and weights for an objective, a call: all of y, compressed if long, or a minibatch.

    Args:
        y: Data, shape `(n,)`.
        n_bins: See `dlutils.compression.compress`.
        batch_size: Random points a call, instead of all.
        seed: Names the minibatches.
        device: Where the points are to be.
        weights: What the points count, shape `(n,)`; None for one each.

    Attributes:
        nodes: All of y, compressed if long, and weights.

    Raises:
        ValueError: If `batch_size` is not None and out of range.
    """

    def __init__(
        self,
        y: Tensor,
        n_bins: int,
        batch_size: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        weights: Tensor | None = None,
    ):
        counts = torch.ones_like(y) if weights is None else weights
        nodes = compress(y, n_bins, weights) if len(y) > 2 * n_bins else (y, counts)
        self.nodes = tuple(values.to(device, y.dtype) for values in nodes)
        self.batch_size = batch_size
        if batch_size is not None:
            check_batch(batch_size)
            self.random = torch.Generator().manual_seed(int(seed))
            self.y = evenly(y, weights).to(device)

    def __call__(self) -> tuple[Tensor, Tensor | None]:
        """Points and their weights; None for equal ones."""
        if self.batch_size is None:
            return self.nodes
        chosen = torch.randint(len(self.y), (self.batch_size,), generator=self.random)
        return self.y[chosen], None


def check_run(
    optimizer: str,
    batch_size: int | None = None,
    prior_precision: float | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> None:
    """Raise a `ValueError` that names the value and the choices, before anything is trained."""
    check_choice("optimizer", optimizer, OPTIMIZERS)
    if optimizer == "natural" and batch_size is not None:
        raise ValueError(
            f"the natural gradient takes the scores of all points, not batch_size = {batch_size!r}"
        )
    check_device(device, dtype)
    if prior_precision is not None and not 0 <= prior_precision < math.inf:
        raise ValueError(f"prior_precision must be finite, not negative, not {prior_precision!r}")


def check_device(device: str, dtype: torch.dtype = torch.float64) -> None:
    """Raise a `ValueError` with the choices, if nothing of this type can be computed there."""
    try:
        torch.zeros(1, device=device, dtype=dtype)
    except TypeError as error:
        raise ValueError(
            f"the device {device!r} cannot compute in {dtype}; give it the data as "
            "dataset.to(torch.float32)"
        ) from error
    except (RuntimeError, AssertionError) as error:
        usable = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        raise ValueError(
            f"cannot compute on the device {device!r}; choose from {', '.join(usable)}"
        ) from error


def check_gradient(gradients: Iterable[Tensor | None]) -> None:
    """Raise a `ValueError`, if there is no gradient at the start: nothing would be learned."""
    if not any(g is not None and g.any() for g in gradients):
        raise ValueError(
            "the objective must have a gradient in the weights, but none of them has one that is "
            "not zero: detach(), .data, .item(), no_grad() or requires_grad = False hides them"
        )


def warm_up_and_cosine(iteration: int, n_iterations: int) -> float:
    """Factor of the peak learning rate: one after a fifth of the run, zero at its end."""
    warm_up = max(1, n_iterations // 5)
    if iteration < warm_up:
        return (iteration + 1) / warm_up
    done = (iteration - warm_up) / max(1, n_iterations - warm_up)
    return 0.5 * (1 + math.cos(math.pi * done))


def _require_finite(value: Tensor, parameters: list[Tensor]) -> None:
    if not value.isfinite():
        raise ValueError(f"the objective became {value.item()}; try a smaller learning_rate")
    gradients = [p.grad.flatten() for p in parameters if p.grad is not None]
    if gradients and not torch.cat(gradients).isfinite().all():
        raise ValueError("the gradient is not finite; try a smaller learning_rate")
