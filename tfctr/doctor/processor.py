"""What a user needs to know of the processor, and what limits it."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tfctr.doctor.findings import Finding
from tfctr.processor import Processor, this_processor

_GROUP = "processor"
_MULTIPLY_BFLOAT16 = ("AMX", "AVX512_BF16")
_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
_LIMIT = "ONEDNN_MAX_CPU_ISA"
_NO_LIMIT_OF_BFLOAT16 = re.compile(r"|ALL|DEFAULT|.*(BF16|FP16|AMX|AVX10).*")


def processor_findings(path: Path = Path("/proc/cpuinfo"), environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Its name and instruction sets, the environment that limits them, and the precision that pays."""
    processor = this_processor(path)
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
