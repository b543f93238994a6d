"""The process pool: every run comes to its end, whatever happens to one of them."""

import os
import signal
import threading
import time
from pathlib import Path

import msgspec
import psutil

from running import small
from wpt_bench import records
from wpt_bench.data.store import Dataset
from wpt_bench.records import Identity
from wpt_bench.running.grid import run_grid, status
from wpt_bench.running.plan import Layout


def test_a_failing_run_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    good = [small.identity("dreamer", None, seed=seed) for seed in (0, 1)]
    bad = msgspec.structs.replace(good[0], settings=good[0].settings | {"model_lr": 1e30, "grad_clip": 1e30})
    seen: dict[str, str] = {}
    result = run_grid([bad, *good], layout, None, lambda run, share, what: seen.update({run: what}), workers=2)
    assert set(result.done) == {records.digest(identity) for identity in good}
    assert list(result.failed) == [records.digest(bad)]
    assert [status(identity, layout) for identity in (bad, *good)] == ["failed", "done", "done"]
    recorded = records.read_run(layout.runs / records.digest(bad))
    assert recorded.error is not None and "smaller step size" in recorded.error
    assert seen[records.digest(bad)].startswith("failed") and seen[records.digest(good[0])].startswith("done")


def test_a_killed_worker_costs_nothing_but_time(prepared: tuple[Layout, Dataset], tmp_path: Path) -> None:
    (tmp_path / "stages").symlink_to(prepared[0].out / "stages")
    layout = Layout(tmp_path)
    runs = [small.identity("wpt", prepared[1].digest, seed=seed, budget=4000) for seed in (0, 1)]
    killed = threading.Event()

    def kill_once() -> None:
        while not killed.is_set():
            rows = layout.runs / records.digest(runs[0]) / "episodes.jsonl"
            if rows.exists() and status(runs[0], layout) == "running":
                workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
                os.kill(workers[0].pid, signal.SIGKILL)
                killed.set()
            time.sleep(0.05)

    killer = threading.Thread(target=kill_once, daemon=True)
    killer.start()
    result = run_grid(runs, layout, small.path(prepared[0]), lambda run, share, what: None, workers=1)
    assert killed.is_set()
    assert len(result.done) == 2 and not result.failed


def test_status_tells_the_truth(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    identity = small.identity("dreamer", None)
    assert status(identity, layout) == "pending"
    _pretend(identity, layout, "running")
    assert status(identity, layout) == "pending"  # nobody holds its lock: its process died
    _pretend(identity, layout, "failed")
    assert status(identity, layout) == "failed"


def _pretend(identity: Identity, layout: Layout, state: records.Status) -> None:
    from wpt_bench.running.plan import new_run

    run = new_run(identity)
    run.status = state
    records.write_run(layout.runs / run.id, run)
