"""Collects the reward-free offline data of DMControl: for every embodiment, three kinds of non-expert behaviour.

- ``pink-noise``: smooth random actions, of a strength drawn per episode and dimension;
- ``curiosity``: an agent that seeks what a learned model of the dynamics predicts badly, and trains as it collects;
- ``random-reward``: one agent per embodiment that trains as it collects on random functions of velocity, height and
  orientation, a newly drawn one each episode.

No collector reads a task's reward. Of a training, early and late episodes are stored alike, evenly spread: that is what
makes the data mixed in quality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from wpt_bench.protocol import IMAGE_SIZE, CollectionJob, Progress, Suite, Task, UserError, episode_seed
from wpt_bench.suites.dmc.collect_agent import Float32, Learner, Objective, Replay, pink_noise
from wpt_bench.suites.dmc.collect_objectives import FEATURES, Curiosity, RandomReward, Trunk

if TYPE_CHECKING:
    from wpt_bench.data.store import ShardWriter
    from wpt_bench.suites.dmc.env import DMCEnv

_OBJECTIVES: dict[str, Callable[[int], Objective]] = {"random-reward": RandomReward, "curiosity": Curiosity}
_COLLECTORS = (*_OBJECTIVES, "pink-noise")
_EPISODES = 1_000_000  # episode seeds set aside for one job; the last of them is the learner's
_NOISE = (0.2, 1.5)  # pink-noise: standard deviation of actions before clipping, least and most
_EXPLORATION = 0.4  # trained collectors: most noise on the actor's actions
_WARM_UP = 3  # trained collectors: episodes of noise before learning begins
_STATE_LIMIT = 10.0  # scaled states beyond it are clipped for the learner

Policy = Callable[[Float32, int], NDArray[Any]]


def collection_jobs(suite: Suite, settings: Any, scenes: Sequence[str], seed: int) -> list[CollectionJob]:
    """One job per collector and embodiment, named ``walker-random-reward``; the slow ones, which learn, come first.

    Args:
        suite: DMControl.
        settings: ``pink_noise``, ``curiosity``, ``random_reward``: episodes stored per embodiment, 0 for none;
            ``training_episodes``: run by each collector that learns; ``updates_per_step``: its updates per agent step;
            ``pixels``: whether pictures are stored beside the states.
        scenes: embodiments.
        seed: of all the data; a job depends on nothing else but its own settings.

    Raises:
        UserError: an embodiment does not exist, or more episodes are to be stored than run.
    """
    tasks: dict[str, Task] = {}
    for task in suite.tasks():
        tasks.setdefault(task.embodiment, task)
    places = {embodiment: place for place, embodiment in enumerate(tasks)}
    jobs = []
    for number, collector in enumerate(_COLLECTORS):
        stored = getattr(settings, collector.replace("-", "_"))
        trained = collector in _OBJECTIVES
        run = settings.training_episodes if trained else stored
        if stored > run:
            raise UserError(
                f"{stored} {collector} episodes cannot be stored of {run} run; raise training_episodes or store fewer."
            )
        for scene in scenes if stored else ():
            if scene not in tasks:
                raise UserError(f"DMControl has no embodiment {scene!r}; choose from {', '.join(tasks)}.")
            plan = Plan(
                suite=suite,
                task=tasks[scene],
                collector=collector,
                stored=tuple(int(index) for index in np.linspace(0, run - 1, stored).round()),
                run=run,
                updates=round(tasks[scene].agent_steps * settings.updates_per_step) if trained else 0,
                seed=seed,
                first=(places[scene] * len(_COLLECTORS) + number) * _EPISODES,
                pixels=settings.pixels,
            )
            described: dict[str, Any] = {
                "embodiment": scene,
                "scene": scene,
                "collector": collector,
                "episodes": stored,
                "pixels": settings.pixels,
            }
            if trained:
                described |= {"training_episodes": run, "updates_per_step": settings.updates_per_step}
            play = partial(_play, plan) if trained else None
            jobs.append(CollectionJob(f"{scene}-{collector}", partial(_collect, plan), stored, described, play))
    return jobs


@dataclass(frozen=True)
class Plan:
    """One job: ``run`` episodes, ``updates`` after each, those of index ``stored`` kept; ``first`` begins its seeds."""

    suite: Suite
    task: Task
    collector: str
    stored: tuple[int, ...]
    run: int
    updates: int
    seed: int
    first: int
    pixels: bool

    def episode_seed(self, index: int) -> int:
        """What the simulator of the episode is reset with."""
        return episode_seed(self.seed, "collection", self.first + index)


@dataclass(frozen=True)
class _Episode:
    """One episode as it is stored, and beside it what the learner wants: scaled states and the trunk's features."""

    state: Float32
    action: Float32
    physics: NDArray[np.float64]
    image: NDArray[np.uint8] | None
    scaled: Float32
    feature: Float32


def _collect(plan: Plan, writer: ShardWriter, progress: Progress) -> None:
    with _one_thread():
        episodes = Training(plan).episodes() if plan.collector in _OBJECTIVES else _noise(plan)
        for index, episode in enumerate(episodes):
            if index in plan.stored:
                _store(plan, writer, index, episode)
            progress((index + 1) / plan.run, f"{plan.task.embodiment} {plan.collector}")


def _play(plan: Plan, actions: Sequence[Float32], writer: ShardWriter, progress: Progress) -> None:
    body = _Body(plan)
    for number, (index, action) in enumerate(zip(plan.stored, actions, strict=True), start=1):
        _store(plan, writer, index, body.episode(index, partial(_recorded_policy, action)))
        progress(number / len(plan.stored), f"{plan.task.embodiment} {plan.collector}, from its actions")


def _store(plan: Plan, writer: ShardWriter, index: int, episode: _Episode) -> None:
    writer.add_episode(
        state=episode.state,
        action=episode.action,
        seed=plan.episode_seed(index),
        origin=plan.task.name,
        quality=index / max(plan.run - 1, 1) if plan.collector in _OBJECTIVES else None,
        physics=episode.physics,
        image=episode.image,
    )


def _noise(plan: Plan) -> Iterator[_Episode]:
    body = _Body(plan)
    for index in range(plan.run):
        rng = np.random.default_rng([plan.episode_seed(index), 1])
        yield body.episode(index, _noisy_policy(rng, plan.task))


class Training:
    """A learner that trains on ``objective`` as it collects; the first few episodes are noise, to start from.

    Attributes:
        replay: its episodes so far, each with the condition it was collected under.
        objective: what it wants.
        warm_up: how many episodes are noise.
    """

    def __init__(self, plan: Plan) -> None:
        task, seed = plan.task, plan.episode_seed(_EPISODES - 1)
        self._plan, self._body = plan, _Body(plan)
        self.objective = _OBJECTIVES[plan.collector](seed)
        self.replay = Replay(
            plan.run,
            task.agent_steps,
            state=task.state_dim,
            action=task.action_dim,
            feature=FEATURES,
            condition=self.objective.dim,
        )
        self.warm_up = min(_WARM_UP, plan.run)
        self._learner = Learner(self.replay, self.objective, seed)

    def episodes(self) -> Iterator[_Episode]:
        """Runs the training: updates follow every episode but the first few, and the last."""
        for index in range(self._plan.run):
            if index >= self.warm_up:
                self.objective.refresh(self.replay)
                if index == self.warm_up:
                    self.replay.condition[:index] = self.objective.draw(index)
                self._learner.learn(self._plan.updates)
            yield self._episode(index)

    def _episode(self, index: int) -> _Episode:
        plan = self._plan
        rng = np.random.default_rng([plan.episode_seed(index), 1])
        if index < self.warm_up:
            condition = np.zeros(self.objective.dim, np.float32)
            policy = _noisy_policy(rng, plan.task)
        else:
            condition = self.objective.draw(1)[0]
            policy = _learned_policy(rng, plan.task, self._learner, condition)
        episode = self._body.episode(index, policy)
        self.replay.add(episode.scaled, episode.action, episode.feature, condition)
        return episode


def _noisy_policy(rng: np.random.Generator, task: Task) -> Policy:
    noise = pink_noise(rng, task.agent_steps, task.action_dim) * rng.uniform(*_NOISE, task.action_dim)
    return lambda state, step: noise[step]


def _recorded_policy(action: Float32, state: Float32, step: int) -> Float32:
    return np.asarray(action[step + 1])


def _learned_policy(rng: np.random.Generator, task: Task, learner: Learner, condition: Float32) -> Policy:
    noise = pink_noise(rng, task.agent_steps, task.action_dim) * rng.uniform(0, _EXPLORATION)
    return lambda state, step: learner.act(state, condition) + noise[step]


class _Body:
    """A simulator of the embodiment, which runs one episode after another."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._task = plan, plan.task
        self._env: DMCEnv = plan.suite.make(plan.task, "state")  # type: ignore[assignment]
        self._trunk = Trunk(self._env.simulator.physics)
        self._units = plan.suite.units(plan.task.embodiment)

    def episode(self, index: int, policy: Policy) -> _Episode:
        """Runs one episode; ``policy`` gives unclipped actions for scaled states and the step's number."""
        draw = self._plan.pixels and index in self._plan.stored
        steps = self._task.agent_steps
        state = np.empty((steps + 1, self._task.state_dim), np.float32)
        scaled = np.empty_like(state)
        action = np.zeros((steps + 1, self._task.action_dim), np.float32)
        feature = np.empty((steps + 1, FEATURES), np.float32)
        state[0] = self._env.reset(seed=self._plan.episode_seed(index))[0]
        image = np.empty((steps + 1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8) if draw else None
        physics = [self._env.frame_physics]
        for step in range(steps + 1):
            if step > 0:
                action[step] = np.clip(policy(scaled[step - 1], step - 1), -1, 1)
                state[step] = self._env.step(action[step])[0]
                physics.append(self._env.frame_physics)
            scaled[step] = np.clip(self._units.apply(state[step]), -_STATE_LIMIT, _STATE_LIMIT)
            feature[step] = self._trunk.read()
            if image is not None:
                image[step] = self._env.render()
        return _Episode(state, action, np.concatenate(physics), image, scaled, feature)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small are fastest on one thread, and the same bytes come out wherever the job runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
