"""Sample-efficiency curves: over all tasks (IQM and interval) and for each task (mean and seeds)."""

from __future__ import annotations

from matplotlib.axes import Axes

from wpt_bench.analysis.compare import Comparison
from wpt_bench.analysis.published import published_inside, published_scores
from wpt_bench.analysis.scores import RunTable
from wpt_bench.reports.figures.drawing import Drawing, Sketch, draw, score_axis, steps_axis
from wpt_bench.reports.style import PUBLISHED, PUBLISHED_MARKERS


def aggregate_curves(comparison: Comparison) -> Drawing:
    """IQM over tasks and seeds against environment steps, a band for its 95% interval, one line per method.

    Methods without online steps are dashed lines at their score. Incomplete methods are not drawn.
    """
    table = comparison.table

    def make(sketch: Sketch) -> None:
        axes = sketch.figure.add_subplot()
        for row in comparison.rows:
            if row.curve is not None:
                sketch.curve(axes, row.name, row.curve.env_steps, row.curve.value, row.curve.low, row.curve.high)
            elif row.iqm is not None:
                sketch.level(axes, row.name, (0, table.budget), row.iqm.value, f"{row.name} (0 online steps)")
        axes.set_title("All tasks")
        steps_axis(axes, table.budget)
        score_axis(axes, "IQM score")
        sketch.legend(axes)

    left_out = [row.name for row in comparison.rows if row.incomplete]
    caption = (
        f"Interquartile mean of the score over {len(table.tasks)} tasks and all seeds at each evaluation; bands are "
        f"95% intervals ({comparison.curve_resamples:,} resamples), where there is more than one seed."
        + (f" Not drawn, because runs are missing: {', '.join(left_out)}." if left_out else "")
    )
    return draw(f"curves-{table.observation}-all", caption, (5.0, 2.8), make)


def task_curves(comparison: Comparison, task: str) -> Drawing:
    """Mean score of one task against environment steps, one line per method, its seeds as thin lines.

    Behind them, in grey, what others published for the task from the same kind of observation, up to the budget.
    """
    table = comparison.table

    def make(sketch: Sketch) -> None:
        axes = sketch.figure.add_subplot()
        axes.set_title(task)
        task_lines(sketch, axes, comparison, task)
        published_lines(axes, table, task)
        steps_axis(axes, table.budget)
        score_axis(axes, "score")
        sketch.legend(axes)

    caption = f"{task}: mean score at each evaluation (thick) and every seed (thin)."
    if task in set(published_inside(table)["task"]):
        caption += " Dotted grey: published scores, method and source."
    return draw(f"curves-{table.observation}-{task}", caption, (4.0, 2.5), make)


def task_lines(sketch: Sketch, axes: Axes, comparison: Comparison, task: str) -> None:
    """Every method's mean score on one task, thick, and its seeds, thin."""
    table = comparison.table
    curves = table.curves[table.curves["task"] == task]
    for row in comparison.rows:
        own = curves[curves["method"] == row.name]
        if own.empty:
            continue
        if not row.online:
            score = float(own.groupby("seed")["score"].last().mean())
            sketch.level(axes, row.name, (0, table.budget), score, f"{row.name} (0 online steps)")
            continue
        for _, seed in own.groupby("seed"):
            sketch.faint(axes, row.name, seed["env_step"], seed["score"])
        mean = own.pivot(index="env_step", columns="seed", values="score").interpolate("index").mean(axis=1)
        sketch.curve(axes, row.name, mean.index, mean)


def published_lines(axes: Axes, table: RunTable, task: str) -> None:
    """One dotted line per method and source, whose marker is the same in every figure."""
    series = sorted(set(zip(published_scores()["method"], published_scores()["origin"], strict=True)))
    points = published_inside(table)
    for (method, origin), own in points[points["task"] == task].groupby(["method", "origin"]):
        marker = PUBLISHED_MARKERS[series.index((method, origin)) % len(PUBLISHED_MARKERS)]
        (line,) = axes.plot(
            own["env_steps"], own["score"], linestyle=":", color=PUBLISHED, linewidth=1.0, marker=marker
        )
        line.set(zorder=1, label=f"{method} ({origin})")
