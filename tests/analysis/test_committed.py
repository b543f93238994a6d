"""What is committed in results/ is what its records say."""

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import pytest
from safetensors.torch import load_file

from wpt_bench.analysis.archive import is_published
from wpt_bench.analysis.rates import error_rates, methods_in
from wpt_bench.analysis.verify import verify
from wpt_bench.protocol import ACTION_PAD, STATE_PAD
from wpt_bench.records import digest
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.model import WorldModel

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
    for path in (*folder.rglob("*.json*"), *folder.glob("*.html")):
        text = path.read_text()
        assert not any(place in text for place in ("/home/", "/root/", "/tmp/", "\\Users\\")), path
    words = json.loads((folder / "manifest.json").read_text())["command"].split()
    assert not any(Path(word).is_absolute() for word in words), words


STAGES = [stage.parent for folder in FOLDERS for stage in folder.glob("stages/*/weights.safetensors")]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage.parents[1].name}-{stage.name}")
def test_published_weights_are_those_of_the_model_that_is_named(stage: Path) -> None:
    identity = json.loads((stage / "stage.json").read_text())["identity"]
    assert digest(identity) == stage.name
    size = WorldModelSize(**identity["world_model"])
    model = WorldModel(size, identity["observation"], STATE_PAD, ACTION_PAD, identity["precision"])
    model.load_state_dict(load_file(stage / "weights.safetensors"))


@pytest.mark.slow
def test_the_gates_error_rates_are_what_its_runs_give() -> None:
    published = json.loads((RESULTS / "gate_error_rates.json").read_text())
    few = [rate for rate in published if rate["seeds"] == 4]
    again = [
        asdict(rate)
        for method in methods_in(RESULTS / "metaworld-gate")
        for rate in error_rates(RESULTS / "metaworld-gate", method=method, seeds=[4], trials=few[0]["trials"])
    ]
    assert again == few
