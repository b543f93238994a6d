"""TD3+BC, offline, and one for all tasks of a suite (mt-td3-bc).

Fujimoto and Gu, "A Minimalist Approach to Offline Reinforcement Learning", arXiv 2106.06860. TD3 (arXiv 1802.09477)
whose actor also imitates the data: it climbs lambda Q - (pi - a)^2, with lambda = alpha / mean |Q| (eqs. 3 and 5).

Hyperparameters: its appendix: alpha 2.5, target noise 0.2 cut at 0.5, actor and slow copies every second update, step
size 3e-4, two layers of 256. The suite's constants stand where the paper standardises states by the data. For all tasks
at once: padded states and actions, a learned embedding of the task, each task equally often.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from wpt_bench.baselines import agent
from wpt_bench.baselines.agent import GROUP, ModelFreeAgent, offline_updates, optimizer
from wpt_bench.baselines.networks import Critic, Deterministic, SlowCopy, squared_error
from wpt_bench.baselines.transitions import Batch, Transitions
from wpt_bench.bounds import Count, Size, Weight
from wpt_bench.protocol import DISCOUNT, STEP_SIZES, AgentContext, DataAccess, Method, Range
from wpt_bench.world_model.optimizer import Optimizer

PAPER = "A Minimalist Approach to Offline Reinforcement Learning, arXiv 2106.06860"
TUNING = "arXiv 2106.06860, appendix"
SEARCH = {"learning_rate": STEP_SIZES, "alpha": Range(0.25, 25.0, log=True), "noise": Range(0.05, 0.4)}


class Settings(agent.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module's first lines for where the values come from.

    Attributes:
        offline_updates: on the offline data.
        alpha: weight of the values against imitation.
        noise, largest_noise: of the target's actions, and where it is cut.
        policy_delay: critic updates for each update of the actor and the slow copies.
    """

    offline_updates: Count = 1_000_000
    alpha: Weight = 2.5
    noise: Weight = 0.2
    largest_noise: Weight = 0.5
    policy_delay: Size = 2


class TD3BC(ModelFreeAgent):
    """See the module's first lines."""

    warms_up = False

    def __init__(self, context: AgentContext, *, multi_task: bool = False) -> None:
        super().__init__(context, multi_task=multi_task)
        settings: Settings = context.settings
        self.settings = settings
        action_dim, size = self.sight.action_dim, (settings.hidden, settings.layers)
        self.actor = Deterministic(self.eyes, *size, action_dim).to(self.device)
        self.critic = Critic(self.eyes, action_dim, 2, *size).to(self.device)
        self.slow_actor, self.slow_critic = SlowCopy(self.actor), SlowCopy(self.critic)
        self._actor_optimizer = optimizer(self.actor, settings.learning_rate)
        self._critic_optimizer = optimizer(nn.ModuleList([self.eyes, self.critic]), settings.learning_rate)

    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """Networks and optimizers."""
        return {
            "actor": self.actor,
            "critic": self.critic,
            "slow_actor": self.slow_actor.module,
            "slow_critic": self.slow_critic.module,
            "actor_optimizer": self._actor_optimizer,
            "critic_optimizer": self._critic_optimizer,
        }

    def open_data(self) -> Transitions:
        """Labelled episodes: the task's, or every task's."""
        return self.labelled()

    def policy(self, feature: Tensor, generator: torch.Generator | None) -> Tensor:
        """Always the same action: there is no online step to explore in."""
        return self.actor(feature)

    def learn(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Critics, then every ``policy_delay``-th time the actor and the slow copies."""
        settings = self.settings
        feature = self.eyes(batch.observation, batch.task)
        with torch.no_grad():
            next_feature = self.eyes(batch.next_observation, batch.task)
            noise = torch.randn(batch.action.shape, generator=generator, device=self.device) * settings.noise
            noise.clamp_(-settings.largest_noise, settings.largest_noise)
            next_action = (self.slow_actor.module(next_feature) + noise).clamp_(-1, 1) * batch.mask
            target = batch.reward + DISCOUNT * self.slow_critic.module(next_feature, next_action).amin(0)
        value = self.critic(feature, batch.action)
        loss = squared_error(value, target)
        self._critic_optimizer.step(loss)
        metrics = {"critic_loss": loss.detach(), "value": value.detach().mean()}
        if (self.updates + 1) % settings.policy_delay == 0:
            metrics |= self._learn_actor(batch, feature.detach())
        return metrics

    def _learn_actor(self, batch: Batch, feature: Tensor) -> dict[str, Tensor]:
        settings = self.settings
        action = self.actor(feature) * batch.mask
        loss = td3_bc_loss(
            self.critic.first(feature, action), action, batch.action, batch.mask, batch.task, settings.alpha
        )
        self._actor_optimizer.step(loss)
        self.slow_critic.follow(self.critic, settings.target_rate)
        self.slow_actor.follow(self.actor, settings.target_rate)
        return {"actor_loss": loss.detach()}


def td3_bc_loss(value: Tensor, action: Tensor, data_action: Tensor, mask: Tensor, task: Tensor, alpha: float) -> Tensor:
    """-lambda Q + (pi - a)^2, averaged, with lambda = alpha / mean |Q| taken as a constant (eqs. 3 and 5).

    The mean is that of a row's own task, so that tasks with small values are not all imitation beside those with large.

    Args:
        value: of the actor's actions, float ``(N,)``.
        action, data_action: float ``(N, action_dim)``.
        mask: 1 where a dimension is real, float ``(N, action_dim)``; the imitation is averaged over these.
        task: int64 ``(N,)``.
        alpha: weight of the values.
    """
    size = value.detach().abs()
    sums = size.new_zeros(int(task.max()) + 1).index_add(0, task, size)
    mean = sums / torch.bincount(task)
    imitation = (((action - data_action) * mask) ** 2).sum() / mask.sum()
    return imitation - (alpha / mean[task] * value).mean()


METHODS = (
    Method(
        name="td3-bc",
        version=1,
        family="Offline RL",
        data_access=DataAccess.LABELLED,
        observations=("state",),
        paper=PAPER,
        build=TD3BC,
        settings=Settings,
        settings_name="td3-bc",
        settings_group=GROUP,
        updates_per_step=lambda settings: 0.0,
        offline_updates=offline_updates,
        online=False,
        tuning=TUNING,
        search=SEARCH,
    ),
    Method(
        name="mt-td3-bc",
        version=2,
        family="MT offline RL",
        data_access=DataAccess.LABELLED_MULTITASK,
        observations=("state",),
        paper=PAPER,
        build=partial(TD3BC, multi_task=True),
        settings=Settings,
        settings_name="mt-td3-bc",
        settings_group=GROUP,
        updates_per_step=lambda settings: 0.0,
        offline_updates=offline_updates,
        online=False,
        shared=True,
        tuning=TUNING,
        search=SEARCH,
    ),
)
