"""Transitions of whole episodes, sampled uniformly: of the offline data as granted, and of the run's own experience."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wpt_bench.baselines.networks import FRAMES
from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import ACTION_PAD, DISCOUNT, IMAGE_SIZE, STATE_PAD, AgentContext, Units, UserError


@dataclass(frozen=True)
class Batch:
    """N transitions.

    Attributes:
        observation, next_observation: states as a learner sees them, float32 ``(N, width)``; or frames, uint8
            ``(N, 64, 64, 9)``, oldest first.
        action: float32 ``(N, action_dim)``, zero where padded.
        mask: 1 where a number of the action is real, float32 ``(N, action_dim)``.
        reward: scaled, discounted and summed over ``steps`` agent steps, float32 ``(N,)``.
        to_go: discounted, scaled rewards from here on, see ``rewards_to_go``, float32 ``(N,)``; -inf until it ends.
        task: index of the task, int64 ``(N,)``.
    """

    observation: Tensor
    action: Tensor
    mask: Tensor
    reward: Tensor
    next_observation: Tensor
    to_go: Tensor
    task: Tensor


@dataclass(frozen=True)
class Sight:
    """How a learner sees observations and actions: of one task as they are, of several embodiments zero-padded.

    Attributes:
        pixels: pictures instead of states.
        width: numbers in a state. action_dim: numbers in an action.
        reward_scale: what rewards are multiplied by: one over the largest of an environment step, for every method.
    """

    pixels: bool
    width: int
    action_dim: int
    reward_scale: float = 1.0

    @staticmethod
    def of(context: AgentContext, *, padded: bool = False) -> Sight:
        """For the task of a run; ``padded`` for all embodiments at once."""
        task = context.task
        pixels = context.observation == "pixels"
        width, action_dim = (STATE_PAD, ACTION_PAD) if padded else (task.state_dim, task.action_dim)
        return Sight(pixels, width, action_dim, 1 / task.largest_reward)

    def states(self, state: NDArray[np.float32], units: Units) -> NDArray[np.float32]:
        """States ``(N, state_dim)`` in their units, through symlog, padded: float32 ``(N, width)``."""
        scaled = units.apply(state)
        seen = np.zeros((len(state), self.width), np.float32)
        seen[:, : state.shape[1]] = np.sign(scaled) * np.log1p(np.abs(scaled))
        return seen


class Transitions:
    """A table of transitions that grows by observations or by episodes.

    Args:
        sight: how the learner sees them.
        capacity: observations that there will be at most.
        steps: agent steps from an observation to the next one of a transition; rewards between are summed.
    """

    def __init__(self, sight: Sight, capacity: int, steps: int = 1) -> None:
        self.sight, self.steps = sight, steps
        self._observations: _States | _Frames = _Frames() if sight.pixels else _States(capacity, sight.width)
        self._action = np.zeros((capacity, sight.action_dim), np.float32)
        self._action_dims = np.zeros(capacity, np.int64)
        self._observed = 0  # observations so far
        # A transition knows the row of its first observation. Episodes of several tasks share their observations.
        self._row, self._reward = _Column(np.int64), _Column(np.float32)
        self._to_go, self._task = _Column(np.float32), _Column(np.int64)
        self._complete = _Column(np.int64)  # transitions that have ``steps`` rewards
        self._begun = 0  # transitions before the current episode
        self._returns: dict[int, list[float]] = {}  # of offline episodes, scaled, by task
        self._known: dict[int, int] = {}
        self._by_task: list[NDArray[np.int64]] | None = None

    def add(self, observation: NDArray[Any], action: NDArray[np.float32] | None, reward: float, units: Units) -> None:
        """Appends one observation with the action and reward that led to it (None and 0 begin an episode)."""
        row = self._observed
        if action is None:
            self._close()
        else:
            self._action[row, : len(action)] = action
            self._action_dims[row] = len(action)
            self._row.append(row - 1)
            self._reward.append(reward * self.sight.reward_scale)
            self._to_go.append(-np.inf)
            self._task.append(0)
            if len(self._row) - self._begun >= self.steps:
                self._complete.append(len(self._row) - self.steps)
        seen = observation if self.sight.pixels else self.sight.states(observation[None], units)[0]
        self._observations.append(row, seen, first=action is None)
        self._observed += 1

    def add_episode(self, episode: EpisodeView, reward: NDArray[np.float32], task: int = 0) -> None:
        """Appends a whole offline episode; its observations are kept once, however many tasks reward it.

        Args:
            episode: as granted.
            reward: float32 ``(T + 1,)``, row 0 is not used.
            task: index of the task that the rewards belong to.
        """
        key = episode.observation.ctypes.data
        if key not in self._known:
            rows = slice(self._observed, self._observed + len(episode))
            self._known[key] = rows.start
            seen = episode.observation if self.sight.pixels else self.sight.states(episode.observation, episode.units)
            self._observations.extend(rows.start, seen)
            self._action[rows, : episode.action_dim] = episode.action
            self._action_dims[rows] = episode.action_dim
            self._observed = rows.stop
        steps, before = len(episode) - 1, len(self._row)
        self._row.extend(self._known[key] + np.arange(steps))
        scaled = reward[1:] * self.sight.reward_scale
        self._reward.extend(scaled)
        self._returns.setdefault(task, []).append(float(scaled.sum()))
        self._to_go.extend(rewards_to_go(scaled))
        self._task.extend(np.full(steps, task))
        self._complete.extend(before + np.arange(max(0, steps - self.steps + 1)))
        self._begun = len(self._row)

    def _close(self) -> None:
        """The episode has ended: its rewards to go are known."""
        self._to_go.values[self._begun :] = rewards_to_go(self._reward.values[self._begun :])
        self._begun = len(self._row)

    def return_ranges(self) -> dict[int, float]:
        """Best minus worst return of the offline episodes of each task, of scaled rewards."""
        return {task: max(returns) - min(returns) for task, returns in self._returns.items()}

    def balance(self) -> Sequence[int]:
        """From now on every task is drawn equally often; returns the tasks that there are."""
        complete = self._complete.values
        owners = self._task.values[complete]
        tasks = np.unique(owners).tolist()
        self._by_task = [complete[owners == task] for task in tasks]
        return tasks

    def _draw(self, batch: int, rng: np.random.Generator) -> NDArray[np.int64]:
        if self._by_task is None:
            return self._complete.values[rng.integers(0, len(self), batch)]
        tasks, shares = rng.integers(0, len(self._by_task), batch), rng.random(batch)
        chosen = [self._by_task[task] for task in tasks.tolist()]
        return np.array([own[int(share * len(own))] for own, share in zip(chosen, shares.tolist(), strict=True)])

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return len(self._complete)

    def sample(self, batch: int, rng: np.random.Generator, device: str) -> Batch:
        """``batch`` transitions, drawn with replacement; UserError if there is none yet."""
        if not len(self):
            raise UserError("There is no transition to learn from; give the run a larger budget or collect data.")
        drawn = self._draw(batch, rng)
        rows = self._row.values[drawn]
        reward = np.zeros(batch, np.float32)
        for step in range(self.steps):
            reward += DISCOUNT**step * self._reward.values[drawn + step]
        mask = np.arange(self.sight.action_dim) < self._action_dims[rows + 1, None]
        arrays = (
            self._observations.get(rows),
            self._action[rows + 1],
            mask.astype(np.float32),
            reward,
            self._observations.get(rows + self.steps),
            self._to_go.values[drawn],
            self._task.values[drawn],
        )
        return Batch(*(torch.from_numpy(array).to(device) for array in arrays))


def rewards_to_go(reward: NDArray[np.float32]) -> NDArray[np.float32]:
    """The discounted sum of each reward and all after it, the last one repeated for ever: ``(T,)`` to ``(T,)``.

    Episodes end by time limit and critics look past it. So does Cal-QL's code where rewards are dense (its replay
    buffer); a sum that stops there is a third of it after 100 agent steps of one reward.
    """
    sums, total = [], float(reward[-1]) / (1 - DISCOUNT) if len(reward) else 0.0
    for one in reversed(reward.tolist()):
        total = one + DISCOUNT * total
        sums.append(total)
    return np.array(sums[::-1], np.float32)


def of_episodes(sight: Sight, episodes: Sequence[EpisodeView]) -> Transitions:
    """A table with room for these episodes and none of them in it yet; UserError if there is no episode."""
    if not episodes:
        raise UserError("The granted offline data has no episode; collect some first.")
    unique = {episode.observation.ctypes.data: len(episode) for episode in episodes}
    return Transitions(sight, sum(unique.values()))


def rewarded(sight: Sight, episodes: Sequence[EpisodeView]) -> Transitions:
    """All transitions of labelled episodes of one task; UserError if they have no labels."""
    table = of_episodes(sight, episodes)
    for episode in episodes:
        table.add_episode(episode, episode.reward)
    return table


def of_all_tasks(sight: Sight, episodes: Sequence[EpisodeView], tasks: Sequence[str]) -> Transitions:
    """All transitions of episodes of several tasks; episodes without labels, demonstrations, count as rewarded 0."""
    table = of_episodes(sight, episodes)
    for episode in episodes:
        reward = episode.reward if episode.rewarded else np.zeros(len(episode), np.float32)
        table.add_episode(episode, reward, tasks.index(episode.task))
    return table


class _Column:
    """A one-dimensional array that grows by doubling."""

    def __init__(self, dtype: Any) -> None:
        self._values: NDArray[Any] = np.empty(1024, dtype)
        self._length = 0

    def append(self, value: float) -> None:
        self.extend(np.array([value]))

    def extend(self, values: NDArray[Any]) -> None:
        stop = self._length + len(values)
        if stop > len(self._values):
            grown = np.empty(max(stop, 2 * len(self._values)), self._values.dtype)
            grown[: self._length] = self.values
            self._values = grown
        self._values[self._length : stop] = values
        self._length = stop

    @property
    def values(self) -> NDArray[Any]:
        return self._values[: self._length]

    def __len__(self) -> int:
        return self._length


class _States:
    """States as the learner sees them, in one array."""

    def __init__(self, capacity: int, width: int) -> None:
        self._values = np.empty((capacity, width), np.float32)

    def append(self, row: int, state: NDArray[Any], *, first: bool) -> None:
        self._values[row] = state

    def extend(self, row: int, states: NDArray[Any]) -> None:
        self._values[row : row + len(states)] = states

    def get(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return self._values[rows]


class _Frames:
    """Single frames: of offline episodes where they are mapped from disk, of own ones in memory."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._episodes: list[NDArray[np.uint8]] = []

    def append(self, row: int, frame: NDArray[Any], *, first: bool) -> None:
        if first:
            self._first.append(row)
            self._episodes.append(np.empty((64, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))
        step, own = row - self._first[-1], self._episodes[-1]
        if step == len(own):
            own = self._episodes[-1] = np.concatenate([own, np.empty_like(own)])
        own[step] = frame

    def extend(self, row: int, frames: NDArray[Any]) -> None:
        self._first.append(row)
        self._episodes.append(frames)

    def get(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Stacks ``(N, 64, 64, 9)``; before an episode's third frame, its first one is repeated."""
        stacks = np.empty((len(rows), IMAGE_SIZE, IMAGE_SIZE, 3 * FRAMES), np.uint8)
        owners = np.searchsorted(self._first, rows, side="right") - 1
        for stack, owner, row in zip(stacks, owners.tolist(), rows.tolist(), strict=True):
            step, frames = row - self._first[owner], self._episodes[owner]
            for position in range(FRAMES):
                stack[..., 3 * position : 3 * position + 3] = frames[max(0, step - FRAMES + 1 + position)]
        return stacks
