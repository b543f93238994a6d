"""What is installed, what this machine has, and which profiles can run on it.

``diagnose`` looks and leaves nothing behind. Each of its findings says what is there and, where something is missing,
what to do about it.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from wpt_bench import profiles, registry
from wpt_bench.profiles import Profile

GIB = 1024**3
SHOWN = ("torch", "mujoco", "dm_control", "metaworld", "gymnasium", "numpy")
ELSEWHERE = "Name a folder that you may write to with --out or WPT_BENCH_OUT."
PICTURES = (
    "Install the Debian package libosmesa6, or libegl1 with libgl1-mesa-dri; without them only the pixel profiles are "
    "out of reach."
)


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        ok: whether it is as it should be; for a profile, whether it can run here.
        found: what is there.
        advice: one sentence on what to do; empty when ``ok``.
        required: whether nothing at all runs without it.
    """

    name: str
    ok: bool
    found: str
    advice: str
    required: bool = False


def diagnose(out: Path) -> list[Check]:
    """Looks at the installation, the machine and every profile; ``out`` is the folder that runs would write to.

    Drawing is tried in processes of their own and torch is imported: expect some seconds.
    """
    backends = _backends()
    memory = psutil.virtual_memory().total
    folder = next(path for path in [out.absolute(), *out.absolute().parents] if path.exists())
    free = shutil.disk_usage(folder).free
    return [
        _python(),
        _packages(),
        _plugins("suites", registry.suites()),
        _plugins("methods", registry.methods()),
        _cores(),
        _check("memory", memory >= 2 * GIB, f"{memory / GIB:.1f} GiB", "Use a machine with 2 GiB or more."),
        _output(out, folder, free),
        *_torch(),
        _check("pictures", any(backends.values()), _spell(backends), PICTURES),
        *(_profile(profiles.load(name), any(backends.values()), memory, free) for name in profiles.names()),
    ]


def _check(name: str, ok: bool, found: str, advice: str, required: bool = False) -> Check:
    return Check(name, ok, found, "" if ok else advice, required)


def _output(out: Path, folder: Path, free: int) -> Check:
    """Whether ``out`` can be written, of which ``folder`` is as much as there is already."""
    found = f"{out}, {free / GIB:.1f} GiB free"
    try:
        with tempfile.TemporaryFile(dir=folder):  # what permissions say is not all: there are places without files
            return Check("output folder", True, found, "", True)
    except OSError as error:
        return Check("output folder", False, f"{found}, but {folder}: {error.strerror}", ELSEWHERE, True)


def _python() -> Check:
    found = f"{platform.python_implementation()} {platform.python_version()}"
    advice = "Use Python 3.11, for which constraints.txt holds versions that are known to work together."
    return _check("python", sys.version_info[:2] == (3, 11), found, advice)


def _packages() -> Check:
    """Versions that wpt-bench's own metadata requires, against those installed."""
    wrong = []
    for line in requires("wpt-bench") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    shown = ", ".join(f"{name} {version(name)}" for name in SHOWN if not any(name in text for text in wrong))
    advice = "Install wpt-bench again with `pip install --constraint constraints.txt`; other versions are untested."
    return _check("packages", not wrong, "; ".join([*wrong, shown]), advice, True)


def _plugins(kind: str, found: Mapping[str, object]) -> Check:
    advice = f"No {kind} could be loaded: install wpt-bench again, its entry points are missing or broken."
    return _check(kind, bool(found), ", ".join(found) or "none", advice, True)


def _cores() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    advice = "Expect times two or more beyond those of the profiles, which are for two cores."
    return _check("cpu cores", usable >= 2, str(usable), advice)


def _torch() -> Iterator[Check]:
    import torch  # two seconds: `wpt-bench --help` must not pay for them

    threads = os.environ.get("OMP_NUM_THREADS")
    set_by = f"OMP_NUM_THREADS={threads}" if threads else "one per core; runs take one per worker"
    yield Check("torch threads", True, f"{torch.get_num_threads()} ({set_by})", "")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Check("gpu", True, ", ".join(gpus) or "none; only the paper profile needs one", "")


def _backends() -> dict[str, bool]:
    from wpt_bench.suites.rendering import available_backends  # loads mujoco

    return available_backends()


def _spell(backends: Mapping[str, bool]) -> str:
    return ", ".join(f"{name} {'works' if works else 'does not work'}" for name, works in backends.items())


def _profile(profile: Profile, pictures: bool, memory: int, free: int) -> Check:
    needs = (
        f"{profile.observation}; about {profile.minutes:g} min, {profile.memory_gib:g} GiB of memory, "
        f"{profile.disk_gib:g} GiB of disk"
    )
    if profile.observation == "pixels" and not pictures:
        advice = PICTURES
    elif profile.memory_gib * GIB > memory:
        advice = f"Give fewer --workers, or use a machine with {profile.memory_gib:g} GiB of memory."
    elif profile.disk_gib * GIB > free:
        advice = f"Name a folder on a disk with {profile.disk_gib:g} GiB free with --out or WPT_BENCH_OUT."
    else:
        advice = ""
    return Check(f"profile {profile.name}", not advice, needs, advice)
