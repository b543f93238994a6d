"""Files from strangers: whatever is in them, reading ends in a sentence or in a result, never in anything else.

Real files are mutated at random: bytes flipped, cut, repeated, put in from elsewhere; JSON values are replaced by
nested, huge and misleading ones. ``nox -s chaos`` does far more of it.
"""

import json
import random
import resource
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from analysis import synthetic
from analysis.whole import published
from data import tiny_suite

from wpt_bench import profiles, records
from wpt_bench.analysis import archive
from wpt_bench.data import store
from wpt_bench.protocol import UserError
from wpt_bench.running import checkpoint, stages
from wpt_bench.running.plan import Layout

FEW, MANY = 60, 3000
IN_A_PROCESS = "published episodes"
"""Each file of this kind is first read by a process of its own: a sixth as many."""
EVIL: list[Any] = ["../../evil", "/etc/passwd", "a\x00b", "", "x" * 5000, -1, 0, 2**63, 10**30, 1e308, None, True]
EVIL += [[], {}, [[]] * 50, {"a": {"b": {}}}, [2**62, 2**62]]
MOST_MEMORY = 64 * 2**20


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """The bytes with some random damage."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        length = rng.choice([1, 2, 8, 64, 1024])
        match rng.randrange(5):
            case 0 if data:
                data[at % len(data)] = rng.randrange(256)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = rng.randbytes(length)
            case _:
                data[at : at + 8] = rng.choice([b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7, b"[" * 8])
    return bytes(data)


def replaced(value: Any, rng: random.Random) -> Any:
    """A JSON value, one of its parts replaced by something evil."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        return {**value, key: replaced(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], replaced(value[at], rng), *value[at + 1 :]]
    return rng.choice(EVIL)


def _run(folder: Path) -> Path:
    synthetic.write(folder, "dreamer", "walker-stand", 0, synthetic.flat(0.5))
    (path,) = folder.glob("*/run.json")
    return path


def _checkpoint(folder: Path) -> Path:
    import torch

    folder.mkdir()
    path = folder / "checkpoint.safetensors"
    path.write_bytes(checkpoint.encode({"weights": torch.zeros(64), "updates": 3, "replay": ["a"]}))
    return path


def _stage(folder: Path) -> Path:
    path = Layout(folder).stage("abc") / "stage.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(records.encode_checked(stages.Stage("abc", {"seed": 0}, {}, 1.0, [], [], files={"w": "1"})))
    return path


def _failure(folder: Path) -> Path:
    stages.keep_failure(Layout(folder), "abc", stages.Failure("It failed.", "Traceback"))
    return Layout(folder).stage("abc") / "failure.json"


def _read_failure(path: Path) -> None:
    said = stages.why_failed(Layout(path.parents[2]), "abc")
    if said and "cannot be read" in said:
        raise UserError(said)


def _profile(folder: Path) -> Path:
    folder.mkdir()
    source = Path(__file__).parent / "cli" / "small.toml"
    return Path(shutil.copy(source, folder / "small.toml"))


def _dataset(folder: Path) -> Path:
    return tiny_suite.build(folder, ("cart",)).path / "manifest.json"


def _published(folder: Path, name: str) -> Path:
    synthetic_runs = folder / "runs"
    for seed in (0, 1):
        synthetic.write(synthetic_runs, "dreamer", "walker-stand", seed, synthetic.flat(0.5))
    return published(folder / "made", synthetic_runs) / name


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "run.json": (_run, lambda path: records.read_run(path.parent)),
    "episodes.jsonl": (
        lambda folder: _run(folder).with_name("episodes.jsonl"),
        lambda path: records.read_episodes(path.parent),
    ),
    "checkpoint": (_checkpoint, checkpoint.decode),
    "stage.json": (_stage, lambda path: stages.read_stage(Layout(path.parents[2]), "abc")),
    "failure.json": (_failure, _read_failure),
    "profile": (_profile, lambda path: profiles.load(str(path))),
    "manifest.json": (_dataset, lambda path: store.Dataset.open(path.parent)),
    "shard.json": (
        lambda folder: _dataset(folder).parent / "cart-noise" / "shard.json",
        lambda path: store.read_shard(path),
    ),
    "array": (
        lambda folder: _dataset(folder).parent / "cart-noise" / "state.npy",
        lambda path: store.verify(path.parents[1]),
    ),
    "published manifest": (
        lambda folder: _published(folder, archive.MANIFEST),
        lambda path: archive.read(path.parent),
    ),
    "published runs": (lambda folder: _published(folder, archive.RUNS), lambda path: archive.read(path.parent)),
    IN_A_PROCESS: (
        lambda folder: _published(folder, archive.EPISODES),
        lambda path: [one.episodes() for one in archive.read(path.parent)[0]],
    ),
}


def attack(kind: str, folder: Path, times: int) -> tuple[int, int]:
    """Reads a file mutated so many times; how often that ended in a sentence, and how often in a result."""
    times = times // 6 if kind == IN_A_PROCESS else times
    make, read = KINDS[kind]
    path = make(folder / "files")
    raw, rng, refused = path.read_bytes(), random.Random(kind), 0
    is_json = path.suffix == ".json"
    before = sorted(folder.rglob("*"))
    tracemalloc.start()
    for _ in range(times):
        hostile = json.dumps(replaced(json.loads(raw), rng)).encode() if is_json and rng.random() < 0.5 else None
        path.write_bytes(mutated(raw, rng) if hostile is None else hostile)
        try:
            read(path)
        except (UserError, records.RecordError, checkpoint.Damaged) as error:
            assert str(error)
            refused += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_MEMORY
    assert sorted(folder.rglob("*")) == before
    return refused, times - refused


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_end_in_a_sentence(kind: str, tmp_path: Path) -> None:
    refused, _ = attack(kind, tmp_path, FEW)
    assert refused > 0 or kind.startswith(("published", "array"))  # those that tell problems beside their results


@pytest.mark.chaos
@pytest.mark.parametrize("kind", KINDS)
def test_many_hostile_files_end_in_a_sentence(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused, read = attack(kind, tmp_path, MANY)
    with capsys.disabled():
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"\n{kind}: {refused + read} hostile files, {refused} refused, {read} read, {memory} MiB at most")  # noqa: T201


def test_a_published_folder_names_no_file_outside(tmp_path: Path) -> None:
    path = _published(tmp_path, archive.MANIFEST)
    plain = json.loads(path.read_bytes())
    plain["files"]["../../secret"] = "0" * 64
    path.write_text(json.dumps(plain))
    _, problems = archive.read(path.parent)
    assert any("leads out of its folder by '../../secret'" in problem for problem in problems)
    (path.parent / archive.RUNS).rename(tmp_path / "elsewhere")
    (path.parent / archive.RUNS).symlink_to(tmp_path / "elsewhere")
    found, problems = archive.read(path.parent)
    assert found == [] and any(repr(archive.RUNS) in problem for problem in problems)


@pytest.mark.parametrize("field", ["profile", "suite", "stage", "data"])  # a method or task is looked up, never a path
@pytest.mark.parametrize("value", ["../evil", "/etc", "..", "a/b", "a\n", ""])
def test_a_record_cannot_name_folders_outside(tmp_path: Path, field: str, value: str) -> None:
    path = _run(tmp_path / "runs")
    plain = json.loads(path.read_bytes())
    plain["identity"][field] = value
    plain["id"], plain["checksum"] = records.digest(plain["identity"]), ""
    path.write_text(json.dumps(plain))
    with pytest.raises(records.RecordError, match="cannot be read as a run record"):
        records.read_run(path.parent)
