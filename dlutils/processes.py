"""Processes beside this one: how many there may be, and how they start."""

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.context import BaseContext


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
