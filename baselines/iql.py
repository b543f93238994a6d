"""IQL offline, the same going on online (iql-finetune), and one for all tasks of a suite (mt-iql).

Kostrikov et al., "Offline Reinforcement Learning with Implicit Q-Learning", arXiv 2110.06169. State values are an upper
expectile of the data's action values (eq. 5), action values regress on them (eq. 6), and the policy is cloned from the
data with weights that grow with the advantage (eq. 7): no action outside the data is ever valued.

Hyperparameters: its section 5 and appendix B for locomotion: expectile 0.7, inverse temperature 3, weights up to 100,
step size 3e-4 (without the paper's cosine schedule of the actor's), two layers of 256. It divides rewards by the
difference of the best and the worst return in the data; here advantages are, of each task, which comes to the same
weights once values are learned. Online, batches are half offline and half own transitions, as RLPD (arXiv 2302.02948)
found best, for every Off2On method here. From pixels: DrQ-v2's encoder and random shifts. For all tasks at once: padded
states and actions, a learned embedding of the task, each task equally often.
"""

from __future__ import annotations

from functools import cached_property, partial

import torch
from torch import Tensor, nn

from wpt_bench.baselines import agent
from wpt_bench.baselines.agent import GROUP, ModelFreeAgent, offline_updates, optimizer, updates_per_step
from wpt_bench.baselines.networks import Critic, Gaussian, SlowCopy, Value, squared_error
from wpt_bench.baselines.transitions import Batch, Transitions
from wpt_bench.bounds import Count, Positive, Share, Weight
from wpt_bench.protocol import DISCOUNT, STEP_SIZES, AgentContext, DataAccess, Method, Range
from wpt_bench.world_model.optimizer import Optimizer

PAPER = "Offline Reinforcement Learning with Implicit Q-Learning, arXiv 2110.06169"
TUNING = "arXiv 2110.06169, section 5 and appendix B"
SEARCH = {
    "learning_rate": STEP_SIZES,
    "expectile": Range(0.5, 0.95),
    "inverse_temperature": Range(0.3, 10.0, log=True),
}


class Settings(agent.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module's first lines for where the values come from.

    Attributes:
        offline_updates: on the offline data, before any environment step.
        updates_per_step: per agent step, online.
        expectile: of the action values that state values are.
        inverse_temperature: of the advantages in the policy's weights. largest_weight: where these are cut.
    """

    offline_updates: Count = 1_000_000
    updates_per_step: Weight = 1.0
    expectile: Share = 0.7
    inverse_temperature: Weight = 3.0
    largest_weight: Positive = 100.0


class IQL(ModelFreeAgent):
    """See the module's first lines."""

    offline_share = 0.5
    warms_up = False

    def __init__(self, context: AgentContext, *, multi_task: bool = False) -> None:
        super().__init__(context, multi_task=multi_task)
        settings: Settings = context.settings
        self.settings = settings
        action_dim, size = self.sight.action_dim, (settings.hidden, settings.layers)
        self.value = Value(self.eyes, *size).to(self.device)
        self.critic = Critic(self.eyes, action_dim, 2, *size).to(self.device)
        self.slow_critic = SlowCopy(self.critic)
        self.actor = Gaussian(self.eyes, *size, action_dim).to(self.device)
        self._value_optimizer = optimizer(self.value, settings.learning_rate)
        self._critic_optimizer = optimizer(nn.ModuleList([self.eyes, self.critic]), settings.learning_rate)
        self._actor_optimizer = optimizer(self.actor, settings.learning_rate)

    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """Networks and optimizers."""
        return {
            "value": self.value,
            "critic": self.critic,
            "slow_critic": self.slow_critic.module,
            "actor": self.actor,
            "value_optimizer": self._value_optimizer,
            "critic_optimizer": self._critic_optimizer,
            "actor_optimizer": self._actor_optimizer,
        }

    def open_data(self) -> Transitions:
        """Labelled episodes: the task's, or every task's."""
        return self.labelled()

    @cached_property
    def standard(self) -> Tensor:
        """What advantages of each task are multiplied by, float32 ``(tasks,)``.

        Returns of the data then span as much as an episode has agent steps: the publication's code makes it 1000, for
        episodes of 1000. Where all returns are one, there is nothing to divide by.
        """
        assert self.data is not None
        factors = torch.ones(max(1, len(self.tasks)))
        for task, span in self.data.return_ranges().items():
            factors[task] = self.context.task.agent_steps / span if span > 0 else 1.0
        return factors.to(self.device)

    def policy(self, feature: Tensor, generator: torch.Generator | None) -> Tensor:
        """The mean; online, a sample."""
        return self.actor(feature) if generator is None else self.actor.sample(feature, generator)

    def learn(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """State values, policy and action values, all from the values as they were before."""
        settings = self.settings
        feature = self.eyes(batch.observation, batch.task)
        seen = feature.detach()
        with torch.no_grad():
            target = batch.reward + DISCOUNT * self.value(self.eyes(batch.next_observation, batch.task))
            value_of_action = self.slow_critic.module(seen, batch.action).amin(0)
        value = self.value(seen)
        value_loss = expectile_loss(value_of_action - value, settings.expectile)
        advantage = (value_of_action - value).detach() * self.standard[batch.task]
        weight = advantage_weight(advantage, settings.inverse_temperature, settings.largest_weight)
        actor_loss = -(weight * self.actor.log_prob(seen, batch.action, batch.mask)).mean()
        critic_loss = squared_error(self.critic(feature, batch.action), target)
        self._value_optimizer.step(value_loss)
        self._actor_optimizer.step(actor_loss)
        self._critic_optimizer.step(critic_loss)
        self.slow_critic.follow(self.critic, settings.target_rate)
        return {
            "value_loss": value_loss.detach(),
            "critic_loss": critic_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "value": value.detach().mean(),
        }


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Asymmetric squared loss: negative differences weigh ``1 - expectile`` (eq. 5), averaged."""
    return (torch.where(difference > 0, expectile, 1 - expectile) * difference**2).mean()


def advantage_weight(advantage: Tensor, inverse_temperature: float, largest: float) -> Tensor:
    """exp(inverse temperature x advantage), cut at ``largest`` (eq. 7)."""
    return torch.exp(inverse_temperature * advantage).clamp(max=largest)


METHODS = (
    Method(
        name="iql",
        version=2,
        family="Offline RL",
        data_access=DataAccess.LABELLED,
        observations=("state", "pixels"),
        paper=PAPER,
        build=IQL,
        settings=Settings,
        settings_name="iql",
        settings_group=GROUP,
        updates_per_step=lambda settings: 0.0,
        offline_updates=offline_updates,
        online=False,
        tuning=TUNING,
        search=SEARCH,
    ),
    Method(
        name="iql-finetune",
        version=2,
        family="Off2On RL",
        data_access=DataAccess.LABELLED,
        observations=("state",),
        paper=PAPER,
        build=IQL,
        settings=Settings,
        settings_name="iql-finetune",
        settings_group=GROUP,
        updates_per_step=updates_per_step,
        offline_updates=offline_updates,
        tuning=TUNING,
        search=SEARCH,
    ),
    Method(
        name="mt-iql",
        version=2,
        family="MT offline RL",
        data_access=DataAccess.LABELLED_MULTITASK,
        observations=("state",),
        paper=PAPER,
        build=partial(IQL, multi_task=True),
        settings=Settings,
        settings_name="mt-iql",
        settings_group=GROUP,
        updates_per_step=lambda settings: 0.0,
        offline_updates=offline_updates,
        online=False,
        shared=True,
        tuning=TUNING,
        search=SEARCH,
    ),
)
