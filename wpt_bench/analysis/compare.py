"""The comparison of methods: one row each, and the sentences that may be said about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wpt_bench.analysis.aggregate import (
    CURVE_RESAMPLES,
    NOT_SEPARATED,
    ONE_SEED,
    TABLE_RESAMPLES,
    Band,
    Estimate,
    aggregate,
    curve_band,
    separated,
)
from wpt_bench.analysis.properties import Properties, measured
from wpt_bench.analysis.published import held_against_published
from wpt_bench.analysis.scores import (
    SCRATCH,
    IncompleteError,
    RunTable,
    curve_array,
    load_tables,
    score_matrix,
    untrained,
)
from wpt_bench.records import Identity

FEW_SEEDS = 10
"""Below this many seeds percentile bootstrap intervals are known to be too narrow, and the page says so."""


@dataclass(frozen=True)
class MethodSummary:
    """One row of the methods' table.

    Attributes:
        name, family, data_access, tuning, online: as recorded (empty, None where no run counts).
        tuning_evaluations: evaluations of online performance that were spent on choosing its hyperparameters here;
            None where no run counts.
        seeds: how many are expected.
        done, expected: runs that count, and runs that an aggregate needs: every task with every seed of the method.
        estimates: by name of the metric; empty while the method is incomplete.
        auc: IQM of the area under the curve; None while incomplete, and for methods without online steps.
        curve: IQM along the curve; None as for ``auc``.
        wall_clock: mean seconds per run that counts, None without any.
        updates: mean gradient updates per run that counts, None without any.
        stages: ids of the pre-trainings its runs start from.
        incomplete: why it has no aggregate, else None.
    """

    name: str
    family: str
    data_access: str
    tuning: str
    tuning_evaluations: int | None
    online: bool
    seeds: int
    done: int
    expected: int
    estimates: Mapping[str, Estimate]
    auc: Estimate | None
    curve: Band | None
    wall_clock: float | None
    updates: float | None
    stages: tuple[str, ...]
    incomplete: str | None

    @property
    def iqm(self) -> Estimate | None:
        """Interquartile mean of the scores at the budget, None while incomplete."""
        return self.estimates.get("iqm")


@dataclass(frozen=True)
class Comparison:
    """What a table of runs says: rows in falling order of IQM (incomplete ones last), and sentences.

    ``untrained`` holds per task the score at step 0 of the methods without data; ``properties`` is Table 1 as these
    runs measure it.
    """

    table: RunTable
    rows: tuple[MethodSummary, ...]
    sentences: tuple[str, ...]
    untrained: Mapping[str, float]
    properties: Properties
    resamples: int
    curve_resamples: int


def compare_runs(
    root: Path, *, suite: str, profile: str, expected: Iterable[Identity] | None = None
) -> list[Comparison]:
    """The comparisons of all runs below ``root`` of one suite and profile: one per observation kind.

    Args:
        root: folder of run folders.
        suite: name of the suite.
        profile: name of the profile.
        expected: identities of the runs that belong to the tables (a grid); see ``scores.load_runs``.

    Raises:
        UserError: no run is found, or ``expected`` mixes what may not share a table.
    """
    return [compare(table) for table in load_tables(root, suite=suite, profile=profile, expected=expected)]


def compare(table: RunTable, *, resamples: int = TABLE_RESAMPLES, curve_resamples: int = CURVE_RESAMPLES) -> Comparison:
    """Summarises every method of ``table``; one with a missing run gets no aggregate and says so."""
    rows = [_summarise(table, method, resamples, curve_resamples) for method in table.methods]
    rows.sort(key=lambda row: (row.iqm is None, -row.iqm.value if row.iqm else 0.0, row.name))
    return Comparison(
        table=table,
        rows=tuple(rows),
        sentences=tuple(_sentences(table, rows)),
        untrained=untrained(table),
        properties=measured(table, resamples=resamples),
        resamples=resamples,
        curve_resamples=curve_resamples,
    )


def _summarise(table: RunTable, method: str, resamples: int, curve_resamples: int) -> MethodSummary:
    runs = table.runs[table.runs["method"] == method]
    first = runs.iloc[0] if len(runs) else None
    online = first is None or bool(first["online"])
    estimates: dict[str, Estimate] = {}
    auc, curve, incomplete = None, None, None
    try:
        estimates = aggregate(score_matrix(table, method), resamples=resamples)
        if online:
            auc = aggregate(score_matrix(table, method, "auc"), ["iqm"], resamples=resamples)["iqm"]
            curve = curve_band(*curve_array(table, method), resamples=curve_resamples)
    except IncompleteError as error:
        incomplete = str(error)
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
        estimates=estimates,
        auc=auc,
        curve=curve,
        wall_clock=float(np.mean(runs["wall_clock"])) if len(runs) else None,
        updates=float(np.mean(runs["updates"])) if len(runs) else None,
        stages=tuple(sorted(set(runs["stage"].dropna()))),
        incomplete=incomplete,
    )


def _sentences(table: RunTable, rows: list[MethodSummary]) -> list[str]:
    said = []
    scratch = next((row for row in rows if row.name == SCRATCH), None)
    complete = [row for row in rows if row.iqm is not None]
    if scratch is None or scratch.iqm is None:
        if complete:
            best = complete[0]
            said.append(f"{best.name} has the highest IQM, {best.iqm}.")
        why = "is not among the methods" if scratch is None else "is incomplete"
        said.append(f"{SCRATCH} {why}, so nothing is held against learning from scratch.")
    else:
        for row in complete:
            if row is not scratch and row.iqm is not None:
                said.append(_against(row, row.iqm, scratch.iqm))
    said += held_against_published(table)
    said += [row.incomplete for row in rows if row.incomplete]
    seeds = sorted({row.seeds for row in complete})
    if seeds and seeds[0] == 1:
        said.append("With one seed there is no interval, and no difference can be told from chance.")
    elif seeds and seeds[0] < FEW_SEEDS:
        said.append(
            f"Intervals from {seeds[0]} seeds are too narrow (a bootstrap of few seeds covers less than it says), so "
            "read a separation as a hint."
        )
    return said


def _against(row: MethodSummary, iqm: Estimate, scratch: Estimate) -> str:
    steps = "" if row.online else " with 0 online steps"
    figures = f"{row.name} reaches IQM {iqm}{steps}, {SCRATCH} {scratch}"
    if separated(iqm, scratch):
        return f"{figures}: separated, {row.name} is {'higher' if iqm.value > scratch.value else 'lower'}."
    if iqm.low is None or scratch.low is None:
        return f"{figures}: {NOT_SEPARATED} ({ONE_SEED})."
    return f"{figures}: {NOT_SEPARATED}."
