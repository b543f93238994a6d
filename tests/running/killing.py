"""Real processes to kill: forked from a server that has imported everything, so that a hundred of them cost seconds."""

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
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


def end_of(target: Callable[..., None], *arguments: Any, survives: int | None = None) -> tuple[int | None, int]:
    """Exit code of a process that knows the suite of points in a box beside the real ones, and how far it got.

    It counts the simulator's steps and the files that it puts in place, and kills itself, as from outside, instead of
    the first of them that it does not survive.
    """
    count = _SERVER.Value("q", 0)
    one = _SERVER.Process(target=_begin, args=(count, survives, target, *arguments), daemon=True)
    one.start()
    one.join()
    return one.exitcode, count.value


def _begin(count: Any, survives: int | None, target: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    known = registry.suites()
    registry.suites = lambda: {**known, "tiny": tiny_suite.SUITE}  # type: ignore[assignment]

    def mortal(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*its: Any, **options: Any) -> Any:
            if count.value == survives:
                os.kill(os.getpid(), signal.SIGKILL)
            count.value += 1
            return function(*its, **options)

        return call

    tiny_suite.Points.step = mortal(tiny_suite.Points.step)  # type: ignore[method-assign]
    Path.replace = mortal(Path.replace)  # type: ignore[method-assign]
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


def kill_until_done(kills: int, most: int, rng: random.Random, target: Callable[..., None], *arguments: Any) -> int:
    """Makes the same again and again in processes that die by chance, all along the ``most`` counts of ``end_of``.

    After ``kills`` of them, or the first that reached its end before, all must be made. Returns how often one died.
    """
    left = most
    for killed in range(kills):
        survives = rng.randrange(max(1, 2 * left // (kills - killed + 1)))  # as far as the others on average
        left -= survives
        code, _ = end_of(target, *arguments, survives=survives)
        if code == 0:
            return killed
        assert code == -signal.SIGKILL
    counted(target, *arguments)
    return kills


def counted(target: Callable[..., None], *arguments: Any) -> int:
    """How far it counts undisturbed."""
    code, count = end_of(target, *arguments)
    assert code == 0
    return count


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
