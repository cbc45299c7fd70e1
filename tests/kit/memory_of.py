"""What a process holds in memory, as Linux says it: `ru_maxrss` would count what its parent held."""

from pathlib import Path


def resident(process="self"):
    """MiB that it holds now."""
    return _status(process, "VmRSS")


def peak(process="self"):
    """MiB that it has held at most."""
    return _status(process, "VmHWM")


def _status(process, name):
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024
