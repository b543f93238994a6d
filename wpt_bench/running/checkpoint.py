"""Checkpoints: one safetensors file each, named by its own checksum, so that a torn one is never taken for whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import safetensors.torch
import torch

from wpt_bench.records import discard, sha256, write_atomic

KEEP = 2
"""The one before is kept until the next has been written whole."""


SECONDS = 20.0
"""Between two checkpoints of a run or a stage, unless told otherwise."""


class Damaged(Exception):
    """A checkpoint cannot be gone on from; the message says why."""


def encode(state: Mapping[str, Any]) -> bytes:
    """A flat dictionary of tensors and JSON values as the bytes of a safetensors file (JSON goes into its header)."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items() if torch.is_tensor(value)}
    rest = {key: value for key, value in state.items() if not torch.is_tensor(value)}
    return safetensors.torch.save(tensors, metadata={"state": msgspec.json.encode(rest).decode()})


def decode(path: Path) -> dict[str, Any]:
    """Inverse of ``encode``, from a file; raises Damaged if it is none. It takes no more memory than bytes."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = msgspec.json.decode((file.metadata() or {})["state"], type=dict[str, Any])
            return state | {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise Damaged(f"{path} is damaged ({error})") from error


def digest(data: bytes) -> str:
    """First 16 hex digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def save(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Writes ``checkpoint-<step>-<checksum>.safetensors``, then removes all but the newest ``KEEP``.

    ``step`` must grow from save to save: the newest checkpoint is the one with the largest.
    """
    data = encode(state)
    write_atomic(folder / f"checkpoint-{step:012d}-{digest(data)}.safetensors", data)
    for old in _newest_first(folder)[KEEP:]:
        old.unlink()


def load(folder: Path, check: Callable[[dict[str, Any]], object]) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest usable checkpoint, or None; and a sentence for each newer one, which is removed.

    (It would count as the newest for ever, and push out those that are written from now on.)

    Args:
        folder: where they are.
        check: raises Damaged if something that the checkpoint needs beside it is not there.
    """
    problems = []
    for path in _newest_first(folder):
        try:
            if not path.is_file() or sha256(path)[:16] != path.stem.rpartition("-")[2]:
                raise Damaged(f"{path} is damaged (its checksum differs)")
            state = decode(path)
            check(state)
        except Damaged as error:
            problems.append(str(error))
            discard(path)
            continue
        return state, problems
    return None, problems


def note(problems: list[str], found: bool) -> list[str]:
    """What ``load`` found damaged, and what was done about it, as no sentence or one."""
    what = "it goes on from the checkpoint before" if found else "it starts again from the beginning"
    return [f"{'; '.join(problems)}: {what}."] if problems else []


def clear(folder: Path) -> None:
    """Removes all checkpoints of a finished run."""
    for path in _newest_first(folder):
        path.unlink()


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)
