"""What a run leaves behind: one ``run.json`` and one append-only ``episodes.jsonl`` in its folder.

Running writes them, analysis reads them; neither knows the other. Every figure of a report can be recomputed from the
rows of ``episodes.jsonl``. Runs that were published lie in other files (``analysis.archive``); ``Recorded`` is either.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

T = TypeVar("T")

SCHEMA = 1
Status = Literal["pending", "running", "done", "failed"]

RECORD, ROWS = "run.json", "episodes.jsonl"
CARD = "data_card.json"
"""Rows of the data card, in a published folder."""

_OF_THE_PLACE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
)
_ELSEWHERE = "what is finished is kept: make room or name another folder."


class RecordError(Exception):
    """A record that cannot be used; the message names the file."""


class Unwritable(RecordError):
    """Nothing can be written to the folder of results; the message says why, and what to do."""


Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}\Z")]
"""What may become part of a path: it stays below the folder that it is put into."""


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What makes two runs the same run. Its hash is the run id; anything not here is recorded but not hashed.

    ``protocol`` holds what must be equal for scores to share a table (suite's protocol, evaluation, precision);
    ``settings`` the resolved settings of the method; ``data`` the digest of the data set (None for methods without
    data) and ``subset`` what was taken of it (empty: everything), ``stage`` the id of the shared pre-training (None
    without). In a sequence of tasks ``earlier`` names those before this one and ``after`` is the id of the run before,
    whose agent goes on (None in the first); elsewhere both are None.
    """

    method: str
    method_version: int
    suite: Name
    suite_version: int
    task: str
    seed: int
    profile: Name
    observation: Literal["state", "pixels"]
    budget: int
    protocol: dict[str, Any]
    settings: dict[str, Any]
    data: Name | None
    stage: Name | None
    subset: dict[str, Any] = {}
    earlier: tuple[Name, ...] | None = None
    after: Name | None = None


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
        status: ``pending``, ``running``, ``done`` or ``failed``; ``error`` is the traceback if failed, its last line
            the sentence that people are shown.
        provenance: git revision, library versions, machine, threads, command: recorded, not hashed.
        diagnostics: numbers of the offline phase (retrieval precision, behaviour-cloning loss, ...).
        updates, env_steps, wall_clock: so far; seconds are summed over resumptions.
        peak_memory: bytes of resident memory at most.
        notes: one sentence for whatever befell it without changing its results: attempts that failed, checkpoints
            that were damaged.
        files: SHA-256 of what a finished run leaves beside this file, by name.
        checksum: of all the rest as it is written; empty in records of older versions.
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
    notes: list[str] = []
    files: dict[str, str] = {}
    checksum: str = ""
    schema: int = SCHEMA


class Episode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of ``episodes.jsonl``: one training or evaluation episode.

    Attributes:
        kind: ``train``; ``evaluation``; ``prior``: an evaluation episode in which a cloned prior alone acted, once,
            at step 0, and part of no score; ``earlier``: one of an earlier task of a sequence, after the run's last.
        task: of which an ``earlier`` episode is; elsewhere empty.
        env_step: environment steps taken when the episode had ended (train) or when it was evaluated.
        index: of the training episode in the run, or of the episode in its evaluation.
        episode_return: undiscounted sum of rewards over environment steps.
        success_any, success_last: 0.0 or 1.0, at any agent step and at the last one.
        length: environment steps of the episode.
        guided_steps: agent steps chosen by the cloned prior.
        updates: gradient updates made so far.
        wall_clock: seconds since the run began, summed over resumptions.
        metrics: train: means of the update metrics since the row before. Evaluation: what the agent tells of itself by
            this episode, which it never learns from; the method says what the numbers are (``wpt/diagnosis.py``).
            Empty in records of older versions.
    """

    kind: Literal["train", "evaluation", "prior", "earlier"]
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
    task: str = ""


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One method at one level of a factor, in an experiment.

    Attributes:
        factor, level: what was varied and how. value: the level's place on an axis, where levels are numbers.
        reference: whether the other levels of the factor are held against this one.
        method: its name.
        runs: one per task and seed; several arms may share runs.
    """

    factor: str
    level: str
    value: float | None
    reference: bool
    method: str
    runs: list[Identity]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which runs an experiment consists of: ``experiments/<suite>-<profile>-<name>.json`` beside the runs' folder.

    Attributes:
        name, question: of the experiment.
        factors: descriptions of what was varied, by name.
        arms: in the order of factors and levels.
        checksum: as in ``Run``.
    """

    name: Name
    question: str
    suite: Name
    profile: Name
    factors: dict[str, str]
    arms: list[Arm]
    checksum: str = ""


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


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, where they are not there yet; raises Unwritable if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unwritable(f"The folder {path} cannot be made ({error.strerror}); {_ELSEWHERE}") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old contents or the new, never part of them, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # a write does not know what it writes
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Makes renames in a folder outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Removes what killed processes were writing; for whoever holds the folder's lock."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Removes a file, or whatever stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unwritable(error: OSError) -> str | None:
    """A sentence if an error is about the place that is written to (full, read-only, ...), else None."""
    if error.errno not in _OF_THE_PLACE:
        return None
    where = f" ({error.filename2 or error.filename})" if error.filename else ""
    return f"{os.strerror(error.errno)}{where}; {_ELSEWHERE}"


def sha256(path: Path) -> str:
    """Of a file, in hex digits; it is read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(files: Mapping[str, str], folder: Path) -> str | None:
    """A sentence on the first of the files that is missing or has another SHA-256, or None."""
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if sha256(path) != expected:
            return f"{path} is damaged: its checksum differs"
    return None


def write_run(folder: Path, run: Run) -> None:
    """Writes ``run.json``, replacing the one before."""
    make_folder(folder)
    write_atomic(folder / RECORD, encode_checked(run))


def encode_checked(value: Any) -> bytes:
    """A structure as JSON for people to read, its field ``checksum`` made that of all the rest."""
    plain = msgspec.json.decode(msgspec.json.encode(value))
    plain["checksum"] = _checksum(plain)
    return msgspec.json.format(msgspec.json.encode(plain), indent=1)


def decode_checked(raw: bytes, kind: type[T]) -> T:
    """Inverse of ``encode_checked``; ValueError if the checksum is another, which may be empty."""
    plain = msgspec.json.decode(raw, type=dict[str, Any])
    value = msgspec.json.decode(raw, type=kind)
    _compare_checksum(plain)
    return value


def _compare_checksum(plain: Mapping[str, Any]) -> None:
    if plain.get("checksum") and plain["checksum"] != _checksum(plain):
        raise ValueError("its checksum differs")


def _checksum(plain: Mapping[str, Any]) -> str:
    """Of a structure as it is written, whatever fields other versions know."""
    rest = {name: value for name, value in plain.items() if name != "checksum"}
    return hashlib.sha256(msgspec.json.encode(rest, order="deterministic")).hexdigest()[:16]


def read_run(folder: Path) -> Run:
    """Reads ``run.json``; raises RecordError naming the file if it is missing, torn, altered or of another schema."""
    path = folder / RECORD
    try:
        return decode_run(path.read_bytes(), str(path))
    except (OSError, RecordError) as error:
        what = f"{path} cannot be read as a run record: {error}" if isinstance(error, OSError) else str(error)
        raise RecordError(f"{what.rstrip('.')}; delete {folder} to make this run again.") from error


def decode_run(raw: bytes, where: str) -> Run:
    """A record as it stands in ``run.json``; raises RecordError naming ``where`` if it cannot be used."""
    try:
        plain = msgspec.json.decode(raw)
        schema = plain.get("schema")
        if schema != SCHEMA:
            raise RecordError(f"{where} has record schema {schema}; this version reads schema {SCHEMA}.")
        run = msgspec.json.decode(raw, type=Run)
        if run.id != digest(run.identity):
            raise RecordError(f"{where} was altered: its id ({run.id}) is not the digest of its identity.")
        _compare_checksum(plain)
    except (AttributeError, ValueError, RecursionError, msgspec.MsgspecError) as error:  # not UTF-8 is a ValueError
        raise RecordError(f"{where} cannot be read as a run record: {error}") from error
    return run


def find_plans(folder: Path, suite: str, profile: str) -> tuple[list[Plan], list[str]]:
    """Plans of the experiments of one suite and profile, by name, and a sentence for each that cannot be read."""
    plans, problems = [], []
    for path in sorted(folder.glob(f"{suite}-{profile}-*.json")):
        try:
            plan = decode_checked(path.read_bytes(), Plan)
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            problems.append(f"{path} cannot be read as the plan of an experiment ({error}); run the experiment again.")
            continue
        if (plan.suite, plan.profile) == (suite, profile):
            plans.append(plan)
    return plans, problems


def planned(plans: Iterable[Plan]) -> set[str]:
    """Ids of the runs that experiments consist of."""
    return {digest(identity) for plan in plans for arm in plan.arms for identity in arm.runs}


def spanned(runs: Sequence[Identity]) -> tuple[list[str], list[int]]:
    """Tasks of runs, in their order, which makes a sequence what it is, and rising seeds."""
    return list(dict.fromkeys(run.task for run in runs)), sorted({run.seed for run in runs})


def encode_rows(episodes: Iterable[Episode]) -> bytes:
    """Rows as ``episodes.jsonl`` holds them; what was read from there has the same bytes again."""
    return b"".join(msgspec.json.encode(episode) + b"\n" for episode in episodes)


def append_episodes(folder: Path, episodes: Sequence[Episode]) -> int:
    """Appends rows to ``episodes.jsonl`` and returns the file's new length in bytes."""
    with open(folder / "episodes.jsonl", "ab") as file:
        file.write(encode_rows(episodes))
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def rows_digest(folder: Path, length: int) -> str | None:
    """SHA-256 of the first ``length`` bytes of ``episodes.jsonl``, or None if there are fewer."""
    path = folder / ROWS
    raw = path.read_bytes()[:length] if path.is_file() else b""
    return hashlib.sha256(raw).hexdigest() if len(raw) == length else None


def truncate_episodes(folder: Path, length: int) -> None:
    """Drops the rows after byte ``length``: those that a killed run wrote after its last checkpoint."""
    with open(folder / ROWS, "r+b") as file:
        file.truncate(length)


def read_episodes(folder: Path, expected: str | None = None) -> list[Episode]:
    """Rows of ``episodes.jsonl`` (none if there is no file). A torn last line is left out; any other is an error.

    ``expected`` is the file's SHA-256 where it is known, as that of a finished run is: any other contents are an error.
    """
    path = folder / ROWS
    if expected is not None and (damage := damaged({ROWS: expected}, folder)):
        raise RecordError(f"{damage}; delete {folder} to make this run again.")
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(f"{path} cannot be read as episodes: {error}") from error
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(msgspec.json.decode(line, type=Episode))
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise RecordError(f"{path}, line {number}, cannot be read as an episode: {error}") from error
    return rows


def find_runs(root: Path) -> Iterator[Path]:
    """Folders below ``root`` that hold a ``run.json``, in a fixed order."""
    if root.is_dir():
        yield from sorted(path.parent for path in root.glob(f"*/{RECORD}"))


def readable_runs(root: Path) -> Iterator[Run]:
    """The records of ``find_runs`` that can be read; those that cannot are for ``wpt-bench status`` to name."""
    for folder in find_runs(root):
        try:
            yield read_run(folder)
        except RecordError:
            continue
