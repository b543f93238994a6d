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

_UP = slice(3, 6)
_GROUPS = (slice(0, 2), slice(2, 3), _UP, slice(6, 9))
_WANTED = (0.6, 0.6, 0.6, 0.2)  # how often a reward looks at velocity, height, up, turning
_TARGET = (0.5, 1.5)  # from the median of what was visited (0) to its 99th percentile (1), and beyond
_STILL = 1e-3  # a feature that spreads less than this never changes
_TILT = 0.5  # unit of the upward direction: a body that lay on its back in all first episodes can tell it still
_SAMPLE = 500  # visited rows that targets are measured against
_NOVELTY = 0.5  # most weight of curiosity in a random reward


class Trunk:
    """Reads the features of a body's trunk, of whatever embodiment.

    The trunk is the root body if that can roam (it has a free joint, or slides in two directions), else the end of the
    longest chain: cheetah, walker and quadruped have their torso, cartpole its pole, acrobot its lower arm. Velocities
    are the trunk's own, in its frame for a body with a free joint (which does not observe the world's) and in the
    world's for others; a body that cannot roam has none, as it could not keep one up. Up is the world's vertical in the
    trunk's frame.
    """

    def __init__(self, physics: Any) -> None:
        model = physics.model.ptr
        self._model, self._data = model, physics.data.ptr
        moving = np.flatnonzero(model.body_weldid)
        root = int(moving[0])
        first = model.body_jntadr[root]
        joints = model.jnt_type[first : first + model.body_jntnum[root]]
        self._free = bool((joints == mujoco.mjtJoint.mjJNT_FREE).any())
        self._roams = self._free or int((joints == mujoco.mjtJoint.mjJNT_SLIDE).sum()) > 1
        depth = np.zeros(model.nbody, int)
        for body in moving:
            depth[body] = depth[model.body_parentid[body]] + 1
        self._body = root if self._roams else int(depth.argmax())
        self._velocity = np.zeros(6)

    def read(self) -> Float32:
        """The features of this moment, float32 ``(FEATURES,)``, in metres, seconds and radians."""
        kind = mujoco.mjtObj.mjOBJ_XBODY
        mujoco.mj_objectVelocity(self._model, self._data, kind, self._body, self._velocity, int(self._free))
        turning, velocity = self._velocity[:3], self._velocity[3:5] * self._roams
        height = self._data.xipos[self._body, 2]
        up = self._data.xmat[self._body].reshape(3, 3)[2]
        return np.concatenate([velocity, [height], up, turning]).astype(np.float32)


class RandomReward:
    """Random functions of the trunk's velocity, height, orientation and turning, none of them a benchmark's reward.

    A reward is a Gaussian kernel around a random target in a random direction of feature space,
    ``exp(-((d . x - b) / s)^2) + v * c``, where ``x`` are the features in units of their standard
    deviation in the first episodes (the upward direction, which a body may not change in them, in fixed ones):

    - ``d``: each group of features (velocity, height, up, turning) is looked at or not by chance; those looked at get
      random directions and exponential weights; ``d`` has length 1.
    - ``b``, ``s``: measured along ``d`` in what the agent's own episodes have visited, ``b`` lies at 0.5 to 1.5 times
      the way from the median to the 99th percentile, and ``s`` is its distance from the median. So a reward asks for
      what is rare or new, but can be felt from where the agent is.
    - ``c`` is the reward of ``Curiosity``, which keeps the agent from settling early; ``v`` is uniform in [0, 0.5].

    No constant of any task enters. The condition is ``d``, ``b``, ``s`` and ``v``: ``dim`` numbers.
    """

    dim = FEATURES + 3

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._curiosity = Curiosity(seed)
        self._centre: Float32 | None = None

    def refresh(self, replay: Replay) -> None:
        """Looks at what the episodes so far have visited; the first call fixes the units of features."""
        rows = replay.feature[: replay.episodes].reshape(-1, FEATURES)
        if self._centre is None:
            spread = rows.std(0)
            self._varies = spread > _STILL
            spread[_UP] = _TILT
            self._centre = rows.mean(0)
            self._scale = self._varies / np.maximum(spread, _STILL)
        self._visited = (rows[self._rng.integers(len(rows), size=_SAMPLE)] - self._centre) * self._scale
        self._curiosity.refresh(replay)

    def draw(self, count: int) -> Float32:
        """Conditions of ``count`` new rewards, ``(count, dim)``."""
        rng = self._rng
        direction = rng.standard_normal((count, FEATURES)) * self._varies
        weight = rng.exponential(size=(count, len(_GROUPS))) * (rng.random((count, len(_GROUPS))) < _WANTED)
        weight += 1e-3  # where none is looked at: all
        for index, group in enumerate(_GROUPS):
            direction[:, group] = _directions(direction[:, group]) * weight[:, index, None]
        direction = _directions(direction)
        middle, far = np.quantile(self._visited @ direction.T, [0.5, 0.99], axis=0)[..., None]
        width = rng.uniform(*_TARGET, (count, 1)) * (far - middle) + 0.01
        novelty = rng.uniform(0, _NOVELTY, (count, 1))
        return np.concatenate([direction, middle + width, width, novelty], axis=1).astype(np.float32)

    def reward(self, replay: Replay, episode: NDArray[Any], step: NDArray[Any], condition: Float32) -> Float32:
        """Rewards, in [0, 1] but for the curiosity; see ``Objective.reward``."""
        feature = (replay.feature[episode, step] - self._centre) * self._scale
        target, width, novelty = (condition[..., FEATURES + place] for place in range(3))
        along = (feature * condition[..., :FEATURES]).sum(-1)
        wanted = np.exp(-np.square((along - target) / width))
        return np.asarray(wanted + novelty * self._curiosity.reward(replay, episode, step, condition), np.float32)


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


def _directions(vectors: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9))
