"""Rewards of any task of an embodiment for a stored episode, recomputed from its physics.

The reward is taken at every frame, as online, and summed over the action repeat: at agent steps alone it would be
wrong.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wpt_bench.protocol import Task, UserError
from wpt_bench.suites import rendering
from wpt_bench.suites.dmc.env import Controls, DMCEnv

with rendering.without_graphics():
    import mujoco

if TYPE_CHECKING:
    from wpt_bench.data.store import Dataset


def labels(dataset: Dataset, task: Task, episode: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rewards and successes of ``task`` for one stored episode of its embodiment: two float32 ``(T + 1,)``.

    The first reward is 0; DMControl has no success rule, so all successes are 0.

    Raises:
        UserError: if the episode is of another embodiment or action repeat.
    """
    info = dataset.episodes[episode]
    if info.embodiment != task.embodiment:
        raise UserError(
            f"Episode {episode} is of embodiment {info.embodiment}, and {task.id} needs {task.embodiment}: "
            "choose a task of the episode's embodiment."
        )
    if info.action_repeat != task.action_repeat:
        raise UserError(
            f"The data were collected with action repeat {info.action_repeat} and {task.id} has {task.action_repeat}: "
            "collect them again."
        )
    reward = recompute(task, info.seed, np.asarray(dataset.physics(episode)), np.asarray(dataset.action(episode)))
    return reward, np.zeros_like(reward)


def recompute(task: Task, seed: int, physics: NDArray[np.float64], action: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rewards per agent step, float32 ``(T + 1,)``, the first 0.

    Args:
        task: any task of the episode's embodiment.
        seed: what the episode's ``env.reset`` got; goals that live in the model, as reacher's, come from it.
        physics: float64 ``(T * action_repeat + 1, physics_dim)``, the state at reset and after every frame.
        action: float32 ``(T + 1, action_dim)``; ``action[t]`` led to agent step ``t``.
    """
    env = _env(task)
    env.reset(seed=seed)
    simulator, controls = env.simulator, Controls(env.simulator)
    model, data = simulator.physics.model, simulator.physics.data
    nq, nv = model.nq, model.nv
    repeat = task.action_repeat
    reward = np.zeros(len(action), np.float32)
    # Online, a frame ends with mj_step1, so this is what its reward saw. No reward reads contact forces.
    with model.disable("constraint"):
        for t in range(1, len(action)):
            total = 0.0
            simulator.task.before_step(controls(action[t]), simulator.physics)
            for row in physics[(t - 1) * repeat + 1 : t * repeat + 1]:
                data.qpos[:] = row[:nq]
                data.qvel[:] = row[nq : nq + nv]
                data.act[:] = row[nq + nv :]
                mujoco.mj_step1(model.ptr, data.ptr)
                total += float(simulator.task.get_reward(simulator.physics))
            reward[t] = total
    return reward


@functools.lru_cache(maxsize=8)
def _env(task: Task) -> DMCEnv:
    """A simulator per task: an episode depends on its seed only, so it can serve any number of them."""
    return DMCEnv(task, "state")
