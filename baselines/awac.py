"""AWAC: advantage-weighted actor-critic, offline and then online.

Nair et al., "AWAC: Accelerating Online Reinforcement Learning with Offline Datasets", arXiv 2006.09359. An off-policy
critic of the current policy, and a policy cloned from the data with weights exp(advantage / lambda): the
same update offline and online.

Hyperparameters: as CORL (arXiv 2210.07105) keeps them: lambda 1/3, weights up to 100, step size 3e-4, three layers of
256. Online, batches are half offline and half own transitions, for every Off2On method here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wpt_bench.baselines import agent
from wpt_bench.baselines.agent import GROUP, ModelFreeAgent, offline_updates, optimizer, updates_per_step
from wpt_bench.baselines.networks import Critic, Gaussian, SlowCopy, squared_error
from wpt_bench.baselines.transitions import Batch, Transitions
from wpt_bench.bounds import Count, Positive, Weight
from wpt_bench.protocol import DISCOUNT, STEP_SIZES, AgentContext, DataAccess, Method, Range
from wpt_bench.world_model.optimizer import Optimizer


class Settings(agent.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module's first lines for where the values come from.

    Attributes:
        offline_updates: on the offline data, before any environment step.
        updates_per_step: per agent step, online.
        lam: divides the advantage. largest_weight: where the weights are cut.
    """

    layers: Count = 3
    offline_updates: Count = 1_000_000
    updates_per_step: Weight = 1.0
    lam: Positive = 1 / 3
    largest_weight: Positive = 100.0


class AWAC(ModelFreeAgent):
    """See the module's first lines."""

    offline_share = 0.5
    warms_up = False

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        settings: Settings = context.settings
        self.settings = settings
        action_dim, size = self.sight.action_dim, (settings.hidden, settings.layers)
        self.critic = Critic(self.eyes, action_dim, 2, *size).to(self.device)
        self.slow_critic = SlowCopy(self.critic)
        self.actor = Gaussian(self.eyes, *size, action_dim).to(self.device)
        self._critic_optimizer = optimizer(nn.ModuleList([self.eyes, self.critic]), settings.learning_rate)
        self._actor_optimizer = optimizer(self.actor, settings.learning_rate)

    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """Networks and optimizers."""
        return {
            "critic": self.critic,
            "slow_critic": self.slow_critic.module,
            "actor": self.actor,
            "critic_optimizer": self._critic_optimizer,
            "actor_optimizer": self._actor_optimizer,
        }

    def open_data(self) -> Transitions:
        """The task's labelled episodes."""
        return self.labelled()

    def policy(self, feature: Tensor, generator: torch.Generator | None) -> Tensor:
        """The mean; online, a sample."""
        return self.actor(feature) if generator is None else self.actor.sample(feature, generator)

    def learn(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Critics on the policy's next action, then the weighted cloning."""
        settings = self.settings
        feature = self.eyes(batch.observation, batch.task)
        seen = feature.detach()
        with torch.no_grad():
            next_feature = self.eyes(batch.next_observation, batch.task)
            next_action = self.actor.sample(next_feature, generator)
            target = batch.reward + DISCOUNT * self.slow_critic.module(next_feature, next_action).amin(0)
        value = self.critic(feature, batch.action)
        critic_loss = squared_error(value, target)
        self._critic_optimizer.step(critic_loss)
        with torch.no_grad():
            baseline = self.critic(seen, self.actor.sample(seen, generator)).amin(0)
            advantage = self.critic(seen, batch.action).amin(0) - baseline
            weight = torch.exp(advantage / settings.lam).clamp(max=settings.largest_weight)
        actor_loss = -(weight * self.actor.log_prob(seen, batch.action, batch.mask)).mean()
        self._actor_optimizer.step(actor_loss)
        self.slow_critic.follow(self.critic, settings.target_rate)
        return {
            "critic_loss": critic_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "value": value.detach().mean(),
            "weight": weight.mean(),
        }


METHOD = Method(
    name="awac",
    version=1,
    family="Off2On RL",
    data_access=DataAccess.LABELLED,
    observations=("state",),
    paper="AWAC: Accelerating Online Reinforcement Learning with Offline Datasets, arXiv 2006.09359",
    build=AWAC,
    settings=Settings,
    settings_name="awac",
    settings_group=GROUP,
    updates_per_step=updates_per_step,
    offline_updates=offline_updates,
    tuning="arXiv 2006.09359, as in CORL",
    search={
        "learning_rate": STEP_SIZES,
        "target_rate": Range(0.001, 0.02, log=True),
        "lam": Range(0.03, 3.0, log=True),
    },
)
