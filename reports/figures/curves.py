"""Sample-efficiency curves: over all tasks, by embodiment and by task; performance profiles; the guidance schedule."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.axes import Axes

from wpt_bench.analysis.compare import Comparison
from wpt_bench.analysis.diagnostics import EPISODE_RETURN
from wpt_bench.analysis.factorial import ARMS
from wpt_bench.analysis.findings import WPT
from wpt_bench.analysis.literature import published_inside, published_scores
from wpt_bench.analysis.rows import MethodSummary
from wpt_bench.analysis.scores import RunTable
from wpt_bench.reports.figures.drawing import (
    Drawing,
    Sketch,
    draw,
    score_axis,
    share_axis,
    small_multiples,
    steps_axis,
    tag,
    value_axis,
)
from wpt_bench.reports.figures.intervals import ROW
from wpt_bench.reports.style import FAINT, PUBLISHED, PUBLISHED_MARKERS

DIAGNOSTICS = {
    "open_loop_ratio": ("open loop vs persistence", "share of error", 1.0),
    "reward_ratio": ("reward error vs mean", "share of error", 1.0),
    "value_bias": ("value bias", "predicted - realised", 0.0),
    "retrieved_distance": ("distance to retrieved", "ratio", 1.0),
    EPISODE_RETURN: ("return, no score here", "return", None),
}
"""Diagnostics that are drawn: title, label of the axis, and what a run would show that is no better than it could be
without learning, or that is as it should be, if there is such a thing."""
GUIDED_POINTS = 20
"""Parts of the budget over each of which the share of guided steps is a mean."""
COLUMNS = {"score at the budget": "score", "area under the curve": "auc"}
"""What is shown of every run: titles, and columns of ``RunTable.runs``."""
BANDS = "bands, cut off at the ends of the axis, are corrected 95% intervals, of whole seeds"


def measure(*tables: RunTable) -> str:
    """What a score is, as a label says it: ``success``, ``return / 1000``; ``score`` where runs differ."""
    kinds = {(run.score, run.score_scale) for table in tables for run in table.records.values()}
    if len(kinds) != 1:
        return "score"
    ((kind, scale),) = kinds
    return kind if scale == 1 else f"{kind} / {scale:g}"


def aggregate_curves(comparison: Comparison, methods: Collection[str], name: str) -> Drawing:
    """IQM over tasks and seeds against environment steps, a band for its 95% interval, one line per method.

    Methods without online steps are dashed lines at their score, what WPT's cloned prior has alone is a dotted one.
    Incomplete methods are not drawn. Arms of WPT have the same order everywhere, whatever they score.

    Args:
        comparison: whose rows.
        methods: those to draw.
        name: last part of the file's name.
    """
    table = comparison.table
    arms = list(ARMS)
    rows = [row for row in comparison.rows if row.name in methods]
    rows.sort(key=lambda row: arms.index(row.name) if row.name in arms else len(arms))
    prior = next((row.prior for row in rows if row.name == WPT and row.prior is not None), None)

    def make(sketch: Sketch) -> None:
        axes = sketch.figure.add_subplot()
        sketch.band = opacity(len(rows))
        if prior is not None:
            sketch.mark(axes, WPT, prior.value, f"{WPT}'s cloned prior alone (0 online steps)")
        for row in rows:
            if row.curve is not None:
                sketch.curve(axes, row.name, row.curve.env_steps, row.curve.value, row.curve.low, row.curve.high)
            elif row.iqm is not None:
                sketch.level(axes, row.name, (0, table.budget), row.iqm.value, f"{row.name} (0 online steps)")
        axes.set_title(", ".join([counted(table.tasks) if len(table.tasks) > 1 else table.tasks[0], seeded(rows)]))
        steps_axis(axes, table.budget)
        score_axis(axes, f"IQM of {measure(table)}")
        sketch.legend(axes)

    left_out = [row.name for row in rows if row.incomplete]
    caption = (
        f"Interquartile mean of the score over {counted(table.tasks)} and all seeds at each evaluation; {BANDS}, "
        f"from {comparison.curve_resamples:,} resamples where there is more than one seed."
        + (" Dotted: what the policy that is cloned from retrieved episodes has alone." if prior is not None else "")
        + (f" Not drawn, because runs are missing: {', '.join(left_out)}." if left_out else "")
    )
    return draw(f"curves-{table.observation}-{name}", caption, (5.0, 2.8), make)


def embodiment_curves(comparison: Comparison, methods: Collection[str]) -> Drawing:
    """IQM over the tasks of each embodiment against environment steps, one pair of axes for each."""
    table = comparison.table

    def make(sketch: Sketch) -> None:
        everywhere = small_multiples(sketch, list(comparison.embodiments), 3)
        sketch.band = opacity(len(methods))
        for axes, (name, parts) in zip(everywhere, comparison.embodiments.items(), strict=True):
            for part in parts:
                if part.method not in methods:
                    continue
                if part.curve is None:
                    label = f"{part.method} (0 online steps)"
                    sketch.level(axes, part.method, (0, table.budget), part.iqm.value, label)
                else:
                    curve = part.curve
                    sketch.curve(axes, part.method, curve.env_steps, curve.value, curve.low, curve.high)
            axes.set_title(f"{name} ({counted(table.embodiments[name])})")
            steps_axis(axes, table.budget)
            score_axis(axes, f"IQM of {measure(table)}")
        sketch.legend(*everywhere)

    caption = f"Interquartile mean over the tasks of each embodiment and all seeds at each evaluation; {BANDS}."
    return draw(f"curves-{table.observation}-embodiments", caption, _multiples(len(comparison.embodiments)), make)


def adaptation_curves(comparison: Comparison, embodiment: str, methods: Collection[str]) -> Drawing:
    """Every task of one embodiment side by side: mean of the seeds, and each seed."""
    table, tasks = comparison.table, comparison.table.embodiments[embodiment]

    def make(sketch: Sketch) -> None:
        everywhere = small_multiples(sketch, tasks, 3)
        for axes, task in zip(everywhere, tasks, strict=True):
            _task_lines(sketch, axes, comparison, task, methods)
            steps_axis(axes, table.budget)
            score_axis(axes, measure(table))
        sketch.legend(*everywhere)

    caption = f"Tasks of {embodiment}: mean score at each evaluation (thick) and every seed (thin)."
    return draw(f"adaptation-{table.observation}-{embodiment}", caption, _multiples(len(tasks)), make)


def task_curves(comparison: Comparison, task: str) -> Drawing:
    """Mean score of one task against environment steps, one line per method, its seeds as thin lines.

    Behind them, in grey, what others published for the task from the same kind of observation, up to the budget.
    """
    table = comparison.table

    def make(sketch: Sketch) -> None:
        axes = sketch.figure.add_subplot()
        axes.set_title(task)
        _task_lines(sketch, axes, comparison, task, table.methods)
        _published_lines(axes, table, task)
        steps_axis(axes, table.budget)
        score_axis(axes, measure(table))
        sketch.legend(axes)

    caption = f"{task}: mean score at each evaluation (thick) and every seed (thin)."
    if task in set(published_inside(table)["task"]):
        caption += " Dotted grey: published scores, method and source."
    return draw(f"curves-{table.observation}-{task}", caption, (4.0, 2.5), make)


def performance_profiles(comparison: Comparison) -> Drawing:
    """Share of runs above each score, one line per method."""
    table = comparison.table

    def make(sketch: Sketch) -> None:
        axes = sketch.figure.add_subplot()
        sketch.band = opacity(len(comparison.rows))
        for row in comparison.rows:
            if row.profile is not None:
                its = row.profile
                sketch.curve(axes, row.name, its.env_steps, its.value, its.low, its.high, marker="")
        axes.set(xlabel=measure(table), ylabel="share of runs above it", xlim=(0, 1), ylim=(0, 1.02))
        axes.set_title("Performance profiles")
        sketch.legend(axes)

    caption = f"Share of runs, over all tasks and seeds, that score above each level at the budget; {BANDS}."
    return draw(f"profiles-{table.observation}", caption, (5.0, 2.8), make)


def every_run(comparison: Comparison) -> Drawing:
    """Every run of every complete method as a mark: its score at the budget, and its area under the curve."""
    table = comparison.table
    rows = [row for row in comparison.rows if row.iqm is not None]

    def make(sketch: Sketch) -> None:
        everywhere = sketch.figure.subplots(1, 2, sharey=True)
        for axes, (title, column) in zip(everywhere, COLUMNS.items(), strict=True):
            axes.set_title(title)
            for place, row in enumerate(rows):
                its = table.runs[table.runs["method"] == row.name][column].dropna()
                sketch.marks(axes, row.name, its, place)
            axes.set(xlabel=measure(table), xlim=(-0.02, max(1.02, axes.get_xlim()[1])))
            axes.grid(visible=False, axis="y")
        everywhere[0].set_yticks(range(len(rows)), [row.name for row in rows])
        everywhere[0].set_ylim(len(rows) - 0.4, -0.6)
        for text, row in zip(everywhere[0].get_yticklabels(), rows, strict=True):
            tag(text, row.name)

    caption = f"Every run on {counted(table.tasks)}, {seeded(rows)}, as a mark; of several at one place one is seen."
    return draw(f"runs-{table.observation}", caption, (7.0, 0.85 + ROW * len(rows)), make)


def guidance_schedule(comparison: Comparison) -> Drawing:
    """Share of agent steps that the cloned prior chose, by training episode, one line per method."""
    table = comparison.table

    def make(sketch: Sketch) -> None:
        axes = sketch.figure.add_subplot()
        for method, own in table.guided.groupby("method"):
            part = table.budget / GUIDED_POINTS
            mean = own.groupby(np.ceil(own["env_step"] / part) * part - part / 2)["guided"].mean()
            sketch.curve(axes, str(method), mean.index, mean, marker="")
        axes.set_title("Execution guidance")
        steps_axis(axes, table.budget)
        axes.set(ylabel="share of steps guided", ylim=(0, 1.02))
        sketch.legend(axes)

    caption = (
        "Share of the agent steps of training episodes that the cloned prior chose, mean over tasks, seeds and each "
        f"{1 / GUIDED_POINTS:.0%} of the budget. In the warm-up it drives whole episodes, then a part of some, and of "
        "fewer and fewer until guidance ends."
    )
    return draw(f"guidance-{table.observation}", caption, (5.0, 1.8), make)


def diagnostic_curves(comparison: Comparison) -> Drawing:
    """What agents told of themselves at each evaluation: mean over tasks and seeds, one line per method."""
    table = comparison.table
    told = table.diagnostics[table.diagnostics["name"].isin(DIAGNOSTICS)]
    shown = [name for name in DIAGNOSTICS if name in set(told["name"])]

    def make(sketch: Sketch) -> None:
        everywhere = small_multiples(sketch, [DIAGNOSTICS[name][0] for name in shown], 2)
        for axes, name in zip(everywhere, shown, strict=True):
            label, level = DIAGNOSTICS[name][1:]
            if level is not None:
                axes.axhline(level, color=FAINT, linewidth=1.0, zorder=0)
            for method, own in told[told["name"] == name].groupby("method"):
                mean = own.groupby("env_step")["value"].mean()
                sketch.curve(axes, str(method), mean.index, mean)
            steps_axis(axes, table.budget)
            if level == 1.0:
                share_axis(axes, label)
            else:
                value_axis(axes, label)
        sketch.legend(*everywhere)

    caption = (
        "Diagnostics of evaluation episodes, mean over tasks and seeds at each evaluation; the grey lines are at 1, "
        "where nothing is gained over the trivial predictor or episodes lie as near as retrieved ones, and at 0, where "
        "values are what is earned. Shares and ratios have logarithmic axes."
    )
    return draw(f"diagnostics-{table.observation}", caption, (5.0, 2.1 * -(-len(shown) // 2)), make)


def counted(tasks: Sequence[str]) -> str:
    """How many tasks, in words."""
    return f"{len(tasks)} task{'s' if len(tasks) != 1 else ''}"


def seeded(rows: Sequence[MethodSummary]) -> str:
    """How many seeds stand behind each method, in words."""
    counts = sorted({row.seeds for row in rows})
    spoken = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"
    return f"{spoken} seed{'' if spoken == '1' else 's'}"


def opacity(methods: int) -> float:
    """Of the bands of so many methods, which lie upon each other and must not hide the lines."""
    return min(0.13, 0.8 / methods)


def _multiples(count: int) -> tuple[float, float]:
    """Size of so many small axes, at most three to a row."""
    rows = -(-count // 3)
    return (2.3 * -(-count // rows) + (1.4 if count == 1 else 0.4), 2.1 * rows)


def _task_lines(
    sketch: Sketch, axes: Axes, comparison: Comparison, task: str, methods: Collection[str] | Sequence[str]
) -> None:
    """Mean scores on one task, thick, and their seeds, thin."""
    table = comparison.table
    curves = table.curves[table.curves["task"] == task]
    for row in comparison.rows:
        own = curves[curves["method"] == row.name]
        if own.empty or row.name not in methods:
            continue
        if not row.online:
            score = float(own.groupby("seed")["score"].last().mean())
            sketch.level(axes, row.name, (0, table.budget), score, f"{row.name} (0 online steps)")
            continue
        for _, seed in own.groupby("seed"):
            sketch.faint(axes, row.name, seed["env_step"], seed["score"])
        mean = own.pivot(index="env_step", columns="seed", values="score").interpolate("index").mean(axis=1)
        sketch.curve(axes, row.name, mean.index, mean)


def _published_lines(axes: Axes, table: RunTable, task: str) -> None:
    """One dotted line per method and source, whose marker is the same in every figure."""
    series = sorted(set(zip(published_scores()["method"], published_scores()["origin"], strict=True)))
    points = published_inside(table)
    for (method, origin), own in points[points["task"] == task].groupby(["method", "origin"]):
        marker = PUBLISHED_MARKERS[series.index((method, origin)) % len(PUBLISHED_MARKERS)]
        (line,) = axes.plot(
            own["env_steps"], own["score"], linestyle=":", color=PUBLISHED, linewidth=1.0, marker=marker
        )
        line.set(zorder=1, label=f"{method} ({origin})")
