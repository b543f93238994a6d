"""Which offline episodes are rehearsed: those whose first observation looks, to the pre-trained encoder, like ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import AgentContext, Units, UserError
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.wpt.parts import load_world_model, padded, world_model

TOGETHER = 50
"""First observations that are encoded at a time."""


def candidates(
    episodes: Sequence[EpisodeView], action_dim: int, observation_shape: tuple[int, ...], count: int
) -> list[int]:
    """Indices of the episodes whose actions and observations have our dimensions; UserError if fewer than ``count``.

    Pictures all have one shape, so that from pixels the action dimension decides alone, as in the paper.
    """
    found = [
        index
        for index, episode in enumerate(episodes)
        if episode.action_dim == action_dim and episode.observation.shape[1:] == observation_shape
    ]
    if len(found) < count:
        raise UserError(
            f"Retrieval needs {count} offline episodes with {action_dim} action dimensions and observations of shape "
            f"{observation_shape}, and the data has {len(found)}; collect more, or set `retrieved` of the profile to "
            f"at most {len(found)}."
        )
    return found


def nearest_episodes(
    query: NDArray[np.float32], keys: NDArray[np.float32], indices: Sequence[int], count: int
) -> list[int]:
    """The ``count`` episodes whose key is nearest to the query in L2 distance (WPT, eq. 5), nearest first.

    Args:
        query: float32 ``(features,)``, encoder features of the first online observation.
        keys: float32 ``(len(indices), features)``, of the episodes' first observations.
        indices: what each row of ``keys`` stands for; no index is returned twice.
    """
    index = faiss.IndexFlatL2(keys.shape[1])
    index.add(np.ascontiguousarray(keys))
    _, found = index.search(np.ascontiguousarray(query[None]), count)
    return [int(indices[row]) for row in found[0]]


class FrozenEncoder:
    """The encoder as pre-training left it, whatever becomes of the run's own: the space that retrieval searches."""

    def __init__(self, context: AgentContext, size: WorldModelSize) -> None:
        self._context, self._model = context, world_model(context, size)
        load_world_model(self._model, context.pretrained)
        del self._model.rssm, self._model.decoder  # most of the weights; features need none of them

    @torch.no_grad()
    def features(self, seen: Iterable[tuple[NDArray[Any], Units]]) -> NDArray[np.float32]:
        """Of observations as simulators give them, ``(n, ...)`` each with their units: float32 ``(sum of n, ...)``."""
        pixels = self._context.observation == "pixels"
        prepared = [np.asarray(part) if pixels else padded(part, units) for part, units in seen]
        batch = torch.from_numpy(np.concatenate(prepared)).to(self._context.device)
        return self._model.encode(self._model.prepare(batch)).cpu().numpy()


def retrieve(context: AgentContext, episodes: Sequence[EpisodeView], size: WorldModelSize, count: int) -> list[int]:
    """The ``count`` episodes that start most like the run's first one, to the frozen pre-trained encoder.

    Arms without pre-training and comparators use it as well: they differ in what they do with the episodes alone.

    Args:
        context: of the run, with the pre-trained weights.
        episodes: all that were granted.
        size: of the pre-trained world model.
        count: k; UserError if there are fewer candidates.
    """
    indices = candidates(episodes, context.task.action_dim, context.initial_observation.shape, count)
    encoder = FrozenEncoder(context, size)
    parts = [indices[start : start + TOGETHER] for start in range(0, len(indices), TOGETHER)]
    keys = [encoder.features((episodes[i].observation[:1], episodes[i].units) for i in part) for part in parts]
    query = encoder.features([(context.initial_observation[None], context.units)])
    return nearest_episodes(query[0], np.concatenate(keys), indices, count)


def random_episodes(indices: Sequence[int], count: int, seed: int) -> list[int]:
    """The control of ``wpt-random-replay``: ``count`` of the same candidates, drawn without replacement."""
    return sorted(np.random.default_rng(seed).choice(np.asarray(indices), count, replace=False).tolist())
