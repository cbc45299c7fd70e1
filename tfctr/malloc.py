"""What the C library does with freed memory."""

import ctypes
import os
import platform

# Parameters of mallopt(3), and what they are set to.
_SETTINGS = {
    -8: 1,  # M_ARENA_MAX: the others cannot grow beyond 64 MiB, and map what is larger
    -4: 0,  # M_MMAP_MAX: no allocation is a mapping of its own, which `free` would give back
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: nor is the top of the heap given back below 2 GiB
}
CHOSEN_BY_USER = ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Let glibc's malloc keep what is freed for the next step, rather than give it back and have it zeroed anew.

    A training step frees temporaries of many megabytes, which the next one allocates again. Call it before TensorFlow is
    imported. It does nothing where another C library runs, or where the environment sets malloc already.

    Returns:
        Whether it took effect.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in CHOSEN_BY_USER):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items())
