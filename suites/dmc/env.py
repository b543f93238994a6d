"""One DMControl task as a ``gymnasium.Env``, stepped directly on dm_control's physics and task.

dm_control's own ``Environment`` builds an observation every frame; here it is built once per agent step. Rewards and
observations are otherwise exactly dm_control's (tested).
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wpt_bench.protocol import IMAGE_SIZE, ObservationKind, Task
from wpt_bench.suites import rendering

with rendering.without_graphics():
    from dm_control import mujoco

    from wpt_bench.suites.dmc.simulators import Simulator, build


class DMCEnv(gym.Env[NDArray[Any], NDArray[np.float32]]):
    """A task of the suite.

    Observations are float32 ``(state_dim,)``, dm_control's observation flattened in its own order, or uint8
    ``(64, 64, 3)``. Actions are float32 ``(action_dim,)`` in [-1, 1] (clipped) and are mapped affinely to the range of
    the body's controls. ``step`` holds the action for ``action_repeat`` frames and sums their rewards. An episode is
    truncated after ``episode_length`` frames and never terminates. There is no success rule in DMControl:
    ``info["success"]`` is always 0.0.

    An episode is a pure function of the seed given to ``reset`` and the actions; without a seed the env's own generator
    goes on, as gymnasium says.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, task: Task, observation: ObservationKind) -> None:
        self.task = task
        self.simulator = build(task.name)
        self._observation: ObservationKind = observation
        self._renderer: rendering.Renderer | None = None
        self._controls = Controls(self.simulator)
        self._frames: list[NDArray[np.float64]] = []
        self._frame = 0
        self.action_space = gym.spaces.Box(-1.0, 1.0, (task.action_dim,), np.float32)
        if observation == "pixels":
            self.observation_space = gym.spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
            self._make_renderer()
        else:
            self.observation_space = gym.spaces.Box(-np.inf, np.inf, (task.state_dim,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts an episode; returns the first observation and an empty info."""
        super().reset(seed=seed)
        physics, task, _ = self.simulator
        task.random.seed(int(self.np_random.integers(2**32)))
        with physics.reset_context():
            task.initialize_episode(physics)
        self._frame = 0
        self._frames = [physics.get_state()]
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """One agent step: the observation after ``action_repeat`` frames and the sum of their rewards."""
        if not self._frames or self._frame >= self.task.episode_length:
            raise gym.error.ResetNeeded("This episode has ended: call reset before step.")
        physics, task, substeps = self.simulator
        controls = self._controls(action)
        reward = 0.0
        self._frames = []
        for _ in range(self.task.action_repeat):
            task.before_step(controls, physics)
            physics.step(substeps)
            task.after_step(physics)
            reward += float(task.get_reward(physics))
            self._frames.append(physics.get_state())
        self._frame += self.task.action_repeat
        truncated = self._frame >= self.task.episode_length
        return self._observe(), reward, False, truncated, {"success": 0.0}

    @property
    def frame_physics(self) -> NDArray[np.float64]:
        """Physics state after each frame of the last step, ``(action_repeat, physics_dim)``; ``(1, ...)`` at reset.

        The state is dm_control's ``physics.get_state()``: positions, velocities, actuator activations.
        """
        return np.stack(self._frames)

    def state(self) -> NDArray[np.float32]:
        """The state observation of this moment, float32 ``(state_dim,)``, whatever kind the env observes."""
        observation = self.simulator.task.get_observation(self.simulator.physics)
        return np.concatenate([np.ravel(value) for value in observation.values()]).astype(np.float32)

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """The picture of this moment, uint8 ``(64, 64, 3)``, whatever kind the env observes.

        Raises:
            UserError: if no graphics library works.
        """
        return self._make_renderer().render(self.simulator.physics.data.ptr, int(self.task.camera))

    def close(self) -> None:
        """Frees the renderer, if there is one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _observe(self) -> NDArray[Any]:
        return self.render() if self._observation == "pixels" else self.state()

    def _make_renderer(self) -> rendering.Renderer:
        if self._renderer is None:
            self._renderer = rendering.Renderer(self.simulator.physics.model.ptr, IMAGE_SIZE)
        return self._renderer


class Controls:
    """Maps an action in [-1, 1] to the range of the body's controls; exact where that range is [-1, 1] itself."""

    def __init__(self, simulator: Simulator) -> None:
        spec = mujoco.action_spec(simulator.physics)
        self._centre: NDArray[np.float64] = (spec.maximum + spec.minimum) / 2
        self._half: NDArray[np.float64] = (spec.maximum - spec.minimum) / 2

    def __call__(self, action: NDArray[Any]) -> NDArray[np.float64]:
        """Controls, float64 ``(action_dim,)``."""
        action = np.clip(np.asarray(action, np.float32), -1, 1).astype(np.float64)
        return self._centre + action * self._half
