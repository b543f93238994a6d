"""Recordings: a shard made again from its seeds and actions, to the last bit or not at all."""

import hashlib
import json
import shutil
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tiny_suite import SUITE, Settings

from wpt_bench.data.collect import collect
from wpt_bench.data.mapped import npy_header
from wpt_bench.data.recording import find, record
from wpt_bench.data.store import Dataset, read_shard
from wpt_bench.profiles import load
from wpt_bench.protocol import UserError
from wpt_bench.suites.dmc import SUITE as DMC

RESULTS = Path(__file__).parents[2] / "results"


def run(folder, recorded=None, **settings) -> Dataset:
    scenes = ("cart", "boat")
    return collect(
        SUITE, Settings(**settings), scenes, 0, folder, workers=2, progress=lambda *told: None, recorded=recorded
    )


@pytest.fixture
def recorded(tmp_path):
    """Recordings of the shards whose collectors act, beside the data set ``collected``."""
    data = run(tmp_path / "collected")
    for scene in ("cart", "boat"):
        for path, content in record(data, f"{scene}-noise").items():
            (tmp_path / "recorded" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "recorded" / path).write_bytes(content)
    return tmp_path / "recorded"


def test_a_recording_holds_the_actions_of_every_episode(recorded, tmp_path):
    data = Dataset.open(tmp_path / "collected")
    boats = [info.index for info in data.episodes if info.shard == "boat-noise"]
    found = find(recorded, "boat-noise", next(s for s in data.manifest.shards if s.name == "boat-noise").settings)
    actions = found.actions()
    assert len(actions) == len(boats) == 3
    for index, action in zip(boats, actions, strict=True):
        np.testing.assert_array_equal(action, data.action(index))
    assert find(recorded, "boat-still", found.shard.settings) is None
    assert find(recorded, "boat-noise", {**found.shard.settings, "episodes": 4}) is None


def test_a_data_set_is_played_where_collecting_would_fail(recorded, tmp_path):
    """Shards without a recording are collected; the trouble is in one that has one."""
    with pytest.raises(UserError, match="the cart fell over"):
        run(tmp_path / "failing", trouble="raise:cart-noise")
    played = run(tmp_path / "played", recorded, trouble="raise:cart-noise")
    assert played.manifest.shards == Dataset.open(tmp_path / "collected").manifest.shards


def test_with_other_settings_it_is_collected(recorded, tmp_path):
    other = run(tmp_path / "other", recorded, episodes=2)
    assert other.manifest.shards == run(tmp_path / "plain", episodes=2).manifest.shards


def test_what_comes_out_otherwise_is_refused_and_not_kept(recorded, tmp_path):
    packed = recorded / "cart-noise" / "actions.zlib"
    planes = bytearray(zlib.decompress(packed.read_bytes()))
    planes[1] ^= 1  # the last bit of the first action, which noise leaves within the bounds
    packed.write_bytes(zlib.compress(planes))
    with pytest.raises(UserError, match="cart-noise does not come out as it was recorded"):
        run(tmp_path / "played", recorded)
    assert not list((tmp_path / "played").glob("*cart-noise*"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda raw: raw[:-9], "does not hold the 93 x 1 actions"),
        (lambda raw: b"no archive", "cannot be read as actions"),
        (lambda raw: zlib.compress(bytes(2**24)), "does not hold the 93 x 1 actions"),
        (lambda raw: zlib.compress(b""), "does not hold the 93 x 1 actions"),
    ],
    ids=["cut", "garbage", "bomb", "empty"],
)
def test_damaged_actions_end_in_a_sentence(recorded, tmp_path, damage, words):
    packed = recorded / "cart-noise" / "actions.zlib"
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(UserError, match=words):
        run(tmp_path / "played", recorded)


def test_missing_actions_end_in_a_sentence(recorded, tmp_path):
    shutil.move(recorded / "cart-noise" / "actions.zlib", tmp_path)
    with pytest.raises(UserError, match=r"actions\.zlib cannot be read as actions"):
        run(tmp_path / "played", recorded)


def test_a_description_that_declares_too_much_is_refused(recorded, tmp_path):
    path = recorded / "cart-noise" / "shard.json"
    shard = json.loads(path.read_bytes())
    del shard["arrays"]["physics"]
    shard["episodes"] = [{**shard["episodes"][0], "length": 10**9}]
    for array in shard["arrays"].values():
        array["shape"][0] = 10**9 + 1
    path.write_text(json.dumps(shard))
    with pytest.raises(UserError, match="bytes of actions; do not trust it"):
        run(tmp_path / "played", recorded)
    shard["arrays"]["action"]["shape"][0] = 93
    path.write_text(json.dumps(shard))
    with pytest.raises(UserError, match="declares an array 'action' that does not fit its episodes"):
        run(tmp_path / "played", recorded)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/data/*")), ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_published_actions_are_those_of_the_shard_they_belong_to(path):
    shard = read_shard(path / "shard.json")
    found = find(path.parent, path.name, shard.settings)
    action = np.concatenate(found.actions())
    declared = shard.arrays["action"]
    assert (action.shape, action.dtype.str) == (declared.shape, declared.dtype)
    assert hashlib.sha256(npy_header(action.dtype, action.shape) + action.tobytes()).hexdigest() == declared.sha256


@pytest.mark.parametrize("kernel", [None, "Nehalem"])
@pytest.mark.parametrize("scene", ["acrobot", "cartpole", "cheetah", "walker", "quadruped"])
def test_published_data_come_out_whatever_the_processor(scene, kernel, tmp_path, monkeypatch):
    """A shard of each body behind the published runs of DMControl; numpy's BLAS sums as it does on this processor, or
    with the kernel of another, where this one can run it."""
    if kernel:
        monkeypatch.setenv("OPENBLAS_CORETYPE", kernel)  # the worker that plays loads numpy anew
    recorded = RESULTS / "dmc-lite" / "data"
    data = load("lite").grid("dmc").data
    only = msgspec.structs.replace(data, pink_noise=0, random_reward=0)
    played = collect(
        DMC, only, (scene,), data.seed, tmp_path, workers=1, progress=lambda *told: None, recorded=recorded
    )
    assert played.manifest.shards == [read_shard(recorded / f"{scene}-curiosity" / "shard.json")]
    assert len(played.episodes) == data.curiosity
