"""Where and with what a run was made: recorded, never hashed."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

LIBRARIES = (
    "wpt-bench",
    "torch",
    "numpy",
    "mujoco",
    "dm_control",
    "metaworld",
    "gymnasium",
    "faiss-cpu",
    "safetensors",
)


@functools.cache
def _fixed() -> dict[str, Any]:
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git_revision": _git_revision(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": psutil.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def provenance(observation: str = "state") -> dict[str, Any]:
    """Command, git revision (None outside a checkout), library versions, machine, threads.

    Once something draws, ``graphics`` is beside them for pixels: the library that does, which MuJoCo takes from the
    environment. Of two libraries no picture is quite the same.
    """
    found = _fixed() | {"threads": torch.get_num_threads()}
    return found | ({"graphics": os.environ.get("MUJOCO_GL")} if observation == "pixels" else {})


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _git_revision() -> str | None:
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    if not (folder.parent.parent / ".git").exists():  # installed from a wheel, perhaps inside another repository
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
