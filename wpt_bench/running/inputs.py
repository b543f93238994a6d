"""States as a profile wants methods to see them: in the suite's units, or raw."""

from __future__ import annotations

from typing import Any, cast

from wpt_bench import registry
from wpt_bench.profiles import Inputs
from wpt_bench.protocol import Suite, Units


def suite(name: str, inputs: Inputs) -> Suite:
    """The suite of this name; with ``raw`` its units change nothing."""
    found = registry.suite(name)
    return found if inputs == "scaled" else cast(Suite, _Raw(found))


class _Raw:
    def __init__(self, suite: Suite) -> None:
        self._suite = suite

    def units(self, embodiment: str) -> Units:
        return Units.identity(self._suite.units(embodiment).scale.size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._suite, name)
