"""How much memory this process may use."""

import os
import re
from pathlib import Path

GIB = 2**30
_UNLIMITED = 2**60  # bytes: above, version 1 of control groups means no limit


def usable_memory() -> float | None:
    """GiB of this machine, or of the least limit of this process's control groups; None where nobody says."""
    known = [size for size in (total_memory(), memory_limit(control_groups("memory"))) if size is not None]
    return min(known, default=None)


def total_memory() -> float | None:
    """GiB of this machine; None where the system does not say."""
    total = of_meminfo(text_of(Path("/proc/meminfo")), "MemTotal")
    if total is None and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    return total


def control_groups(
    controller: str, membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[Path]:
    """The folders of the control groups, of version 1 or 2, that this process is in: the limits of each hold.

    A container may not see its own folder, but always the root that it has.
    """
    folders = []
    for line in (text_of(membership) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        own = root / controller if controllers else root
        inner = [own.joinpath(*Path(path).parts[1:depth]) for depth in range(len(Path(path).parts), 0, -1)]
        folders += [folder for folder in inner if folder.is_dir()]
    return folders


def memory_limit(groups: list[Path]) -> float | None:
    """The least limit of their memory in GiB; None without one."""
    texts = [text_of(group / name) for group in groups for name in ("memory.max", "memory.limit_in_bytes")]
    limits = [int(text) for text in texts if text is not None and text.strip() != "max"]
    return min((limit / GIB for limit in limits if limit < _UNLIMITED), default=None)


def of_meminfo(text: str | None, name: str) -> float | None:
    """An entry of the text of `/proc/meminfo` in GiB; None where it is not there."""
    found = re.search(rf"^{name}:\s*(\d+) kB$", text or "", re.MULTILINE)
    return int(found[1]) * 1024 / GIB if found else None


def text_of(path: Path) -> str | None:
    """The text of a file of the system, None where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
