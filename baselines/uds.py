"""UDS: unlabelled episodes count as rewarded zero.

Yu et al., "How to Leverage Unlabeled Data in Offline Reinforcement Learning", arXiv 2202.01741: the simplest way to use
data without rewards is to say that nothing in it earned any. As in WPT's paper (arXiv 2502.19544, figure 3) the learner
is RLPD's (arXiv 2302.02948) on half retrieved, half own transitions, and the episodes are those that WPT retrieves.
Hyperparameters: RLPD's.
"""

from __future__ import annotations

from wpt_bench.baselines.agent import GROUP, updates_per_step
from wpt_bench.baselines.comparators import FAMILY, Comparator, Settings
from wpt_bench.baselines.soft_actor_critic import SEARCH
from wpt_bench.baselines.transitions import Transitions
from wpt_bench.protocol import DataAccess, Method


class UDS(Comparator):
    """See the module's first lines."""

    offline_share = 0.5

    def open_data(self) -> Transitions:
        """The retrieved episodes, all rewards zero."""
        return self.unrewarded()


METHOD = Method(
    name="uds",
    version=2,
    family=FAMILY,
    data_access=DataAccess.REWARD_FREE,
    observations=("state", "pixels"),
    paper="How to Leverage Unlabeled Data in Offline Reinforcement Learning, arXiv 2202.01741",
    build=UDS,
    settings=Settings,
    settings_name="uds",
    settings_group=GROUP,
    updates_per_step=updates_per_step,
    pretrained=True,
    tuning="arXiv 2302.02948, appendix",
    search=SEARCH,
)
