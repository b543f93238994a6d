"""What the page shows of one comparison: its figures and tables, and the words around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wpt_bench.analysis.compare import Comparison
from wpt_bench.analysis.factorial import ARMS, RANDOM_REPLAY
from wpt_bench.analysis.scores import SCRATCH
from wpt_bench.records import Run
from wpt_bench.reports.content import (
    absent_table,
    against_table,
    arms_table,
    as_text,
    cost_table,
    diagnostics_table,
    effects_table,
    methods_table,
    parts_table,
    published_table,
    runs_table,
    settings_table,
    tasks_table,
    tuning_table,
    wpt_against_table,
)
from wpt_bench.reports.figures.curves import (
    DIAGNOSTICS,
    adaptation_curves,
    aggregate_curves,
    diagnostic_curves,
    embodiment_curves,
    every_run,
    guidance_schedule,
    performance_profiles,
    task_curves,
)
from wpt_bench.reports.figures.drawing import Drawing
from wpt_bench.reports.figures.intervals import against_scratch, metric_intervals, part_effects
from wpt_bench.reports.table import Table

PROFILED = 20
"""Runs of every method from which on performance profiles are drawn: of fewer they are stairs of a few steps."""
CROWD = 9
"""Methods beyond which the first figures show only WPT and learning from scratch."""


@dataclass(frozen=True)
class Section:
    """One comparison (one observation kind) on the page; what is None or empty had nothing to show.

    Attributes:
        summary: the one figure.
        embodiments: curves by embodiment, and their table.
        adaptation: curves of every task of the embodiment with most tasks, its name, and the table by task.
        effects: of WPT's parts. guidance: the schedule as the runs recorded it.
        uncontrolled: what is missing to hold WPT against its control; empty where it is.
        diagnostics: why runs came out as they did: curves, where anything was told along the way, and their table.
        overall: aggregates, curves, profiles and comparisons of all methods.
        task_curves: one figure for each task.
        data_sets: digests of the data that runs learned from.
        shared, differing: provenance that all runs share, and the keys of what they do not.
    """

    comparison: Comparison
    summary: Drawing
    embodiments: tuple[Drawing, Table] | None
    adaptation: tuple[str, Drawing, Table] | None
    effects: Drawing | None
    guidance: Drawing | None
    uncontrolled: tuple[str, ...]
    diagnostics: tuple[Drawing | None, Table] | None
    arms: Table
    effect_table: Table
    overall: tuple[Drawing, ...]
    methods: Table
    against: Table
    wpt_against: Table
    tuning: Table
    scores: Table
    task_curves: tuple[Drawing, ...]
    published: Table | None
    cost: Table
    missing: Table | None
    stale: Table | None
    runs: Table
    settings: Table
    scoring: str
    episodes: str
    stages: tuple[str, ...]
    data_sets: tuple[str, ...]
    shared: tuple[tuple[str, str], ...]

    @property
    def drawings(self) -> list[Drawing]:
        """Every figure, once."""
        pairs = (self.embodiments and self.embodiments[0], self.adaptation and self.adaptation[1])
        told = self.diagnostics and self.diagnostics[0]
        shown = (self.summary, *pairs, self.effects, self.guidance, told, *self.overall, *self.task_curves)
        return [drawing for drawing in shown if drawing is not None]

    @property
    def tables(self) -> list[Table]:
        """Every table, once."""
        pairs = (self.embodiments and self.embodiments[1], self.adaptation and self.adaptation[2])
        told = self.diagnostics and self.diagnostics[1]
        held = (self.against, self.wpt_against)
        shown = (self.methods, *held, self.tuning, *pairs, self.arms, self.effect_table, told, self.scores)
        others = (self.published, self.cost, self.missing, self.stale, self.runs, self.settings)
        return [table for table in (*shown, *others) if table is not None]


def section(comparison: Comparison) -> Section:
    """Draws and tabulates everything the page shows of one comparison."""
    table = comparison.table
    runs = [table.records[run_id] for run_id in table.runs["id"]]
    kinds = sorted({(run.score, run.score_scale) for run in runs})
    measures = {"return": "the episode's return", "success": "success at the last step of an episode (not at any step)"}
    counts = sorted({int(count) for count in table.runs["episodes"]})
    shared, differing = _provenance(runs)
    arms = [name for name in table.methods if name in ARMS]
    few = arms if arms and len(table.methods) > CROWD else table.methods
    complete = any(row.estimates for row in comparison.rows)
    several = comparison.ablation.effects or comparison.ablation.single
    observation = table.observation
    return Section(
        comparison=comparison,
        summary=aggregate_curves(comparison, few, "all" if few == table.methods else "wpt"),
        embodiments=(
            embodiment_curves(comparison, few),
            parts_table(comparison, comparison.embodiments, "embodiments", "embodiment"),
        )
        if len(comparison.embodiments) > 1
        else None,
        adaptation=_adaptation(comparison),
        effects=part_effects(comparison) if several else None,
        guidance=None if table.guided.empty else guidance_schedule(comparison),
        uncontrolled=tuple(
            name for name in ("wpt", RANDOM_REPLAY) if not any(row.name == name and row.iqm for row in comparison.rows)
        ),
        diagnostics=_diagnostics(comparison),
        arms=arms_table(comparison),
        effect_table=effects_table(comparison),
        overall=(
            *([aggregate_curves(comparison, table.methods, "all")] if few != table.methods else []),
            *([metric_intervals(comparison), *_spread(comparison)] if complete else []),
            *([against_scratch(comparison)] if any(row.against for row in comparison.rows) else []),
        ),
        methods=methods_table(comparison),
        against=against_table(comparison),
        wpt_against=wpt_against_table(comparison),
        tuning=tuning_table(comparison),
        scores=tasks_table(comparison),
        task_curves=tuple(task_curves(comparison, task) for task in table.tasks),
        published=published_table(comparison),
        cost=cost_table(comparison),
        missing=absent_table(table.missing, f"missing-{observation}", "Missing runs") if table.missing else None,
        stale=absent_table(table.stale, f"stale-{observation}", "Stale runs") if table.stale else None,
        runs=runs_table(comparison, runs, differing),
        settings=settings_table(comparison),
        scoring=" or ".join(measures[kind] + (f" divided by {scale:g}" if scale != 1 else "") for kind, scale in kinds),
        episodes=" or ".join(str(count) for count in counts),
        stages=tuple(sorted({stage for row in comparison.rows for stage in row.stages})),
        data_sets=tuple(sorted({run.identity.data for run in runs if run.identity.data is not None})),
        shared=tuple(shared.items()),
    )


def _adaptation(comparison: Comparison) -> tuple[str, Drawing, Table] | None:
    """The embodiment with most tasks, if it has several: the same pre-trained model put to one task after another."""
    embodiments = comparison.table.embodiments
    name = max(embodiments, key=lambda one: len(embodiments[one]), default="")
    methods = [name for name in comparison.table.methods if name in (SCRATCH, "wpt-pretrain-only", "wpt")]
    if not name or len(embodiments[name]) < 2 or not methods:
        return None
    parts = {task: [part for part in comparison.tasks[task] if part.method in methods] for task in embodiments[name]}
    table = parts_table(comparison, parts, "adaptation", "task")
    return name, adaptation_curves(comparison, name, methods), table


def _spread(comparison: Comparison) -> list[Drawing]:
    """How runs are spread: single ones, and profiles where there are enough of them for a curve."""
    enough = all(row.done >= PROFILED for row in comparison.rows if row.profile is not None)
    return [every_run(comparison), *([performance_profiles(comparison)] if enough else [])]


def _diagnostics(comparison: Comparison) -> tuple[Drawing | None, Table] | None:
    if not comparison.diagnostics:
        return None
    drawn = comparison.table.diagnostics["name"].isin(DIAGNOSTICS).any()
    return diagnostic_curves(comparison) if drawn else None, diagnostics_table(comparison)


def _provenance(runs: Sequence[Run]) -> tuple[dict[str, str], list[str]]:
    """What is the same for all runs (shown once), and the keys of what differs (shown for each run)."""
    keys = list(dict.fromkeys(key for run in runs for key in run.provenance))
    values = {key: {as_text(run.provenance.get(key)) for run in runs} for key in keys}
    shared = {key: found.pop() for key, found in values.items() if len(found) == 1}
    return shared, [key for key in keys if key not in shared]
