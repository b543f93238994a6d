"""From an experiment to the grids of its levels, and the plan by which its records are found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wpt_bench import records, registry
from wpt_bench.experiments import Experiment, Factor, Level, vary
from wpt_bench.profiles import Profile
from wpt_bench.protocol import UserError
from wpt_bench.records import Arm, Identity, Plan
from wpt_bench.running.plan import Layout, Selection, identities, select


@dataclass(frozen=True)
class Varied:
    """The grid of one level of a factor."""

    factor: Factor
    level: Level
    selection: Selection


def grids(
    experiment: Experiment, suite: str, profile: Profile, tasks: Sequence[str] = (), seeds: Sequence[int] = ()
) -> list[Varied]:
    """A grid for every level; empty arguments keep the experiment's choice, which is the profile's if it has none.

    Raises:
        UserError: nothing can be varied in the suite, or a level does not fit the profile.
    """
    base = experiment.profile(profile, suite)
    return [
        Varied(
            factor,
            level,
            select(suite, vary(base, suite, level), tasks, level.methods or factor.methods, seeds),
        )
        for factor in experiment.varied(suite)
        for level in factor.levels
    ]


def plan(experiment: Experiment, varied: Sequence[Varied], data: str | None) -> Plan:
    """What belongs to which level. ``data`` is the digest of the data set; None where it is not collected yet."""
    first = varied[0].selection
    arms = []
    for one in varied:
        runs = identities(one.selection, data)
        arms += [
            Arm(
                factor=one.factor.name,
                level=one.level.name,
                value=one.level.value,
                reference=one.level.name == one.factor.reference,
                method=method.name,
                runs=[identity for identity in runs if identity.method == method.name],
            )
            for method in one.selection.methods
        ]
    return Plan(
        name=experiment.name,
        question=experiment.question,
        suite=first.suite,
        profile=first.profile.name,
        factors={factor.name: factor.description for factor in experiment.varied(first.suite)},
        arms=arms,
    )


def keep(experiment: Experiment, profile: Profile, asked: Plan, layout: Layout, data: str | None) -> tuple[Plan, str]:
    """Writes the plan where reports look for it, together with the one that lies there from an earlier call.

    Returns:
        The plan of both (see ``merge``), or the one asked for where they do not go together; and then a sentence on the
        runs that are in no report any more.
    """
    others, _ = records.find_plans(layout.plans, asked.suite, asked.profile)  # one that cannot be read is replaced
    before = next((one for one in others if one.name == asked.name), asked)
    both = merge(experiment, profile, before, asked, data)
    path = layout.plan(asked.suite, asked.profile, asked.name)
    records.make_folder(path.parent)
    records.write_atomic(path, records.encode_checked(both or asked))
    if records.planned([before]) <= records.planned([both or asked]):
        return both or asked, ""
    return asked, (
        f"The experiment {asked.name} was begun with other data, versions, levels or sequences of tasks than now; what "
        "it made with them is in no report any more."
    )


def merge(experiment: Experiment, profile: Profile, before: Plan, asked: Plan, data: str | None) -> Plan | None:
    """One plan with all tasks and seeds that either has; None where the one before is of something else.

    Seeds rise; the tasks of the one before come first. A plan is a whole grid, since no figure is made over a gap: the
    tasks of one with the seeds of the other are part of it, and missing until they are made.

    The one before is of something else where the experiment, as it is now, would not make one of its runs: data,
    versions, the profile or a level's settings have changed, a level has gone, or an agent that is carried from task to
    task would go through them in another order.
    """
    tasks, seeds = records.spanned([run for plan in (before, asked) for arm in plan.arms for run in arm.runs])
    try:
        both = plan(experiment, grids(experiment, asked.suite, profile, tasks, seeds), data)
    except UserError:  # a task that is no more, or tasks that cannot be in one sequence
        return None
    made = _ids(both)
    whole = all(ids <= made.get(arm, set()) for its in (before, asked) for arm, ids in _ids(its).items())
    return both if whole else None


def _ids(plan: Plan) -> dict[tuple[str, str, str], set[str]]:
    """Of the runs of every arm."""
    return {(arm.factor, arm.level, arm.method): set(map(records.digest, arm.runs)) for arm in plan.arms}


def current(plans: Sequence[Plan], data: str | None) -> tuple[list[Plan], list[str]]:
    """Plans whose runs are of the data set and the versions there are now, and a sentence for each of the others.

    ``data`` is the digest of the data set; None where there is none.
    """
    kept, said = [], []
    for plan in plans:
        runs = [run for arm in plan.arms for run in arm.runs]
        known = registry.methods()
        other = [
            run
            for run in runs
            if run.method not in known
            or run.method_version != known[run.method].version
            or run.suite_version != registry.suite(plan.suite).version
        ]
        what = "other versions of methods" if other else "another data set"
        if other or any(run.data not in (None, data) for run in runs):
            said.append(
                f"The experiment {plan.name} was made with {what} than there is now and is left out; run it again: "
                f"wpt-bench experiment {plan.name} --suite {plan.suite} --profile {plan.profile}."
            )
        else:
            kept.append(plan)
    return kept, said


def levels(plans: Sequence[Plan]) -> dict[str, tuple[Identity, list[str]]]:
    """The runs of experiments by id, each once, with every ``experiment/factor/level`` that counts it."""
    found: dict[str, tuple[Identity, list[str]]] = {}
    for plan in plans:
        for arm in plan.arms:
            for run in arm.runs:
                found.setdefault(records.digest(run), (run, []))[1].append(f"{plan.name}/{arm.factor}/{arm.level}")
    return found
