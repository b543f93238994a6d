"""Which executor makes a grid's jobs: processes of this machine, or Ray."""

from __future__ import annotations

from importlib.util import find_spec

from wpt_bench.protocol import UserError
from wpt_bench.running.jobs import Start
from wpt_bench.running.local import LocalPool

NAMES = ("local", "ray")


def choose(
    name: str, *, workers: int, device: str = "cpu", address: str = "", gpus_per_run: float = 0.0, storage: str = ""
) -> Start:
    """Starts the executor of that name; UserError if there is none, or what it is asked for does not fit."""
    if name == "local":
        for option, value in (("--address", address), ("--gpus-per-run", gpus_per_run), ("--storage", storage)):
            if value:
                raise UserError(f"{option} goes with --executor ray.")
        return lambda work, jobs: LocalPool(work, min(workers, jobs))
    if name != "ray":
        raise UserError(f"There is no executor {name!r}; choose {' or '.join(NAMES)}.")
    if find_spec("ray") is None:
        raise UserError("--executor ray needs Ray, which is not installed: pip install 'wpt-bench[ray]'.")
    if device != "cpu" and not gpus_per_run:
        raise UserError(f"--device {device} on Ray needs --gpus-per-run, as 1 or a fraction that runs share.")
    from wpt_bench.running.ray_executor import Cluster, RayTasks

    return lambda work, jobs: RayTasks(work, Cluster(address, workers, gpus_per_run))
