"""Collects the offline data of a suite in parallel processes; a killed collection goes on with the missing shards.

Each worker is a fresh process (a simulator and its graphics do not survive a fork) that makes the suite's jobs anew and
runs those it is told by name, one after another, with one thread for torch.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from filelock import FileLock

from wpt_bench.data import recording
from wpt_bench.data.store import Dataset, ShardWriter, read_shard, seal
from wpt_bench.protocol import CollectionJob, Progress, Suite, UserError
from wpt_bench.records import RecordError, make_folder
from wpt_bench.workers import end_with_parent, sparing

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def collect(
    suite: Suite,
    settings: Any,
    scenes: Sequence[str],
    seed: int,
    folder: Path,
    *,
    workers: int,
    progress: Progress,
    recorded: Path | None = None,
) -> Dataset:
    """Runs those of ``suite.collection_jobs(settings, scenes, seed)`` that have no shard in ``folder``, then seals it.

    Args:
        suite: pickled into the workers, as an object of a module's class can be; its jobs are made anew there. The
            settings of a job say its ``embodiment``, ``scene`` and ``collector``.
        settings: how much to collect, as the suite defines it; a ``msgspec.Struct``.
        scenes: which to collect; others already in ``folder`` stay.
        seed: of the collection.
        folder: of the data set.
        workers: processes at a time.
        progress: told the fraction of all episodes done; runs in this process.
        recorded: folder of recordings (``wpt_bench.data.recording``): a job that can be played, and has one of the same
            settings there, is played instead.

    Raises:
        UserError: a job failed (the message names it), also for a full disk, or a shard there was collected with other
            settings, or one that is played comes out otherwise. Finished shards stay, also after Ctrl-C.

    Where another process collects into ``folder``, it is waited for, and what it has collected is used.
    """
    make_folder(folder)
    progress(0.0, "waiting for another process that collects here, if there is one")
    with FileLock(folder / ".collect.lock"):
        for leftover in folder.glob(".*.tmp"):  # of a killed collection
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        jobs = list(suite.collection_jobs(settings, scenes, seed))
        missing = [job for job in jobs if not _collected(folder, job, seed)]
        if missing:
            _Pool(suite, (settings, tuple(scenes), seed), folder, recorded, missing, jobs, progress).run(workers)
        progress(1.0, "collected")
        return seal(
            folder,
            suite=suite.name,
            suite_version=suite.version,
            name=folder.name,
            seed=seed,
            settings=msgspec.to_builtins(settings),
        )


def _collected(folder: Path, job: CollectionJob, seed: int) -> bool:
    """Whether the job's shard is there; UserError if it was collected in another way."""
    path = folder / job.name / "shard.json"
    if not path.exists():
        return False
    if read_shard(path).settings != shard_settings(job, seed):
        raise UserError(f"{path.parent} was collected with other settings; choose another folder or delete it.")
    return True


def shard_settings(job: CollectionJob, seed: int) -> dict[str, Any]:
    """What the shard of a job says of how it was collected."""
    return msgspec.json.decode(msgspec.json.encode({**job.settings, "seed": seed}), type=dict[str, Any])


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Ctrl-C waits until a process that is started has been told what to do; else it says that it was not."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        handler(*came[0])


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection[Any, Any]
    job: str | None = field(default=None)


class _Pool:
    """Hands out jobs and hears ``("progress", fraction, what)``, ``("done",)`` or ``("failed", why, traceback)``."""

    def __init__(
        self,
        suite: Suite,
        arguments: tuple[Any, tuple[str, ...], int],
        folder: Path,
        recorded: Path | None,
        missing: Sequence[CollectionJob],
        jobs: Sequence[CollectionJob],
        progress: Progress,
    ) -> None:
        self._task = (suite, arguments, folder, recorded)
        self._waiting = [job.name for job in missing]
        self._weights = {job.name: job.episodes for job in jobs}
        self._done = {job.name: 0.0 if job in missing else 1.0 for job in jobs}
        self._progress = progress

    def run(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        pool: list[_Worker] = []
        try:
            for _ in range(min(workers, len(self._waiting))):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(*self._task, theirs), daemon=True)
                with _interrupted_later():
                    process.start()
                theirs.close()
                pool.append(_Worker(process, ours))
                self._next(pool[-1])
            while busy := {worker.pipe: worker for worker in pool if worker.job is not None}:
                ready = wait(list(busy))
                for worker in [worker for pipe, worker in busy.items() if pipe in ready]:
                    self._listen(worker)
        finally:
            for worker in pool:
                worker.pipe.close()
                if worker.job is not None:
                    worker.process.terminate()
                worker.process.join()
            for leftover in self._task[2].glob(".*.tmp"):
                shutil.rmtree(leftover, ignore_errors=True)

    def _next(self, worker: _Worker) -> None:
        worker.job = self._waiting.pop(0) if self._waiting else None
        worker.pipe.send(worker.job)

    def _listen(self, worker: _Worker) -> None:
        assert worker.job is not None
        try:
            message = worker.pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            worker.process.join()
            raise UserError(
                f"Job {worker.job} was killed (exit code {worker.process.exitcode}), perhaps for lack of memory; "
                "run it again, with fewer workers: the finished shards are kept."
            ) from error
        if message[0] == "failed":
            failure = UserError(f"Collecting {worker.job} failed: {message[1]}")
            failure.add_note(message[2])
            raise failure
        fraction, what = (message[1], message[2]) if message[0] == "progress" else (1.0, worker.job)
        self._done[worker.job] = fraction
        total = sum(self._weights.values())
        self._progress(sum(self._weights[job] * done for job, done in self._done.items()) / total, what)
        if message[0] == "done":
            self._next(worker)


def _work(
    suite: Suite,
    arguments: tuple[Any, tuple[str, ...], int],
    folder: Path,
    recorded: Path | None,
    pipe: Connection[Any, Any],
) -> None:
    """A worker: runs the jobs whose names arrive, until None arrives or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    end_with_parent()
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    try:
        jobs = {job.name: job for job in suite.collection_jobs(*arguments)}
        while (name := pipe.recv()) is not None:
            _run(suite, jobs[name], arguments[2], folder, recorded, pipe)
            pipe.send(("done",))
    except (EOFError, BrokenPipeError):
        return
    except (UserError, RecordError) as error:
        pipe.send(("failed", str(error), traceback.format_exc()))
    except Exception as error:  # whatever a simulator or a stranger's suite may raise
        pipe.send(("failed", f"{type(error).__name__}: {error}", traceback.format_exc()))


def _run(
    suite: Suite, job: CollectionJob, seed: int, folder: Path, recorded: Path | None, pipe: Connection[Any, Any]
) -> None:
    scene, settings = job.settings["scene"], shard_settings(job, seed)
    known = recording.find(recorded, job.name, settings) if recorded and job.play else None
    with ShardWriter(
        folder,
        name=job.name,
        embodiment=job.settings["embodiment"],
        scene=scene,
        collector=job.settings["collector"],
        action_repeat=next(task.action_repeat for task in suite.tasks() if task.scene == scene),
        settings=settings,
        expected=known.shard if known else None,
    ) as writer:
        told = sparing(lambda fraction, what: pipe.send(("progress", fraction, what)))
        if known and job.play:
            job.play(known.actions(), writer, told)
        else:
            job.collect(writer, told)
