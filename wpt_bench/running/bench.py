"""What has to be there before a grid can run, its data, and what is told of it afterwards beside the records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from wpt_bench import records, registry
from wpt_bench.data.card import Card, card
from wpt_bench.data.collect import collect
from wpt_bench.data.labels import labels
from wpt_bench.data.store import Dataset
from wpt_bench.protocol import Progress, Task, UserError
from wpt_bench.records import Run, digest
from wpt_bench.running.plan import Layout, Selection, identities, stages
from wpt_bench.running.stages import open_loop

Confirm = Callable[[str], bool]
"""Asks the user a yes-or-no question."""


def find_data(selection: Selection, layout: Layout) -> Dataset | None:
    """The data set of the grid if it has been collected, with whatever scenes it has."""
    folder = layout.data(selection.suite, selection.profile.name)
    return Dataset.open(folder) if (folder / "manifest.json").exists() else None


def missing_scenes(selection: Selection, dataset: Dataset | None) -> list[str]:
    """Scenes that the grid needs and the data set lacks."""
    present = {info.scene for info in dataset.episodes} if dataset else set()
    return [scene for scene in selection.scenes if scene not in present]


def refuse_missing_episodes(selection: Selection) -> None:
    """UserError where collecting the grid's data would leave a scene without an episode."""
    grid = selection.grid
    jobs = registry.suite(selection.suite).collection_jobs(grid.data, selection.scenes, grid.data.seed)
    filled = {job.settings["scene"] for job in jobs if job.episodes}
    if empty := [scene for scene in selection.scenes if scene not in filled]:
        raise UserError(
            f"[grids.{selection.suite}.data] of the profile {selection.profile.name!r} asks for no episodes of "
            f"{', '.join(empty)}; raise its numbers of episodes."
        )


def ensure_data(
    selection: Selection,
    layout: Layout,
    progress: Progress,
    confirm: Confirm,
    *,
    workers: int,
    recorded: Path | None = None,
) -> Dataset:
    """The grid's data set, collected as far as it is missing, or played from what is ``recorded``, see ``collect``.

    Adding scenes to data that is there changes its digest, so that pre-training and all runs on it are made again:
    that is asked for first.
    """
    dataset = find_data(selection, layout)
    missing = missing_scenes(selection, dataset)
    if dataset is not None and not missing:
        return dataset
    if dataset is not None and not confirm(
        f"The data has no episodes of {', '.join(missing)}. Collect them? Pre-training and the runs that use the data "
        "will then be made again."
    ):
        raise UserError(f"Without data of {', '.join(missing)} these tasks cannot run; choose others or say --yes.")
    refuse_missing_episodes(selection)
    return collect(
        registry.suite(selection.suite),
        selection.grid.data,
        selection.scenes,
        selection.grid.data.seed,
        layout.data(selection.suite, selection.profile.name),
        workers=workers,
        progress=progress,
        recorded=recorded,
    )


def data_card(selection: Selection, layout: Layout, dataset: Dataset, progress: Progress | None = None) -> Card:
    """The card of the grid's data for its tasks, with the mean return of what finished runs retrieved."""
    infos = {info.scene for info in dataset.episodes}
    tasks = [task for task in selection.tasks if task.scene in infos]
    retrieved = {task.name: mean for task in tasks if (mean := _retrieved_return(selection, layout, dataset, task))}
    return card(dataset, registry.suite(selection.suite), tasks, retrieved, progress)


def report_extras(selection: Selection, layout: Layout, progress: Progress | None = None) -> dict[str, Any]:
    """What the report shows beside the records: the pre-trainings' open-loop errors and examples, and the data card."""
    dataset = find_data(selection, layout)
    if dataset is None:
        return {}
    extras = open_loop(layout, [digest(stage) for stage in stages(selection, dataset.digest)])
    if not missing_scenes(selection, dataset):
        extras["data_card"] = card_rows(selection, layout, dataset, progress)
    return extras


def card_rows(
    selection: Selection, layout: Layout, dataset: Dataset, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Rows of the data card for a page, as plain values."""
    return msgspec.to_builtins(data_card(selection, layout, dataset, progress))["rows"]


def _retrieved_return(selection: Selection, layout: Layout, dataset: Dataset, task: Task) -> float | None:
    """Mean return, under the task's reward, of the episodes of its scene that its finished runs retrieved."""
    chosen: list[int] = []
    for identity in identities(selection, dataset.digest):
        run = _read(layout.runs / digest(identity)) if identity.task == task.name else None
        if run is not None and run.status == "done" and identity.method != "wpt-random-replay":
            chosen += [int(index) for index in run.diagnostics.get("retrieved", [])]
    stored = dict(enumerate(dataset.episodes))  # episodes of earlier tasks of a sequence are in no data set
    chosen = [index for index in chosen if index in stored and stored[index].scene == task.scene]
    if not chosen:
        return None
    unique = sorted(set(chosen))
    returns: Mapping[int, float] = {
        index: float(reward.sum())
        for index, (reward, _) in zip(
            unique, labels(dataset, registry.suite(selection.suite), task, unique), strict=True
        )
    }
    return sum(returns[index] for index in chosen) / len(chosen)


def _read(folder: Path) -> Run | None:
    try:
        return records.read_run(folder)
    except records.RecordError:
        return None
