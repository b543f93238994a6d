"""What a method sees of the offline data: ``grant`` makes the view that its ``DataAccess`` allows, and no more.

A view holds nothing that was not granted. Touching it anyway raises DataAccessError, and the objects handed out lead
back neither to the data set nor to the neighbours of an episode in its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wpt_bench.data.labels import Labels, labels
from wpt_bench.data.store import Dataset, EpisodeInfo
from wpt_bench.protocol import DataAccess, DataAccessError, ObservationKind, Progress, Suite, Task, Units, UserError

_T = TypeVar("_T")

# What a method may be tempted to touch; any other name that does not exist is an ordinary AttributeError.
_HARNESS_ONLY = frozenset(
    {
        *("dataset", "embodiment", "scene", "origin", "collector", "quality", "physics", "labels", "frame_labels"),
        *("seed", "shard", "index", "info", "state", "image"),
    }
)


@dataclass(frozen=True, repr=False, eq=False)
class EpisodeView:
    """One offline episode of T agent steps, as far as it was granted. Arrays are mapped from disk and read-only.

    Attributes:
        observation: states, float32 ``(T + 1, state_dim)``, unscaled; or pictures, uint8 ``(T + 1, 64, 64, 3)``.
        action: float32 ``(T + 1, action_dim)`` in [-1, 1]; row t led to observation t, row 0 is 0.
        units: the suite's constants for state observations; empty for pictures.
        action_dim: numbers in an action, before padding.
        access: the grant.
    """

    observation: NDArray[Any]
    action: NDArray[np.float32]
    units: Units
    action_dim: int
    access: DataAccess
    _labels: Labels | None = field(default=None)
    _task: str | None = field(default=None)

    @property
    def reward(self) -> NDArray[np.float32]:
        """Reward of ``task`` that came with each observation: float32 ``(T + 1,)``, row 0 is 0."""
        return self._granted(self._labels, "reward")[0]

    @property
    def success(self) -> NDArray[np.float32]:
        """Success of ``task`` at each observation, 0 or 1: float32 ``(T + 1,)``."""
        return self._granted(self._labels, "success")[1]

    @property
    def task(self) -> str:
        """Name of the task that the rewards, or the demonstration, belong to."""
        return self._granted(self._task, "task")

    @property
    def rewarded(self) -> bool:
        """Whether ``reward`` and ``success`` were granted."""
        return self._labels is not None

    def _granted(self, value: _T | None, name: str) -> _T:
        if value is None:
            raise _not_granted(self.access, f"the {name} of an offline episode")
        return value

    def __len__(self) -> int:
        """Observations of the episode, T + 1."""
        return len(self.observation)

    def __getattr__(self, name: str) -> Any:
        if name in _HARNESS_ONLY:
            raise _not_granted(self.access, f"the {name} of an offline episode")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


class DataView:
    """The offline data of a method, as far as it was granted: see ``grant``."""

    def __init__(self, access: DataAccess, episodes: Sequence[EpisodeView]) -> None:
        self.access = access
        self._episodes = tuple(episodes)

    def episodes(self) -> Sequence[EpisodeView]:
        """All granted episodes, in a fixed order; DataAccessError under the grant ``none``."""
        if self.access is DataAccess.NONE:
            raise _not_granted(self.access, "the offline episodes")
        return self._episodes

    def __getattr__(self, name: str) -> Any:
        if name in _HARNESS_ONLY:
            raise _not_granted(self.access, f"the {name} of the offline data")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


def grant(
    dataset: Dataset | None,
    access: DataAccess,
    task: Task,
    suite: Suite,
    observation: ObservationKind,
    tasks: Sequence[Task] = (),
    progress: Progress | None = None,
    *,
    indices: Sequence[int] | None = None,
    earlier: Sequence[EpisodeView] = (),
) -> DataView:
    """The view of ``dataset`` for a method that declares ``access`` and learns ``task``.

    - ``NONE``: touching anything raises DataAccessError.
    - ``REWARD_FREE``: every episode: observations, actions, action dimension. Episode j of the view is the j-th of
      ``indices`` (then of ``earlier``), so that the harness can judge what a method chose.
    - ``LABELLED``: the episodes of the task's scene (which in DMControl is its embodiment), with the task's rewards.
    - ``LABELLED_MULTITASK``: the same for every task of ``tasks``, with task identity; an episode comes once per task.
    - ``DEMONSTRATIONS``: for every task of ``tasks``, without rewards and with task identity, the best tenth (at least
      one) of its labelled episodes by return, or those that succeed at the last step where success is the score.

    Args:
        dataset: None only under ``NONE``.
        access: the method's declaration.
        task: what the run learns.
        suite: computes labels and knows the scale of states.
        observation: ``state`` or ``pixels``.
        tasks: of the multi-task grants; by default only ``task``.
        progress: told how far the labels are.
        indices: of the episodes that there are for this method, ascending; all without.
        earlier: of a reward-free view, what was seen online in earlier tasks of a sequence.

    Raises:
        UserError: the data has another action repeat, lacks the task's scene or pictures, or has no demonstration.
    """
    if access is DataAccess.NONE:
        return DataView(access, ())
    if dataset is None:
        raise UserError(f"A method with the data access {access.value!r} needs offline data; collect it first.")
    for one in (task, *tasks):
        if one.action_repeat != dataset.action_repeat:
            raise UserError(
                f"The data in {dataset.path} has action repeat {dataset.action_repeat} and task {one.name} has "
                f"{one.action_repeat}; collect data with the task's action repeat."
            )
    there = dataset.episodes if indices is None else [dataset.episodes[index] for index in indices]
    if access is DataAccess.REWARD_FREE:
        return DataView(access, [*(_view(dataset, suite, info, observation, access) for info in there), *earlier])
    views: list[EpisodeView] = []
    for one in (task,) if access is DataAccess.LABELLED else tuple(tasks) or (task,):
        infos = [info for info in there if info.scene == one.scene]
        if not infos:
            raise UserError(
                f"The data in {dataset.path} has no episode of {one.scene} for {one.name}; collect it first."
            )
        labelled = labels(dataset, suite, one, [info.index for info in infos], progress)
        if access is DataAccess.DEMONSTRATIONS:
            chosen = demonstrations(one, labelled)
            views += [_view(dataset, suite, infos[i], observation, access, None, one.name) for i in chosen]
        else:
            views += [
                _view(dataset, suite, info, observation, access, label, one.name)
                for info, label in zip(infos, labelled, strict=True)
            ]
    if not views:
        raise UserError(f"No episode in {dataset.path} succeeds at its last step; collect data of better quality.")
    return DataView(access, views)


def demonstrations(task: Task, labelled: Sequence[Labels]) -> list[int]:
    """Positions of the demonstrations among a task's labelled episodes, in their order (the rule is in ``grant``)."""
    if task.score == "success":
        return [position for position, (_, success) in enumerate(labelled) if success[-1] > 0]
    returns = np.array([reward.sum(dtype=np.float64) for reward, _ in labelled])
    best = np.argsort(-returns, kind="stable")[: max(1, len(returns) // 10)]
    return sorted(int(position) for position in best)


def _view(
    dataset: Dataset,
    suite: Suite,
    info: EpisodeInfo,
    observation: ObservationKind,
    access: DataAccess,
    label: Labels | None = None,
    task: str | None = None,
) -> EpisodeView:
    if observation == "state":
        units = suite.units(info.embodiment)
        if units.scale.shape != (info.state_dim,):
            raise UserError(
                f"Episode {info.index} in {dataset.path} has {info.state_dim} numbers per state and its embodiment "
                f"{info.embodiment} has {units.scale.size}; collect the data with this version of the suite."
            )
    else:
        units = Units.identity(0)
    return EpisodeView(
        observation=dataset.window(info.index, "state" if observation == "state" else "image"),
        action=dataset.window(info.index, "action"),
        units=units,
        action_dim=info.action_dim,
        access=access,
        _labels=label,
        _task=task,
    )


def _not_granted(access: DataAccess, what: str) -> DataAccessError:
    return DataAccessError(
        f"The method declares the data access {access.value!r}, which does not grant {what}; declare another access."
    )
