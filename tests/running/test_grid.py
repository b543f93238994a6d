"""The process pool: every run comes to its end, whatever happens to one of them."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from running import small
from wpt_bench import records
from wpt_bench.data.store import Dataset
from wpt_bench.records import Identity
from wpt_bench.running.grid import run_grid, standing, status
from wpt_bench.running.local import this_machine
from wpt_bench.running.loop import LOCK_SECONDS, lock
from wpt_bench.running.plan import Layout, PretrainingIdentity, new_run


def test_a_failing_run_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    good = [small.identity("dreamer", None, seed=seed) for seed in (0, 1)]
    bad = msgspec.structs.replace(good[0], settings=good[0].settings | {"model_lr": 4e9, "grad_clip": 4e9})
    seen: dict[str, str] = {}
    result = run_grid([bad, *good], layout, None, lambda run, share, what: seen.update({run: what}), this_machine(2))
    assert set(result.done) == {records.digest(identity) for identity in good}
    assert list(result.failed) == [records.digest(bad)]
    assert [status(identity, layout) for identity in (bad, *good)] == ["failed", "done", "done"]
    recorded = records.read_run(layout.runs / records.digest(bad))
    assert recorded.error is not None and "Traceback" in recorded.error
    assert "smaller step size" in recorded.error.splitlines()[-1]
    assert len(recorded.notes) == 2  # of two attempts
    assert seen[records.digest(bad)].startswith("failed") and seen[records.digest(good[0])].startswith("done")


def test_a_killed_worker_costs_nothing_but_time(prepared: tuple[Layout, Dataset], tmp_path: Path) -> None:
    layout, data = Layout(tmp_path), prepared[1].digest
    stage = small.stage(data, updates=50)
    runs = [_on(stage, small.identity("wpt", data, seed=seed, budget=4000)) for seed in (0, 1)]
    killed: list[str] = []

    def kill_once(what: str, is_time: Callable[[], bool]) -> None:
        while not is_time():
            time.sleep(0.02)
        workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
        os.kill(workers[0].pid, signal.SIGKILL)
        killed.append(what)

    def kill_in_both() -> None:
        folder = layout.stage(records.digest(stage))
        kill_once("pre-training", folder.exists)
        rows = layout.runs / records.digest(runs[0]) / "episodes.jsonl"
        kill_once("run", lambda: rows.exists() and status(runs[0], layout) == "running")

    killer = threading.Thread(target=kill_in_both, daemon=True)
    killer.start()
    result = run_grid(runs, layout, small.path(prepared[0]), lambda *what: None, this_machine(1), stages=[stage])
    assert killed == ["pre-training", "run"]
    assert len(result.done) == 3 and not result.failed


def test_runs_that_start_from_nothing_are_made_while_others_wait_for_the_pre_training(
    prepared: tuple[Layout, Dataset], tmp_path: Path
) -> None:
    layout, data = Layout(tmp_path), prepared[1].digest
    stage = small.stage(data, updates=1500)  # for longer than a worker takes to start, however busy the machine
    waits, free = _on(stage, small.identity("wpt", data)), small.identity("dreamer", None)
    begun: list[set[str]] = []

    def report(job: str, share: float, what: str) -> None:
        if job == records.digest(stage) and share == 1:
            begun.append({path.parent.name for path in layout.runs.glob("*/run.json")})

    result = run_grid([waits, free], layout, small.path(prepared[0]), report, this_machine(2), stages=[stage])
    assert begun == [{records.digest(free)}]
    assert set(result.done) == {records.digest(job) for job in (stage, waits, free)}
    again = run_grid([waits, free], layout, small.path(prepared[0]), report, this_machine(2), stages=[stage])
    assert set(again.done) == set(result.done)


def test_where_a_pre_training_fails_its_runs_stay_pending(prepared: tuple[Layout, Dataset], tmp_path: Path) -> None:
    layout, data = Layout(tmp_path), prepared[1].digest
    stage = small.stage(data, learning_rate=1e30, grad_clip=1e30)
    waits, free = _on(stage, small.identity("wpt", data)), small.identity("dreamer", None)
    result = run_grid(
        [waits, free], layout, small.path(prepared[0]), lambda *what: None, this_machine(1), stages=[stage]
    )
    assert list(result.failed) == [records.digest(stage)]
    assert "lower `learning_rate`" in result.failed[records.digest(stage)]
    assert [status(run, layout) for run in (waits, free)] == ["pending", "done"]
    path = layout.stage(records.digest(stage)) / "failure.json"
    why = standing(waits, layout)[1]
    assert why.startswith(f"its stage failed, with the traceback in {path}: ") and "lower `learning_rate`" in why
    assert "Traceback" in msgspec.json.decode(path.read_bytes())["trace"]


def test_status_tells_the_truth(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    identity = small.identity("dreamer", None)
    assert status(identity, layout) == "pending"
    _pretend(identity, layout, "running")
    assert status(identity, layout) == "interrupted"  # nobody holds its lock: its process died
    _pretend(identity, layout, "failed")
    assert status(identity, layout) == "failed"


def _on(stage: PretrainingIdentity, run: Identity) -> Identity:
    """The run, started from this pre-training."""
    return msgspec.structs.replace(run, stage=records.digest(stage))


def _pretend(identity: Identity, layout: Layout, state: records.Status) -> None:
    run = new_run(identity)
    run.status = state
    records.write_run(layout.runs / run.id, run)


def test_a_run_that_ends_while_its_lock_is_looked_at_is_done(tmp_path: Path) -> None:
    layout, identity = Layout(tmp_path), small.identity("dreamer", None)
    folder, run = layout.runs / records.digest(identity), new_run(identity)
    run.status = "running"
    records.write_run(folder, run)
    locked = threading.Event()

    def end() -> None:
        with lock(folder):
            locked.set()
            time.sleep(LOCK_SECONDS / 3)
            run.status = "done"
            records.write_run(folder, run)

    ending = threading.Thread(target=end)
    ending.start()
    locked.wait()
    assert status(identity, layout) == "done"
    ending.join()
