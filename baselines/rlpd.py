"""RLPD: soft actor-critic that learns from labelled offline data and its own experience, half and half.

Ball et al., "Efficient Online Reinforcement Learning with Offline Data", arXiv 2302.02948. What it adds to soft
actor-critic: symmetric sampling (every batch half offline, half online), LayerNorm in the critics against values that
run away on actions the data does not have, an ensemble of ten of which a random pair makes the target, and many critic
updates for each step. Hyperparameters: its appendix, with the range of the actor's deviation and the initial
temperature that `sac` has. Twenty updates per agent step would take a run of the `lite` size eight hours on a core:
small profiles make fewer, and update the actor with every one. From pixels: the encoder of DrQ-v2 and random shifts, as
in the paper.
"""

from __future__ import annotations

from wpt_bench.baselines.agent import GROUP, updates_per_step
from wpt_bench.baselines.soft_actor_critic import SEARCH, RLPDSettings, SoftActorCritic
from wpt_bench.baselines.transitions import Transitions
from wpt_bench.protocol import DataAccess, Method


class RLPD(SoftActorCritic):
    """See the module's first lines."""

    offline_share = 0.5

    def open_data(self) -> Transitions:
        """The task's labelled episodes."""
        return self.labelled()


METHOD = Method(
    name="rlpd",
    version=2,
    family="RLPD",
    data_access=DataAccess.LABELLED,
    observations=("state", "pixels"),
    paper="Efficient Online Reinforcement Learning with Offline Data, arXiv 2302.02948",
    build=RLPD,
    settings=RLPDSettings,
    settings_name="rlpd",
    settings_group=GROUP,
    updates_per_step=updates_per_step,
    tuning="arXiv 2302.02948, appendix",
    search=SEARCH,
)
