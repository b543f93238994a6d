"""What benchmarks share: clocks and the machine's rates."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """What one call takes, of wall-clock unless told."""
    started = clock()
    call()
    return clock() - started


def products_per_second(dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product: the best of ten."""
    a, b = torch.randn(2, 2048, 2048).to(dtype)
    return 2 * 2048**3 / min(seconds(partial(torch.mm, a, b)) for _ in range(10))


def calibration() -> Callable[[], torch.Tensor]:
    """Work for one thread with none of our code in it, of every kind that ours consists of.

    Many small operations, as in a scan over time; some large ones, as in a head; passes over memory; and arithmetic on
    a few numbers at a time, as around a simulator: about a quarter of the time each. Whoever changes it has to renew
    ``results/throughput.json``. It returns what the small operations end with.
    """
    generator = torch.Generator().manual_seed(0)
    # Large enough weights that the state stays of order one: denormal numbers, which it would decay to, cost ten times
    # as much on some processors and nothing on others.
    weight, state = torch.randn(128, 128, generator=generator) / 4, torch.randn(16, 128, generator=generator)
    large, wide = torch.randn(2, 384, 384, generator=generator), torch.randn(2**19, generator=generator)
    point, frame = np.arange(3.0), np.eye(3)

    def work() -> torch.Tensor:
        small, place = state, point
        for _ in range(400):
            small = torch.tanh(small @ weight)
        for _ in range(5):
            large[0] @ large[1]
        for _ in range(2):
            (wide * 0.5 + wide).sigmoid().sum()
        for _ in range(1200):
            place = np.clip(frame @ place * 0.5 + point, -1.0, 1.0)
        return small

    return work
