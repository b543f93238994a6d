"""SAC: soft actor-critic, learning from scratch.

Haarnoja et al., arXiv 1801.01290 and 1812.05905. Two critics, the temperature tuned to an entropy of minus one per
action dimension. Hyperparameters: the second paper's (table 1): step size 3e-4, batches of 256, two layers of 256,
slow copies at 0.005, one update per decision; initial temperature 0.1 and the range of the actor's deviation are those
of Yarats and Kostrikov's implementation for DMControl.
"""

from __future__ import annotations

from wpt_bench.baselines import soft_actor_critic
from wpt_bench.baselines.agent import GROUP, updates_per_step
from wpt_bench.baselines.soft_actor_critic import SEARCH, SoftActorCritic
from wpt_bench.bounds import Positive
from wpt_bench.protocol import DataAccess, Method


class Settings(soft_actor_critic.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module's first lines for where the values come from."""

    temperature: Positive = 0.1


METHOD = Method(
    name="sac",
    version=1,
    family="From scratch",
    data_access=DataAccess.NONE,
    observations=("state",),
    paper="Soft Actor-Critic Algorithms and Applications, arXiv 1812.05905",
    build=SoftActorCritic,
    settings=Settings,
    settings_name="sac",
    settings_group=GROUP,
    updates_per_step=updates_per_step,
    tuning="arXiv 1812.05905, table 1; pytorch_sac for DMControl",
    search=SEARCH,
)
