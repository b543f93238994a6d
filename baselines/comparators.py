"""What the reward-free comparators share: they work with the retrieved episodes, which have no rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wpt_bench.baselines.soft_actor_critic import RLPDSettings, SoftActorCritic
from wpt_bench.baselines.transitions import Transitions, of_episodes
from wpt_bench.bounds import Size
from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import AgentContext, Progress
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.wpt.retrieval import retrieve

FAMILY = "Reward-free comparators"


class Settings(RLPDSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The learner is RLPD's for all three.

    Attributes:
        world_model, retrieved: taken from the profile; the pre-trained encoder does the retrieval, as in WPT.
    """

    world_model: WorldModelSize
    retrieved: Size = 500


class Comparator(SoftActorCritic):
    """Retrieves the episodes that WPT would rehearse, before it begins."""

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        self.retrieved: list[int] = []

    def offline(self, progress: Progress) -> dict[str, Any]:
        """Retrieves, then opens what was retrieved."""
        progress(0.0, "retrieving episodes")
        settings: Settings = self.context.settings
        self.retrieved = retrieve(self.context, self.context.data.episodes(), settings.world_model, settings.retrieved)
        return {"retrieved": self.retrieved} | super().offline(progress)

    @property
    def episodes(self) -> list[EpisodeView]:
        """The retrieved episodes."""
        granted = self.context.data.episodes()
        return [granted[index] for index in self.retrieved]

    def unrewarded(self) -> Transitions:
        """Their transitions, all rewards zero."""
        table = of_episodes(self.sight, self.episodes)
        for episode in self.episodes:
            table.add_episode(episode, np.zeros(len(episode), np.float32))
        return table

    def state_dict(self) -> dict[str, Any]:
        """Everything but the replay, flat."""
        return super().state_dict() | {"retrieved": list(self.retrieved)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""
        super().load_state_dict(state)
        self.retrieved = list(state["retrieved"])
