"""A grid of runs on a local pool of processes, and what has become of each run."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch

from wpt_bench import records
from wpt_bench.protocol import UserError
from wpt_bench.records import Identity, Status
from wpt_bench.running.loop import execute, lock
from wpt_bench.running.plan import Layout, new_run

ATTEMPTS = 3
"""How often a run is begun whose worker process dies; an exception of its own is not tried again."""
POLL_SECONDS = 0.2

Report = Callable[[str, float, str], None]
"""Called with a run's id, the fraction done and what it is doing."""


@dataclass(frozen=True)
class Outcome:
    """How a grid ended: run ids, and one sentence for each failure."""

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
) -> Outcome:
    """Makes all runs that are not done, ``workers`` at a time, each with one torch thread.

    A run that fails is recorded as failed and the others go on. A worker that dies (killed, out of memory) takes its
    pool with it; the pool is made anew and unfinished runs go on from their checkpoints.
    """
    waiting = {records.digest(identity): identity for identity in identities}
    done = [run_id for run_id, identity in waiting.items() if status(identity, layout) == "done"]
    for run_id in done:
        del waiting[run_id]
        report(run_id, 1.0, "done before")
    failed: dict[str, str] = {}
    for attempt in range(1, ATTEMPTS + 1):
        if not waiting:
            break
        _one_pool(waiting, done, failed, layout, data, report, workers, device)
        if waiting and attempt == ATTEMPTS:
            for run_id, identity in waiting.items():
                if status(identity, layout) == "pending" and (layout.runs / run_id / "run.json").exists():
                    failed[run_id] = _record_failure(identity, layout, f"its worker process died {ATTEMPTS} times")
    return Outcome(tuple(done), failed)


def _one_pool(
    waiting: dict[str, Identity],
    done: list[str],
    failed: dict[str, str],
    layout: Layout,
    data: Path | None,
    report: Report,
    workers: int,
    device: str,
) -> None:
    """Moves runs from ``waiting`` to ``done`` or ``failed`` until none is left or a worker dies."""
    context = multiprocessing.get_context("spawn")
    messages: Queue[tuple[str, float, str]] = context.Queue()
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(waiting)),
        mp_context=context,
        initializer=_begin_worker,
        initargs=(messages, os.getpid()),
    )
    try:
        futures: dict[Future[None], str] = {
            pool.submit(_work, identity, layout, data, device): run_id for run_id, identity in waiting.items()
        }
        while futures:
            finished, _ = wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            _deliver(messages, report)
            for future in finished:
                run_id = futures.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    continue
                if error is None:
                    done.append(run_id)
                    seconds = records.read_run(layout.runs / run_id).wall_clock
                    report(run_id, 1.0, f"done in {seconds:.0f} s")
                else:
                    failed[run_id] = str(error)
                    report(run_id, 1.0, f"failed: {error}")
                del waiting[run_id]
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        messages.close()


def _deliver(messages: Queue[tuple[str, float, str]], report: Report) -> None:
    """Passes on what workers say; that a run has ended is known by its future alone."""
    while True:
        try:
            run_id, fraction, what = messages.get_nowait()
        except queue.Empty:
            return
        if fraction < 1:
            report(run_id, fraction, what)


# In the worker

_messages: Queue[tuple[str, float, str]] | None = None


def _begin_worker(messages: Queue[tuple[str, float, str]], parent: int) -> None:
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """An orphan would hold its run's lock and cores for nobody."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(identity: Identity, layout: Layout, data: Path | None, device: str) -> None:
    run_id = records.digest(identity)
    last = 0.0

    def progress(fraction: float, what: str = "") -> None:
        nonlocal last
        if _messages is not None and time.monotonic() - last >= POLL_SECONDS:
            last = time.monotonic()
            _messages.put((run_id, fraction, what))

    try:
        execute(identity, layout, data, progress, device=device)
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else traceback.format_exc()
        _record_failure(identity, layout, message)
        if isinstance(error, UserError):
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from error  # some exceptions do not survive pickling


def _record_failure(identity: Identity, layout: Layout, message: str) -> str:
    folder = layout.runs / records.digest(identity)
    run: Any = records.read_run(folder) if (folder / "run.json").exists() else new_run(identity)
    if run.status != "done":
        run.status, run.error = "failed", message
        records.write_run(folder, run)
    return message
