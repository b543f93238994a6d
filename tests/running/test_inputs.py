"""States in the suite's units, or raw."""

import numpy as np
import pytest
from data import tiny_suite

from wpt_bench import registry
from wpt_bench.running import inputs


@pytest.mark.parametrize("embodiment", tiny_suite.DIMS)
def test_raw_units_change_nothing_and_scaled_ones_are_the_suites(
    embodiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "suites", lambda: {"tiny": tiny_suite.SUITE})
    states = np.linspace(-3, 3, tiny_suite.DIMS[embodiment][0], dtype=np.float32)
    raw, scaled = (inputs.suite("tiny", kind).units(embodiment) for kind in ("raw", "scaled"))
    np.testing.assert_array_equal(raw.apply(states), states)
    own = tiny_suite.SUITE.units(embodiment)
    np.testing.assert_array_equal(scaled.apply(states), (states - own.offset) * own.scale)
    assert inputs.suite("tiny", "raw").tasks() == tiny_suite.SUITE.tasks()
