"""Published runs: what is committed of one suite and profile, and enough to render every report and check every figure.

A published folder, ``results/dmc-quick/``, holds

- ``runs.jsonl``: one run record per line, what its ``run.json`` held, by run id;
- ``episodes.parquet``: one row per episode of every run: its run's id, and every field of ``records.Episode``;
- ``figures.json``: every figure that the analysis computes from those two (``summary.figures``);
- ``experiments.json``, where there were any: the plans of experiments, and which of the runs only they count;
- what was kept beside the runs, as far as there is any: ``stages/<id>/``, the pre-trained world models that runs
  started from; ``data/<shard>/``, the actions that offline data are played from (``data.recording``);
  ``data_card.json``, the rows of the data card; ``report.html`` and its first figure,
  ``curves-<observation>-<methods>.png``;
- ``manifest.json``: checksums of the others, which runs were left out and why, and the command that made it.

``publish.publish`` makes one, ``read`` reads it like a folder of runs, ``verify.verify`` checks it.
"""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wpt_bench import records
from wpt_bench.analysis import bounded
from wpt_bench.records import CARD, Episode, Plan, Recorded, RecordError, Run, make_folder, sha256, write_atomic

SCHEMA = 1
RUNS, EPISODES, FIGURES, MANIFEST = "runs.jsonl", "episodes.parquet", "figures.json", "manifest.json"
CONTENTS = (RUNS, EPISODES, FIGURES)
"""What every published folder has."""
EXPERIMENTS, PAGE, STAGES, DATA = "experiments.json", "report.html", "stages", "data"
FIRST_FIGURE = re.compile(r"curves-(state|pixels)-(all|wpt)\.png")
_KEPT = re.compile(
    rf"{STAGES}/[0-9a-f]{{16}}/(stage\.json|weights\.safetensors|open_loop\.safetensors)"
    rf"|{DATA}/[A-Za-z0-9][A-Za-z0-9._+-]*/(shard\.json|actions\.zlib)"
    rf"|{re.escape(CARD)}|{re.escape(PAGE)}|{FIRST_FIGURE.pattern}"
)
"""What else may be in one, beside the experiments: see ``add``."""

MOST_BYTES = 64 * 2**20
"""Of a run's rows, unpacked: ten times what the longest run has. As Python's objects they take twenty times that."""
_ROWS_PER_GROUP = 50_000
"""Runs are read group by group: small enough to hold in memory, large enough to compress. A run is in one group."""
_COLUMNS = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in {
            "run": pa.string(),
            "kind": pa.string(),
            "env_step": pa.int64(),
            "index": pa.int64(),
            "episode_return": pa.float64(),
            "success_any": pa.float64(),
            "success_last": pa.float64(),
            "length": pa.int64(),
            "guided_steps": pa.int64(),
            "updates": pa.int64(),
            "wall_clock": pa.float64(),
            "metrics": pa.string(),  # JSON: methods have metrics of their own, and no digit may be lost
            "task": pa.string(),
        }.items()
    ]
)


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run that was not published, so that the gap stays visible.

    Attributes:
        id: of the run; of its folder where the record could not be read.
        status: ``pending``, ``running``, ``failed``, or ``unreadable``.
        why: one line.
        record: its record, None where it could not be read.
    """

    id: str
    status: str
    why: str
    record: Run | None = None


class Experiments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of ``experiments.json``.

    Attributes:
        plans: of the suite's and profile's experiments.
        apart: ids of the runs that only they count, which are no part of the tables of methods.
    """

    plans: list[Plan] = []
    apart: list[str] = []


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of ``manifest.json``.

    Attributes:
        suite, profile: of all its runs.
        command: makes this folder from the folder of runs.
        runs, episodes: lines of ``runs.jsonl`` and rows of ``episodes.parquet``.
        files: SHA-256 of every other file, in hex digits, by its path in the folder.
        left_out: runs that are not in it.
    """

    suite: str
    profile: str
    command: str
    runs: int
    episodes: int
    files: dict[str, str]
    left_out: tuple[LeftOut, ...]
    schema: int = SCHEMA


def is_published(folder: Path) -> bool:
    """Whether a folder is, or was before it was damaged, a published one; RecordError if that cannot be looked up."""
    try:
        return any((folder / name).is_file() for name in CONTENTS)
    except OSError as error:
        raise _unreadable(folder, error) from error


def published_in(folder: Path) -> list[Path]:
    """The published folders that lie in a folder, by name; RecordError if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if is_published(path)) if folder.is_dir() else []
    except OSError as error:
        raise _unreadable(folder, error) from error


def write(
    folder: Path,
    found: Iterable[Recorded],
    *,
    suite: str,
    profile: str,
    command: str,
    left_out: Sequence[LeftOut] = (),
    experiments: Experiments | None = None,
) -> Manifest:
    """Writes runs, episodes, experiments and the manifest, without figures yet; the same runs give the same bytes.

    What an earlier publication had kept beside its runs is removed. Runs that are not ``done``, or whose episodes
    cannot be read, are left out and listed after ``left_out``.
    """
    make_folder(folder)
    for path in folder.iterdir():
        if _KEPT.fullmatch(path.name):
            path.unlink()
    for name in (STAGES, DATA):
        shutil.rmtree(folder / name, ignore_errors=True)
    gaps = list(left_out)
    lines: list[bytes] = []
    sink = pa.BufferOutputStream()
    episodes = 0
    with pq.ParquetWriter(
        sink,
        _COLUMNS,
        compression="zstd",
        compression_level=9,
        use_dictionary=["run", "kind"],
        write_page_checksum=True,
    ) as writer:
        group: list[tuple[str, list[Episode]]] = []
        for one in sorted(found, key=lambda one: one.run.id):
            if one.run.status != "done":
                gaps.append(_gap(one.run, one.run.status, one.run.error or "not finished"))
                continue
            try:
                rows = one.episodes()
            except (RecordError, OSError) as error:
                gaps.append(_gap(one.run, "unreadable", str(error).replace(f"{one.file.parent}/", "")))
                continue
            lines.append(msgspec.json.encode(one.run) + b"\n")
            episodes += len(rows)
            group.append((one.run.id, rows))
            if sum(len(rows) for _, rows in group) >= _ROWS_PER_GROUP:
                writer.write_table(_arrow(group))
                group = []
        if group:
            writer.write_table(_arrow(group))
    write_atomic(folder / RUNS, b"".join(lines))
    write_atomic(folder / EPISODES, sink.getvalue().to_pybytes())
    names = [RUNS, EPISODES]
    if experiments is None:
        (folder / EXPERIMENTS).unlink(missing_ok=True)
    else:
        write_atomic(folder / EXPERIMENTS, msgspec.json.encode(experiments) + b"\n")
        names.append(EXPERIMENTS)
    manifest = Manifest(suite, profile, command, len(lines), episodes, _digests(folder, names), tuple(gaps))
    _write_manifest(folder, manifest)
    return manifest


def add(folder: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> Manifest:
    """Writes figures, or what is kept beside the runs, by path in the folder; and the manifest that vouches for it."""
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, content)
    whole = msgspec.structs.replace(manifest, files=manifest.files | _digests(folder, contents))
    _write_manifest(folder, whole)
    return whole


def unlisted(folder: Path, manifest: Manifest) -> list[str]:
    """Files of a published folder, by path in it, that the manifest does not vouch for."""
    return [name for name in _files(folder) if name not in manifest.files and name != MANIFEST]


def read_manifest(folder: Path) -> Manifest:
    """Reads ``manifest.json``; raises RecordError naming it if it is missing, torn or of another schema."""
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
        schema = msgspec.json.decode(raw).get("schema")
        if schema != SCHEMA:
            raise RecordError(f"{path} has schema {schema} of published folders; this version reads schema {SCHEMA}.")
        return msgspec.json.decode(raw, type=Manifest)
    except (OSError, AttributeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise RecordError(f"{path} cannot be read as the manifest of a published folder: {error}") from error


def altered(folder: Path, manifest: Manifest) -> list[str]:
    """One sentence for each file that the manifest vouches for and that is missing or has other contents now."""
    said = []
    for name, expected in manifest.files.items():
        path = folder / name
        known = name in (*CONTENTS, EXPERIMENTS) or _KEPT.fullmatch(name)
        try:
            if not known or any((folder / part).is_symlink() for part in (Path(name), *Path(name).parents[:-1])):
                said.append(f"{folder / MANIFEST} leads out of its folder by {name[:80]!r}; do not trust it.")
            elif not path.is_file():
                said.append(f"{path} is missing.")
            elif sha256(path) != expected:
                said.append(f"{path} was altered or damaged: its SHA-256 is not the one in {MANIFEST}.")
        except OSError as error:
            said.append(str(_unreadable(path, error)))
    return said


def refuse_altered(folder: Path) -> None:
    """RecordError where a published folder is not as its manifest has it: nobody can say what is missing from it."""
    if damage := altered(folder, read_manifest(folder)):
        raise RecordError(f"{damage[0]} Nothing is taken from {folder} or put into it: get it as it was published.")


def read_experiments(folder: Path) -> Experiments:
    """The experiments of a published folder, none if it has none; raises RecordError if they cannot be read."""
    path = folder / EXPERIMENTS
    if not path.is_file() or path.is_symlink():
        return Experiments()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Experiments)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise RecordError(f"{path} cannot be read as the plans of experiments: {error}") from error


def read_card(folder: Path) -> list[dict[str, Any]]:
    """Rows of the data card that was kept, none without; raises RecordError if they cannot be read."""
    path = folder / CARD
    if not path.is_file() or path.is_symlink():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise RecordError(f"{path} cannot be read as a data card: {error}") from error


def read(folder: Path) -> tuple[list[Recorded], list[str]]:
    """Every usable run of a published folder, those left out among them, and a sentence for whatever is not as it was.

    Episodes are read when they are asked for.
    """
    problems: list[str] = []
    left_out: tuple[LeftOut, ...] = ()
    try:
        manifest = read_manifest(folder)
        problems += altered(folder, manifest)
        left_out = manifest.left_out
    except RecordError as error:
        problems.append(" ".join(str(error).split()))
    rows = _Rows(folder / EPISODES)
    found: dict[str, Recorded] = {}
    for number, line in _lines(folder / RUNS):
        where = f"{folder / RUNS}, line {number},"
        try:
            run = records.decode_run(line, where)
        except RecordError as error:
            problems.append(" ".join(str(error).split()))
            continue
        if run.id in found:
            problems.append(f"{where} holds run {run.id}, which is in the file before; this line is left out.")
            continue
        found[run.id] = Recorded(run, folder / EPISODES, functools.partial(rows.of, run.id))
    for gap in left_out:
        if gap.record is None:
            problems.append(f"{folder / MANIFEST} says that {gap.id} was not published, being {gap.status}: {gap.why}")
        elif gap.record.id not in found:
            found[gap.record.id] = Recorded(gap.record, folder / MANIFEST, list)
    return list(found.values()), problems


def runs_with_episodes(folder: Path) -> dict[str, int]:
    """How many rows of ``episodes.parquet`` each run has; raises RecordError naming the file if it cannot be read."""
    spans = _Rows(folder / EPISODES).spans
    return {run: sum(stop - start for _, start, stop in its) for run, its in spans.items()}


class _Rows:
    """``episodes.parquet``, opened when the first run is asked for; keeps the group of rows that was read last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._group: tuple[int, pa.Table] | None = None

    def of(self, run: str) -> list[Episode]:
        """All rows of one run in the order of the file."""
        decode = msgspec.json.Decoder(dict[str, float]).decode
        parts: list[pa.Table] = []
        size = 0
        for span in self.spans.get(run, ()):
            part = self._between(*span)
            size += part.nbytes
            if size > MOST_BYTES:
                raise RecordError(f"{self.path} has more rows, or longer ones, of run {run} than a run can have.")
            parts.append(part)
        try:
            rows = [row for part in parts for row in part.to_pylist()]
            return msgspec.convert([row | {"metrics": decode(row["metrics"])} for row in rows], list[Episode])
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise RecordError(f"{self.path} has rows of run {run} that are no episodes: {error}.") from error

    @functools.cached_property
    def spans(self) -> dict[str, list[tuple[int, int, int]]]:
        """Of every stretch of rows of each run its group, and its first and last row (exclusive) in the group."""
        spans: dict[str, list[tuple[int, int, int]]] = {}
        for group in range(self._file.num_row_groups):
            start = 0
            for chunk in bounded.read_group(self._file, group, ["run"])["run"].chunks:
                stretches, first = pc.run_end_encode(chunk), start
                try:
                    runs = stretches.values.to_pylist()
                except UnicodeDecodeError as error:
                    raise RecordError(f"{self.path} has rows of a run whose id is no text: {error}.") from error
                for run, stop in zip(runs, stretches.run_ends.to_pylist(), strict=True):
                    spans.setdefault(run, []).append((group, start, first + stop))
                    start = first + stop
        return spans

    @functools.cached_property
    def _file(self) -> pq.ParquetFile:
        return bounded.open_table(self.path, _COLUMNS)

    def _between(self, group: int, start: int, stop: int) -> pa.Table:
        if self._group is None or self._group[0] != group:
            self._group = None  # never two at a time
            self._group = group, bounded.read_group(self._file, group)
        return self._group[1].slice(start, stop - start).drop_columns("run")


def _arrow(group: Sequence[tuple[str, list[Episode]]]) -> pa.Table:
    """Rows of several runs as a table."""
    rows = [(run, row) for run, its in group for row in its]
    columns: dict[str, list[object]] = {
        name: [getattr(row, name) for _, row in rows] for name in _COLUMNS.names if name not in ("run", "metrics")
    }
    columns["run"] = [run for run, _ in rows]
    columns["metrics"] = [msgspec.json.encode(row.metrics).decode() for _, row in rows]
    return pa.table({name: columns[name] for name in _COLUMNS.names}, schema=_COLUMNS)


def _gap(run: Run, status: str, why: str) -> LeftOut:
    """A run as the manifest lists it: of an error its last line, for the rest of it names files of one machine."""
    line = why.strip().splitlines()[-1]
    shown = "failed" if status == "unreadable" else run.status
    return LeftOut(run.id, status, line, msgspec.structs.replace(run, status=shown, error=line, checksum=""))


def _unreadable(path: Path, error: OSError) -> RecordError:
    return RecordError(f"{path} cannot be read: {error.strerror}.")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        raw = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    except OSError as error:
        raise _unreadable(path, error) from error
    yield from ((number, line) for number, line in enumerate(raw.split(b"\n"), start=1) if line)


def _files(folder: Path) -> list[str]:
    """Every file below a folder, by its path in it."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    )


def _digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    return {name: sha256(folder / name) for name in names}


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    write_atomic(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
