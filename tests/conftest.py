"""Tests marked ``pixels`` are skipped where no graphics library works; the noxfile as a module."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from wpt_bench.suites.rendering import available_backends


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("pixels") and not any(available_backends().values()):
        pytest.skip("no graphics library works here")


@pytest.fixture(scope="session")
def noxfile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noxfile", Path(__file__).parents[1] / "noxfile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
