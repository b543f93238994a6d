"""Figures with intervals, one below the other: aggregates of methods, and effects of WPT's parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes

from wpt_bench.analysis.aggregate import Estimate, told_apart
from wpt_bench.analysis.compare import Comparison
from wpt_bench.analysis.factorial import Effect
from wpt_bench.analysis.scores import SCRATCH
from wpt_bench.reports.figures.drawing import Drawing, Sketch, draw, tag
from wpt_bench.reports.style import INK, Look, look

ROW = 0.23
"""Height of a line, in inches."""
TITLES = {"iqm": "IQM", "median": "median of tasks", "mean": "mean", "optimality_gap": "optimality gap"}
INTERVALS = "bars are rliable's 95% intervals, thin lines the corrected ones, of whole seeds"
OF_DIFFERENCES = "bars are 95% percentile intervals, thin lines the corrected ones, of whole seeds"

Row = tuple[str, str, Estimate | None]
"""Label, method whose look it has, figure."""
Panels = dict[str, list[Row]]
"""Rows by the title of their axes; those of all axes have the same labels."""


def metric_intervals(comparison: Comparison) -> Drawing:
    """Aggregates of every complete method, as far as they tell different things of so many tasks."""
    rows = [row for row in comparison.rows if row.estimates]
    panels: Panels = {
        title: [(row.name, row.name, row.estimates[name]) for row in rows]
        for name, title in TITLES.items()
        if name in told_apart(comparison.table.tasks)
    }
    caption = f"Aggregates of the scores at the budget over tasks and seeds; {INTERVALS}."
    if TITLES["optimality_gap"] in panels:
        caption += (
            " Median: of the tasks' mean scores. Of the optimality gap, the mean shortfall from a score of 1, less is "
            "better."
        )
    return panels_of(f"intervals-{comparison.table.observation}", caption, panels, width=7.0)


def against_scratch(comparison: Comparison) -> Drawing:
    """Every complete method against learning from scratch: difference in IQM and probability of improvement."""
    rows = [(row.name, row.against) for row in comparison.rows if row.against is not None]
    panels: Panels = {
        "difference in IQM": [(name, name, its.score) for name, its in rows],
        "difference in AUC": [(name, name, its.auc) for name, its in rows],
        "P(improvement)": [(name, name, its.improvement) for name, its in rows],
    }
    caption = (
        f"Against {SCRATCH}: IQM of the score at the budget and of the area under the curve minus its own, and the "
        f"probability of improvement, the chance that a run on the same task beats one of its; {OF_DIFFERENCES}. "
        "Dotted: no difference."
    )
    zeros = {"difference in IQM": 0.0, "difference in AUC": 0.0, "P(improvement)": 0.5}
    return panels_of(f"against-scratch-{comparison.table.observation}", caption, panels, width=7.0, zeros=zeros)


def part_effects(comparison: Comparison) -> Drawing:
    """Main effects and interactions of WPT's parts, or single switches while arms are missing."""
    both = (comparison.ablation, comparison.auc_ablation)
    whole = all(one.effects for one in both)
    panels: Panels = {
        title: [
            (effect.name, _whose(effect, whole), effect.estimate)
            for effect in (*(one.effects if whole else one.single), *([one.control] if one.control else []))
        ]
        for title, one in zip(("score at the budget", "area under the curve"), both, strict=True)
    }
    what = (
        "Main effects and interactions of pre-training, rehearsal and guidance from all eight combinations"
        if whole
        else "What switching on one part changes, everything else equal, for the combinations there are"
    )
    caption = f"{what}, in IQM; {OF_DIFFERENCES}. Dotted: no effect."
    zeros = dict.fromkeys(panels, 0.0)
    return panels_of(f"effects-{comparison.table.observation}", caption, panels, width=7.0, zeros=zeros)


def _whose(effect: Effect, whole: bool) -> str:
    """The method whose look an effect has: of two arms the one with the part, else WPT."""
    return effect.arms[0] if not whole or len(effect.arms) == 2 else "wpt"


def panels_of(
    name: str,
    caption: str,
    panels: Panels,
    *,
    width: float,
    zeros: Mapping[str, float] = {},
    looks: Callable[[str], Look] = look,
) -> Drawing:
    """Figures with their intervals as panels side by side, one row for each label.

    Args:
        name: of the file.
        caption: below the figure.
        panels: as above.
        width: in inches.
        zeros: where a panel has a dotted line, by its title.
        looks: how the rows are drawn, by what stands for the method in them.
    """
    first = next(iter(panels.values()))
    labels = [label for label, _, _ in first]

    def make(sketch: Sketch) -> None:
        sketch.looks = looks
        everywhere: Sequence[Axes] = sketch.figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, rows) in zip(everywhere, panels.items(), strict=True):
            axes.set_title(title)
            for place, (_, method, estimate) in enumerate(rows):
                if estimate is not None:
                    sketch.interval(axes, method, estimate, place)
            if title in zeros:
                axes.axvline(zeros[title], color=INK, linestyle=":", linewidth=0.9, zorder=0)
            axes.use_sticky_edges = False  # a bar that ends at the figure keeps its marker whole
            axes.autoscale_view()
            axes.grid(visible=False, axis="y")
            axes.locator_params(axis="x", nbins=4)
        everywhere[0].set_yticks(range(len(labels)), labels)
        everywhere[0].set_ylim(len(labels) - 0.4, -0.6)
        for text, (_, method, _) in zip(everywhere[0].get_yticklabels(), first, strict=True):
            tag(text, method)

    return draw(name, caption, (width, 0.75 + ROW * len(labels)), make)
