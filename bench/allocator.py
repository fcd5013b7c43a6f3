"""What becomes of the memory that a training step has freed."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
LARGEST = 2**25  # bytes, the largest that glibc takes for the second


def keep() -> None:
    """Have glibc keep freed memory for the next step, which asks for as much again, and not hand it back to the system.

    The system would clear each of its pages anew: up to a tenth of the time of a step on a CPU. What is held is what was in use
    at once, and what lies scattered between. With another C library nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
