"""Numbers that explain a run to people: what model, reward head, critic and retrieval make of evaluation episodes.

No replay holds these episodes. Nothing is learned here and no random stream of the run is touched, so that a run is the
same with and without. Of every evaluation episode:

- ``open_loop``: squared error of open-loop prediction as a share of the episode's variance (``unexplained``), beside
  ``open_loop_persistence``, that of repeating the last observation seen;
- ``reward_error``: mean absolute error of the reward head per agent step, beside ``reward_error_mean``, that of always
  predicting the episode's mean reward;
- ``value``, ``value_realised``, ``value_bias``: the critic's mean prediction along the episode, the mean discounted
  return that followed, and the first minus the second;
- ``retrieved_distance``: how far the episode's states lie from those of the retrieved episodes, where 1 is as far as
  those lie from one another (``Neighbours``); of methods that retrieve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import DISCOUNT, AgentContext, Units, episode_seed
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.functional import lambda_return, symlog
from wpt_bench.world_model.losses import two_hot_mean
from wpt_bench.world_model.model import WorldModel
from wpt_bench.world_model.rssm import Latent
from wpt_bench.wpt.pretraining import CONTEXT, HORIZON
from wpt_bench.wpt.retrieval import TOGETHER, FrozenEncoder

CHUNKS = 8
"""Open-loop predictions of each episode."""
STATES, REFERENCE = 64, 4096
"""States of each episode that distances are taken of, and states of all retrieved episodes, at most (but one each)."""
TINY = 1e-8
"""What a scale is at least: where nothing moves, numbers are large and not infinite."""


@torch.no_grad()
def learned(
    model: WorldModel,
    reward_head: nn.Module,
    critic: nn.Module,
    observation: Tensor,
    action: Tensor,
    reward: Tensor,
    state_dim: int,
    seed: int,
) -> dict[str, Tensor]:
    """What the agent's networks make of N episodes of T agent steps.

    Args:
        model: the world model. reward_head, critic: two-hot heads on its latent states.
        observation: scaled, padded states or uint8 pictures ``(T + 1, N, ...)``, on any device.
        action: padded float ``(T + 1, N, action)``; row t led to observation t.
        reward: came with the observation, float ``(T + 1, N)``.
        state_dim: real numbers of a padded state.
        seed: of latent samples and of the chunks that are predicted.

    Returns:
        Float ``(N,)`` each; see the module.
    """
    generator = torch.Generator(action.device).manual_seed(seed)
    latents = _posteriors(model, observation, action, generator).feature
    predicted = two_hot_mean(reward_head(latents[1:]))
    return (
        _open_loop(model, observation, action, state_dim, seed)
        | reward_errors(predicted, reward[1:])
        | values(two_hot_mean(critic(latents)), reward[1:])
    )


def unexplained(predicted: Tensor, truth: Tensor, variance: Tensor) -> Tensor:
    """Squared error as a share of variance: 1 is what predicting the episode's mean would come to on average.

    All dimensions are pooled: single ones may hardly move within an episode, and an error in units of their own
    deviation would be theirs alone.

    Args:
        predicted, truth: float ``(horizon, chunks, N, ...)``.
        variance: of each episode, summed over all its dimensions, float ``(N,)``.

    Returns:
        Float ``(N,)``: mean over steps and chunks.
    """
    return ((predicted - truth) ** 2).flatten(3).sum(-1).mean((0, 1)) / variance.clamp(min=TINY)


def reward_errors(predicted: Tensor, received: Tensor) -> dict[str, Tensor]:
    """Mean absolute errors over agent steps of rewards ``(T, N)``, and of predicting each episode's mean: ``(N,)``."""
    return {
        "reward_error": (predicted - received).abs().mean(0),
        "reward_error_mean": (received - received.mean(0)).abs().mean(0),
    }


def values(value: Tensor, reward: Tensor) -> dict[str, Tensor]:
    """Predicted values against G_t = r_{t+1} + discount G_{t+1}, with G_T = v_T: the critic's, since time ran out.

    Args:
        value: the critic's predictions at all observations, float ``(T + 1, N)``.
        reward: of the T agent steps between them, float ``(T, N)``.

    Returns:
        Means over the first T observations, float ``(N,)`` each.
    """
    predicted = value[:-1].mean(0)
    realised = lambda_return(reward, value[1:], DISCOUNT, 1.0).mean(0)
    return {"value": predicted, "value_realised": realised, "value_bias": predicted - realised}


def _posteriors(model: WorldModel, observation: Tensor, action: Tensor, generator: torch.Generator) -> Latent:
    """Latent states along whole episodes."""
    pieces = observation.split(TOGETHER)  # pictures are large once they are floats
    embedding = torch.cat([model.encode(model.prepare(piece.to(action.device))) for piece in pieces])
    noise = model.rssm.noise(tuple(action.shape[:2]), generator)
    return model.rssm.observe(embedding, action, noise)[0]


def _open_loop(model: WorldModel, observation: Tensor, action: Tensor, state_dim: int, seed: int) -> dict[str, Tensor]:
    """Errors of predictions from ``CHUNKS`` places of each episode, seen and predicted as in pre-training."""
    rows, count = action.shape[:2]
    context = min(CONTEXT, rows - 1)
    length = context + min(HORIZON, rows - context)
    rng = np.random.default_rng(seed)
    starts = torch.from_numpy(rng.integers(0, rows - length + 1, CHUNKS * count))
    steps, whose = starts + torch.arange(length)[:, None], torch.arange(count).repeat(CHUNKS)

    def real(prepared: Tensor) -> Tensor:
        return prepared[..., :state_dim] if model.observation == "state" else prepared.float()

    seen = model.prepare(observation[steps, whose].to(action.device))
    generator = torch.Generator(action.device).manual_seed(seed)
    predicted = model.open_loop(seen, action[steps, whose], context, generator)
    truth = seen[context:]
    variance = torch.stack(
        [real(model.prepare(episode.to(action.device))).var(0, correction=0).sum() for episode in observation.unbind(1)]
    )

    def error(prediction: Tensor) -> Tensor:
        by_episode = [real(part).unflatten(1, (CHUNKS, count)) for part in (prediction, truth)]
        return unexplained(by_episode[0], by_episode[1], variance)

    return {
        "open_loop": error(predicted),
        "open_loop_persistence": error(seen[context - 1 : context].expand_as(truth)),
    }


class Neighbours:
    """How near to the retrieved episodes others are, by some observations of each episode that stand for all of it.

    States are compared as the model sees them, symlog of them in their units: features of the encoder are normalised,
    so that they hardly tell far from farther. Pictures are compared by the features of the pre-trained encoder, in
    which they were retrieved; it is frozen, so that distances mean the same while the run's own encoder learns.

    Args:
        context: of the run, with the pre-trained weights.
        size: of the pre-trained world model.
        episodes: those that were retrieved.
    """

    def __init__(self, context: AgentContext, size: WorldModelSize, episodes: Sequence[EpisodeView]) -> None:
        self._encoder: FrozenEncoder | None = None
        if context.observation == "pixels":
            with torch.random.fork_rng(devices=()):  # a new model draws weights before it loads others
                self._encoder = FrozenEncoder(context, size)
        self._units, self._seed = context.units, episode_seed(context.seed, "diagnosis", 0)
        states = min(STATES, max(1, REFERENCE // len(episodes)))
        keys = [self._features(episode.observation, episode.units, states) for episode in episodes]
        owner = np.repeat(np.arange(len(keys)), [len(key) for key in keys])
        self._keys = np.concatenate(keys)
        self._spread = max(float(nearest_elsewhere(self._keys, owner).mean()), TINY) if len(keys) > 1 else float("nan")

    def distances(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Of episodes ``(T + 1, N, ...)``, as the simulator gave them: float32 ``(N,)``.

        Mean distance of a state to the nearest one of any retrieved episode, divided by the same of the retrieved
        episodes' own states to the nearest one of another. NaN where one episode alone was retrieved.
        """
        found = [
            nearest(self._features(observation[:, index], self._units, STATES), self._keys).mean()
            for index in range(observation.shape[1])
        ]
        return np.asarray(found, np.float32) / np.float32(self._spread)

    def _features(self, observation: NDArray[Any], units: Units, states: int) -> NDArray[np.float32]:
        """Of the same rows of every episode of that length, whenever they are asked for: ``(states, features)``."""
        rows = np.sort(np.random.default_rng(self._seed).permutation(len(observation))[:states])
        if self._encoder is not None:
            return self._encoder.features([(observation[rows], units)])
        return symlog(torch.from_numpy(units.apply(observation[rows]))).numpy()


def nearest(query: NDArray[np.float32], keys: NDArray[np.float32]) -> NDArray[np.float32]:
    """L2 distance of each of n queries ``(n, features)`` to the nearest of the keys ``(m, features)``: ``(n,)``."""
    return _search(query, keys, 1)[0][:, 0]


def nearest_elsewhere(keys: NDArray[np.float32], owner: NDArray[np.int64]) -> NDArray[np.float32]:
    """L2 distance of each key ``(n, features)`` to the nearest one of another owner, of which there are two or more.

    Args:
        keys: float32 ``(n, features)``.
        owner: whose each key is, ``(n,)``.
    """
    most = int(np.unique(owner, return_counts=True)[1].max())
    distance, found = _search(keys, keys, most + 1)  # one more than can be the key's own
    return np.where(owner[found] == owner[:, None], np.float32(np.inf), distance).min(1)


def _search(
    query: NDArray[np.float32], keys: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Exact search: distances and rows of the ``count`` nearest keys."""
    index = faiss.IndexFlatL2(keys.shape[1])
    index.add(np.ascontiguousarray(keys))
    squared, found = index.search(np.ascontiguousarray(query), count)
    return np.sqrt(np.maximum(squared, 0.0)), found  # rounding may leave a square below zero
