"""CQL, offline; and Cal-QL, which starts from the same offline learning and goes on online.

CQL: Kumar et al., "Conservative Q-Learning for Offline Reinforcement Learning", arXiv 2006.04779. Soft actor-critic
whose critics pay for values of actions that the data does not have: CQL(H), eq. 4, whose
log-sum-exp over actions is estimated by importance sampling from ten uniform and twice ten policy actions (appendix F).
Cal-QL: Nakamoto et al., arXiv 2303.05479. The policy's values are not pushed below the return that the data's own
policy has from there (eq. 5.1), so that going online does not begin with unlearning; half of each batch stays offline.

Hyperparameters: those of the authors' repository for locomotion (github.com/aviralkumar2907/CQL, its README): weight 5,
policy step size 1e-4, importance sampling, no Lagrange multiplier; critics at 3e-4, target without entropy, three
layers of 256. Cal-QL takes the same, so that the two differ by the bound alone, and mixes batches half and half.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wpt_bench.baselines import soft_actor_critic
from wpt_bench.baselines.agent import GROUP, offline_updates, updates_per_step
from wpt_bench.baselines.soft_actor_critic import SoftActorCritic
from wpt_bench.baselines.transitions import Batch, Transitions
from wpt_bench.bounds import Count, Positive, Size, Weight
from wpt_bench.protocol import STEP_SIZES, AgentContext, DataAccess, Method, Range

PIECE = 1024
"""Rows that the critics take at a time: what they compute then stays in a core's cache."""
SEARCH = {"learning_rate": STEP_SIZES, "actor_rate": STEP_SIZES, "weight": Range(0.1, 20.0, log=True)}


class Settings(soft_actor_critic.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module's first lines for where the values come from.

    Attributes:
        offline_updates: on the offline data, before any environment step.
        weight: of the conservative term.
        actions: uniform ones, and as many of the policy at each end of the transition.
    """

    layers: Count = 3
    offline_updates: Count = 1_000_000
    actor_rate: Positive = 1e-4
    entropy_in_target: bool = False
    weight: Weight = 5.0
    actions: Size = 10


class CQL(SoftActorCritic):
    """See the module's first lines; ``calibrated`` makes it Cal-QL."""

    offline_share = 0.5
    warms_up = False

    def __init__(self, context: AgentContext, *, calibrated: bool) -> None:
        super().__init__(context)
        self.calibrated = calibrated
        self.conservative: Settings = context.settings

    def open_data(self) -> Transitions:
        """The task's labelled episodes."""
        return self.labelled()

    def critic_loss(
        self, batch: Batch, feature: Tensor, next_feature: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Temporal-difference error plus the conservative term."""
        loss, metrics = super().critic_loss(batch, feature, next_feature, generator)
        action, log_density = self._probes(feature, next_feature, generator)
        parts = action.split(max(1, PIECE // len(feature)))
        value = torch.cat([self._values(feature, part) for part in parts], 1)
        if self.calibrated:
            value = calibrated(value, self.conservative.actions, batch.to_go)
        gap = conservative_gap(value, log_density, self.critic(feature, batch.action))
        metrics |= {"conservative_gap": gap.detach().mean()}
        return loss + self.conservative.weight * gap.sum(), metrics

    def _values(self, feature: Tensor, action: Tensor) -> Tensor:
        """Of features ``(N, ...)`` with actions ``(probes, N, action_dim)``: ``(members, probes, N)``."""
        return self.critic(feature.repeat(len(action), 1), action.flatten(0, 1)).unflatten(1, action.shape[:2])

    @torch.no_grad()
    def _probes(self, feature: Tensor, next_feature: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Actions ``(3 actions, N, action_dim)``, uniform ones first, and their log-densities ``(3 actions, N)``."""
        count, dim = self.conservative.actions, self.sight.action_dim
        uniform = torch.rand((count, len(feature), dim), generator=generator, device=feature.device) * 2 - 1
        actions, densities = [uniform], [torch.full(uniform.shape[:2], -dim * math.log(2), device=feature.device)]
        for seen in (feature, next_feature):
            action, log_prob = self.actor.sample(seen.repeat(count, 1), generator)
            actions.append(action.view(count, len(feature), dim))
            densities.append(log_prob.view(count, len(feature)))
        return torch.cat(actions), torch.cat(densities)


def conservative_gap(value: Tensor, log_density: Tensor, data_value: Tensor) -> Tensor:
    """The soft maximum of the values over all actions less the value of the data's action, averaged over states.

    Args:
        value: of probes, float ``(members, probes, N)``.
        log_density: with which each probe was drawn, float ``(probes, N)``.
        data_value: float ``(members, N)``.

    Returns:
        float ``(members,)``. The log of the mean would be the estimate; as in the authors' code it is that of the sum,
        which differs by a constant.
    """
    return (torch.logsumexp(value - log_density, 1) - data_value).mean(-1)


def calibrated(value: Tensor, uniform: int, to_go: Tensor) -> Tensor:
    """Values of which those of the policy's probes are at least the return that the data went on to (eq. 5.1).

    Args:
        value: float ``(members, probes, N)``, of which the first ``uniform`` probes are not the policy's.
        uniform: number of these.
        to_go: float ``(N,)``; -inf where the episode is unfinished, which bounds nothing.
    """
    return torch.cat([value[:, :uniform], value[:, uniform:].maximum(to_go)], 1)


def _cql(context: AgentContext) -> CQL:
    return CQL(context, calibrated=False)


def _cal_ql(context: AgentContext) -> CQL:
    return CQL(context, calibrated=True)


METHODS = (
    Method(
        name="cql",
        version=1,
        family="Offline RL",
        data_access=DataAccess.LABELLED,
        observations=("state",),
        paper="Conservative Q-Learning for Offline Reinforcement Learning, arXiv 2006.04779",
        build=_cql,
        settings=Settings,
        settings_name="cql",
        settings_group=GROUP,
        updates_per_step=lambda settings: 0.0,
        offline_updates=offline_updates,
        online=False,
        tuning="its authors' repository, for locomotion",
        search=SEARCH,
    ),
    Method(
        name="cal-ql",
        version=2,
        family="Off2On RL",
        data_access=DataAccess.LABELLED,
        observations=("state",),
        paper="Cal-QL: Calibrated Offline RL Pre-Training for Efficient Online Fine-Tuning, arXiv 2303.05479",
        build=_cal_ql,
        settings=Settings,
        settings_name="cal-ql",
        settings_group=GROUP,
        updates_per_step=updates_per_step,
        offline_updates=offline_updates,
        tuning="those of cql here",
        search=SEARCH,
    ),
)
