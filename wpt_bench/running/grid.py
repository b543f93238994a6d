"""A grid of runs, and the stages they start from, on a local pool of processes; and what has become of each."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Literal

from wpt_bench import records
from wpt_bench.data.collect import end_with_parent
from wpt_bench.protocol import UserError
from wpt_bench.records import Identity, RecordError
from wpt_bench.running.loop import Busy, execute, lock
from wpt_bench.running.machine import prepare_process
from wpt_bench.running.plan import Layout, StageIdentity, new_run
from wpt_bench.running.stages import is_done, make, read_stage

RETRIES = 1
"""How often a job that failed, for whatever reason, goes on from its last checkpoint before it counts as failed."""
POLL_SECONDS = 0.2

Job = Identity | StageIdentity
Report = Callable[[str, float, str], None]
"""Called with the id of a run or stage, the fraction done and what it is doing."""


@dataclass(frozen=True)
class Outcome:
    """How a grid ended: ids of runs and stages, and one sentence for each failure."""

    done: tuple[str, ...]
    failed: dict[str, str]


State = Literal["pending", "running", "interrupted", "done", "failed", "damaged"]


def status(identity: Identity, layout: Layout) -> State:
    """What has become of a run, see ``standing``."""
    return standing(identity, layout)[0]


def standing(identity: Identity, layout: Layout) -> tuple[State, str]:
    """What has become of a run, and of one that failed or is damaged the reason in a sentence.

    ``running`` is what a living process works on, which the lock of its folder says; ``interrupted`` what one worked on
    that has died, and what goes on when it is asked for again.
    """
    folder = layout.runs / records.digest(identity)
    try:
        run = records.read_run(folder) if (folder / records.RECORD).exists() else None
    except RecordError as error:
        return "damaged", " ".join(str(error).split())
    if run is not None and run.status == "done":
        rows = {name: run.files[name] for name in (records.ROWS,) if name in run.files}
        if damage := records.damaged(rows, folder):
            return "damaged", f"{damage}; delete {folder} to make this run again."
        return "done", ""
    if _held(folder):
        return "running", ""
    if run is None or run.status == "pending":
        return "pending", ""
    if run.status == "running":
        return "interrupted", ""
    return "failed", (run.error or "").strip().rpartition("\n")[2]


def stale(wanted: Sequence[Identity], layout: Layout) -> list[Identity]:
    """Recorded runs of the same method, task, seed and profile as one of these, that are none of them."""

    def cell(identity: Identity) -> tuple[str, ...]:
        return (identity.suite, identity.profile, identity.method, identity.task, str(identity.seed))

    ids, cells = {records.digest(identity) for identity in wanted}, {cell(identity) for identity in wanted}
    found = []
    for folder in records.find_runs(layout.runs):
        try:
            run = records.read_run(folder)
        except RecordError:  # it cannot say what it is of
            continue
        if run.id not in ids and cell(run.identity) in cells:
            found.append(run.identity)
    return found


def _held(folder: Path) -> bool:
    try:
        if folder.is_dir():
            lock(folder).release()
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
    *,
    workers: int,
    device: str = "cpu",
    stages: Sequence[StageIdentity] = (),
    retries: int = RETRIES,
) -> Outcome:
    """Makes all runs that are not done, ``workers`` at a time, each with one torch thread.

    ``stages`` are made by the same workers and first; meanwhile other workers make the runs that start from none of
    them. A job that ends in an error, or whose worker dies (killed, out of memory), is tried ``retries`` times more,
    from its last checkpoint; then a run is recorded as failed, and the others go on. Where a stage fails, the runs that
    need it stay pending. Runs that another process is making are left for last, and then waited for.

    Raises:
        records.Unwritable: the disk is full or read-only.
    """
    jobs: list[Job] = [*stages, *identities]
    grid = _Grid({records.digest(job): job for job in jobs}, layout, data, report, device, retries)
    for job_id, job in list(grid.waiting.items()):
        try:
            if _is_done(job, layout):
                del grid.waiting[job_id]
                grid.done.append(job_id)
                report(job_id, 1.0, "done before")
        except (UserError, RecordError) as error:
            grid.fail(job_id, str(error))
    if grid.waiting:
        grid.work(workers)
    return Outcome(tuple(grid.done), grid.failed)


def _is_done(job: Job, layout: Layout) -> bool:
    """Whether nothing is left to do; RecordError or UserError if what was done is damaged."""
    if not isinstance(job, Identity):
        return is_done(layout, records.digest(job))
    state, why = standing(job, layout)
    if state == "damaged":
        raise RecordError(why)
    return state == "done"


class JobError(Exception):
    """How a job ended in its worker: a sentence, and the traceback. (Not every exception survives pickling.)"""

    def __init__(self, sentence: str, trace: str) -> None:
        super().__init__(sentence, trace)
        self.sentence, self.trace = sentence, trace


class _Slot:
    """One worker process and what it says: a worker that dies takes nobody with it, and is known by its job."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.messages: Queue[tuple[str, float, str]] = context.Queue()
        self.pool = ProcessPoolExecutor(1, context, _begin_worker, (self.messages,))

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.messages.close()


@dataclass
class _Grid:
    """Moves jobs from ``waiting`` to ``done`` or ``failed``."""

    waiting: dict[str, Job]
    layout: Layout
    data: Path | None
    report: Report
    device: str
    retries: int
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    """Runs that another process was found to be making."""

    def work(self, workers: int) -> None:
        idle = [_Slot() for _ in range(min(workers, len(self.waiting)))]
        futures: dict[Future[bool], tuple[str, _Slot]] = {}
        try:
            while self.waiting:
                begun = [job_id for job_id, _ in futures.values()]
                for job_id in _ready(self.waiting, begun)[: len(idle)]:
                    slot = idle.pop()
                    futures[self._submit(job_id, slot)] = job_id, slot
                finished, _ = wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for _, slot in futures.values():
                    _deliver(slot.messages, self.report)
                for future in finished:
                    job_id, slot = futures.pop(future)
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        slot.close()
                        slot = _Slot()
                    idle.append(slot)
                    self._settle(job_id, error, future)
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            for slot in [*idle, *(slot for _, slot in futures.values())]:
                slot.close()

    def _submit(self, job_id: str, slot: _Slot) -> Future[bool]:
        arguments = (self.waiting[job_id], self.layout, self.data, self.device, job_id in self.busy)
        try:
            return slot.pool.submit(_work, *arguments)
        except BrokenProcessPool as error:  # it died between two jobs
            broken: Future[bool] = Future()
            broken.set_exception(error)
            return broken

    def _settle(self, job_id: str, error: BaseException | None, future: Future[bool]) -> None:
        """What follows from a job's end."""
        job = self.waiting[job_id]
        if error is None:
            del self.waiting[job_id]
            self.done.append(job_id)
            made = f"done in {_seconds(job, self.layout):.0f} s" if future.result() else "made by another process"
            self.report(job_id, 1.0, made)
            return
        if isinstance(error, records.Unwritable):
            raise error
        if isinstance(error, Busy):
            self.busy.add(job_id)
            self.waiting[job_id] = self.waiting.pop(job_id)
            return
        if not isinstance(error, JobError):
            error = JobError("its worker process died, perhaps killed for lack of memory", "")
        self.attempts[job_id] = self.attempts.get(job_id, 0) + 1
        final = self.attempts[job_id] > self.retries
        if isinstance(job, Identity):
            _record(job, self.layout, error, final)
        if final:
            self.fail(job_id, error.sentence)
        elif isinstance(job, Identity):  # what is short now, memory for instance, may not be later
            self.waiting[job_id] = self.waiting.pop(job_id)

    def fail(self, job_id: str, why: str) -> None:
        """The job, and with a stage what needs it, is not waited for any more."""
        del self.waiting[job_id]
        self.failed[job_id] = why
        self.report(job_id, 1.0, f"failed: {why}")
        for blocked in [other for other, run in self.waiting.items() if _stage(run) == job_id]:
            del self.waiting[blocked]


def _ready(waiting: Mapping[str, Job], begun: Collection[str]) -> list[str]:
    """Jobs that may begin, in their order: a run may when its stage is not among those still to be made."""
    return [job_id for job_id, job in waiting.items() if job_id not in begun and _stage(job) not in waiting]


def _stage(job: Job) -> str | None:
    return job.stage if isinstance(job, Identity) else None


def _seconds(job: Job, layout: Layout) -> float:
    if isinstance(job, Identity):
        return records.read_run(layout.runs / records.digest(job)).wall_clock
    made = read_stage(layout, records.digest(job))
    return made.wall_clock if made else 0.0


def _deliver(messages: Queue[tuple[str, float, str]], report: Report) -> None:
    """Passes on what workers say; that a job has ended is known by its future alone."""
    while True:
        try:
            job_id, fraction, what = messages.get_nowait()
        except queue.Empty:
            return
        if fraction < 1:
            report(job_id, fraction, what)


# In the worker

_messages: Queue[tuple[str, float, str]] | None = None


def _begin_worker(messages: Queue[tuple[str, float, str]]) -> None:
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_parent()  # an orphan would hold its job's lock and cores for nobody
    prepare_process()


def _work(job: Job, layout: Layout, data: Path | None, device: str, patient: bool) -> bool:
    """Makes a job; returns whether anything was left to do."""
    job_id = records.digest(job)
    last = 0.0

    def progress(fraction: float, what: str = "") -> None:
        nonlocal last
        if _messages is not None and time.monotonic() - last >= POLL_SECONDS:
            last = time.monotonic()
            _messages.put((job_id, fraction, what))

    try:
        if isinstance(job, Identity):
            if patient:
                progress(0.0, "waiting for another process that makes it")
            return execute(job, layout, data, progress, device=device, patient=patient)
        assert data is not None  # its digest is part of the job
        make(job, layout, data, progress, device=device)
        return True
    except Busy:
        raise
    except Exception as error:
        if isinstance(error, OSError) and (sentence := records.unwritable(error)):
            raise records.Unwritable(sentence) from error
        known = isinstance(error, UserError | RecordError)
        sentence = str(error) if known else f"{type(error).__name__}: {error}"
        raise JobError(" ".join(sentence.split()), traceback.format_exc()) from error


def _record(identity: Identity, layout: Layout, error: JobError, final: bool) -> None:
    """A failed attempt in the run's record, unless another process has taken the run up or its record is damaged."""
    folder = layout.runs / records.digest(identity)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock(folder):
            run = records.read_run(folder) if (folder / records.RECORD).exists() else new_run(identity)
            if run.status == "done":
                return
            run.notes.append(f"An attempt failed: {error.sentence}")
            if final:
                run.status, run.error = "failed", f"{error.trace}\n{error.sentence}".strip()
            records.write_run(folder, run)
    except (Busy, RecordError):
        return
