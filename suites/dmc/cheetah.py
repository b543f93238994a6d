"""Cheetah tasks beside dm_control's own: the same cheetah, other rewards."""

from __future__ import annotations

from typing import Any

import numpy as np
from dm_control.suite import cheetah
from dm_control.utils import rewards

from wpt_bench.suites.dmc.variants import HardReward, set_floor

_UP_HEIGHT = 1.2
_JUMP_SPEED = 0.5
_BACKWARDS_SPEED = 8.0  # four fifths of the running speed
_ONE_FOOT_SPEED = 6.0  # three fifths of the running speed


def physics() -> cheetah.Physics:
    """dm_control's cheetah on a floor that reaches as far backwards as forwards."""
    xml, assets = cheetah.get_model_and_assets()
    return cheetah.Physics.from_xml_string(set_floor(xml, "ground", pos="0 0 0", size="250 .8 .5"), assets)


class RunBackwards(cheetah.Cheetah):
    """Dm_control's running reward with the direction turned round, at 8 m/s."""

    def get_reward(self, physics: Any) -> float:
        """Speed in -x over 8 m/s, in [0, 1]."""
        return _linear(-physics.speed(), _BACKWARDS_SPEED)


class RunOneFoot(cheetah.Cheetah):
    """Running at 6 m/s with the torso and one foot high: on the front or on the back foot only."""

    def __init__(self, raised: str) -> None:
        """Takes the body that must be in the air: ``bfoot`` (run-front) or ``ffoot`` (run-back)."""
        super().__init__()
        self._raised = raised

    def get_reward(self, physics: Any) -> float:
        """Foot and torso at 1.2 m, times running at 6 m/s, in [0, 1]."""
        height = physics.named.data.xpos
        up = (3 * _raised(height[self._raised, "z"]) + 2 * _raised(height["torso", "z"])) / 5
        return up * (5 * _linear(physics.speed(), _ONE_FOOT_SPEED) + 1) / 6


class Jump(cheetah.Cheetah):
    """Torso and both feet high while staying near one place."""

    def get_reward(self, physics: Any) -> float:
        """Mean over the feet of (foot and torso at 1.2 m) and (slower than 0.5 m/s), in [0, 1]."""
        height = physics.named.data.xpos
        torso = height["torso", "z"]
        still = rewards.tolerance(
            physics.speed(),
            bounds=(-_JUMP_SPEED, _JUMP_SPEED),
            margin=_JUMP_SPEED,
            value_at_margin=0,
            sigmoid="linear",
        )
        up = (_raised((torso + height["bfoot", "z"]) / 2) + _raised((torso + height["ffoot", "z"]) / 2)) / 2
        return float((5 * up + still) / 6)


class HardRun(HardReward, cheetah.Cheetah):
    """``cheetah-run`` with the ``-hard`` reward; its threshold is lower, as running fast is rarer."""

    threshold = 0.2


def _raised(height: float) -> float:
    return float(rewards.tolerance(height, bounds=(_UP_HEIGHT, np.inf), margin=_UP_HEIGHT / 2))


def _linear(speed: float, target: float) -> float:
    return float(rewards.tolerance(speed, bounds=(target, np.inf), margin=target, value_at_margin=0, sigmoid="linear"))
