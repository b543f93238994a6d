"""A grid of runs, and the stages they start from, on an executor's workers; and what has become of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wpt_bench import records
from wpt_bench.data.store import Dataset
from wpt_bench.protocol import UserError
from wpt_bench.records import Identity, RecordError
from wpt_bench.running import checkpoint
from wpt_bench.running.exchange import Exchange, Stored
from wpt_bench.running.jobs import Ended, Job, JobError, Place, Report, Work, failure
from wpt_bench.running.loop import Busy, lock
from wpt_bench.running.plan import Layout, StageIdentity, new_run
from wpt_bench.running.stages import Failure, is_done, keep_failure, read_stage, why_failed

RETRIES = 1
"""How often a job that failed, for whatever reason, goes on from its last checkpoint before it counts as failed."""


@dataclass(frozen=True)
class Outcome:
    """How a grid ended: ids of runs and stages, and one sentence for each failure.

    ``machine`` holds those that failed because of the place, see ``JobError``, or of a damaged file.
    """

    done: tuple[str, ...]
    failed: dict[str, str]
    machine: frozenset[str] = frozenset()


State = Literal["pending", "begun", "running", "interrupted", "done", "failed", "damaged"]


def status(identity: Identity, layout: Layout) -> State:
    """What has become of a run, see ``standing``."""
    return standing(identity, layout)[0]


def standing(identity: Identity, layout: Layout, stored: Stored | None = None) -> tuple[State, str]:
    """What has become of a run, and of one that failed, waits for a stage that failed, or is damaged the reason in a
    sentence.

    ``running`` is what a living process works on, which the lock of its folder says; ``interrupted`` what one worked on
    that has died, and what goes on when it is asked for again. Of what is neither done nor being made here, ``stored``
    may know more.
    """
    here = _standing_here(identity, layout)
    if stored is None or here[0] in ("running", "done", "damaged"):
        return here
    try:
        return stored.standing(identity) or here
    except (RecordError, UserError) as error:
        return "damaged", " ".join(str(error).split())


def _standing_here(identity: Identity, layout: Layout) -> tuple[State, str]:
    folder = layout.runs / records.digest(identity)
    try:
        held, run = False, _recorded(folder)
        if run is None or run.status != "done":
            held, run = _held(folder), _recorded(folder)  # while the lock was waited for it may have ended
    except RecordError as error:
        return "damaged", " ".join(str(error).split())
    if run is not None and run.status == "done":
        rows = {name: run.files[name] for name in (records.ROWS,) if name in run.files}
        if damage := records.damaged(rows, folder):
            return "damaged", f"{damage}; delete {folder} to make this run again."
        return "done", ""
    if held:
        return "running", ""
    if run is None or run.status == "pending":
        return "pending", (why_failed(layout, identity.stage) if identity.stage else None) or ""
    if run.status == "running":
        return "interrupted", ""
    return "failed", (run.error or "").strip().rpartition("\n")[2]


def _recorded(folder: Path) -> records.Run | None:
    return records.read_run(folder) if (folder / records.RECORD).exists() else None


def stale(wanted: Sequence[Identity], layout: Layout) -> list[Identity]:
    """Recorded runs of the same method, task, seed and profile as one of these, that are none of them."""

    def cell(identity: Identity) -> tuple[str, ...]:
        return (identity.suite, identity.profile, identity.method, identity.task, str(identity.seed))

    ids, cells = {records.digest(identity) for identity in wanted}, {cell(identity) for identity in wanted}
    found = []
    for run in records.readable_runs(layout.runs):
        if run.id not in ids and cell(run.identity) in cells:
            found.append(run.identity)
    return found


def _held(folder: Path) -> bool:
    try:
        if folder.is_dir():
            with lock(folder):
                return False
    except Busy:
        return True
    except OSError:  # where nothing can be written, nobody works
        return False
    return False


def run_grid(
    identities: Sequence[Identity],
    layout: Layout,
    data: Path | None,
    report: Report,
    place: Place,
    *,
    stages: Sequence[StageIdentity] = (),
    retries: int = RETRIES,
    trackers: Sequence[str] = (),
    checkpoint_seconds: float = checkpoint.SECONDS,
) -> Outcome:
    """Makes all runs that are not done, each with one torch thread.

    ``stages`` are made by the same workers and first; meanwhile other workers make the runs that start from none of
    them. A job that ends in an error, or whose worker dies (killed, out of memory), is tried ``retries`` times more,
    from its last checkpoint; then it is recorded as failed, and the others go on. Where a stage fails, the runs that
    need it stay pending. Runs that another process is making are left for last, and then waited for.

    Raises:
        records.Unwritable: the disk is full or read-only.
    """
    jobs: list[Job] = [*stages, *identities]
    digest = Dataset.open(data).digest if data and place.storage else ""
    work = Work(layout, data, place.device, digest, place.storage, tuple(trackers), checkpoint_seconds)
    exchange = Exchange(work) if place.storage else None
    grid = _Grid({records.digest(job): job for job in jobs}, work, report, retries, exchange)
    for job_id, job in list(grid.waiting.items()):
        if job_id not in grid.waiting:  # what it starts from is damaged
            continue
        try:
            if _is_done(job, layout) or (exchange and exchange.finished(job) and _is_done(job, layout)):
                del grid.waiting[job_id]
                grid.done.append(job_id)
                report(job_id, 1.0, "done before")
        except (UserError, RecordError) as error:
            grid.fail(job_id, str(error), machine=True)
    if grid.waiting:
        grid.work_on(place)
    return Outcome(tuple(grid.done), grid.failed, frozenset(grid.machine))


def _is_done(job: Job, layout: Layout) -> bool:
    """Whether nothing is left to do; RecordError or UserError if what was done is damaged."""
    if not isinstance(job, Identity):
        return is_done(layout, records.digest(job))
    state, why = standing(job, layout)
    if state == "damaged":
        raise RecordError(why)
    return state == "done"


@dataclass
class _Grid:
    """Moves jobs from ``waiting`` to ``done`` or ``failed``."""

    waiting: dict[str, Job]
    work: Work
    report: Report
    retries: int
    exchange: Exchange | None
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    machine: set[str] = field(default_factory=set)
    attempts: dict[str, int] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    """Runs that another process was found to be making."""

    def work_on(self, place: Place) -> None:
        begun: set[str] = set()
        if self.exchange:
            self.exchange.share_inputs(self.waiting.values())
        with place.start(self.work, len(self.waiting)) as executor:
            while self.waiting:
                for job_id in _ready(self.waiting, begun)[: executor.room]:
                    begun.add(job_id)
                    executor.submit(self.waiting[job_id], patient=job_id in self.busy)
                for ended in executor.wait(self.report):
                    begun.remove(ended.job_id)
                    self._settle(ended)

    def _settle(self, ended: Ended) -> None:
        """What follows from a job's end."""
        job_id, error = ended.job_id, ended.error
        job = self.waiting[job_id]
        if self.exchange:
            self.exchange.collect(job)
        if error is None:
            del self.waiting[job_id]
            self.done.append(job_id)
            took = f"done in {_seconds(job, self.work.layout):.0f} s"
            self.report(job_id, 1.0, took if ended.made else "made by another process")
            return
        if not isinstance(error, Busy | JobError | records.Unwritable):
            error = failure(error)
        if isinstance(error, records.Unwritable):
            raise error
        if isinstance(error, Busy):
            self.busy.add(job_id)
            self.waiting[job_id] = self.waiting.pop(job_id)
            return
        self.attempts[job_id] = self.attempts.get(job_id, 0) + 1
        final = self.attempts[job_id] > self.retries
        kept = None
        if isinstance(job, Identity):
            kept = _record(job, self.work.layout, error, final)
        elif final:
            kept = keep_failure(self.work.layout, job_id, Failure(error.sentence, error.trace))
        if self.exchange and (final or isinstance(job, Identity)):
            self.exchange.hand_back(job)
        if final:
            traced = f" (traceback: {kept})" if kept and error.trace else ""
            self.fail(job_id, error.sentence + traced, machine=error.machine)
        elif isinstance(job, Identity):  # what is short now, memory for instance, may not be later
            self.waiting[job_id] = self.waiting.pop(job_id)

    def fail(self, job_id: str, why: str, *, machine: bool) -> None:
        """The job, and whatever starts from it, is not waited for any more."""
        del self.waiting[job_id]
        self.failed[job_id] = why
        if machine:
            self.machine.add(job_id)
        self.report(job_id, 1.0, f"failed: {why}")
        gone = {job_id}
        for other, run in list(self.waiting.items()):  # in a sequence a run comes after the one it goes on from
            if gone & _needs(run):
                gone.add(other)
                del self.waiting[other]


def _ready(waiting: Mapping[str, Job], begun: Collection[str]) -> list[str]:
    """Jobs that may begin, in their order: a run may when nothing that it starts from is still to be made."""
    return [job_id for job_id, job in waiting.items() if job_id not in begun and not _needs(job) & waiting.keys()]


def _needs(job: Job) -> set[str]:
    """Ids of what a job starts from: a run's stage, and in a sequence of tasks the run before."""
    return {needed for needed in (job.stage, job.after) if needed} if isinstance(job, Identity) else set()


def _seconds(job: Job, layout: Layout) -> float:
    if isinstance(job, Identity):
        return records.read_run(layout.runs / records.digest(job)).wall_clock
    made = read_stage(layout, records.digest(job))
    return made.wall_clock if made else 0.0


def _record(identity: Identity, layout: Layout, error: JobError, final: bool) -> Path | None:
    """A failed attempt in the run's record, whose path is returned; None where another process has taken the run up or
    its record is damaged."""
    folder = layout.runs / records.digest(identity)
    records.make_folder(folder)
    try:
        with lock(folder):
            run = records.read_run(folder) if (folder / records.RECORD).exists() else new_run(identity)
            if run.status == "done":
                return None
            run.notes.append(f"An attempt failed: {error.sentence}")
            if final:
                run.status, run.error = "failed", f"{error.trace}\n{error.sentence}".strip()
            records.write_run(folder, run)
    except (Busy, RecordError):
        return None
    return folder / records.RECORD
