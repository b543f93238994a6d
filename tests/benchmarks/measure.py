"""What benchmarks share: clocks and the machine's rates."""

import time
from collections.abc import Callable
from functools import partial

import torch


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def products_per_second(dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product: the best of ten."""
    a, b = torch.randn(2, 2048, 2048).to(dtype)
    return 2 * 2048**3 / min(seconds(partial(torch.mm, a, b)) for _ in range(10))
