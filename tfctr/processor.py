"""The processor: its name and what it can multiply at once, which decide the order of sums and what is fast."""

import dataclasses
import platform
import re
from pathlib import Path

# Instruction sets, and what Linux calls them.
_SETS = {"AVX2": "avx2", "AVX-512F": "avx512f", "AVX512_BF16": "avx512_bf16", "AMX": "amx_bf16"}


@dataclasses.dataclass(frozen=True)
class Processor:
    """A name, and the instruction sets among AVX2, AVX-512F, AVX512_BF16 and AMX; None where they are not known."""

    name: str
    sets: tuple[str, ...] | None


def read_processor(cpuinfo: str | None) -> Processor:
    """The processor that a `/proc/cpuinfo` describes; where there is none, or it is no x86, the sets are not known.

    >>> read_processor("model name : Some CPU\\nflags : fpu avx2 avx512f\\n")
    Processor(name='Some CPU', sets=('AVX2', 'AVX-512F'))
    """
    name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo or "", re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", cpuinfo or "", re.MULTILINE)
    sets = None if flags is None else tuple(known for known, flag in _SETS.items() if flag in flags[1].split())
    return Processor(name[1].strip() if name else platform.processor() or platform.machine(), sets)


def this_processor(path: Path = Path("/proc/cpuinfo")) -> Processor:
    """The processor that this process runs on."""
    return read_processor(path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None)
