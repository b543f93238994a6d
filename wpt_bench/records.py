"""What a run leaves behind: one ``run.json`` and one append-only ``episodes.jsonl`` in its folder.

Running writes them, analysis reads them; neither knows the other. Every figure of a report can be recomputed from the
rows of ``episodes.jsonl``. Runs that were published lie in other files (``analysis.archive``); ``Recorded`` is either.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

SCHEMA = 1
Status = Literal["pending", "running", "done", "failed"]


class RecordError(Exception):
    """A record that cannot be used; the message names the file."""


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What makes two runs the same run. Its hash is the run id; anything not here is recorded but not hashed.

    ``protocol`` holds what must be equal for scores to share a table (suite's protocol, evaluation, precision);
    ``settings`` the resolved settings of the method; ``data`` the digest of the data set (None for methods without
    data), ``stage`` the id of the shared pre-training (None without).
    """

    method: str
    method_version: int
    suite: str
    suite_version: int
    task: str
    seed: int
    profile: str
    observation: Literal["state", "pixels"]
    budget: int
    protocol: dict[str, Any]
    settings: dict[str, Any]
    data: str | None
    stage: str | None


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON of ``value``."""
    text = json.dumps(msgspec.to_builtins(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Run(msgspec.Struct, forbid_unknown_fields=True):
    """Contents of ``run.json``.

    Attributes:
        id: ``digest(identity)``.
        family, data_access, tuning, tuning_evaluations: as the method declares them.
        score: which column makes the score, ``return`` or ``success`` (at the last step), divided by ``score_scale``.
        episode_length: environment steps of one episode.
        status: ``pending``, ``running``, ``done`` or ``failed``; ``error`` is the traceback's last line if failed.
        provenance: git revision, library versions, machine, threads, command: recorded, not hashed.
        diagnostics: numbers of the offline phase (retrieval precision, behaviour-cloning loss, ...).
        updates, env_steps, wall_clock: so far; seconds are summed over resumptions.
        peak_memory: bytes of resident memory at most.
    """

    id: str
    identity: Identity
    family: str
    data_access: str
    tuning: str
    embodiment: str
    score: Literal["return", "success"]
    score_scale: float
    episode_length: int
    online: bool
    tuning_evaluations: int = 0
    status: Status = "pending"
    error: str | None = None
    provenance: dict[str, Any] = {}
    diagnostics: dict[str, Any] = {}
    updates: int = 0
    env_steps: int = 0
    wall_clock: float = 0.0
    peak_memory: int = 0
    schema: int = SCHEMA


class Episode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of ``episodes.jsonl``: one training or evaluation episode.

    Attributes:
        kind: ``train`` or ``evaluation``.
        env_step: environment steps taken when the episode had ended (train) or when it was evaluated (evaluation).
        index: of the episode in its stream; evaluation repeats the same indices at every evaluation.
        episode_return: undiscounted sum of rewards over environment steps.
        success_any, success_last: 0.0 or 1.0, at any agent step and at the last one.
        length: environment steps of the episode.
        guided_steps: agent steps chosen by the cloned prior.
        updates: gradient updates made so far.
        wall_clock: seconds since the run began, summed over resumptions.
        metrics: means of the update metrics since the row before (train only).
    """

    kind: Literal["train", "evaluation"]
    env_step: int
    index: int
    episode_return: float
    success_any: float
    success_last: float
    length: int
    guided_steps: int
    updates: int
    wall_clock: float
    metrics: dict[str, float] = {}


@dataclass(frozen=True)
class Recorded:
    """One run, wherever its record lies.

    Attributes:
        run: its record.
        file: what holds its episodes; sentences about them name it.
        episodes: reads them, each time it is called; raises RecordError or OSError if they cannot be used.
    """

    run: Run
    file: Path
    episodes: Callable[[], list[Episode]]


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old contents or the new, never part of them."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_run(folder: Path, run: Run) -> None:
    """Writes ``run.json``, replacing the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "run.json", msgspec.json.format(msgspec.json.encode(run), indent=1))


def read_run(folder: Path) -> Run:
    """Reads ``run.json``; raises RecordError naming the file if it is missing, torn or of another schema."""
    path = folder / "run.json"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} cannot be read as a run record: {error}") from error
    return decode_run(raw, str(path))


def decode_run(raw: bytes, where: str) -> Run:
    """A record as it stands in ``run.json``; raises RecordError naming ``where`` if it is torn or of another schema."""
    try:
        schema = msgspec.json.decode(raw).get("schema")
        if schema != SCHEMA:
            raise RecordError(f"{where} has record schema {schema}; this version reads schema {SCHEMA}.")
        run = msgspec.json.decode(raw, type=Run)
    except (AttributeError, ValueError, msgspec.MsgspecError) as error:  # not UTF-8 is a ValueError
        raise RecordError(f"{where} cannot be read as a run record: {error}") from error
    if run.id != digest(run.identity):
        raise RecordError(f"{where} was altered: its id ({run.id}) is not the digest of its identity.")
    return run


def append_episodes(folder: Path, episodes: Sequence[Episode]) -> int:
    """Appends rows to ``episodes.jsonl`` and returns the file's new length in bytes."""
    with open(folder / "episodes.jsonl", "ab") as file:
        file.write(b"".join(msgspec.json.encode(episode) + b"\n" for episode in episodes))
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def truncate_episodes(folder: Path, length: int) -> None:
    """Drops the rows after byte ``length``: those that a killed run wrote after its last checkpoint."""
    path = folder / "episodes.jsonl"
    if length == 0 and not path.exists():
        return
    if path.stat().st_size < length:
        raise RecordError(f"{path} is shorter than its run's checkpoint says; the run must start again.")
    with open(path, "r+b") as file:
        file.truncate(length)


def read_episodes(folder: Path) -> list[Episode]:
    """Rows of ``episodes.jsonl`` (none if there is no file). A torn last line is left out; any other is an error."""
    path = folder / "episodes.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(msgspec.json.decode(line, type=Episode))
        except (ValueError, msgspec.MsgspecError) as error:
            raise RecordError(f"{path}, line {number}, cannot be read as an episode: {error}") from error
    return rows


def find_runs(root: Path) -> Iterator[Path]:
    """Folders below ``root`` that hold a ``run.json``, in a fixed order."""
    if root.is_dir():
        yield from sorted(path.parent for path in root.glob("*/run.json"))
