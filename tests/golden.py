"""Numbers written down per version, and whether what is found now is still the same."""

import json
from pathlib import Path

import pytest

REL = 1e-2
"""Other processors add in another order. There is no absolute tolerance, with which small numbers could be any."""


def check(path: Path, key: str, found: dict[str, float]) -> None:
    golden = json.loads(path.read_text())
    assert key in golden, "the version was raised: write the golden file anew"
    assert found == pytest.approx(golden[key], rel=REL, abs=0)


def write(path: Path, found: dict[str, dict[str, float]]) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n")
