"""How long a grid would take on more workers: list scheduling of measured times, before anybody rents a machine."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from wpt_bench import records
from wpt_bench.protocol import UserError
from wpt_bench.records import Identity, digest
from wpt_bench.running.plan import Layout, StageIdentity
from wpt_bench.running.stages import read_stage


@dataclass(frozen=True)
class Simulated:
    """A job of a simulated grid; it begins when ``after`` has ended."""

    job_id: str
    seconds: float
    after: str | None = None


@dataclass(frozen=True)
class Makespan:
    """What so many workers make of a grid.

    Attributes:
        efficiency: the share of the workers' time that they work until the last job ends.
        speedup: how much sooner than one worker.
    """

    workers: int
    hours: float
    efficiency: float
    speedup: float


def makespan(jobs: Sequence[Simulated], workers: int) -> float:
    """Seconds until all jobs have ended, each worker taking the first job in order that may begin.

    That is what the grid does: stages come first in its order, and a run waits for its stage, or in a sequence of tasks
    for the run before.
    """
    waiting: dict[str, list[int]] = {}
    ready: list[int] = []
    ids = {job.job_id for job in jobs}
    for place, job in enumerate(jobs):
        if job.after in ids:
            waiting.setdefault(str(job.after), []).append(place)
        else:
            ready.append(place)
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            place = heapq.heappop(ready)
            heapq.heappush(running, (now + jobs[place].seconds, place))
        now, ended = heapq.heappop(running)
        for place in waiting.pop(jobs[ended].job_id, ()):
            heapq.heappush(ready, place)
    return now


def makespans(jobs: Sequence[Simulated], workers: Sequence[int]) -> list[Makespan]:
    """The grid on each number of workers."""
    total = sum(job.seconds for job in jobs)
    rows = []
    for count in workers:
        seconds = makespan(jobs, count)
        rows.append(Makespan(count, seconds / 3600, total / (seconds * count), total / seconds))
    return rows


def measured(layout: Layout, suite: str, profile: str) -> dict[str, float]:
    """Mean seconds of the finished runs of a suite and profile, by method, and of their stages, by ``stage_name``."""
    seconds: dict[str, list[float]] = {}
    stages: set[str] = set()
    for run in records.readable_runs(layout.runs):
        if run.status != "done" or (run.identity.suite, run.identity.profile) != (suite, profile):
            continue
        seconds.setdefault(run.identity.method, []).append(run.wall_clock)
        stage_id = run.identity.stage
        if stage_id is None or stage_id in stages:
            continue
        stages.add(stage_id)
        if (stage := read_stage(layout, stage_id)) is not None:
            seconds.setdefault(stage_name(stage.identity), []).append(stage.wall_clock)
    return {method: sum(times) / len(times) for method, times in seconds.items()}


def stage_name(identity: Mapping[str, object]) -> str:
    """Under which name a stage's time is kept: pre-trainings together, shared agents by method."""
    return f"stage of {identity['method']}" if "method" in identity else "pre-training"


def simulated(runs: Sequence[Identity], stages: Sequence[StageIdentity], times: Mapping[str, float]) -> list[Simulated]:
    """Jobs in the grid's order with measured times; UserError if a method has none."""
    named: list[tuple[str, str, str | None]] = [
        (stage_name(msgspec.to_builtins(stage)), digest(stage), None) for stage in stages
    ]
    named += [(run.method, digest(run), run.after or run.stage) for run in runs]
    lacking = list(dict.fromkeys(name for name, _, _ in named if name not in times))
    if lacking:
        raise UserError(f"No finished run says how long {', '.join(lacking)} takes; make one, or choose other methods.")
    return [Simulated(job_id, times[name], after) for name, job_id, after in named]
