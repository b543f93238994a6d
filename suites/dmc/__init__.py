"""The DMControl suite: the paper's 22 tasks and the rest of dm_control's own benchmarking set.

Importing this package imports no simulator: what a task looks like is a table, which a test holds against the
simulators. Tasks of one embodiment share body, dynamics and observation, and differ in their reward (and, for some, in
how an episode starts), so a stored episode of one can be relabelled for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wpt_bench.protocol import IMAGE_SIZE, CollectionJob, ObservationKind, Task, Units, UserError

if TYPE_CHECKING:
    from wpt_bench.data.store import Dataset
    from wpt_bench.suites.dmc.env import DMCEnv

EPISODE_LENGTH = 1000
ACTION_REPEAT = 2

_PAPER = (
    "cartpole-balance",
    "acrobot-swingup",
    "acrobot-swingup-sparse",
    "acrobot-swingup-hard",
    "walker-stand",
    "walker-walk",
    "walker-run",
    "walker-backflip",
    "walker-walk-backwards",
    "walker-walk-hard",
    "walker-run-backwards",
    "cheetah-run",
    "cheetah-run-front",
    "cheetah-run-back",
    "cheetah-run-backwards",
    "cheetah-jump",
    "quadruped-walk",
    "quadruped-stand",
    "quadruped-run",
    "quadruped-jump",
    "quadruped-roll",
    "quadruped-roll-fast",
)
_OTHERS = (
    "cup-catch",
    "cartpole-balance-sparse",
    "cartpole-swingup",
    "cartpole-swingup-sparse",
    "finger-spin",
    "finger-turn-easy",
    "finger-turn-hard",
    "fish-upright",
    "fish-swim",
    "hopper-stand",
    "hopper-hop",
    "humanoid-stand",
    "humanoid-walk",
    "humanoid-run",
    "manipulator-bring-ball",
    "pendulum-swingup",
    "point-mass-easy",
    "reacher-easy",
    "reacher-hard",
    "swimmer-swimmer6",
    "swimmer-swimmer15",
    "cheetah-run-hard",
)

_Parts = tuple[tuple[str, int, float], ...]


def _swimmer(bodies: int) -> _Parts:
    # Per body: two velocities in its plane (m/s, slow: a few cm/s) and its turning (rad/s).
    return (
        ("joints", bodies - 1, 2.0),
        ("to_target", 2, 1.0),
        *((("body velocity", 2, 20.0), ("body turning", 1, 1.0)) * bodies),
    )


_FINGER: _Parts = (("joint angles", 2, 0.5), ("tip", 2, 10.0), ("velocity", 3, 0.2), ("touch", 2, 2.0))
_FINGER_TURN: _Parts = (*_FINGER, ("target_position", 2, 10.0), ("dist_to_target", 1, 10.0))
_FISH: _Parts = (("linear velocity", 3, 50.0), ("angular velocity", 3, 2.0), ("joint velocity", 7, 0.5))

# Embodiment -> size of action, and what its observation holds in order: (name, numbers, scale). The scales are
# constants of the suite, not statistics of any data set: they follow from the models' units (metres, which are small
# for reacher, finger and point mass, radians, m/s, rad/s, newtons through arcsinh) and bring the root mean square of
# each part into [1/4, 4] in episodes of smooth random actions, as a test checks.
_EMBODIMENTS: dict[str, tuple[int, _Parts]] = {
    "cartpole": (1, (("position", 3, 1.0), ("velocity", 2, 0.2))),
    "acrobot": (1, (("orientations", 4, 1.0), ("velocity", 2, 0.2))),
    "walker": (
        6,
        (("orientations", 14, 1.0), ("height", 1, 2.0), ("root velocity", 3, 0.5), ("joint velocity", 6, 0.2)),
    ),
    "cheetah": (6, (("position", 8, 2.0), ("root velocity", 3, 0.5), ("joint velocity", 6, 0.2))),
    "quadruped": (
        12,
        (
            ("joint angles", 16, 2.0),
            ("joint velocity", 16, 0.2),
            ("activations", 12, 2.0),
            ("torso_velocity", 3, 2.0),
            ("torso_upright", 1, 1.0),
            ("acceleration", 3, 0.05),
            ("gyroscope", 3, 0.5),
            ("forces", 12, 0.2),
            ("torques", 12, 1.0),
        ),
    ),
    "cup": (2, (("position", 4, 5.0), ("velocity", 4, 1.0))),
    "finger-spin": (2, _FINGER),
    "finger-turn-easy": (2, _FINGER_TURN),
    "finger-turn-hard": (2, _FINGER_TURN),
    "fish-upright": (5, (("joint_angles", 7, 2.0), ("upright", 1, 1.0), *_FISH)),
    "fish-swim": (5, (("joint_angles", 7, 2.0), ("upright", 1, 1.0), ("target", 3, 5.0), *_FISH)),
    "hopper": (4, (("position", 6, 0.5), ("velocity", 7, 0.2), ("touch", 2, 0.5))),
    "humanoid": (
        21,
        (
            ("joint_angles", 21, 1.0),
            ("head_height", 1, 1.0),
            ("extremities", 12, 2.0),
            ("torso_vertical", 3, 1.0),
            ("com_velocity", 3, 2.0),
            ("root velocity", 6, 0.5),
            ("joint velocity", 21, 0.1),
        ),
    ),
    "manipulator": (
        5,
        (
            ("arm_pos", 16, 1.0),
            ("arm_vel", 8, 0.5),
            ("touch", 5, 1.0),
            ("hand_pos", 4, 1.0),
            ("object_pos", 4, 1.0),
            ("object velocity", 2, 1.0),
            ("object turning", 1, 0.05),
            ("target_pos", 4, 1.0),
        ),
    ),
    "pendulum": (1, (("orientation", 2, 1.0), ("velocity", 1, 0.2))),
    "point-mass": (2, (("position", 2, 5.0), ("velocity", 2, 20.0))),
    "reacher": (2, (("position", 2, 0.5), ("to_target", 2, 5.0), ("velocity", 2, 0.5))),
    "swimmer6": (5, _swimmer(6)),
    "swimmer15": (14, _swimmer(15)),
}

# Tasks whose body is not the first word of their name: finger and fish observe other things in other tasks
# (the finger's distance to its target is to the target's rim, and the hard target is smaller).
_EMBODIMENT_OF = {
    "finger-turn-easy": "finger-turn-easy",
    "finger-turn-hard": "finger-turn-hard",
    "finger-spin": "finger-spin",
    "fish-upright": "fish-upright",
    "fish-swim": "fish-swim",
    "swimmer-swimmer6": "swimmer6",
    "swimmer-swimmer15": "swimmer15",
    "point-mass-easy": "point-mass",
}


class DMCSuite:
    """DMControl as a ``wpt_bench.protocol.Suite``."""

    name = "dmc"
    version = 1

    def tasks(self) -> Sequence[Task]:
        """The paper's 22 tasks in the order of its table, then dm_control's other benchmarking tasks."""
        return _TASKS

    def make(self, task: Task, observation: ObservationKind) -> DMCEnv:
        """A simulator of the task; see ``DMCEnv``.

        Raises:
            UserError: if pixels are asked for and no graphics library works.
        """
        from wpt_bench.suites.dmc.env import DMCEnv

        return DMCEnv(task, observation)

    def units(self, embodiment: str) -> Units:
        """Factors that bring each number of a state observation near 1; no offsets."""
        if embodiment not in _EMBODIMENTS:
            raise UserError(f"DMControl has no embodiment {embodiment!r}: it has {', '.join(_EMBODIMENTS)}.")
        _, parts = _EMBODIMENTS[embodiment]
        scale = np.concatenate([np.full(size, scale, np.float32) for _, size, scale in parts])
        return Units(np.zeros_like(scale), scale)

    def protocol(self, task: Task, observation: ObservationKind) -> dict[str, Any]:
        """What must be equal for two scores of the task to be compared."""
        shared: dict[str, Any] = {
            "episode_length": task.episode_length,
            "action_repeat": task.action_repeat,
            "reward": "summed over frames",
            "success": "none",
        }
        if observation == "state":
            return shared | {"scale": self.units(task.embodiment).scale.tolist()}
        from wpt_bench.suites.rendering import SETTINGS

        return shared | {"camera": task.camera, "size": IMAGE_SIZE, "rendering": dict(SETTINGS)}

    def collection_jobs(self, settings: Any, scenes: Sequence[str], seed: int) -> Sequence[CollectionJob]:
        """The pieces in which the offline data of these embodiments is collected."""
        from wpt_bench.suites.dmc.collectors import collection_jobs

        return collection_jobs(self, settings, scenes, seed)

    def labels(self, dataset: Dataset, task: Task, episode: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Rewards and successes of ``task`` for one stored episode of its embodiment: two float32 ``(T + 1,)``."""
        from wpt_bench.suites.dmc.labels import labels

        return labels(dataset, task, episode)


def _task(name: str, paper: bool) -> Task:
    embodiment = _EMBODIMENT_OF.get(name) or name.partition("-")[0]
    action_dim, parts = _EMBODIMENTS[embodiment]
    return Task(
        suite="dmc",
        name=name,
        embodiment=embodiment,
        scene=embodiment,
        state_dim=sum(size for _, size, _ in parts),
        action_dim=action_dim,
        episode_length=EPISODE_LENGTH,
        action_repeat=ACTION_REPEAT,
        score="return",
        score_scale=1000.0,
        paper=paper,
        camera="2" if embodiment == "quadruped" else "0",
    )


_TASKS = tuple(_task(name, paper=True) for name in _PAPER) + tuple(_task(name, paper=False) for name in _OTHERS)
SUITE = DMCSuite()
