"""Episodes on disk: what goes in comes out, and whatever is damaged, altered or hostile is refused by name."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_suite import build

from wpt_bench.data.mapped import mapped_file
from wpt_bench.data.store import Dataset, Manifest, ShardWriter, seal, verify
from wpt_bench.protocol import UserError
from wpt_bench.records import digest


def writer(folder: Path, name: str = "walker-noise", **changes) -> ShardWriter:
    known = {"embodiment": "walker", "scene": "walker", "collector": "noise", "action_repeat": 2, "settings": {}}
    return ShardWriter(folder, name=name, **{**known, **changes})


def sealed(folder: Path) -> Dataset:
    return seal(folder, suite="dmc", suite_version=1, name="test", seed=0, settings={"sigma": [0.5, 1]})


def episode(length: int, seed: int = 0, state_dim: int = 3, action_dim: int = 2, **changes) -> dict:
    rng = np.random.default_rng([seed, length])
    action = rng.uniform(-1, 1, (length + 1, action_dim)).astype(np.float32)
    action[0] = 0
    values = {
        "state": rng.standard_normal((length + 1, state_dim)).astype(np.float32),
        "action": action,
        "physics": rng.standard_normal((2 * length + 1, 4)),
        "image": rng.integers(0, 256, (length + 1, 64, 64, 3), dtype=np.uint8),
        "frame_reward": np.arange(2 * length + 1, dtype=np.float32),
        "frame_success": np.arange(2 * length + 1) % 2,
        "seed": seed,
        "origin": "walker-walk",
    }
    return {**values, **changes}


@settings(max_examples=20, deadline=None)
@given(shards=st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=4), min_size=1, max_size=3))
def test_every_episode_comes_back(tmp_path_factory, shards):
    folder = tmp_path_factory.mktemp("data")
    stored = []
    for number, lengths in enumerate(shards):
        with writer(folder, f"shard-{number}") as shard:
            for length in lengths:
                stored.append(episode(length, seed=len(stored), quality=number / 3))
                shard.add_episode(**stored[-1])
    data = sealed(folder)
    assert verify(folder) == []
    assert [info.length for info in data.episodes] == [length for lengths in shards for length in lengths]
    for index, values in enumerate(stored):
        for key, found in (
            ("state", data.state(index)),
            ("action", data.action(index)),
            ("image", data.image(index)),
            ("physics", data.physics(index)),
            ("frame_reward", data.frame_labels(index)[0]),
            ("frame_success", data.frame_labels(index)[1]),
            ("image", data.window(index, "image")),
        ):
            np.testing.assert_array_equal(found, values[key])
            assert not found.flags.writeable
        info = data.episodes[index]
        assert (info.index, info.seed, info.origin, info.quality) == (index, index, "walker-walk", values["quality"])
        assert (info.state_dim, info.action_dim, info.action_repeat) == (3, 2, 2)


def test_files_are_plain_numpy(tmp_path):
    with writer(tmp_path) as shard:
        shard.add_episode(**episode(3))
        shard.add_episode(**episode(4))
    data = sealed(tmp_path)
    state = np.load(tmp_path / "walker-noise" / "state.npy", mmap_mode="r", allow_pickle=False)
    assert (state.dtype, state.shape) == (np.float32, (9, 3))
    np.testing.assert_array_equal(state[4:], data.state(1))
    success = np.load(tmp_path / "walker-noise" / "frame_success.npy", allow_pickle=False)
    assert (success.dtype, success.shape) == (np.float32, (16,))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": np.full((4, 3), np.nan)}, "not finite"),
        ({"state": np.full((4, 3), 1e300)}, "not finite"),
        ({"state": np.zeros((5, 3))}, "5 agent|4 agent|rows of action"),
        ({"state": np.zeros((4, 97))}, "97 numbers, more than the 96"),
        ({"state": np.zeros(4)}, "one row of numbers"),
        ({"state": np.zeros((1, 3))}, "no step"),
        ({"action": np.zeros((4, 22))}, "22 numbers, more than the 21"),
        ({"action": np.full((4, 2), 1.01)}, "outside"),
        ({"action": np.ones((4, 2))}, "first action"),
        ({"action": np.full((4, 2), np.nan)}, "not finite"),
        ({"action": np.zeros((3, 2))}, "3 rows of action"),
        ({"action": np.zeros((4, 0))}, "one row of numbers"),
        ({"image": np.zeros((4, 64, 64, 3))}, "uint8"),
        ({"image": np.zeros((4, 32, 32, 3), np.uint8)}, "64 x 64 x 3"),
        ({"physics": np.zeros((4, 4))}, "need 7"),
        ({"physics": None}, "other arrays"),
        ({"frame_reward": np.ones(7)}, "row 0 must be 0"),
        ({"frame_reward": None}, "go together"),
        ({"frame_success": np.arange(7) / 10}, "neither 0 nor 1"),
        ({"frame_success": np.zeros((7, 1))}, "one number per environment step"),
    ],
)
def test_a_wrong_episode_is_refused_and_the_shard_stays_whole(tmp_path, changes, words):
    with writer(tmp_path) as shard:
        shard.add_episode(**episode(2))
        with pytest.raises(UserError, match=words):
            shard.add_episode(**episode(3, **changes))
        shard.add_episode(**episode(3, seed=5))
    data = sealed(tmp_path)
    assert verify(tmp_path) == []
    np.testing.assert_array_equal(data.state(1), episode(3, seed=5)["state"])


def test_dimensions_of_a_shard_are_equal(tmp_path):
    with writer(tmp_path) as shard:
        shard.add_episode(**episode(2))
        with pytest.raises(UserError, match="other arrays or dimensions"):
            shard.add_episode(**episode(2, state_dim=4))


def test_an_aborted_shard_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), writer(tmp_path) as shard:
        shard.add_episode(**episode(3))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no episode"), writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no finished shard"):
        sealed(tmp_path)


def test_a_killed_writer_leaves_nothing_that_looks_like_a_shard(tmp_path):
    code = (
        "import sys; from pathlib import Path; from test_data_store import writer, episode\n"
        "shard = writer(Path(sys.argv[1])); shard.add_episode(**episode(3)); print('written', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "walker-noise").exists()
    with pytest.raises(UserError, match="no finished shard"):
        sealed(tmp_path)
    with writer(tmp_path) as shard:
        shard.add_episode(**episode(3))
    assert len(sealed(tmp_path).episodes) == 1


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    """A file-size limit stands for the full disk: the kernel refuses the same writes."""
    code = (
        "import resource, sys; from pathlib import Path; from test_data_store import writer, episode\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from wpt_bench.records import Unwritable\n"
        "try:\n"
        "    with writer(Path(sys.argv[1])) as shard: shard.add_episode(**episode(20))\n"
        "except Unwritable as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"File too large ({tmp_path}") and "make room" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_shard_is_never_overwritten(tmp_path):
    with writer(tmp_path) as shard:
        shard.add_episode(**episode(3))
    with pytest.raises(UserError, match="exists already"):
        writer(tmp_path)


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp/elsewhere", "", ".hidden", "a/b", "a\n"])
def test_a_shard_is_named_like_a_folder(tmp_path, name):
    with pytest.raises(UserError, match="cannot name a shard"):
        writer(tmp_path, name)


def test_a_data_set_grows_by_sealing_again(tmp_path):
    build(tmp_path, ("cart",))
    before = Dataset.open(tmp_path)
    state = np.array(before.state(0))
    after = build(tmp_path, ("boat",))
    assert (len(before.episodes), len(after.episodes)) == (6, 12)
    assert before.digest != after.digest
    index = next(info.index for info in after.episodes if info.scene == "cart")
    np.testing.assert_array_equal(after.state(index), state)


def test_digest_is_a_function_of_the_data(tmp_path):
    digests = [build(tmp_path / str(number), ("cart",), seed=number // 2).digest for number in range(3)]
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 16


def test_action_repeats_are_not_mixed(tmp_path):
    build(tmp_path, ("cart",))
    with writer(tmp_path, action_repeat=1) as shard:
        shard.add_episode(state=np.zeros((2, 3)), action=np.zeros((2, 1)), seed=0, origin="walker-walk")
    with pytest.raises(UserError, match="action repeats"):
        sealed(tmp_path)


FILES = [
    "cart-noise/state.npy",
    "cart-noise/action.npy",
    "cart-noise/image.npy",
    "cart-noise/physics.npy",
    "arm-push-noise/frame_reward.npy",
    "arm-push-noise/frame_success.npy",
]


def flip(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip-first", "flip-last", "truncate", "empty", "longer", "delete", "folder"])
def test_every_damage_of_an_array_is_found_and_named(pixel_dataset, name, damage):
    path = pixel_dataset.path / name
    size = path.stat().st_size
    if damage == "delete":
        path.unlink()
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage.startswith("flip"):
        flip(path, 128 if damage == "flip-first" else -1)
    else:
        os.truncate(path, {"truncate": size - 1, "empty": 0, "longer": size + 1}[damage])
    problems = verify(pixel_dataset.path)
    assert len(problems) == 1
    assert str(path) in problems[0]
    if damage.startswith("flip"):
        assert "checksum" in problems[0]
        Dataset.open(pixel_dataset.path)
    else:
        with pytest.raises(UserError, match=name):
            Dataset.open(pixel_dataset.path)


@settings(max_examples=50, deadline=None)
@given(position=st.integers(0, 127), bit=st.integers(0, 7))
def test_a_damaged_header_is_never_parsed(dataset, tmp_path_factory, position, bit):
    folder = tmp_path_factory.mktemp("header") / "data"
    shutil.copytree(dataset.path, folder)
    path = folder / "cart-noise" / "state.npy"
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1 << bit
    path.write_bytes(raw)
    with pytest.raises(UserError, match="does not hold the array"):
        Dataset.open(folder)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "delete", "binary", "deep"])
@pytest.mark.parametrize("name", ["manifest.json", "cart-noise/shard.json"])
def test_every_damage_of_a_manifest_is_found_and_named(pixel_dataset, name, damage):
    path = pixel_dataset.path / name
    raw = path.read_bytes()
    position = raw.index(b'"seed":') + len(b'"seed": ')  # another seed is still a manifest
    contents = {
        "flip": raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :],
        "truncate": raw[:-20],
        "empty": b"",
        "binary": b"\x93NUMPY\xff\x00",
        "deep": b"[" * 100_000,
    }
    path.unlink() if damage == "delete" else path.write_bytes(contents[damage])
    problems = verify(pixel_dataset.path)
    assert len(problems) == 1
    assert str(path) in problems[0]
    if name == "manifest.json":
        with pytest.raises(UserError, match=r"manifest\.json"):
            Dataset.open(pixel_dataset.path)
    elif damage not in ("flip", "delete"):
        with pytest.raises(UserError, match=r"shard\.json"):
            sealed(pixel_dataset.path)


def test_several_problems_are_all_reported(pixel_dataset):
    flip(pixel_dataset.path / FILES[0], -1)
    (pixel_dataset.path / FILES[2]).unlink()
    flip(pixel_dataset.path / FILES[4], -1)
    problems = verify(pixel_dataset.path)
    assert len(problems) == 3
    for name in (FILES[0], FILES[2], FILES[4]):
        assert any(name in problem for problem in problems)


def forge(data: Dataset, change) -> None:
    """Writes a manifest changed by ``change`` whose own digest is right: only its contents can betray it."""
    path = data.path / "manifest.json"
    raw = json.loads(path.read_bytes())
    change(raw)
    raw["digest"] = ""
    try:
        raw["digest"] = digest(msgspec.convert(raw, Manifest))
    except msgspec.ValidationError:
        raw["digest"] = digest(raw)
    path.write_text(json.dumps(raw))


def refused(data: Dataset, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Dataset.open(data.path)
    assert len(verify(data.path)) >= 1


@pytest.mark.parametrize("name", ["../cart-noise", "/etc", "..", ".", "cart-noise/../..", "", "a" * 300, "x\x00y"])
def test_a_manifest_cannot_name_folders_outside(pixel_dataset, name):
    forge(pixel_dataset, lambda raw: raw["shards"][0].update(name=name))
    refused(pixel_dataset, "do not trust")


@pytest.mark.parametrize("file", ["../cart-noise/state.npy", "/etc/passwd", "action.npy", "", "state.npy\x00"])
def test_a_manifest_cannot_name_files_outside(pixel_dataset, file):
    forge(pixel_dataset, lambda raw: raw["shards"][0]["arrays"]["state"].update(file=file))
    refused(pixel_dataset, "does not fit")


@pytest.mark.parametrize("what", ["cart-noise", "cart-noise/state.npy"])
def test_links_cannot_lead_outside(pixel_dataset, tmp_path, what):
    path = pixel_dataset.path / what
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refused(pixel_dataset, "leads outside")


def huge(raw) -> None:
    shard = raw["shards"][1]
    rows = 10**15
    shard["episodes"] = [{**shard["episodes"][0], "length": rows - 1}]
    for key, array in shard["arrays"].items():
        array["shape"][0] = (rows - 1) * 2 + 1 if key == "physics" else rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (huge, "truncated"),
        (lambda raw: raw["shards"][1]["arrays"]["state"]["shape"].__setitem__(0, 10**15), "does not fit"),
        (lambda raw: raw["shards"][1]["arrays"]["state"]["shape"].__setitem__(1, 97), "more than the 96"),
        (lambda raw: raw["shards"][1]["arrays"]["state"]["shape"].__setitem__(1, 2), "too long"),
        (lambda raw: raw["shards"][1]["arrays"]["state"]["shape"].__setitem__(0, -22), "does not fit"),
        (lambda raw: raw["shards"][1]["arrays"]["action"].update(shape=[22, 30]), "more than the 21"),
        (lambda raw: raw["shards"][1]["arrays"]["action"].update(shape=[]), "one row of numbers"),
        (lambda raw: raw["shards"][1]["arrays"]["action"].update(dtype="|O"), "does not fit"),
        (lambda raw: raw["shards"][1]["arrays"]["action"].update(dtype="<i4"), "does not fit"),
        (lambda raw: raw["shards"][1]["arrays"].update(code=raw["shards"][1]["arrays"]["action"]), "does not fit"),
        (lambda raw: raw["shards"][1]["arrays"].pop("action"), "one row of numbers"),
        (lambda raw: raw["shards"][1]["episodes"].pop(), "does not fit"),
        (lambda raw: raw["shards"][1]["episodes"].clear(), "does not fit"),
        (lambda raw: raw["shards"][1]["episodes"][1].update(row=3), "do not follow"),
        (lambda raw: raw["shards"][1]["episodes"][0].update(length=-1), "do not follow"),
        (lambda raw: raw["shards"][1].update(action_repeat=0), "action repeat"),
        (lambda raw: raw.update(action_repeat=1), "action repeat"),
        (lambda raw: raw["shards"].clear(), "or none"),
        (lambda raw: raw["shards"].append(raw["shards"][0]), "twice"),
        (lambda raw: raw.update(schema=2), "schema 2"),
        (lambda raw: raw["shards"][0].update(schema=2), "schema 2"),
        (lambda raw: raw.pop("schema"), "schema"),
        (lambda raw: raw.update(surprise=1), "surprise"),
        (lambda raw: raw.update(seed="0"), "seed"),
        (lambda raw: raw["shards"][0]["episodes"][0].update(length=10**30), "do not follow"),
    ],
)
def test_a_hostile_manifest_reserves_no_memory(pixel_dataset, change, words):
    forge(pixel_dataset, change)
    tracemalloc.start()
    refused(pixel_dataset, words)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2**31


def test_missing_arrays_are_one_sentence(dataset):
    with pytest.raises(UserError, match="holds no image"):
        dataset.image(0)
    with pytest.raises(UserError, match="holds no frame_reward"):
        dataset.frame_labels(next(info.index for info in dataset.episodes if info.scene == "cart"))


def test_a_window_hides_its_neighbours(dataset):
    window, state = dataset.window(1, "state"), dataset.state(1)
    np.testing.assert_array_equal(window, state)
    assert np.shares_memory(window, state)
    owner = window.base
    while owner is not None:
        assert not isinstance(owner, np.ndarray) or owner.size <= window.size
        owner = getattr(owner, "base", None)
    mapped_file(window).release()
    np.testing.assert_array_equal(window, state)


def test_a_window_outlives_its_data_set(tmp_path):
    window = build(tmp_path, ("cart",)).window(2, "state")
    expected = np.load(tmp_path / "cart-noise" / "state.npy")[62:93]
    np.testing.assert_array_equal(window, expected)
