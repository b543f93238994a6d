"""Tests marked ``pixels`` are skipped where no graphics library works; torch's own numbers; the noxfile as a module."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from wpt_bench.suites.rendering import available_backends

pytest.register_assert_rewrite("golden")  # it says which number differs


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("pixels") and not any(available_backends().values()):
        pytest.skip("no graphics library works here")


@pytest.fixture(autouse=True)
def seeded_torch() -> None:
    """What a test draws without a generator is the same in every run and after any other test."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def noxfile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noxfile", Path(__file__).parents[1] / "noxfile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
