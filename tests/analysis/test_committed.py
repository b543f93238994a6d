"""What is committed in results/ is what its records say."""

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import pytest

from wpt_bench.analysis.archive import is_published
from wpt_bench.analysis.regression import error_rates
from wpt_bench.analysis.verify import verify

RESULTS = Path(str(files("wpt_bench.results")))
FOLDERS = sorted(path for path in RESULTS.iterdir() if path.is_dir() and is_published(path))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_published_figure_is_computed_again(folder: Path) -> None:
    checked = verify(folder)
    assert not checked.findings and checked.runs > 0 and checked.figures > 0


def test_there_is_something_to_check() -> None:
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_nothing_of_a_machines_folders_is_published(folder: Path) -> None:
    for path in folder.glob("*.json*"):
        text = path.read_text()
        assert not any(place in text for place in ("/home/", "/root/", "/tmp/", "\\Users\\")), path


@pytest.mark.slow
def test_the_gates_error_rates_are_what_its_runs_give() -> None:
    published = json.loads((RESULTS / "gate_error_rates.json").read_text())
    few = [rate for rate in published if rate["seeds"] == 2]
    again = error_rates(RESULTS / "metaworld-gate", seeds=[2], trials=few[0]["trials"])
    assert [asdict(rate) for rate in again] == few
