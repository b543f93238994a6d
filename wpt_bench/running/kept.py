"""Pre-trained world models in published folders: put there, shown from there, and taken back to start runs from.

A published folder holds them as an output folder does, so that ``Layout`` finds its way in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from wpt_bench import records
from wpt_bench.protocol import UserError
from wpt_bench.running.plan import Layout
from wpt_bench.running.stages import is_done, open_loop_examples, open_loop_rows, read_stage

MOST_BYTES = 8 * 2**20
"""Of all weights that are kept: what a repository can carry. One world model of the profile ``lite`` has 1 MiB."""


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
    return {path.relative_to(layout.out).as_posix(): path.read_bytes() for path in paths}, said


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
