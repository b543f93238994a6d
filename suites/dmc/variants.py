"""What variants of dm_control's tasks share: the ``-hard`` reward, and a floor of one's own."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
from dm_control.suite import acrobot


class HardReward:
    """The paper's ``-hard`` reward, to be mixed into a task: small rewards are lost and actions cost.

    Per frame the reward becomes 0 where it is below ``threshold``, and then a tenth of the action's Euclidean norm is
    taken off. The bodies that have a ``-hard`` task take actions in [-1, 1] as they are: their controls are the action.
    """

    threshold = 0.6
    action_cost = 0.1

    def get_reward(self, physics: Any) -> float:
        """The thresholded reward less the cost of the action; may be negative."""
        reward: float = super().get_reward(physics)  # type: ignore[misc]
        kept = reward if reward >= self.threshold else 0.0
        return kept - self.action_cost * float(np.linalg.norm(physics.control()))


class HardSwingup(HardReward, acrobot.Balance):
    """``acrobot-swingup`` with the ``-hard`` reward."""


def set_floor(xml: str | bytes, geom: str, *, pos: str, size: str) -> str:
    """The model with its floor plane moved and resized.

    MuJoCo's planes are infinite for contacts, so this changes pictures only: a body that goes backwards does not leave
    the drawn floor, and a picture does not tell tasks of one embodiment apart.
    """
    root = ElementTree.fromstring(xml)
    floor = root.find(f".//geom[@name='{geom}']")
    if floor is None:
        raise ValueError(f"The model has no geom {geom!r}.")
    floor.set("pos", pos)
    floor.set("size", size)
    return ElementTree.tostring(root, encoding="unicode")
