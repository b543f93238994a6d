"""Episodes on disk: flat arrays, one folder per shard, and a manifest that says what they are and how to check them.

A data set is a folder with ``manifest.json`` and one sub-folder per shard, which exists whole or not at all. A shard
is what one collector recorded in one scene; its episodes have equal dimensions and follow each other in flat ``.npy``
files. An episode of T agent steps takes T + 1 rows of ``state.npy``, ``action.npy`` and ``image.npy``, where
``action[t]`` led to ``state[t]`` and ``action[0]`` is 0. What only labels may use lies in files of its own, with one
row per environment step and one for the reset: ``physics.npy``, ``frame_reward.npy``, ``frame_success.npy``.

``ShardWriter`` writes a shard, ``seal`` makes a data set of the shards present, ``Dataset.open`` maps it, ``verify``
recomputes its checksums.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from wpt_bench.data.mapped import HEADER_BYTES, Mapped, npy_header
from wpt_bench.protocol import ACTION_PAD, IMAGE_SIZE, STATE_PAD, UserError
from wpt_bench.records import Unwritable, digest, make_folder, sha256, sync_folder, unwritable, write_atomic

SCHEMA = 1
_MANIFEST = "manifest.json"
Quality = str | float | None
_Json = TypeVar("_Json", "Shard", "Manifest")

# Kind of row and dtype of every array a shard may hold; the first two it must hold.
_ARRAYS: dict[str, tuple[str, np.dtype[Any]]] = {
    "state": ("row", np.dtype("<f4")),
    "action": ("row", np.dtype("<f4")),
    "image": ("row", np.dtype("|u1")),
    "physics": ("frame", np.dtype("<f8")),
    "frame_reward": ("frame", np.dtype("<f4")),
    "frame_success": ("frame", np.dtype("<f4")),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}")


class ArrayFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One array of a shard: its file, what it holds, and the SHA-256 of the file in hex."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


class StoredEpisode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One episode of a shard.

    Attributes:
        row: its first row in the arrays with one row per observation; it takes ``length + 1``.
        frame: its first row in the arrays with one row per environment step; ``length * action_repeat + 1`` of them.
        length: agent steps, T.
        seed: what ``env.reset(seed=...)`` was given.
        origin: name of the task whose simulator recorded it.
        quality: what the collector says of it: a stage of training, a noise level.
    """

    row: int
    frame: int
    length: int
    seed: int
    origin: str
    quality: Quality


class Shard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of ``shard.json``: one folder of arrays."""

    name: str
    embodiment: str
    scene: str
    collector: str
    action_repeat: int
    settings: dict[str, Any]
    arrays: dict[str, ArrayFile]
    episodes: list[StoredEpisode]
    schema: int = SCHEMA


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of ``manifest.json``; ``digest`` is that of all the rest, so an altered manifest is noticed."""

    suite: str
    suite_version: int
    name: str
    seed: int
    settings: dict[str, Any]
    action_repeat: int
    shards: list[Shard]
    digest: str
    schema: int = SCHEMA


@dataclass(frozen=True)
class EpisodeInfo:
    """What is known of one episode of a data set; for the harness, labels and cards, never for a method.

    Attributes:
        index: in ``Dataset.episodes``, and the argument of ``Dataset.state`` and the others.
        shard: name of its shard.
        embodiment, scene: as in ``protocol.Task``.
        origin, quality, seed, length: as in ``StoredEpisode``; length is in agent steps.
        collector: the kind of behaviour that recorded it.
        action_repeat: environment steps per agent step.
        state_dim, action_dim: numbers in a state and in an action, before padding.
    """

    index: int
    shard: str
    embodiment: str
    scene: str
    origin: str
    collector: str
    quality: Quality
    length: int
    seed: int
    action_repeat: int
    state_dim: int
    action_dim: int


class ShardWriter:
    """Writes one shard, episode by episode, straight to disk; nothing but one episode is held in memory.

    Used as a context manager it closes at the end and, after an exception, leaves nothing behind. Until ``close`` has
    renamed the finished folder into place, nothing there looks like a shard.

    Args:
        folder: folder of the data set, made if missing.
        name: name of the shard and of its folder; UserError if it exists.
        embodiment, scene: as in ``protocol.Task``.
        collector: the kind of behaviour that acts.
        action_repeat: environment steps per agent step.
        settings: of the collector, JSON values, kept in the manifest.
        expected: what the shard has to come out as; UserError, and nothing is left, where it does not.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        embodiment: str,
        scene: str,
        collector: str,
        action_repeat: int,
        settings: Mapping[str, Any],
        expected: Shard | None = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot name a shard: use letters, digits, dots, dashes and underscores.")
        self.path = folder / name
        if self.path.exists():
            raise UserError(f"{self.path} exists already; delete it to collect it again.")
        self.name, self.embodiment, self.scene, self.collector = name, embodiment, scene, collector
        self.action_repeat = action_repeat
        self.settings: dict[str, Any] = msgspec.to_builtins(dict(settings))
        self._expected = expected
        self.episodes: list[StoredEpisode] = []
        self._rows = self._frames = 0
        self._widths: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, BinaryIO] = {}
        self._temporary = folder / f".{name}.{os.getpid()}.tmp"
        with _disk_errors(folder):
            make_folder(folder)
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary.mkdir()

    def add_episode(
        self,
        *,
        state: ArrayLike,
        action: ArrayLike,
        seed: int,
        origin: str,
        quality: Quality = None,
        image: ArrayLike | None = None,
        physics: ArrayLike | None = None,
        frame_reward: ArrayLike | None = None,
        frame_success: ArrayLike | None = None,
    ) -> None:
        """Appends one episode of T agent steps; UserError if anything about it is wrong.

        Args:
            state: float32 (T + 1, state_dim), finite.
            action: float32 (T + 1, action_dim) in [-1, 1]; row t led to state t, row 0 is 0.
            seed: what ``env.reset(seed=...)`` was given.
            origin: name of the task whose simulator was used.
            quality: what the collector says of the episode.
            image: uint8 (T + 1, 64, 64, 3).
            physics: float64 (T * action_repeat + 1, physics_dim), a row per environment step and one for the reset.
            frame_reward, frame_success: float32 (T * action_repeat + 1,); row 0 is 0, successes are 0 or 1.
        """
        given = {
            "state": state,
            "action": action,
            "image": image,
            "physics": physics,
            "frame_reward": frame_reward,
            "frame_success": frame_success,
        }
        arrays = {key: _convert(key, value) for key, value in given.items() if value is not None}
        length = len(arrays["state"]) - 1
        self._check(arrays, length)
        try:
            with _disk_errors(self.path):
                for key, array in arrays.items():
                    self._file(key).write(array.data)
        except BaseException:
            self.abort()  # part of an episode was written
            raise
        self._widths = {key: array.shape[1:] for key, array in arrays.items()}
        quality = quality if quality is None or isinstance(quality, str) else float(quality)
        self.episodes.append(StoredEpisode(self._rows, self._frames, length, int(seed), origin, quality))
        self._rows += length + 1
        self._frames += length * self.action_repeat + 1

    def _file(self, key: str) -> BinaryIO:
        if key not in self._files:
            self._files[key] = open(self._temporary / f"{key}.npy", "wb")  # noqa: SIM115 (closed by _close_files)
            self._files[key].write(bytes(HEADER_BYTES))
        return self._files[key]

    def _check(self, arrays: Mapping[str, NDArray[Any]], length: int) -> None:
        where = f"Episode {len(self.episodes)} of shard {self.name}"
        if length < 1:
            raise UserError(f"{where} has no step; record at least one.")
        for key, array in arrays.items():
            kind = _ARRAYS[key][0]
            rows = length + 1 if kind == "row" else length * self.action_repeat + 1
            if len(array) != rows:
                raise UserError(f"{where} has {len(array)} rows of {key}, but {length} agent steps need {rows}.")
            if array.dtype != np.uint8 and not np.isfinite(array).all():
                raise UserError(f"{where} has a value of {key} that is not finite.")
        problem = _width_problem({key: array.shape[1:] for key, array in arrays.items()})
        if problem:
            raise UserError(f"{where}: {problem}.")
        if self._widths and {key: array.shape[1:] for key, array in arrays.items()} != self._widths:
            raise UserError(f"{where} has other arrays or dimensions than the episodes before; use another shard.")
        if np.abs(arrays["action"]).max() > 1 or arrays["action"][0].any():
            raise UserError(f"{where} has actions outside [-1, 1], or a first action that is not zero.")
        for key in ("frame_reward", "frame_success"):
            if key in arrays and arrays[key][0] != 0:
                raise UserError(f"{where} has a {key} at the reset; row 0 must be 0.")
        if "frame_success" in arrays and not np.isin(arrays["frame_success"], (0, 1)).all():
            raise UserError(f"{where} has a success that is neither 0 nor 1.")

    def close(self) -> Shard:
        """Finishes the shard and renames it into place; UserError without episodes, Unwritable if the disk is full."""
        if not self.episodes:
            self.abort()
            raise UserError(f"Shard {self.name} has no episode; collect at least one.")
        try:
            with _disk_errors(self.path):
                return self._finish()
        except BaseException:
            self.abort()
            raise

    def _finish(self) -> Shard:
        arrays = {}
        for key, file in self._files.items():
            kind, dtype = _ARRAYS[key]
            shape = (self._rows if kind == "row" else self._frames, *self._widths[key])
            file.seek(0)
            file.write(npy_header(dtype, shape))
            file.flush()
            os.fsync(file.fileno())
            arrays[key] = ArrayFile(f"{key}.npy", dtype.str, shape, sha256(self._temporary / f"{key}.npy"))
        self._close_files()
        shard = Shard(
            self.name,
            self.embodiment,
            self.scene,
            self.collector,
            self.action_repeat,
            self.settings,
            arrays,
            self.episodes,
        )
        if self._expected is not None and shard != self._expected:
            raise UserError(
                f"{self.path} does not come out as it was recorded, from the same seeds and actions: the simulator, or "
                "for pictures the graphics library, is another one. Collected instead, without the published folder, "
                "it is another data set, on which other runs are made."
            )
        write_atomic(self._temporary / "shard.json", _to_json(shard))
        self._temporary.rename(self.path)
        sync_folder(self.path.parent)
        return shard

    def abort(self) -> None:
        """Throws away what was written; does nothing after ``close``."""
        self._close_files()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _close_files(self) -> None:
        for file in self._files.values():
            try:
                file.close()
            except OSError:  # a full disk: the buffer cannot be flushed, and the error was reported by the write
                continue
        self._files = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def seal(folder: Path, *, suite: str, suite_version: int, name: str, seed: int, settings: Mapping[str, Any]) -> Dataset:
    """Writes ``manifest.json`` for the finished shards in ``folder``, by name, and opens the data set.

    A data set grows by adding shards and sealing again. UserError if there is no shard, a shard is damaged, or their
    action repeats differ.
    """
    shards = [read_shard(path) for path in sorted(folder.glob("[!.]*/shard.json"))]
    if not shards:
        raise UserError(f"{folder} holds no finished shard; collect some data first.")
    repeats = sorted({shard.action_repeat for shard in shards})
    if len(repeats) > 1:
        raise UserError(f"The shards in {folder} have action repeats {repeats}; keep them in separate data sets.")
    manifest = Manifest(
        suite, suite_version, name, seed, msgspec.to_builtins(dict(settings)), repeats[0], shards, digest=""
    )
    manifest = msgspec.structs.replace(manifest, digest=_manifest_digest(manifest))
    with _disk_errors(folder):
        write_atomic(folder / _MANIFEST, _to_json(manifest))
    return Dataset.open(folder)


class Dataset:
    """A sealed data set, memory-mapped; open it with ``Dataset.open``.

    Attributes:
        path: its folder.
        manifest: what ``manifest.json`` says.
        episodes: what is known of each episode, in a fixed order.
    """

    def __init__(self, path: Path, manifest: Manifest, files: Mapping[tuple[str, str], Mapped]) -> None:
        self.path, self.manifest = path, manifest
        self._files = files
        self._stored = [(shard, episode) for shard in manifest.shards for episode in shard.episodes]
        self.episodes = [_info(index, shard, episode) for index, (shard, episode) in enumerate(self._stored)]

    @classmethod
    def open(cls, path: Path | str) -> Dataset:
        """Opens a data set and checks names, sizes and headers of its files, but not their contents (``verify`` does).

        Raises UserError, naming the file, for a missing, truncated or altered file, another schema, or a manifest that
        points outside its folder. No memory is reserved before a file has proved to be what the manifest declares.
        """
        path = Path(path)
        manifest = _read_manifest(path)
        files = {}
        for shard in manifest.shards:
            check_shard(path, shard, path / _MANIFEST)
            for key, array in shard.arrays.items():
                files[shard.name, key] = _map_file(path, shard, array)
        return cls(path, manifest, files)

    @property
    def digest(self) -> str:
        """16 hex digits that change with anything in the data: of the manifest, which holds every checksum."""
        return self.manifest.digest

    @property
    def suite(self) -> str:
        """Name of the suite that collected it."""
        return self.manifest.suite

    @property
    def action_repeat(self) -> int:
        """Environment steps per agent step."""
        return self.manifest.action_repeat

    def state(self, episode: int) -> NDArray[np.float32]:
        """States of one episode, unscaled: float32 ``(T + 1, state_dim)``, mapped."""
        return self._slice(episode, "state")

    def action(self, episode: int) -> NDArray[np.float32]:
        """Actions of one episode: float32 ``(T + 1, action_dim)``, mapped; row t led to state t."""
        return self._slice(episode, "action")

    def image(self, episode: int) -> NDArray[np.uint8]:
        """Pictures of one episode: uint8 ``(T + 1, 64, 64, 3)``, mapped; UserError if none were recorded."""
        return self._slice(episode, "image")

    def physics(self, episode: int) -> NDArray[np.float64]:
        """Simulator states of one episode: float64 ``(T * action_repeat + 1, physics_dim)``, mapped."""
        return self._slice(episode, "physics")

    def frame_labels(self, episode: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Rewards and successes recorded per environment step: two float32 ``(T * action_repeat + 1,)``, mapped."""
        return self._slice(episode, "frame_reward"), self._slice(episode, "frame_success")

    def window(self, episode: int, key: str) -> NDArray[Any]:
        """Rows of ``state``, ``action`` or another array, without a way back to the rest: see ``Mapped.window``."""
        mapped, start, stop = self._locate(episode, key)
        return mapped.window(start, stop)

    def _slice(self, episode: int, key: str) -> NDArray[Any]:
        mapped, start, stop = self._locate(episode, key)
        return mapped.array[start:stop]

    def _locate(self, episode: int, key: str) -> tuple[Mapped, int, int]:
        shard, stored = self._stored[episode]
        if key not in shard.arrays:
            raise UserError(f"{self.path / shard.name} holds no {key}; collect the data with it.")
        if _ARRAYS[key][0] == "row":
            return self._files[shard.name, key], stored.row, stored.row + stored.length + 1
        return self._files[shard.name, key], stored.frame, stored.frame + stored.length * shard.action_repeat + 1


def verify(path: Path | str) -> list[str]:
    """Every problem of a data set, one sentence each, naming the file; recomputes all checksums. Empty if sound."""
    path = Path(path)
    try:
        manifest = _read_manifest(path)
    except UserError as error:
        return [str(error)]
    problems = []
    for shard in manifest.shards:
        try:
            check_shard(path, shard, path / _MANIFEST)
            if read_shard(path / shard.name / "shard.json") != shard:
                problems.append(f"{path / shard.name / 'shard.json'} differs from the manifest; collect it again.")
        except UserError as error:
            problems.append(str(error))
            continue
        for array in shard.arrays.values():
            try:
                file = _map_file(path, shard, array).path
                if sha256(file) != array.sha256:
                    problems.append(f"{file} is damaged: its checksum differs from the manifest's; collect it again.")
            except UserError as error:
                problems.append(str(error))
    return problems


def read_shard(path: Path) -> Shard:
    """Contents of a ``shard.json``; UserError if it is missing, damaged or of another schema."""
    return _read_json(path, Shard)


def _convert(key: str, value: ArrayLike) -> NDArray[Any]:
    dtype = _ARRAYS[key][1]
    array = np.asarray(value)
    if key == "image" and array.dtype != np.uint8:
        raise UserError(f"Pictures must be uint8, not {array.dtype}.")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused
        return np.ascontiguousarray(array, dtype)


def _width_problem(widths: Mapping[str, tuple[int, ...]]) -> str | None:
    """What is wrong with the shapes of one row of each array, or None."""
    for key, limit in (("state", STATE_PAD), ("action", ACTION_PAD)):
        width = widths.get(key, ())
        if len(width) != 1 or width[0] < 1:
            return f"{key} must have one row of numbers per step, not shape {width} per step"
        if width[0] > limit:
            return f"{key} has {width[0]} numbers, more than the {limit} that the padding holds"
    if widths.get("image", (IMAGE_SIZE, IMAGE_SIZE, 3)) != (IMAGE_SIZE, IMAGE_SIZE, 3):
        return f"pictures must be {IMAGE_SIZE} x {IMAGE_SIZE} x 3, not {widths['image']}"
    if len(widths.get("physics", (1,))) != 1:
        return "physics must have one row of numbers per environment step"
    if ("frame_reward" in widths) != ("frame_success" in widths):
        return "frame_reward and frame_success go together"
    if widths.get("frame_reward", ()) or widths.get("frame_success", ()):
        return "frame_reward and frame_success must have one number per environment step"
    return None


def check_shard(root: Path, shard: Shard, file: Path) -> None:
    """Raises UserError unless a shard's description, read from ``file``, is consistent and stays inside ``root``."""
    where = f"{file}, shard {shard.name[:80]!r}"
    if shard.schema != SCHEMA:
        raise UserError(f"{where} has schema {shard.schema}; this version reads schema {SCHEMA}.")
    if not _NAME.fullmatch(shard.name):
        raise UserError(f"{where} is not named like a folder inside the data set; do not trust this data.")
    if not (root / shard.name).resolve().is_relative_to(root.resolve()):
        raise UserError(f"{where} leads outside of the data set; do not trust this data.")
    widths = {key: array.shape[1:] for key, array in shard.arrays.items()}
    problem = _width_problem(widths)
    if problem:
        raise UserError(f"{where}: {problem}.")
    rows = frames = 0
    for episode in shard.episodes:
        if (episode.row, episode.frame) != (rows, frames) or episode.length < 1 or shard.action_repeat < 1:
            raise UserError(f"{where} has episodes that do not follow each other; collect it again.")
        rows += episode.length + 1
        frames += episode.length * shard.action_repeat + 1
    for key, array in shard.arrays.items():
        kind, dtype = _ARRAYS.get(key, ("", np.dtype("V")))
        total = rows if kind == "row" else frames
        if array.file != f"{key}.npy" or array.dtype != dtype.str or array.shape[:1] != (total,) or not rows:
            raise UserError(f"{where} declares an array {key[:80]!r} that does not fit its episodes; collect it again.")


def _map_file(root: Path, shard: Shard, array: ArrayFile) -> Mapped:
    path = root / shard.name / array.file
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{path} leads outside of the data set; do not trust this data.")
    return Mapped(path, np.dtype(array.dtype), array.shape)


def _info(index: int, shard: Shard, episode: StoredEpisode) -> EpisodeInfo:
    return EpisodeInfo(
        index=index,
        shard=shard.name,
        embodiment=shard.embodiment,
        scene=shard.scene,
        origin=episode.origin,
        collector=shard.collector,
        quality=episode.quality,
        length=episode.length,
        seed=episode.seed,
        action_repeat=shard.action_repeat,
        state_dim=shard.arrays["state"].shape[1],
        action_dim=shard.arrays["action"].shape[1],
    )


def _read_manifest(folder: Path) -> Manifest:
    manifest = _read_json(folder / _MANIFEST, Manifest)
    if manifest.digest != _manifest_digest(manifest):
        raise UserError(f"{folder / _MANIFEST} was altered: its digest differs; collect or copy the data again.")
    if any(shard.action_repeat != manifest.action_repeat for shard in manifest.shards) or not manifest.shards:
        raise UserError(f"{folder / _MANIFEST} has shards of another action repeat, or none; collect it again.")
    if len({shard.name for shard in manifest.shards}) != len(manifest.shards):
        raise UserError(f"{folder / _MANIFEST} names a shard twice; collect it again.")
    return manifest


def _manifest_digest(manifest: Manifest) -> str:
    return digest(msgspec.structs.replace(manifest, digest=""))


def _read_json(path: Path, kind: type[_Json]) -> _Json:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); is this a finished data set?") from error
    try:
        schema = msgspec.json.decode(raw, type=_Versioned).schema
        if schema != SCHEMA:
            raise UserError(f"{path} has data schema {schema}; this version reads schema {SCHEMA}.")
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is damaged and cannot be read ({error}); collect or copy the data again.") from error


class _Versioned(msgspec.Struct):
    schema: int


def _to_json(value: Shard | Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Raises Unwritable, with a sentence, where the disk is full or read-only."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)  # a write does not know what it writes
        if sentence := unwritable(error):
            raise Unwritable(sentence) from error
        raise
