"""Offline episodes as a method is granted them, from arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import DataAccess, Units


def episode(observation: NDArray[Any], action: NDArray[np.float32]) -> EpisodeView:
    """A reward-free episode whose states need no scaling."""
    return EpisodeView(
        observation=observation,
        action=action,
        units=Units.identity(observation.shape[1]),
        action_dim=action.shape[1],
        access=DataAccess.REWARD_FREE,
    )
