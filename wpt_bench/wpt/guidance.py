"""Execution guidance: the behaviour-cloned prior, and the schedule by which it acts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import ACTION_PAD, IMAGE_SIZE, STATE_PAD, ObservationKind, Progress, Units
from wpt_bench.world_model.convolution import ConvEncoder, scale_frames
from wpt_bench.world_model.functional import symlog
from wpt_bench.world_model.nets import initialise, mlp
from wpt_bench.world_model.optimizer import Optimizer
from wpt_bench.wpt.parts import padded

AVERAGED = 0.002
"""Share of the weights that enters the prior's average with each update: some 500 updates count."""
SHIFT = 3
"""Pixels of the random shift in behaviour cloning (authors' code)."""


@dataclass(frozen=True)
class Window:
    """Agent steps of one episode in which the cloned prior acts: ``start <= t < stop``."""

    start: int
    stop: int


def guidance_probability(env_step: int, budget: int, share: float) -> float:
    """Probability that an episode has a guided window: linear from 1 to 0 over ``share`` of the budget."""
    return max(0.0, 1.0 - env_step / (share * budget)) if share > 0 else 0.0


def draw_window(steps: int, probability: float, rng: np.random.Generator) -> Window:
    """A random window, or an empty one with probability ``1 - probability``.

    Its length is uniform over 10%, 20%, ..., 100% of the episode's agent steps, its start uniform over those that fit
    (authors' code).
    """
    if rng.random() >= probability:
        return Window(0, 0)
    length = round(steps * int(rng.integers(1, 11)) / 10)
    start = int(rng.integers(0, steps - length + 1))
    return Window(start, start + length)


class ClonedPrior(nn.Module):
    """A deterministic policy cloned from retrieved episodes by masked squared error.

    It sees the state (which holds velocities), or the last three frames.
    """

    def __init__(self, observation: ObservationKind, units: int, depth: int) -> None:
        super().__init__()
        self.observation = observation
        self.frames = 3 if observation == "pixels" else 1
        self.encoder = ConvEncoder(depth, self.frames) if observation == "pixels" else None
        inputs = self.encoder.outputs if self.encoder else STATE_PAD
        self.head = mlp(inputs, units, 2, ACTION_PAD, first=self.encoder is None)
        initialise(self)

    def forward(self, observation: Tensor) -> Tensor:
        """Padded actions, not clamped.

        Args:
            observation: scaled, padded states ``(N, STATE_PAD)``, or uint8 frames ``(N, 3, 64, 64, 3)``, oldest first.
        """
        if self.encoder is None:
            return self.head(symlog(observation))
        return self.head(self.encoder(scale_frames(observation.permute(0, 2, 3, 1, 4).flatten(3))))

    @torch.no_grad()
    def act(self, frames: NDArray[Any], units: Units) -> Tensor:
        """Padded actions in [-1, 1] for the last observations, ``(N, self.frames, ...)`` as the simulator gave them."""
        seen = frames if self.observation == "pixels" else padded(frames[:, 0], units)
        return self(torch.from_numpy(seen).to(next(self.parameters()).device)).clamp(-1, 1)

    def stack(self, frames: NDArray[Any] | None, observation: NDArray[Any]) -> NDArray[Any]:
        """The last ``self.frames`` observations ``(N, self.frames, ...)``; an episode's first one is repeated."""
        if frames is None or self.frames == 1:
            return np.repeat(observation[:, None], self.frames, axis=1)
        return np.concatenate([frames[:, 1:], observation[:, None]], axis=1)


def clone_prior(
    prior: ClonedPrior,
    episodes: Sequence[EpisodeView],
    *,
    updates: int,
    batch: int,
    learning_rate: float,
    seed: int,
    progress: Progress,
) -> float:
    """Trains the prior on all (observation, next action) pairs of the episodes; returns its last training loss.

    The loss is the squared error summed over real action dimensions. What acts is an average of the weights along the
    way: behind noisy actions and a constant step size the last weights are one draw of many, and differ in success from
    nearly all to a third of the episodes (the authors take the last, after 150,000 updates with a tenth of the step).
    """
    optimizer = Optimizer(
        prior.parameters(), learning_rate=learning_rate, eps=1e-8, grad_clip=float("inf"), weight_decay=0.0
    )
    rng = np.random.default_rng(seed)
    device = next(prior.parameters()).device
    sample = _pixel_sampler(episodes) if prior.observation == "pixels" else _state_sampler(episodes)
    loss = torch.zeros(())
    weights: list[Tensor] = list(prior.parameters())
    average = [weight.detach().clone() for weight in weights]
    for update in range(updates):
        observation, action, mask = (torch.from_numpy(array).to(device) for array in sample(batch, rng))
        loss = (((prior(observation) - action) * mask) ** 2).sum(-1).mean()
        optimizer.step(loss)
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, max(AVERAGED, 1 / (update + 1)))  # a plain mean at first
        if update % 50 == 0:
            progress(update / updates, "cloning the prior")
    with torch.no_grad():
        torch._foreach_copy_(weights, average)
    return float(loss.detach())


Sample = Callable[[int, np.random.Generator], tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]]


def _state_sampler(episodes: Sequence[EpisodeView]) -> Sample:
    """States are small: all pairs are padded and joined once."""
    pairs = sum(len(episode.action) - 1 for episode in episodes)
    observations = np.zeros((pairs, STATE_PAD), np.float32)
    actions = np.zeros((pairs, ACTION_PAD), np.float32)
    masks = np.zeros((pairs, ACTION_PAD), np.float32)
    stop = 0
    for episode in episodes:
        start, stop = stop, stop + len(episode.action) - 1
        observations[start:stop, : episode.observation.shape[1]] = episode.units.apply(episode.observation[:-1])
        actions[start:stop, : episode.action_dim] = episode.action[1:]
        masks[start:stop, : episode.action_dim] = 1.0

    def sample(batch: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        rows = rng.integers(0, pairs, batch)
        return observations[rows], actions[rows], masks[rows]

    return sample


def _pixel_sampler(episodes: Sequence[EpisodeView]) -> Sample:
    """Frames stay in the memory map; each triple is shifted at random by up to ``SHIFT`` pixels, edges repeated."""

    def sample(batch: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        frames = np.empty((batch, 3, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        actions = np.zeros((batch, ACTION_PAD), np.float32)
        masks = np.zeros((batch, ACTION_PAD), np.float32)
        for row in range(batch):
            episode = episodes[int(rng.integers(len(episodes)))]
            step = int(rng.integers(0, len(episode.action) - 1))
            stack = episode.observation[np.maximum(np.arange(step - 2, step + 1), 0)]
            padded = np.pad(stack, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
            down, right = rng.integers(0, 2 * SHIFT + 1, 2)
            frames[row] = padded[:, down : down + IMAGE_SIZE, right : right + IMAGE_SIZE]
            actions[row, : episode.action_dim] = episode.action[step + 1]
            masks[row, : episode.action_dim] = 1.0
        return frames, actions, masks

    return sample
