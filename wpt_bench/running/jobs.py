"""One job of a grid, a run or a stage, as a worker makes it wherever it is; and what executors have in common."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from wpt_bench import records
from wpt_bench.protocol import Progress, UserError
from wpt_bench.records import Identity, RecordError
from wpt_bench.running import checkpoint
from wpt_bench.running.loop import Busy, execute
from wpt_bench.running.plan import Layout, StageIdentity
from wpt_bench.running.stages import make
from wpt_bench.running.storage import Unanswered

Job = Identity | StageIdentity
Report = Callable[[str, float, str], None]
"""Called with the id of a run or stage, the fraction done and what it is doing."""


@dataclass(frozen=True)
class Work:
    """What all jobs of a grid need to know.

    Attributes:
        layout: where jobs are made, or with ``storage`` where they end up.
        data: folder of the data set, if any job needs it.
        data_digest: its digest.
        storage: URL of what workers exchange files through; empty where they share ``layout``.
        trackers: which ones show the runs' curves, see ``tracking``.
        checkpoint_seconds: between two checkpoints of a job.
    """

    layout: Layout
    data: Path | None
    device: str = "cpu"
    data_digest: str = ""
    storage: str = ""
    trackers: tuple[str, ...] = ()
    checkpoint_seconds: float = checkpoint.SECONDS


class JobError(Exception):
    """How a job ended in its worker: a sentence, and the traceback. (Not every exception survives pickling.)

    ``machine`` says that the place failed (memory, disk, a process that was killed), not what was asked of it.
    """

    def __init__(self, sentence: str, trace: str, machine: bool = False) -> None:
        super().__init__(sentence, trace, machine)
        self.sentence, self.trace, self.machine = sentence, trace, machine


WORKER_DIED = JobError("its worker process died, perhaps killed for lack of memory", "", machine=True)


@dataclass(frozen=True)
class Ended:
    """A job that an executor was given and that has ended.

    Attributes:
        made: whether anything was left to do.
        error: JobError, Busy, records.Unwritable, whatever the pool itself raised, or None.
    """

    job_id: str
    made: bool
    error: Exception | None = None


class Executor(Protocol):
    """Where jobs are made. ``room`` says how many more may be submitted now."""

    @property
    def room(self) -> int:
        """How many more jobs it takes now."""
        ...

    def submit(self, job: Job, *, patient: bool) -> None:
        """Begins a job, or has it wait in a queue of its own; see ``perform``."""
        ...

    def wait(self, report: Report) -> list[Ended]:
        """Jobs that have ended since the last call, after a moment if there are none; reports what others do."""
        ...


@dataclass(frozen=True)
class Place:
    """Where a grid's jobs are made, see ``executors.choose``.

    Attributes:
        start: starts an executor for so many jobs; leaving it stops all that is still being done.
        device: of torch.
        storage: URL of what its workers exchange files through; empty where they share the disk.
    """

    start: Callable[[Work, int], AbstractContextManager[Executor]]
    device: str = "cpu"
    storage: str = ""


def perform(job: Job, work: Work, progress: Progress, *, patient: bool) -> bool:
    """Makes a job; returns whether anything was left to do.

    Where another process makes it, ``patient`` waits for it.

    Raises:
        Busy: another process makes it.
        records.Unwritable: nothing can be written.
        JobError: anything else.
    """
    try:
        if isinstance(job, Identity):
            if patient:
                progress(0.0, "waiting for another process that makes it")
            return execute(
                job,
                work.layout,
                work.data,
                progress,
                device=work.device,
                checkpoint_seconds=work.checkpoint_seconds,
                patient=patient,
                trackers=work.trackers,
            )
        assert work.data is not None  # its digest is part of the job
        seconds = work.checkpoint_seconds
        make(job, work.layout, work.data, progress, device=work.device, checkpoint_seconds=seconds)
        return True
    except (Busy, records.Unwritable):
        raise
    except Exception as error:
        raise failure(error) from error


def failure(error: Exception, *, machine: bool = False) -> records.Unwritable | JobError:
    """What a grid is told of an exception; ``machine`` where none but the place can be behind it."""
    if isinstance(error, OSError) and (sentence := records.unwritable(error)):
        return records.Unwritable(sentence)
    known = isinstance(error, UserError | RecordError)
    sentence = str(error) if known else f"{type(error).__name__}: {error}"
    machine = machine or isinstance(error, OSError | MemoryError | RecordError | torch.OutOfMemoryError | Unanswered)
    machine = machine or "can't allocate memory" in sentence  # how torch says it of a CPU: as a RuntimeError
    return JobError(" ".join(sentence.split()), "".join(traceback.format_exception(error)), machine)
