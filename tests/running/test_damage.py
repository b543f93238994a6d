"""Every kind of file that a grid leaves, damaged in every way: found, named, and nothing else is lost."""

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from running import small
from running.test_checkpoint import damage
from wpt_bench import records
from wpt_bench.analysis.scores import read_all
from wpt_bench.data.labels import labels
from wpt_bench.data.store import Dataset
from wpt_bench.protocol import UserError
from wpt_bench.registry import suite, task
from wpt_bench.running.grid import run_grid, standing
from wpt_bench.running.local import this_machine
from wpt_bench.running.loop import execute
from wpt_bench.running.plan import Layout
from wpt_bench.running.stages import is_done

LONG = small.identity("dreamer", None, budget=6000, evaluation_every=1.0, evaluation_episodes=1)
HOW = ("flip", "truncate", "empty", "folder")


def copy(made: Layout, folder: Path) -> Layout:
    """What was made, to be damaged."""
    shutil.copytree(made.out, folder / "out")
    return Layout(folder / "out")


def ended(layout: Layout, *identities: records.Identity, data: Path | None = None) -> tuple[list[str], dict[str, str]]:
    """Status of each run after the grid was asked for again, and why what failed did."""
    result = run_grid(identities, layout, data, lambda *what: None, this_machine(1), retries=0)
    return [standing(identity, layout)[0] for identity in identities], result.failed


@pytest.fixture(scope="module")
def two_done(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("done"))
    for seed in (0, 1):
        execute(small.identity("dreamer", None, seed=seed), layout, None, small.silent)
    return layout


@pytest.mark.parametrize("name", [records.RECORD, records.ROWS])
@pytest.mark.parametrize("how", HOW)
def test_a_damaged_record_is_named_and_the_others_are_kept(
    two_done: Layout, tmp_path: Path, name: str, how: str
) -> None:
    layout = copy(two_done, tmp_path)
    first, second = (small.identity("dreamer", None, seed=seed) for seed in (0, 1))
    path = layout.runs / records.digest(first) / name
    damage(path, how)
    states, failed = ended(layout, first, second)
    assert states == ["damaged", "done"]
    (why,) = failed.values()
    assert why.startswith(str(path)) and f"delete {path.parent}" in why
    found, problems = read_all(layout.runs)
    usable = []
    for one in found:
        try:
            usable.append((one.run.id, len(one.episodes())))
        except records.RecordError as error:
            problems.append(str(error))
    assert [run_id for run_id, _ in usable] == [records.digest(second)]
    assert len(problems) == 1 and str(path) in problems[0]


def test_a_torn_last_row_is_left_out_and_then_made_again(tmp_path: Path) -> None:
    identity, calm, torn = small.identity("dreamer", None), Layout(tmp_path / "calm"), Layout(tmp_path / "torn")
    run_id = records.digest(identity)
    execute(identity, calm, None, small.silent)
    execute(identity, torn, None, small.silent, episodes=1)
    path = torn.runs / run_id / records.ROWS
    whole = len(records.read_episodes(path.parent))
    with open(path, "ab") as file:
        file.write(b'{"kind":"train","env_st')
    assert len(records.read_episodes(path.parent)) == whole
    execute(identity, torn, None, small.silent)
    assert small.outcome(torn, run_id) == small.outcome(calm, run_id)
    assert records.read_run(path.parent).notes == []


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Layout]:
    """A run of six episodes, done; and one that stopped after four, at its second checkpoint."""
    folder = tmp_path_factory.mktemp("halfway")
    calm, stopped = Layout(folder / "calm"), Layout(folder / "stopped")
    identity = LONG
    execute(identity, calm, None, small.silent)
    for episodes in (2, 4):
        execute(identity, stopped, None, small.silent, episodes=episodes)
    return calm, stopped


BEFORE, BEGINNING = "it goes on from the checkpoint before", "it starts again from the beginning"
NEEDED = {
    "newest": BEFORE,
    "newest oldest": BEGINNING,
    "replay/000003.safetensors": BEFORE,
    "replay/000001.safetensors": BEGINNING,
    records.ROWS: BEGINNING,
}
FEW = {
    ("newest", "truncate"),
    ("newest oldest", "flip"),
    ("replay/000003.safetensors", "folder"),
    (records.ROWS, "flip"),
}


@pytest.mark.parametrize(
    ("which", "how"),
    [
        pytest.param(which, how, marks=() if (which, how) in FEW else pytest.mark.chaos)
        for which in NEEDED
        for how in HOW
    ],
)
def test_a_run_gets_over_whatever_is_damaged(
    halfway: tuple[Layout, Layout], tmp_path: Path, which: str, how: str
) -> None:
    calm, layout = halfway[0], copy(halfway[1], tmp_path)
    identity = LONG
    folder = layout.runs / records.digest(identity)
    oldest, newest = sorted(folder.glob("checkpoint-*"))
    if which == records.ROWS and how == "flip":
        raw = bytearray((folder / records.ROWS).read_bytes())
        raw[raw.index(b"return") + 9] ^= 1  # another digit: still a row, and another result
        (folder / records.ROWS).write_bytes(raw)
    else:
        for name in which.split():
            damage({"newest": newest, "oldest": oldest}.get(name, folder / name), how)
    execute(identity, layout, None, small.silent)
    assert small.outcome(layout, folder.name) == small.outcome(calm, folder.name)
    (said,) = records.read_run(folder).notes
    assert NEEDED[which] in said and str(folder) in said


@pytest.mark.parametrize("name", ["stage.json", "weights.safetensors"])
@pytest.mark.parametrize("how", HOW)
def test_a_damaged_stage_is_named_and_what_needs_it_waits(
    prepared: tuple[Layout, Dataset], two_done: Layout, tmp_path: Path, name: str, how: str
) -> None:
    layout, data = copy(prepared[0], tmp_path), prepared[1].digest
    stage, waits = small.stage(data), small.identity("wpt", data)
    path = layout.stage(records.digest(stage)) / name
    damage(path, how)
    with pytest.raises(UserError) as error:
        is_done(layout, records.digest(stage))
    assert str(path) in str(error.value) and f"delete {path.parent}" in str(error.value)
    with pytest.raises(UserError, match=name):
        execute(waits, layout, small.path(layout), small.silent)
    shutil.copytree(two_done.runs, layout.runs, dirs_exist_ok=True)
    free = small.identity("dreamer", None)
    result = run_grid(
        [waits, free], layout, small.path(layout), lambda *what: None, this_machine(1), stages=[stage], retries=0
    )
    assert list(result.done) == [records.digest(free)]
    assert list(result.failed) == [records.digest(stage)]


@pytest.mark.parametrize("how", HOW)
def test_damaged_labels_are_computed_again(prepared: tuple[Layout, Dataset], tmp_path: Path, how: str) -> None:
    dataset = Dataset.open(small.path(copy(prepared[0], tmp_path)))
    shutil.rmtree(dataset.path / "labels", ignore_errors=True)  # of other tasks, that other tests asked for
    dmc, balance = suite("dmc"), task("dmc", small.TASK)
    before = labels(dataset, dmc, balance, range(4))
    (path,) = [path for path in dataset.path.glob("labels/*/*") if not path.name.startswith(".")]
    damage(path, how)
    after = labels(dataset, dmc, balance, range(4))
    assert all(
        (one[0] == other[0]).all() and (one[1] == other[1]).all() for one, other in zip(before, after, strict=True)
    )


def test_labels_are_not_written_through_a_link(prepared: tuple[Layout, Dataset], tmp_path: Path) -> None:
    dataset = Dataset.open(small.path(copy(prepared[0], tmp_path)))
    shutil.rmtree(dataset.path / "labels", ignore_errors=True)
    (tmp_path / "elsewhere").mkdir()
    (dataset.path / "labels").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads outside"):
        labels(dataset, suite("dmc"), task("dmc", small.TASK), [0])
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("declared", [2**63 - 1, 2**40, 10**8 + 1])
def test_weights_that_declare_a_huge_header_take_no_memory(
    prepared: tuple[Layout, Dataset], tmp_path: Path, declared: int
) -> None:
    layout, data = copy(prepared[0], tmp_path), prepared[1].digest
    stage_id = records.digest(small.stage(data))
    path = layout.weights(stage_id)
    path.write_bytes(struct.pack("<Q", declared) + path.read_bytes()[8:])
    record = path.with_name("stage.json")
    record.write_text(record.read_text().replace('"files"', '"ignored"').split('"notes"')[0].rstrip(", \n") + "}")
    with pytest.raises(UserError, match="cannot be read as weights"):
        execute(small.identity("wpt", data), layout, small.path(layout), small.silent)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 1 MiB; skipped where it cannot be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root can mount a small file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_ends_in_a_sentence_and_then_it_goes_on(
    halfway: tuple[Layout, Layout], tiny_disk: Path, tmp_path: Path
) -> None:
    layout, identity = Layout(tiny_disk / "out"), LONG
    layout.runs.mkdir(parents=True)
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(tiny_disk).free - 160 * 1024))  # room for some episodes, not for all
    with pytest.raises(records.Unwritable, match=r"No space left on device .*: make room or name another folder"):
        run_grid([identity], layout, None, lambda *what: None, this_machine(1))
    assert standing(identity, layout)[0] == "interrupted"
    ballast.unlink()
    execute(identity, layout, None, small.silent)
    run_id = records.digest(identity)
    assert small.outcome(layout, run_id) == small.outcome(halfway[0], run_id)


@pytest.mark.chaos
def test_a_read_only_disk_ends_in_a_sentence(tiny_disk: Path) -> None:
    layout, identity = Layout(tiny_disk / "out"), small.identity("dreamer", None)
    execute(identity, layout, None, small.silent, episodes=1)
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    assert standing(identity, layout)[0] == "interrupted"
    with pytest.raises(records.Unwritable, match="Read-only file system"):
        run_grid([identity], layout, None, lambda *what: None, this_machine(1))
    subprocess.run(["mount", "-o", "remount,rw", tiny_disk], check=True)
    execute(identity, layout, None, small.silent)
    assert standing(identity, layout)[0] == "done"
