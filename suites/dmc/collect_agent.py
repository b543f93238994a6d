"""The learner behind the trained collectors: a small TD3 agent, its replay of whole episodes, and pink noise.

TD3 (Fujimoto et al. 2018) with a layer-normalised pair of critics in batched matrices, three-step returns and pink
exploration noise (Eberhard et al. 2023). No reward is stored: an ``Objective`` computes it for replayed transitions, so
that all experience serves every condition (universal value functions, Schaul et al. 2015). Sized for one core: several
hundred updates a second.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Float32 = NDArray[np.float32]

_HIDDEN = 128
_BATCH = 128
_LEARNING_RATE = 1e-3
_DISCOUNT = 0.98
_RETURN_STEPS = 3
_TARGET_RATE = 0.01
_POLICY_DELAY = 2
_SMOOTHING = 0.2
_SATURATION = 1e-3  # weight of the penalty that keeps the actor's tanh from saturating
_OWN_SHARE = 0.5  # of a batch: transitions that keep the condition under which they were collected
_CONDITIONS = 256  # fresh conditions among the batches drawn at once
_CHUNK = 50  # updates whose batches are drawn at once


def pink_noise(rng: np.random.Generator, steps: int, dims: int) -> NDArray[np.float64]:
    """Gaussian noise ``(steps, dims)`` of unit variance whose power falls as one over its frequency.

    Its constant part is as strong as its lowest frequency, so that an episode also has a random mean.
    """
    length = 2 * (steps // 2 + 1)
    frequency = np.fft.rfftfreq(length)
    frequency[0] = frequency[1]
    amplitude = frequency**-0.5
    amplitude[[0, -1]] *= np.sqrt(2)  # real coefficients: all their power in one part
    real, imaginary = rng.standard_normal((2, len(frequency), dims)) * amplitude[:, None]
    # A complex coefficient of variance 2a^2 and its mirror image add 4a^2 to the variance, a real one its own square.
    variance = (4 * np.sum(amplitude[1:-1] ** 2) + np.sum(amplitude[[0, -1]] ** 2)) / length**2
    return np.asarray(np.fft.irfft(real + 1j * imaginary, length, axis=0)[:steps] / np.sqrt(variance))


class Replay:
    """Every episode of a training, all of ``steps`` agent steps, in the order they were run.

    Attributes:
        state, action, feature: float32 (capacity, steps + 1, ...); ``action[:, t]`` led to ``state[:, t]``. States are
            scaled; features are what the objective looks at.
        condition: float32 (capacity, ...), under which each episode was collected.
        episodes: how many are filled.
    """

    def __init__(self, capacity: int, steps: int, *, state: int, action: int, feature: int, condition: int) -> None:
        self.state = np.zeros((capacity, steps + 1, state), np.float32)
        self.action = np.zeros((capacity, steps + 1, action), np.float32)
        self.feature = np.zeros((capacity, steps + 1, feature), np.float32)
        self.condition = np.zeros((capacity, condition), np.float32)
        self.steps = steps
        self.episodes = 0

    def add(self, state: Float32, action: Float32, feature: Float32, condition: Float32) -> None:
        """Appends one episode."""
        row = self.episodes
        self.state[row], self.action[row], self.feature[row], self.condition[row] = state, action, feature, condition
        self.episodes += 1


class Objective(Protocol):
    """What a trained collector wants: a family of rewards, each named by a condition of ``dim`` numbers."""

    dim: int

    def refresh(self, replay: Replay) -> None:
        """Takes note of the episodes run so far; called before every round of learning."""
        ...

    def draw(self, count: int) -> Float32:
        """Fresh conditions, ``(count, dim)``."""
        ...

    def reward(self, replay: Replay, episode: NDArray[Any], step: NDArray[Any], condition: Float32) -> Float32:
        """Rewards for arriving at these rows of the replay under ``condition``, in the shape the three broadcast to."""
        ...


class Learner:
    """TD3 whose actor and critics see the condition beside the state; all its randomness comes from ``seed``."""

    def __init__(self, replay: Replay, objective: Objective, seed: int) -> None:
        self._replay, self._objective = replay, objective
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        inputs, action = replay.state.shape[-1] + objective.dim, replay.action.shape[-1]
        self._actor = make_network(1, [inputs, _HIDDEN, _HIDDEN, action], self._generator)
        self._critics = make_network(2, [inputs + action, _HIDDEN, _HIDDEN, 1], self._generator)
        self._target = [weight.detach().clone() for weight in self._critics]
        self._actor_optimizer = torch.optim.Adam(self._actor, lr=_LEARNING_RATE, fused=True)
        self._critic_optimizer = torch.optim.Adam(self._critics, lr=_LEARNING_RATE, fused=True)
        self._updates = 0

    def act(self, state: Float32, condition: Float32) -> Float32:
        """The actor's action ``(action_dim,)`` for one scaled state."""
        with torch.no_grad():
            inputs = torch.from_numpy(np.concatenate([state, condition]))[None, None]
            return np.asarray(torch.tanh(apply_network(self._actor, inputs))[0, 0].numpy())

    def learn(self, updates: int) -> None:
        """So many updates of actor and critics on replayed transitions, a share of them under fresh conditions."""
        for done in range(0, updates, _CHUNK):
            count = min(updates - done, _CHUNK)
            batches = (torch.from_numpy(array).split(_BATCH) for array in self._sample(count * _BATCH))
            for batch in zip(*batches, strict=True):
                self._update(*batch)

    def _sample(self, count: int) -> tuple[Float32, Float32, Float32, Float32]:
        """States, actions, discounted sums of the next rewards, and the states after them."""
        replay, rng = self._replay, self._rng
        episode = rng.integers(replay.episodes, size=count)
        step = rng.integers(replay.steps - _RETURN_STEPS + 1, size=count)
        own = rng.random((count, 1)) < _OWN_SHARE
        condition = np.where(
            own, replay.condition[episode], self._objective.draw(_CONDITIONS)[rng.integers(_CONDITIONS, size=count)]
        )
        following = step[:, None] + 1 + np.arange(_RETURN_STEPS)
        reward = self._objective.reward(replay, episode[:, None], following, condition[:, None])
        summed = reward @ np.float32(_DISCOUNT ** np.arange(_RETURN_STEPS))
        start = np.concatenate([replay.state[episode, step], condition], axis=1)
        end = np.concatenate([replay.state[episode, step + _RETURN_STEPS], condition], axis=1)
        return start, replay.action[episode, step + 1], summed, end

    def _update(self, start: Tensor, action: Tensor, reward: Tensor, end: Tensor) -> None:
        with torch.no_grad():
            noise = torch.randn(action.shape, generator=self._generator).mul_(_SMOOTHING).clamp_(-0.5, 0.5)
            next_action = torch.tanh(apply_network(self._actor, end[None])[0]).add_(noise).clamp_(-1, 1)
            goal = reward + _DISCOUNT**_RETURN_STEPS * _values(self._target, end, next_action).amin(0)
        loss = (_values(self._critics, start, action) - goal).square().mean()
        self._critic_optimizer.zero_grad()
        loss.backward()
        self._critic_optimizer.step()
        weights = [weight.detach() for weight in self._critics]
        if self._updates % _POLICY_DELAY == 0:
            raw = apply_network(self._actor, start[None])[0]
            loss = _SATURATION * raw.square().mean() - _values(weights, start, torch.tanh(raw)).mean()
            self._actor_optimizer.zero_grad()
            loss.backward()
            self._actor_optimizer.step()
        torch._foreach_lerp_(self._target, weights, _TARGET_RATE)
        self._updates += 1


def make_network(members: int, sizes: list[int], generator: torch.Generator) -> list[Tensor]:
    """Weights and biases of ``members`` networks of these layer sizes, each layer's in one batched tensor."""
    layers = []
    for inputs, outputs in pairwise(sizes):
        weight = (torch.rand(members, inputs, outputs, generator=generator) * 2 - 1) * inputs**-0.5
        layers += [weight.requires_grad_(), torch.zeros(members, 1, outputs, requires_grad=True)]
    return layers


def apply_network(layers: list[Tensor], inputs: Tensor, *, normalise: bool = False) -> Tensor:
    """Outputs ``(members, batch, ...)``; ReLU between layers, the first hidden layer normalised if asked for."""
    hidden = torch.baddbmm(layers[1], inputs, layers[0])
    for index in range(2, len(layers), 2):
        if normalise and index == 2:
            hidden = F.layer_norm(hidden, hidden.shape[-1:])
        hidden = torch.baddbmm(layers[index + 1], torch.relu(hidden), layers[index])
    return hidden


def _values(critics: list[Tensor], state: Tensor, action: Tensor) -> Tensor:
    inputs = torch.cat([state, action], dim=1).expand(2, -1, -1)
    return apply_network(critics, inputs, normalise=True)[..., 0]
