"""The contract between a suite, a method and the harness. Imports no other room of the project.

A *suite* offers tasks and the simulators behind them. A *method* declares what data it may see and builds an *agent*
for one run. The harness owns the interaction loop, the evaluation, the budget and the records, the same for every
method. Units: a *environment step* is one simulator frame as the benchmark counts it (action repeat multiplied in); an
*agent step* is one decision, worth ``task.action_repeat`` environment steps.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

STATE_PAD = 96
"""Numbers in a zero-padded state observation, across all embodiments."""
ACTION_PAD = 21
"""Numbers in a zero-padded action, across all embodiments (the paper's code pads to 21)."""
IMAGE_SIZE = 64
"""Side of a square RGB observation, in pixels."""
WARM_UP = 0.1
"""Share of the budget before the first online update. In it a cloned prior or a policy that was learned offline acts
where the method has one, else noise."""
DISCOUNT = 0.99
"""Discount per agent step, for every method. All tasks end by time limit, so critics always bootstrap."""

Precision = Literal["fp32", "bf16"]
ObservationKind = Literal["state", "pixels"]
Stream = Literal["train", "evaluation", "retrieval", "collection", "agent", "validation", "diagnosis", "acting"]
_STREAMS: dict[str, int] = {
    "train": 0,
    "evaluation": 1,
    "retrieval": 2,
    "collection": 3,
    "agent": 4,
    "validation": 5,
    "diagnosis": 6,
    "acting": 7,
}


class UserError(Exception):
    """Something the user can put right. The message is one sentence that says what is wrong and what to do."""


class DataAccessError(UserError):
    """A method touched offline data that it did not declare."""


class DataAccess(enum.StrEnum):
    """What a method may see of the offline data; enforced by the view it is handed, printed beside its score."""

    NONE = "none"
    LABELLED = "labelled"
    LABELLED_MULTITASK = "labelled-multitask"
    DEMONSTRATIONS = "demonstrations"
    REWARD_FREE = "reward-free"


@dataclass(frozen=True)
class Task:
    """One task of a suite.

    Attributes:
        suite: name of the suite, ``dmc`` or ``metaworld``.
        name: short name, ``walker-walk``.
        embodiment: the body and its observation; episodes of one embodiment have equal dimensions.
        scene: what an offline episode was recorded in. DMControl: the embodiment. Meta-World: the task.
        state_dim: numbers in a state observation, before padding.
        action_dim: numbers in an action, before padding; every action lies in [-1, 1].
        episode_length: environment steps of an episode (it always ends by time limit).
        action_repeat: environment steps per agent step.
        score: which record makes the score, ``return`` or ``success`` (at the last step).
        score_scale: the score is this record divided by ``score_scale``; 0 to 1, never clipped.
        paper: whether the task is one of the paper's 72.
        camera: the camera of the pixel observation, as recorded in the protocol.
        largest_reward: of an environment step, as the benchmark defines it; for methods to which scale matters.
    """

    suite: str
    name: str
    embodiment: str
    scene: str
    state_dim: int
    action_dim: int
    episode_length: int
    action_repeat: int
    score: Literal["return", "success"]
    score_scale: float
    paper: bool
    camera: str
    largest_reward: float = 1.0

    @property
    def id(self) -> str:
        """``dmc/walker-walk`` or ``mw/door-open``."""
        return f"{'mw' if self.suite == 'metaworld' else self.suite}/{self.name}"

    @property
    def agent_steps(self) -> int:
        """Agent steps of an episode, T: an episode stores T + 1 observations."""
        return self.episode_length // self.action_repeat


def episode_seed(seed: int, stream: Stream, index: int) -> int:
    """Seed of the simulator for one episode: a pure function of its arguments, so resuming needs no simulator state."""
    return int(np.random.SeedSequence([seed, _STREAMS[stream], index]).generate_state(1, np.uint32)[0])


@dataclass(frozen=True)
class Units:
    """Constants of a suite that bring the numbers of a state observation to order one, for every method alike.

    They are fixed with the suite, never measured on offline data, so they tell a method nothing it was not granted.

    Attributes:
        offset, scale: float32 ``(state_dim,)``; a method sees ``(state - offset) * scale``.
    """

    offset: NDArray[np.float32]
    scale: NDArray[np.float32]

    def apply(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        """States ``(..., state_dim)`` in these units."""
        return (state - self.offset) * self.scale

    @staticmethod
    def identity(state_dim: int) -> Units:
        """Units that change nothing."""
        return Units(np.zeros(state_dim, np.float32), np.ones(state_dim, np.float32))


class Suite(Protocol):
    """A set of tasks, their simulators, and how its offline data is made and labelled."""

    name: str
    version: int

    def tasks(self) -> Sequence[Task]:
        """Every task, in a fixed order."""
        ...

    def make(self, task: Task, observation: ObservationKind) -> gym.Env[Any, Any]:
        """A simulator of the task.

        Observations are float32 ``(state_dim,)`` or uint8 ``(64, 64, 3)``; actions float32 ``(action_dim,)`` in
        [-1, 1]. ``step`` applies the action for ``action_repeat`` environment steps and sums their rewards; the
        episode ends with ``truncated`` after ``episode_length`` environment steps, never with ``terminated``.
        ``info["success"]`` is 0.0 or 1.0 at the last environment step of the agent step. ``reset(seed=s)`` makes the
        episode a function of ``s`` and the actions.
        """
        ...

    def units(self, embodiment: str) -> Units:
        """Constants that bring the embodiment's state observations to order one."""
        ...

    def protocol(self, task: Task, observation: ObservationKind) -> dict[str, Any]:
        """What must be equal for two scores to be compared: horizon, repeat, reward version, camera, rendering."""
        ...

    def collection_jobs(self, settings: Any, scenes: Sequence[str], seed: int) -> Sequence[CollectionJob]:
        """The independent pieces in which the offline data of ``scenes`` is collected, each one resumable unit."""
        ...

    def labels(self, dataset: Any, task: Task, episode: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Rewards and successes of ``task`` for one stored episode, per agent step: two float32 ``(T + 1,)``."""
        ...


@dataclass(frozen=True)
class CollectionJob:
    """One shard of a data set: what to collect, and the function that does it.

    ``collect(writer, progress)`` adds its episodes to a ``wpt_bench.data.store.ShardWriter`` and calls
    ``progress(fraction, what)`` now and then. ``name`` is the shard's folder; ``settings`` go into the manifest.

    ``play(actions, writer, progress)``, where collecting takes much longer than its simulators do, as where a collector
    learns: adds the same episodes from their actions, float32 ``(T + 1, action_dim)`` each, in the order of the shard.
    """

    name: str
    collect: Callable[[Any, Progress], None]
    episodes: int
    settings: Mapping[str, Any]
    play: Callable[[Sequence[NDArray[np.float32]], Any, Progress], None] | None = None


class Progress(Protocol):
    """Called by long work: the fraction done in [0, 1] and, briefly, what is being done."""

    def __call__(self, fraction: float, what: str = "") -> None:
        """Reports."""
        ...


@dataclass(frozen=True)
class AgentContext:
    """All that an agent may know when it is built.

    Attributes:
        task: what is to be learned.
        observation: ``state`` or ``pixels``.
        units: the suite's constants for state observations.
        seed: the run's seed; the agent derives all its randomness from it.
        budget: environment steps of the whole run.
        data: the view of the offline data that the method's ``DataAccess`` grants.
        settings: the method's settings, of the type the method declares.
        pretrained: weights of the shared pre-training (a safetensors file), or None.
        initial_observation: first observation of training episode 0, as retrieval needs it before the first step.
        device: torch device name.
        precision: what matrix products and convolutions take.
        tasks: those of a multi-task grant, in the order of their indices; else only ``task``.
        inherited: in a sequence of tasks, what ``state_dict`` of the agent that learned the one before ended with,
            without its optimizers; None elsewhere.
    """

    task: Task
    observation: ObservationKind
    units: Units
    seed: int
    budget: int
    data: Any
    settings: Any
    pretrained: Path | None
    initial_observation: NDArray[Any]
    device: str
    precision: Precision
    tasks: tuple[Task, ...]
    inherited: Mapping[str, Any] | None = None


class Agent(Protocol):
    """A learner in one run. Observations arrive as the simulator gives them, unpadded and unscaled."""

    def offline(self, progress: Progress) -> dict[str, Any]:
        """Prepares for the first update or environment step; returns diagnostics for the record (JSON values).

        Not called again when an interrupted run goes on. ``retrieved``, if there, lists indices of the granted episodes
        that the agent works with.
        """
        ...

    def begin(self, batch: int, *, seed: int, evaluation: bool) -> Any:
        """The carry for ``batch`` fresh episodes. Whatever ``act`` samples in them is a function of ``seed``."""
        ...

    def act(self, carry: Any, observation: NDArray[Any], *, evaluation: bool) -> tuple[NDArray[np.float32], Any]:
        """Actions ``(batch, action_dim)`` for observations ``(batch, ...)``, and the next carry.

        In evaluation the actor's mean action. No state of the agent changes, only the carry.
        """
        ...

    def observe(self, observation: NDArray[Any], action: NDArray[np.float32] | None, reward: float) -> None:
        """One observation of the training episode, with the action and reward that led to it (None and 0 at reset)."""
        ...

    def episode_metrics(self, carry: Any) -> dict[str, float]:
        """Numbers about a finished training episode for its record; ``guided_steps`` fills the column of that name."""
        ...

    def update(self) -> dict[str, float]:
        """One gradient update of everything that learns; returns metrics. The harness paces and counts these.

        Its randomness is a function of the run's seed and the number of updates before it.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizers and counters: a flat dictionary of tensors and JSON values, without the replay."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state_dict`` gave; replay is restored by the harness through ``observe``."""
        ...


@runtime_checkable
class Diagnosed(Protocol):
    """What an agent may offer besides: numbers that explain its run to people. Nothing of the agent changes by them.

    An agent that has these methods is asked; one that lacks them is run just the same.
    """

    def begin_prior(self, batch: int, *, seed: int) -> Any:
        """As ``begin`` in evaluation, for episodes in which a cloned prior alone acts; None where there is none."""
        ...

    def diagnose(
        self, observation: NDArray[Any], action: NDArray[np.float32], reward: NDArray[np.float32], *, seed: int
    ) -> list[dict[str, float]]:
        """Numbers about each of N evaluation episodes of T agent steps, for its record.

        Args:
            observation: ``(T + 1, N, ...)``, as the simulator gave them.
            action, reward: what led to each observation, float32 ``(T + 1, N, action_dim)`` and ``(T + 1, N)``; zero
                at the first one.
            seed: all that is drawn is a function of it and of the run's seed.
        """
        ...


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high`` that a search may give a setting, on a ``log`` scale where they are rates."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """The values that a search may give a setting that is no plain number."""

    options: tuple[float | bool | str, ...]


STEP_SIZES = Range(3e-5, 3e-3, log=True)
"""What is searched of every step size, whatever the method."""


@dataclass(frozen=True)
class Method:
    """A way to learn a task, and what it may see.

    Attributes:
        name: as typed on the command line.
        version: raise it when behaviour changes; older runs are stale then and never mixed in.
        family: row of Table 1, for instance ``WPT`` or ``From scratch``.
        data_access: the grant, enforced.
        observations: kinds it can learn from.
        paper: where it was published.
        build: makes the agent of one run.
        settings: type of its settings (a msgspec Struct); its defaults may be overridden by a profile.
        settings_name: table of the profile that holds them.
        updates_per_step: how the harness paces ``update``: from settings to updates per agent step.
        tuning: where its hyperparameters come from.
        tuning_evaluations: evaluations of online performance (of a few episodes each) that were spent on choosing them
            here; the report prints it beside the score.
        settings_group: table of the profile with settings that several methods take, applied before their own.
        offline_updates: from settings to the updates made on the offline data before the first environment step.
        sequence: name of the setting, if there is one, of how many observations in a row of an episode it learns from.
        online: whether it takes environment steps.
        pretrained: whether it needs the shared pre-trained world model.
        shared: whether one agent, trained offline once per suite and seed, is what every task evaluates.
        sequential: whether its agent can go on from one task to the next (``AgentContext.inherited``).
        search: settings that a search may change, by name; methods of one ``settings_name`` have the same. None that
            changes what a run costs (updates, batches, sizes) or sees (retrieved episodes): more of it would win.
    """

    name: str
    version: int
    family: str
    data_access: DataAccess
    observations: tuple[ObservationKind, ...]
    paper: str
    build: Callable[[AgentContext], Agent]
    settings: type
    settings_name: str
    updates_per_step: Callable[[Any], float]
    tuning: str = ""
    tuning_evaluations: int = 0
    settings_group: str = ""
    offline_updates: Callable[[Any], int] = lambda settings: 0
    sequence: str = ""
    online: bool = True
    pretrained: bool = False
    shared: bool = False
    sequential: bool = False
    search: Mapping[str, Range | Choice] = field(default_factory=dict, hash=False)
