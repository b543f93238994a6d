"""Folders exchanged through storage that knows no rename: any fsspec URL, so that workers need no shared disk.

Below the URL lie ``objects/<key>/<SHA-256>``, which never change, and ``pointers/<key>/<number>-<checksum>.<state>``,
each a list of a folder's files by name and checksum. Objects are written first, then the pointer that makes them
current, then what it no longer names is removed: whoever dies in between leaves the pointer before. The newest pointer
whose own checksum fits is the current one. Files are fetched into a local folder and checked before they are used.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import msgspec
from filelock import FileLock

from wpt_bench import records
from wpt_bench.protocol import UserError

_POINTER = re.compile(r"(\d{12})-([0-9a-f]{16})\.(open|done)")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
_COMPLETE = ".complete"
DONE = ".done"


class Unanswered(UserError):
    """Storage cannot be reached, or does not do what it is asked."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    size: int


class Pointer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder as it was at one moment.

    Attributes:
        number: grows from pointer to pointer.
        writer: who wrote it, so that one who was thought dead is told that another has taken over.
        files: by path below the folder.
    """

    number: int
    writer: str
    files: dict[str, _Entry]


@dataclass(frozen=True)
class Store:
    """Storage that was opened."""

    url: str
    fs: Any
    root: str


@dataclass
class Held:
    """A folder that this process writes to storage.

    Attributes:
        pointer: the current one, ours.
        name: its name.
        known: checksum of every file by path, with its size, time of change and inode when it was computed.
    """

    store: Store
    key: str
    folder: Path
    pointer: Pointer
    name: str
    known: dict[str, tuple[tuple[int, int, int], _Entry]] = field(default_factory=dict)


def open_store(url: str) -> Store:
    """Opens storage by its URL; UserError if its kind is unknown or its driver is not installed."""
    try:
        fs, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UserError(f"Storage {url} needs a package that is not installed: {error}.") from error
    except ValueError as error:
        raise UserError(f"{url} is no URL of storage: {error}.") from error
    return Store(url, fs, root.rstrip("/"))


def finished(store: Store) -> set[str]:
    """Keys of all folders that were pushed as done."""
    return {key for key, done in begun(store).items() if done}


def begun(store: Store) -> dict[str, bool]:
    """Keys of all folders that somebody has claimed, and whether they were pushed as done."""
    found: dict[str, bool] = {}
    for path in _find(store, "pointers"):
        key = path.removeprefix(f"{store.root}/pointers/").rpartition("/")[0]
        found[key] = found.get(key, False) or path.endswith(DONE)
    return found


def read(store: Store, key: str, name: str) -> bytes | None:
    """One file of a folder as it was pushed last; None if it is not there. UserError if it is damaged."""
    found = _current(store, key)
    entry = found[0].files.get(name) if found else None
    if found is None or entry is None:
        return None
    try:
        raw: bytes = _ask(store, store.fs.cat_file, _object(store, key, entry.sha256))
    except FileNotFoundError:
        if _current(store, key) != found:  # a newer one was pushed meanwhile
            return read(store, key, name)
        raw = b""
    if hashlib.sha256(raw).hexdigest() != entry.sha256:
        raise _damage(store, key, name)
    return raw


def fetch(store: Store, key: str, folder: Path) -> Pointer | None:
    """Makes a local folder what it is in storage; leaves it alone, and returns None, if it is not there.

    Files that are equal already are not fetched, and files that storage does not have are removed, hidden ones aside.
    UserError if what is there cannot be used.
    """
    found = _current(store, key)
    if found is None:
        return None
    pointer, _ = found
    folder.mkdir(parents=True, exist_ok=True)
    for name in _names(folder):
        if name not in pointer.files:
            (folder / name).unlink()
    for name, entry in pointer.files.items():
        path = folder / name
        if not (path.is_file() and path.stat().st_size == entry.size and records.sha256(path) == entry.sha256):
            _fetch_file(store, key, name, entry, path)
    return pointer


def _fetch_file(store: Store, key: str, name: str, entry: _Entry, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _ask(store, store.fs.get_file, _object(store, key, entry.sha256), str(temporary))
        if records.sha256(temporary) != entry.sha256:
            raise _damage(store, key, name)
        temporary.replace(path)
    except FileNotFoundError:
        raise _damage(store, key, name) from None
    finally:
        temporary.unlink(missing_ok=True)


def _damage(store: Store, key: str, name: str) -> UserError:
    return UserError(f"{name} of {key} in {store.url} is missing or damaged; delete {key} there to make it again.")


def fetch_once(store: Store, key: str, folder: Path) -> bool:
    """Fetches what was pushed as done, once for all processes of this machine; False if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".fetching"):
        if not (folder / _COMPLETE).exists():
            found = _current(store, key)
            if found is None or not found[1].endswith(DONE):
                return False
            fetch(store, key, folder)
            records.write_atomic(folder / _COMPLETE, b"")
    return True


def claim(store: Store, key: str, folder: Path, *, fetching: bool = True) -> Held:
    """Fetches a folder and becomes the one who writes it; without ``fetching``, what is local replaces what is there.

    What an interrupted push has left in storage is removed.
    """
    if fetching:
        fetch(store, key, folder)
    before = _current(store, key)
    for part in ("objects", "pointers"):
        _ask(store, store.fs.makedirs, f"{store.root}/{part}/{key}", exist_ok=True)
    number, files = (before[0].number + 1, before[0].files) if before else (0, {})
    pointer = Pointer(number, uuid.uuid4().hex, files)
    held = Held(store, key, folder, pointer, _point(store, key, pointer, "open"))
    _sweep(held)
    return held


def push(held: Held, *, done: bool = False) -> None:
    """Writes the folder as it is now to storage; UserError if another process has claimed it since."""
    store, key = held.store, held.key
    files, there = {name: _entry(held, name) for name in _names(held.folder)}, set(_shas(held.pointer))
    for name, entry in files.items():
        if entry.sha256 not in there:
            _ask(store, store.fs.put_file, str(held.folder / name), _object(store, key, entry.sha256))
            there.add(entry.sha256)
    found = _current(store, key)
    if found is None or found[0].writer != held.pointer.writer:
        raise UserError(f"{key} in {store.url} was taken over by another process; run one command on it at a time.")
    held.pointer = Pointer(held.pointer.number + 1, held.pointer.writer, files)
    held.name = _point(store, key, held.pointer, "done" if done else "open")
    _sweep(held)


def _point(store: Store, key: str, pointer: Pointer, state: str) -> str:
    """Writes a pointer; it is the last to be written, and one file, so it is there whole or has another checksum."""
    raw = msgspec.json.encode(pointer)
    name = f"{pointer.number:012d}-{hashlib.sha256(raw).hexdigest()[:16]}.{state}"
    _ask(store, store.fs.pipe_file, f"{store.root}/pointers/{key}/{name}", raw)
    return name


def _current(store: Store, key: str) -> tuple[Pointer, str] | None:
    """The newest whole pointer and its name.

    A folder that is listed while its pointer is replaced may show neither the old one nor the whole new one, so that
    where there seems to be none it is looked for once more.
    """
    return _newest(store, key) or _newest(store, key)


def _newest(store: Store, key: str) -> tuple[Pointer, str] | None:
    for path in sorted(_find(store, f"pointers/{key}"), key=lambda path: path.rpartition("/")[2], reverse=True):
        name = path.rpartition("/")[2]
        if not (fits := _POINTER.fullmatch(name)):
            continue
        try:
            raw = _ask(store, store.fs.cat_file, path)
        except FileNotFoundError:  # a newer one was written meanwhile, and this one removed
            return _newest(store, key)
        if hashlib.sha256(raw).hexdigest()[:16] != fits[2]:
            continue
        try:
            pointer = msgspec.json.decode(raw, type=Pointer)
        except msgspec.MsgspecError as error:
            raise UserError(f"{name} of {key} in {store.url} cannot be used: {error}.") from error
        for file, entry in pointer.files.items():
            if not _NAME.fullmatch(file) or not re.fullmatch(r"[0-9a-f]{64}", entry.sha256):
                raise UserError(f"{name} of {key} in {store.url} names a file {file!r} that no folder of ours has.")
        return pointer, name
    return None


def _sweep(held: Held) -> None:
    """Removes pointers and objects of a folder that its pointer has replaced."""
    store, kept = held.store, set(_shas(held.pointer))
    old = [path for path in _find(store, f"pointers/{held.key}") if path.rpartition("/")[2] != held.name]
    old += [path for path in _find(store, f"objects/{held.key}") if path.rpartition("/")[2] not in kept]
    for path in old:
        try:
            _ask(store, store.fs.rm_file, path)
        except FileNotFoundError:
            continue


def _shas(pointer: Pointer) -> list[str]:
    return [entry.sha256 for entry in pointer.files.values()]


def _entry(held: Held, name: str) -> _Entry:
    """A file's checksum, computed again only where the file has changed: episodes of the replay never do."""
    stat = (held.folder / name).stat()
    mark = (stat.st_size, stat.st_mtime_ns, stat.st_ino)  # clocks of files tick in milliseconds
    if name not in held.known or held.known[name][0] != mark:
        held.known[name] = mark, _Entry(records.sha256(held.folder / name), stat.st_size)
    return held.known[name][1]


def _names(folder: Path) -> list[str]:
    """Files below a folder, without hidden ones, names that none of ours has, and labels, which are a cache."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return [name for name in names if _NAME.fullmatch(name) and not name.startswith("labels/")]


def _object(store: Store, key: str, sha256: str) -> str:
    return f"{store.root}/objects/{key}/{sha256}"


def _find(store: Store, below: str) -> list[str]:
    """Everything below a path, as it is now: listings that the driver remembers may be old."""

    def find() -> list[str]:
        store.fs.invalidate_cache()
        try:
            return list(store.fs.find(f"{store.root}/{below}"))
        except FileNotFoundError:
            return []

    return _ask(store, find)


def _ask(store: Store, request: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Asks storage for something; what goes wrong is a sentence that names it."""
    try:
        return request(*arguments, **options)
    except FileNotFoundError:
        raise
    except Exception as error:  # every driver has exceptions of its own
        raise Unanswered(
            f"Storage {store.url} does not answer as it should ({type(error).__name__}: {error})."
        ) from error
