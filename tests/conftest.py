"""Tests marked ``pixels`` are skipped where no graphics library works."""

import pytest

from wpt_bench.suites.rendering import available_backends


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("pixels") and not any(available_backends().values()):
        pytest.skip("no graphics library works here")
