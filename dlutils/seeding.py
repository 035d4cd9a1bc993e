"""Randomness that depends on a seed alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*key: int, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Run a block under the random stream that `key` names, and leave the global one untouched.

    Every draw on the CPU inside the block depends on `key` alone, whatever ran before. Different
    keys, `(0, 1)` and `(0, 2)` say, give independent streams (`numpy.random.SeedSequence`).

    Args:
        *key: Non-negative integers.
        dtype: Of what is drawn or built inside the block where it does not say so itself; None
            for torch's default. A net is built in the type of its data by it.

    Raises:
        ValueError: If a part of the key is not a non-negative integer.
    """
    for part in key:
        if isinstance(part, bool) or not isinstance(part, (int, np.integer)) or part < 0:
            raise ValueError(f"a seed is a non-negative integer, not {part!r}")
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(state[0]))
        torch.set_default_dtype(dtype or before)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
