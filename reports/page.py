"""The report: one HTML file that needs no network, with its figures, ``summary.json`` and ``scores.csv`` beside it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from wpt_bench.analysis.compare import Comparison, MethodSummary, compare_runs
from wpt_bench.analysis.properties import DECLARED_RULES, EFFECTS, POOLING, Properties, reasons
from wpt_bench.analysis.published import nearest_to_budget
from wpt_bench.records import Identity, Run, write_atomic
from wpt_bench.reports import world_model
from wpt_bench.reports.figures.curves import aggregate_curves, task_curves
from wpt_bench.reports.figures.drawing import Drawing
from wpt_bench.reports.style import look
from wpt_bench.reports.table_one import NOT_MEASURED, SYMBOLS, details, plain
from wpt_bench.reports.tables import data_granted, duration, score_text

PAGE = "report.html"
NOTHING: Mapping[str, Any] = {}


def render(
    root_of_runs: Path,
    out_folder: Path,
    *,
    title: str,
    suite: str,
    profile: str,
    extras: Mapping[str, Any] = NOTHING,
    declared: Properties | None = None,
    expected: Iterable[Identity] | None = None,
) -> Path:
    """Renders the report of all runs of one suite and profile, from records alone, and returns the page's path.

    Args:
        root_of_runs: folder of run folders.
        out_folder: made if need be; receives ``report.html``, ``summary.json``, ``scores.csv`` and ``figures/``.
        title: heading of the page.
        suite: name of the suite.
        profile: name of the profile.
        extras: what the records do not hold, each optional. ``open_loop`` and ``open_loop_examples``: see
            ``world_model.open_loop``. ``data_card``: rows (dicts) of the data card.
        declared: Table 1 as the installed methods declare it, which records do not hold; left out without.
        expected: identities of the runs that belong to the report; see ``analysis.scores.load_runs``.

    Raises:
        UserError: there are no runs to report on.
    """
    comparisons = compare_runs(root_of_runs, suite=suite, profile=profile, expected=expected)
    return write(comparisons, out_folder, title=title, extras=extras, declared=declared)


def write(
    comparisons: Sequence[Comparison],
    out_folder: Path,
    *,
    title: str,
    extras: Mapping[str, Any] = NOTHING,
    declared: Properties | None = None,
) -> Path:
    """Writes the report of comparisons that are already made; otherwise as ``render``."""
    figures = out_folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    sections = [_section(comparison) for comparison in comparisons]
    for section in sections:
        for drawing in (section.curves, *section.task_curves):
            drawing.save(figures)
    write_atomic(out_folder / "scores.csv", _scores(comparisons).to_csv(index=False).encode())
    summary = json.dumps(_summary(title, comparisons, declared), indent=1, allow_nan=False)
    write_atomic(out_folder / "summary.json", summary.encode())
    open_loop, card, problems = _extras(extras)
    for drawing in open_loop.drawings if open_loop else ():
        drawing.save(figures)
    page = (
        _templates()
        .get_template("page.html")
        .render(
            title=title,
            sections=sections,
            declared=declared,
            open_loop=open_loop,
            card=card,
            problems=[
                *problems,
                *dict.fromkeys(text for section in sections for text in section.comparison.table.problems),
            ],
        )
    )
    write_atomic(out_folder / PAGE, page.encode())
    return out_folder / PAGE


@dataclass(frozen=True)
class Section:
    """What the page shows of one comparison (one observation kind)."""

    comparison: Comparison
    curves: Drawing
    task_curves: tuple[Drawing, ...]
    tasks: tuple[TaskRow, ...]
    published: tuple[dict[Any, Any], ...]
    grants: tuple[str, ...]
    scoring: str
    episodes: str
    stages: tuple[str, ...]
    shared: tuple[tuple[str, str], ...]
    differing: tuple[str, ...]
    runs: tuple[tuple[Run, tuple[str, ...]], ...]


@dataclass(frozen=True)
class TaskRow:
    """One task's line of the table: untrained level, and per method mean score and (seed, score) pairs."""

    task: str
    untrained: float | None
    cells: tuple[tuple[float | None, tuple[tuple[int, float], ...]], ...]


def _section(comparison: Comparison) -> Section:
    table = comparison.table
    runs = [table.records[run_id] for run_id in table.runs["id"]]
    kinds = sorted({(run.score, run.score_scale) for run in runs})
    measures = {"return": "the episode's return", "success": "success at the last step of an episode (not at any step)"}
    counts = sorted({int(count) for count in table.runs["episodes"]})
    shared, differing = _provenance(runs)
    return Section(
        comparison=comparison,
        curves=aggregate_curves(comparison),
        task_curves=tuple(task_curves(comparison, task) for task in table.tasks),
        tasks=tuple(_task_row(comparison, task) for task in table.tasks),
        published=tuple(nearest_to_budget(table).to_dict("records")),
        grants=tuple(dict.fromkeys(row.data_access for row in comparison.rows if row.data_access)),
        scoring=" or ".join(measures[kind] + (f" divided by {scale:g}" if scale != 1 else "") for kind, scale in kinds),
        episodes=" or ".join(str(count) for count in counts),
        stages=tuple(sorted({stage for row in comparison.rows for stage in row.stages})),
        shared=tuple(shared.items()),
        differing=tuple(differing),
        runs=tuple((run, tuple(_text(run.provenance.get(key)) for key in differing)) for run in runs),
    )


def _task_row(comparison: Comparison, task: str) -> TaskRow:
    runs = comparison.table.runs[comparison.table.runs["task"] == task]
    cells = []
    for row in comparison.rows:
        own = runs[runs["method"] == row.name]
        seeds = tuple((int(seed), float(score)) for seed, score in zip(own["seed"], own["score"], strict=True))
        cells.append((float(own["score"].mean()) if len(own) else None, seeds))
    return TaskRow(task, comparison.untrained.get(task), tuple(cells))


def _provenance(runs: Sequence[Run]) -> tuple[dict[str, str], list[str]]:
    """What is the same for all runs (shown once), and the keys of what differs (shown for each run)."""
    keys = list(dict.fromkeys(key for run in runs for key in run.provenance))
    values = {key: {_text(run.provenance.get(key)) for run in runs} for key in keys}
    shared = {key: found.pop() for key, found in values.items() if len(found) == 1}
    return shared, [key for key in keys if key not in shared]


def _text(value: Any) -> str:
    """A recorded value as a person reads it."""
    if value is None:
        return "—"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(_text(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _extras(extras: Mapping[str, Any]) -> tuple[world_model.OpenLoop | None, pd.DataFrame | None, list[str]]:
    """Open loop and data card, each None if absent or unusable; what is unusable becomes a problem on the page."""
    open_loop, problems = world_model.open_loop(extras)
    card = None
    try:
        if rows := extras.get("data_card"):
            card = pd.DataFrame([{str(key): _text(value) for key, value in row.items()} for row in rows]).fillna("—")
            card = card.loc[:, (card != "—").any()]
    except (TypeError, ValueError, AttributeError) as error:
        problems.append(f"The data card cannot be shown: {type(error).__name__} {error}.")
    return open_loop, card, problems


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


def _summary(title: str, comparisons: Sequence[Comparison], declared: Properties | None) -> dict[str, Any]:
    """The page's figures for programs."""
    return {
        "title": title,
        "declared": None if declared is None else plain(declared),
        "tables": [
            {
                "suite": comparison.table.suite,
                "profile": comparison.table.profile,
                "observation": comparison.table.observation,
                "budget": comparison.table.budget,
                "tasks": comparison.table.tasks,
                "resamples": comparison.resamples,
                "curve_resamples": comparison.curve_resamples,
                "untrained": dict(comparison.untrained),
                "methods": [_method(row) for row in comparison.rows],
                "measured": plain(comparison.properties),
                "published": nearest_to_budget(comparison.table).to_dict("records"),
                "sentences": list(comparison.sentences),
                "missing": [dataclasses.asdict(absent) for absent in comparison.table.missing],
                "stale": [dataclasses.asdict(absent) for absent in comparison.table.stale],
                "problems": list(comparison.table.problems),
            }
            for comparison in comparisons
        ],
    }


def _method(row: MethodSummary) -> dict[str, Any]:
    curve = None
    if row.curve is not None:
        curve = {
            field.name: None if (values := getattr(row.curve, field.name)) is None else values.tolist()
            for field in dataclasses.fields(row.curve)
        }
    plain = {
        field.name: getattr(row, field.name)
        for field in dataclasses.fields(row)
        if field.name not in ("estimates", "auc", "curve")
    }
    return {
        **plain,
        **{name: dataclasses.asdict(estimate) for name, estimate in row.estimates.items()},
        "auc": None if row.auc is None else dataclasses.asdict(row.auc),
        "curve": curve,
    }


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("wpt_bench.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals.update(data_granted=data_granted, duration=duration, look=look, score_text=score_text)
    templates.globals.update(details=details, reasons=reasons, SYMBOLS=SYMBOLS, NOT_MEASURED=NOT_MEASURED)
    templates.globals.update(EFFECTS=EFFECTS, DECLARED_RULES=DECLARED_RULES, POOLING=POOLING)
    templates.filters["inline"] = lambda drawing: Markup(drawing.inline())  # our own SVG; its text is escaped in it
    templates.filters["score"] = lambda value: "—" if value is None else f"{value:.3f}"
    templates.filters["count"] = lambda value: "—" if value is None else f"{value:,.0f}"
    return templates
