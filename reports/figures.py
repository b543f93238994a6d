"""Sample-efficiency curves: over all tasks (IQM and interval) and for one task (mean and seeds)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from wpt_bench.analysis.compare import Comparison
from wpt_bench.analysis.published import published_inside, published_scores
from wpt_bench.analysis.scores import RunTable
from wpt_bench.records import write_atomic
from wpt_bench.reports.style import FAINT, INK, PUBLISHED, PUBLISHED_MARKERS, look, settings

LEGEND_ROWS = 4
"""Rows of the legend for which a figure has room; every further one makes it higher."""
LEGEND_ROW = 0.19
"""Height of such a row, in inches."""


@dataclass(frozen=True)
class Drawing:
    """One figure: its file name without ending, a caption that also serves as its text alternative, SVG and PNG."""

    name: str
    caption: str
    svg: str
    png: bytes

    def save(self, folder: Path) -> None:
        """Writes ``name.svg`` and ``name.png`` into ``folder``."""
        write_atomic(folder / f"{self.name}.svg", self.svg.encode())
        write_atomic(folder / f"{self.name}.png", self.png)

    def inline(self) -> str:
        """The SVG as an HTML element: identifiers of its own, the page's text colour, no address of anything."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
        svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
        svg = re.sub(r'\bid="', f'id="{self.name}-', svg)
        svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{self.name}-", svg)
        svg = svg.replace(INK, "currentColor").replace(f"stroke: {FAINT}", "stroke: currentColor; stroke-opacity: 0.2")
        return svg.replace("<svg", '<svg aria-hidden="true"', 1)


def aggregate_curves(comparison: Comparison) -> Drawing:
    """IQM over tasks and seeds against environment steps, a band for its 95% interval, one line per method.

    Methods without online steps are dashed lines at their score. Incomplete methods are not drawn.
    """

    def draw(axes: Axes) -> None:
        for row in comparison.rows:
            its = look(row.name)
            if row.curve is not None:
                _mean_line(axes, row.name, row.curve.env_steps, row.curve.value)
                if row.curve.low is not None and row.curve.high is not None:
                    axes.fill_between(
                        row.curve.env_steps, row.curve.low, row.curve.high, color=its.colour, alpha=0.16, linewidth=0
                    )
            elif row.iqm is not None:
                _offline_line(axes, row.name, row.iqm.value, comparison.table.budget)
        axes.set_title("All tasks")
        axes.set_ylabel("IQM score")

    table = comparison.table
    left_out = [row.name for row in comparison.rows if row.incomplete]
    caption = (
        f"Interquartile mean of the score over {len(table.tasks)} tasks and all seeds at each evaluation; bands are "
        f"95% intervals ({comparison.curve_resamples:,} resamples), where there is more than one seed."
        + (f" Not drawn, because runs are missing: {', '.join(left_out)}." if left_out else "")
    )
    return _drawing(f"curves-{table.observation}-all", caption, (5.0, 3.5), comparison, draw)


def task_curves(comparison: Comparison, task: str) -> Drawing:
    """Mean score of one task against environment steps, one line per method, its seeds as thin lines.

    Behind them, in grey, what others published for the task from the same kind of observation, up to the budget.
    """
    table = comparison.table
    curves = table.curves[table.curves["task"] == task]

    def draw(axes: Axes) -> None:
        for row in comparison.rows:
            own = curves[curves["method"] == row.name]
            if own.empty:
                continue
            if not row.online:
                _offline_line(axes, row.name, float(own.groupby("seed")["score"].last().mean()), table.budget)
                continue
            its = look(row.name)
            for _, seed in own.groupby("seed"):
                axes.plot(
                    seed["env_step"], seed["score"], linestyle=its.line, color=its.colour, linewidth=0.8, alpha=0.45
                )
            mean = own.pivot(index="env_step", columns="seed", values="score").interpolate("index").mean(axis=1)
            _mean_line(axes, row.name, mean.index, mean)
        _published_lines(axes, table, task)
        axes.set_title(task)
        axes.set_ylabel("score")

    caption = f"{task}: mean score at each evaluation (thick) and every seed (thin)."
    if task in set(published_inside(table)["task"]):
        caption += " Dotted grey: published scores, method and source."
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", f"curves-{table.observation}-{task}")
    return _drawing(name, caption, (4.0, 3.1), comparison, draw)


def _mean_line(axes: Axes, name: str, steps: ArrayLike, scores: ArrayLike) -> None:
    its = look(name)
    axes.plot(steps, scores, linestyle=its.line, color=its.colour, marker=its.marker, label=name)


def _offline_line(axes: Axes, name: str, score: float, budget: int) -> None:
    its = look(name)
    label = f"{name} (0 online steps)"
    axes.plot(
        [0, budget], [score, score], color=its.colour, linestyle="--", linewidth=1.4, marker=its.marker, label=label
    )


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


def _drawing(
    name: str, caption: str, size: tuple[float, float], comparison: Comparison, draw: Callable[[Axes], None]
) -> Drawing:
    svg, png = StringIO(), BytesIO()
    with mpl.rc_context(settings(name)):
        figure = Figure(figsize=size)
        axes = figure.add_subplot()
        draw(axes)
        axes.set_xlabel("environment steps")
        axes.set_xlim(0, comparison.table.budget)
        axes.margins(y=0.06)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.0), max(high, 0.05))
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=2)
            figure.set_figheight(size[1] + LEGEND_ROW * max(0, (len(handles) + 1) // 2 - LEGEND_ROWS))
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        figure.savefig(png, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return Drawing(name, caption, svg.getvalue(), png.getvalue())
