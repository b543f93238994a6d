"""DrQ-v2: deterministic actor-critic from augmented pixels, learning from scratch.

Yarats et al., "Mastering Visual Continuous Control", arXiv 2107.09645. A convolutional encoder learned by the critics
alone, random shifts, three-step returns, two critics, and exploration noise that falls along a schedule.

Hyperparameters: its appendix: step size 1e-4, batches of 256, hidden layers of 1024, 50 features, an update every
second decision, slow critics at 0.01, noise cut at 0.3. The noise's deviation falls from 1 to 0.1 over the 100,000
decisions of the authors' easy tasks: 200,000 environment steps at an action repeat of 2, four thirds of the 150,000 of
WPT's protocol. Linear layers begin as torch begins them, not orthogonal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wpt_bench.baselines import agent
from wpt_bench.baselines.agent import GROUP, ModelFreeAgent, optimizer, updates_per_step
from wpt_bench.baselines.networks import Critic, Deterministic, SlowCopy, squared_error
from wpt_bench.baselines.transitions import Batch
from wpt_bench.bounds import Positive, Share, Size, Weight
from wpt_bench.protocol import DISCOUNT, STEP_SIZES, AgentContext, Choice, DataAccess, Method, Range
from wpt_bench.world_model.optimizer import Optimizer

NOISE = (1.0, 0.1)
NOISE_SHARE = 4 / 3
"""The exploration noise's deviation at the beginning and the end of its schedule, and that schedule in budgets."""


class Settings(agent.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module's first lines for where the values come from.

    Attributes:
        updates_per_step: per agent step.
        returns: agent steps of the critics' target before it bootstraps.
        largest_noise: where the noise of actions in updates is cut.
    """

    hidden: Size = 1024
    learning_rate: Positive = 1e-4
    target_rate: Share = 0.01
    updates_per_step: Weight = 0.5
    returns: Size = 3
    largest_noise: Weight = 0.3


class DrQv2(ModelFreeAgent):
    """See the module's first lines."""

    def __init__(self, context: AgentContext) -> None:
        settings: Settings = context.settings
        super().__init__(context, steps=settings.returns)
        self.settings = settings
        action_dim, size = self.sight.action_dim, (settings.hidden, settings.layers)
        self.actor = Deterministic(self.eyes, *size, action_dim).to(self.device)
        self.critic = Critic(self.eyes, action_dim, 2, *size).to(self.device)
        self.slow_critic = SlowCopy(self.critic)
        self._actor_optimizer = optimizer(self.actor, settings.learning_rate)
        self._critic_optimizer = optimizer(nn.ModuleList([self.eyes, self.critic]), settings.learning_rate)

    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """Networks and optimizers."""
        return {
            "actor": self.actor,
            "critic": self.critic,
            "slow_critic": self.slow_critic.module,
            "actor_optimizer": self._actor_optimizer,
            "critic_optimizer": self._critic_optimizer,
        }

    def policy(self, feature: Tensor, generator: torch.Generator | None) -> Tensor:
        """The actor's action, with the schedule's noise in training."""
        action = self.actor(feature)
        return action if generator is None else self._noisy(action, generator, cut=False)

    def noise(self) -> float:
        """Standard deviation of the noise at this point of the run."""
        share = min(1.0, self.env_steps / (NOISE_SHARE * self.context.budget))
        return NOISE[0] + share * (NOISE[1] - NOISE[0])

    def _noisy(self, action: Tensor, generator: torch.Generator, *, cut: bool) -> Tensor:
        noise = torch.randn(action.shape, generator=generator, device=self.device) * self.noise()
        if cut:
            noise = noise.clamp(-self.settings.largest_noise, self.settings.largest_noise)
        noisy = action + noise
        return noisy + (noisy.clamp(-1, 1) - noisy).detach()  # gradients pass the clamp

    def learn(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Critics and encoder, then the actor on the same features."""
        feature = self.eyes(batch.observation, batch.task)
        with torch.no_grad():
            next_feature = self.eyes(batch.next_observation, batch.task)
            next_action = self._noisy(self.actor(next_feature), generator, cut=True)
            bootstrap = self.slow_critic.module(next_feature, next_action).amin(0)
            target = batch.reward + DISCOUNT**self.settings.returns * bootstrap
        value = self.critic(feature, batch.action)
        critic_loss = squared_error(value, target)
        self._critic_optimizer.step(critic_loss)
        seen = feature.detach()
        actor_loss = -self.critic(seen, self._noisy(self.actor(seen), generator, cut=True)).amin(0).mean()
        self._actor_optimizer.step(actor_loss)
        self.slow_critic.follow(self.critic, self.settings.target_rate)
        return {
            "critic_loss": critic_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "value": value.detach().mean(),
        }


METHOD = Method(
    name="drqv2",
    version=1,
    family="From scratch",
    data_access=DataAccess.NONE,
    observations=("pixels",),
    paper="Mastering Visual Continuous Control: Improved Data-Augmented Reinforcement Learning, arXiv 2107.09645",
    build=DrQv2,
    settings=Settings,
    settings_name="drqv2",
    settings_group=GROUP,
    updates_per_step=updates_per_step,
    tuning="arXiv 2107.09645, appendix",
    search={
        "learning_rate": STEP_SIZES,
        "target_rate": Range(0.001, 0.05, log=True),
        "returns": Choice((1, 3, 5)),
        "largest_noise": Range(0.1, 0.5),
    },
)
