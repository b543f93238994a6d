"""Batches of sequences for learning: from offline episodes on disk (``SequenceSampler``) and from the run's own
(``Replay``).

Both cut chunks of consecutive rows out of single episodes and copy them once, from where they lie into the batch.
States are brought to their units and padded with zeros, actions are padded; masks say which numbers are real. The
first row of a chunk keeps the action that led to it: whoever learns from it drops it with the latent state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wpt_bench.data.mapped import mapped_file
from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import ACTION_PAD, STATE_PAD, ObservationKind, Units, UserError

# Pages of the memory map count as memory of the process that touched them. Letting go of them after so many bytes
# bounds it, and costs little: they stay in the system's cache (see tests/benchmarks/test_replay.py).
_RELEASE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Batch:
    """B sequences of L observations.

    Attributes:
        observation: states, float32 ``(B, L, 96)``, scaled and zero-padded; or pictures, uint8 ``(B, L, 64, 64, 3)``.
        action: float32 ``(B, L, 21)``, zero-padded; row t led to observation t.
        observation_mask: 1 where a number of the state is real, float32 ``(B, 96)``; None for pictures.
        action_mask: 1 where a number of the action is real, float32 ``(B, 21)``.
        reward: came with the observation, float32 ``(B, L)``; None where rewards were not granted.
    """

    observation: NDArray[Any]
    action: NDArray[np.float32]
    observation_mask: NDArray[np.float32] | None
    action_mask: NDArray[np.float32]
    reward: NDArray[np.float32] | None


class SequenceSampler:
    """Samples sequences from offline episodes: an episode uniformly, then a start uniformly in [0, T + 1 - length].

    Args:
        episodes: as granted; batches carry rewards if every episode has them.
        length: observations per sequence; UserError if an episode is shorter.
        observation: ``state`` or ``pixels``, as the episodes were granted.
    """

    def __init__(self, episodes: Sequence[EpisodeView], length: int, observation: ObservationKind) -> None:
        if not episodes:
            raise UserError("There is no offline episode to sample from; collect some data first.")
        shortest = min(len(episode) for episode in episodes)
        if shortest < length:
            raise UserError(
                f"An offline episode has {shortest} observations, fewer than the {length} of a sequence; "
                "set a shorter sequence length."
            )
        self._episodes = episodes
        self._length = length
        self._observation = observation
        self._rewarded = all(episode.rewarded for episode in episodes)
        self._starts = np.array([len(episode) - length + 1 for episode in episodes])
        self._files = list({id(file): file for e in episodes if (file := mapped_file(e.observation))}.values())
        self._touched = 0

    def sample(self, batch: int, rng: np.random.Generator) -> Batch:
        """``batch`` sequences, each from an episode of its own draw."""
        chosen = rng.integers(0, len(self._episodes), batch)
        starts = rng.integers(0, self._starts[chosen])
        chunks = [
            (self._episodes[episode], start) for episode, start in zip(chosen.tolist(), starts.tolist(), strict=True)
        ]
        result = _gather(chunks, self._length, self._observation, self._rewarded)
        self._touched += result.observation.nbytes
        if self._touched >= _RELEASE_BYTES:
            self._touched = 0
            for file in self._files:
                file.release()
        return result


class Replay:
    """The run's own experience, in memory; the unfinished episode is sampled from as soon as it is long enough.

    Args:
        observation_shape: ``(state_dim,)`` or ``(64, 64, 3)``.
        dtype: float32 for states, uint8 for pictures.
        action_dim: numbers in an action.
        units: constants for states; not used for pictures.
        capacity: rows to keep; when there are more, the oldest episodes are dropped whole.
    """

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        dtype: Any,
        action_dim: int,
        units: Units,
        capacity: int,
    ) -> None:
        self._shape, self._dtype = observation_shape, np.dtype(dtype)
        self._observation: ObservationKind = "state" if len(observation_shape) == 1 else "pixels"
        self._action_dim, self._units, self._capacity = action_dim, units, capacity
        self._episodes: deque[ReplayEpisode] = deque()
        self._rows = 0

    def add(self, observation: NDArray[Any], action: NDArray[np.float32] | None, reward: float, first: bool) -> None:
        """Appends one observation with the action and reward that led to it; ``first`` begins an episode.

        Args:
            observation: as the simulator gives it, unscaled.
            action: ``(action_dim,)``, or None at the first observation.
            reward: summed over the action repeat; 0 at the first observation.
            first: whether this is the first observation of an episode.
        """
        if first:
            self._episodes.append(ReplayEpisode(self._shape, self._dtype, self._action_dim, self._units))
        elif not self._episodes:
            raise ValueError("the first observation of a replay must begin an episode")
        self._episodes[-1].append(observation, action, reward)
        self._rows += 1
        while self._rows > self._capacity and len(self._episodes) > 1:
            self._rows -= len(self._episodes.popleft())

    def starts(self, length: int) -> int:
        """How many different sequences of ``length`` observations can be sampled."""
        return int(self._start_counts(length).sum())

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> Batch:
        """``batch`` sequences with rewards, their starts uniform over all that are possible; UserError if none is."""
        ends = np.cumsum(self._start_counts(length))
        if not len(ends) or not ends[-1]:
            raise UserError(f"No episode of this run has {length} observations yet; set a shorter sequence length.")
        draws = rng.integers(0, ends[-1], batch)
        chosen = np.searchsorted(ends, draws, side="right")
        starts = draws - np.where(chosen > 0, ends[chosen - 1], 0)
        chunks = [
            (self._episodes[episode], start) for episode, start in zip(chosen.tolist(), starts.tolist(), strict=True)
        ]
        return _gather(chunks, length, self._observation, rewarded=True)

    @property
    def episodes(self) -> Sequence[ReplayEpisode]:
        """The episodes kept, oldest first; the last one may be unfinished."""
        return self._episodes

    def __len__(self) -> int:
        """Observations kept."""
        return self._rows

    def _start_counts(self, length: int) -> NDArray[np.int64]:
        lengths = np.fromiter((len(episode) for episode in self._episodes), np.int64, len(self._episodes))
        return np.maximum(lengths - length + 1, 0)


class ReplayEpisode:
    """One episode of a ``Replay``, growing by doubling; the same arrays as an ``EpisodeView`` with rewards."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], action_dim: int, units: Units) -> None:
        self.units, self.action_dim = units, action_dim
        self._length = 0
        self._observation = np.empty((64, *shape), dtype)
        self._action = np.empty((64, action_dim), np.float32)
        self._reward = np.empty(64, np.float32)

    def append(self, observation: NDArray[Any], action: NDArray[np.float32] | None, reward: float) -> None:
        """Adds one row; without an action, zeros."""
        if self._length == len(self._reward):
            self._observation, self._action, self._reward = (
                np.concatenate([array, np.empty_like(array)])
                for array in (self._observation, self._action, self._reward)
            )
        self._observation[self._length] = observation
        self._action[self._length] = 0 if action is None else action
        self._reward[self._length] = reward
        self._length += 1

    @property
    def observation(self) -> NDArray[Any]:
        """``(rows, ...)``, unscaled."""
        return self._observation[: self._length]

    @property
    def action(self) -> NDArray[np.float32]:
        """``(rows, action_dim)``; row t led to observation t."""
        return self._action[: self._length]

    @property
    def reward(self) -> NDArray[np.float32]:
        """``(rows,)``."""
        return self._reward[: self._length]

    def __len__(self) -> int:
        """Observations so far."""
        return self._length


def split(groups: Sequence[Hashable], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to learn from and indices held out: of every group a ``fraction``, at least one, drawn with ``seed``.

    A group of a single episode has none to spare.

    Args:
        groups: for every episode, what it belongs to: its scene.
        fraction: of each group to hold out, rounded.
        seed: of the draw; a group's draw does not depend on the other groups' episodes.
    """
    held_out: list[int] = []
    for group in dict.fromkeys(groups):
        members = [index for index, other in enumerate(groups) if other == group]
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out += np.random.default_rng([seed, len(members)]).permutation(members)[:count].tolist()
    kept = set(range(len(groups))) - set(held_out)
    return sorted(kept), sorted(held_out)


class _Episode(Protocol):
    @property
    def observation(self) -> NDArray[Any]: ...
    @property
    def action(self) -> NDArray[np.float32]: ...
    @property
    def reward(self) -> NDArray[np.float32]: ...
    @property
    def units(self) -> Units: ...
    @property
    def action_dim(self) -> int: ...


def _gather(chunks: Sequence[tuple[_Episode, int]], length: int, kind: ObservationKind, rewarded: bool) -> Batch:
    """Copies rows ``start`` to ``start + length`` of each (episode, start) into one batch: the only copy made."""
    batch = len(chunks)
    shape = (STATE_PAD,) if kind == "state" else chunks[0][0].observation.shape[1:]
    observation = (
        np.zeros((batch, length, *shape), np.float32)
        if kind == "state"
        else np.empty((batch, length, *shape), np.uint8)
    )
    observation_mask = np.zeros((batch, STATE_PAD), np.float32) if kind == "state" else None
    action = np.zeros((batch, length, ACTION_PAD), np.float32)
    action_mask = np.zeros((batch, ACTION_PAD), np.float32)
    reward = np.empty((batch, length), np.float32) if rewarded else None
    for row, (episode, start) in enumerate(chunks):
        rows = slice(start, start + length)
        source = episode.observation[rows]
        if observation_mask is None:
            observation[row] = source
        else:
            width = source.shape[1]
            observation[row, :, :width] = episode.units.apply(source)
            observation_mask[row, :width] = 1
        action[row, :, : episode.action_dim] = episode.action[rows]
        action_mask[row, : episode.action_dim] = 1
        if reward is not None:
            reward[row] = episode.reward[rows]
    return Batch(observation, action, observation_mask, action_mask, reward)
