"""Scores that others published for the same tasks, and what their sources span. See ``results/README.md``.

They stand behind our curves and are never mixed with our scores. Sources of one method disagree by more than their
seeds explain, so a single published figure is no reference; the span of several is one.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from importlib.resources import files

import pandas as pd

from wpt_bench.analysis.scores import RunTable

WIDEN = 0.1
"""How far a band reaches beyond what the sources span, as a share of its ends."""
NAMES = {"sac": ("SAC", "SAC(UTD2)"), "drqv2": ("DrQ-v2",), "dreamer": ("DreamerV3",)}
"""Under which names the methods that are held against published scores were published."""


@functools.cache
def published_scores() -> pd.DataFrame:
    """All rows of ``results/published_scores.csv``, with a column ``origin``: the repository's name in ``source``."""
    with files("wpt_bench.results").joinpath("published_scores.csv").open() as file:
        rows = pd.read_csv(file)
    return rows.assign(origin=rows["source"].str.extract(r"/([^:]+):", expand=False))


def published_inside(table: RunTable) -> pd.DataFrame:
    """Published scores of the table's tasks and observation kind, up to its budget; in a fixed order."""
    rows = published_scores()
    inside = (
        (rows["suite"] == table.suite)
        & (rows["observation"] == table.observation)
        & rows["task"].isin(table.tasks)
        & (rows["env_steps"] <= table.budget)
    )
    return rows[inside].sort_values(["task", "method", "origin", "env_steps"], ignore_index=True)


def nearest_to_budget(table: RunTable) -> pd.DataFrame:
    """Of ``published_inside``, the last point of every task, method and source."""
    return published_inside(table).groupby(["task", "method", "origin"], as_index=False).last()


def held_against_published(table: RunTable) -> list[str]:
    """One sentence per method of ``NAMES``: on which tasks its mean score lies in the published band at the budget."""
    said = []
    for method, names in NAMES.items():
        own = table.runs[table.runs["method"] == method].groupby("task")["score"]
        bands = {task: published_band(str(task), table.observation, names, table.budget) for task in own.groups}
        found = {task: (float(own.get_group(task).mean()), band) for task, band in bands.items() if band is not None}
        inside = [task for task, (score, (low, high)) in found.items() if low <= score <= high]
        if found:
            each = ", ".join(
                f"{task} {score:.3f} ({low:.3f} to {high:.3f})" for task, (score, (low, high)) in found.items()
            )
            said.append(
                f"{method} lies where {' and '.join(names)} were published, widened by {WIDEN:.0%}, "
                f"on {len(inside)} of {len(found)} tasks: {each}."
            )
    return said


def published_band(task: str, observation: str, methods: Collection[str], env_steps: int) -> tuple[float, float] | None:
    """What the sources of ``methods`` span on one task, widened by ``WIDEN``; None where nothing is published.

    The span reaches from the lowest to the highest mean score that any source publishes for any of the methods at
    ``env_steps``. Widening takes a share of the lower end off and adds a share of the upper one: ``low * (1 - WIDEN)``
    to ``high * (1 + WIDEN)``. (A share of the span's width would leave no room where sources agree: they are 0.001
    apart on cartpole-balance.)

    Args:
        task: short name.
        observation: ``state`` or ``pixels``.
        methods: names as published, for instance ``SAC`` and ``SAC(UTD2)``.
        env_steps: a step at which there are published scores.
    """
    rows = published_scores()
    chosen = rows["score"][
        (rows["task"] == task)
        & (rows["observation"] == observation)
        & rows["method"].isin(list(methods))
        & (rows["env_steps"] == env_steps)
    ]
    if chosen.empty:
        return None
    low, high = float(chosen.min()), float(chosen.max())
    return low - WIDEN * abs(low), high + WIDEN * abs(high)
