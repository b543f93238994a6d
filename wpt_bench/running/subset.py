"""Which episodes of a data set a grid has, chosen by what no method may see: scene, collector, quality."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from wpt_bench.data.store import Dataset, EpisodeInfo
from wpt_bench.profiles import Subset
from wpt_bench.protocol import ObservationKind, Task, UserError, episode_seed


def choose(dataset: Dataset, subset: Subset, scene: str | None) -> list[int]:
    """Indices of the episodes of ``subset``, ascending; with ``irrelevant`` see ``mixed``, which comes after it.

    Args:
        dataset: all that was collected.
        subset: what is taken of it.
        scene: the task's, to which other scenes are foreign; None where there is no one task.

    Raises:
        UserError: nothing is left of the scene, or of everything.
    """
    chosen = [info for info in dataset.episodes if _wanted(info, subset)]
    chosen = _thin(chosen, subset.share)
    if scene is not None:
        own = [info for info in chosen if info.scene == scene]
        chosen = own + _thin((info for info in chosen if info.scene != scene), subset.foreign)
        if not own:
            raise UserError(
                f"The data in {dataset.path} has no episode of {scene} with {_text(subset)}; choose another subset."
            )
    if not chosen:
        raise UserError(f"The data in {dataset.path} has no episode that fits {_text(subset)}; choose another subset.")
    return sorted(info.index for info in chosen)


def mixed(
    dataset: Dataset,
    indices: Sequence[int],
    task: Task,
    observation: ObservationKind,
    irrelevant: float,
    count: int,
    seed: int,
) -> list[int]:
    """``count`` of the episodes ``indices``, a share ``irrelevant`` of them of other scenes than the task's.

    Both kinds are drawn at random and have the task's dimensions: whatever retrieves ``count`` of them takes them all.

    Args:
        dataset: that of the indices.
        indices: episodes to choose from.
        task: whose scene is relevant.
        observation: pictures all have one shape.
        irrelevant: share of ``count``, rounded.
        count: k of the retrieval.
        seed: of the draw.

    Raises:
        UserError: there are too few of a kind.
    """
    infos = [dataset.episodes[index] for index in indices]
    fitting = [
        info
        for info in infos
        if info.action_dim == task.action_dim and (observation == "pixels" or info.state_dim == task.state_dim)
    ]
    rng = np.random.default_rng(episode_seed(seed, "retrieval", 2))
    drawn: list[int] = []
    foreign = round(irrelevant * count)
    for wanted, relevant in ((count - foreign, True), (foreign, False)):
        there = [info.index for info in fitting if (info.scene == task.scene) == relevant]
        if len(there) < wanted:
            kind = "relevant" if relevant else "irrelevant"
            raise UserError(
                f"{task.id} needs {wanted} {kind} episodes of its dimensions for a share of {irrelevant:g} irrelevant "
                f"ones among {count} retrieved, and the data has {len(there)}; retrieve fewer or choose another task."
            )
        drawn += rng.choice(np.asarray(there, np.int64), wanted, replace=False).tolist()
    return sorted(drawn)


def _wanted(info: EpisodeInfo, subset: Subset) -> bool:
    if subset.collectors and info.collector not in subset.collectors:
        return False
    if subset.quality is None:
        return True
    low, high = subset.quality
    return isinstance(info.quality, int | float) and low <= info.quality <= high


def _thin(infos: Iterable[EpisodeInfo], share: float) -> list[EpisodeInfo]:
    """A share of every scene's and collector's episodes, evenly spread over their order; at least one, if any."""
    groups: dict[tuple[str, str], list[EpisodeInfo]] = {}
    for info in infos:
        groups.setdefault((info.scene, info.collector), []).append(info)
    kept: list[EpisodeInfo] = []
    for members in groups.values():
        count = max(1, round(share * len(members))) if share > 0 else 0
        kept += [members[row * len(members) // count] for row in range(count)]
    return kept


def _text(subset: Subset) -> str:
    parts: dict[str, Any] = msgspec.to_builtins(subset)
    return ", ".join(f"{name} {value}" for name, value in parts.items())
