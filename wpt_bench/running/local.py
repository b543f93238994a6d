"""Jobs on this machine: one process for each worker."""

from __future__ import annotations

import multiprocessing
import queue
import signal
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from types import TracebackType
from typing import Self

from wpt_bench import records
from wpt_bench.running.jobs import WORKER_DIED, Ended, Job, Place, Report, Work, perform
from wpt_bench.running.machine import prepare_process
from wpt_bench.workers import POLL_SECONDS, end_with_parent, sparing


def this_machine(workers: int, device: str = "cpu") -> Place:
    """This machine, so many processes at a time."""
    return Place(lambda work, jobs: LocalPool(work, min(workers, jobs)), device)


class _Slot:
    """One worker process and what it says: a worker that dies takes nobody with it, and is known by its job."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.messages: Queue[tuple[str, float, str]] = context.Queue()
        self.pool = ProcessPoolExecutor(1, context, _begin_worker, (self.messages,))

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.messages.close()


class LocalPool:
    """Executes jobs in at most ``workers`` processes, each with one torch thread."""

    def __init__(self, work: Work, workers: int) -> None:
        self._work = work
        self._idle = [_Slot() for _ in range(workers)]
        self._futures: dict[Future[bool], tuple[str, _Slot]] = {}

    @property
    def room(self) -> int:
        """Idle workers."""
        return len(self._idle)

    def submit(self, job: Job, *, patient: bool) -> None:
        """Gives a job to an idle worker."""
        slot = self._idle.pop()
        try:
            future = slot.pool.submit(_make, job, self._work, patient)
        except BrokenProcessPool as error:  # it died between two jobs
            future = Future()
            future.set_exception(error)
        self._futures[future] = records.digest(job), slot

    def wait(self, report: Report) -> list[Ended]:
        """Jobs that have ended, and what the others say."""
        finished, _ = wait(self._futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for _, slot in self._futures.values():
            _deliver(slot.messages, report)
        return [self._end(future) for future in finished]

    def _end(self, future: Future[bool]) -> Ended:
        job_id, slot = self._futures.pop(future)
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            slot.close()
            slot, error = _Slot(), WORKER_DIED
        self._idle.append(slot)
        if error is None:
            return Ended(job_id, future.result())
        if not isinstance(error, Exception):
            raise error
        return Ended(job_id, False, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is not None:
            for process in multiprocessing.active_children():
                process.terminate()
        for slot in [*self._idle, *(slot for _, slot in self._futures.values())]:
            slot.close()


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


def _make(job: Job, work: Work, patient: bool) -> bool:
    assert _messages is not None  # the initializer has run
    messages, job_id = _messages, records.digest(job)
    return perform(job, work, sparing(lambda fraction, what: messages.put((job_id, fraction, what))), patient=patient)
