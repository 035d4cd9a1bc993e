"""Processes, threads and memory: how many there may be, how they start, what they keep."""

import ctypes
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache, wraps
from multiprocessing.context import BaseContext
from typing import ParamSpec, TypeVar

import torch
from threadpoolctl import ThreadpoolController

P, R = ParamSpec("P"), TypeVar("R")
MANY = 4096  # points from which on it is left to the caller how many threads there are
_of_caller: ContextVar[int] = ContextVar("_of_caller")  # threads before the outermost call


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fresh_processes(preload: Sequence[str]) -> BaseContext:
    """A way to start processes that hold nothing of this one's memory.

    Args:
        preload: Modules to import once for all of them, in a server, where the system can fork.
    """
    choices = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in choices else "spawn")
    context.set_forkserver_preload(list(preload))
    return context


@contextmanager
def limited(many: bool = False) -> Iterator[None]:
    """One thread for PyTorch, unless there are `many` points, and one for BLAS, in any case.

    Small arrays are shared out among threads at a price; and where another process keeps a core
    busy, threads may wait for each other at every step. NumPy and SciPy bring a BLAS each, with
    threads of their own. All numbers are put back, whatever happens. Within such a block another
    one that has many points gets the outer caller's threads of PyTorch. Used as `@limited()`, too.
    """
    before = torch.get_num_threads()
    most, is_outermost = _of_caller.get(before), _of_caller.get(None) is None
    token, threads = _of_caller.set(most), most if many else 1
    with _blas().limit(limits=1) if is_outermost else nullcontext():
        try:
            if threads != before:
                torch.set_num_threads(threads)
            yield
        finally:
            _of_caller.reset(token)
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)


def few_threads(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function run `limited`, where many points are a tensor of `MANY` as an argument."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
        with limited(any(tensor.numel() >= MANY for tensor in tensors)):
            return function(*args, **kwargs)

    return called


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """The BLAS libraries of the process; to look for them takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


def keep_freed_memory() -> None:
    """Let the process keep memory that it has freed, for the next array of that size.

    The GNU C library hands the memory of large arrays back to the system as soon as they are freed,
    and the next array faults its pages in again, one by one. Training makes and frees the same
    arrays thousands of times: those faults can cost as much as the arithmetic. Where there is
    another C library nothing changes.

    Source:
        GNU C library, `mallopt(3)`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # macOS, Windows
        return
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    mallopt(M_MMAP_THRESHOLD, 32 << 20)  # bytes: from there on a mapping of its own; the most
    mallopt(M_TRIM_THRESHOLD, 1 << 30)  # bytes that are kept, at most
