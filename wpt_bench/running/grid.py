"""A grid of runs, and the stages they start from, on a local pool of processes; and what has become of each."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from wpt_bench import records
from wpt_bench.protocol import UserError
from wpt_bench.records import Identity, Status
from wpt_bench.running.loop import execute, lock
from wpt_bench.running.machine import prepare_process
from wpt_bench.running.plan import Layout, StageIdentity, new_run
from wpt_bench.running.stages import is_done, make, read_stage

ATTEMPTS = 3
"""How often a pool is made whose workers die; a job that ends in an exception of its own is not tried again."""
POLL_SECONDS = 0.2

Job = Identity | StageIdentity
Report = Callable[[str, float, str], None]
"""Called with the id of a run or stage, the fraction done and what it is doing."""


@dataclass(frozen=True)
class Outcome:
    """How a grid ended: ids of runs and stages, and one sentence for each failure."""

    done: tuple[str, ...]
    failed: dict[str, str]


def status(identity: Identity, layout: Layout) -> Status:
    """What a run's folder says; a run whose process died is pending, for it will go on when asked again."""
    folder = layout.runs / records.digest(identity)
    if not (folder / "run.json").exists():
        return "pending"
    recorded = records.read_run(folder).status
    if recorded != "running":
        return recorded
    try:
        lock(folder).release()
    except UserError:
        return "running"
    return "pending"


def run_grid(
    identities: Sequence[Identity],
    layout: Layout,
    data: Path | None,
    report: Report,
    *,
    workers: int,
    device: str = "cpu",
    stages: Sequence[StageIdentity] = (),
) -> Outcome:
    """Makes all runs that are not done, ``workers`` at a time, each with one torch thread.

    ``stages`` are made by the same workers and first; meanwhile other workers make the runs that start from none of
    them. A run that fails is recorded as failed and the others go on; where a stage fails, the runs that need it stay
    pending. A worker that dies (killed, out of memory) takes its pool with it; the
    pool is made anew and unfinished work goes on from its checkpoints.
    """
    jobs: list[Job] = [*stages, *identities]
    waiting = {records.digest(job): job for job in jobs}
    done = [job_id for job_id, job in waiting.items() if _is_done(job, layout)]
    for job_id in done:
        del waiting[job_id]
        report(job_id, 1.0, "done before")
    failed: dict[str, str] = {}
    for _ in range(ATTEMPTS):
        if waiting:
            _one_pool(waiting, done, failed, layout, data, report, workers, device)
    for job_id, job in waiting.items():
        failed[job_id] = f"worker processes died {ATTEMPTS} times"
        if isinstance(job, Identity) and (layout.runs / job_id / "run.json").exists():
            _record_failure(job, layout, failed[job_id])
    return Outcome(tuple(done), failed)


def _is_done(job: Job, layout: Layout) -> bool:
    return status(job, layout) == "done" if isinstance(job, Identity) else is_done(layout, records.digest(job))


def _one_pool(
    waiting: dict[str, Job],
    done: list[str],
    failed: dict[str, str],
    layout: Layout,
    data: Path | None,
    report: Report,
    workers: int,
    device: str,
) -> None:
    """Moves jobs from ``waiting`` to ``done`` or ``failed`` until none is left or a worker dies."""
    context = multiprocessing.get_context("spawn")
    messages: Queue[tuple[str, float, str]] = context.Queue()
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(waiting)),
        mp_context=context,
        initializer=_begin_worker,
        initargs=(messages, os.getpid()),
    )
    futures: dict[Future[None], str] = {}
    broken = False
    try:
        while True:
            try:
                for job_id in [] if broken else _ready(waiting, futures.values())[: workers - len(futures)]:
                    futures[pool.submit(_work, waiting[job_id], layout, data, device)] = job_id
            except BrokenProcessPool:
                broken = True
            if not futures:
                return
            finished, _ = wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            _deliver(messages, report)
            for future in finished:
                job_id = futures.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    broken = True
                    continue
                job = waiting.pop(job_id)
                if error is None:
                    done.append(job_id)
                    report(job_id, 1.0, f"done in {_seconds(job, layout):.0f} s")
                    continue
                failed[job_id] = str(error)
                report(job_id, 1.0, f"failed: {error}")
                for blocked in [other for other, run in waiting.items() if _stage(run) == job_id]:
                    del waiting[blocked]
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        messages.close()


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


def _begin_worker(messages: Queue[tuple[str, float, str]], parent: int) -> None:
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    prepare_process()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """An orphan would hold its job's lock and cores for nobody."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(job: Job, layout: Layout, data: Path | None, device: str) -> None:
    job_id = records.digest(job)
    last = 0.0

    def progress(fraction: float, what: str = "") -> None:
        nonlocal last
        if _messages is not None and time.monotonic() - last >= POLL_SECONDS:
            last = time.monotonic()
            _messages.put((job_id, fraction, what))

    try:
        if isinstance(job, Identity):
            execute(job, layout, data, progress, device=device)
        else:
            assert data is not None  # its digest is part of the job
            make(job, layout, data, progress, device=device)
    except Exception as error:
        if isinstance(job, Identity):
            _record_failure(job, layout, str(error) if isinstance(error, UserError) else traceback.format_exc())
        if isinstance(error, UserError):
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from error  # some exceptions do not survive pickling


def _record_failure(identity: Identity, layout: Layout, message: str) -> None:
    folder = layout.runs / records.digest(identity)
    run: Any = records.read_run(folder) if (folder / "run.json").exists() else new_run(identity)
    if run.status != "done":
        run.status, run.error = "failed", message
        records.write_run(folder, run)
