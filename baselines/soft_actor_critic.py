"""Soft actor-critic (arXiv 1801.01290, 1812.05905) with an ensemble of critics, as several methods use it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wpt_bench.baselines import agent
from wpt_bench.baselines.agent import ModelFreeAgent, optimizer
from wpt_bench.baselines.networks import Critic, SlowCopy, SquashedGaussian, squared_error
from wpt_bench.baselines.transitions import Batch
from wpt_bench.bounds import Positive, Size, Weight
from wpt_bench.protocol import DISCOUNT, STEP_SIZES, AgentContext, Range
from wpt_bench.world_model.optimizer import Optimizer


class Settings(agent.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of soft actor-critic.

    Attributes:
        updates_per_step: per agent step.
        members: critics. subset: how many of them, drawn for every update, the target is the least of.
        layer_norm: in the critics.
        cautious_actor: it climbs the least critic instead of their mean.
        entropy_in_target: the target holds the entropy of the next action.
        actor_every: critic updates for each update of actor and temperature.
        actor_rate: step size of the actor and the temperature.
        temperature: at the beginning.
        target_entropy: per action dimension.
    """

    updates_per_step: Weight = 1.0
    members: Size = 2
    subset: Size = 2
    layer_norm: bool = False
    cautious_actor: bool = True
    entropy_in_target: bool = True
    actor_every: Size = 1
    actor_rate: Positive = 3e-4
    temperature: Positive = 1.0
    target_entropy: float = -1.0


class RLPDSettings(Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """RLPD's values (arXiv 2302.02948, appendix): ten critics with LayerNorm and many updates.

    The temperature begins at 0.1, as the authors' code has it from pixels, and not at their 1.0 from states: Adam takes
    the logarithm down by 3e-4 an update, 7,700 updates from 1.0 to 0.1. Until then actions are all but random, which
    250,000 environment steps can afford and a small budget cannot.
    """

    updates_per_step: Weight = 20.0
    actor_every: Size = 20
    members: Size = 10
    temperature: Positive = 0.1
    layer_norm: bool = True
    cautious_actor: bool = False
    target_entropy: float = -0.5


SEARCH = {
    "learning_rate": STEP_SIZES,
    "actor_rate": STEP_SIZES,
    "temperature": Range(0.01, 1.0, log=True),
    "target_entropy": Range(-1.5, -0.25),
    "target_rate": Range(0.001, 0.05, log=True),
}
"""For every method that is soft actor-critic with other data."""


class SoftActorCritic(ModelFreeAgent):
    """The learner; by itself it learns from the run's own experience."""

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        settings: Settings = context.settings
        self.settings = settings
        action_dim, size = self.sight.action_dim, (settings.hidden, settings.layers)
        self.actor = SquashedGaussian(self.eyes, *size, action_dim).to(self.device)
        self.critic = Critic(self.eyes, action_dim, settings.members, *size, layer_norm=settings.layer_norm)
        self.critic.to(self.device)
        self.slow_critic = SlowCopy(self.critic)
        self.log_temperature = nn.ParameterDict({"log": torch.tensor(math.log(settings.temperature))}).to(self.device)
        self._critic_optimizer = optimizer(nn.ModuleList([self.eyes, self.critic]), settings.learning_rate)
        self._actor_optimizer = optimizer(self.actor, settings.actor_rate)
        self._temperature_optimizer = optimizer(self.log_temperature, settings.actor_rate)

    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """Networks and optimizers."""
        return {
            "actor": self.actor,
            "critic": self.critic,
            "slow_critic": self.slow_critic.module,
            "temperature": self.log_temperature,
            "critic_optimizer": self._critic_optimizer,
            "actor_optimizer": self._actor_optimizer,
            "temperature_optimizer": self._temperature_optimizer,
        }

    @property
    def temperature(self) -> Tensor:
        """Weight of the entropy, a scalar without gradient."""
        return self.log_temperature["log"].detach().exp()

    def policy(self, feature: Tensor, generator: torch.Generator | None) -> Tensor:
        """A sample, or the mean through tanh."""
        if generator is not None:
            return self.actor.sample(feature, generator)[0]
        return torch.tanh(self.actor(feature)[0])

    def learn(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Critics, then every ``actor_every``-th time actor and temperature."""
        feature = self.eyes(batch.observation, batch.task)
        with torch.no_grad():
            next_feature = self.eyes(batch.next_observation, batch.task)
        loss, metrics = self.critic_loss(batch, feature, next_feature, generator)
        self._critic_optimizer.step(loss)
        self.slow_critic.follow(self.critic, self.settings.target_rate)
        if (self.updates + 1) % self.settings.actor_every == 0:
            metrics |= self._learn_actor(feature.detach(), generator)
        return metrics

    def critic_loss(
        self, batch: Batch, feature: Tensor, next_feature: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared temporal-difference error, summed over the members, and metrics."""
        target = self.target(batch, next_feature, generator)
        value = self.critic(feature, batch.action)
        loss = squared_error(value, target)
        return loss, {"critic_loss": loss.detach(), "value": value.detach().mean()}

    @torch.no_grad()
    def target(self, batch: Batch, next_feature: Tensor, generator: torch.Generator) -> Tensor:
        """What the critics regress on, ``(N,)``. Episodes end by time limit alone, so it always bootstraps.

        The least of a random subset of the slow critics: REDQ (arXiv 2101.05982, eq. 1), as RLPD takes it.
        """
        action, log_prob = self.actor.sample(next_feature, generator)
        value = self.slow_critic.module(next_feature, action)
        if self.settings.subset < self.settings.members:
            drawn = torch.randperm(self.settings.members, generator=generator, device=value.device)
            value = value[drawn[: self.settings.subset]]
        least = value.amin(0)
        if self.settings.entropy_in_target:
            least = least - self.temperature * log_prob
        return batch.reward + DISCOUNT * least

    def _learn_actor(self, feature: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        action, log_prob = self.actor.sample(feature, generator)
        value = self.critic(feature, action)
        climbed = value.amin(0) if self.settings.cautious_actor else value.mean(0)
        loss = (self.temperature * log_prob - climbed).mean()
        self._actor_optimizer.step(loss)
        entropy = -log_prob.detach().mean()
        wanted = self.settings.target_entropy * self.sight.action_dim
        self._temperature_optimizer.step(self.log_temperature["log"].exp() * (entropy - wanted))
        return {"actor_loss": loss.detach(), "entropy": entropy, "temperature": self.temperature}
