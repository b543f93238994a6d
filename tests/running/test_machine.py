"""What a process that learns asks of its machine, seen from outside."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from wpt_bench.running.machine import prepare_process
if sys.argv[1] == "prepared":
    prepare_process(1)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    torch.ones(9_000_000)
before = faults()
for _ in range(20):
    torch.ones(9_000_000)
print(faults() - before, torch.get_num_threads())
"""


def _run(how: str) -> tuple[int, int]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    faults, threads = map(int, done.stdout.split())
    return faults, threads


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_used_again() -> None:
    faults, threads = _run("prepared")
    assert threads == 1
    # 36 MB are 8,790 pages, or 18 huge ones, and they are handed back to the system 20 times.
    assert faults < 20 * 18 <= _run("as it is")[0]
