"""The report: one HTML file that needs no network, and beside it its figures, tables and ``summary.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from wpt_bench.analysis.aggregate import NO_SPREAD
from wpt_bench.analysis.archive import PAGE
from wpt_bench.analysis.bootstrap import CONFIDENCE
from wpt_bench.analysis.compare import Comparison
from wpt_bench.analysis.diagnostics import READING
from wpt_bench.analysis.experiment import ExperimentSummary
from wpt_bench.analysis.findings import WPT, duration
from wpt_bench.analysis.properties import DECLARED_RULES, EFFECTS, POOLING, Properties, reasons
from wpt_bench.analysis.scores import SCRATCH
from wpt_bench.analysis.summary import figures, plain, properties
from wpt_bench.records import make_folder, write_atomic
from wpt_bench.reports import world_model
from wpt_bench.reports.content import card_table
from wpt_bench.reports.factors import ExperimentSection, experiment_section
from wpt_bench.reports.figures.drawing import Drawing
from wpt_bench.reports.sections import CROWD, Section, section
from wpt_bench.reports.style import look
from wpt_bench.reports.table import Table
from wpt_bench.reports.table_one import NOT_MEASURED, SYMBOLS, details

PLACED = ("embodiments", "adaptation", "ablation", "data", "sensitivity")
"""Experiments that have a place among the page's sections; any has a page of its own."""
OF_A_PART = ("embodiment", "scene", "collector")
"""What rows of the data card that are of the same episodes have in common."""
TOGETHER = "all"
"""What the data card calls the collectors of a scene together."""
NOTHING: Mapping[str, Any] = {}
_INTERVAL = re.compile(rf"\[[^\]]*\]|\({NO_SPREAD}\)")


def write(
    comparisons: Sequence[Comparison],
    out_folder: Path,
    *,
    title: str,
    extras: Mapping[str, Any] = NOTHING,
    declared: Properties | None = None,
    command: str | None = None,
    experiments: Sequence[ExperimentSummary] = (),
    faults: Sequence[str] = (),
) -> Path:
    """Writes the report of all runs of one suite and profile, and returns the page's path.

    Args:
        comparisons: one for each kind of observation.
        out_folder: made if need be; receives ``report.html``, ``summary.json``, ``scores.csv``, ``figures/`` and
            ``tables/``.
        title: heading of the page.
        extras: what the records do not hold, each optional. ``open_loop`` and ``open_loop_examples``: see
            ``world_model.open_loop``. ``pretraining``: ``stage``, ``updates`` and ``wall_clock`` (seconds) of each.
            ``data_card``: rows (dicts) of the data card.
        declared: Table 1 as the installed methods declare it, which records do not hold; left out without.
        command: that renders this page again.
        experiments: those of the suite and profile; of the ones that have a place in the report, what they found is
            shown.
        faults: what else could not be read, a sentence each.
    """
    sections = [section(comparison) for comparison in comparisons]
    beside = {one.name: experiment_section(one) for one in experiments if one.name in PLACED and one.done}
    open_loop, card, once, problems = _extras(extras)
    shown: list[Section | ExperimentSection] = [*sections, *beside.values()]
    drawings = [drawing for one in shown for drawing in one.drawings]
    drawings += open_loop.drawings if open_loop else ()
    tables = [table for one in shown for table in one.tables] + ([card] if card else [])
    save(drawings, tables, out_folder)
    write_atomic(out_folder / "scores.csv", _scores(comparisons).to_csv(index=False).encode())
    summary = json.dumps(_summary(title, comparisons, experiments, declared), indent=1, allow_nan=False)
    write_atomic(out_folder / "summary.json", summary.encode())
    unread = [text for one in comparisons for text in one.table.problems]
    unread += [text for one in experiments for text in one.problems]
    page = (
        templates()
        .get_template("page.html")
        .render(
            title=title,
            sections=sections,
            declared=declared,
            open_loop=open_loop,
            card=card,
            once=once,
            command=command,
            methods=_methods(sections),
            panels=panels_of(drawings),
            problems=dict.fromkeys([*problems, *faults, *unread]),
            experiments=beside,
        )
    )
    write_atomic(out_folder / PAGE, page.encode())
    return out_folder / PAGE


def _extras(extras: Mapping[str, Any]) -> tuple[world_model.OpenLoop | None, Table | None, list[str], list[str]]:
    """Open loop and data card, each None if absent or unusable, and what was spent once for all runs, a sentence each;
    what is unusable becomes a problem on the page, a sentence as well."""
    open_loop, problems = world_model.open_loop(extras)
    card, once = None, []
    try:
        if rows := extras.get("data_card"):
            card = card_table(rows)
            # There is one for each task, and of several collectors of a scene one for all of them.
            parts = {tuple(map(row.get, OF_A_PART)): row for row in rows if row.get("collector") != TOGETHER}
            episodes, steps = (
                sum(row.get(name) or 0 for row in parts.values()) for name in ("episodes", "agent_steps")
            )
            once.append(f"Data: {episodes:,} episodes of {steps:,} agent steps.")
    except (TypeError, ValueError, AttributeError) as error:
        problems.append(f"The data card cannot be shown: {type(error).__name__} {error}.")
    once += [
        f"Pre-training {row['stage']}: {row['updates']:,} updates in {duration(row['wall_clock'])}."
        for row in extras.get("pretraining") or ()
    ]
    return open_loop, card, once, problems


def _scores(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Every run that counts, one row each."""
    return pd.concat(
        [
            comparison.table.runs.assign(
                suite=comparison.table.suite,
                profile=comparison.table.profile,
                observation=comparison.table.observation,
                budget=comparison.table.budget,
            )
            for comparison in comparisons
        ],
        ignore_index=True,
    )


def _methods(sections: Sequence[Section]) -> list[str]:
    """Every method of the page once, in the order of their scores."""
    return list(dict.fromkeys(row.name for one in sections for row in one.comparison.rows))


def _summary(
    title: str,
    comparisons: Sequence[Comparison],
    experiments: Sequence[ExperimentSummary],
    declared: Properties | None,
) -> dict[str, Any]:
    """The page's figures for programs."""
    summary = figures(comparisons, experiments)
    for table, comparison in zip(summary["tables"], comparisons, strict=True):
        table["problems"] = list(comparison.table.problems)
    return {"title": title, "declared": None if declared is None else properties(declared), **summary}


def save(drawings: Iterable[Drawing], tables: Iterable[Table], out_folder: Path) -> None:
    """Writes figures and tables beside a page."""
    for name, files in (("figures", drawings), ("tables", tables)):
        make_folder(out_folder / name)
        for file in files:
            file.save(out_folder / name)


def panels_of(drawings: Iterable[Drawing]) -> Markup:
    """What hovering shows, as JSON and the text of a script element, which ends at the first ``</``."""
    value = {drawing.name: plain(drawing.panels) for drawing in drawings if drawing.panels}
    return Markup(json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def templates() -> jinja2.Environment:
    """What pages are made of, with what they call."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("wpt_bench.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals.update(look=look, details=details, reasons=reasons, SYMBOLS=SYMBOLS, NOT_MEASURED=NOT_MEASURED)
    templates.globals.update(EFFECTS=EFFECTS, DECLARED_RULES=DECLARED_RULES, POOLING=POOLING, SCRATCH=SCRATCH, WPT=WPT)
    templates.globals.update(CONFIDENCE=f"{CONFIDENCE:.0%}", CROWD=CROWD, READING=READING)
    templates.filters["inline"] = lambda drawing: Markup(drawing.inline())  # our own SVG; its text is escaped in it
    templates.filters["unbroken"] = _unbroken
    templates.filters["score"] = lambda value: "—" if value is None else f"{value:.3f}"
    templates.filters["count"] = lambda value: "—" if value is None else f"{value:,.0f}"
    return templates


def _unbroken(text: str) -> str:
    """The same, with lines that end before an interval but not within one."""
    return _INTERVAL.sub(lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
