"""What a grid's jobs exchange through storage: on the machine that asked for them, and on those that make them."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Literal

from wpt_bench import records
from wpt_bench.protocol import Progress, UserError
from wpt_bench.records import Identity
from wpt_bench.running import cache, storage
from wpt_bench.running.jobs import Job, JobError, Work, failure, perform
from wpt_bench.running.loop import Busy
from wpt_bench.running.plan import Layout
from wpt_bench.running.stages import is_done
from wpt_bench.workers import POLL_SECONDS

PUSHING_SHARE = 0.1
"""Of a worker's time, at most, goes into pushing checkpoints: large ones on slow storage are pushed less often."""


class Exchange:
    """The side that asks for jobs: gives workers the data and takes results into its own folder."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._store = storage.open_store(work.storage)
        self._finished = storage.finished(self._store)

    def finished(self, job: Job) -> bool:
        """Whether storage has the job's results, made by an earlier command; fetches them."""
        return _key(job) in self._finished and self.collect(job)

    def share_inputs(self, jobs: Collection[Job]) -> None:
        """Puts into storage what the jobs start from and it lacks: the data set, stages and runs made here before."""
        if self._work.data is not None:
            self._share(f"data/{self._work.data_digest}", self._work.data)
        for stage in dict.fromkeys(job.stage for job in jobs if isinstance(job, Identity) and job.stage):
            if is_done(self._work.layout, stage):
                self._share(f"stages/{stage}", self._work.layout.stage(stage))
        for job in jobs:
            after = job.after if isinstance(job, Identity) else None
            while after and (self._work.layout.runs / after / records.RECORD).exists():
                folder = self._work.layout.runs / after
                run = records.read_run(folder)
                if run.status == "done":
                    self._share(f"runs/{after}", folder)
                after = run.identity.after

    def collect(self, job: Job) -> bool:
        """Fetches what there is of a job; False if there is nothing."""
        return storage.fetch(self._store, _key(job), _folder(self._work.layout, job)) is not None

    def hand_back(self, job: Job) -> None:
        """Puts into storage what was changed here: that a job has failed."""
        held = storage.claim(self._store, _key(job), _folder(self._work.layout, job), fetching=False)
        storage.push(held)

    def _share(self, key: str, folder: Path) -> None:
        if key in self._finished:
            return
        held = storage.claim(self._store, key, folder, fetching=False)
        storage.push(held, done=True)
        self._finished.add(key)


class Stored:
    """The side that only looks: what storage knows of runs when it is opened."""

    def __init__(self, url: str) -> None:
        self._store = storage.open_store(url)
        self._begun = storage.begun(self._store)

    def standing(self, identity: Identity) -> tuple[Literal["begun", "done", "failed"], str] | None:
        """What has become of a run, with a sentence; None if nobody has begun it.

        Storage knows no locks: whether somebody still works on a run that was begun, it cannot tell.
        RecordError or UserError if what is there is damaged.
        """
        key = _key(identity)
        if key not in self._begun:
            return None
        if self._begun[key]:
            return "done", "in storage; the command that made it fetches it"
        raw = storage.read(self._store, key, records.RECORD)
        if raw is None:
            return "begun", "in storage, where nothing of it was pushed yet"
        run = records.decode_run(raw, f"{records.RECORD} of {key} in {self._store.url}")
        if run.status == "failed":
            return "failed", (run.error or "").strip().rpartition("\n")[2]
        return "begun", f"in storage, last pushed after {run.env_steps:,} of {identity.budget:,} environment steps"


def perform_with_storage(job: Job, work: Work, progress: Progress, *, patient: bool) -> bool:
    """``perform`` in this machine's cache, after fetching what the job needs, and from where it was left in storage.

    What it has made is pushed whenever it has written a checkpoint, and when it has ended.
    """
    layout = Layout(cache.folder())
    try:
        cache.sweep(layout.out)
        with cache.using(_folders(layout, job)):
            return _perform_in(layout, job, work, progress, patient=patient)
    except (Busy, JobError, records.Unwritable):
        raise
    except Exception as error:
        raise failure(error, machine=True) from error


def _perform_in(layout: Layout, job: Job, work: Work, progress: Progress, *, patient: bool) -> bool:
    store = storage.open_store(work.storage)
    data = _fetch_inputs(store, job, work, layout, progress)
    held = storage.claim(store, _key(job), _folder(layout, job))
    pushing = _Pushing(held, progress)
    own = replace(work, layout=layout, data=data)
    try:
        made = perform(job, own, pushing.progress, patient=patient)
    except JobError:
        storage.push(held)
        raise
    storage.push(held, done=True)
    if isinstance(job, Identity):
        shutil.rmtree(held.folder, ignore_errors=True)  # it is in storage
    return made


def _fetch_inputs(store: storage.Store, job: Job, work: Work, layout: Layout, progress: Progress) -> Path | None:
    """The data set's folder in the cache, if the job sees data; what the job starts from is there too then."""
    stage = job.stage if isinstance(job, Identity) else None
    if stage and not storage.fetch_once(store, f"stages/{stage}", layout.stage(stage)):
        raise UserError(f"The stage {stage} is not in storage {store.url}; make it: wpt-bench pretrain.")
    after = job.after if isinstance(job, Identity) else None
    while after:  # the runs before it in a sequence of tasks
        if not storage.fetch_once(store, f"runs/{after}", layout.runs / after):
            raise UserError(f"The run {after} is not in storage {store.url}; the command that runs the grid makes it.")
        after = records.read_run(layout.runs / after).identity.after
    if job.data is None:
        return None
    progress(0.0, "fetching data")
    folder = _data(layout, job.data)
    if not storage.fetch_once(store, f"data/{job.data}", folder):
        raise UserError(
            f"The data {job.data} is not in storage {store.url}; the command that runs the grid puts it there."
        )
    return folder


class _Pushing:
    """Progress that pushes after each new checkpoint: it is known by its file, for nothing else may know of storage."""

    def __init__(self, held: storage.Held, report: Progress) -> None:
        self._held, self._report = held, report
        self._pushed = self._checkpoints()
        self._looked = self._next = monotonic()

    def progress(self, fraction: float, what: str = "") -> None:
        self._report(fraction, what)
        now = monotonic()
        if now < self._next or now - self._looked < POLL_SECONDS:
            return
        self._looked = now
        if (found := self._checkpoints()) != self._pushed:
            storage.push(self._held)
            self._pushed, ended = found, monotonic()
            self._next = ended + (ended - now) * (1 / PUSHING_SHARE - 1)

    def _checkpoints(self) -> set[str]:
        return {path.name for path in self._held.folder.glob("checkpoint-*")}


def _key(job: Job) -> str:
    return f"{'runs' if isinstance(job, Identity) else 'stages'}/{records.digest(job)}"


def _folder(layout: Layout, job: Job) -> Path:
    job_id = records.digest(job)
    return layout.runs / job_id if isinstance(job, Identity) else layout.stage(job_id)


def _folders(layout: Layout, job: Job) -> list[Path]:
    """Whatever folders a job uses: its own, and what it starts from."""
    starts = []
    if isinstance(job, Identity):  # runs longer before in a sequence were fetched with the one before, a moment ago
        starts += [layout.stage(job.stage)] if job.stage else []
        starts += [layout.runs / job.after] if job.after else []
    return [_folder(layout, job), *starts, *([_data(layout, job.data)] if job.data else [])]


def _data(layout: Layout, digest: str) -> Path:
    return layout.out / "data" / digest
