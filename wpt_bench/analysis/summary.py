"""Every figure of a report as plain JSON values: what the page's ``summary.json`` holds, and what is published."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wpt_bench.analysis.compare import Comparison
from wpt_bench.analysis.experiment import ExperimentSummary
from wpt_bench.analysis.literature import nearest_to_budget
from wpt_bench.analysis.properties import Properties
from wpt_bench.analysis.rows import MethodSummary

RUN_COLUMNS = ["method", "task", "seed", "score", "start", "auc", "updates", "env_steps", "retrieval_precision"]
"""What is published of every run, beside its record."""


def figures(comparisons: Sequence[Comparison], experiments: Sequence[ExperimentSummary] = ()) -> dict[str, Any]:
    """What comparisons and experiments say, as JSON values: a function of the records alone, wherever they lie.

    Sentences that name files (``RunTable.problems``) are therefore not in it.
    """
    found: dict[str, Any] = {"tables": [_table(comparison) for comparison in comparisons]}
    return found | ({"experiments": [experiment_figures(one) for one in experiments]} if experiments else {})


def experiment_figures(experiment: ExperimentSummary) -> dict[str, Any]:
    """What came out of an experiment, as JSON values: as ``figures`` a function of the records alone."""
    factors = []
    scores: dict[str, Any] = {}
    for factor in experiment.factors:
        its = {name: plain(getattr(factor, name)) for name in ("name", "description", "sentence", "arms", "carried")}
        if factor.parts:
            its |= {"ablation": plain(factor.parts.ablation), "auc_ablation": plain(factor.parts.auc_ablation)}
        for arm, one in zip(its["arms"], factor.tables, strict=True):
            arm["runs"] = list(one.table.runs["id"])
            scores |= plain(one.table.runs.set_index("id")[RUN_COLUMNS].to_dict("index"))
        factors.append(its)
    names = ("name", "question", "suite", "profile", "observation", "budget", "tasks", "done", "expected")
    others = ("missing", "resamples", "curve_resamples")
    return {name: plain(getattr(experiment, name)) for name in (*names, *others)} | {
        "factors": factors,
        "scores": scores,
    }


def properties(table: Properties) -> dict[str, dict[str, Any]]:
    """Table 1 by property and family."""
    return {
        name: {family: plain(cell) for family, cell in zip(table.families, cells, strict=True)}
        for name, cells in table.rows.items()
    }


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, arrays and tuples as lists, numbers as Python's; what is not a number as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(comparison: Comparison) -> dict[str, Any]:
    table = comparison.table
    # Without the key where there is nothing under it: so were figures published before there was either.
    later = {"diagnostics": plain(comparison.diagnostics), "under_way": plain(table.under_way)}
    return {name: value for name, value in later.items() if value} | {
        "suite": table.suite,
        "profile": table.profile,
        "observation": table.observation,
        "budget": table.budget,
        "tasks": table.tasks,
        "resamples": comparison.resamples,
        "curve_resamples": comparison.curve_resamples,
        "scores": plain(table.runs.set_index("id")[RUN_COLUMNS].to_dict("index")),
        "headline": comparison.headline,
        "glance": list(comparison.glance),
        "sentences": list(comparison.sentences),
        "methods": [_method(row) for row in comparison.rows],
        "untrained": plain(comparison.untrained),
        "embodiments": plain(comparison.embodiments),
        "task_figures": plain(comparison.tasks),
        "ablation": plain(comparison.ablation),
        "auc_ablation": plain(comparison.auc_ablation),
        "measured": properties(comparison.properties),
        "published": plain(nearest_to_budget(table).to_dict("records")),
        "curves": {
            str(run): {name: own[name].tolist() for name in ("env_step", "score", "updates", "wall_clock")}
            for run, own in table.curves.groupby("id")
        },
        "missing": plain(table.missing),
        "stale": plain(table.stale),
    }


def _method(row: MethodSummary) -> dict[str, Any]:
    """A row, its estimates by the name of their metric."""
    found = plain(row)
    estimates = found.pop("estimates")
    return found | estimates
