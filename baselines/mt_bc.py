"""Multi-task behaviour cloning: one policy imitates the demonstrations of all tasks of a suite.

The plain ancestor of multi-task imitation (BC-Z, arXiv 2202.02005; BAKU, arXiv 2406.07539): a deterministic policy over
padded observations and a learned embedding of the task, by squared error over the real dimensions of the action, each
task equally often. It is granted what the others are not, the best tenth of each task's episodes by return (or the
successful ones), which the report flags as privileged selection.

Hyperparameters: those of TD3+BC's behaviour cloning (arXiv 2106.06860): Adam at 3e-4, batches of 256, layers of 256.
From pixels: DrQ-v2's encoder and random shifts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wpt_bench.baselines import agent
from wpt_bench.baselines.agent import GROUP, ModelFreeAgent, offline_updates, optimizer
from wpt_bench.baselines.networks import Deterministic
from wpt_bench.baselines.transitions import Batch, Transitions, of_all_tasks
from wpt_bench.bounds import Count
from wpt_bench.protocol import STEP_SIZES, AgentContext, DataAccess, Method
from wpt_bench.world_model.optimizer import Optimizer


class Settings(agent.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module's first lines for where the values come from; ``offline_updates`` are all there are."""

    offline_updates: Count = 1_000_000


class BehaviourCloning(ModelFreeAgent):
    """See the module's first lines."""

    warms_up = False

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context, multi_task=True)
        settings: Settings = context.settings
        self.actor = Deterministic(self.eyes, settings.hidden, settings.layers, self.sight.action_dim).to(self.device)
        self._optimizer = optimizer(nn.ModuleList([self.eyes, self.actor]), settings.learning_rate)

    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """The policy and its optimizer."""
        return {"actor": self.actor, "optimizer": self._optimizer}

    def open_data(self) -> Transitions:
        """The demonstrations of all tasks."""
        return of_all_tasks(self.sight, self.context.data.episodes(), self.tasks)

    def policy(self, feature: Tensor, generator: torch.Generator | None) -> Tensor:
        """Always the same action: there is no online step to explore in."""
        return self.actor(feature)

    def learn(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """One step of imitation."""
        action = self.actor(self.eyes(batch.observation, batch.task))
        loss = cloning_loss(action, batch.action, batch.mask)
        self._optimizer.step(loss)
        return {"cloning_loss": loss.detach()}


def cloning_loss(action: Tensor, data_action: Tensor, mask: Tensor) -> Tensor:
    """Squared error averaged over the real dimensions of all rows: ``(N, action_dim)`` each, to a scalar."""
    return (((action - data_action) * mask) ** 2).sum() / mask.sum()


METHOD = Method(
    name="mt-bc",
    version=1,
    family="MT IL",
    data_access=DataAccess.DEMONSTRATIONS,
    observations=("state", "pixels"),
    paper="BC-Z: Zero-Shot Task Generalization with Robotic Imitation Learning, arXiv 2202.02005",
    build=BehaviourCloning,
    settings=Settings,
    settings_name="mt-bc",
    settings_group=GROUP,
    updates_per_step=lambda settings: 0.0,
    offline_updates=offline_updates,
    online=False,
    shared=True,
    tuning="arXiv 2106.06860, appendix (its behaviour cloning)",
    search={"learning_rate": STEP_SIZES},  # it has no other that costs nothing
)
