"""What a grid will cost, before any work: from finished runs of its profile, or else by what the profile says."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from wpt_bench import records, registry
from wpt_bench.profiles import Profile
from wpt_bench.protocol import WARM_UP, Method
from wpt_bench.records import Identity
from wpt_bench.running.jobs import Job
from wpt_bench.running.plan import Layout, PretrainingIdentity, Selection, resolve, settings
from wpt_bench.running.stages import read_stage

CORES = 2
"""Of the machine that a profile's ``minutes`` are for."""


@dataclass(frozen=True)
class Estimate:
    """What a grid will cost.

    Attributes:
        runs: those still to be made.
        hours: for them and what they start from, on ``workers`` processes; from finished runs of this suite and profile
            where there are any (``measured``), of the same method if some are, else from the profile's own figure.
        disk_gib: roughly, with the data.
        memory_gib: at most, of all workers together.
    """

    runs: int
    hours: float
    measured: bool
    disk_gib: float
    memory_gib: float
    free_disk_gib: float


def estimate(profile: Profile, suite: str, layout: Layout, pending: Sequence[Job], *, workers: int) -> Estimate:
    """Of the runs and stages still to be made, which may be variations of ``profile``, as it is without them."""
    scale = _Scale(profile, suite)
    runs = [job for job in pending if isinstance(job, Identity)]
    stages = [job for job in pending if not isinstance(job, Identity)]
    finished, pretrained = _finished(layout, suite, profile.name)
    per_run = _rate(scale, finished) or 60 * CORES * profile.minutes / scale.whole
    per_stage = _rate(scale, pretrained) or per_run
    rates = {
        method: _rate(scale, [one for one in finished if one[0].method == method])
        for method in {run.method for run, _ in finished}
    }
    seconds = sum(rates.get(run.method, per_run) * scale.share(run) for run in runs)
    seconds += per_stage * sum(map(scale.share, stages))
    existing = next(path for path in [layout.out.absolute(), *layout.out.absolute().parents] if path.is_dir())
    return Estimate(
        runs=len(runs),
        hours=seconds / workers / 3600,
        measured=bool(finished),
        disk_gib=profile.disk_gib,
        memory_gib=profile.memory_gib,
        free_disk_gib=shutil.disk_usage(existing).free / 2**30,
    )


class _Scale:
    """Jobs in units of a run with the profile's own budget and settings."""

    def __init__(self, profile: Profile, suite: str) -> None:
        self._profile, self._grid = profile, profile.grid(suite)
        self._plain = Selection(suite, profile, self._grid, (), ())
        repeat = registry.suite(suite).tasks()[0].action_repeat
        self._updates = self._grid.budget * (1 - WARM_UP) / repeat * self._pace(registry.method("wpt"))

    @property
    def whole(self) -> float:
        """The profile's own grid, with its pre-trainings."""
        grid, known = self._grid, registry.methods()
        runs = len(grid.tasks) * len(grid.seeds) * len(grid.methods)
        if not any(known[name].pretrained for name in grid.methods if name in known):
            return runs
        pretraining = self._profile.pretraining
        return runs + min(len(grid.seeds), len(pretraining.seeds)) * self._of_updates(pretraining.updates)

    def share(self, job: Job) -> float:
        """Of a run: by its budget and its updates per step; of a pre-training: by its updates against a run of WPT."""
        if isinstance(job, PretrainingIdentity):
            return self._of_updates(job.pretraining["updates"])
        method = registry.methods().get(job.method)
        if not isinstance(job, Identity) or (method and not method.online):
            return 1.0
        share = job.budget / self._grid.budget
        try:
            pace = method.updates_per_step(resolve(method, job.settings)) if method else 0.0
        except ValueError:  # of another version of the method
            pace = 0.0
        return share * pace / self._pace(method) if method and pace and self._pace(method) else share

    def _pace(self, method: Method) -> float:
        return method.updates_per_step(settings(self._plain, method))

    def _of_updates(self, updates: int) -> float:
        return updates / self._updates if self._updates else 1.0


def _finished(layout: Layout, suite: str, profile: str) -> tuple[list[tuple[Identity, float]], list[tuple[Job, float]]]:
    """Finished runs of a suite and profile and the pre-trainings that they started from, with their seconds."""
    runs: list[tuple[Identity, float]] = []
    stages: dict[str, tuple[Job, float]] = {}
    for run in records.readable_runs(layout.runs):
        identity = run.identity
        if run.status != "done" or (identity.suite, identity.profile) != (suite, profile):
            continue
        runs.append((identity, run.wall_clock))
        made = read_stage(layout, identity.stage) if identity.stage and identity.stage not in stages else None
        if made and "pretraining" in made.identity:
            stages[made.id] = msgspec.convert(made.identity, PretrainingIdentity), made.wall_clock
    return runs, list(stages.values())


def _rate(scale: _Scale, finished: Sequence[tuple[Job, float]]) -> float:
    """Seconds of a run with the profile's own budget; 0 where nothing is finished."""
    if not finished:
        return 0.0
    return sum(seconds for _, seconds in finished) / sum(scale.share(job) for job, _ in finished)
