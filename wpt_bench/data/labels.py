"""Rewards and successes of a task for stored episodes: computed by the suite once, then read from the data's folder.

One file per task, suite version and shard, so that a data set that grows keeps the labels it has. A file begins with
the SHA-256 of what it is for and what it holds: a damaged or outdated one is not recognised and computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from wpt_bench.data.store import Dataset
from wpt_bench.protocol import Progress, Suite, Task, UserError
from wpt_bench.records import digest, discard, write_atomic

Labels = tuple[NDArray[np.float32], NDArray[np.float32]]


def labels(
    dataset: Dataset, suite: Suite, task: Task, episodes: Sequence[int], progress: Progress | None = None
) -> list[Labels]:
    """Reward and success of ``task`` at every agent step of the episodes: float32 ``(T + 1,)`` each, row 0 is 0.

    Args:
        dataset: with episodes of the task's embodiment (DMControl) or scene (Meta-World).
        suite: computes what is not cached yet; whole shards at a time.
        task: whose rewards.
        episodes: indices into ``dataset.episodes``.
        progress: told the fraction of the shards done.

    Two processes may ask for the same labels: one computes, the other waits and reads.
    """
    shards = sorted({dataset.episodes[index].shard for index in episodes})
    known: dict[int, Labels] = {}
    for done, shard in enumerate(shards):
        if progress is not None:
            progress(done / len(shards), f"labels of {task.name}: {shard}")
        known.update(_shard_labels(dataset, suite, task, shard))
    return [known[index] for index in episodes]


def _shard_labels(dataset: Dataset, suite: Suite, task: Task, shard: str) -> dict[int, Labels]:
    members = [episode for episode in dataset.episodes if episode.shard == shard]
    ends = np.cumsum([episode.length + 1 for episode in members])
    path = dataset.path / "labels" / f"{task.name}-v{suite.version}" / shard
    stored = next(entry for entry in dataset.manifest.shards if entry.name == shard)
    key = f"{digest(stored)} {suite.name} {suite.version} {task.name}".encode()
    flat = _read(path, key, int(ends[-1]))
    if flat is None:
        if not path.resolve().is_relative_to(dataset.path.resolve()):
            raise UserError(f"{path} leads outside of the data set; do not trust this data.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{shard}.lock")):
            flat = _read(path, key, int(ends[-1]))
            if flat is None:
                computed = [_compute(dataset, suite, task, episode.index) for episode in members]
                flat = np.concatenate([np.stack(pair) for pair in computed], axis=1)
                if path.is_dir():
                    discard(path)
                content = flat.astype("<f4").tobytes()
                write_atomic(path, hashlib.sha256(key + content).digest() + content)
    parts = np.split(flat, ends[:-1], axis=1)
    return {episode.index: (part[0], part[1]) for episode, part in zip(members, parts, strict=True)}


def _compute(dataset: Dataset, suite: Suite, task: Task, episode: int) -> Labels:
    reward, success = suite.labels(dataset, task, episode)
    rows = dataset.episodes[episode].length + 1
    for name, values in (("reward", reward), ("success", success)):
        if values.shape != (rows,) or not np.isfinite(values).all():
            raise UserError(
                f"Suite {suite.name} gave no usable {name} of {task.name} for episode {episode}; report it."
            )
    return reward.astype(np.float32), success.astype(np.float32)


def _read(path: Path, key: bytes, rows: int) -> NDArray[np.float32] | None:
    """The cached ``(2, rows)``, or None if there is none or it is not whole and of this key."""
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return None
    if len(raw) != 32 + 8 * rows or hashlib.sha256(key + raw[32:]).digest() != raw[:32]:
        return None
    return np.frombuffer(raw, "<f4", offset=32).reshape(2, rows)
