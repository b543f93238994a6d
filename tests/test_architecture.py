"""The arrows between the rooms, as pyproject.toml draws them, and a check that the drawing can fail."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    program = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", *command]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def package(noxfile: ModuleType, tmp_path: Path) -> Path:
    return noxfile.linked_package(tmp_path / "linked") / "wpt_bench"


def test_arrows_go_one_way(package: Path) -> None:
    done = lint_imports(package.parent)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("room", "line", "contract"),
    [
        ("analysis", "import torch", "Judging knows nothing of what it judges"),
        ("world_model", "from wpt_bench.protocol import Task", "The world model knows no task and no run"),
        ("suites", "from wpt_bench.wpt import methods", "Learning and its harness"),
        ("data", "import wpt_bench.cli", "Learning and its harness"),
    ],
)
def test_a_wrong_arrow_is_found(package: Path, room: str, line: str, contract: str) -> None:
    linked = package / room
    source = linked.resolve()
    linked.unlink()
    linked.mkdir()
    for path in source.iterdir():
        (linked / path.name).symlink_to(path)
    (linked / "wrong.py").write_text(line + "\n")
    done = lint_imports(package.parent)
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(contract in text and "BROKEN" in text for text in done.stdout.splitlines())
