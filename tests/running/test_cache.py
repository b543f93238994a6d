"""The cache of a cluster's workers: what nobody uses goes, what somebody uses stays, whoever dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from running import small
from wpt_bench import records
from wpt_bench.running import cache, storage
from wpt_bench.running.exchange import perform_with_storage
from wpt_bench.running.jobs import Work
from wpt_bench.running.plan import Layout

USING = """
import sys, time
from pathlib import Path
from wpt_bench.running import cache
with cache.using([Path(sys.argv[1])]):
    print("holding", flush=True)
    time.sleep(600)
"""


def age(path: Path) -> None:
    """As if it had been used last before what is kept."""
    then = time.time() - cache.KEPT_SECONDS - 60
    os.utime(path / ".used", (then, then))


def used(path: Path) -> Path:
    with cache.using([path]):
        (path / "file").write_text("")
    return path


def test_what_nobody_has_used_for_long_is_removed(tmp_path: Path) -> None:
    old, new, unmarked = used(tmp_path / "data/old"), used(tmp_path / "stages/new"), tmp_path / "runs/unmarked"
    unmarked.mkdir(parents=True)
    age(old)
    cache.sweep(tmp_path)
    assert not old.exists() and not list((tmp_path / "data").iterdir())
    assert (new / "file").exists() and unmarked.exists()
    age(unmarked)
    cache.sweep(tmp_path)
    assert not unmarked.exists()
    cache.sweep(tmp_path / "there is none")


def test_what_somebody_uses_stays_until_his_process_dies(tmp_path: Path) -> None:
    path = used(tmp_path / "data/d")
    holders = [
        subprocess.Popen([sys.executable, "-c", USING, path], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        assert [holder.stdout.readline() for holder in holders] == ["holding\n"] * 2
        for holder in holders:
            age(path)
            cache.sweep(tmp_path)
            assert (path / "file").exists()
            holder.send_signal(signal.SIGKILL)
            holder.wait()
        cache.sweep(tmp_path)
        assert not path.exists()
    finally:
        for holder in holders:
            holder.kill()
            holder.stdout.close()


CROWD = """
import os, sys, time
from pathlib import Path
from wpt_bench.running import cache
root, cache.KEPT_SECONDS = Path(sys.argv[1]), -1.0  # whatever nobody holds is swept at once
path = root / "data" / "d"
print("ready", flush=True)
sys.stdin.readline()
for _ in range(200):
    cache.sweep(root)
    with cache.using([path]):
        mine = path / f"{os.getpid()}"
        mine.write_text("")
        time.sleep(0.001)
        assert mine.exists(), "swept while it was used"
"""


def test_a_crowd_sweeps_and_uses_the_same_folder(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    crowd = [subprocess.Popen([sys.executable, "-c", CROWD, tmp_path], **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in crowd] == ["ready\n"] * 4
    for process in crowd:  # all at once, however long it took them to start
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [(process.communicate(), process.returncode) for process in crowd]
    assert [code for _, code in ends] == [0] * 4, ends


def test_a_job_sweeps_the_cache_and_marks_what_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    left = used(tmp_path / "cache/data/of a grid long ago")
    age(left)
    url, identity = (tmp_path / "storage").as_uri(), small.identity("dreamer", None)
    held = []

    def progress(fraction: float, what: str = "") -> None:
        age(own := tmp_path / "cache/runs" / records.digest(identity))
        cache.sweep(tmp_path / "cache")
        held.append(own.exists())

    perform_with_storage(identity, Work(Layout(tmp_path), None, storage=url), progress, patient=False)
    assert held and all(held) and not left.exists()
    assert storage.finished(storage.open_store(url)) == {f"runs/{records.digest(identity)}"}
    assert not list((tmp_path / "cache/runs").iterdir())
