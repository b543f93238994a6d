"""Figures of one factor of an experiment: scores against its levels, intervals by level, curves by level."""

from __future__ import annotations

import re
from collections.abc import Callable

from wpt_bench.analysis.aggregate import Estimate
from wpt_bench.analysis.experiment import ArmSummary, ExperimentSummary, FactorSummary
from wpt_bench.analysis.transfer import Carried
from wpt_bench.reports.figures.curves import BANDS, measure, opacity
from wpt_bench.reports.figures.drawing import Drawing, Sketch, draw, score_axis, small_multiples, steps_axis
from wpt_bench.reports.figures.intervals import INTERVALS, Panels, panels_of
from wpt_bench.reports.style import Look, level_looks, look

AGAINST = "AUC minus the reference's"
SCORE, AUC = "IQM of the score at the budget", "IQM of the area under the curve"


def file_name(experiment: ExperimentSummary, factor: FactorSummary, what: str) -> str:
    """Of a figure or a table of a factor: plain letters and digits, whatever people call it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{experiment.name}-{factor.name}-{what}")


def levels_figure(experiment: ExperimentSummary, factor: FactorSummary) -> Drawing:
    """Score and area by level: along an axis where two levels or more have a place on it, else one below the other."""
    if len({arm.value for arm in factor.arms if arm.value is not None}) > 1:
        return _dose_response(experiment, factor)
    reference = _reference(factor)
    panels: Panels = {
        title: [(arm.label, arm.label, figure(arm)) for arm in factor.arms]
        for title, figure in {
            "IQM score": lambda arm: arm.overall.score,
            "IQM AUC": lambda arm: arm.overall.auc,
            AGAINST: lambda arm: arm.overall.auc_against,
        }.items()
    }
    caption = (
        f"{SCORE} and {AUC}, by level of the factor {factor.name}, and the area minus that of level {reference}; "
        f"{INTERVALS}. Dotted: no difference.{_gaps(factor)}"
    )
    name = file_name(experiment, factor, "levels")
    return panels_of(name, caption, panels, width=7.0, zeros={AGAINST: 0.0}, looks=looks_of(factor))


def level_curves(experiment: ExperimentSummary, factor: FactorSummary) -> Drawing | None:
    """IQM against environment steps, one line per level; None while there is none."""
    arms = [arm for arm in factor.arms if arm.curve is not None]
    if not arms:
        return None

    def make(sketch: Sketch) -> None:
        axes = sketch.figure.add_subplot()
        sketch.band, sketch.looks = opacity(len(arms)), looks_of(factor)
        for arm in arms:
            label = f"{arm.label} (reference)" if arm.reference else arm.label
            assert arm.curve is not None
            its = arm.curve
            sketch.curve(axes, arm.label, its.env_steps, its.value, its.low, its.high, label=label)
        axes.set_title(_title(factor))
        steps_axis(axes, experiment.budget)
        score_axis(axes, f"IQM of {measure(*(one.table for one in factor.tables))}")
        sketch.legend(axes)

    caption = (
        f"Interquartile mean of the score over all tasks and seeds at each evaluation, by level of the factor "
        f"{factor.name}; {BANDS}, where there is more than one seed.{_gaps(factor)}"
    )
    return draw(file_name(experiment, factor, "curves"), caption, (5.0, 2.8), make)


def carried_figure(experiment: ExperimentSummary, factor: FactorSummary, carried: Carried) -> Drawing:
    """Forward transfer by task against each other arm, and forgetting where it was measured."""
    rows = (*carried.order, "mean")
    panels: Panels = {
        f"transfer, against {one.against}": [
            (task, carried.level, one.mean if task == "mean" else one.tasks[task]) for task in rows
        ]
        for one in carried.transfer
    }
    lost = dict(carried.forgetting) | {"mean": carried.forgotten}
    if any(one is not None for one in lost.values()):
        panels["forgetting"] = [(task, carried.level, lost.get(task)) for task in rows]
    caption = (
        f"Forward transfer to each task of the sequence, {carried.level}: what it gained in area under the curve, as a "
        "share of what the other arm left to be gained; the mean is over the tasks after the first."
        + (
            " Forgetting: score at the end of a task's own run minus that at the end of the last task's."
            if "forgetting" in panels
            else ""
        )
        + f" {INTERVALS.capitalize()}. Dotted: zero."
    )
    name = file_name(experiment, factor, f"transfer-{carried.level}")
    return panels_of(name, caption, panels, width=7.0, zeros=dict.fromkeys(panels, 0.0), looks=looks_of(factor))


def looks_of(factor: FactorSummary) -> Callable[[str], Look]:
    """How a factor's levels are drawn: as their methods where each has one of its own, else as levels."""
    methods = {arm.label: arm.method for arm in factor.arms}
    if len(set(methods.values())) == len(methods):
        known = {label: look(method) for label, method in methods.items()}
    else:
        known = level_looks([(arm.label, arm.value, arm.reference) for arm in factor.arms])
    return lambda name: known.get(name) or look(name)


def _dose_response(experiment: ExperimentSummary, factor: FactorSummary) -> Drawing:
    placed = sorted((arm for arm in factor.arms if arm.value is not None), key=lambda arm: arm.value or 0.0)
    others = [arm for arm in factor.arms if arm.value is None]
    values = [arm.value for arm in placed if arm.value is not None]
    room = 0.08 * (max(values) - min(values))
    looks = looks_of(factor)
    figures: dict[str, Callable[[ArmSummary], Estimate | None]] = {
        "IQM score": lambda arm: arm.overall.score,
        "IQM AUC": lambda arm: arm.overall.auc,
    }

    def make(sketch: Sketch) -> None:
        sketch.looks = looks
        everywhere = small_multiples(sketch, list(figures), 2)
        ends = (min(values) - room, max(values) + room)
        for axes, figure in zip(everywhere, figures.values(), strict=True):
            for method in dict.fromkeys(arm.method for arm in placed):
                points = [(arm.value, its) for arm in placed if arm.method == method and (its := figure(arm))]
                for value, its in points:
                    sketch.upright(axes, method, its, value or 0.0)
                sketch.dots(axes, method, [value or 0.0 for value, _ in points], [its for _, its in points])
            for arm in others:
                if its := figure(arm):
                    edges = [None if end is None else (end, end) for end in (its.corrected_low, its.corrected_high)]
                    label = f"{arm.label} (no place on the axis)"
                    sketch.curve(axes, arm.label, ends, (its.value, its.value), *edges, marker="", label=label)
            axes.set_xticks(values, list(dict.fromkeys(arm.level for arm in placed)))
            axes.set_xlim(*ends)
            axes.set_xlabel(factor.name)
        if others or len({arm.method for arm in placed}) > 1:
            sketch.legend(*everywhere)

    caption = (
        f"{SCORE} and {AUC}, against the levels of the factor {factor.name}; {INTERVALS}."
        + (f" Across, with the corrected interval: {', '.join(arm.label for arm in others)}." if others else "")
        + _gaps(factor)
    )
    return draw(file_name(experiment, factor, "levels"), caption, (6.0, 2.5), make)


def _reference(factor: FactorSummary) -> str:
    return " and ".join(arm.label for arm in factor.arms if arm.reference)


def _title(factor: FactorSummary) -> str:
    return factor.name[:1].upper() + factor.name[1:]


def _gaps(factor: FactorSummary) -> str:
    gaps = [arm.label for arm in factor.arms if arm.overall.score is None]
    return f" Not drawn, because runs are missing: {', '.join(gaps)}." if gaps else ""
