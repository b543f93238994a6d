"""Checkpoints: one safetensors file each, named by its own checksum, so that a torn one is never taken for whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import safetensors.torch
import torch

from wpt_bench.records import write_atomic

KEEP = 2
"""The one before is kept until the next has been written whole."""


def encode(state: Mapping[str, Any]) -> bytes:
    """A flat dictionary of tensors and JSON values as the bytes of a safetensors file (JSON goes into its header)."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items() if torch.is_tensor(value)}
    rest = {key: value for key, value in state.items() if not torch.is_tensor(value)}
    return safetensors.torch.save(tensors, metadata={"state": msgspec.json.encode(rest).decode()})


def decode(path: Path) -> dict[str, Any]:
    """Inverse of ``encode``, from a file."""
    with safetensors.safe_open(path, framework="pt") as file:
        state = msgspec.json.decode(file.metadata()["state"])
        return state | {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)


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


def load(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint whose contents match its checksum, or None."""
    for path in _newest_first(folder):
        if digest(path.read_bytes()) == path.stem.rpartition("-")[2]:
            return decode(path)
    return None


def clear(folder: Path) -> None:
    """Removes all checkpoints of a finished run."""
    for path in _newest_first(folder):
        path.unlink()


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)
