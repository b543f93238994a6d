"""The comparison on a console."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wpt_bench.analysis.compare import Comparison
from wpt_bench.analysis.findings import duration
from wpt_bench.analysis.rows import MethodSummary

DATA_GRANTS = {
    "none": "none (online only)",
    "labelled": "labelled, this task",
    "labelled-multitask": "labelled, all tasks",
    "demonstrations": "demonstrations (privileged selection)",
    "reward-free": "reward-free",
}
"""Plain words for what a method may see of the offline data."""
ROOM_FOR_FAMILY = 100
"""Columns of a console from which on the table has room for every method's family."""
COLUMNS = (
    "tuned: evaluations of online performance, of a few episodes each, spent here on choosing hyperparameters. "
    "time: median wall-clock of a run. Brackets: rliable's 95% interval; no "
    "spread: no resample differs, and an interval of no width would say nothing about the true value."
)
"""What the console table's narrow columns hold."""


def show(comparison: Comparison, console: Console) -> None:
    """Prints the table of methods and the sentences below it."""
    console.print(methods_table(comparison, wide=console.width >= ROOM_FOR_FAMILY))
    console.print(COLUMNS, highlight=False, soft_wrap=True)
    for sentence in (comparison.headline, *comparison.glance, *comparison.sentences):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    for what, items in (
        ("missing", comparison.table.missing),
        ("left out as stale, not asked for, or of a task under way", comparison.table.stale),
    ):
        if items:
            runs, them = ("run", "it") if len(items) == 1 else ("runs", "them")
            console.print(f"{len(items)} {runs} {what}; the report lists {them}.", markup=False, highlight=False)
    for problem in comparison.table.problems:
        console.print(problem, markup=False, highlight=False, soft_wrap=True)


def methods_table(comparison: Comparison, *, wide: bool = True) -> Table:
    """One row per method: data granted, score, interval, tuning, area under the curve, runs, wall-clock per run.

    ``wide`` adds the column of the families, for which a narrow console has no room; there columns stand closer.
    """
    table = comparison.table
    shown = Table(
        title=f"{table.suite} · {table.profile} · {table.observation} · {table.budget:,} environment steps",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1) if wide else 0,
        collapse_padding=True,
    )
    shown.add_column("method", no_wrap=True)
    if wide:
        shown.add_column("family")
    shown.add_column("data granted", overflow="fold")
    shown.add_column("IQM [95%, rliable]", no_wrap=True)
    shown.add_column("tuned", no_wrap=True, justify="right")
    shown.add_column("AUC", no_wrap=True, justify="right")
    shown.add_column("runs", no_wrap=True, justify="right")
    shown.add_column("time", no_wrap=True, justify="right")
    for row in comparison.rows:
        shown.add_row(
            escape(row.name),
            *([escape(row.family)] if wide else []),
            escape(row.data_access) or "—",
            _narrow(score_text(row)) + ("" if row.online else "\n0 online steps"),
            "—" if row.tuning_evaluations is None else f"{row.tuning_evaluations:,}",
            "—" if row.auc is None else f"{row.auc.value:.3f}",
            f"{row.done}/{row.expected}",
            duration(row.wall_clock),
        )
    return shown


def _narrow(text: str) -> str:
    """What is longer than a figure with its interval, on two lines."""
    return text if len(text) <= len("0.000 [0.000, 0.000]") else text.replace(" (", "\n(")


def data_granted(data_access: str) -> str:
    """Plain words for a recorded data access; an unknown one is shown as it is."""
    return DATA_GRANTS.get(data_access, data_access) or "—"


def score_text(row: MethodSummary) -> str:
    """IQM and interval of one method, or why there is none."""
    if row.iqm is None:
        return f"incomplete ({row.done} of {row.expected} runs)"
    return str(row.iqm)
