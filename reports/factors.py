"""What a page shows of an experiment: for every factor its figures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from wpt_bench.analysis.aggregate import Estimate
from wpt_bench.analysis.experiment import ArmSummary, ExperimentSummary, FactorSummary, Figures
from wpt_bench.analysis.scores import SCRATCH
from wpt_bench.analysis.transfer import Carried
from wpt_bench.reports.content import arms_table, corrected_cell, effects_table, ends_cell, estimate_cell
from wpt_bench.reports.figures.drawing import Drawing
from wpt_bench.reports.figures.factors import carried_figure, file_name, level_curves, levels_figure
from wpt_bench.reports.figures.intervals import part_effects
from wpt_bench.reports.table import NOTHING, Cell, Row, Table, headings


@dataclass(frozen=True)
class Parts:
    """The combinations of WPT's parts: their table, and the effects of the parts; None where no two can be compared."""

    arms: Table
    effects: tuple[Drawing, Table] | None
    missing: tuple[str, ...]


@dataclass(frozen=True)
class FactorSection:
    """One factor on a page.

    Attributes:
        summary: what is shown.
        levels, curves: its figures; None while no arm is whole.
        table: its arms.
        embodiments: the same by embodiment; None where all tasks are of one.
        tasks: the same by task.
        carried: for each arm whose runs are sequences of tasks, what it gains and forgets.
        parts: where the arms are combinations of WPT's parts.
    """

    summary: FactorSummary
    levels: Drawing | None
    curves: Drawing | None
    table: Table
    embodiments: Table | None
    tasks: Table
    carried: tuple[tuple[Carried, Drawing, Table], ...]
    parts: Parts | None

    @property
    def drawings(self) -> list[Drawing]:
        """Every figure, once."""
        effects = self.parts.effects[0] if self.parts and self.parts.effects else None
        shown = (self.levels, self.curves, *(drawing for _, drawing, _ in self.carried), effects)
        return [drawing for drawing in shown if drawing is not None]

    @property
    def tables(self) -> list[Table]:
        """Every table, once."""
        parts = (self.parts.arms, self.parts.effects[1] if self.parts.effects else None) if self.parts else ()
        shown = (self.table, self.embodiments, self.tasks, *(table for _, _, table in self.carried), *parts)
        return [table for table in shown if table is not None]


@dataclass(frozen=True)
class ExperimentSection:
    """An experiment on a page."""

    summary: ExperimentSummary
    factors: tuple[FactorSection, ...]

    @property
    def controlled(self) -> bool:
        """Whether it holds WPT against its control."""
        return any(its.parts and its.parts.ablation.control for its in self.summary.factors)

    @property
    def drawings(self) -> list[Drawing]:
        """Every figure, once."""
        return [drawing for factor in self.factors for drawing in factor.drawings]

    @property
    def tables(self) -> list[Table]:
        """Every table, once."""
        return [table for factor in self.factors for table in factor.tables]


def experiment_section(summary: ExperimentSummary) -> ExperimentSection:
    """Draws and tabulates everything a page shows of an experiment."""
    return ExperimentSection(summary, tuple(_section(summary, factor) for factor in summary.factors))


def _section(experiment: ExperimentSummary, factor: FactorSummary) -> FactorSection:
    whole = any(arm.overall.score for arm in factor.arms)
    several = len({name for arm in factor.arms for name in arm.embodiments}) > 1
    return FactorSection(
        summary=factor,
        levels=levels_figure(experiment, factor) if whole else None,
        curves=level_curves(experiment, factor),
        table=_levels_table(experiment, factor),
        embodiments=_pieces_table(experiment, factor, "embodiment", {arm.label: arm.embodiments for arm in factor.arms})
        if several
        else None,
        tasks=_pieces_table(experiment, factor, "task", {arm.label: arm.tasks for arm in factor.arms}),
        carried=tuple(
            (its, carried_figure(experiment, factor, its), _carried_table(experiment, factor, its))
            for its in factor.carried
        ),
        parts=_parts(experiment, factor),
    )


def _levels_table(experiment: ExperimentSummary, factor: FactorSummary) -> Table:
    """Every arm: its runs, score and area with both intervals, how far it is from the reference, and from scratch."""
    gains = any(arm.gain for arm in factor.arms)
    rows = [
        Row(
            (
                Cell(arm.label, None, "reference" if arm.reference else ""),
                Cell(arm.method),
                Cell(f"{arm.done}/{arm.expected}", None, f"{arm.seeds} seed{'s' if arm.seeds != 1 else ''}"),
                estimate_cell(arm.overall.score),
                estimate_cell(arm.overall.auc),
                _difference(arm.overall.auc_against),
                _difference(arm.overall.against),
                *([_difference(arm.gain)] if gains else []),
                ends_cell(arm.overall.score),
                ends_cell(arm.overall.auc),
            )
        )
        for arm in factor.arms
    ]
    figures = ("IQM [95%, rliable]", "AUC [95%, rliable]", "difference in AUC", "difference in IQM")
    beside = (f"AUC minus {SCRATCH}'s at the level",) if gains else ()
    numbers = ("runs", *figures, *beside, "IQM's [95%, corrected]", "AUC's [95%, corrected]")
    name = file_name(experiment, factor, "arms")
    return Table(name, f"Levels of {factor.name}", headings("level", "method", *numbers, numbers=numbers), tuple(rows))


def _pieces_table(
    experiment: ExperimentSummary, factor: FactorSummary, what: str, pieces: Mapping[str, Mapping[str, Figures]]
) -> Table:
    """Every arm on parts of the tasks, with corrected intervals."""
    names = sorted({name for its in pieces.values() for name in its})
    rows = [
        Row(
            (
                Cell(name),
                Cell(label),
                corrected_cell(its[name].score),
                corrected_cell(its[name].auc),
                _difference(its[name].auc_against),
                _difference(its[name].against),
            )
        )
        for name in names
        for label, its in pieces.items()
        if name in its
    ]
    numbers = ("IQM [95%, corrected]", "AUC [95%, corrected]", "difference in AUC", "difference in IQM")
    return Table(
        file_name(experiment, factor, f"{what}s"),
        f"{factor.name} by {what}",
        headings(what, "level", *numbers, numbers=numbers),
        tuple(rows),
    )


def _carried_table(experiment: ExperimentSummary, factor: FactorSummary, carried: Carried) -> Table:
    """Forward transfer and forgetting by task, and their means."""
    rows = [
        Row(
            (
                Cell(task, None, f"task {place} of the sequence"),
                *(_measured(one.tasks[task]) for one in carried.transfer),
                _measured(carried.forgetting[task]) if task in carried.forgetting else Cell(NOTHING),
            )
        )
        for place, task in enumerate(carried.order, start=1)
    ]
    means = (*(_measured(one.mean) for one in carried.transfer), _measured(carried.forgotten))
    rows.append(Row((Cell("mean", None, "of transfer: after the first task"), *means)))
    numbers = (*(f"transfer, against {one.against}" for one in carried.transfer), "forgetting")
    return Table(
        file_name(experiment, factor, f"transfer-{carried.level}"),
        f"Transfer and forgetting, {carried.level}",
        headings("task", *numbers, numbers=numbers),
        tuple(rows),
    )


def _parts(experiment: ExperimentSummary, factor: FactorSummary) -> Parts | None:
    if (its := factor.parts) is None:
        return None
    effects = None
    if its.ablation.effects or its.ablation.single:
        drawing, table = part_effects(its), effects_table(its)
        effects = (
            replace(drawing, name=file_name(experiment, factor, "effects")),
            replace(table, name=file_name(experiment, factor, "effects")),
        )
    return Parts(
        replace(arms_table(its), name=file_name(experiment, factor, "combinations")), effects, its.ablation.missing
    )


def separated(arm: ArmSummary) -> str:
    """Whether an arm is separated from the reference by its area, or by its score without environment steps."""
    if arm.reference:
        return "reference"
    return verdict(arm.overall.auc_against if arm.online else arm.overall.against)


def verdict(against: Estimate | None) -> str:
    """Whether a difference is separated from zero, and to which side."""
    if against is None:
        return NOTHING
    return ("higher" if against.value > 0 else "lower") if against.excludes_zero else against.verdict


def _difference(against: Estimate | None) -> Cell:
    if against is None:
        return corrected_cell(against)
    return replace(corrected_cell(against), note=("separated, " if against.excludes_zero else "") + verdict(against))


def _measured(estimate: Estimate | None) -> Cell:
    return Cell("not measured") if estimate is None else corrected_cell(estimate)
