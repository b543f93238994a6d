"""This machine's cache of what its workers fetch from storage and make for it, swept of what nobody uses any more.

Everything in it is in storage too, and may be lost at any time. A worker holds the folders that it uses by a lock that
the system lets go when it dies; what nobody holds and nobody has held for a day is removed by whoever begins a job.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

CACHE_VARIABLE = "WPT_BENCH_CACHE"
KEPT_SECONDS = 24 * 3600.0
"""How long a folder stays after it was used last: longer than any grid leaves its data set alone."""
_USED = ".used"
_KINDS = ("data", "stages", "runs")


def folder() -> Path:
    """Where it is."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "wpt-bench")


@contextmanager
def using(folders: Iterable[Path]) -> Iterator[None]:
    """Keeps folders, which are made if they are missing, from being swept. Any number of workers may use one."""
    with ExitStack() as stack:
        marks = [stack.enter_context(_hold(path)) for path in folders]
        yield
        for mark in marks:
            os.utime(mark.fileno())


def sweep(root: Path) -> None:
    """Removes folders that nobody uses or has used for ``KEPT_SECONDS``, and what a killed sweep has left."""
    for path in [path for kind in _KINDS for path in root.glob(f"{kind}/*") if path.is_dir()]:
        try:
            with open(path / _USED, "ab") as mark:  # new, and so not swept yet, in a folder of an older version
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is(mark, path) and time.time() - os.fstat(mark.fileno()).st_mtime > KEPT_SECONDS:
                    gone = path.with_name(f".{uuid.uuid4().hex}")  # at once: others may make the folder anew meanwhile
                    path.rename(gone)
                    shutil.rmtree(gone, ignore_errors=True)
        except OSError:  # it is used, another sweep was faster, or it is somebody else's
            continue


def _hold(path: Path) -> BinaryIO:
    """The folder's mark, locked together with others until it is closed."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            mark = open(path / _USED, "ab")  # noqa: SIM115
        except FileNotFoundError:  # it was swept in between
            continue
        fcntl.flock(mark, fcntl.LOCK_SH)
        if _is(mark, path):
            os.utime(mark.fileno())
            return mark
        mark.close()


def _is(mark: BinaryIO, path: Path) -> bool:
    """Whether an open mark is that of the folder as it is now, not of one that was swept."""
    try:
        return os.path.samestat(os.fstat(mark.fileno()), (path / _USED).stat())
    except FileNotFoundError:
        return False
