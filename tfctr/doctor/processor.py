"""The processor: its name, what it can multiply at once, and what limits that."""

import dataclasses
import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tfctr.doctor.findings import Finding

_GROUP = "processor"
# Instruction sets, and what Linux calls them.
_SETS = {"AVX2": "avx2", "AVX-512F": "avx512f", "AVX512_BF16": "avx512_bf16", "AMX": "amx_bf16"}
_MULTIPLY_BFLOAT16 = ("AMX", "AVX512_BF16")
_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
_LIMIT = "ONEDNN_MAX_CPU_ISA"
_NO_LIMIT_OF_BFLOAT16 = re.compile(r"|ALL|DEFAULT|.*(BF16|FP16|AMX|AVX10).*")


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


def processor_findings(path: Path = Path("/proc/cpuinfo"), environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Its name and instruction sets, the environment that limits them, and the precision that pays."""
    processor = read_processor(path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None)
    yield Finding(_GROUP, "name", processor.name)
    yield _sets(processor)
    yield Finding(_GROUP, _ONEDNN, environment.get(_ONEDNN, "not set") + (" (oneDNN is off)" if _is_off(environment) else ""))
    yield Finding(_GROUP, _LIMIT, _limit(environment))
    yield Finding(_GROUP, "precision", precision(processor, environment))


def precision(processor: Processor, environment: Mapping[str, str]) -> str:
    """Which `training.precision` pays on this processor: bfloat16 only where it has instructions for it, and may use them."""
    if processor.sets is None:
        return "float32; whether mixed_bfloat16 is faster is not known here"
    can = [known for known in _MULTIPLY_BFLOAT16 if known in processor.sets]
    if not can:
        return "float32: there are no instructions that multiply bfloat16"
    if _is_off(environment) or not _NO_LIMIT_OF_BFLOAT16.fullmatch(environment.get(_LIMIT, "").upper()):
        return f"float32: the environment does not let oneDNN use {' and '.join(can)}"
    return f"mixed_bfloat16 may be faster than float32: {' and '.join(can)} multiply it"


def _sets(processor: Processor) -> Finding:
    if processor.sets is None:
        return Finding(_GROUP, "instruction sets", "unknown")
    found = ", ".join(processor.sets) or "none of AVX2 and later"
    fix = None if "AVX2" in processor.sets else "expect it to be slow; in a virtual machine, choose a newer model of processor"
    return Finding(_GROUP, "instruction sets", found, fix=fix)


def _limit(environment: Mapping[str, str]) -> str:
    limit = environment.get(_LIMIT, "")
    if limit.upper() in ("", "ALL", "DEFAULT"):
        return limit or "not set"
    return f"{limit}: oneDNN uses no later instructions, and products in 16 bits may end the process"


def _is_off(environment: Mapping[str, str]) -> bool:
    return environment.get(_ONEDNN, "").lower() in ("0", "false")
