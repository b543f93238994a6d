"""Pre-trained world models in published folders: put there, shown from there, and taken back to start runs from.

A published folder holds them as an output folder does, so that ``Layout`` finds its way in both.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from wpt_bench import records
from wpt_bench.protocol import UserError
from wpt_bench.running.plan import Layout
from wpt_bench.running.stages import is_done, open_loop_examples, open_loop_rows, read_stage

MOST_BYTES = 16 * 2**20
"""Of a stage's weights that are kept: what a repository can carry. Those of the profile ``lite`` have 1 MiB."""


def contents(layout: Layout, stage_ids: Iterable[str]) -> tuple[dict[str, bytes], list[str]]:
    """What to publish of finished stages, by path in the folder; and a sentence for each that is left out.

    Raises:
        UserError: one is damaged.
    """
    kept: dict[str, bytes] = {}
    said = []
    for stage_id in stage_ids:
        if not is_done(layout, stage_id):
            said.append(f"The pre-training {stage_id} is not in {layout.out / 'stages'}.")
        elif (size := layout.weights(stage_id).stat().st_size) > MOST_BYTES:
            said.append(f"The weights of pre-training {stage_id} have {size / 2**20:,.0f} MiB, too many to be kept.")
        else:
            paths = (layout.record(stage_id), layout.weights(stage_id), layout.examples(stage_id))
            kept |= {path.relative_to(layout.out).as_posix(): path.read_bytes() for path in paths if path.is_file()}
    return kept, said


def extras(folder: Path) -> dict[str, Any]:
    """What a report shows of the pre-trainings in a published folder; see ``bench.report_extras``.

    Raises:
        UserError: a record is damaged.
    """
    layout = Layout(folder)
    stage_ids = sorted(path.parent.name for path in folder.glob("stages/*/stage.json"))
    return {
        "open_loop": open_loop_rows(layout, stage_ids),
        "open_loop_examples": open_loop_examples(layout, stage_ids),
    }


def take(folder: Path, layout: Layout, wanted: Iterable[str]) -> list[str]:
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
