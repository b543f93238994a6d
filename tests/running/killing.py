"""Real processes to kill: forked from a server that has imported everything, so that a hundred of them cost seconds."""

import multiprocessing
import random
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import msgspec
import torch
from data import tiny_suite

from running.small import silent
from wpt_bench import records, registry
from wpt_bench.records import Identity
from wpt_bench.running import stages
from wpt_bench.running.loop import execute
from wpt_bench.running.plan import Layout, Selection, StageIdentity, identities
from wpt_bench.running.plan import stages as planned

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["wpt_bench.running.bench", "wpt_bench.running.loop", "wpt_bench.baselines.methods", "wpt_bench.wpt.methods"]
)


def process(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """A process that waits for nobody; it knows the suite of points in a box beside the real ones."""
    return _SERVER.Process(target=_begin, args=(target, *arguments), daemon=True)


def _begin(target: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    known = registry.suites()
    registry.suites = lambda: {**known, "tiny": tiny_suite.SUITE}  # type: ignore[assignment]
    target(*arguments)


Jobs = tuple[list[StageIdentity], list[Identity]]
"""The stages and the runs of a grid."""


def jobs(selection: Selection, digest: str) -> Jobs:
    """Those of a grid on the data set with this digest."""
    return planned(selection, digest), identities(selection, digest)


def make_all(its: Jobs, out: Path, data: Path) -> None:
    """One after another, with a checkpoint whenever there can be one."""
    layout = Layout(out)
    for stage in its[0]:
        stages.make(stage, layout, data, silent, checkpoint_seconds=0.0)
    for identity in its[1]:
        execute(identity, layout, data, silent, checkpoint_seconds=0.0)


def kill_until_done(
    kills: int, seconds: float, rng: random.Random, target: Callable[..., None], *arguments: Any
) -> int:
    """Starts the same process again and again, kills it ``kills`` times within ``seconds``; returns how often it died.

    Then it runs to its end, which has to be a good one.
    """
    killed = 0
    while killed < kills:
        one = process(target, *arguments)
        one.start()
        one.join(rng.uniform(0, seconds if killed else seconds / 2))
        if one.exitcode is not None:
            assert one.exitcode == 0
            break
        one.kill()
        one.join()
        killed += 1
    last = process(target, *arguments)
    last.start()
    last.join()
    assert last.exitcode == 0
    return killed


def timed(target: Callable[..., None], *arguments: Any) -> float:
    """Seconds that it takes undisturbed."""
    first = process(silent, 0.0)  # starts the server
    first.start()
    first.join()
    started = time.monotonic()
    one = process(target, *arguments)
    one.start()
    one.join()
    assert one.exitcode == 0
    return time.monotonic() - started


def outcome(its: Jobs, out: Path) -> dict[str, Any]:
    """All that must not depend on interruptions: rows but for their clock, weights, what stages say of themselves."""
    layout, found = Layout(out), {}
    for stage in its[0]:
        stage_id = records.digest(stage)
        made = stages.read_stage(layout, stage_id)
        assert made is not None
        found[stage_id] = made.curve, made.open_loop, layout.weights(stage_id).read_bytes()
    for identity in its[1]:
        folder = layout.runs / records.digest(identity)
        run = records.read_run(folder)
        assert run.status == "done" and not records.damaged(run.files, folder)
        rows = [msgspec.structs.replace(row, wall_clock=0.0) for row in records.read_episodes(folder)]
        weights = {name: sha256 for name, sha256 in run.files.items() if name != records.ROWS}
        found[run.id] = run.updates, run.env_steps, run.diagnostics, rows, weights
    return found
