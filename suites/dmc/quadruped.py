"""Quadruped tasks beside dm_control's own: the same quadruped, other rewards, random initial orientation."""

from __future__ import annotations

from typing import Any

import numpy as np
from dm_control.suite import common, quadruped
from dm_control.utils import rewards

CONTROL_TIMESTEP = 0.02
WALK_SPEED = 0.5
RUN_SPEED = 5.0
_JUMP_HEIGHT = 1.0


def physics() -> quadruped.Physics:
    """dm_control's quadruped on the floor of its running task: 100 m each way."""
    return quadruped.Physics.from_xml_string(quadruped.make_model(floor_size=100), common.ASSETS)


class Stand(quadruped.Move):
    """Torso upright."""

    def __init__(self) -> None:
        super().__init__(desired_speed=0)

    def get_reward(self, physics: Any) -> float:
        """0 upside down to 1 upright."""
        return _upright(physics)


class Jump(Stand):
    """Centre of mass high, torso upright."""

    def get_reward(self, physics: Any) -> float:
        """Upright times centre of mass at 1 m, in [0, 1]."""
        return _upright(physics) * _at_least(physics.named.data.sensordata["center_of_mass"][2], _JUMP_HEIGHT)


class Roll(quadruped.Move):
    """Moving fast in any direction of the body: the speed counts, the heading does not."""

    def get_reward(self, physics: Any) -> float:
        """Upright times speed over ``desired_speed``, in [0, 1]."""
        return _upright(physics) * _at_least(np.linalg.norm(physics.torso_velocity()), self._desired_speed)


def _upright(physics: Any) -> float:
    return float(
        rewards.tolerance(physics.torso_upright(), bounds=(1, np.inf), margin=2, value_at_margin=0, sigmoid="linear")
    )


def _at_least(value: Any, target: float) -> float:
    return float(
        rewards.tolerance(value, bounds=(target, np.inf), margin=target, value_at_margin=0.5, sigmoid="linear")
    )
