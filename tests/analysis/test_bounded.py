"""Small Parquet files that stand for huge tables: refused in a sentence, and with little memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wpt_bench.analysis import archive, bounded
from wpt_bench.records import RecordError

READING = """
import json, resource, sys
from pathlib import Path
from wpt_bench.analysis import archive
from wpt_bench.records import RecordError
try:
    said = str(len(archive._Rows(Path(sys.argv[1])).of("a")))
except RecordError as error:
    said = str(error)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
own = int(status["VmHWM"].split()[0])  # getrusage's goes back to the process that started this one
print(json.dumps([said, max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) << 10]))
"""
FIELDS = archive._COLUMNS
BASIS = 300 * 2**20
"""What reading takes of an empty table, and more."""


def table(rows: int, **texts: str) -> pa.Table:
    """Equal rows of one run; ``texts`` replace its texts."""
    texts = {"run": "a", "kind": "train", "metrics": "{}", "task": ""} | texts
    columns, fields = [], []
    for field in FIELDS:
        if field.name in texts:
            columns.append(
                pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([texts[field.name]]))
            )
        else:
            columns.append(pa.array(np.zeros(rows), field.type))
        fields.append(pa.field(field.name, columns[-1].type, nullable=False))
    return pa.table(columns, schema=pa.schema(fields))


def write(path: Path, rows: pa.Table, **options: object) -> None:
    pq.write_table(rows, path, compression="zstd", store_schema=False, **options)


def one_text_for_every_run(path: Path) -> None:
    write(path, table(1_000_000, run="a" * 1_000_000))


def one_text_for_all_metrics(path: Path) -> None:
    write(path, table(1_000_000, metrics=f'{{"{"a" * 100_000}": 1}}'))


def pages_that_unpack_to_much(path: Path) -> None:
    long = pa.array(["a" * 100_000]).take(pa.array(np.zeros(4000, np.int32)))
    columns = [long if pa.types.is_string(field.type) else pa.array(np.zeros(4000), field.type) for field in FIELDS]
    write(path, pa.table(columns, schema=FIELDS), use_dictionary=False)


def a_page_that_lies_about_its_size(path: Path) -> None:
    write(path, table(140, metrics="a" * 2**20).cast(FIELDS), use_dictionary=False, data_page_size=2**30)
    column = pq.read_metadata(path).row_group(0).column(FIELDS.get_field_index("metrics"))
    raw, at = bytearray(path.read_bytes()), column.data_page_offset
    assert raw[at : at + 3] == b"\x15\x00\x15" and raw[at + 6] & 0x80  # a data page; its size has five bytes
    raw[at + 3 : at + 8] = b"\xfe\xff\xff\xff\x0f"  # 2**31 - 1
    path.write_bytes(raw)


def more_rows_than_are_published(path: Path) -> None:
    pq.write_table(pa.table({"nothing": pa.nulls(bounded.MOST_ROWS + 1, pa.int8())}), path)


def more_rows_than_a_run_has(path: Path) -> None:
    write(path, table(1_000_000))


@pytest.mark.parametrize(
    ("craft", "sentence"),
    [
        (one_text_for_every_run, "takes more than 1024 MiB of memory."),
        (one_text_for_all_metrics, "takes more than 1024 MiB of memory."),
        (pages_that_unpack_to_much, "takes more than 1024 MiB of memory."),
        (a_page_that_lies_about_its_size, "takes more than 1024 MiB of memory."),
        (more_rows_than_are_published, "it declares 10000001 rows, more than can be published."),
        (more_rows_than_a_run_has, "has more rows, or longer ones, of run a than a run can have."),
    ],
)
def test_a_bomb_is_refused_within_bounds(craft: Callable[[Path], None], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "episodes.parquet"
    craft(path)
    assert path.stat().st_size < 2**20
    read = subprocess.run([sys.executable, "-c", READING, str(path)], capture_output=True, text=True, check=True)
    said, peak = json.loads(read.stdout)
    assert said.startswith(str(path)) and said.endswith(sentence) and "\n" not in said
    assert peak < bounded.MOST_MEMORY + BASIS


def test_five_times_what_an_honest_group_holds_is_read(tmp_path: Path) -> None:
    rows = 5 * archive._ROWS_PER_GROUP
    metrics = json.dumps({f"a metric of the update {number}": 1 / (number + 3) for number in range(20)})
    part = table(rows, metrics=metrics).cast(FIELDS)
    write(tmp_path / "episodes.parquet", part, use_dictionary=["run", "kind"])
    file = bounded.open_table(tmp_path / "episodes.parquet", FIELDS)
    assert bounded.read_group(file, 0).num_rows == rows


def test_a_file_is_tried_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "episodes.parquet"
    bounded._refusal.cache_clear()
    for text in (b"no table", b"another"):
        path.write_bytes(text)
        for _ in range(3):
            with pytest.raises(RecordError, match="cannot be read as a table of published episodes"):
                bounded.open_table(path, FIELDS)
    assert bounded._refusal.cache_info().misses == 2


def test_a_file_that_is_never_read_to_its_end_is_given_up(tmp_path: Path) -> None:
    """A pipe that nobody writes to; the process that waits for it is gone afterwards, and leaves no other behind."""
    path = tmp_path / "episodes.parquet"
    os.mkfifo(path)
    with pytest.raises(RecordError, match="it is no ordinary file"):
        bounded.open_table(path, FIELDS)
    begun = time.monotonic()
    assert "was not finished after 3 s; try again" in bounded._refusal(path, "any contents", 3.0)
    assert time.monotonic() - begun < 30
    children = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    assert not [command for command in children if str(path) in command]
