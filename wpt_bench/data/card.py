"""The data card: what was collected, and how good it is at each task. "Mixed quality" becomes a measured statement.

``card`` computes it from the labels, ``table`` shows it; a ``Card`` is JSON through ``msgspec``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from wpt_bench.data.labels import Labels, labels
from wpt_bench.data.store import Dataset, EpisodeInfo
from wpt_bench.protocol import Progress, Suite, Task, UserError

ALL = "all"


class CardRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The episodes that one collector recorded in one scene, judged by one task.

    Attributes:
        embodiment, scene: where they were recorded.
        collector: the kind of behaviour, or ``all``.
        task: name of the task whose rewards judge them; None where no task of the card fits the scene.
        episodes, agent_steps: how many.
        best, median, mean: of the undiscounted returns; None without a task.
        success: share that succeeds at the last step, 0 to 1; None unless success is the task's score.
        retrieved: mean return of the episodes that retrieval picks for the task; on the row of ``all``, if known.
    """

    embodiment: str
    scene: str
    collector: str
    task: str | None
    episodes: int
    agent_steps: int
    best: float | None = None
    median: float | None = None
    mean: float | None = None
    success: float | None = None
    retrieved: float | None = None


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The card of one data set, and the digest that says which."""

    suite: str
    name: str
    digest: str
    episodes: int
    agent_steps: int
    rows: list[CardRow]


def card(
    dataset: Dataset,
    suite: Suite,
    tasks: Sequence[Task],
    retrieved: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> Card:
    """Judges the episodes of every scene by each of ``tasks`` that belongs to it, per collector and together.

    Args:
        dataset: what to describe.
        suite: computes the labels.
        tasks: those to judge by; UserError for one whose scene was not collected.
        retrieved: mean return of what retrieval picks, by task name.
        progress: told the fraction of the tasks done.
    """
    scenes: dict[str, list[EpisodeInfo]] = {}
    for info in dataset.episodes:
        scenes.setdefault(info.scene, []).append(info)
    missing = [task.name for task in tasks if task.scene not in scenes]
    if missing:
        raise UserError(f"The data in {dataset.path} has no episode for {', '.join(missing)}; collect it first.")
    rows: list[CardRow] = []
    for scene, infos in sorted(scenes.items()):
        here = [task for task in tasks if task.scene == scene]
        rows += [] if here else _rows(infos, None, None, None)
        for task in here:
            if progress is not None:
                progress(list(tasks).index(task) / len(tasks), f"data card: {task.name}")
            labelled = labels(dataset, suite, task, [info.index for info in infos])
            rows += _rows(infos, task, labelled, (retrieved or {}).get(task.name))
    return Card(
        suite=dataset.suite,
        name=dataset.manifest.name,
        digest=dataset.digest,
        episodes=len(dataset.episodes),
        agent_steps=sum(info.length for info in dataset.episodes),
        rows=rows,
    )


def table(card: Card) -> Table:
    """The card as a table for a terminal of 80 columns; columns without any number are left out."""
    result = Table(
        title=f"{card.suite} data {card.digest}: {card.episodes} episodes, {card.agent_steps} agent steps",
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    columns: dict[str, list[str]] = {
        "task": [row.task or f"{row.scene} (no task)" for row in card.rows],
        "collector": [row.collector for row in card.rows],
        "episodes": [str(row.episodes) for row in card.rows],
        "best": [_number(row.best, 1) for row in card.rows],
        "median": [_number(row.median, 1) for row in card.rows],
        "mean": [_number(row.mean, 1) for row in card.rows],
        "success": [_number(row.success, 2) for row in card.rows],
        "retrieved": [_number(row.retrieved, 1) for row in card.rows],
    }
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    for heading in shown:
        result.add_column(heading, justify="left" if heading in ("task", "collector") else "right", no_wrap=True)
    for cells in zip(*shown.values(), strict=True):
        result.add_row(*cells)
    return result


def _number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _rows(
    infos: Sequence[EpisodeInfo], task: Task | None, labelled: Sequence[Labels] | None, retrieved: float | None
) -> list[CardRow]:
    """A row for each collector of a scene, and one for all of them if there are more or retrieval is to be shown."""
    collectors = sorted({info.collector for info in infos})
    result = []
    for collector in [*collectors, *([ALL] if len(collectors) > 1 or retrieved is not None else [])]:
        chosen = [position for position, info in enumerate(infos) if collector in (ALL, info.collector)]
        row = CardRow(
            embodiment=infos[0].embodiment,
            scene=infos[0].scene,
            collector=collector,
            task=None if task is None else task.name,
            episodes=len(chosen),
            agent_steps=sum(infos[position].length for position in chosen),
        )
        if task is not None and labelled is not None:
            returns = np.array([labelled[position][0].sum(dtype=np.float64) for position in chosen])
            last = np.array([labelled[position][1][-1] for position in chosen])
            row = msgspec.structs.replace(
                row,
                best=float(returns.max()),
                median=float(np.median(returns)),
                mean=float(returns.mean()),
                success=float(last.mean()) if task.score == "success" else None,
                retrieved=retrieved if collector == ALL else None,
            )
        result.append(row)
    return result
