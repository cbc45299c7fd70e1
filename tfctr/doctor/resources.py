"""What this process may use: processors, memory, disk; and how memory is freed."""

import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tfctr import malloc
from tfctr.doctor.findings import Finding
from tfctr.memory import GIB, control_groups, memory_limit, of_meminfo, text_of, total_memory

_LEAST_MEMORY = 2.0  # GiB: `prepare` holds 1 by default, TensorFlow and a model the other
_LEAST_DISK = 1.0  # GiB: what `prepare` and `export` write on their way


def resource_findings() -> Iterator[Finding]:
    """Processors, memory, disk and malloc."""
    yield Finding("processor", "processors", f"{cores()} of {os.cpu_count()}")
    yield Finding("processor", "quota", _rounded(cpu_quota(control_groups("cpu"))))
    yield from memory_findings(text_of(Path("/proc/meminfo")), memory_limit(control_groups("memory")))
    yield Finding("memory", "malloc", malloc_text(platform.libc_ver(), os.environ))
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / GIB
    fix = None if free >= _LEAST_DISK else "free some, or set TMPDIR to a folder on a larger disk"
    yield Finding("disk", f"free GiB in {folder}", round(free, 2), fix=fix)


def cores() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(groups: list[Path]) -> float | None:
    """How many processors' time they grant, the least of all; None without a limit."""
    quotas = []
    for group in groups:
        quota, period = (text_of(group / "cpu.max") or "max 1").split()
        if quota == "max":
            quota, period = (text_of(group / f"cpu.cfs_{name}_us") or "-1" for name in ("quota", "period"))
        if float(quota) > 0:
            quotas.append(float(quota) / float(period))
    return min(quotas, default=None)


def memory_findings(meminfo: str | None, limit: float | None) -> Iterator[Finding]:
    """Total, free and limit of memory in GiB; a warning where little is left. `meminfo` is the text of `/proc/meminfo`."""
    total = total_memory() if meminfo is None else of_meminfo(meminfo, "MemTotal")
    free = of_meminfo(meminfo, "MemAvailable")
    low = min(math.inf if free is None else free, math.inf if limit is None else limit) < _LEAST_MEMORY
    fix = f"below {_LEAST_MEMORY:g} GiB: close other programs, raise the limit, or give `prepare` a smaller --memory-limit"
    yield Finding("memory", "total GiB", _rounded(total, "unknown"))
    yield Finding("memory", "free GiB", _rounded(free, "unknown"), fix=fix if low else None)
    yield Finding("memory", "limit GiB", _rounded(limit))


def malloc_text(libc: tuple[str, str], environment: Mapping[str, str]) -> str:
    """What `tfctr train` does about freed memory here: see `tfctr.malloc`.

    >>> malloc_text(("glibc", "2.36"), {"MALLOC_ARENA_MAX": "2"})
    'glibc 2.36, set by MALLOC_ARENA_MAX: `tfctr train` leaves it so'
    """
    name = " ".join(libc).strip() or "another C library than glibc"
    chosen = [variable for variable in malloc.CHOSEN_BY_USER if environment.get(variable)]
    if libc[0] != "glibc":
        return f"{name}: `tfctr train` leaves it as it is"
    if chosen:
        return f"{name}, set by {', '.join(chosen)}: `tfctr train` leaves it so"
    return f"{name}: `tfctr train` lets it keep freed memory"


def _rounded(value: float | None, absent: str | None = None) -> str | float | None:
    return absent if value is None else round(value, 2)
