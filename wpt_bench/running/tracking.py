"""Curves of a run for people to watch: TensorBoard's files in its folder, Weights & Biases if it is asked for.

Nothing depends on them: a tracker that fails says so once, and the run goes on without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from wpt_bench.protocol import UserError
from wpt_bench.records import Episode, Run


class Tracker(Protocol):
    """Takes points of a run's curves."""

    def add(self, step: int, values: dict[str, float]) -> None:
        """Values by name at an environment step; steps never fall."""
        ...

    def close(self) -> None:
        """Writes what is left."""
        ...


class TensorBoard:
    """Event files below ``tensorboard/`` in the run's folder."""

    def __init__(self, folder: Path, run: Run, begin: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # half a second that other commands need not spend

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=begin)

    def add(self, step: int, values: dict[str, float]) -> None:
        """One scalar for each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # so that whoever watches sees it now, and not two minutes later

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases with the run's own id, gone on with after an interruption."""

    def __init__(self, folder: Path, run: Run, begin: int) -> None:
        import wandb

        identity = run.identity
        self._run = wandb.init(
            id=run.id,
            resume="allow",
            dir=str(folder),
            name=f"{identity.method} {identity.task} {identity.seed}",
            group=f"{identity.suite}-{identity.profile}",
            config={"method": identity.method, "task": identity.task, "seed": identity.seed, **identity.settings},
        )

    def add(self, step: int, values: dict[str, float]) -> None:
        """All at once; wandb takes no step that it has passed, so none is doubled."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Uploads what is left."""
        self._run.finish()


_TRACKERS: dict[str, Callable[[Path, Run, int], Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb}


def chosen(text: str) -> tuple[str, ...]:
    """Names of trackers, separated by commas, or ``none``; UserError if one is unknown or not installed."""
    from importlib.util import find_spec

    names = tuple(name.strip() for name in text.split(",") if name.strip() not in ("", "none"))
    for name in names:
        if name not in _TRACKERS:
            raise UserError(f"There is no tracker {name!r}; choose tensorboard, wandb, both with a comma, or none.")
        if find_spec(name) is None:
            raise UserError(f"The tracker {name} is not installed; install it: pip install {name}.")
    return names


class Trackers:
    """All trackers of a run.

    Args:
        names: as ``chosen`` returns them.
        folder: of the run.
        begin: the first environment step whose points are still to come; later ones that an interrupted process has
            left are dropped.
    """

    def __init__(self, names: Sequence[str], folder: Path, run: Run, begin: int) -> None:
        self._live: dict[str, Tracker] = {}
        for name in names:
            self._try(name, self._begin, name, folder, run, begin)

    def add(self, episodes: Sequence[Episode]) -> None:
        """A training episode, or all episodes of one evaluation, of the agent or of its prior."""
        first = episodes[0]
        values = {
            "return": sum(row.episode_return for row in episodes) / len(episodes),
            "success": sum(row.success_last for row in episodes) / len(episodes),
        }
        points = {f"{first.kind}/{name}": value for name, value in values.items()}
        whose = "update" if first.kind == "train" else first.kind
        points |= {
            f"{whose}/{name}": sum(row.metrics[name] for row in episodes) / len(episodes)
            for name in first.metrics
            if all(name in row.metrics for row in episodes)
        }
        for name, tracker in list(self._live.items()):
            self._try(name, tracker.add, first.env_step, points)

    def close(self) -> None:
        """Writes what is left."""
        for name, tracker in list(self._live.items()):
            self._try(name, tracker.close)

    def _begin(self, name: str, folder: Path, run: Run, begin: int) -> None:
        self._live[name] = _TRACKERS[name](folder, run, begin)

    def _try(self, name: str, what: Callable[..., None], *arguments: Any) -> None:
        try:
            what(*arguments)
        except Exception as error:  # whatever it is, the run is worth more
            self._live.pop(name, None)
            message = f"The tracker {name} failed and is left out ({type(error).__name__}: {error})."
            warnings.warn(message, stacklevel=2)
