"""One figure in every format: SVG for the page, PNG and PDF for papers, and what a reader sees when hovering."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

from wpt_bench.analysis.aggregate import Estimate
from wpt_bench.records import write_atomic
from wpt_bench.reports.style import FAINT, INK, Look, look, settings

LEGEND_ROW = 0.19
"""Height of a row of the legend, in inches."""
_TAG = "method:"


@dataclass(frozen=True)
class Series:
    """What a reader sees of one method when hovering: values ``(points,)``, and their intervals where there are any."""

    method: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes: where it lies in the SVG's own coordinates, what it spans in data, and its series."""

    title: str
    left: float
    right: float
    top: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Drawing:
    """One figure in its formats.

    Attributes:
        name: of its files, without ending.
        caption: also serves as its text alternative.
        width: in inches; the page shows all figures at one scale.
        panels: what a reader sees when hovering.
    """

    name: str
    caption: str
    svg: str
    png: bytes
    pdf: bytes
    width: float
    panels: tuple[Panel, ...] = ()

    def save(self, folder: Path) -> None:
        """Writes ``name.svg``, ``name.png`` and ``name.pdf`` into ``folder``."""
        write_atomic(folder / f"{self.name}.svg", self.svg.encode())
        write_atomic(folder / f"{self.name}.png", self.png)
        write_atomic(folder / f"{self.name}.pdf", self.pdf)

    def inline(self) -> str:
        """The SVG as an HTML element: identifiers of its own, the page's text colour, no address of anything.

        What belongs to one method carries its name as ``data-method``, so that the page can hide it.
        """
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)
        svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
        svg = re.sub(rf"""<g id=(["']){_TAG}""", r"<g data-method=\1", svg)  # in ' where the name has a "
        svg = re.sub(r'(<\w+(?: [\w:-]+="[^"]*")* )id="', rf'\g<1>id="{self.name}-', svg)
        svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{self.name}-", svg)
        svg = svg.replace(INK, "currentColor").replace(f"stroke: {FAINT}", "stroke: currentColor; stroke-opacity: 0.2")
        return svg.replace("<svg", '<svg aria-hidden="true"', 1)


@dataclass
class Sketch:
    """A figure that is being drawn; what belongs to a method goes through it, so that a page can hide or show it.

    Attributes:
        figure: to draw into.
        band: opacity of the bands of intervals.
        looks: how whatever has a name is drawn.
    """

    figure: Figure
    band: float = 0.13
    looks: Callable[[str], Look] = look
    _series: dict[Axes, list[Series]] = field(default_factory=dict)

    def curve(
        self,
        axes: Axes,
        method: str,
        x: ArrayLike,
        y: ArrayLike,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
        **how: Any,
    ) -> None:
        """A method's line with its marker, and a band where there is an interval."""
        its = self.looks(method)
        style = {"linestyle": its.line, "color": its.colour, "marker": its.marker, "label": method} | how
        (line,) = axes.plot(x, y, **style)
        tag(line, method)
        if low is not None and high is not None:
            tag(axes.fill_between(x, low, high, color=its.colour, alpha=self.band, linewidth=0), method)
        self.hover(axes, method, x, y, low, high)

    def level(self, axes: Axes, method: str, x: tuple[float, float], y: float, label: str) -> None:
        """A dashed line: a score that no environment step went into."""
        self.curve(axes, method, x, (y, y), linestyle="--", linewidth=1.4, label=label)

    def mark(self, axes: Axes, method: str, y: float, label: str) -> None:
        """A dotted line across at something that belongs to a method and is none of its scores."""
        line = axes.axhline(y, linestyle=":", color=self.looks(method).colour, linewidth=1.4, label=label)
        tag(line, method)

    def faint(self, axes: Axes, method: str, x: ArrayLike, y: ArrayLike) -> None:
        """One seed of a method: a thin line without a marker."""
        its = self.looks(method)
        (line,) = axes.plot(x, y, linestyle=its.line, color=its.colour, linewidth=0.8, alpha=0.45)
        tag(line, method)

    def interval(self, axes: Axes, method: str, estimate: Estimate, row: float) -> None:
        """A figure at height ``row``: a bar for the percentile interval, a thin line for the corrected one."""
        its = self.looks(method)
        if estimate.low is not None and estimate.high is not None:
            width = estimate.high - estimate.low
            (bar,) = axes.barh(row, width, left=estimate.low, height=0.5, color=its.colour, alpha=0.4, linewidth=0)
            tag(bar, method)
        if estimate.corrected_low is not None and estimate.corrected_high is not None:
            (line,) = axes.plot(
                [estimate.corrected_low, estimate.corrected_high], [row, row], color=its.colour, linewidth=1.0
            )
            tag(line, method)
        (point,) = axes.plot([estimate.value], [row], marker=its.marker, color=its.colour, linestyle="none")
        tag(point, method)

    def marks(self, axes: Axes, method: str, x: ArrayLike, row: float) -> None:
        """Single figures at height ``row``."""
        its, values = self.looks(method), np.asarray(x, np.float64)
        (points,) = axes.plot(values, np.full(len(values), row), its.marker, color=its.colour, alpha=0.6)
        tag(points, method)

    def upright(self, axes: Axes, method: str, estimate: Estimate, x: float) -> None:
        """The intervals of a figure at ``x``: a bar for the percentile interval, a thin line for the corrected one."""
        for low, high, width, alpha in (
            (estimate.low, estimate.high, 5.0, 0.4),
            (estimate.corrected_low, estimate.corrected_high, 1.0, 1.0),
        ):
            if low is not None and high is not None:
                (line,) = axes.plot([x, x], [low, high], color=self.looks(method).colour, linewidth=width, alpha=alpha)
                line.set_solid_capstyle("butt")
                tag(line, method)

    def dots(self, axes: Axes, method: str, x: Sequence[float], estimates: Sequence[Estimate]) -> None:
        """Figures at ``x``, joined by a line; hovering shows them with their corrected intervals."""
        its, values = self.looks(method), [one.value for one in estimates]
        (line,) = axes.plot(x, values, linestyle=its.line, color=its.colour, marker=its.marker, label=method)
        line.set_linewidth(1.0)
        tag(line, method)
        whole = all(one.corrected_low is not None for one in estimates)
        low, high = ([getattr(one, name) for one in estimates] for name in ("corrected_low", "corrected_high"))
        if estimates:
            self.hover(axes, method, x, values, low if whole else None, high if whole else None)

    def hover(
        self,
        axes: Axes,
        method: str,
        x: ArrayLike,
        y: ArrayLike,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
    ) -> None:
        """Values that the page shows at the pointer."""
        of_all = (x, y, low, high)
        columns = [None if part is None else np.asarray(part, dtype=np.float64).tolist() for part in of_all]
        self._series.setdefault(axes, []).append(Series(method, *columns))  # type: ignore[arg-type]

    def legend(self, *sources: Axes, ncols: int = 2) -> None:
        """A legend below the figure, which grows by as much; every label of ``sources`` once."""
        entries: dict[str, Any] = {}
        for axes in sources:
            handles, labels = axes.get_legend_handles_labels()
            for handle, label in zip(handles, labels, strict=True):
                entries.setdefault(label, handle)
        if not entries:
            return
        legend = self.figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=ncols)
        for mark, text, source in zip(legend.legend_handles, legend.get_texts(), entries.values(), strict=True):
            if (gid := source.get_gid()) is not None:
                text.set_gid(gid)
                if mark is not None:
                    mark.set_gid(gid)
        rows = -(-len(entries) // ncols)
        self.figure.set_figheight(self.figure.get_figheight() + LEGEND_ROW * rows)

    def panels(self) -> tuple[Panel, ...]:
        """Where every pair of axes with series ended up; to be asked when the layout is settled."""
        points = 72 / self.figure.dpi
        height = self.figure.get_figheight() * 72
        found = []
        for axes, series in self._series.items():
            box = axes.get_window_extent()
            left, right = (round(value * points, 2) for value in (box.x0, box.x1))
            top, bottom = (round(height - value * points, 2) for value in (box.y1, box.y0))
            found.append(
                Panel(
                    axes.get_title(loc="left"),
                    left,
                    right,
                    top,
                    bottom,
                    axes.get_xlim(),
                    axes.get_ylim(),
                    tuple(series),
                )
            )
        return tuple(found)


def tag(artist: Artist, method: str) -> None:
    """Marks what is drawn as belonging to one method."""
    artist.set_gid(f"{_TAG}{method}")


def draw(name: str, caption: str, size: tuple[float, float], make: Callable[[Sketch], None]) -> Drawing:
    """Draws a figure in all formats; the same input gives the same bytes.

    Args:
        name: of its files; letters, digits, ``-`` and ``_`` (others become ``-``).
        caption: one or more sentences, plain text; one on lines that coincide is added to them.
        size: width and height in inches, without the legend.
        make: draws into the sketch it is given.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
    svg, png, pdf = StringIO(), BytesIO(), BytesIO()
    with mpl.rc_context(settings(name)):
        sketch = Sketch(Figure(figsize=size))
        make(sketch)
        sketch.figure.draw_without_rendering()
        sketch.figure.set_layout_engine("none")  # settled: the formats need not lay it out again
        panels = sketch.panels()
        sketch.figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        sketch.figure.savefig(png, format="png", dpi=200, facecolor="white", metadata={"Software": None})
        sketch.figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    caption += _coinciding(panels)
    return Drawing(name, caption, svg.getvalue(), png.getvalue(), pdf.getvalue(), size[0], panels)


def steps_axis(axes: Axes, budget: int) -> None:
    """An x-axis of environment steps, in thousands."""
    axes.set_xlabel("environment steps")
    axes.set_xlim(-0.015 * budget, 1.015 * budget)  # the first and the last marker whole
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")


def score_axis(axes: Axes, label: str) -> None:
    """A y-axis of scores, from 0 to 1, farther only where a line goes; bands that go farther are cut off."""
    axes.set_ylabel(label)
    low, high = _drawn(axes, 0.0, 1.0)
    axes.set_ylim(low - 0.02, high + 0.02)  # markers at the ends whole


def value_axis(axes: Axes, label: str) -> None:
    """A y-axis of other numbers that shows 0 and every line."""
    axes.set_ylabel(label)
    low, high = _drawn(axes, 0.0, 0.05)
    room = 0.15 * (high - low)
    axes.set_ylim(low - (room if low < 0 else 0), high + room)


def share_axis(axes: Axes, label: str) -> None:
    """A logarithmic y-axis of shares and ratios that shows 1 and every line."""
    axes.set_ylabel(label)
    axes.set_yscale("log")
    low, high = _drawn(axes, 0.8, 1.25)
    low, high = max(low, 1e-3) / 1.3, high * 1.3
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _drawn(axes: Axes, low: float, high: float) -> tuple[float, float]:
    """What the lines span, and at least this."""
    values = np.concatenate([[low, high], *(np.asarray(line.get_ydata(), np.float64) for line in axes.get_lines())])
    return float(values.min()), float(values.max())


def _coinciding(panels: Sequence[Panel]) -> str:
    """A sentence on lines that lie upon each other from end to end, so that one sees a single one; empty without."""
    said = []
    for panel in panels:
        lines: dict[tuple[float, ...], list[str]] = {}
        for its in panel.series:
            level = (round(its.y[0], 9),)
            whole = tuple(round(value, 9) for value in (*its.y, *its.x))
            lines.setdefault(level if set(whole[: len(its.y)]) == set(level) else whole, []).append(its.method)
        where = f"{panel.title}: " if len(panels) > 1 else ""
        said += [
            f"{where}{', '.join(names)}" + (f" (at {key[0]:.3g} throughout)" if len(key) == 1 else "")
            for key, names in lines.items()
            if len(names) > 1
        ]
    return f" Lines that coincide: {'; '.join(said)}." if said else ""


def small_multiples(sketch: Sketch, titles: Sequence[str], columns: int) -> list[Axes]:
    """Axes side by side and below each other, one for each title, row by row."""
    rows = -(-len(titles) // columns)
    columns = -(-len(titles) // rows)  # as few in the last row as need be: four are two and two
    grid = sketch.figure.subplots(rows, columns, squeeze=False)
    flat = list(grid.flat)
    for axes, title in zip(flat, titles, strict=False):
        axes.set_title(title)
    for axes in flat[len(titles) :]:
        axes.remove()
    return flat[: len(titles)]
