"""The memory that PyTorch's arrays come from."""

import ctypes


def keep_freed_memory(megabytes: int = 1024) -> bool:
    """Let the process keep memory that it has freed, for the next array of that size.

    The GNU C library hands the memory of large arrays back to the system as soon as they are freed,
    and the next array faults its pages in again, one by one. Training makes and frees the same
    arrays thousands of times: those faults can cost as much as the arithmetic.

    Args:
        megabytes: How much free memory to keep at most.

    Returns:
        Whether the C library offers this setting; without it nothing changes.

    Source:
        GNU C library, `mallopt(3)`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # macOS, Windows
        return False
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    large = 32 << 20  # bytes from which an array gets a mapping of its own; the largest allowed
    return bool(mallopt(M_MMAP_THRESHOLD, large) and mallopt(M_TRIM_THRESHOLD, megabytes << 20))
