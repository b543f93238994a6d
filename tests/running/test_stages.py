"""What a pre-training learns from, the examples it leaves behind, and what becomes of a folder that damages them."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from data import tiny_suite
from learning import test_learning as learning

from running import small
from wpt_bench import records, registry
from wpt_bench.data.store import Dataset
from wpt_bench.running import bench, plan, stages
from wpt_bench.running.plan import Layout
from wpt_bench.wpt.pretraining import CONTEXT, HORIZON, Example


@pytest.fixture
def copy(prepared: tuple[Layout, Dataset], tmp_path: Path) -> tuple[Layout, Path]:
    """The prepared folder, to be damaged, and the path of its examples."""
    layout, dataset = prepared
    shutil.copytree(layout.out, tmp_path / "out")
    mine = Layout(tmp_path / "out")
    return mine, mine.examples(records.digest(small.stage(dataset.digest)))


def test_a_stage_keeps_an_example_that_the_report_is_handed(copy):
    layout, path = copy
    extras = bench.report_extras(small.selection(), layout)
    (row,), (example,) = extras["open_loop"], extras["open_loop_examples"]
    assert row["observation"] == "state" and row["stage"] == example["stage"] == path.parent.name
    assert row["seed"] == example["seed"] == 0
    assert len(row["by_step"]) == len(row["persistence_by_step"]) == len(row["mean_by_step"]) == HORIZON
    stored = safetensors.numpy.load_file(path)
    assert set(stored) == {"cartpole/truth", "cartpole/predicted", "cartpole/dimension"}
    for name, array in example["embodiments"]["cartpole"].items():
        assert np.array_equal(array, stored[f"cartpole/{name}"])
    assert example["damage"] == ""
    truth, predicted = (example["embodiments"]["cartpole"][name] for name in ("truth", "predicted"))
    assert truth.shape == (CONTEXT + HORIZON, 5) and predicted.shape == (HORIZON, 5) and predicted.dtype == np.float32


def test_held_out_episodes_are_not_learned_from(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "suites", lambda: {"tiny": tiny_suite.SUITE})
    dataset = tiny_suite.build(tmp_path / "data", ("cart", "boat"), episodes=10)
    profile = learning.short(learning.profile("state"))
    profile = msgspec.structs.replace(
        profile, pretraining=msgspec.structs.replace(profile.pretraining, updates=1, held_out=0.3)
    )
    (identity,) = plan.stages(plan.select("tiny", profile, (), ("wpt",)), dataset.digest)
    learned, held_out = [], []

    class Idle:
        """Only writes down which episodes there are to learn from."""

        def __init__(self, episodes, *rest):
            learned.extend(map(content, episodes))
            self.world_model = self

        def update(self):
            return {}

        def state_dict(self):
            return {}

    def validate(model, episodes, *rest):
        held_out.append([*map(content, episodes)])
        return {}

    def foresee(model, episodes, known, *rest):
        assert [*map(content, episodes)] in held_out and {*map(content, known)} < {*learned}
        return {}, Example(np.zeros(1), np.zeros(1), None)

    def content(episode):
        return episode.observation.tobytes()

    monkeypatch.setattr(stages, "Pretrainer", Idle)
    monkeypatch.setattr(stages, "validation_loss", validate)
    monkeypatch.setattr(stages, "open_loop_error", foresee)
    stages.make(identity, Layout(tmp_path / "out"), dataset.path, small.silent)
    assert [len(episodes) for episodes in held_out] == [6, 6]  # of twenty episodes of each of two bodies
    every = [*learned, *held_out[0], *held_out[1]]
    assert len(every) == len({*every}) == 40


def test_examples_are_there_before_the_stage_counts_as_made(prepared, tmp_path, monkeypatch):
    _, dataset = prepared
    layout, identity = Layout(tmp_path), small.stage(prepared[1].digest)
    written = []

    def write(path: Path, data: bytes) -> None:
        written.append(path.name)
        path.write_bytes(data)

    monkeypatch.setattr(records, "write_atomic", write)
    stages.make(identity, layout, dataset.path, small.silent)
    assert written == ["weights.safetensors", "open_loop.safetensors", "stage.json"]


def test_why_a_stage_failed_is_kept_until_it_is_made(prepared, tmp_path):
    layout, identity = Layout(tmp_path), small.stage(prepared[1].digest)
    stage_id = records.digest(identity)
    assert stages.why_failed(layout, stage_id) is None
    for sentence in ("No room.", "No data."):
        stages.keep_failure(layout, stage_id, stages.Failure(sentence, "Traceback"))
        assert stages.why_failed(layout, stage_id).endswith(f"failure.json: {sentence}")
    stages.make(identity, layout, prepared[1].path, small.silent)
    assert stages.why_failed(layout, stage_id) is None
    assert not (layout.stage(stage_id) / "failure.json").exists()


def test_a_damaged_record_of_a_failure_is_a_sentence(tmp_path):
    layout = Layout(tmp_path)
    stages.keep_failure(layout, "abc", stages.Failure("No room.", ""))
    path = layout.stage("abc") / "failure.json"
    path.write_bytes(path.read_bytes()[:9])
    said = stages.why_failed(layout, "abc")
    assert said.startswith(f"{path} cannot be read") and "\n" not in said


def test_a_stage_of_an_older_version_has_no_example(copy):
    layout, path = copy
    path.unlink()
    (example,) = bench.report_extras(small.selection(), layout)["open_loop_examples"]
    assert example["embodiments"] == {} and example["damage"] == ""
    assert stages.is_done(layout, path.parent.name)


@pytest.mark.parametrize("trouble", ["torn", "empty", "half", "another"])
def test_a_damaged_example_is_one_sentence_that_names_the_file(copy, trouble):
    layout, path = copy
    stored = safetensors.numpy.load_file(path)
    damaged = {
        "torn": path.read_bytes()[:-7],
        "empty": b"",
        "half": safetensors.numpy.save({"cartpole/truth": stored["cartpole/truth"]}),
        "another": safetensors.numpy.save({name.replace("cartpole", "x"): array for name, array in stored.items()}),
    }
    path.write_bytes(damaged[trouble])
    extras = bench.report_extras(small.selection(), layout)
    (example,) = extras["open_loop_examples"]
    assert example["damage"].startswith(f"{path} is damaged (") and example["embodiments"] == {}
    assert "delete" in example["damage"] and extras["open_loop"] and extras["data_card"]
