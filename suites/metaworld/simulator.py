"""Meta-World's simulator, made a pure function of a seed and the actions.

Meta-World's own ``reset`` ignores its seed, draws the goal from a global generator, keeps body positions of the episode
before in the model, and returns a first observation computed before the objects were moved. Here an episode starts from
a saved copy of the freshly built simulator, its goal comes from the seed alone, and the first observation is rebuilt
from the simulator's state.
"""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from wpt_bench.suites.rendering import without_graphics

with without_graphics():
    import mujoco
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

REWARD_VERSION = "v2"
"""Meta-World's dense reward; its V3 environments name it so. One environment step is worth 0 to 10."""


class Simulator:
    """One Meta-World task with observable goal, one environment step at a time.

    Observations are Meta-World's own, float64 ``(39,)``: the current frame (18), the frame one environment step before
    (18), the goal (3). At reset there is no frame before, and the current one stands in both places.

    Attributes:
        model, data: MuJoCo's, for rendering; the caller must not change what moves.
        bounds: Meta-World's observation space; observations are clipped to it, as its ``step`` does.
    """

    def __init__(self, name: str) -> None:
        env = ALL_V3_ENVIRONMENTS[f"{name}-v3"](reward_function_version=REWARD_VERSION)
        # What Meta-World's set_task does, without its pickled task: the goal observable and drawn at every reset.
        env._partially_observable = False
        del env.sawyer_observation_space  # a cached property, computed while the goal was hidden
        env._set_task_called = True
        env._freeze_rand_vec = False
        env.seeded_rand_vec = True
        self._env = env
        self.model: mujoco.MjModel = env.model
        self.data: mujoco.MjData = env.data
        self.bounds: Box = env.sawyer_observation_space
        self._attributes = dict(env.__dict__)
        self._body_pos = self.model.body_pos.copy()
        self._site_pos = self.model.site_pos.copy()

    def reset(self, seed: int) -> NDArray[np.float64]:
        """Starts the episode of ``seed`` and returns its first observation."""
        env = self._env
        env.__dict__.clear()
        env.__dict__.update(self._attributes)
        self.model.body_pos[:] = self._body_pos
        self.model.site_pos[:] = self._site_pos
        env.seed(seed)
        # Twice with the same draw, as Meta-World resets in its own benchmarks: some tasks read for their reward where
        # objects are before they have moved them, and only the second pass finds them in place.
        for frozen in (False, True):
            env._freeze_rand_vec = frozen
            mujoco.mj_resetData(self.model, self.data)
            env.reset_model()
        mujoco.mj_forward(self.model, self.data)
        frame = env._get_curr_obs_combined_no_goal()
        env._prev_obs = frame
        observation = np.concatenate([frame, frame, env._get_pos_goal()])
        return np.clip(observation, self.bounds.low, self.bounds.high)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, float]:
        """One environment step: the next observation, its reward, and whether it succeeds (0.0 or 1.0)."""
        observation, reward, _, _, info = self._env.step(action)
        return observation, float(reward), float(info["success"])

    def close(self) -> None:
        """Frees what Meta-World opened."""
        self._env.close()
