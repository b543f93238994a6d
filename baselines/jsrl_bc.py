"""JSRL-BC: a behaviour-cloned prior begins every episode, then the learning policy takes over.

Uchendu et al., "Jump-Start Reinforcement Learning", arXiv 2204.02372, in the variant that draws at random how long the
guide acts (JSRL-Random), with the guide of WPT's paper (arXiv 2502.19544): the prior cloned from the retrieved
episodes, acting for 0, 10, ..., 100% of the episode. During the warm-up it drives whole episodes, as guidance does in
WPT. The learner sees only the run's own experience. Hyperparameters: RLPD's networks (arXiv 2302.02948, appendix); the
cloning is WPT's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wpt_bench.baselines import agent, comparators
from wpt_bench.baselines.agent import GROUP, updates_per_step
from wpt_bench.baselines.comparators import FAMILY, Comparator
from wpt_bench.baselines.soft_actor_critic import SEARCH
from wpt_bench.bounds import Positive, Size
from wpt_bench.protocol import AgentContext, DataAccess, Method, Progress, episode_seed
from wpt_bench.world_model.optimizer import Optimizer
from wpt_bench.wpt.guidance import ClonedPrior, clone_prior


class Settings(comparators.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module's first lines for where the values come from; ``prior_...`` are those of WPT's prior."""

    prior_updates: Size = 150_000
    prior_batch: Size = 256
    prior_lr: Positive = 1e-4
    prior_units: Size = 512
    prior_depth: Size = 48


@dataclass(frozen=True)
class Carry:
    """The learner's carry, and the agent steps for which the prior acts, from the last observations."""

    own: agent.Carry
    prior_steps: int
    seen: NDArray[Any] | None


class JumpStart(Comparator):
    """See the module's first lines."""

    warms_up = False  # the prior does

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        settings: Settings = context.settings
        self.prior = ClonedPrior(context.observation, settings.prior_units, settings.prior_depth).to(self.device)

    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """Networks and optimizers."""
        return {**super().parts(), "prior": self.prior}

    def offline(self, progress: Progress) -> dict[str, Any]:
        """Retrieves episodes and clones the prior from them."""
        diagnostics = super().offline(progress)
        settings: Settings = self.context.settings
        loss = clone_prior(
            self.prior,
            self.episodes,
            updates=settings.prior_updates,
            batch=settings.prior_batch,
            learning_rate=settings.prior_lr,
            seed=episode_seed(self.context.seed, "agent", 1),
            progress=progress,
        )
        return diagnostics | {"prior_loss": loss}

    def begin(self, batch: int, *, seed: int, evaluation: bool) -> Any:
        """A fresh carry; in training it says how long the prior acts."""
        steps = 0
        if not evaluation:
            rng = np.random.default_rng([seed, 1])  # not the stream in which the simulator begins
            tenths = 10 if self.warming_up else int(rng.integers(0, 11))
            steps = round(self.context.task.agent_steps * tenths / 10)
        return Carry(super().begin(batch, seed=seed, evaluation=evaluation), steps, None)

    def act(self, carry: Any, observation: NDArray[Any], *, evaluation: bool) -> tuple[NDArray[np.float32], Any]:
        """The prior's action or the learner's."""
        action, own = super().act(carry.own, observation, evaluation=evaluation)
        seen = None
        if own.step <= carry.prior_steps:
            seen = self.prior.stack(carry.seen, observation)
            action = self.prior.act(seen, self.context.units)[:, : action.shape[1]].cpu().numpy()
        return action, replace(carry, own=own, seen=seen)

    def episode_metrics(self, carry: Any) -> dict[str, float]:
        """How many agent steps of the episode the prior chose."""
        return {"guided_steps": float(carry.prior_steps)}


METHOD = Method(
    name="jsrl-bc",
    version=3,
    family=FAMILY,
    data_access=DataAccess.REWARD_FREE,
    observations=("state", "pixels"),
    paper="Jump-Start Reinforcement Learning, arXiv 2204.02372",
    build=JumpStart,
    settings=Settings,
    settings_name="jsrl-bc",
    settings_group=GROUP,
    updates_per_step=updates_per_step,
    pretrained=True,
    tuning="arXiv 2302.02948, appendix; the prior is WPT's",
    search=SEARCH,
)
