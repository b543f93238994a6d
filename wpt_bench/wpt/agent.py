"""The fine-tuning agent: a world model, an actor and a critic trained in imagination, and WPT's three switches.

With all switches off this is the agent that learns from scratch: the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wpt_bench.data.sequences import Batch, Replay, SequenceSampler
from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import (
    ACTION_PAD,
    IMAGE_SIZE,
    WARM_UP,
    AgentContext,
    Progress,
    Units,
    episode_seed,
)
from wpt_bench.world_model.functional import TWO_HOT_BINS, to_floats
from wpt_bench.world_model.losses import two_hot_loss
from wpt_bench.world_model.nets import head
from wpt_bench.world_model.optimizer import Optimizer
from wpt_bench.world_model.ready import compile_kernels
from wpt_bench.world_model.rssm import Latent
from wpt_bench.wpt import diagnosis
from wpt_bench.wpt.behaviour import Behaviour, policy
from wpt_bench.wpt.guidance import ClonedPrior, Window, clone_prior, draw_window, guidance_probability
from wpt_bench.wpt.parts import Parts, load_world_model, pack, padded, unpack, world_model
from wpt_bench.wpt.retrieval import candidates, random_episodes, retrieve
from wpt_bench.wpt.settings import Settings


@dataclass(frozen=True)
class Switches:
    """WPT's parts, each on or off; ``random_replay`` swaps retrieved episodes for random ones everywhere."""

    pretrain: bool
    rehearsal: bool
    guidance: bool
    random_replay: bool = False


@dataclass(frozen=True)
class Carry:
    """What acting carries from one agent step to the next, for a batch of parallel episodes."""

    latent: Latent
    action: Tensor
    generator: torch.Generator
    step: int
    guided: Window
    warm_up: bool
    frames: NDArray[Any] | None


class WPTAgent:
    """Implements ``protocol.Agent``. See ``Switches`` for what makes the difference between the methods."""

    def __init__(self, context: AgentContext, switches: Switches) -> None:
        settings: Settings = context.settings
        self.context, self.settings, self.switches = context, settings, switches
        task, device = context.task, context.device
        torch.manual_seed(episode_seed(context.seed, "agent", 0))  # initial weights
        self.world_model = world_model(context, settings.world_model)
        if device == "cpu" and not self.world_model.bf16:
            compile_kernels()
        feature = settings.world_model.feature
        self.reward = head(feature, settings.units, 2, TWO_HOT_BINS).to(device)
        self.behaviour = Behaviour(settings, device)
        self.prior: ClonedPrior | None = None
        if switches.guidance:
            self.prior = ClonedPrior(context.observation, settings.prior_units, settings.prior_depth).to(device)
        if switches.pretrain:
            load_world_model(self.world_model, context.pretrained)
        if context.inherited is not None:
            # What the reward head and the critic know is of another reward.
            kept: Parts = {"world_model": self.world_model, "actor": self.behaviour.actor}
            unpack(kept, context.inherited)
        self.retrieved: list[int] = []
        self.updates = 0
        self._build_optimizers()
        self._warm_up_steps = WARM_UP * context.budget
        self._env_steps = 0
        self._rehearsal: SequenceSampler | None = None
        self._neighbours: diagnosis.Neighbours | None = None
        self._action_mask = torch.zeros(ACTION_PAD, device=device)
        self._action_mask[: task.action_dim] = 1.0
        shape = (task.state_dim,) if context.observation == "state" else (IMAGE_SIZE, IMAGE_SIZE, 3)
        self._replay = Replay(
            observation_shape=shape,
            dtype=np.float32 if context.observation == "state" else np.uint8,
            action_dim=task.action_dim,
            units=context.units,
            capacity=(task.agent_steps + 1) * -(-context.budget // task.episode_length),
        )

    # Before the first environment step

    def offline(self, progress: Progress) -> dict[str, Any]:
        """Retrieves episodes and clones the prior from them, as far as the switches ask for it."""
        if not (self.switches.rehearsal or self.switches.guidance):
            return {}
        episodes = self.context.data.episodes()
        self.retrieved = self._retrieve(episodes)
        self._open_rehearsal()
        if self.prior is None:
            return {"retrieved": self.retrieved}
        settings = self.settings
        loss = clone_prior(
            self.prior,
            [episodes[index] for index in self.retrieved],
            updates=settings.prior_updates,
            batch=settings.prior_batch,
            learning_rate=settings.prior_lr,
            seed=episode_seed(self.context.seed, "agent", 1),
            progress=progress,
        )
        return {"retrieved": self.retrieved, "prior_loss": loss}

    def _retrieve(self, episodes: list[EpisodeView]) -> list[int]:
        if self.switches.random_replay:
            shape, count = self.context.initial_observation.shape, self.settings.retrieved
            indices = candidates(episodes, self.context.task.action_dim, shape, count)
            return random_episodes(indices, count, episode_seed(self.context.seed, "retrieval", 1))
        return retrieve(self.context, episodes, self.settings.world_model, self.settings.retrieved)

    def _open_rehearsal(self) -> None:
        if self.switches.rehearsal and self.retrieved:
            episodes = self.context.data.episodes()
            chosen = [episodes[index] for index in self.retrieved]
            self._rehearsal = SequenceSampler(chosen, self.settings.length, self.context.observation)

    # Acting

    def begin(self, batch: int, *, seed: int, evaluation: bool) -> Carry:
        """A fresh carry; in training it holds the guided window drawn for this episode."""
        generator = torch.Generator(self.context.device).manual_seed(seed)
        warm_up = not evaluation and self._env_steps < self._warm_up_steps
        guided = Window(0, 0)
        if self.prior is not None and not evaluation:
            steps = self.context.task.agent_steps
            probability = guidance_probability(self._env_steps, self.context.budget, self.settings.guidance)
            # A stream of its own: the simulator draws the same seed's first numbers for where things stand.
            guided = draw_window(steps, probability, np.random.default_rng([seed, 1]))
            if warm_up:  # the prior drives whole episodes where other arms act at random
                guided = Window(0, steps)
        action = torch.zeros(batch, ACTION_PAD, device=self.context.device)
        return Carry(self.world_model.rssm.initial(batch), action, generator, 0, guided, warm_up, None)

    @torch.no_grad()
    def act(self, carry: Carry, observation: NDArray[Any], *, evaluation: bool) -> tuple[NDArray[np.float32], Carry]:
        """One agent step for a batch of episodes."""
        model, generator = self.world_model, carry.generator
        prepared = model.prepare(self._pad(observation, self.context.units).to(self.context.device))
        noise = model.rssm.noise((len(observation),), generator)
        latent = model.rssm.observe_step(carry.latent, carry.action, model.encode(prepared), noise)
        frames = None if self.prior is None else self.prior.stack(carry.frames, observation)
        if carry.guided.start <= carry.step < carry.guided.stop:
            assert self.prior is not None and frames is not None  # else there is no window
            action = self.prior.act(frames, self.context.units)
        elif carry.warm_up:
            action = torch.rand(carry.action.shape, generator=generator, device=self.context.device) * 2 - 1
        else:
            mean, std = policy(self.behaviour.actor(latent.feature))
            draw = torch.randn(mean.shape, generator=generator, device=mean.device)
            action = mean if evaluation else (mean + std * draw).clamp(-1, 1)
        action = action * self._action_mask
        carry = replace(carry, latent=latent, action=action, step=carry.step + 1, frames=frames)
        return action[:, : self.context.task.action_dim].cpu().numpy(), carry

    def observe(self, observation: NDArray[Any], action: NDArray[np.float32] | None, reward: float) -> None:
        """Adds to the online replay."""
        self._replay.add(observation, action, reward, first=action is None)
        if action is not None:
            self._env_steps += self.context.task.action_repeat

    def episode_metrics(self, carry: Carry) -> dict[str, float]:
        """How many agent steps of the episode the prior chose."""
        return {"guided_steps": float(carry.guided.stop - carry.guided.start)}

    def _pad(self, observation: NDArray[Any], units: Units) -> Tensor:
        if self.context.observation == "pixels":
            return torch.from_numpy(np.array(observation))
        return torch.from_numpy(padded(observation, units))

    # For people

    def begin_prior(self, batch: int, *, seed: int) -> Carry | None:
        """A carry with which the cloned prior chooses every action; None without a prior."""
        if self.prior is None:
            return None
        carry = self.begin(batch, seed=seed, evaluation=True)
        return replace(carry, guided=Window(0, self.context.task.agent_steps))

    def diagnose(
        self, observation: NDArray[Any], action: NDArray[np.float32], reward: NDArray[np.float32], *, seed: int
    ) -> list[dict[str, float]]:
        """See ``diagnosis``, which has all the numbers; distances are to the episodes that were retrieved."""
        steps, count = reward.shape
        seen = self._pad(observation.reshape(-1, *observation.shape[2:]), self.context.units)
        actions = np.pad(action, ((0, 0), (0, 0), (0, ACTION_PAD - action.shape[2])))
        numbers = diagnosis.learned(
            self.world_model,
            self.reward,
            self.behaviour.critic,
            seen.unflatten(0, (steps, count)),
            torch.from_numpy(actions).to(self.context.device),
            torch.from_numpy(reward).to(self.context.device),
            self.context.task.state_dim,
            seed,
        )
        if self.retrieved:
            if self._neighbours is None:
                episodes = self.context.data.episodes()
                chosen = [episodes[index] for index in self.retrieved]
                self._neighbours = diagnosis.Neighbours(self.context, self.settings.world_model, chosen)
            numbers["retrieved_distance"] = torch.from_numpy(self._neighbours.distances(observation))
        return [{name: float(values[index]) for name, values in numbers.items()} for index in range(count)]

    # Learning

    def update(self) -> dict[str, float]:
        """World model and reward head on a mixed batch, then actor and critic in imagination from its posteriors."""
        seed = episode_seed(self.context.seed, "agent", 2 + self.updates)
        generator = torch.Generator(self.context.device).manual_seed(seed)
        online, rehearsed = self._sample(np.random.default_rng(seed))
        metrics, latents = self._update_model(online, rehearsed, generator)
        # All rows belong to this task's action dimension, rehearsed ones too.
        start = self._starts(latents, generator)
        metrics |= self.behaviour.update(self.world_model.rssm, self.reward, start, self._action_mask, generator)
        self.updates += 1
        return to_floats(metrics)

    def _sample(self, rng: np.random.Generator) -> tuple[Batch, Batch | None]:
        settings = self.settings
        share = round(settings.rehearsal * settings.batch) if self._rehearsal else 0
        online = self._replay.sample(settings.batch - share, settings.length, rng)
        return online, self._rehearsal.sample(share, rng) if self._rehearsal and share else None

    def _update_model(
        self, online: Batch, rehearsed: Batch | None, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Latent]:
        model, device = self.world_model, self.context.device

        def join(name: str) -> Tensor:
            parts = [getattr(batch, name) for batch in (online, rehearsed) if batch is not None]
            return torch.from_numpy(np.concatenate(parts)).to(device)

        observation = model.prepare(join("observation").transpose(0, 1))
        mask = join("observation_mask") if self.context.observation == "state" else None
        loss, metrics, latents = model.loss(observation, mask, join("action").transpose(0, 1), generator)
        assert online.reward is not None
        reward = torch.from_numpy(online.reward).to(device).transpose(0, 1)
        # The reward head never sees rehearsed rows (they have no reward), nor does it shape the latent state. A
        # chunk's first reward belongs to an action that its latent state does not know.
        feature = latents.feature.detach()[1:, : reward.shape[1]]
        reward_loss = two_hot_loss(self.reward(feature), reward[1:]).mean()
        norm = self._model_optimizer.step(loss + reward_loss)
        rows = slice(reward.shape[1] if self.settings.start_from == "online" else None)
        latents = Latent(latents.deter.detach()[:, rows].flatten(0, 1), latents.stoch.detach()[:, rows].flatten(0, 1))
        return metrics | {"reward_loss": reward_loss.detach(), "model_gradient": norm}, latents

    def _starts(self, latents: Latent, generator: torch.Generator) -> Latent:
        """The posterior states that imagination starts from, some or all of ``latents``."""
        count = self.settings.starts
        if not count:
            return latents
        rows = torch.randperm(len(latents.deter), generator=generator, device=latents.deter.device)[:count]
        return Latent(latents.deter[rows], latents.stoch[rows])

    # Checkpoints

    def _build_optimizers(self) -> None:
        settings = self.settings
        parameters = [*self.world_model.parameters(), *self.reward.parameters()]
        self._model_optimizer = Optimizer(
            parameters,
            learning_rate=settings.model_lr,
            eps=settings.adam_eps,
            grad_clip=settings.grad_clip,
            weight_decay=settings.weight_decay,
        )

    def _parts(self) -> dict[str, nn.Module | Optimizer]:
        parts: dict[str, nn.Module | Optimizer] = {
            "world_model": self.world_model,
            "reward": self.reward,
            "model_optimizer": self._model_optimizer,
            **self.behaviour.parts(),
        }
        return parts | ({"prior": self.prior} if self.prior is not None else {})

    def state_dict(self) -> dict[str, Any]:
        """Everything but the replay, flat."""
        return pack(self._parts()) | {
            "return_range": self.behaviour.return_range,
            "retrieved": list(self.retrieved),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state_dict`` gave; UserError if it is of another size."""
        unpack(self._parts(), state)
        self.behaviour.return_range = state["return_range"].to(self.context.device)
        self.retrieved = list(state["retrieved"])
        self.updates = state["updates"]
        self._open_rehearsal()
