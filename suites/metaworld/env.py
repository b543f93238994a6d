"""A Meta-World task as a ``gymnasium.Env``: action repeat, fixed length, state or pixel observations."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from wpt_bench.protocol import IMAGE_SIZE, ObservationKind, Task
from wpt_bench.suites.metaworld.camera import Camera
from wpt_bench.suites.metaworld.simulator import Simulator


class MetaWorldEnv(gym.Env[NDArray[Any], NDArray[np.float32]]):
    """One task. An episode is a pure function of the seed given to ``reset`` and of the actions.

    A state observation, float32 ``(39,)``, is the simulator's: the current frame, the frame one *environment* step
    before (at reset: the current frame again), the goal. A pixel observation is uint8 ``(64, 64, 3)``. Actions are
    clipped to [-1, 1]: three for the hand's displacement, one for the gripper. Rewards are summed over the repeat,
    ``info["success"]`` is that of the last environment step.
    """

    def __init__(self, task: Task, observation: ObservationKind) -> None:
        self._task = task
        self._simulator = Simulator(task.name)
        self._camera = None
        if observation == "pixels":
            self._camera = Camera(self._simulator)
            self.observation_space = Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        else:
            bounds = self._simulator.bounds
            self.observation_space = Box(bounds.low.astype(np.float32), bounds.high.astype(np.float32))
        self.action_space = Box(-1.0, 1.0, (task.action_dim,), np.float32)
        self._taken = task.episode_length  # no episode has begun

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts the episode of ``seed``; without one, of the next seed drawn from the generator of the last."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**32))
        self._taken = 0
        return self._observe(self._simulator.reset(seed)), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Applies the action for ``action_repeat`` environment steps."""
        if self._taken >= self._task.episode_length:
            raise gym.error.ResetNeeded("This episode has ended: call reset before step.")
        action = np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        reward = 0.0
        for _ in range(self._task.action_repeat):
            state, frame_reward, success = self._simulator.step(action)
            reward += frame_reward
        self._taken += self._task.action_repeat
        truncated = self._taken >= self._task.episode_length
        return self._observe(state), reward, False, truncated, {"success": success}

    def close(self) -> None:
        """Frees the renderer."""
        if self._camera is not None:
            self._camera.close()
        self._simulator.close()

    def _observe(self, state: NDArray[np.float64]) -> NDArray[Any]:
        return state.astype(np.float32) if self._camera is None else self._camera.image()
