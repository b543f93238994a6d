"""Meta-World: the 50 manipulation tasks of one Sawyer arm, V3, with goals drawn anew for every episode.

Importing this is light; Meta-World and MuJoCo are loaded when a task is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wpt_bench.protocol import CollectionJob, ObservationKind, Suite, Task, Units, UserError

NAMES = (
    "assembly",
    "basketball",
    "bin-picking",
    "box-close",
    "button-press",
    "button-press-topdown",
    "button-press-topdown-wall",
    "button-press-wall",
    "coffee-button",
    "coffee-pull",
    "coffee-push",
    "dial-turn",
    "disassemble",
    "door-close",
    "door-lock",
    "door-open",
    "door-unlock",
    "drawer-close",
    "drawer-open",
    "faucet-close",
    "faucet-open",
    "hammer",
    "hand-insert",
    "handle-press",
    "handle-press-side",
    "handle-pull",
    "handle-pull-side",
    "lever-pull",
    "peg-insert-side",
    "peg-unplug-side",
    "pick-out-of-hole",
    "pick-place",
    "pick-place-wall",
    "plate-slide",
    "plate-slide-back",
    "plate-slide-back-side",
    "plate-slide-side",
    "push",
    "push-back",
    "push-wall",
    "reach",
    "reach-wall",
    "shelf-place",
    "soccer",
    "stick-pull",
    "stick-push",
    "sweep",
    "sweep-into",
    "window-close",
    "window-open",
)

CAMERA = "corner2"

_TASKS = tuple(
    Task(
        suite="metaworld",
        name=name,
        embodiment="sawyer",
        scene=name,
        state_dim=39,
        action_dim=4,
        episode_length=200,
        action_repeat=2,
        score="success",
        score_scale=1.0,
        paper=True,
        camera=CAMERA,
        largest_reward=10.0,
    )
    for name in NAMES
)


class MetaWorld:
    """The suite; see ``wpt_bench.protocol.Suite``."""

    name = "metaworld"
    version = 1

    def tasks(self) -> Sequence[Task]:
        """All 50 tasks, every one of them the paper's, by name."""
        return _TASKS

    def make(self, task: Task, observation: ObservationKind) -> gym.Env[Any, Any]:
        """A simulator of the task."""
        from wpt_bench.suites.metaworld.env import MetaWorldEnv

        return MetaWorldEnv(task, observation)

    def units(self, embodiment: str) -> Units:
        """Positions times 10, with y counted from 0.6 m; gripper opening and quaternions as they are.

        Positions are in metres and differ by about 0.1 within and between episodes; the other numbers are of order one
        already. The table's middle is at y = 0.6: counted from the origin, y would be fed through the flat part of
        symlog and lose its spread. A frame is hand position, gripper opening, then position and quaternion of two
        objects.
        """
        if embodiment != "sawyer":
            raise UserError(f"Meta-World has no embodiment {embodiment!r}; its only one is 'sawyer'.")
        frame = [10.0] * 3 + [1.0] + ([10.0] * 3 + [1.0] * 4) * 2
        scale = np.array(frame * 2 + [10.0] * 3, np.float32)
        offset = np.zeros_like(scale)
        offset[[1, 5, 12, 19, 23, 30, 37]] = 0.6
        return Units(offset, scale)

    def protocol(self, task: Task, observation: ObservationKind) -> dict[str, Any]:
        """What must be equal for two scores to be compared."""
        protocol: dict[str, Any] = {
            "episode_length": task.episode_length,
            "action_repeat": task.action_repeat,
            "reward": "Meta-World V3 environments, dense reward v2, summed over the repeat",
            "success": "at the last environment step",
            "goal": "observable, drawn uniformly from the task's reset space for every episode",
            "previous_frame": "of one environment step before; at reset the current frame",
        }
        if observation == "pixels":
            from wpt_bench.suites.metaworld.camera import PROTOCOL

            protocol["camera"] = dict(PROTOCOL)
        else:
            units = self.units(task.embodiment)
            protocol["units"] = {"offset": units.offset.tolist(), "scale": units.scale.tolist()}
        return protocol

    def collection_jobs(self, settings: Any, scenes: Sequence[str], seed: int) -> Sequence[CollectionJob]:
        """One job per scene: ``settings.episodes`` episodes of its scripted policy with action noise.

        Pictures are recorded beside the states if ``settings`` has a true attribute ``pixels``.
        """
        from wpt_bench.suites.metaworld.collect import job

        pixels = settings.pixels
        return [job(self._task(scene), settings.episodes, seed, pixels) for scene in scenes]

    def labels(self, dataset: Any, task: Task, episode: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The rewards and successes recorded at collection, per agent step; only of the task's own scene."""
        info = dataset.episodes[episode]
        if info.scene != task.scene:
            raise UserError(
                f"Episode {episode} was recorded in {info.scene!r} and has no rewards for {task.name!r}: Meta-World's "
                "rewards are recorded at collection, for the scene's own task only."
            )
        frame_reward, frame_success = dataset.frame_labels(episode)
        frames = np.asarray(frame_reward[1:], np.float64).reshape(-1, task.action_repeat)
        reward = np.concatenate([[0.0], frames.sum(axis=1)])
        return reward.astype(np.float32), np.asarray(frame_success[:: task.action_repeat], np.float32)

    def _task(self, scene: str) -> Task:
        if scene not in NAMES:
            raise UserError(f"Meta-World has no scene {scene!r}; its scenes are its tasks: {', '.join(NAMES)}.")
        return _TASKS[NAMES.index(scene)]


SUITE: Suite = MetaWorld()
