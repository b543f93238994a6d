"""Parquet files from strangers, read within a bound of memory.

A few kilobytes of Parquet can stand for terabytes: one long text that a dictionary repeats, pages that are larger than
they say. What a file declares bounds nothing, and pyarrow has no limit of its own. So a process that the system gives
no more than ``MOST_MEMORY`` reads the file first, in the way that it is read afterwards: this module, run as a program.
The limit is Linux's; elsewhere a system may not keep it. It has ``MOST_SECONDS``, after which it is killed.
"""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wpt_bench.records import RecordError, sha256

MOST_MEMORY = 2**30
"""Bytes. A group of honest rows takes a tenth of it."""
MOST_SECONDS = 600.0
"""A table of all rows that can be published takes less than a tenth of it."""
MOST_ROWS = 10_000_000
"""A table that declares more is not read."""


def open_table(path: Path, columns: pa.Schema) -> pq.ParquetFile:
    """A file that was read as a whole once, within the bound; RecordError if it cannot be, or has other columns."""
    try:
        pipe = path.exists() and not path.is_file()  # its checksum would be waited for as well
        why = "it is no ordinary file" if pipe else _refusal(path, sha256(path))
    except OSError as error:
        why = str(error)
    if why:
        raise RecordError(f"{path} cannot be read as a table of published episodes: {why}.")
    file = _open(path)
    if not file.schema_arrow.equals(columns):
        names = ", ".join(file.schema_arrow.names)
        raise RecordError(f"{path} is not a table of published episodes: its columns are {names}.")
    return file


def read_group(file: pq.ParquetFile, group: int, columns: list[str] | None = None) -> pa.Table:
    """One group of rows; column by column, so that no two pages are unpacked at a time."""
    return file.read_row_group(group, columns=columns, use_threads=False)


def _open(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)


@functools.lru_cache(maxsize=256)
def _refusal(path: Path, contents: str, seconds: float = MOST_SECONDS) -> str:
    """What stands against reading a file, or nothing; it is asked once for the same ``contents``, a SHA-256."""
    program = [sys.executable, "-P", "-m", __name__, str(path)]  # -P: no module of the folder that it is started in
    alone = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # the others reserve more than they use
    try:
        tried = subprocess.run(
            program, env=alone, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:  # by then it has been killed and waited for
        return (
            f"reading it was not finished after {seconds:g} s; try again when the disk and the processors have less to "
            "do, or take the file away"
        )
    if not tried.returncode:
        return ""
    said = tried.stderr.strip().rpartition("\n")[2]
    if tried.returncode < 0 or "MemoryError" in said or "bad_alloc" in tried.stderr:  # or a signal took it
        said = f"that takes more than {MOST_MEMORY >> 20} MiB of memory"
    return tried.stdout.strip() or said


def _try_out(path: Path) -> str:
    """What stands against reading a file, or nothing; MemoryError, or the end of this process, if it takes too much."""
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    try:
        file = _open(path)
        if file.metadata.num_rows > MOST_ROWS:
            return f"it declares {file.metadata.num_rows} rows, more than can be published"
        for group in range(file.num_row_groups):
            read_group(file, group)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        return " ".join(str(error).split()).rstrip(".")
    return ""


if __name__ == "__main__":
    why = _try_out(Path(sys.argv[1]))
    sys.stdout.write(why)
    sys.exit(1 if why else 0)
