"""The comparison of methods: one row each, overall and by embodiment, the effects of WPT's parts, and what follows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wpt_bench.analysis.aggregate import (
    CURVE_RESAMPLES,
    METRICS,
    TABLE_RESAMPLES,
    Band,
    aggregate,
    curve_band,
    difference,
    performance_profile,
    probability_of_improvement,
)
from wpt_bench.analysis.arms import ArmTable, arm_tables
from wpt_bench.analysis.bootstrap import Scores
from wpt_bench.analysis.diagnostics import EPISODE_RETURN, PRIOR_RETURN, PRIOR_SCORE, Diagnosis, diagnoses
from wpt_bench.analysis.factorial import ARMS, RANDOM_REPLAY, Factorial, allowed_for, factorial
from wpt_bench.analysis.findings import WPT, glance, headline, sentences
from wpt_bench.analysis.properties import Properties, measured
from wpt_bench.analysis.reach import Reach, Saving, reach, reach_final
from wpt_bench.analysis.rows import Cost, Held, MethodSummary, Part
from wpt_bench.analysis.scores import (
    SCRATCH,
    IncompleteError,
    Reading,
    RunTable,
    curve_array,
    load_tables,
    read,
    score_matrix,
    untrained,
    without_tasks_under_way,
)
from wpt_bench.records import Identity, Plan, planned

DATA = "data"
"""The experiment that varies the offline data."""
LEVELS = (0.25, 0.5, 0.75)
"""Scores that the cost of reaching them is given for, beside the final one of learning from scratch."""


@dataclass(frozen=True)
class Comparison:
    """What a table of runs says: rows in falling order of IQM (incomplete ones last), and sentences.

    Attributes:
        table: the runs.
        rows: one per method.
        headline: does WPT learn faster than from scratch?
        glance: where it does, at what cost, which of its parts does it, and what its cloned prior has alone.
        sentences: what may be said of the methods.
        untrained: per task the score at step 0 of the methods without data.
        properties: Table 1 as these runs measure it.
        embodiments, tasks: by name, the methods that are complete on the tasks of one embodiment, and on one task.
        ablation, auc_ablation: effects of WPT's parts on the IQM of score and area.
        diagnostics: why runs came out as they did, by method and task.
        resamples, curve_resamples: of the bootstrap.
    """

    table: RunTable
    rows: tuple[MethodSummary, ...]
    headline: str
    glance: tuple[str, ...]
    sentences: tuple[str, ...]
    untrained: Mapping[str, float]
    properties: Properties
    embodiments: Mapping[str, tuple[Part, ...]]
    tasks: Mapping[str, tuple[Part, ...]]
    ablation: Factorial
    auc_ablation: Factorial
    diagnostics: tuple[Diagnosis, ...]
    resamples: int
    curve_resamples: int


def compare_runs(
    root: Path | Reading,
    *,
    suite: str,
    profile: str,
    expected: Iterable[Identity] | None = None,
    plans: Sequence[Plan] = (),
    apart: Collection[str] | None = None,
) -> list[Comparison]:
    """The comparisons of all runs below ``root`` of one suite and profile: one per observation kind.

    Tasks that are under way are in no figure, see ``scores.without_tasks_under_way``.

    Args:
        root: folder of run folders, a published folder, or what was read of one.
        suite: name of the suite.
        profile: name of the profile.
        expected: identities of the runs that belong to the tables (a grid); see ``scores.load_runs``.
        plans: of the experiments of the suite and profile, part of which Table 1 is measured by.
        apart: ids of runs that experiments alone count; all of the plans' runs without.

    Raises:
        UserError: no run is found, or ``expected`` mixes what may not share a table.
    """
    reading = read(root)
    apart = planned(plans) if apart is None else apart
    loaded = load_tables(reading, suite=suite, profile=profile, expected=expected, apart=apart)
    tables = [without_tasks_under_way(table) for table in loaded]
    of_data = [arm_tables(plan, reading) for plan in plans if plan.name == DATA]
    varied = [(name, one) for factors in of_data for name, arms in factors.items() for one in arms]
    found = []
    for table in tables:
        its: dict[str, list[ArmTable]] = {}
        for name, one in varied:
            if one.table.observation == table.observation:
                its.setdefault(name, []).append(one)
        found.append(compare(table, its))
    return found


def compare(
    table: RunTable,
    varied: Mapping[str, Sequence[ArmTable]] = {},
    *,
    resamples: int = TABLE_RESAMPLES,
    curve_resamples: int = CURVE_RESAMPLES,
) -> Comparison:
    """Summarises every method of ``table``; one with a missing run gets no aggregate and says so.

    ``varied`` are the arms of the experiment ``data``, by factor, that Table 1 is measured by as well.
    """
    effort = _Effort(table, resamples, curve_resamples)
    rows = [effort.summarise(method) for method in table.methods]
    rows.sort(key=lambda row: (row.iqm is None, -row.iqm.value if row.iqm else 0.0, row.name))
    names = [row.name for row in rows]
    ordered = [row.name for row in rows if row.iqm is not None]
    embodiments = {name: effort.parts(names, tasks) for name, tasks in table.embodiments.items()}
    online = [row.name for row in rows if row.auc is not None]
    effects, auc_effects = allowed_for(effort.ablation(ordered, "score"), effort.ablation(online, "auc"))
    return Comparison(
        table=table,
        rows=tuple(rows),
        headline=headline(table, rows),
        glance=tuple(glance(rows, embodiments, auc_effects)),
        sentences=tuple(sentences(table, rows)),
        untrained=untrained(table),
        properties=measured(table, varied),
        embodiments=embodiments,
        tasks={task: effort.parts(names, [task]) for task in table.tasks},
        ablation=effects,
        auc_ablation=auc_effects,
        diagnostics=diagnoses(table.diagnostics, table.records.values()),
        resamples=resamples,
        curve_resamples=curve_resamples,
    )


@dataclass(frozen=True)
class _Effort:
    """A table, and how many resamples its figures get."""

    table: RunTable
    resamples: int
    curve_resamples: int

    def summarise(self, method: str) -> MethodSummary:
        table, runs = self.table, self.table.runs[self.table.runs["method"] == method]
        first = runs.iloc[0] if len(runs) else None
        online = first is None or bool(first["online"])
        matrix, why = self._matrix(method, "score")
        areas = self._areas(method)
        against = self._held(method, SCRATCH)
        curve: Band | None = None
        costs: tuple[Cost, ...] = ()
        final: Saving | None = None
        if areas is not None:
            steps, scores = curve_array(table, method)
            columns = (curve_array(table, method, column)[1] for column in ("updates", "wall_clock"))
            spent = [np.median(of_runs, axis=(0, 1)) for of_runs in columns]
            curve = curve_band(steps, scores, resamples=self.curve_resamples)
            reached = [reach(steps, scores, level, resamples=self.curve_resamples) for level in LEVELS]
            costs = tuple(_cost(one, steps, spent) for one in reached)
            if against is not None:
                its, paired = curve_array(table, SCRATCH), self._paired(method, SCRATCH)
                final = reach_final(steps, scores, *its, paired=paired, resamples=self.curve_resamples)
        above_prior = above_prior_return = None
        prior = self._told(method, PRIOR_SCORE) if matrix is not None else None
        if matrix is not None and prior is not None:
            above_prior = difference(matrix, prior, paired=True, resamples=self.resamples)
            returns, its_returns = self._told(method, EPISODE_RETURN), self._told(method, PRIOR_RETURN)
            if returns is not None and its_returns is not None:
                above_prior_return = difference(returns, its_returns, "mean", paired=True, resamples=self.resamples)
        seconds = runs["wall_clock"]
        return MethodSummary(
            name=method,
            family="" if first is None else str(first["family"]),
            data_access="" if first is None else str(first["data_access"]),
            tuning="" if first is None else str(first["tuning"]),
            tuning_evaluations=None if first is None else int(first["tuning_evaluations"]),
            online=online,
            seeds=len(table.seeds(method)),
            done=len(runs),
            expected=len(table.seeds(method)) * len(table.tasks),
            estimates={} if matrix is None else aggregate(matrix, tuple(METRICS), resamples=self.resamples),
            auc=None if areas is None else aggregate(areas, ["iqm"], resamples=self.resamples)["iqm"],
            curve=curve,
            profile=None if matrix is None else performance_profile(matrix, resamples=self.curve_resamples),
            against=against,
            wpt_against=None if method in (*ARMS, RANDOM_REPLAY) else self._held(WPT, method),
            prior=None if prior is None else aggregate(prior, ["iqm"], resamples=self.resamples)["iqm"],
            above_prior=above_prior,
            above_prior_return=above_prior_return,
            reach=final,
            costs=costs,
            wall_clock=None if first is None else float(seconds.median()),
            wall_clock_range=None if first is None else (float(seconds.min()), float(seconds.max())),
            updates=_mean(runs["updates"]),
            peak_memory=None if first is None else int(runs["peak_memory"].max()),
            retrieval_precision=_mean(runs["retrieval_precision"].dropna()),
            stages=tuple(sorted(set(runs["stage"].dropna()))),
            incomplete=why,
        )

    def parts(self, names: Sequence[str], tasks: Sequence[str]) -> tuple[Part, ...]:
        """Methods on some of the tasks, those of which no run on these is missing."""
        table = self.table
        matrices = {name: its for name in names if (its := self._matrix(name, "score", tasks)[0]) is not None}
        found = []
        for method, matrix in matrices.items():
            paired = self._paired(method, SCRATCH)
            iqm = aggregate(matrix, ["iqm"], resamples=self.resamples)["iqm"]
            curve = reached = auc = auc_against = None
            areas = self._areas(method, tasks)
            if areas is not None:
                steps, scores = curve_array(table, method, tasks=tasks)
                curve = curve_band(steps, scores, resamples=self.curve_resamples)
                auc = aggregate(areas, ["iqm"], resamples=self.resamples)["iqm"]
                if SCRATCH in matrices and method != SCRATCH:
                    curves = curve_array(table, SCRATCH, tasks=tasks)
                    reached = reach_final(steps, scores, *curves, paired=paired, resamples=self.curve_resamples)
                    its_areas = score_matrix(table, SCRATCH, "auc", tasks)
                    auc_against = difference(areas, its_areas, paired=paired, resamples=self.resamples)
            found.append(Part(method, iqm, auc, auc_against, curve, reached))
        return tuple(found)

    def ablation(self, methods: Sequence[str], column: str) -> Factorial:
        matrices = {method: score_matrix(self.table, method, column) for method in methods}
        seeds = {method: tuple(self.table.seeds(method)) for method in methods}
        return factorial(matrices, seeds, resamples=self.resamples)

    def _told(self, method: str, name: str) -> Scores | None:
        """What runs told of themselves under a name, the last time, ``(seeds, tasks)``; None unless all of them did."""
        told = self.table.diagnostics
        own = told[(told["method"] == method) & (told["name"] == name)].sort_values("env_step")
        last = own.drop_duplicates(["seed", "task"], keep="last")
        matrix = last.pivot(index="seed", columns="task", values="value").reindex(
            index=self.table.seeds(method), columns=self.table.tasks
        )
        return None if matrix.isna().any(axis=None) else matrix.to_numpy(np.float64)

    def _held(self, method: str, other: str) -> Held | None:
        """A method against another one; None where either is incomplete."""
        scores, others = self._matrix(method, "score")[0], self._matrix(other, "score")[0]
        if method == other or scores is None or others is None:
            return None
        areas, other_areas = self._areas(method), self._areas(other)
        paired = self._paired(method, other)
        return Held(
            score=difference(scores, others, paired=paired, resamples=self.resamples),
            auc=None
            if areas is None or other_areas is None
            else difference(areas, other_areas, paired=paired, resamples=self.resamples),
            improvement=probability_of_improvement(scores, others, resamples=self.curve_resamples),
        )

    def _paired(self, method: str, other: str) -> bool:
        """Whether two methods have the same seeds."""
        return self.table.seeds(method) == self.table.seeds(other)

    def _areas(self, method: str, tasks: Sequence[str] | None = None) -> Scores | None:
        """Areas under the curves, ``(seeds, tasks)``; None while incomplete and without online steps."""
        runs = self.table.runs[self.table.runs["method"] == method]
        return self._matrix(method, "auc", tasks)[0] if len(runs) and bool(runs.iloc[0]["online"]) else None

    def _matrix(self, method: str, column: str, tasks: Sequence[str] | None = None) -> tuple[Scores | None, str | None]:
        """A method's matrix, or why it has none."""
        if method not in self.table.methods:
            return None, None
        try:
            return score_matrix(self.table, method, column, tasks), None
        except IncompleteError as error:
            return None, str(error)


def _cost(found: Reach, steps: NDArray[np.int64], spent: Sequence[NDArray[np.float64]]) -> Cost:
    """What runs had spent, updates and seconds by evaluation ``(points,)``, when a level was reached."""
    if found.env_steps is None:
        return Cost(found, None, None)
    updates, wall_clock = (float(np.interp(found.env_steps, steps, its)) for its in spent)
    return Cost(found, updates, wall_clock)


def _mean(values: Iterable[float]) -> float | None:
    """The mean of some values, None of none."""
    found = list(values)
    return float(np.mean(found)) if found else None
