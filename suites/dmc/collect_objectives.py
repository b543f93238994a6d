"""What the trained collectors of DMControl want: nothing that is a benchmark's reward.

``RandomReward`` is a family of random functions of how the body's trunk moves, how high it is and which way is up;
``Curiosity`` is the error of a model that learns to predict the next state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from wpt_bench.suites import rendering
from wpt_bench.suites.dmc.collect_agent import Float32, Replay, apply_network, make_network

with rendering.without_graphics():
    import mujoco

FEATURES = 9
"""Numbers that describe the trunk: horizontal velocity (2), height (1), the upward direction (3), turning (3)."""

_VELOCITY, _HEIGHT, _UP, _TURNING = slice(0, 2), slice(2, 3), slice(3, 6), slice(6, 9)
_GROUPS = (_VELOCITY, _HEIGHT, _UP, _TURNING)
_WANTED = (0.6, 0.6, 0.6, 0.2)  # how often a reward looks at each group
_WIDTH = 0.5  # units of a feature over which a reward falls by a factor e
_REACH = 2.0  # fastest target, in multiples of the 90th percentile of what was visited
_NOVELTY = 0.5  # most weight of curiosity in a random reward


class Trunk:
    """Reads the features of a body's trunk, of whatever embodiment.

    The trunk is the root body if it can leave its place (it has a free joint, or slides vertically), else the end of
    the longest chain: cheetah, walker and quadruped have their torso, cartpole its pole, acrobot its lower arm.
    Velocities are the trunk's own, in its frame for a body with a free joint (which does not observe the world's) and
    in the world's for others; up is the world's vertical in the trunk's frame.
    """

    def __init__(self, physics: Any) -> None:
        model = physics.model.ptr
        self._model, self._data = model, physics.data.ptr
        moving = np.flatnonzero(model.body_weldid)
        root = int(moving[0])
        joints = model.body_jntadr[root] + np.arange(model.body_jntnum[root])
        self._free = bool((model.jnt_type[joints] == mujoco.mjtJoint.mjJNT_FREE).any())
        slides = (model.jnt_type[joints] == mujoco.mjtJoint.mjJNT_SLIDE) & (np.abs(model.jnt_axis[joints, 2]) > 0.5)
        depth = np.zeros(model.nbody, int)
        for body in moving:
            depth[body] = depth[model.body_parentid[body]] + 1
        self._body = root if self._free or slides.any() else int(depth.argmax())
        self._velocity = np.zeros(6)

    def read(self) -> Float32:
        """The features of this moment, float32 ``(FEATURES,)``, in metres, seconds and radians."""
        kind = mujoco.mjtObj.mjOBJ_XBODY
        mujoco.mj_objectVelocity(self._model, self._data, kind, self._body, self._velocity, int(self._free))
        turning, velocity = self._velocity[:3], self._velocity[3:5]
        height = self._data.xipos[self._body, 2]
        up = self._data.xmat[self._body].reshape(3, 3)[2]
        return np.concatenate([velocity, [height], up, turning]).astype(np.float32)


class RandomReward:
    """Random functions of the trunk's velocity, height, orientation and turning, none of them a benchmark's reward.

    A reward is ``sum over groups g of w_g exp(-|x_g - t_g| / s_g)`` plus ``v`` times the reward of ``Curiosity``, which
    keeps the agent from settling for the half of a reward that is easy to get. The groups are horizontal velocity,
    height, up and turning:

    - weights ``w``: each group is wanted or not by chance; the weights of those wanted are exponential and sum to 1.
    - targets ``t``: within, and for speeds beyond, what the agent's own episodes have visited. A velocity (a turning)
      in a random direction, up to twice its 90th percentile; a height uniform between the lowest and the highest; a
      direction of up that was visited, or a random one, by a coin.
    - widths ``s``: half a unit of the feature, where units are the spreads seen in the first episodes; for velocity and
      turning they grow with the target.
    - ``v``: uniform in [0, 0.5].

    No constant of any task enters. The condition is ``w``, ``v`` and ``t`` in those units: ``dim`` numbers.
    """

    dim = len(_GROUPS) + 1 + FEATURES

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._centre = np.zeros(FEATURES, np.float32)
        self._scale: Float32 | None = None
        self._curiosity = Curiosity(seed)

    def refresh(self, replay: Replay) -> None:
        """Measures what the episodes so far have visited; the first call fixes the units of features."""
        rows = replay.feature[: replay.episodes].reshape(-1, FEATURES)
        if self._scale is None:
            self._centre[_HEIGHT] = rows[:, _HEIGHT].mean()
            self._scale = np.ones(FEATURES, np.float32)
            self._scale[_HEIGHT] = 2 * rows[:, _HEIGHT].std()
            for group in (_VELOCITY, _TURNING):
                self._scale[group] = np.sqrt(np.square(rows[:, group]).sum(1).mean())
            self._scale += 0.01
        self._curiosity.refresh(replay)
        self._visited = (rows - self._centre) / self._scale
        self._fast = np.quantile(np.abs(self._visited), 0.9, axis=0)
        self._low, self._high = np.quantile(self._visited[:, _HEIGHT], [0.01, 0.99])

    def draw(self, count: int) -> Float32:
        """Conditions of ``count`` new rewards, ``(count, dim)``."""
        rng = self._rng
        weight = rng.exponential(size=(count, len(_GROUPS))) * (rng.random((count, len(_GROUPS))) < _WANTED)
        weight[:, 0] += 1e-3  # where no group is wanted: velocity
        target = np.empty((count, FEATURES))
        for group in (_VELOCITY, _TURNING):
            speed = rng.uniform(0, _REACH, (count, 1)) * self._fast[group]
            target[:, group] = _directions(rng.standard_normal(speed.shape)) * speed
        target[:, _HEIGHT] = rng.uniform(self._low, self._high, (count, 1))
        been = self._visited[rng.integers(len(self._visited), size=count), _UP]
        anywhere = _directions(rng.standard_normal((count, 3)) * self._fast[_UP])
        target[:, _UP] = np.where(rng.random((count, 1)) < 0.5, been, anywhere)
        novelty = rng.uniform(0, _NOVELTY, (count, 1))
        return np.concatenate([weight / weight.sum(1, keepdims=True), novelty, target], axis=1).astype(np.float32)

    def reward(self, replay: Replay, episode: NDArray[Any], step: NDArray[Any], condition: Float32) -> Float32:
        """Rewards, in [0, 1] but for the curiosity; see ``Objective.reward``."""
        feature = (replay.feature[episode, step] - self._centre) / self._scale
        weight, target = condition[..., : len(_GROUPS)], condition[..., len(_GROUPS) + 1 :]
        total = condition[..., len(_GROUPS)] * self._curiosity.reward(replay, episode, step, condition)
        for index, group in enumerate(_GROUPS):
            distance = _length(feature[..., group] - target[..., group])
            width = _WIDTH * (1 + _length(target[..., group])) if group in (_VELOCITY, _TURNING) else _WIDTH
            total = total + weight[..., index] * np.exp(-distance / width)
        return total


class Curiosity:
    """The error of a one-layer model that predicts how the state changes (Pathak et al. 2017; on states themselves, as
    Burda et al. 2018 find good). It learns as the agent does, and the rewards of all replayed transitions follow."""

    dim = 0
    _UPDATES, _BATCH, _HIDDEN, _MOST = 100, 256, 128, 5.0

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._model: list[torch.Tensor] = []

    def refresh(self, replay: Replay) -> None:
        """Trains the model on the episodes so far, and takes its errors, relative to their mean, as rewards."""
        state, action = replay.state[: replay.episodes], replay.action[: replay.episodes]
        inputs = torch.from_numpy(np.concatenate([state[:, :-1], action[:, 1:]], axis=2)).flatten(0, 1)
        change = torch.from_numpy(state[:, 1:] - state[:, :-1]).flatten(0, 1)
        if not self._model:
            self._model = make_network(1, [inputs.shape[1], self._HIDDEN, change.shape[1]], self._generator)
            self._optimizer = torch.optim.Adam(self._model, lr=1e-3, fused=True)
        for _ in range(self._UPDATES):
            rows = torch.randint(len(inputs), (self._BATCH,), generator=self._generator)
            loss = (apply_network(self._model, inputs[rows][None])[0] - change[rows]).square().mean()
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        with torch.no_grad():
            error = (apply_network(self._model, inputs[None])[0] - change).square().mean(1)
        reward = (error / error.mean()).clamp_(max=self._MOST).reshape(replay.episodes, -1)
        self._reward = np.pad(reward.numpy(), ((0, 0), (1, 0)))

    def draw(self, count: int) -> Float32:
        """There is one reward: no condition, ``(count, 0)``."""
        return np.zeros((count, 0), np.float32)

    def reward(self, replay: Replay, episode: NDArray[Any], step: NDArray[Any], condition: Float32) -> Float32:
        """Rewards of mean 1 or less; see ``Objective.reward``."""
        return self._reward[episode, step]


def _length(vectors: NDArray[Any]) -> NDArray[Any]:
    return np.sqrt(np.square(vectors).sum(-1))


def _directions(vectors: NDArray[Any]) -> NDArray[Any]:
    return vectors / (_length(vectors)[..., None] + 1e-9)
