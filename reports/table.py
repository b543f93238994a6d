"""A table of the report: the same rows as HTML on the page, and as Markdown and CSV to paste."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wpt_bench.records import write_atomic

NOTHING = "—"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is shown.
        value: the number behind it, unrounded, for sorting and for CSV; None where there is none.
        note: a second, smaller line.
        code: whether it is an identifier or a command.
        ends: of the interval around the number, unrounded, for CSV; None where there is none.
    """

    text: str
    value: float | int | None = None
    note: str = ""
    code: bool = False
    ends: tuple[float | None, float | None] | None = None


@dataclass(frozen=True)
class Heading:
    """Head of a column; ``method`` if the column belongs to one, ``number`` if it is aligned to the right."""

    text: str
    number: bool = False
    method: str | None = None


@dataclass(frozen=True)
class Row:
    """Cells, the first of which names the row; ``method`` if the row belongs to one."""

    cells: tuple[Cell, ...]
    method: str | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: of its files, without ending.
        label: what it is, for screen readers and above its Markdown.
        headings, rows: all of equal length.
    """

    name: str
    label: str
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]

    def markdown(self) -> str:
        """A pipe table; notes in brackets behind what they are of."""
        lines = [
            _line(heading.text for heading in self.headings),
            _line("---:" if heading.number else "---" for heading in self.headings),
            *(
                _line(f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in row.cells)
                for row in self.rows
            ),
        ]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Comma-separated, numbers unrounded where a cell is one; ends of intervals are columns of their own."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = list(zip(*(row.cells for row in self.rows), strict=True)) or [()] * len(self.headings)
        ended = [any(cell.ends for cell in column) for column in columns]
        heads = (
            [heading.text, *([f"{heading.text} low", f"{heading.text} high"] if wide else [])]
            for heading, wide in zip(self.headings, ended, strict=True)
        )
        writer.writerow(itertools.chain.from_iterable(heads))
        for row in self.rows:
            cells = (
                [cell.text if cell.value is None else cell.value, *((cell.ends or (None, None)) if wide else ())]
                for cell, wide in zip(row.cells, ended, strict=True)
            )
            writer.writerow(itertools.chain.from_iterable(cells))
        return text.getvalue()

    def save(self, folder: Path) -> None:
        """Writes ``name.md`` and ``name.csv`` into ``folder``."""
        write_atomic(folder / f"{self.name}.md", self.markdown().encode())
        write_atomic(folder / f"{self.name}.csv", self.csv().encode())


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def headings(*names: str, numbers: Sequence[str] = ()) -> tuple[Heading, ...]:
    """Heads of columns, of which ``numbers`` are aligned to the right."""
    return tuple(Heading(name, name in numbers) for name in names)


def score(value: float | None) -> Cell:
    """A score, to three digits."""
    return Cell(NOTHING) if value is None or value != value else Cell(f"{value:.3f}", value)


def count(value: float | int | None) -> Cell:
    """A whole number with separators of thousands."""
    return Cell(NOTHING) if value is None else Cell(f"{value:,.0f}", value)
