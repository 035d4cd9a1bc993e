r"""What a part of one's own must be, asked when it is first used: errors that name what is wrong.

A drift, a path, a diffusion coefficient or a sampler of times that is wrong rarely fails; it gives
a wrong number. Each check calls the part at some points, costs milliseconds, and compares what
belongs together: points alone, in other company and in another order, one call and the next, rates
and changes of the values, the clock and its inverse. Nets are checked in double precision on a copy
whose weights were moved at random, since a net that starts as zero hides what it does. (For
methods: `dlutils.flows.methods.check_tableau`.)
"""

import copy
import inspect
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor, nn

from dlutils.quadrature import gauss_legendre

Part = Callable[[Tensor, Tensor], Tensor]
LOOSE = 1e-4  # share of a change that a rate may miss
HUGE = 1e100  # from there on values are no matter, and slopes no numbers
FLOOR = 1e-6  # and share of the values: what computes in single precision is rounded
HALVINGS, MOST_PANELS = 40, 4096  # of a panel, where its change is not yet explained; at a time
N_DRAWS, N_REPEATS = 1024, 16  # of a sampler of times
STATES = torch.linspace(-3.21, 3.17, 49, dtype=torch.float64).sinh()  # to 12, close around zero
UNIT = torch.linspace(0.001, 0.999, 25, dtype=torch.float64)  # of times, or of the clock
NODES, WEIGHTS = map(torch.from_numpy, gauss_legendre(6, 0, 1))
HIDDEN = ": detach(), round(), .item() and no_grad() hide x from autograd"


def check_drift(f: nn.Module | Part, scalar_time: bool = True, in_slope: bool = True) -> None:
    """Raise a `ValueError` that names the flaw, unless f(x, t) is a velocity for each point alone.

    Args:
        f: Called with states `(n,)` and times `(n,)`, or one time for all.
        scalar_time: Whether one time for all points, a tensor of shape `()`, must do as well.
        in_slope: Whether its slope in x, by autograd or by its `kernel()`, must be that of the
            values: a flow's likelihood is made of it.
    """
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    f = _moved(f, x, t)
    values = _per_point("the drift", f, x, t)
    if scalar_time:
        one = "one time for all points, a tensor of shape ()"
        same = torch.as_tensor(_call("the drift", f, x, t[2], one))
        at_one = _call("the drift", f, x, t[2].expand_as(x), one)
        _compare(f"the drift with {one},", same, at_one, "x", x)
    if in_slope:
        _check_slope(f, x, t, values)


def _check_slope(f: nn.Module | Part, x: Tensor, t: Tensor, values: Tensor) -> None:
    """Hold a drift's slope in x to its values, which it has at states x and times t."""
    if hasattr(f, "basis"):
        by_basis = (f.basis(x, t) * f.c).flatten(1).sum(1)
        _compare("basis(x, t) of the drift times its weights c", by_basis, values, "x", x)
    slope, name = lambda x, t: _slope(f, x, t), "the slope of the drift, by autograd,"
    if hasattr(f, "kernel"):
        name = (
            "kernel() of the drift (a class with its own forward needs "
            "`def kernel(self): return AutogradKernel(self)`)"
        )
        kernel = f.kernel()
        slope = getattr(kernel, "slope", lambda x, t: kernel.derivatives(x, t)[1])
        found = kernel.derivatives(x, t)
        _compare(name, found[0], values, "x", x)
        _compare(f"the slope of {name}", found[1], slope(x, t), "x", x)
        at_one = f(x, t[2].expand_as(x))
        _compare(f"velocity of {name}", kernel.velocity(x, t[2].item()), at_one, "x", x)
        if hasattr(kernel, "with_slope"):
            both = kernel.with_slope(x, t[2].item())
            _compare(f"with_slope of {name}", both[0], at_one, "x", x)
            _compare(f"the slope of {name}", both[1], slope(x, t[2].expand_as(x)), "x", x)
    recorded = _call("the drift", f, x, t, "states that want a gradient", grad=True).detach()
    _compare("the drift while gradients are recorded", recorded, values, "x", x)
    _check_rate(name, slope, f, STATES, _spread(0, 1, len(STATES) - 1), ("x", "t"), HIDDEN)


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
    y = torch.linspace(-3, 3, 7, dtype=torch.float64)
    t = torch.cat([torch.tensor([1e-3, 0.999]).double(), torch.linspace(0.05, 0.95, 5).double()])
    path = _moved(path, y, t)
    over_y = _spread(-3, 3, len(UNIT) - 1)
    for k, name in enumerate(("alpha", "beta")):
        _per_point(name, lambda y, t, k=k: path(y, t)[k], y, t, "points")
        for end, wanted in ((0.0, (0 * y, y**0)), (1.0, (y, path.delta * y**0))):
            value = path(y, torch.full_like(y, end))[k]
            _compare(f"{name}(y, t = {end:g})", value, wanted[k], "y", y, 1e-4)
        _compare(f"{name} of with_rates", path.with_rates(y, t)[k], path(y, t)[k], "t", t)
        pair = (lambda t, y, k=k: path.with_rates(y, t)[k + 2], lambda t, y, k=k: path(y, t)[k])
        _check_rate(f"{name}_dot of with_rates", *pair, UNIT, over_y, ("t", "y"))
        pair = (lambda t, y, k=k: path.schedule(t)[k + 2], lambda t, y, k=k: path.schedule(t)[k])
        _check_rate(f"{('a', 'beta')[k]}_dot of schedule", *pair, UNIT, over_y, ("t", "y"))
    check_positive("beta", path(y, t)[1], t)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    _compare("clock(t)", path.clock(ends), ends, "t", ends)
    _compare("time(clock(t)), the clock read backwards,", path.time(path.clock(t)), t, "t", t)
    u = torch.linspace(0.01, 0.99, 7, dtype=torch.float64)
    _compare("clock(time(u)), the time read backwards,", path.clock(path.time(u)), u, "u", u)
    pair = lambda u, _: path.time_rate(path.time(u)), lambda u, _: path.time(u)
    _check_rate("time_rate(time(u)), dt/du,", *pair, UNIT, over_y, ("u", "y"))
    check_positive("time_rate", path.time_rate(path.time(u)), path.time(u))


def check_diffusion(diffusion: nn.Module) -> None:
    """Raise a `ValueError` that names the flaw, unless sigma is positive and its slope right.

    Args:
        diffusion: `diffusion(x, t)`, sigma, and `with_slope(x, t)`, sigma and its derivative in x;
            states, times and values are `(n,)`; a slope of 0.0 will do where it is zero.
    """
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    t = torch.tensor([0, 0.5, 1, 0.25, 0.75, 0.1, 0.9, 0.4, 0.6], dtype=torch.float64)
    diffusion = _moved(diffusion, x, t)
    sigma = _per_point("sigma", diffusion, x, t)
    check_positive("sigma", sigma, t)
    _compare("sigma of with_slope", diffusion.with_slope(x, t)[0], sigma, "x", x)
    slope = lambda x, t: torch.as_tensor(diffusion.with_slope(x, t)[1], dtype=x.dtype).expand_as(x)
    name = "the slope d sigma / dx of with_slope"
    _check_rate(name, slope, diffusion, STATES, _spread(0, 1, len(STATES) - 1), ("x", "t"))


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
    check_drift(drift, scalar_time=False, in_slope=False)
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


def _moved(part: object, x: Tensor, t: Tensor) -> object:
    """A copy of a net in double precision, on the CPU, its weights moved at random.

    Not moved where that makes its values at (x, t) infinite or NaN, as of a logarithm's weight.
    """
    if not isinstance(part, nn.Module):
        return part
    kept = [v for m in part.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    to_double = lambda v: v.detach().cpu().double() if v.is_floating_point() else v.detach().cpu()
    memo = {id(v): to_double(v) for v in kept}  # neither weights nor buffers
    part = copy.deepcopy(part, memo).cpu().double().requires_grad_(False)
    weights = [p for p in part.parameters() if p.is_floating_point()]
    generator = torch.Generator().manual_seed(0)
    steps = [0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in weights]
    for p, step in zip(weights, steps, strict=True):
        p += step
    with suppress(Exception), torch.no_grad():  # what fails is named by the checks
        values = part(x.clone(), t.clone())
        if not all(torch.as_tensor(v).isfinite().all() for v in values):
            for p, step in zip(weights, steps, strict=True):
                p -= step
    return part


def _per_point(name: str, f: Part, x: Tensor, t: Tensor, states: str = "states") -> Tensor:
    """The values f(x, t), the same for each point whatever its company, its place and the call."""
    own_times = f"{states} and times of shape (n,), a time for each"
    call = lambda x, t, what=own_times: _call(name, f, x, t, what)
    values = call(x, t)
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
    every = slice(None)
    same = lambda how, found, k=every: _compare(f"{name}{how}", found, values[k], "t", t[k], 1e-6)
    same(", called again (no dropout, nor other random numbers, nor memory),", call(x, t))
    beside = " for a point beside others (no batch normalisation, nor one time in place of all)"
    for half in (slice(0, None, 2), slice(1, None, 2)):
        same(beside, call(x[half], t[half]), half)
    same(" for points in another order", call(x.flip(0), t.flip(0)).flip(0))
    in_crowd = call(torch.cat([x, STATES]), torch.cat([t, _spread(0, 1, len(STATES))]))
    same(beside, in_crowd[: len(x)])
    for k in (0, len(x) // 2):
        one = slice(k, k + 1)
        same(" for a point alone", call(x[one], t[one], "a single point, shape (1,)"), one)
    return values


def _call(name: str, f: Part, x: Tensor, t: Tensor, what: str, *, grad: bool = False) -> Tensor:
    """The values f(x, t), without a gradient as solvers ask for them; what is given may not change.

    `what` says what it is called with.
    """
    given = x.clone().requires_grad_(grad), t.clone()
    try:
        with torch.set_grad_enabled(grad):
            values = f(*given)
    except Exception as error:
        raise ValueError(f"{name} must take {what}: {error}") from error
    for label, before, after in zip(("first", "second"), (x, t), given, strict=True):
        if not torch.equal(before, after):
            raise ValueError(
                f"{name} must leave what it is given as it is, but changes its {label} argument in "
                "place: x = x + 1 makes a new tensor, x += 1 and x.add_(1) do not"
            )
    return values


def _slope(f: Part, x: Tensor, t: Tensor) -> Tensor:
    """The derivative in x by autograd, `(n,)`; zero where autograd sees none."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        try:
            total = f(x, t).sum()
            if not total.requires_grad:
                return torch.zeros_like(x)
            return torch.autograd.grad(total, x, materialize_grads=True)[0]
        except RuntimeError as error:
            raise ValueError(f"autograd must find the drift's derivative in x: {error}") from error


def _spread(low: float, high: float, n: int) -> Tensor:
    """Places between low and high, `(n,)`, of which any few in a row are spread out too."""
    k = torch.arange(n, dtype=torch.float64)
    return low + (high - low) * ((k + 0.5) * (5**0.5 - 1) / 2 % 1)


def _check_rate(
    name: str,
    rate: Part,
    value: Part,
    ends: Tensor,
    other: Tensor,
    labels: tuple[str, str],
    hint: str = "",
) -> None:
    """Raise a `ValueError` unless values change by the integrals of their rate.

    In each panel between neighbouring ends, by Gauss and Legendre's rule. Where the two differ, the
    panel is halved, and again: around a kink or a steep step what they differ by sums to nothing in
    the end; where the value jumps, or has a part that the rate does not see, it does not.

    Args:
        name: Of the rate.
        rate: Called with points along the panels and the other variable, `(n,)` each.
        value: Called likewise.
        ends: Of the panels, increasing, `(k + 1,)`.
        other: The other variable in each panel, `(k,)`.
        labels: Of the two variables.
        hint: Is added to the message.
    """
    low, high = ends[:-1], ends[1:]
    panel, settled, whole = torch.arange(len(low)), torch.zeros_like(low), None
    for _ in range(HALVINGS):
        width, at = high - low, other[panel]
        nodes = torch.lerp(low[:, None], high[:, None], NODES)
        slopes = rate(nodes.flatten(), at.repeat_interleave(len(NODES)))
        with torch.no_grad():
            values = value(torch.cat([low, high]), torch.cat([at, at]))
        for found, n in ((slopes, nodes.numel()), (values, 2 * len(low))):
            if not isinstance(found, Tensor) or found.shape != (n,):
                raise ValueError(
                    f"{name}, and its values, must be a tensor with a number for each of {n} "
                    f"points, not {found if not isinstance(found, Tensor) else found.shape}"
                )
        slopes, (first, last) = slopes.view_as(nodes), values.chunk(2)
        change, integral = last - first, width * (slopes @ WEIGHTS)
        known = (first.abs() < HUGE) & (last.abs() < HUGE)
        error = (change - integral).masked_fill(~known, 0).abs()
        if whole is None:
            whole = change, integral
            most = change.abs() + width * (slopes.abs() @ WEIGHTS)
            allowed = LOOSE * most + FLOOR * (first.abs() + last.abs())
        if not error.isfinite().all():
            k = int(error.isfinite().float().argmin())
            raise ValueError(
                f"{name} must be finite, not {integral[k] / width[k]:g}, between {labels[0]} = "
                f"{low[k]:.4g} and {high[k]:.4g} at {labels[1]} = {at[k]:.3g}: torch.where() keeps "
                "the NaN of the side that it does not take"
            )
        missed = settled.index_add(0, panel, error)
        bad = (missed > allowed)[panel] & (error > 0.03 * allowed[panel])
        if not 0 < 2 * bad.sum() <= MOST_PANELS:
            break
        settled = settled.index_add(0, panel[~bad], error[~bad])
        low, middle, high, panel = (v[bad] for v in (low, (low + high) / 2, high, panel))
        low, high, panel = (torch.cat(v) for v in ([low, middle], [middle, high], [panel, panel]))
    over = missed > allowed
    if over.any():
        k = int((ends[1:] + ends[:-1]).abs().masked_fill(~over, torch.inf).argmin())  # near zero
        of_it = (panel == k) & (error > 0.03 * allowed[k])
        place = f"at {labels[1]} = {other[k]:.3g}"
        if of_it.any() and (high - low)[of_it].max() < 1e-6:
            jump = int(of_it.float().argmax())
            raise ValueError(
                f"{name} must be that of the values, which may not jump, but do so by "
                f"{(change - integral)[jump]:.3g} at {labels[0]} = {low[jump]:.4g}, {place}{hint}"
            )
        length = ends[k + 1] - ends[k]
        change, integral = (v[k] / length for v in whole)
        raise ValueError(
            f"{name} must be {change:.4g} on average between {labels[0]} = {ends[k]:.4g} and "
            f"{ends[k + 1]:.4g}, as the values change there, not {integral:.4g} ({place}){hint}"
        )


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
