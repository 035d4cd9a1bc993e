"""Randomness that depends on a seed alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Run a block under the random stream that `key` names, and leave the global one untouched.

    Every draw on the CPU inside the block depends on `key` alone, whatever ran before. Different
    keys, `(0, 1)` and `(0, 2)` say, give independent streams (`numpy.random.SeedSequence`).

    Args:
        *key: Non-negative integers.

    Raises:
        ValueError: If a part of the key is not a non-negative integer.
    """
    for part in key:
        if isinstance(part, bool) or not isinstance(part, (int, np.integer)) or part < 0:
            raise ValueError(f"a seed is a non-negative integer, not {part!r}")
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(state[0]))
        yield
