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
        replace: whether finished runs and plans that were published and are not there any more may be dropped.

    Raises:
        UserError: no run of the suite and profile is finished, or something published would be dropped.
        RecordError: the manifest of what was published cannot be read.
    """
    found, problems = read_all(root)
    found = [one for one in found if (one.run.identity.suite, one.run.identity.profile) == (suite, profile)]
    if not any(one.run.status == "done" for one in found):
        raise UserError(
            f"{root} holds no finished run of suite {suite} with profile {profile}; make some: "
            f"wpt-bench run {suite} --profile {profile}."
        )
    if not replace and archive.is_published(folder):
        refuse_to_drop(folder, {one.run.id for one in found if one.run.status == "done"}, plans, root)
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


def refuse_to_drop(folder: Path, kept: Collection[str], plans: Sequence[Plan], root: Path) -> None:
    """UserError, with the commands that help, if a published folder has finished runs or plans that are not kept.

    Raises:
        RecordError: see ``archive.refuse_altered``.
    """
    archive.refuse_altered(folder)
    known = archive.read_experiments(folder).plans
    lost = [one.run for one in archive.read(folder)[0] if one.run.status == "done" and one.run.id not in kept]
    gone = [plan for plan in known if plan.name not in {plan.name for plan in plans}]
    if not lost and not gone:
        return
    counted = {plan.name: planned([plan]) for plan in known}
    experiments = [plan for plan in known if plan in gone or any(run.id in counted[plan.name] for run in lost)]
    commands = [f"experiment {plan.name} --suite {plan.suite} --profile {plan.profile}" for plan in experiments]
    if any(not any(run.id in ids for ids in counted.values()) for run in lost):
        commands.insert(0, f"run {lost[0].identity.suite} --profile {lost[0].identity.profile}")
    what = [f"{len(lost)} finished runs"] if lost else []
    what += [f"the plan of the experiment {plan.name}" for plan in gone]
    again = "; ".join(f"wpt-bench {line} --published {folder}" for line in commands)
    raise UserError(
        f"{folder} has {' and '.join(what)} that {root.parent} lacks. Take them back first, with the --tasks, "
        f"--methods and --seeds that they were made with: {again}. Or say --replace to drop them."
    )


def _unreadable(root: Path, problem: str) -> LeftOut:
    """A record that could not be read, by the folder that its sentence begins with; of which suite, nobody can say."""
    why = problem.replace(f"{root}/", "")
    (folder,) = re.findall(r"^[^/ ]+", why)
    return LeftOut(folder, "unreadable", why)
