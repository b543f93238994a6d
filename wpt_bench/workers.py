"""What processes that work for another one have in common, whatever they make."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from wpt_bench.protocol import Progress

POLL_SECONDS = 0.2
"""How often somebody looks at what workers say."""


def end_with_parent() -> None:
    """From now on this process ends at once when the one that started it does, whatever it is doing."""

    def watch(parent: BaseProcess) -> None:
        parent.join()
        os._exit(1)

    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()


def sparing(send: Callable[[float, str], None]) -> Progress:
    """Progress that is passed on no more often than somebody looks."""
    next_time = 0.0

    def progress(fraction: float, what: str = "") -> None:
        nonlocal next_time
        if (now := time.monotonic()) >= next_time:
            next_time = now + POLL_SECONDS
            send(fraction, what)

    return progress
