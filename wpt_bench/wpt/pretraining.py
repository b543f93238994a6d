"""Reward-free pre-training: one generalist world model on every offline episode, whatever body made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wpt_bench.data.sequences import Batch, SequenceSampler
from wpt_bench.data.views import EpisodeView
from wpt_bench.profiles import Pretraining
from wpt_bench.protocol import ACTION_PAD, STATE_PAD, ObservationKind, Precision, episode_seed
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.functional import to_floats
from wpt_bench.world_model.model import WorldModel
from wpt_bench.world_model.optimizer import Optimizer
from wpt_bench.world_model.ready import compile_kernels
from wpt_bench.wpt.parts import Parts, pack, unpack

CONTEXT = 5
HORIZON = 15
"""Open-loop validation: 5 observations are seen, the next 15 predicted from the actions alone."""


class Pretrainer:
    """Trains the world model on observations and actions; an update's randomness depends on seed and index alone."""

    def __init__(
        self,
        episodes: Sequence[EpisodeView],
        size: WorldModelSize,
        settings: Pretraining,
        observation: ObservationKind,
        precision: Precision,
        seed: int,
        device: str,
    ) -> None:
        torch.manual_seed(episode_seed(seed, "agent", 0))  # initial weights
        self.world_model = WorldModel(size, observation, STATE_PAD, ACTION_PAD, precision).to(device)
        if device == "cpu" and not self.world_model.bf16:
            compile_kernels()
        self._optimizer = Optimizer(
            self.world_model.parameters(),
            learning_rate=settings.learning_rate,
            eps=settings.adam_eps,
            grad_clip=settings.grad_clip,
            weight_decay=settings.weight_decay,
        )
        self._parts: Parts = {"world_model": self.world_model, "optimizer": self._optimizer}
        self._sampler = SequenceSampler(episodes, settings.length, observation)
        self._settings, self._seed, self._device = settings, seed, device
        self.updates = 0

    def update(self) -> dict[str, float]:
        """One gradient step; returns metrics."""
        seed = episode_seed(self._seed, "agent", 1 + self.updates)
        batch = self._sampler.sample(self._settings.batch, np.random.default_rng(seed))
        generator = torch.Generator(self._device).manual_seed(seed)
        loss = self.world_model.loss(*_tensors(self.world_model, batch, self._device), generator)
        self._optimizer.step(loss.loss)
        self.updates += 1
        return to_floats(loss.metrics)

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer and the number of updates, flat."""
        return pack(self._parts) | {"updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""
        unpack(self._parts, state)
        self.updates = state["updates"]


@torch.no_grad()
def validation_loss(
    model: WorldModel, episodes: Sequence[EpisodeView], length: int, batch: int, seed: int, device: str
) -> dict[str, float]:
    """The pre-training loss and its parts on one seeded batch of held-out episodes."""
    sampler = SequenceSampler(episodes, length, model.observation)
    arrays = sampler.sample(batch, np.random.default_rng(seed))
    generator = torch.Generator(device).manual_seed(seed)
    loss = model.loss(*_tensors(model, arrays, device), generator)
    return to_floats(loss.metrics)


@dataclass(frozen=True)
class Example:
    """One held-out chunk and its open-loop prediction, in numbers a person can look at.

    Attributes:
        truth: ``(CONTEXT + HORIZON, ...)``. Pixels: frames, uint8 ``(64, 64, 3)`` each. States: float32 ``(dims,)``, of
            the real dimensions that vary in training, in the space the model predicts, in standard deviations from
            their mean over training chunks.
        predicted: the same for the ``HORIZON`` steps after the context.
        dimension: which number of the state each of the ``dims`` is, int64 ``(dims,)``; None for pixels.
    """

    truth: NDArray[Any]
    predicted: NDArray[Any]
    dimension: NDArray[np.int64] | None


def open_loop_error(
    model: WorldModel,
    held_out: Sequence[EpisodeView],
    training: Sequence[EpisodeView],
    chunks: int,
    seed: int,
    device: str,
) -> tuple[dict[str, Any], Example]:
    """Open-loop prediction on held-out episodes of one embodiment against two trivial predictors.

    After ``CONTEXT`` observations the next ``HORIZON`` are decoded from the prior. Errors are mean squared, over real
    dimensions only, in the space the model predicts (symlog of states in their units; pixels / 255). States: each
    dimension divided by its standard deviation over chunks of the embodiment's training episodes. Pictures: all by one
    deviation, the root of the mean variance, for most pixels hardly vary, and what is invisible there would decide.
    Dimensions that do not vary are left out. ``persistence`` repeats the last observation seen, ``mean`` predicts the
    training mean.

    Returns:
        ``model``, ``persistence``, ``mean``: average over the horizon; ``by_step``, ``persistence_by_step``,
        ``mean_by_step``: the same errors at each step. And as an example the first chunk drawn: the seed's choice,
        whatever its error.
    """
    rng = np.random.default_rng(seed)

    def chunk(episodes: Sequence[EpisodeView]) -> Batch:
        return SequenceSampler(episodes, CONTEXT + HORIZON, model.observation).sample(chunks, rng)

    unseen = chunk(held_out)
    observation, mask, action = _tensors(model, unseen, device)
    known = _tensors(model, chunk(training), device)[0]
    mean, std = known.mean((0, 1)), known.std((0, 1))
    # One embodiment: the mask is the same in every row.
    varies = std > 1e-4 if mask is None else (std > 1e-4) & (mask[0] > 0)
    if mask is None:
        std = std[varies].square().mean().sqrt()
    truth = observation[CONTEXT:]
    predicted = model.open_loop(observation, action, CONTEXT, torch.Generator(device).manual_seed(seed))

    def error(prediction: Tensor) -> Tensor:
        return (((prediction - truth) / std) ** 2)[:, :, varies].mean((1, 2))

    by_step = {
        "model": error(predicted),
        "persistence": error(observation[CONTEXT - 1 : CONTEXT].expand_as(truth)),
        "mean": error(mean.expand_as(truth)),
    }
    errors = {name: float(steps.mean()) for name, steps in by_step.items()} | {
        "by_step": by_step["model"].tolist(),
        "persistence_by_step": by_step["persistence"].tolist(),
        "mean_by_step": by_step["mean"].tolist(),
        "context": CONTEXT,
        "horizon": HORIZON,
    }
    if mask is None:
        return errors, Example(unseen.observation[0].copy(), _frames(predicted[:, 0]), None)

    def standardised(chunk: Tensor) -> NDArray[np.float32]:
        return ((chunk - mean) / std)[:, varies].float().cpu().numpy()

    dimension = varies.nonzero()[:, 0].cpu().numpy()
    return errors, Example(standardised(observation[:, 0]), standardised(predicted[:, 0]), dimension)


def _frames(prepared: Tensor) -> NDArray[np.uint8]:
    """Prepared pictures ``(L, 3, 64, 64)`` as one sees them, ``(L, 64, 64, 3)``: the nearest byte, clipped."""
    return ((prepared.float() + 0.5) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def _tensors(model: WorldModel, batch: Batch, device: str) -> tuple[Tensor, Tensor | None, Tensor]:
    """Prepared observations ``(L, B, ...)``, mask ``(B, state)`` or None, actions ``(L, B, action)``."""
    observation = model.prepare(torch.from_numpy(batch.observation).to(device).transpose(0, 1))
    mask = torch.from_numpy(batch.observation_mask).to(device) if model.observation == "state" else None
    return observation, mask, torch.from_numpy(batch.action).to(device).transpose(0, 1)
