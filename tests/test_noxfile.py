"""Runs of the regression gate lie in a folder for each state of the code."""

import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("wpt_bench", "baselines", "suites")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_same_code_has_the_same_digest_wherever_it_lies(noxfile: ModuleType, copy: Path) -> None:
    (copy / "wpt_bench" / "__pycache__").mkdir()
    (copy / "wpt_bench" / "__pycache__" / "compiled.pyc").touch()
    (copy / "README.md").touch()
    assert noxfile.code_digest(copy) == noxfile.code_digest(ROOT)


@pytest.mark.parametrize("file", ["wpt_bench/wpt/agent.py", "baselines/sac.py", "suites/profiles/gate.toml"])
def test_other_code_has_another_digest(noxfile: ModuleType, copy: Path, file: str) -> None:
    found = {noxfile.code_digest(copy)}
    (copy / file).write_text((copy / file).read_text() + "\n")
    found.add(noxfile.code_digest(copy))
    (copy / file).rename((copy / file).with_stem("renamed"))
    found.add(noxfile.code_digest(copy))
    (copy / file).with_stem("renamed").unlink()
    found.add(noxfile.code_digest(copy))
    assert len(found) == 4


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_other_libraries_have_another_digest(noxfile: ModuleType, copy: Path, file: str) -> None:
    before = noxfile.code_digest(copy)
    (copy / file).write_text((copy / file).read_text() + "\n")
    assert noxfile.code_digest(copy) != before
