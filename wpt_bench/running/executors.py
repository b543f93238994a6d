"""Which executor makes a grid's jobs: processes of this machine, or Ray."""

from __future__ import annotations

import re
from importlib.util import find_spec

import torch

from wpt_bench.protocol import UserError
from wpt_bench.running.jobs import Place
from wpt_bench.running.local import this_machine

NAMES = ("local", "ray")
_DEVICE = re.compile(r"cpu|cuda(?::([0-9]{1,3}))?")


def choose(
    name: str, *, workers: int, device: str = "cpu", address: str = "", gpus_per_run: float = 0.0, storage: str = ""
) -> Place:
    """Where jobs are made, by the executor's name.

    UserError if there is none of that name, or if what it is asked for does not fit or is not on this machine. Which
    devices a cluster has is for its workers to find out.
    """
    known = _DEVICE.fullmatch(device)
    if known is None:
        raise UserError(f"There is no device {device!r}; choose cpu, cuda, cuda:1, ...")
    if name == "local":
        for option, value in (("--address", address), ("--gpus-per-run", gpus_per_run), ("--storage", storage)):
            if value:
                raise UserError(f"{option} goes with --executor ray.")
        if device != "cpu" and int(known[1] or 0) >= torch.cuda.device_count():
            raise UserError(
                f"--device {device} is not here: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA GPUs; "
                "choose cpu, or install a build of torch for your GPU."
            )
        return this_machine(workers, device)
    if name != "ray":
        raise UserError(f"There is no executor {name!r}; choose {' or '.join(NAMES)}.")
    if find_spec("ray") is None:
        raise UserError("--executor ray needs Ray, which is not installed: pip install 'wpt-bench[ray]'.")
    if device != "cpu" and not gpus_per_run:
        raise UserError(f"--device {device} on Ray needs --gpus-per-run, as 1 or a fraction that runs share.")
    from wpt_bench.running.ray_executor import Cluster, RayTasks

    cluster = Cluster(address, workers, gpus_per_run)
    return Place(lambda work, jobs: RayTasks(work, cluster), device, storage)
