"""The wheel, built and installed apart from the checkout, and a way to run its command from an empty folder."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = Path(__file__).parent / "example_method"
SOURCES = ("wpt_bench", "baselines", "reports", "results", "suites", "pyproject.toml", "README.md", "LICENSE")
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _pip_install(source: Path, target: Path) -> None:
    """Installs one package, and none of its dependencies, into a folder of its own, without a network."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(target)]
    command = [sys.executable, "-m", "pip", "install", *options, str(source)]
    subprocess.run(command, env=os.environ | OFFLINE, check=True)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because a build leaves files behind and picks up those that an older one left."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        source, copy = ROOT / name, folder / "source" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), "source"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    _pip_install(wheel, folder)
    return folder


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed example method and nothing else."""
    folder = tmp_path_factory.mktemp("example")
    source = folder / "source"
    source.mkdir()
    for name in ("linear_search.py", "pyproject.toml"):
        (source / name).write_text((EXAMPLE / name).read_text())
    _pip_install(source, folder / "installed")
    return folder / "installed"


@pytest.fixture
def run(target: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program of the installed wheel from an empty folder; further folders go on the path behind it."""

    def run(*command: str, also: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, (target, *also)))
        env = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "WPT_BENCH_OUT")}
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=env | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
