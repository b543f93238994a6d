"""Compiled code made ready before it is needed: once on a machine, by one process while others wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock

from wpt_bench.world_model import kernels
from wpt_bench.world_model.compiled import HeadTape, PosteriorScan, PriorScan
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.losses import balanced_kl, two_hot_loss, two_hot_mean
from wpt_bench.world_model.nets import head
from wpt_bench.world_model.rssm import RSSM

_SIZE = WorldModelSize(deter=2, hidden=2, stoch=1, classes=2, blocks=1)


@contextmanager
def _others_wait() -> Iterator[None]:
    """Holds other processes back where they can take from disk what this one compiles."""
    if (folder := kernels.observe.stats.cache_path) is None:
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with FileLock(Path(folder) / "kernels.lock"):
        yield


@cache
def compile_kernels() -> None:
    """Half a minute where they have never been compiled, a second where they are on disk; then nothing.

    Draws no random numbers that anybody would miss.
    """
    with _others_wait(), torch.random.fork_rng(devices=[]), torch.no_grad():
        rssm, width = RSSM(_SIZE, 2, 2), _SIZE.feature
        zeros = torch.zeros(1, 1, 2)
        scan = PosteriorScan(rssm, zeros, zeros, zeros[..., :1])
        scan.backward(*scan.outputs())
        steps = PriorScan(rssm, rssm.initial(1), 1)
        steps.forward(zeros[0], zeros[0, :, :1])
        steps.backward(torch.zeros(1, 1, width))
        tape = HeadTape(head(width, 2, 1, 2), _SIZE.deter)
        tape.forward(torch.zeros(1, width))
        tape.backward(torch.zeros(1, 2))
        two_hot_mean(torch.zeros(1, 255))
        two_hot_loss(torch.zeros(1, 255), torch.zeros(1))
        balanced_kl(zeros.unsqueeze(0), zeros.unsqueeze(0))
