"""Walker tasks beside dm_control's own: the same planar walker, other rewards."""

from __future__ import annotations

from typing import Any

import numpy as np
from dm_control.suite import walker
from dm_control.utils import rewards

from wpt_bench.suites.dmc.variants import HardReward, set_floor

CONTROL_TIMESTEP = 0.025
_STAND_HEIGHT = 1.2
_UPSIDE_DOWN_THIGH_HEIGHT = 1.0
_UPSIDE_DOWN_FOOT_HEIGHT = 1.1
_BACKFLIP_SPEED = 6.0  # three quarters of the running speed


def physics() -> walker.Physics:
    """dm_control's walker on a floor that reaches as far backwards as forwards."""
    xml, assets = walker.get_model_and_assets()
    return walker.Physics.from_xml_string(set_floor(xml, "floor", pos="0 0 0", size="250 .8 .2"), assets)


class Backwards(walker.PlanarWalker):
    """Dm_control's walking and running reward with the direction of travel turned round."""

    def get_reward(self, physics: Any) -> float:
        """Standing times moving in -x at ``move_speed``, in [0, 1]."""
        standing = rewards.tolerance(physics.torso_height(), bounds=(_STAND_HEIGHT, np.inf), margin=_STAND_HEIGHT / 2)
        upright = (1 + physics.torso_upright()) / 2
        moving = _speed_reward(-physics.horizontal_velocity(), self._move_speed)
        return float((3 * standing + upright) / 4 * (5 * moving + 1) / 6)


class Backflip(walker.PlanarWalker):
    """Legs in the air while moving backwards fast, which only turning over and over does."""

    def __init__(self) -> None:
        super().__init__(move_speed=_BACKFLIP_SPEED)

    def get_reward(self, physics: Any) -> float:
        """Feet and thighs high, times moving in -x at 6 m/s, in [0, 1]."""
        height = physics.named.data.xpos
        thighs = (height["left_thigh", "z"] + height["right_thigh", "z"]) / 2
        feet = (height["left_foot", "z"] + height["right_foot", "z"]) / 2
        thighs_up = rewards.tolerance(
            thighs, bounds=(_UPSIDE_DOWN_THIGH_HEIGHT, np.inf), margin=_UPSIDE_DOWN_THIGH_HEIGHT / 2
        )
        feet_up = rewards.tolerance(
            feet, bounds=(_UPSIDE_DOWN_FOOT_HEIGHT, np.inf), margin=_UPSIDE_DOWN_FOOT_HEIGHT / 2
        )
        moving = _speed_reward(-physics.horizontal_velocity(), self._move_speed)
        return float((3 * feet_up + 2 * thighs_up) / 5 * (5 * moving + 1) / 6)


class HardWalk(HardReward, walker.PlanarWalker):
    """``walker-walk`` with the ``-hard`` reward."""


def _speed_reward(speed: float, target: float) -> float:
    return float(
        rewards.tolerance(speed, bounds=(target, np.inf), margin=target / 2, value_at_margin=0.5, sigmoid="linear")
    )
