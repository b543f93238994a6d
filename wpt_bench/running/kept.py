"""What published folders keep beside the runs: world models, and recordings of the data, put there and taken back.

A published folder holds world models as an output folder does, so that ``Layout`` finds its way in both; of data it has
a folder of recordings alone (``wpt_bench.data.recording``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from wpt_bench import records, registry
from wpt_bench.data import recording
from wpt_bench.data.collect import shard_settings
from wpt_bench.data.store import Dataset
from wpt_bench.protocol import UserError
from wpt_bench.records import CARD, Recorded, RecordError, Run
from wpt_bench.running import checkpoint
from wpt_bench.running.grid import status
from wpt_bench.running.loop import lock
from wpt_bench.running.plan import Layout, Selection
from wpt_bench.running.sequence import REPLAY
from wpt_bench.running.stages import is_done, open_loop, read_stage

MOST_BYTES = 8 * 2**20
"""Of all weights that are kept, and of all recordings: what a repository can carry. One world model of the profile
``lite`` has 1 MiB."""
_RECORDINGS = "data"


@dataclass(frozen=True)
class Before:
    """What a folder that is published again kept beside its runs: ids of pre-trainings, and the contents of others."""

    stages: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


def before(folder: Path, layout: Layout) -> Before:
    """What a published folder has; its pre-trainings are taken, as far as they are not made here."""
    stage_ids = stages_in(folder)
    take_stages(folder, layout, stage_ids)
    parts = (recording.SHARD, recording.ACTIONS)
    others = [folder / CARD, *(path for part in parts for path in sorted(recordings_in(folder).glob(f"*/{part}")))]
    return Before(tuple(stage_ids), {_path(one, folder): one.read_bytes() for one in others if one.is_file()})


def contents(layout: Layout, stage_ids: Sequence[str]) -> tuple[dict[str, bytes], list[str]]:
    """What to publish of finished stages, by path in the folder; and a sentence for each thing that is left out.

    Records and examples are kept of all, weights if all of them fit in ``MOST_BYTES``.

    Raises:
        UserError: one is damaged.
    """
    done = [stage_id for stage_id in stage_ids if is_done(layout, stage_id)]
    said = [f"The pre-training {one} is not in {layout.out / 'stages'}." for one in stage_ids if one not in done]
    paths = [path for one in done for path in (layout.record(one), layout.examples(one)) if path.is_file()]
    weights = [layout.weights(one) for one in done]
    if (size := sum(path.stat().st_size for path in weights)) <= MOST_BYTES:
        paths += weights
    else:
        said.append(f"The weights of {len(done)} pre-trainings have {size / 2**20:,.0f} MiB, too many to be kept.")
    return {_path(path, layout.out): path.read_bytes() for path in paths}, said


def recordings(selection: Selection, dataset: Dataset) -> tuple[dict[str, bytes], list[str]]:
    """The recordings to publish of a data set, see ``contents``: of those shards that took longer to collect than to
    play, if all of them have no more than ``MOST_BYTES``."""
    data, shards = selection.grid.data, {shard.name: shard.settings for shard in dataset.manifest.shards}
    scenes = list(dict.fromkeys(info.scene for info in dataset.episodes))  # more than the profile's with --tasks
    jobs = registry.suite(selection.suite).collection_jobs(data, scenes, data.seed)
    playable = [job for job in jobs if job.play and shards.get(job.name) == shard_settings(job, data.seed)]
    made = [recording.record(dataset, job.name) for job in playable]
    files = {f"{_RECORDINGS}/{name}": content for one in made for name, content in one.items()}
    if (size := sum(map(len, files.values()))) > MOST_BYTES:
        return {}, [f"The actions of {len(made)} shards have {size / 2**20:,.0f} MiB, too many to be kept."]
    return files, []


def played(folder: Path, dataset: Dataset) -> int:
    """How many shards of a data set are those that a published folder has recordings of."""
    found = (recording.find(recordings_in(folder), one.name, one.settings) for one in dataset.manifest.shards)
    return sum(one is not None for one in found)


def recordings_in(folder: Path) -> Path:
    """Where a published folder has its recordings, if it has any."""
    return folder / _RECORDINGS


def extras(folder: Path) -> dict[str, Any]:
    """What a report shows of the pre-trainings in a published folder; see ``bench.report_extras``.

    Raises:
        UserError: a record is damaged.
    """
    return open_loop(Layout(folder), stages_in(folder))


def take_stages(folder: Path, layout: Layout, wanted: Iterable[str]) -> list[str]:
    """Copies stages that are wanted and not made yet from a published folder; returns the ids of those it had.

    Raises:
        UserError: one is damaged, or its record is of another stage.
    """
    theirs, taken = Layout(folder), []
    for stage_id in wanted:
        if is_done(layout, stage_id) or not is_done(theirs, stage_id):
            continue
        record = read_stage(theirs, stage_id)
        if record is None or not stage_id == record.id == records.digest(record.identity):
            raise UserError(f"{theirs.record(stage_id)} is not the record of {stage_id}; do not trust {folder}.")
        layout.stage(stage_id).mkdir(parents=True, exist_ok=True)
        with FileLock(layout.stage(stage_id) / ".lock"):
            for path in (theirs.examples(stage_id), theirs.weights(stage_id), theirs.record(stage_id)):
                if path.is_file():  # the record last: with it the stage is finished
                    records.write_atomic(layout.stage(stage_id) / path.name, path.read_bytes())
        taken.append(stage_id)
    return taken


def take_runs(found: Iterable[Recorded], layout: Layout, wanted: Collection[str]) -> list[str]:
    """Writes finished runs that are wanted and not done yet, as they were when they ended; returns their ids.

    Of their weights nothing was published, so that runs of a sequence, from which others go on, are not taken (see
    ``in_sequence``). Runs that another process is making are its own.

    Raises:
        RecordError: rows are not, to the last byte, those that the run left.
    """
    taken = []
    for one in found:
        run, folder = one.run, layout.runs / one.run.id
        if run.id not in wanted or not is_takeable(run):
            continue
        if status(run.identity, layout) in ("done", "running"):
            continue
        rows = records.encode_rows(one.episodes())
        if hashlib.sha256(rows).hexdigest() != run.files.get(records.ROWS):
            raise RecordError(f"{one.file} has other rows of run {run.id} than the run left; do not trust them.")
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder):
            records.write_atomic(folder / records.ROWS, rows)
            records.write_run(folder, run)  # the record last: with it the run is finished
            checkpoint.clear(folder)
            records.discard(folder / REPLAY)
        taken.append(run.id)
    return taken


def is_takeable(run: Run) -> bool:
    """Whether a published run is finished, and none of a sequence."""
    return run.status == "done" and not in_sequence(run)


def in_sequence(run: Run) -> bool:
    """Whether a run is one of a sequence of tasks."""
    return run.identity.earlier is not None


def stages_in(folder: Path) -> list[str]:
    """Ids of the pre-trainings that a published folder has records of."""
    return sorted(path.parent.name for path in folder.glob("stages/*/stage.json"))


def _path(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
