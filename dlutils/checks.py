r"""What a part of one's own must be, asked when it is first used: errors that name what is wrong.

A drift, a path, a diffusion coefficient or a sampler of times that is wrong rarely fails; it gives
a wrong number. Each check calls the part at a few points, costs milliseconds, and compares what
belongs together: points alone and in company, rates and central differences, the clock and its
inverse. Nets are checked in double precision on a copy whose weights were moved at random, since a
net that starts as zero hides what it does. (For methods: `dlutils.flows.methods.check_tableau`.)
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

STEP = 1e-5  # of central differences, in double precision
N_DRAWS, N_REPEATS = 1024, 16  # of a sampler of times


def check_drift(
    f: nn.Module | Callable[[Tensor, Tensor], Tensor], scalar_time: bool = True
) -> None:
    """Raise a `ValueError` that names the flaw, unless f(x, t) is a velocity for each point alone.

    Args:
        f: Called with states `(n,)` and times `(n,)`, or one time for all.
        scalar_time: Whether one time for all points, a tensor of shape `()`, must do as well.
    """
    f = _double(f)
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    values = _per_point("the drift", f, x, t)
    if scalar_time:
        one = "one time for all points, a tensor of shape ()"
        with _takes("the drift", one):
            same = torch.as_tensor(f(x, t[2]))
        _compare(f"the drift with {one},", same, f(x, t[2].expand_as(x)), "x", x)
    if hasattr(f, "kernel"):
        name = (
            "kernel() of the drift (a class with its own forward needs "
            "`def kernel(self): return AutogradKernel(self)`)"
        )
        _compare(name, f.kernel().derivatives(x, t)[0], values, "x", x)


def check_path(path: nn.Module) -> None:
    """Raise a `ValueError` that names the flaw, unless boundary, rates and clock are right.

    Args:
        path: With `delta`; `path(y, t)`, alpha and beta; `with_rates(y, t)`, these and their time
            derivatives; `schedule(t)`, a, beta and their rates; `clock(t)`, its inverse `time(u)`
            and `time_rate(t)`, dt/du. Points, times and values are `(n,)`.
    """
    for name in ("delta", "with_rates", "schedule", "clock", "time", "time_rate"):
        if not hasattr(path, name):
            raise ValueError(f"a path must have {name}; {type(path).__name__} does not")
    path = _double(path)
    y = torch.linspace(-3, 3, 7, dtype=torch.float64)
    t = torch.cat([torch.tensor([1e-3, 0.999]).double(), torch.linspace(0.05, 0.95, 5).double()])
    for k, name in enumerate(("alpha", "beta")):
        _per_point(name, lambda y, t, k=k: path(y, t)[k], y, t)
        for end, wanted in ((0.0, (0 * y, y**0)), (1.0, (y, path.delta * y**0))):
            value = path(y, torch.full_like(y, end))[k]
            _compare(f"{name}(y, t = {end:g})", value, wanted[k], "y", y, 1e-4)
        _compare(f"{name} of with_rates", path.with_rates(y, t)[k], path(y, t)[k], "t", t)
        rate = _rate(lambda t, k=k: path(y, t)[k], t)
        _compare(f"{name}_dot of with_rates", path.with_rates(y, t)[k + 2], rate, "t", t)
        rate = _rate(lambda t, k=k: path.schedule(t)[k], t)
        _compare(f"{('a', 'beta')[k]}_dot of schedule", path.schedule(t)[k + 2], rate, "t", t)
    check_positive("beta", path(y, t)[1], t)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    _compare("clock(t)", path.clock(ends), ends, "t", ends)
    _compare("time(clock(t)), the clock read backwards,", path.time(path.clock(t)), t, "t", t)
    u = torch.linspace(0.01, 0.99, 7, dtype=torch.float64)
    _compare("clock(time(u)), the time read backwards,", path.clock(path.time(u)), u, "u", u)
    dt_du = path.time_rate(path.time(u))
    _compare("time_rate(time(u)), dt/du,", dt_du, _rate(path.time, u), "u", u)
    check_positive("time_rate", dt_du, path.time(u))


def check_diffusion(diffusion: nn.Module) -> None:
    """Raise a `ValueError` that names the flaw, unless sigma is positive and its slope right.

    Args:
        diffusion: `diffusion(x, t)`, sigma, and `with_slope(x, t)`, sigma and its derivative in x;
            states, times and values are `(n,)`; a slope of 0.0 will do where it is zero.
    """
    diffusion = _double(diffusion)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    t = torch.tensor([0, 0.5, 1, 0.25, 0.75, 0.1, 0.9, 0.4, 0.6], dtype=torch.float64)
    sigma = _per_point("sigma", diffusion, x, t)
    check_positive("sigma", sigma, t)
    same, slope = diffusion.with_slope(x, t)
    slope = torch.as_tensor(slope, dtype=x.dtype).expand_as(x)
    _compare("sigma of with_slope", same, sigma, "x", x)
    rate = _rate(lambda x: diffusion(x, t), x)
    _compare("the slope d sigma / dx of with_slope", slope, rate, "x", x)


def check_t_sampler(sampler: Callable, path: nn.Module) -> None:
    """Raise a `ValueError` that names the flaw, unless its weights keep means over t and noise.

    Args:
        sampler: `sampler(path, n, generator)`, with fields t, weight, eps and v, each `(n,)`. The
            weighted means of 1, t, eps, eps^2 and v must be 1, 1/2, 0, 1 and 1/2.
        path: Gives the clock.
    """
    seeds = (0, *range(N_REPEATS))  # the first one twice
    with torch.no_grad():
        draws = [sampler(path, N_DRAWS, torch.Generator().manual_seed(seed)) for seed in seeds]
    fields = {name: [getattr(draw, name) for draw in draws] for name in ("t", "weight", "eps", "v")}
    for name, (again, first, *_) in fields.items():
        if tuple(first.shape) != (N_DRAWS,) or not first.isfinite().all():
            raise ValueError(
                f"{name} of a sampler must be n finite numbers, (n,), not of shape "
                f"{tuple(first.shape)}"
            )
        if not torch.equal(first, again):
            raise ValueError(
                f"{name} of a sampler must depend on the generator that it is given alone: twice "
                "the same one gave different values"
            )
    t, weight, eps, v = (torch.stack(of[1:]).double() for of in fields.values())
    for name, value in (("t", t), ("v", v)):
        outside = value[~((value >= 0) & (value <= 1))]
        if len(outside):
            raise ValueError(f"{name} of a sampler must lie between 0 and 1, not {outside[0]:g}")
    one = torch.ones_like(t)
    moments = {"1": (one, 1), "t": (t, 0.5), "eps": (eps, 0), "eps^2": (eps**2, 1), "v": (v, 0.5)}
    for name, (value, wanted) in moments.items():
        means = (weight * value).mean(1)
        error = means.std().item() / N_REPEATS**0.5
        if not abs(means.mean().item() - wanted) < 8 * error + 0.02:
            raise ValueError(
                f"the weights of a sampler must keep means: that of {name} is {means.mean():.3f} ± "
                f"{error:.3f} by its draws, not {wanted:g}"
            )


def check_sde(path: nn.Module, diffusion: nn.Module, drift: nn.Module) -> None:
    """Check the three parts of an SDE: `check_path`, `check_diffusion`, `check_drift`."""
    check_path(path)
    check_diffusion(diffusion)
    check_drift(drift, scalar_time=False)
    if not isinstance(getattr(drift, "predicts_y", None), bool):
        raise ValueError(
            f"the drift {type(drift).__name__} must say what it returns: predicts_y = True, a data "
            "point, or False, the drift itself"
        )


def check_corrects(name: str, build: Callable[..., nn.Module], **denoiser: nn.Module) -> None:
    """Raise a `ValueError` that names the drift, unless it takes a `denoiser` that is given."""
    if denoiser and "denoiser" not in inspect.signature(build).parameters:
        raise ValueError(
            f"the drift {name!r} corrects no denoiser: preconditioning must be 'gaussian'"
        )


def check_positive(name: str, value: Tensor, t: Tensor) -> None:
    """Raise a `ValueError` that names value and place unless all values are positive and finite."""
    wrong = ~((value > 0) & value.isfinite())
    if wrong.any():
        first = int(wrong.float().argmax())
        raise ValueError(
            f"{name} must be positive and finite, not {value[first]:g} (at t = {t[first]:.3g})"
        )


def _double(part: object) -> object:
    """A copy of a net in double precision, on the CPU, its weights moved at random."""
    if not isinstance(part, nn.Module):
        return part
    part = copy.deepcopy(part).cpu().double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in part.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return part.requires_grad_(False)


@contextmanager
def _takes(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ValueError(f"{name} must take {what}: {error}") from error


def _per_point(name: str, f: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor) -> Tensor:
    """The values f(x, t), one for each point, whatever the company that it is in."""
    with _takes(name, "states and times of shape (n,), a time for each state"):
        values, again = f(x, t), f(x, t)
    if not isinstance(values, Tensor) or values.shape != x.shape or values.dtype != x.dtype:
        tensor = isinstance(values, Tensor)
        kind = f"shape {tuple(values.shape)}, {values.dtype}" if tensor else repr(values)
        raise ValueError(
            f"{name} must have a value for each point, shape (n,) and the points' type: for n = "
            f"{len(x)} and {x.dtype} not {kind}"
        )
    if not values.isfinite().all():
        k = int((~values.isfinite()).float().argmax())
        raise ValueError(f"{name} must be finite, not {values[k]:g} at t = {t[k]:.3g}")
    no_chance = f"{name}, called again (no dropout, nor other random numbers),"
    _compare(no_chance, again, values, "t", t, 1e-6)
    with _takes(name, "a single point, shape (1,)"):
        alone = torch.cat([f(x[k : k + 1], t[k : k + 1]) for k in range(len(x))])
    by_itself = f"{name} for a point alone (no batch normalisation, nor one time in place of all)"
    _compare(by_itself, alone, values, "t", t, 1e-6)
    return values


def _rate(f: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """Central differences."""
    return (f(t + STEP) - f(t - STEP)) / (2 * STEP)


def _compare(
    name: str, found: Tensor, wanted: Tensor, label: str, at: Tensor, tolerance: float = 1e-5
) -> None:
    """Raise a `ValueError` with the worst place, unless found is what is wanted."""
    if found.shape != wanted.shape:
        raise ValueError(f"{name} must have shape {tuple(wanted.shape)}, not {tuple(found.shape)}")
    error = (found - wanted).abs() / (1e-2 + wanted.abs())
    if not (error <= tolerance).all():
        k = int(error.nan_to_num(torch.inf).argmax())
        raise ValueError(
            f"{name} must be {wanted[k]:.6g} at {label} = {at[k]:.3g}, not {found[k]:.6g}"
        )
