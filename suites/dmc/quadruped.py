"""Quadruped tasks: dm_control's own, reset alike on every processor, and others of the same body."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
from dm_control.suite import base, common, quadruped
from dm_control.utils import rewards

CONTROL_TIMESTEP = 0.02
WALK_SPEED = 0.5
RUN_SPEED = 5.0
_JUMP_HEIGHT = 1.0


def physics() -> quadruped.Physics:
    """dm_control's quadruped on the floor of its running task: 100 m each way."""
    return quadruped.Physics.from_xml_string(quadruped.make_model(floor_size=100), common.ASSETS)


class Move(quadruped.Move):
    """Walking or running forward: dm_control's task but for the last bit of some initial orientations.

    dm_control divides the random orientation by a norm that BLAS sums, on some processors with fused multiply-adds and
    on others without; one bit is another episode after a second. Here it is summed in the first way everywhere, which
    is bit for bit dm_control's reset on processors with AVX-512 whose BLAS uses it.
    """

    def initialize_episode(self, physics: Any) -> None:
        """A random orientation, as low as it touches nothing."""
        orientation = self.random.randn(4)
        orientation /= norm(orientation)
        quadruped._find_non_contacting_height(physics, orientation)
        base.Task.initialize_episode(self, physics)


def norm(vector: Iterable[float]) -> float:
    """Euclidean norm, summed in order, with each product and the sum before it rounded together, once."""
    total = 0.0
    for value in vector:
        total = float(Fraction(float(value)) ** 2 + Fraction(total))
    return math.sqrt(total)


class Stand(Move):
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


class Roll(Move):
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
