"""Jobs on a Ray cluster, one task each. Ray places them, and begins them anew elsewhere where a node is lost."""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from wpt_bench import records
from wpt_bench.protocol import UserError
from wpt_bench.records import Unwritable
from wpt_bench.running.exchange import perform_with_storage
from wpt_bench.running.jobs import WORKER_DIED, Ended, Job, JobError, Report, Work, perform
from wpt_bench.running.loop import Busy
from wpt_bench.running.machine import prepare_process
from wpt_bench.workers import POLL_SECONDS, sparing

NODES_LOST = 5
"""How often a job is begun anew whose node or worker process is lost, before the grid is told."""
IN_FLIGHT = 2000
"""Tasks that Ray is given at a time; it has a queue of its own."""


@dataclass(frozen=True)
class Cluster:
    """Which cluster, and what each job asks of it.

    Attributes:
        address: of a running one, for ``ray.init``; empty for ``RAY_ADDRESS``, and without it one on this machine.
        workers: cores of one that is started on this machine.
        gpus_per_run: a fraction lets runs share a GPU.
    """

    address: str
    workers: int
    gpus_per_run: float


class RayTasks:
    """Executes jobs on a cluster, which is left as it was; one that was started for them is stopped."""

    def __init__(self, work: Work, cluster: Cluster) -> None:
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray = ray
        address = cluster.address or os.environ.get("RAY_ADDRESS", "")
        where = {"address": address} if address else {"address": "local", "num_cpus": cluster.workers}
        try:
            ray.init(
                **where, include_dashboard=None if address else False, log_to_driver=False, logging_level=logging.ERROR
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"No Ray cluster answers at {address or 'this machine'} ({str(error).splitlines()[0]}); start one with "
                "ray start --head, or leave out --address."
            ) from error
        # What jobs say goes to this process's own node, whichever other node is lost.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._messages = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._task = ray.remote(num_cpus=1, num_gpus=cluster.gpus_per_run, max_retries=NODES_LOST)(_make)
        self._work = ray.put(work)
        self._tasks: dict[Any, str] = {}

    @property
    def room(self) -> int:
        """How many more tasks Ray is given."""
        return IN_FLIGHT - len(self._tasks)

    def submit(self, job: Job, *, patient: bool) -> None:
        """Gives a job to Ray."""
        self._tasks[self._task.remote(job, self._work, patient, self._messages.actor)] = records.digest(job)

    def wait(self, report: Report) -> list[Ended]:
        """Jobs that have ended, and what the others say."""
        finished, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=POLL_SECONDS)
        self._deliver(report)
        return [self._end(task) for task in finished]

    def _deliver(self, report: Report) -> None:
        try:
            for job_id, fraction, what in self._messages.get_nowait_batch(self._messages.qsize()):
                if fraction < 1:
                    report(job_id, fraction, what)
        except self._ray.exceptions.RayError:  # progress alone is lost with the node that kept it
            return

    def _end(self, task: Any) -> Ended:
        job_id = self._tasks.pop(task)
        try:
            result: bool | Exception = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            result = JobError(" ".join(str(error.cause).split()), str(error))
        except self._ray.exceptions.RayError as error:
            result = JobError(f"{WORKER_DIED.sentence} ({type(error).__name__})", str(error), machine=True)
        return Ended(job_id, result) if isinstance(result, bool) else Ended(job_id, False, result)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for task in self._tasks:
            self._ray.cancel(task, force=True)
        self._messages.shutdown(force=True)
        self._ray.shutdown()


# In the worker


@functools.cache
def _prepare_once() -> None:
    prepare_process()


def _make(job: Job, work: Work, patient: bool, messages: Any) -> bool | Exception:
    """Returns errors instead of raising them: Ray would wrap them in exceptions of its own."""
    _prepare_once()
    job_id = records.digest(job)
    progress = sparing(lambda fraction, what: messages.put_nowait.remote((job_id, fraction, what)))
    progress(0.0, "beginning")
    make = perform_with_storage if work.storage else perform
    try:
        return make(job, work, progress, patient=patient)
    except (Busy, JobError, Unwritable) as error:
        return error
