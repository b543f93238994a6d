"""Recordings: a shard without what its simulators can make again from seeds and actions.

What a learner takes an hour to collect, the simulators play in minutes, and without its arithmetic, which other
processors may do otherwise. A recording is a folder named as its shard, with the shard's own ``shard.json``, by which
what was played is checked to the last bit, and ``actions.zlib``: all rows of ``action.npy`` as little-endian float32,
first the first byte of every number, then every second one, and so on, since bytes of one kind compress better.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wpt_bench.data.store import Dataset, Shard, check_shard, read_shard
from wpt_bench.protocol import UserError

SHARD, ACTIONS = "shard.json", "actions.zlib"
_BYTES = 4  # of a number
_MOST_BYTES = 2**28  # unpacked: a hundred times what the largest has here


@dataclass(frozen=True)
class Recording:
    """The recording in ``folder``; ``shard`` is what it has to come out as when it is played."""

    folder: Path
    shard: Shard

    def actions(self) -> list[NDArray[np.float32]]:
        """Actions of every episode, float32 ``(T + 1, action_dim)``; UserError where they are damaged."""
        rows, dims = self.shard.arrays["action"].shape
        size = rows * dims * _BYTES
        path = self.folder / ACTIONS
        if size > _MOST_BYTES:
            raise UserError(f"{self.folder / SHARD} declares {size:,} bytes of actions; do not trust it.")
        try:
            unpacked = zlib.decompressobj()
            planes = unpacked.decompress(path.read_bytes(), size + 1)
        except (OSError, zlib.error) as error:
            raise UserError(f"{path} cannot be read as actions: {error}.") from error
        if len(planes) != size or not unpacked.eof:
            raise UserError(f"{path} does not hold the {rows} x {dims} actions that {SHARD} beside it declares.")
        whole = np.frombuffer(planes, np.uint8).reshape(_BYTES, -1).T.copy().view("<f4").reshape(rows, dims)
        return [whole[episode.row : episode.row + episode.length + 1] for episode in self.shard.episodes]


def find(recorded: Path, name: str, settings: Mapping[str, Any]) -> Recording | None:
    """The recording of a shard of this name and these settings, None without; UserError where it is damaged."""
    folder = recorded / name
    if not (folder / SHARD).is_file():
        return None
    shard = read_shard(folder / SHARD)
    check_shard(recorded, shard, folder / SHARD)
    return Recording(folder, shard) if shard.settings == settings else None


def record(dataset: Dataset, name: str) -> dict[str, bytes]:
    """Files of the recording of a shard, by their path."""
    folder = dataset.path / name
    action = np.concatenate([dataset.action(one.index) for one in dataset.episodes if one.shard == name])
    planes = action.view(np.uint8).reshape(-1, _BYTES).T
    return {
        f"{name}/{SHARD}": (folder / SHARD).read_bytes(),
        f"{name}/{ACTIONS}": zlib.compress(np.ascontiguousarray(planes).tobytes(), 9),
    }
