"""What commands that make runs have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from wpt_bench import records
from wpt_bench.cli.console import asking, errors, grid_bars, progress_bar, say
from wpt_bench.protocol import UserError


def data_set(selection: Any, layout: Any, workers: int, yes: bool, published: Path | None) -> Any:
    """The grid's data set, of which as much is played as a published folder has the actions of."""
    from wpt_bench.analysis.archive import refuse_altered
    from wpt_bench.running import bench as benching
    from wpt_bench.running import kept

    if published is not None:
        refuse_altered(published)
    before = benching.find_data(selection, layout)
    recorded = kept.recordings_in(published) if published else None
    with progress_bar("collecting data") as progress:
        made = benching.ensure_data(selection, layout, progress, asking(yes), workers=workers, recorded=recorded)
    if published is not None and before is None:
        shards = len(made.manifest.shards)
        say(f"Data: {kept.played(published, made)} of {shards} shards are played from {published}.", errors)
    return made


def stages_of(selections: Sequence[Any], data: str) -> dict[str, Any]:
    """What the runs of several grids start from, by id; ``data`` is the digest of the data set."""
    from wpt_bench.records import digest
    from wpt_bench.running.plan import stages

    return {digest(stage): stage for selection in selections for stage in stages(selection, data)}


def job_names(jobs: Iterable[Any]) -> dict[str, str]:
    """What to call stages and runs, by id."""
    from wpt_bench.running.plan import PretrainingIdentity

    def name(job: Any) -> str:
        if isinstance(job, PretrainingIdentity):
            return " ".join(["pre-training", *([job.scene] if job.scene else []), str(job.seed)])
        task = job.task if isinstance(job, records.Identity) else "for all tasks"
        return f"{job.method} {task} {job.seed}"

    return {records.digest(job): name(job) for job in jobs}


def data_of(selections: Sequence[Any], layout: Any, workers: int, yes: bool, published: Path | None) -> Any:
    """The data set that several grids learn from, or None where no method of theirs does."""
    needing = [selection for selection in selections if selection.needs_data]
    return data_set(needing[0], layout, workers, yes, published) if needing else None


def make_runs(
    selections: Sequence[Any],
    dataset: Any,
    layout: Any,
    place: Any,
    retries: int,
    trackers: Sequence[str],
    published: Path | None,
) -> bool:
    """Makes pre-trainings and runs of grids on the same data (see ``data_of``), but for what a published folder has of
    them; returns whether any failed."""
    from wpt_bench.running.plan import together

    runs = together(selections, dataset.digest if dataset else None)
    stages = stages_of(selections, dataset.digest) if dataset else {}
    take_published(published, layout, stages, runs)
    outcome = make_jobs(
        list(runs.values()), list(stages.values()), dataset, layout, place, retries=retries, trackers=trackers
    )
    return bool(outcome.failed)


def make_jobs(
    runs: Sequence[Any],
    stages: Sequence[Any],
    dataset: Any,
    layout: Any,
    place: Any,
    *,
    title: str = "all",
    **options: Any,
) -> Any:
    """``run_grid`` with bars, and a line for each job that failed."""
    from wpt_bench.running.grid import run_grid

    names = job_names([*stages, *runs])
    with grid_bars(names, title) as show:
        outcome = run_grid(runs, layout, dataset.path if dataset else None, show, place, stages=stages, **options)
    for job_id, why in outcome.failed.items():
        say(f"{names[job_id]}: {why.strip().splitlines()[-1]}", errors, label="Failed: ")
    return outcome


def refuse_other_folders(published: Path | None, suite: str) -> None:
    """UserError where ``--published`` names a folder of which nothing could be taken, before anything is made."""
    from wpt_bench.analysis.archive import is_published, read_manifest

    if published is None:
        return
    if not is_published(published):
        raise UserError(f"{published} is no published folder; leave --published away to make everything.")
    if (other := read_manifest(published).suite) != suite:
        raise UserError(f"{published} is of the suite {other}: nothing of it can be taken for {suite}.")


def take_published(published: Path | None, layout: Any, stages: Collection[str], runs: Collection[str]) -> None:
    """Takes the stages and runs of these ids from a published folder, as far as it has them, and says how many."""
    from wpt_bench.analysis import archive
    from wpt_bench.running import kept

    if published is None:
        return
    archive.refuse_altered(published)
    found, _ = archive.read(published)
    taken = kept.take_stages(published, layout, stages), kept.take_runs(found, layout, runs)
    said = [f"Taken from {published}: {len(taken[0])} pre-trainings and {len(taken[1])} runs."]
    if left := sum(one.run.id in runs and kept.in_sequence(one.run) for one in found):
        said.append(
            f"{left} are of sequences and not taken: of the agents that later runs go on from nothing is published."
        )
    elif not any(taken):
        said = [f"Nothing is taken from {published}: it is made already, or not there from the same data and settings."]
    say(" ".join(said), errors)


def takeable(published: Path | None) -> set[str]:
    """Ids of the stages and runs that would be taken from a published folder, if they are asked for."""
    from wpt_bench.analysis import archive
    from wpt_bench.running import kept
    from wpt_bench.running.plan import Layout
    from wpt_bench.running.stages import is_done

    if published is None:
        return set()
    archive.refuse_altered(published)
    stages = {one for one in kept.stages_in(published) if is_done(Layout(published), one)}
    return stages | {one.run.id for one in archive.read(published)[0] if kept.is_takeable(one.run)}
