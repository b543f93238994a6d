"""A sequence of tasks: what the run of one task hands to the run of the next.

The next run starts from the final weights of the one before, and whatever was seen online in earlier tasks joins its
reward-free data: of another task's rewards it has no use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from wpt_bench import records
from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import DataAccess, Units, UserError
from wpt_bench.records import Identity, Run
from wpt_bench.running import checkpoint
from wpt_bench.running.plan import Layout

EARLIER = "earlier tasks"
"""What stands for the scene of an episode that was seen online in an earlier task of a sequence."""
WEIGHTS = "weights.safetensors"
REPLAY = "replay"


def replay_file(folder: Path, index: int) -> Path:
    """Of one training episode, in the folder of its run."""
    return folder / REPLAY / f"{index:06d}.safetensors"


def before_in_sequence(identity: Identity, layout: Layout) -> list[Run]:
    """The finished runs that came before in the sequence, first task first; none outside of a sequence.

    Raises:
        UserError: one of them is not finished, or a file of it is damaged. RecordError: a record cannot be read.
    """
    found: list[Run] = []
    after = identity.after
    while after is not None:
        run = records.read_run(layout.runs / after) if (layout.runs / after / records.RECORD).exists() else None
        if run is None or run.status != "done":
            raise UserError(f"The run {after}, which comes before in the sequence of tasks, is not finished; run it.")
        if damage := records.damaged(run.files, layout.runs / after):
            raise UserError(f"{damage}; delete {layout.runs / after} to make this run of the sequence again.")
        found.insert(0, run)
        after = run.identity.after
    return found


def inherited(before: Sequence[Run], layout: Layout) -> Mapping[str, Any] | None:
    """The final state of the agent of the last run before; None if there is none. Its file is whole, see above."""
    return checkpoint.decode(layout.runs / before[-1].id / WEIGHTS) if before else None


def seen_before(before: Sequence[Run], layout: Layout, units: Units) -> list[EpisodeView]:
    """All online episodes of the runs before, in their order, without rewards."""
    views = []
    for run in before:
        folder = layout.runs / run.id
        for index in range(run.env_steps // run.episode_length):
            episode = safetensors.numpy.load_file(replay_file(folder, index))
            views.append(
                EpisodeView(
                    observation=_frozen(episode["observation"]),
                    action=_frozen(episode["action"]),
                    units=units if episode["observation"].ndim == 2 else Units.identity(0),
                    action_dim=episode["action"].shape[1],
                    access=DataAccess.REWARD_FREE,
                )
            )
    return views


def _frozen(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array
