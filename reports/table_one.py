"""Table 1, families against properties, as text, on a console and for programs."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wpt_bench.analysis.aggregate import Estimate, three
from wpt_bench.analysis.compare import Comparison
from wpt_bench.analysis.properties import (
    Cell,
    Properties,
    Verdict,
)

SYMBOLS: dict[Verdict, str] = {"yes": "✓", "no": "✗", "some": "some", "not measured": "n/m", "not applicable": "—"}
"""How a verdict is shown."""
NOT_MEASURED = "n/m: not measured, or not measurable by these runs."
ROOM_FOR_NAMES = 118
"""Columns of a console from which on properties and families have room on one line each."""


def show_declared(table: Properties, console: Console) -> None:
    """Prints Table 1 as the code of the installed methods declares it."""
    title = "Table 1, declared by the code of the installed methods"
    console.print(properties_table(table, title, wide=console.width >= ROOM_FOR_NAMES))


def show_measured(comparison: Comparison, console: Console) -> None:
    """Prints Table 1 as runs measure it, and its figures; what each effect is, and what was not measured, is long."""
    table = comparison.table
    title = f"Table 1, measured by the runs of {table.suite} · {table.profile} · {table.observation}"
    console.print(properties_table(comparison.properties, title, wide=console.width >= ROOM_FOR_NAMES))
    _say(console, f"{NOT_MEASURED} The report says what each property means, and why a cell was not measured.")
    for sentence in findings(comparison.properties):
        _say(console, sentence)


def properties_table(table: Properties, title: str, *, wide: bool = True) -> Table:
    """One row per property, one column per family, verdicts only; unless ``wide``, names are broken at spaces."""
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    shown.add_column("property")
    for family in table.families:
        shown.add_column(escape(family if wide else family.replace(" ", "\n")), justify="center")
    for name, cells in table.rows.items():
        shown.add_row(name if wide else name.replace(" ", "\n", 1), *(SYMBOLS[cell.verdict] for cell in cells))
    return shown


def details(cell: Cell) -> str:
    """The figures of one cell: effect with its interval, further numbers, methods; empty without any."""
    effect = [f"{three(cell.effect.value)} {cell.effect.corrected}"] if cell.effect else []
    return ", ".join([*effect, *(f"{name} {_figure(value)}" for name, value in (cell.figures or {}).items())])


def _figure(value: float | Estimate) -> str:
    return f"{three(value.value)} {value.corrected}" if isinstance(value, Estimate) else f"{value:.3f}"


def findings(table: Properties) -> list[str]:
    """The figures behind the verdicts: one sentence per property that has any."""
    said = []
    for name, cells in table.rows.items():
        figures = [
            f"{family} {details(cell)} ({', '.join(cell.methods)})"
            for family, cell in zip(table.families, cells, strict=True)
            if details(cell)
        ]
        if figures:
            said.append(f"{name}, figures: {'; '.join(figures)}.")
    return said


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
