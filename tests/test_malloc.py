"""malloc keeps what is freed, when it is told to."""

import os
import platform
import subprocess
import sys

import pytest

from tfctr import malloc

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")

FAULTS = """
import resource
import numpy as np
from tfctr import malloc

kept = {call}
for step in range(6):
    if step == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24)  # 128 MiB, freed at once
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call, **environment):
    """What `call` returned, and the page faults of five steps that allocate what the step before freed."""
    environment = {name: value for name, value in os.environ.items() if name not in malloc.CHOSEN_BY_USER} | environment
    command = [sys.executable, "-c", FAULTS.format(call=call)]
    kept, number = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
    return kept, int(number)


def test_freed_memory_is_kept():
    (kept, few), (_, many) = faults("malloc.keep_freed_memory()"), faults("None")
    assert kept == "True"
    assert few < 20 < 200 < many


def test_what_the_environment_says_of_malloc_stands():
    assert faults("malloc.keep_freed_memory()", MALLOC_ARENA_MAX="4")[0] == "False"


@pytest.mark.slow
def test_models_keep_it_unless_it_is_to_be_returned():
    assert faults("__import__('tfctr.models') and None")[1] < 20
    kept, many = faults("malloc.return_freed_memory() or __import__('tfctr.models') and malloc.keep_freed_memory()")
    assert kept == "False"
    assert many > 200
