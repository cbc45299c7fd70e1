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


_returned = False  # by the user's wish


def keep_freed_memory() -> bool:
    """Let glibc's malloc keep what is freed for the next step, rather than give it back and have it zeroed anew.

    A training step frees temporaries of many megabytes, which the next one allocates again. `import tfctr.models` calls it; it
    has its full effect before TensorFlow's first operation, which starts the threads. The process stays as large as it was at
    its largest. It does nothing where another C library runs, where the environment sets malloc already, or after
    `return_freed_memory`.

    Returns:
        Whether it took effect.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if _returned or platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in CHOSEN_BY_USER):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items())


def return_freed_memory() -> None:
    """Leave malloc as it is: for a process that trains and lives on beside others. Call it before `import tfctr.models`."""
    global _returned
    _returned = True
