"""What came out of an experiment: for every factor its arms, each against the factor's reference level, and a sentence.

Levels are held against each other as methods are (``aggregate.difference``): paired by seed where both have the same
ones. An arm with a missing run has no figure over its tasks; on tasks where it is whole it has those of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wpt_bench.analysis.aggregate import (
    CURVE_RESAMPLES,
    TABLE_RESAMPLES,
    Band,
    Estimate,
    aggregate,
    curve_band,
    difference,
    three,
)
from wpt_bench.analysis.arms import ArmTable, arm_tables, reference_of, scratch_beside
from wpt_bench.analysis.compare import Comparison, compare
from wpt_bench.analysis.factorial import ARMS
from wpt_bench.analysis.findings import FEW_SEEDS
from wpt_bench.analysis.scores import SCRATCH, Absent, Reading, curve_array, expected_runs
from wpt_bench.analysis.transfer import Carried, carried, in_sequence
from wpt_bench.records import Plan, spanned


@dataclass(frozen=True)
class Figures:
    """Of one arm, on all tasks, those of one embodiment or a single one.

    Attributes:
        score, auc: IQM of the scores at the budget, and of the areas under the curve; None while a run is missing, the
            area also without environment steps.
        against, auc_against: the same minus the reference arm's; None for the reference itself, and where either is.
    """

    score: Estimate | None
    auc: Estimate | None
    against: Estimate | None
    auc_against: Estimate | None


@dataclass(frozen=True)
class ArmSummary:
    """One method at one level.

    Attributes:
        label: the level, and the method where a level has several.
        level, value, reference, method: as planned.
        online: whether its runs take environment steps.
        seeds: how many are expected. done, expected: runs that count, and runs that there should be.
        overall, embodiments, tasks: its figures, the latter two by name.
        curve: IQM along the curve; None while incomplete and without environment steps.
        gain: its area minus that of learning from scratch at the same level; None where nobody does, or a run is
            missing.
    """

    label: str
    level: str
    value: float | None
    reference: bool
    method: str
    online: bool
    seeds: int
    done: int
    expected: int
    overall: Figures
    embodiments: Mapping[str, Figures]
    tasks: Mapping[str, Figures]
    curve: Band | None
    gain: Estimate | None


@dataclass(frozen=True)
class FactorSummary:
    """One thing that was varied.

    Attributes:
        name, description: as planned.
        arms: in the order of the levels.
        sentence: what came out.
        carried: of arms whose runs are sequences of tasks, what they gain and forget.
        parts: the arms as methods of one table, where they are combinations of WPT's parts; else None.
        tables: the runs of each arm.
    """

    name: str
    description: str
    arms: tuple[ArmSummary, ...]
    sentence: str
    carried: tuple[Carried, ...]
    parts: Comparison | None = field(repr=False)
    tables: tuple[ArmTable, ...] = field(repr=False)


@dataclass(frozen=True)
class ExperimentSummary:
    """An experiment and what came out.

    Attributes:
        name, question, suite, profile: as planned.
        observation, budget: of its runs.
        factors: in the order of the plan.
        done, expected: of all its runs, each counted once.
        missing: runs that do not count, each once.
        problems: records that could not be used; one sentence each.
        resamples, curve_resamples: of the bootstrap.
    """

    name: str
    question: str
    suite: str
    profile: str
    observation: str
    budget: int
    factors: tuple[FactorSummary, ...]
    done: int
    expected: int
    missing: tuple[Absent, ...]
    problems: tuple[str, ...]
    resamples: int
    curve_resamples: int

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, sorted."""
        return sorted({task for factor in self.factors for one in factor.tables for task in one.table.tasks})

    @property
    def command(self) -> str:
        """The command that makes whatever is missing."""
        tasks, seeds = spanned([run for factor in self.factors for one in factor.tables for run in one.arm.runs])
        which = f"--tasks {','.join(tasks)} --seeds {','.join(map(str, seeds))}"
        return f"wpt-bench experiment {self.name} --suite {self.suite} --profile {self.profile} {which}"


def summarise(
    plan: Plan,
    reading: Reading,
    *,
    resamples: int = TABLE_RESAMPLES,
    curve_resamples: int = CURVE_RESAMPLES,
) -> ExperimentSummary:
    """Every factor of an experiment, from the records there are.

    Raises:
        UserError: an arm mixes what may not share a table.
    """
    by_factor = arm_tables(plan, reading)
    tables = [one.table for arms in by_factor.values() for one in arms]
    effort = _Effort(reading, resamples, curve_resamples)
    ids = {run_id for table in tables for run_id in table.records}
    missing = {absent.id: absent for table in tables for absent in table.missing}
    return ExperimentSummary(
        name=plan.name,
        question=plan.question,
        suite=plan.suite,
        profile=plan.profile,
        observation=tables[0].observation if tables else "",
        budget=max((table.budget for table in tables), default=0),
        factors=tuple(effort.factor(name, plan.factors[name], arms) for name, arms in by_factor.items()),
        done=len(ids),
        expected=len(ids) + len(missing),
        missing=tuple(missing.values()),
        problems=tuple(dict.fromkeys(problem for table in tables for problem in table.problems)),
        resamples=resamples,
        curve_resamples=curve_resamples,
    )


@dataclass(frozen=True)
class _Effort:
    reading: Reading
    resamples: int
    curve_resamples: int

    def factor(self, name: str, description: str, arms: tuple[ArmTable, ...]) -> FactorSummary:
        embodiments: dict[str, list[str]] = {}
        for one in arms:
            embodiments |= one.table.embodiments
        several = len({one.arm.level for one in arms}) < len(arms)
        summaries = tuple(
            self._arm(one, reference_of(one, arms), scratch_beside(one, arms), embodiments, several) for one in arms
        )
        fresh = {its.label: one for its, one in zip(summaries, arms, strict=True) if not in_sequence(one)}
        return FactorSummary(
            name=name,
            description=description,
            arms=summaries,
            sentence=sentence(name, summaries),
            carried=tuple(carried(one, fresh, resamples=self.resamples) for one in arms if in_sequence(one)),
            parts=self._parts(arms),
            tables=arms,
        )

    def _arm(
        self,
        one: ArmTable,
        reference: ArmTable | None,
        scratch: ArmTable | None,
        embodiments: Mapping[str, list[str]],
        several: bool,
    ) -> ArmSummary:
        arm, table = one.arm, one.table
        curve = None
        if one.online and one.matrix() is not None:
            curve = curve_band(*curve_array(table, arm.method), resamples=self.curve_resamples)
        return ArmSummary(
            label=f"{arm.level}, {arm.method}" if several else arm.level,
            level=arm.level,
            value=arm.value,
            reference=arm.reference,
            method=arm.method,
            online=one.online,
            seeds=len(one.seeds),
            done=len(table.runs),
            expected=len(table.cells),
            overall=self._figures(one, reference),
            embodiments={name: self._figures(one, reference, tasks) for name, tasks in embodiments.items()},
            tasks={task: self._figures(one, reference, [task]) for task in table.tasks},
            curve=curve,
            gain=self._figures(one, scratch).auc_against if scratch else None,
        )

    def _figures(self, one: ArmTable, reference: ArmTable | None, tasks: Sequence[str] | None = None) -> Figures:
        found: list[Estimate | None] = []
        against: list[Estimate | None] = []
        for column in ("score", "auc"):
            ours = one.matrix(column, tasks)
            theirs = reference.matrix(column, tasks) if reference else None
            found.append(None if ours is None else aggregate(ours, ["iqm"], resamples=self.resamples)["iqm"])
            if ours is None or theirs is None:
                against.append(None)
            else:
                paired = reference is not None and one.seeds == reference.seeds
                against.append(difference(ours, theirs, paired=paired, resamples=self.resamples))
        return Figures(*found, *against)

    def _parts(self, arms: Sequence[ArmTable]) -> Comparison | None:
        methods = [one.arm.method for one in arms]
        if len(set(methods)) < len(methods) or len(set(methods) & set(ARMS)) < 3:
            return None
        table = expected_runs(self.reading, [run for one in arms for run in one.arm.runs])
        return compare(table, resamples=self.resamples, curve_resamples=self.curve_resamples)


def sentence(name: str, arms: Sequence[ArmSummary]) -> str:
    """What a factor's arms say, by one rule: which are separated from the reference, by the difference in areas.

    The area under the curve is what the benchmark asks about; scores at the budget stand in where an arm takes no
    environment steps.
    """
    references = [arm for arm in arms if arm.reference]
    others = [arm for arm in arms if not arm.reference]
    whose = " and ".join(_named(arm) for arm in references)
    by_area = all(arm.online for arm in arms)
    what = "area under the curve" if by_area else "score at the budget"
    found = [(arm, arm.overall.auc_against if by_area else arm.overall.against) for arm in others]
    known = [(arm, its) for arm, its in found if its is not None]
    gaps = [f"{_named(arm)} ({arm.done} of {arm.expected} runs)" for arm in arms if arm.done < arm.expected]
    missing = f" Incomplete: {', '.join(gaps)}." if gaps else ""
    if not known:
        return f"{_capital(name)}: nothing can be said yet, for nothing complete can be held against {whose}.{missing}"
    figures = f"IQM of the {what} minus that of {whose}: " + "; ".join(
        f"{_named(arm)} {three(its.value, '+')}" + ("" if its.corrected_low is None else f" {its.corrected}")
        for arm, its in known
    )
    gains = "; ".join(f"{_named(arm)} {three(arm.gain.value, '+')}" for arm in arms if arm.gain)
    gains = f" Area minus that of {SCRATCH} at the same level: {gains}." if gains else ""
    seeds = min(arm.seeds for arm in (*(arm for arm, _ in known), *references))
    if all(its.corrected_low is None for _, its in known):
        return f"{_capital(name)}: not decided, for one seed allows no interval. {figures}.{gains}{missing}"
    apart = [f"{_named(arm)} ({'higher' if its.value > 0 else 'lower'})" for arm, its in known if its.excludes_zero]
    verdict = f"nothing is separated from {whose}"
    if apart:
        verdict = f"separated from {whose}: {', '.join(apart)}"
    caution = f" With {seeds} seeds, what is not separated may still differ." if seeds < FEW_SEEDS else ""
    return f"{_capital(name)}: {verdict}. {figures}.{caution if len(apart) < len(known) else ''}{gains}{missing}"


def _named(arm: ArmSummary) -> str:
    """The level in quotation marks: many are called by a number."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{arm.label}\N{RIGHT DOUBLE QUOTATION MARK}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
