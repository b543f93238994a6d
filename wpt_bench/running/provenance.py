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

from wpt_bench import registry
from wpt_bench.records import Identity

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
        "git_revision": _git_revision(Path(__file__)),
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


def provenance(run: Identity | None = None) -> dict[str, Any]:
    """Command, git revision (None outside a checkout), library versions, machine, threads.

    Of a run, once it has begun, also ``package``, where its method is of another package: its version and, where it is
    imported from a checkout, its revision. And ``graphics``, where pictures are seen: the library that draws them (no
    two draw quite the same), which MuJoCo takes from the environment.
    """
    found = _fixed() | {"threads": torch.get_num_threads()}
    if run is None:
        return found
    package = _package(run.method)
    found |= {"package": package} if package else {}
    return found | ({"graphics": os.environ.get("MUJOCO_GL")} if run.observation == "pixels" else {})


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@functools.cache
def _package(method: str) -> str | None:
    """What registers a method, as ``name version`` and perhaps ``(revision)``; None for this package itself, and where
    no package does."""
    found = registry.registered().get(method)
    point = found[1] if found else None
    if point is None or point.dist is None or point.dist.name == LIBRARIES[0]:
        return None
    file = getattr(sys.modules[point.module], "__file__", None)
    revision = _git_revision(Path(file)) if file else None
    return f"{point.dist.name} {point.dist.version}" + (f" ({revision})" if revision else "")


def _git_revision(file: Path) -> str | None:
    """Of the checkout that ``file`` is of; None where it was installed, even into a folder inside of a repository."""
    git = ["git", "-C", str(file.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], capture_output=True, check=True)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
