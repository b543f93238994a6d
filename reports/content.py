"""The tables of the page, each a function of one comparison."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from wpt_bench.analysis.aggregate import Estimate, three, told_apart
from wpt_bench.analysis.compare import LEVELS, Comparison
from wpt_bench.analysis.diagnostics import EPISODE_RETURN, PRIOR_RETURN, PRIOR_SCORE, READING
from wpt_bench.analysis.factorial import ARMS, PARTS, RANDOM_REPLAY
from wpt_bench.analysis.findings import WPT, duration, p_text, saved_interval
from wpt_bench.analysis.literature import nearest_to_budget
from wpt_bench.analysis.reach import Saving
from wpt_bench.analysis.rows import Cost, Held, Part
from wpt_bench.analysis.scores import SCRATCH, Absent
from wpt_bench.records import Run
from wpt_bench.reports.console import data_granted, score_text
from wpt_bench.reports.figures.intervals import TITLES
from wpt_bench.reports.table import NOTHING, Cell, Heading, Row, Table, count, headings, score

BEYOND = "not reached"
HELD = ("difference in IQM", "difference in AUC", "probability of improvement")
"""Heads of what one method held against another comes to."""
MOST_OF_A_SETTING = 24
"""Letters of a setting that is shown; what is longer explains, and stands in the records."""
CARD = {
    "agent_steps": "agent steps",
    "best": "best return",
    "median": "median return",
    "mean": "mean return",
    "success": "success, last step",
    "retrieved": "retrieved, mean return",
}
"""Heads of the data card's columns, by the field of ``data.card.CardRow``; others are headed by their own names."""


def methods_table(comparison: Comparison) -> Table:
    """Every method: score with both intervals, area under the curve, the other aggregates, runs."""
    names = [name for name in ("mean", "median", "optimality_gap") if name in told_apart(comparison.table.tasks)]
    rows = []
    for row in comparison.rows:
        iqm = row.iqm
        cells = (
            Cell(row.name),
            replace(estimate_cell(iqm), text=score_text(row), note="" if row.online else "0 online steps"),
            ends_cell(iqm),
            corrected_cell(row.auc),
            Cell(data_granted(row.data_access)),
            *(score(row.estimates[name].value if name in row.estimates else None) for name in names),
            Cell(f"{row.done}/{row.expected}", None, f"{row.seeds} seed{'s' if row.seeds != 1 else ''}"),
        )
        rows.append(Row(cells, row.name))
    figures = ("IQM [95%, rliable]", "[95%, corrected]", "AUC [95%, corrected]")
    others = (*(TITLES[name] for name in names), "runs")
    columns = headings("method", *figures, "data granted", *others, numbers=(*figures, *others))
    return Table(_name("methods", comparison), "Methods", columns, tuple(rows))


def against_table(comparison: Comparison) -> Table:
    """Every method against learning from scratch, with corrected intervals."""
    rows = [
        Row(
            (
                Cell(row.name),
                *_held(row.against),
                *_reach(row.reach, row.against.auc),
            ),
            row.name,
        )
        for row in comparison.rows
        if row.against is not None
    ]
    numbers = (*HELD, "steps to its score", "saved")
    return Table(
        _name("against-scratch", comparison),
        f"Against {SCRATCH}",
        headings("method", *numbers, numbers=numbers),
        tuple(rows),
    )


def wpt_against_table(comparison: Comparison) -> Table:
    """WPT against every method that is no variant of it, with corrected intervals."""
    rows = [
        Row((Cell(row.name), *_held(row.wpt_against), count(row.seeds)), row.name)
        for row in comparison.rows
        if row.wpt_against is not None
    ]
    numbers = (*HELD, "seeds")
    return Table(
        _name("wpt-against", comparison),
        f"{WPT} against the other methods",
        headings("method", *numbers, numbers=numbers),
        tuple(rows),
    )


def tuning_table(comparison: Comparison) -> Table:
    """What every method may see, and how much it was tuned."""
    rows = [
        Row(
            (
                Cell(row.name),
                Cell(row.family or NOTHING),
                Cell(data_granted(row.data_access)),
                count(row.tuning_evaluations),
                Cell(row.tuning or NOTHING),
            ),
            row.name,
        )
        for row in comparison.rows
    ]
    columns = headings("method", "family", "data granted", "tuned", "hyperparameters from", numbers=("tuned",))
    return Table(_name("grants", comparison), "Data granted and tuning", columns, tuple(rows))


def parts_table(comparison: Comparison, parts: Mapping[str, Sequence[Part]], name: str, first: str) -> Table:
    """Methods on parts of the tasks: IQM, and when they reach the final score of learning from scratch there."""
    rows = [
        Row(
            (
                Cell(group),
                Cell(part.method),
                corrected_cell(part.iqm),
                corrected_cell(part.auc),
                *_reach(part.reach, part.auc_against),
            ),
            part.method,
        )
        for group, methods in parts.items()
        for part in methods
    ]
    numbers = ("IQM [95%, corrected]", "AUC [95%, corrected]", f"steps to {SCRATCH}'s score", "saved")
    columns = headings(first, "method", *numbers, numbers=numbers)
    return Table(_name(name, comparison), f"Methods by {first}", columns, tuple(rows))


def arms_table(comparison: Comparison) -> Table:
    """The combinations of WPT's parts, and the control: what they reach, and how relevant what they retrieve is."""
    by_name = {row.name: row for row in comparison.rows}
    rows = []
    for method in (*ARMS, RANDOM_REPLAY):
        row = by_name.get(method)
        switches = ARMS.get(method, (True, True, True))
        irrelevant = None if row is None or row.retrieval_precision is None else 1 - row.retrieval_precision
        cells = (
            Cell(method),
            *(Cell("on" if on else "") for on in switches),
            corrected_cell(row.iqm)
            if row and row.iqm
            else Cell("not among these runs" if row is None else score_text(row)),
            corrected_cell(row.auc if row else None),
            Cell(NOTHING) if irrelevant is None else Cell(f"{irrelevant:.0%}", irrelevant),
        )
        rows.append(Row(cells, method))
    numbers = ("IQM [95%, corrected]", "AUC [95%, corrected]", "irrelevant episodes")
    columns = headings("method", *PARTS, *numbers, numbers=numbers)
    return Table(_name("arms", comparison), "Combinations of WPT's parts", columns, tuple(rows))


def effects_table(comparison: Comparison) -> Table:
    """Effects of the parts on score and area."""
    rows = []
    for what, one in (("score at the budget", comparison.ablation), ("area under the curve", comparison.auc_ablation)):
        effects = (*one.effects, *one.single, *([one.control] if one.control else []))
        for effect in effects:
            figures = (estimate_cell(effect.estimate), ends_cell(effect.estimate), _p(effect.p), _p(effect.holm))
            rows.append(Row((Cell(effect.name), Cell(what), *figures)))
    numbers = ("change in IQM [95%, percentile]", "[95%, corrected]", "p", "Holm's p")
    return Table(
        _name("effects", comparison),
        "Effects of WPT's parts",
        headings("effect", "on", *numbers, numbers=numbers),
        tuple(rows),
    )


def diagnostics_table(comparison: Comparison) -> Table:
    """Why runs came out as they did: every method on every task of which anything is known, without empty columns."""
    rows = []
    for one in comparison.diagnostics:
        told = one.values
        bias, prior = told.get("value_bias"), told.get(PRIOR_SCORE)
        values = [told.get(name) for name in ("value", "value_realised")]
        cells = (
            Cell(one.task),
            Cell(one.method),
            _told(told.get("open_loop_ratio")),
            _told(told.get("reward_ratio"), "error {:.3g}", told.get("reward_error")),
            _told(bias, "{:,.4g} predicted, {:,.4g} bootstrapped", *values),
            count(told.get(EPISODE_RETURN)),
            _told(told.get("retrieved_distance")),
            replace(score(prior), note=_filled("return {:.4g}", told.get(PRIOR_RETURN))),
            _retrieved(one.embodiments, one.scenes),
        )
        rows.append(Row(cells, one.method))
    rows.sort(key=lambda row: (row.cells[0].text, row.cells[1].text))
    heads = headings("task", "method", *READING, numbers=list(READING)[:-1])
    filled = [any(row.cells[place].text != NOTHING for row in rows) for place in range(len(heads))]
    rows = [replace(row, cells=tuple(itertools.compress(row.cells, filled))) for row in rows]
    return Table(_name("diagnostics", comparison), "Diagnostics", tuple(itertools.compress(heads, filled)), tuple(rows))


def tasks_table(comparison: Comparison) -> Table:
    """Mean score of every method on every task, and each seed's."""
    runs = comparison.table.runs
    rows = []
    for task in comparison.table.tasks:
        cells = [Cell(task), score(comparison.untrained.get(task))]
        for row in comparison.rows:
            own = runs[(runs["task"] == task) & (runs["method"] == row.name)]
            if own.empty:
                cells.append(Cell(NOTHING))
                continue
            seeds = zip(own["seed"], own["score"], strict=True)
            note = "; ".join(f"seed\N{NO-BREAK SPACE}{seed}:\N{NO-BREAK SPACE}{value:.3f}" for seed, value in seeds)
            mean = float(own["score"].mean())
            cells.append(Cell(f"{mean:.3f}", mean, note))
        rows.append(Row(tuple(cells)))
    methods = (Heading(row.name, True, row.name) for row in comparison.rows)
    columns = (Heading("task"), Heading("untrained", number=True), *methods)
    return Table(_name("tasks", comparison), "Scores per task", columns, tuple(rows))


def published_table(comparison: Comparison) -> Table | None:
    """What others published for these tasks at the budget or nearest below it; None without any."""
    rows = [
        Row(
            (
                Cell(str(row["task"])),
                Cell(str(row["method"])),
                Cell(str(row["source"])),
                count(row["env_steps"]),
                score(row["score"]),
                count(row["n_seeds"]),
            )
        )
        for row in nearest_to_budget(comparison.table).to_dict("records")
    ]
    numbers = ("environment steps", "score", "seeds")
    columns = headings("task", "method", "source", *numbers, numbers=numbers)
    return Table(_name("published", comparison), "Published scores", columns, tuple(rows)) if rows else None


def cost_table(comparison: Comparison) -> Table:
    """What a run costs, and what had been spent when a score was reached."""
    rows = []
    for row in comparison.rows:
        memory = None if row.peak_memory is None else row.peak_memory / 2**20
        cells = (
            Cell(row.name),
            Cell(duration(row.wall_clock), row.wall_clock, " to ".join(map(duration, row.wall_clock_range or ()))),
            count(row.updates),
            Cell(NOTHING) if memory is None else Cell(f"{memory:,.0f} MiB", memory),
            *(_cost(cost) for cost in row.costs or (None,) * len(LEVELS)),
        )
        rows.append(Row(cells, row.name))
    numbers = ("wall-clock", "updates", "peak memory", *(f"IQM {level:g}" for level in LEVELS))
    return Table(_name("cost", comparison), "Cost", headings("method", *numbers, numbers=numbers), tuple(rows))


def settings_table(comparison: Comparison) -> Table:
    """What a method was run with: the protocol's numbers, which all share on a task, and the method's own settings."""
    first: dict[str, Run] = {}
    for run in comparison.table.records.values():
        first.setdefault(run.identity.method, run)
    methods = [row.name for row in comparison.rows if row.name in first]
    columns = {
        name: _flat({"protocol": first[name].identity.protocol, "settings": first[name].identity.settings})
        for name in methods
    }
    names = dict.fromkeys(name for its in columns.values() for name in its)
    rows = [
        Row((Cell(name), *(Cell(as_text(columns[method].get(name))) for method in methods))) for name in sorted(names)
    ]
    heads = (Heading("setting"), *(Heading(method, True, method) for method in methods))
    return Table(_name("settings", comparison), "Settings of every method", heads, tuple(rows))


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by their dotted names, but for long texts and lists."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{name}": leaf for name, leaf in _flat(value).items()}
        elif not isinstance(value, list) and len(str(value)) <= MOST_OF_A_SETTING:
            found[key] = value
    return found


def absent_table(runs: Sequence[Absent], name: str, label: str) -> Table:
    """Runs that do not count, and why."""
    rows = [
        Row(
            (
                Cell(run.method),
                Cell(run.task),
                Cell(str(run.seed), run.seed),
                Cell(run.status),
                Cell(run.why),
                Cell(run.id, code=True),
            ),
            run.method,
        )
        for run in runs
    ]
    return Table(
        name, label, headings("method", "task", "seed", "status", "why", "run", numbers=("seed",)), tuple(rows)
    )


def runs_table(comparison: Comparison, runs: Sequence[Run], differing: Sequence[str]) -> Table:
    """Every run that counts: its id, what it stands on, and whatever its provenance does not share with all others."""
    rows = []
    for run in runs:
        its = run.identity
        cells = (
            Cell(run.id, code=True),
            Cell(its.method),
            Cell(str(its.method_version), its.method_version),
            Cell(its.task),
            Cell(str(its.seed), its.seed),
            Cell(its.data or NOTHING, code=True),
            Cell(its.stage or NOTHING, code=True),
            Cell(duration(run.wall_clock), run.wall_clock),
            *(Cell(as_text(run.provenance.get(key))) for key in differing),
        )
        rows.append(Row(cells, its.method))
    columns = headings(
        *("run", "method", "version", "task", "seed", "data", "pre-training", "wall-clock"),
        *(key.replace("_", " ") for key in differing),
        numbers=("version", "seed", "wall-clock"),
    )
    return Table(_name("runs", comparison), "Every run", columns, tuple(rows))


def card_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """The data card; columns without any value are left out. Raises TypeError, ValueError or AttributeError."""
    frame = pd.DataFrame([{str(key): value for key, value in row.items()} for row in rows], dtype=object)
    frame = frame.loc[:, frame.notna().any()]
    if {"embodiment", "scene"} <= set(frame) and frame["embodiment"].equals(frame["scene"]):
        frame = frame.drop(columns="scene")
    cells = tuple(Row(tuple(map(_card_cell, row))) for row in frame.itertuples(index=False, name=None))
    heads = {name: CARD.get(name, name) for name in map(str, frame.columns)}
    numbers = [head for name, head in heads.items() if not any(isinstance(one, str) for one in frame[name])]
    return Table("data-card", "Data card", headings(*heads.values(), numbers=numbers), cells)


def _card_cell(value: Any) -> Cell:
    if isinstance(value, str):
        return Cell(value)
    if value is None or value != value:
        return Cell(NOTHING)
    return count(value) if isinstance(value, int) else Cell(f"{value:,.4g}" if value >= 1 else f"{value:.3f}", value)


def as_text(value: Any) -> str:
    """A recorded value as a person reads it."""
    if value is None:
        return NOTHING
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {as_text(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(as_text(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _name(name: str, comparison: Comparison) -> str:
    return f"{name}-{comparison.table.observation}"


def estimate_cell(estimate: Estimate | None) -> Cell:
    """A figure with its percentile interval."""
    if estimate is None:
        return Cell(NOTHING)
    return Cell(str(estimate), estimate.value, ends=(estimate.low, estimate.high))


def corrected_cell(estimate: Estimate | None) -> Cell:
    """A figure with the corrected interval."""
    if estimate is None:
        return Cell(NOTHING)
    ends = (estimate.corrected_low, estimate.corrected_high)
    return Cell(f"{three(estimate.value)} {estimate.corrected}", estimate.value, ends=ends)


def _held(one: Held) -> tuple[Cell, ...]:
    """Under the heads ``HELD``."""
    return tuple(corrected_cell(its) for its in (one.score, one.auc, one.improvement))


def ends_cell(estimate: Estimate | None) -> Cell:
    """The corrected interval alone."""
    return Cell(NOTHING) if estimate is None else replace(corrected_cell(estimate), text=estimate.corrected, value=None)


def _p(value: float | None) -> Cell:
    return Cell(NOTHING) if value is None else Cell(p_text(value).removeprefix("= ").replace(" ", ""), value)


def _told(value: float | None, note: str = "", *of: float | None) -> Cell:
    """A diagnostic, to three digits, and a note of numbers where there are all of them."""
    shown = Cell(NOTHING) if value is None else Cell(f"{value:.3g}", value)
    return replace(shown, note=_filled(note, *of))


def _filled(note: str, *numbers: float | None) -> str:
    return "" if None in numbers else note.format(*numbers)


def _retrieved(embodiments: Mapping[str, float], scenes: Mapping[str, float], most: int = 3) -> Cell:
    """Shares by body; below them by scene, where those are others."""

    def listed(shares: Mapping[str, float]) -> str:
        named = [f"{name} {share:.0%}" for name, share in list(shares.items())[:most]]
        return ", ".join(named) + (f", {len(shares) - most} more" if len(shares) > most else "")

    return Cell(listed(embodiments) or NOTHING, note="" if scenes == embodiments else listed(scenes))


def _reach(found: Saving | None, areas: Estimate | None) -> tuple[Cell, Cell]:
    """Environment steps to the final score of scratch, and the share of scratch's own that they save.

    ``areas`` is the difference to scratch in the area under the curve: where it is not separated there is no share, for
    of two curves that are not apart one may be sooner at any level by luck alone.
    """
    if found is None:
        return Cell(NOTHING), Cell(NOTHING)
    note, ends = "", None
    if found.low is not None:
        high = "beyond the budget" if found.high is None else f"{found.high:,.0f}"
        note, ends = f"{found.low:,.0f} to {high}", (found.low, found.high)
    if found.env_steps is None:
        return Cell(BEYOND, None, note), Cell(NOTHING)
    if found.saved is None:
        return Cell(NOTHING), Cell("not measurable", note=f"{SCRATCH} ends no higher than it began")
    steps = Cell(f"{found.env_steps:,.0f}" if found.env_steps else "from the start", found.env_steps, note, ends=ends)
    if areas is None or not areas.excludes_zero:
        return steps, Cell("not shown", note=f"areas: {areas.verdict if areas else NOTHING}")
    of = f"of {SCRATCH}'s {found.other:,.0f} {saved_interval(found)}".rstrip()
    shares = None if found.saved_high is None else (found.saved_low, found.saved_high)
    return steps, Cell(f"{found.saved:.0%}", found.saved, of, ends=shares)


def _cost(cost: Cost | None) -> Cell:
    if cost is None:
        return Cell(NOTHING)
    if cost.reach.env_steps is None:
        return Cell(BEYOND)
    spent = f"{cost.updates:,.0f} updates, {duration(cost.wall_clock)}"
    return Cell(f"{cost.reach.env_steps:,.0f} steps", cost.reach.env_steps, spent)
