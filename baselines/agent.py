"""What all methods without a world model have in common: acting, replay, batches, checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wpt_bench.baselines.networks import FRAMES, Eyes, random_shift
from wpt_bench.baselines.transitions import Batch, Sight, Transitions, of_all_tasks, rewarded
from wpt_bench.bounds import Count, Positive, Share, Size
from wpt_bench.protocol import WARM_UP, AgentContext, Progress, UserError, episode_seed
from wpt_bench.world_model.functional import to_floats
from wpt_bench.world_model.optimizer import Optimizer
from wpt_bench.wpt.parts import pack, unpack

GROUP = "model-free"
"""Table of the profile that all these methods take settings from."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every method has; each adds its own.

    Attributes:
        hidden, layers: of every head.
        channels: of the pixel encoder.
        batch: transitions per update.
        learning_rate: Adam's, for every network.
        target_rate: share of a network that enters its slow copy with each update.
    """

    hidden: Size = 256
    layers: Count = 2
    channels: Size = 32
    batch: Size = 256
    learning_rate: Positive = 3e-4
    target_rate: Share = 0.005


@dataclass(frozen=True)
class Carry:
    """What acting carries from one agent step to the next: noise, the last frames, whether actions are random."""

    generator: torch.Generator
    frames: NDArray[Any] | None
    random: bool
    step: int


class ModelFreeAgent(ABC):
    """Implements ``protocol.Agent``; a method adds its networks, ``learn`` and ``policy``.

    Attributes:
        eyes: the networks' common sight; trained with the critic alone where there is one.
        env_steps: environment steps of the training episodes so far.
        offline_share: share of a batch that comes from the offline data once there is experience of the run's own.
        warms_up: whether actions are random for the protocol's warm-up.

    Args:
        context: of the run.
        multi_task: all tasks of the context at once: padded, and told apart by a learned embedding.
        steps: agent steps of a transition.
    """

    offline_share = 0.0
    warms_up = True

    def __init__(self, context: AgentContext, *, multi_task: bool = False, steps: int = 1) -> None:
        if context.precision != "fp32":
            raise UserError(
                f"Methods without a world model compute in fp32 alone, and the profile asks for {context.precision}; "
                "choose another profile or method."
            )
        torch.manual_seed(episode_seed(context.seed, "agent", 0))  # initial weights
        self.context, self.device = context, context.device
        self.sight = Sight.of(context, padded=multi_task)
        task = context.task
        self.tasks = tuple(one.name for one in context.tasks) if multi_task else ()
        self.trained: list[str] = []  # those of them that there was data of
        self.eyes = Eyes(
            width=self.sight.width,
            pixels=self.sight.pixels,
            channels=context.settings.channels,
            tasks=len(self.tasks),
        ).to(self.device)
        self.replay = Transitions(self.sight, (task.agent_steps + 1) * -(-context.budget // task.episode_length), steps)
        self.updates = 0
        self.env_steps = 0

    # What a method adds

    @abstractmethod
    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """Everything that learns beside ``eyes``, by name."""

    @abstractmethod
    def learn(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient update; returns scalar metrics."""

    @abstractmethod
    def policy(self, feature: Tensor, generator: torch.Generator | None) -> Tensor:
        """Actions ``(N, action_dim)`` in [-1, 1] for features of ``eyes``; the mean actions without a generator."""

    def open_data(self) -> Transitions | None:
        """The offline transitions to learn from; they are opened when they are first needed."""
        return None

    def labelled(self) -> Transitions:
        """Labelled episodes, of the task or of every task: what many methods open."""
        episodes = self.context.data.episodes()
        return of_all_tasks(self.sight, episodes, self.tasks) if self.tasks else rewarded(self.sight, episodes)

    # protocol.Agent

    @cached_property
    def data(self) -> Transitions | None:
        """The offline transitions."""
        data = self.open_data()
        if data is not None and self.tasks:
            self.trained = [self.tasks[index] for index in data.balance()]
        return data

    def offline(self, progress: Progress) -> dict[str, Any]:
        """Opens the offline data."""
        progress(0.0, "opening the offline data")
        return {} if self.data is None else {"offline_transitions": len(self.data)}

    def begin(self, batch: int, *, seed: int, evaluation: bool) -> Carry:
        """A fresh carry; UserError on a task that a multi-task agent had no data of."""
        if self.tasks and self.context.task.name not in self.trained:
            raise UserError(
                f"The agent that all tasks share had no episode of {self.context.task.name} to learn from; collect "
                "better data of it, or choose other tasks."
            )
        random = self.warms_up and self.warming_up and not evaluation
        return Carry(torch.Generator(self.device).manual_seed(seed), None, random, 0)

    @property
    def warming_up(self) -> bool:
        """Whether the protocol's warm-up is going on."""
        return self.env_steps < WARM_UP * self.context.budget

    @torch.no_grad()
    def act(self, carry: Carry, observation: NDArray[Any], *, evaluation: bool) -> tuple[NDArray[np.float32], Carry]:
        """One agent step for a batch of episodes."""
        frames = self._stack(carry.frames, observation)
        if carry.random:
            shape = (len(observation), self.sight.action_dim)
            action = torch.rand(shape, generator=carry.generator, device=self.device) * 2 - 1
        else:
            seen = frames if frames is not None else self.sight.states(observation, self.context.units)
            index = self.tasks.index(self.context.task.name) if self.tasks else 0
            task = torch.full((len(seen),), index, device=self.device)
            feature = self.eyes(torch.from_numpy(seen).to(self.device), task)
            action = self.policy(feature, None if evaluation else carry.generator)
        carry = replace(carry, frames=frames, step=carry.step + 1)
        return action[:, : self.context.task.action_dim].cpu().numpy(), carry

    def _stack(self, frames: NDArray[Any] | None, observation: NDArray[Any]) -> NDArray[Any] | None:
        """The last frames ``(N, 64, 64, 9)``; the first one is repeated."""
        if not self.sight.pixels:
            return None
        if frames is None:
            return np.tile(observation, (1, 1, 1, FRAMES))
        return np.concatenate([frames[..., 3:], observation], -1)

    def observe(self, observation: NDArray[Any], action: NDArray[np.float32] | None, reward: float) -> None:
        """Adds to the replay."""
        self.replay.add(observation, action, reward, self.context.units)
        if action is not None:
            self.env_steps += self.context.task.action_repeat

    def episode_metrics(self, carry: Carry) -> dict[str, float]:
        """Nothing beyond what the harness records."""
        return {}

    def update(self) -> dict[str, float]:
        """One gradient update on a batch of offline and own transitions."""
        seed = episode_seed(self.context.seed, "agent", 2 + self.updates)
        generator = torch.Generator(self.device).manual_seed(seed)
        metrics = self.learn(self.batch(np.random.default_rng(seed), generator), generator)
        self.updates += 1
        return to_floats(metrics)

    def batch(self, rng: np.random.Generator, generator: torch.Generator) -> Batch:
        """Offline transitions alone as long as the run has none of its own, then both in their shares."""
        size: int = self.context.settings.batch
        if self.data is None:
            batch = self.replay.sample(size, rng, self.device)
        elif not len(self.replay):
            batch = self.data.sample(size, rng, self.device)
        else:
            offline = round(self.offline_share * size)
            batch = joined(
                self.replay.sample(size - offline, rng, self.device), self.data.sample(offline, rng, self.device)
            )
        if not self.sight.pixels:
            return batch
        return replace(
            batch,
            observation=random_shift(batch.observation, generator),
            next_observation=random_shift(batch.next_observation, generator),
        )

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizers and the number of updates, flat."""
        return pack(self._parts()) | {"updates": self.updates, "trained": self.trained}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""
        unpack(self._parts(), state)
        self.updates, self.trained = state["updates"], list(state["trained"])

    def _parts(self) -> dict[str, nn.Module | Optimizer]:
        return {"eyes": self.eyes, **self.parts()}


def updates_per_step(settings: Any) -> float:
    """The pace of ``update`` online, of settings that have one."""
    return settings.updates_per_step


def offline_updates(settings: Any) -> int:
    """The updates before any environment step, of settings that have them."""
    return settings.offline_updates


def joined(first: Batch, second: Batch) -> Batch:
    """The rows of both."""
    return Batch(*(torch.cat([getattr(first, part.name), getattr(second, part.name)]) for part in fields(Batch)))


def optimizer(module: nn.Module, learning_rate: float) -> Optimizer:
    """Adam as the publications of these methods use it: neither clipping nor decay."""
    return Optimizer(
        module.parameters(), learning_rate=learning_rate, eps=1e-8, grad_clip=float("inf"), weight_decay=0.0
    )
