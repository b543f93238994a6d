"""Every figure of a report as plain JSON values: what the page's ``summary.json`` holds, and what is published."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from wpt_bench.analysis.compare import Comparison, MethodSummary
from wpt_bench.analysis.properties import Properties
from wpt_bench.analysis.published import nearest_to_budget
from wpt_bench.analysis.scores import RunTable


def figures(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """What the comparisons say, as JSON values: a function of the records alone, wherever they lie.

    Sentences that name files (``RunTable.problems``) are therefore not in it.
    """
    return {
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
                "scores": _scores(comparison.table),
                "measured": properties(comparison.properties),
                "published": nearest_to_budget(comparison.table).to_dict("records"),
                "sentences": list(comparison.sentences),
                "missing": [dataclasses.asdict(absent) for absent in comparison.table.missing],
                "stale": [dataclasses.asdict(absent) for absent in comparison.table.stale],
            }
            for comparison in comparisons
        ],
    }


def properties(table: Properties) -> dict[str, dict[str, Any]]:
    """Table 1 by property and family."""
    return {
        name: {
            family: dataclasses.asdict(cell) | {"methods": list(cell.methods)}
            for family, cell in zip(table.families, cells, strict=True)
        }
        for name, cells in table.rows.items()
    }


def _scores(table: RunTable) -> dict[str, dict[str, float | None]]:
    """Of every run that counts, by its id: a method with a missing run has no aggregate, and these all the same."""
    names = ["score", "start", "auc"]
    return {
        str(run): {name: None if math.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}
        for run, *values in table.runs[["id", *names]].itertuples(index=False)
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
        "stages": list(row.stages),
        **{name: dataclasses.asdict(estimate) for name, estimate in row.estimates.items()},
        "auc": None if row.auc is None else dataclasses.asdict(row.auc),
        "curve": curve,
    }
