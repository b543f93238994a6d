"""From a folder of runs to a published folder."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from wpt_bench.analysis import archive
from wpt_bench.analysis.archive import Experiments, LeftOut, Manifest
from wpt_bench.analysis.compare import Comparison, compare_runs
from wpt_bench.analysis.experiment import ExperimentSummary, summarise
from wpt_bench.analysis.scores import Reading, read_all
from wpt_bench.analysis.summary import figures
from wpt_bench.protocol import UserError
from wpt_bench.records import Identity, Plan, digest, planned


def publish(
    root: Path,
    folder: Path,
    *,
    suite: str,
    profile: str,
    command: str,
    plans: Sequence[Plan] = (),
    grid: Iterable[Identity] = (),
    replace: bool = False,
) -> Manifest:
    """Makes the published folder of one suite and profile, or makes it again; the same runs give the same bytes.

    Args:
        root: folder of run folders.
        folder: the published folder.
        suite: name of the suite.
        profile: name of the profile.
        command: what a reader types to make it again.
        plans: of the experiments of the suite and profile.
        grid: the profile's runs, which are of the tables of methods whether or not an experiment counts them too.
        replace: whether finished runs that were published and are not in ``root`` may be dropped.

    Raises:
        UserError: no run of the suite and profile is finished, or published ones would be dropped.
    """
    found, problems = read_all(root)
    found = [one for one in found if (one.run.identity.suite, one.run.identity.profile) == (suite, profile)]
    if not any(one.run.status == "done" for one in found):
        raise UserError(
            f"{root} holds no finished run of suite {suite} with profile {profile}; make some: "
            f"wpt-bench run {suite} --profile {profile}."
        )
    if not replace and archive.is_published(folder):
        _refuse_to_drop(folder, {one.run.id for one in found if one.run.status == "done"}, root)
    gaps = [_unreadable(root, problem) for problem in problems]
    apart = planned(plans) - {digest(identity) for identity in grid}
    experiments = Experiments(list(plans), sorted(apart)) if plans else None
    manifest = archive.write(
        folder, found, suite=suite, profile=profile, command=command, left_out=gaps, experiments=experiments
    )
    return archive.add(folder, manifest, {archive.FIGURES: encode(recompute(folder, suite, profile))})


def recompute(folder: Path, suite: str, profile: str) -> dict[str, Any]:
    """Every figure, from the episodes of a published folder alone; raises UserError if it has no usable run."""
    return figures(*read_published(folder, suite, profile))


def read_published(folder: Path, suite: str, profile: str) -> tuple[list[Comparison], list[ExperimentSummary]]:
    """What a published folder says of methods and of experiments.

    Raises:
        UserError: it has no usable run. RecordError: its plans cannot be read.
    """
    reading, known = Reading(folder), archive.read_experiments(folder)
    comparisons = compare_runs(reading, suite=suite, profile=profile, plans=known.plans, apart=known.apart)
    return comparisons, [summarise(plan, reading) for plan in known.plans]


def encode(values: dict[str, Any]) -> bytes:
    """Figures as ``figures.json`` holds them."""
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()


def _refuse_to_drop(folder: Path, kept: Collection[str], root: Path) -> None:
    lost = [one.run for one in archive.read(folder)[0] if one.run.status == "done" and one.run.id not in kept]
    if lost:
        one = lost[0].identity
        raise UserError(
            f"{folder} has {len(lost)} finished runs that {root} lacks, {one.method} {one.task} {one.seed} among them. "
            f"Take them back first: wpt-bench run {one.suite} --profile {one.profile} --published {folder}; or say "
            "--replace to drop them."
        )


def _unreadable(root: Path, problem: str) -> LeftOut:
    """A record that could not be read, by the folder that its sentence begins with; of which suite, nobody can say."""
    why = problem.replace(f"{root}/", "")
    (folder,) = re.findall(r"^[^/ ]+", why)
    return LeftOut(folder, "unreadable", why)
