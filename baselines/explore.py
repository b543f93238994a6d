"""ExPLORe: unlabelled episodes get optimistic rewards, learned online.

Li et al., "Accelerating Exploration with Unlabeled Prior Data", arXiv 2311.05067. Rewards are predicted from the run's
own experience; offline transitions are labelled with the prediction plus a bonus where it is uncertain, so that the
policy goes and looks. The paper's bonus is random network distillation; WPT's paper (arXiv 2502.19544) found that to
fail on its data in a sweep and took the disagreement of an ensemble of reward predictors: so does this. From pixels the
predictors see the critics' features. Learner and its hyperparameters: RLPD's (arXiv 2302.02948, appendix); predictors:
five, of the critics' size and step size, bonus one standard deviation.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from wpt_bench.baselines import comparators
from wpt_bench.baselines.agent import GROUP, optimizer, updates_per_step
from wpt_bench.baselines.comparators import FAMILY, Comparator
from wpt_bench.baselines.networks import Critic, squared_error
from wpt_bench.baselines.soft_actor_critic import SEARCH
from wpt_bench.baselines.transitions import Batch, Transitions
from wpt_bench.bounds import Size
from wpt_bench.protocol import AgentContext, DataAccess, Method, Range
from wpt_bench.world_model.optimizer import Optimizer


class Settings(comparators.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module's first lines for where the values come from.

    Attributes:
        predictors: of rewards. optimism: standard deviations between them that are added to their mean.
    """

    predictors: Size = 5
    optimism: float = 1.0


class ExPLORe(Comparator):
    """See the module's first lines."""

    offline_share = 0.5

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        self.labelling: Settings = context.settings
        size = (self.labelling.hidden, self.labelling.layers)
        self.reward = Critic(self.eyes, self.sight.action_dim, self.labelling.predictors, *size).to(self.device)
        self._reward_optimizer = optimizer(self.reward, self.labelling.learning_rate)

    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """Networks and optimizers."""
        return {**super().parts(), "reward": self.reward, "reward_optimizer": self._reward_optimizer}

    def open_data(self) -> Transitions:
        """The retrieved episodes; their rewards are put in batch by batch."""
        return self.unrewarded()

    def learn(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The predictors on the run's own rows, their labels on the others, then soft actor-critic on all."""
        own = len(batch.reward) - round(self.offline_share * len(batch.reward))  # these come first
        with torch.no_grad():
            feature = self.eyes(batch.observation, batch.task)
        predicted = self.reward(feature, batch.action)
        loss = squared_error(predicted[:, :own], batch.reward[:own])
        labels = optimistic(predicted[:, own:].detach(), self.labelling.optimism)
        self._reward_optimizer.step(loss)
        labelled = replace(batch, reward=torch.cat([batch.reward[:own], labels]))
        return super().learn(labelled, generator) | {"reward_loss": loss.detach(), "label": labels.mean()}


def optimistic(predicted: Tensor, optimism: float) -> Tensor:
    """Mean over the predictors plus ``optimism`` standard deviations: ``(predictors, N)`` to ``(N,)``."""
    return predicted.mean(0) + optimism * predicted.std(0, correction=0)


METHOD = Method(
    name="explore",
    version=2,
    family=FAMILY,
    data_access=DataAccess.REWARD_FREE,
    observations=("state", "pixels"),
    paper="Accelerating Exploration with Unlabeled Prior Data, arXiv 2311.05067",
    build=ExPLORe,
    settings=Settings,
    settings_name="explore",
    settings_group=GROUP,
    updates_per_step=updates_per_step,
    pretrained=True,
    tuning="arXiv 2302.02948, appendix; ensemble as in arXiv 2502.19544",
    search=SEARCH | {"optimism": Range(0.1, 10.0, log=True)},
)
