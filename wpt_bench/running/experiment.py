"""From an experiment to the grids of its levels, and the plan by which its records are found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wpt_bench import records, registry
from wpt_bench.experiments import Experiment, Factor, Level, vary
from wpt_bench.profiles import Profile
from wpt_bench.records import Arm, Plan
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


def keep(plan: Plan, layout: Layout) -> None:
    """Writes the plan where reports look for it."""
    path = layout.plan(plan.suite, plan.profile, plan.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write_atomic(path, records.encode_checked(plan))


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
