"""The gate's verdict for people: on the console, and as Markdown for a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box, table
from rich.console import Console
from rich.markup import escape

from wpt_bench.analysis.aggregate import three
from wpt_bench.analysis.gate import FIGURES, LEAST, Change
from wpt_bench.analysis.rates import ErrorRate
from wpt_bench.analysis.regression import Regression
from wpt_bench.reports.table import Cell, Row, Table, headings

HEADINGS = ("method", "figure", "task", "before", "now", "difference [95%]", "better", "p")
NUMBERS = HEADINGS[3:]
SHORT = {"auc": "AUC", "score": "final"}
RATES = ("candidate", "seeds", "against", "runs", "effect", "pass", "regressed [95%]", "inconclusive")
COLUMNS = "Intervals are two-sided, of one figure each; p is one-sided and adjusted for all figures."


def sentence(found: Regression) -> str:
    """The verdict with the change that decides it."""
    verdict = found.verdict
    if verdict.worse:
        first = min(verdict.worse, key=lambda change: (change.p, change.difference.value))
        more = len(verdict.worse) - 1
        others = f", and {more} more of the figures below" if more else ""
        return (
            f"{_name(first, found)} fell from {three(first.baseline)} to {three(first.candidate)} "
            f"(difference {_difference(first)}, adjusted p = {_p(first.p)}){others}."
        )
    if verdict.answer == "pass":
        return f"Nothing is shown to be worse; a loss of more than {verdict.margin:.0%} over all tasks is ruled out."
    if verdict.few:
        before, after = min(verdict.seeds.values(), key=min)
        return (
            f"Nothing is shown to be worse, but a pass takes {LEAST} seeds on either side ({before} of the baseline, "
            f"{after} of the candidate)."
        )
    first = min(verdict.open, key=lambda change: change.difference.value)
    if first.baseline == 0:
        return f"{_name(first, found)} is 0 in the baseline, of which nothing can be lost: take tasks that it learns."
    return (
        f"Nothing is shown to be worse, but {_name(first, found)} may have lost more than {verdict.margin:.0%} of "
        f"{three(first.baseline)} (difference {_difference(first)}); more seeds would tell."
    )


def show(found: Regression, console: Console) -> None:
    """Prints the verdict, its figures and its notes."""
    shown = table.Table(title=_title(found), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        shown.add_column(heading, justify="right" if heading in NUMBERS else "left")
    for row in _rows(found):
        shown.add_row(*map(escape, row))
    console.print(shown)
    console.print(COLUMNS, style="dim")
    colour = {"pass": "green", "regressed": "red", "inconclusive": "yellow"}[found.verdict.answer]
    console.print(f"[{colour}]{found.verdict.answer}[/]: {escape(sentence(found))}", highlight=False, soft_wrap=True)
    for note in found.notes:
        console.print(note, highlight=False, soft_wrap=True, markup=False)


def markdown(found: Regression) -> str:
    """The same as a comment for a pull request."""
    rows = tuple(Row(tuple(Cell(_plain(text)) for text in row)) for row in _rows(found))
    figures = Table("gate", _title(found), headings(*HEADINGS, numbers=NUMBERS), rows).markdown()
    parts = [
        f"### Sample efficiency: {found.verdict.answer}",
        _plain(sentence(found)),
        _plain(f"{_title(found)}. {COLUMNS}"),
        figures.rstrip(),
    ]
    if found.notes:
        parts.append("\n".join(f"- {_plain(note)}" for note in found.notes))
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is and that calls nobody: names are a stranger's to choose."""
    return re.sub(r"([\\`*_<>~])", r"\\\1", text).replace("@", "@\N{ZERO WIDTH SPACE}")


def show_rates(rates: Sequence[ErrorRate], console: Console) -> None:
    """Prints how often the gate errs, a table for each method."""
    for method in dict.fromkeys(rate.method for rate in rates):
        title = f"{method}: what the gate answers, in shares of the trials"
        shown = table.Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for heading in RATES:
            shown.add_column(heading, justify="left" if heading == RATES[0] else "right")
        for rate in rates:
            if rate.method == method:
                shown.add_row(*_rate(rate))
        console.print(shown)


def _rate(rate: ErrorRate) -> tuple[str, ...]:
    regressed = f"{rate.regressed:.1%} [{rate.low:.0%}, {rate.high:.0%}]"
    shares = (f"{rate.passed:.1%}", regressed, f"{rate.inconclusive:.1%}")
    return escape(rate.arm), str(rate.seeds), str(rate.baseline), str(rate.runs), three(rate.effect, "+"), *shares


def _title(found: Regression) -> str:
    seeds = "; ".join(
        f"{method}: {before} seeds of the baseline, {after} of the candidate"
        for method, (before, after) in found.verdict.seeds.items()
    )
    its = f"{found.suite} {', '.join(found.tasks)}, {found.profile}, {found.observation}"
    return f"{its}, {found.budget:,} environment steps ({seeds})"


def _rows(found: Regression) -> list[tuple[str, ...]]:
    return [
        (
            change.method,
            SHORT[change.figure],
            _task(change, found, "all"),
            three(change.baseline),
            three(change.candidate),
            _difference(change),
            f"{change.improvement.value:.0%}",
            _p(change.p),
        )
        for change in found.verdict.changes
    ]


def _name(change: Change, found: Regression) -> str:
    return f"{change.method}'s {FIGURES[change.figure]} on {_task(change, found, 'all tasks')}"


def _task(change: Change, found: Regression, every: str) -> str:
    """Of one figure, or ``every`` one of several."""
    return change.task or (found.tasks[0] if len(found.tasks) == 1 else every)


def _difference(change: Change) -> str:
    return f"{three(change.difference.value, '+')} {change.difference.corrected}"


def _p(value: float) -> str:
    return f"{value:.4f}"
