"""An experiment on a page of its own, beside it its figures, tables and numbers; and on a console."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as ConsoleTable

from wpt_bench.analysis.aggregate import Estimate, three
from wpt_bench.analysis.archive import PAGE
from wpt_bench.analysis.experiment import ArmSummary, ExperimentSummary
from wpt_bench.analysis.summary import experiment_figures
from wpt_bench.records import write_atomic
from wpt_bench.reports.content import absent_table
from wpt_bench.reports.factors import experiment_section, separated
from wpt_bench.reports.page import panels_of, save, templates
from wpt_bench.reports.table import NOTHING

ROOM_FOR_INTERVALS = 100
"""Columns of a console from which on an interval has room beside its figure; else it stands below."""
COLUMNS = (
    "AUC: IQM of the area under the curve. difference: of the areas, to the reference level; separated: whether its "
    "corrected 95% interval excludes zero."
)
"""What the console table's narrow columns hold."""


def write(experiment: ExperimentSummary, out_folder: Path, *, title: str, command: str) -> Path:
    """Renders the page of an experiment and returns its path.

    Args:
        experiment: what to show.
        out_folder: made if need be; receives ``report.html``, ``summary.json``, ``scores.csv``, ``figures/`` and
            ``tables/``.
        title: heading of the page.
        command: that renders this page again.
    """
    section = experiment_section(experiment)
    missing = absent_table(experiment.missing, "missing", "Missing runs") if experiment.missing else None
    save(section.drawings, [*section.tables, *([missing] if missing else [])], out_folder)
    write_atomic(out_folder / "scores.csv", _scores(experiment).to_csv(index=False).encode())
    summary = json.dumps(_summary(title, experiment), indent=1, allow_nan=False)
    write_atomic(out_folder / "summary.json", summary.encode())
    page = (
        templates()
        .get_template("experiment.html")
        .render(
            title=title,
            experiment=experiment,
            section=section,
            missing=missing,
            command=command,
            panels=panels_of(section.drawings),
        )
    )
    write_atomic(out_folder / PAGE, page.encode())
    return out_folder / PAGE


def show(experiment: ExperimentSummary, console: Console) -> None:
    """Prints a table and a sentence for every factor."""
    between = " " if console.width >= ROOM_FOR_INTERVALS else "\n"
    for factor in experiment.factors:
        title = f"{experiment.suite} · {experiment.profile} · {experiment.name} · {factor.name}"
        table = ConsoleTable(
            title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=0, collapse_padding=True
        )
        table.add_column("level")
        table.add_column("method", overflow="fold")
        for heading in ("runs", "IQM [corrected]", "AUC", "difference [corrected]"):
            table.add_column(escape(heading.replace(" ", between)), justify="right", no_wrap=True)
        table.add_column("separated", no_wrap=True)
        for arm in factor.arms:
            table.add_row(*map(escape, _row(arm, between)))
        console.print(table)
        for sentence in (factor.sentence, *(its.sentence for its in factor.carried)):
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    console.print(COLUMNS, markup=False, highlight=False, soft_wrap=True)
    if experiment.missing:
        count = f"{len(experiment.missing)} of {experiment.expected} runs"
        console.print(f"{count} missing; the report lists them.", markup=False, highlight=False)
    for problem in experiment.problems:
        console.print(problem, markup=False, highlight=False, soft_wrap=True)


def _row(arm: ArmSummary, between: str) -> list[str]:
    score, auc, against = arm.overall.score, arm.overall.auc, arm.overall.auc_against
    if not arm.online:
        against = arm.overall.against
    return [
        arm.level,
        arm.method,
        f"{arm.done}/{arm.expected}",
        _with_interval(score, between),
        NOTHING if auc is None else three(auc.value),
        _with_interval(against, between, "+"),
        separated(arm),
    ]


def _with_interval(estimate: Estimate | None, between: str, sign: str = "") -> str:
    if estimate is None:
        return NOTHING
    return three(estimate.value, sign) + ("" if estimate.corrected_low is None else f"{between}{estimate.corrected}")


def _scores(experiment: ExperimentSummary) -> pd.DataFrame:
    """Every run that counts, a row for each level that it is of."""
    tables = [
        one.table.runs.assign(factor=factor.name, level=one.arm.level)
        for factor in experiment.factors
        for one in factor.tables
    ]
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _summary(title: str, experiment: ExperimentSummary) -> dict[str, Any]:
    """The page's figures for programs."""
    return {"title": title, **experiment_figures(experiment), "problems": list(experiment.problems)}
