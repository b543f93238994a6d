"""Storage without rename: a local folder, memory, and a real S3 server; pushes that end half-way."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from running import small
from wpt_bench import records
from wpt_bench.protocol import UserError
from wpt_bench.running import grid, storage
from wpt_bench.running.exchange import Stored
from wpt_bench.running.plan import Layout, new_run

KEY = "runs/0123456789abcdef"


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Empty storage of each kind."""
    if request.param == "file":
        return (tmp_path / "storage").as_uri()
    bucket = request.getfixturevalue("s3") if request.param == "s3" else "memory://grid"
    return f"{bucket}/{uuid.uuid4().hex}"


def fill(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def objects(store: storage.Store) -> list[str]:
    store.fs.invalidate_cache()
    return [path.rpartition("/")[2] for path in store.fs.find(f"{store.root}/objects")]


def test_a_folder_travels_and_what_it_no_longer_holds_goes(url: str, tmp_path: Path) -> None:
    store = storage.open_store(url)
    assert storage.fetch(store, KEY, tmp_path / "there") is None and storage.finished(store) == set()
    here = fill(tmp_path / "here", run="1", replay__000000="a", same="a")
    held = storage.claim(store, KEY, here)
    storage.push(held)
    storage.fetch(store, KEY, tmp_path / "there")
    assert contents(tmp_path / "there") == {"run": "1", "replay/000000": "a", "same": "a"}
    fill(here, run="2", replay__000001="b")
    (here / "same").unlink()
    (here / ".lock").write_text("hidden files stay here")
    (here / "a name of somebody else's").write_text("and so do these")
    storage.push(held, done=True)
    storage.fetch(store, KEY, tmp_path / "there")
    assert contents(tmp_path / "there") == {"run": "2", "replay/000000": "a", "replay/000001": "b"}
    assert storage.finished(store) == {KEY}
    assert len(objects(store)) == 3
    store.fs.invalidate_cache()
    assert len(store.fs.find(f"{store.root}/pointers")) == 1


def test_what_is_equal_is_neither_pushed_nor_fetched_again(url: str, tmp_path: Path) -> None:
    store, here, there = storage.open_store(url), fill(tmp_path / "here", run="1", weights="w"), tmp_path / "there"
    held = storage.claim(store, KEY, here)
    storage.push(held)
    storage.fetch(store, KEY, there)
    times = {path.name: path.stat().st_mtime_ns for path in there.iterdir()}
    (weights,) = [name for name in objects(store) if name == held.pointer.files["weights"].sha256]
    store.fs.pipe_file(f"{store.root}/objects/{KEY}/{weights}", b"whoever writes or reads this object is found out")
    fill(here, run="2")
    storage.push(held)
    storage.fetch(store, KEY, there)
    assert contents(there) == {"run": "2", "weights": "w"}
    assert (there / "weights").stat().st_mtime_ns == times["weights"]


def test_damage_is_found_out_and_named(url: str, tmp_path: Path) -> None:
    store = storage.open_store(url)
    held = storage.claim(store, KEY, fill(tmp_path / "here", run="1"))
    storage.push(held)
    where = f"{store.root}/objects/{KEY}/{held.pointer.files['run'].sha256}"
    store.fs.pipe_file(where, b"2")
    with pytest.raises(UserError, match=f"run of {KEY} in .* is missing or damaged; delete {KEY}"):
        storage.fetch(store, KEY, tmp_path / "there")
    store.fs.rm_file(where)
    with pytest.raises(UserError, match="missing or damaged"):
        storage.fetch(store, KEY, tmp_path / "there")
    assert contents(tmp_path / "there") == {}


def test_a_torn_pointer_is_none(url: str, tmp_path: Path) -> None:
    store = storage.open_store(url)
    held = storage.claim(store, KEY, fill(tmp_path / "here", run="1"))
    storage.push(held)
    whole = store.fs.cat_file(f"{store.root}/pointers/{KEY}/{held.name}")
    store.fs.pipe_file(f"{store.root}/pointers/{KEY}/{'9' * 12}-{'0' * 16}.done", whole[:20])
    storage.fetch(store, KEY, tmp_path / "there")
    assert contents(tmp_path / "there") == {"run": "1"}


def test_a_pointer_cannot_name_files_outside_its_folder(url: str, tmp_path: Path) -> None:
    store = storage.open_store(url)
    held = storage.claim(store, KEY, fill(tmp_path / "here", run="1"))
    storage.push(held)
    entry = held.pointer.files["run"]
    for name in ("../run", "/tmp/run", "a/../../run", ".hidden", ""):
        evil = storage.Pointer(held.pointer.number + 1, "somebody", {name: entry})
        made = storage._point(store, KEY, evil, "open")
        with pytest.raises(UserError, match="that no folder of ours has"):
            storage.fetch(store, KEY, tmp_path / "there")
        store.fs.rm_file(f"{store.root}/pointers/{KEY}/{made}")


def test_who_was_thought_dead_is_told_so(url: str, tmp_path: Path) -> None:
    store = storage.open_store(url)
    old = storage.claim(store, KEY, fill(tmp_path / "old", run="1"))
    storage.push(old)
    new = storage.claim(store, KEY, tmp_path / "new")
    fill(tmp_path / "old", run="of one who was cut off")
    with pytest.raises(UserError, match="taken over by another process"):
        storage.push(old)
    fill(tmp_path / "new", run="2")
    storage.push(new)
    storage.fetch(store, KEY, tmp_path / "there")
    assert contents(tmp_path / "there") == {"run": "2"}
    assert objects(store) == [new.pointer.files["run"].sha256]


DYING = """
import os, signal, sys
from pathlib import Path
import fsspec
from wpt_bench.running import storage
store = storage.open_store(sys.argv[1])
folder, key = Path(sys.argv[2]), sys.argv[3]
held = storage.claim(store, key, folder)
(folder / "run").write_text("2")
(folder / "more").write_text("m")
def die(*arguments):  # the driver's write of the pointer, after that of the objects
    os.kill(os.getpid(), signal.SIGKILL)
store.fs.pipe_file = die
storage.push(held)
"""


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_killed_between_objects_and_pointer_the_folder_is_as_before(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    here = fill(tmp_path / "here", run="1")
    url = f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}" if kind == "s3" else (tmp_path / "storage").as_uri()
    store = storage.open_store(url)
    storage.push(storage.claim(store, KEY, here))
    killed = subprocess.run([sys.executable, "-c", DYING, url, str(here), KEY], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(objects(store)) == 3  # the old one and both that were pushed for nothing
    held = storage.claim(store, KEY, tmp_path / "there")
    assert contents(tmp_path / "there") == {"run": "1"}
    assert len(objects(store)) == 1
    fill(tmp_path / "there", run="3")
    storage.push(held)
    storage.fetch(store, KEY, tmp_path / "last")
    assert contents(tmp_path / "last") == {"run": "3"}


def test_what_is_fetched_once_is_whole_or_not_there(url: str, tmp_path: Path) -> None:
    store, here = storage.open_store(url), fill(tmp_path / "here", manifest="m", shard__state="s", labels__reward="r")
    held = storage.claim(store, "data/d", here)
    assert not storage.fetch_once(store, "data/d", tmp_path / "there")
    storage.push(held)
    assert not storage.fetch_once(store, "data/d", tmp_path / "there")
    storage.push(held, done=True)
    assert storage.fetch_once(store, "data/d", tmp_path / "there")
    assert {name for name in contents(tmp_path / "there") if not name.startswith(".")} == {"manifest", "shard/state"}


def test_what_became_of_a_run_is_told_from_storage(url: str, tmp_path: Path) -> None:
    identity, layout = small.identity("dreamer", None, budget=6000), Layout(tmp_path)
    run, store = new_run(identity), storage.open_store(url)

    def told() -> tuple[str, str]:
        return grid.standing(identity, layout, Stored(url))

    assert told() == ("pending", "")
    held = storage.claim(store, f"runs/{run.id}", tmp_path / "a worker's")
    assert told() == ("begun", "in storage, where nothing of it was pushed yet")
    run.status, run.env_steps = "running", 2000
    records.write_run(held.folder, run)
    storage.push(held)
    assert told() == ("begun", "in storage, last pushed after 2,000 of 6,000 environment steps")
    run.status, run.error = "failed", "Traceback\nIt failed."
    records.write_run(held.folder, run)
    storage.push(held)
    assert told() == ("failed", "It failed.")
    store.fs.rm_file(f"{store.root}/objects/runs/{run.id}/{held.pointer.files[records.RECORD].sha256}")
    assert told()[0] == "damaged" and f"run.json of runs/{run.id} in {url} is missing or damaged" in told()[1]
    run.status = "done"
    records.write_run(held.folder, run)
    storage.push(held, done=True)
    assert told()[0] == "done"
    records.write_run(layout.runs / run.id, run)
    assert told() == ("done", "")  # it is here too


def test_a_file_is_read_also_where_a_newer_one_is_pushed_meanwhile(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = storage.open_store(url)
    here = fill(tmp_path / "here", run="1")
    held = storage.claim(store, KEY, here)
    assert storage.read(store, KEY, "run") is None
    storage.push(held)
    read, find = store.fs.cat_file, store.fs.find

    def push_before_reading(path: str) -> bytes:
        if "/objects/" in path:
            monkeypatch.setattr(store.fs, "cat_file", read)
            fill(here, run="newer")
            storage.push(held)
        return read(path)

    def miss_both_pointers(path: str) -> list[str]:
        monkeypatch.setattr(store.fs, "find", find)
        return []

    monkeypatch.setattr(store.fs, "cat_file", push_before_reading)
    assert storage.read(store, KEY, "run") == b"newer"
    monkeypatch.setattr(store.fs, "find", miss_both_pointers)
    assert storage.read(store, KEY, "run") == b"newer"
    assert storage.read(store, KEY, "other") is None


def test_bad_storage_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nonsense://here is no URL of storage"):
        storage.open_store("nonsense://here")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(storage.Unanswered, match="does not answer as it should") as raised:
        storage.claim(storage.open_store(file.as_uri()), KEY, fill(tmp_path / "here", run="1"))
    assert "\n" not in str(raised.value)
