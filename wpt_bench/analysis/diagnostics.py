"""Why a run came out as it did: what agents told of themselves by their evaluation episodes, and what they retrieved.

No score is made of it. What the numbers are, ``wpt_bench/wpt/diagnosis.py`` says; runs of older versions have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from wpt_bench.analysis.evaluations import score_of
from wpt_bench.records import Episode, Run

PRIOR_SCORE = "prior_score"
"""Name of the score that the cloned prior has alone, before the first environment step."""
PRIOR_RETURN, EPISODE_RETURN = "prior_return", "episode_return"
"""Its return, and that of evaluation episodes where success is the score."""
RATIOS = {
    "open_loop_ratio": ("open_loop", "open_loop_persistence"),
    "reward_ratio": ("reward_error", "reward_error_mean"),
}
"""An error as a share of the trivial predictor's beside it."""

READING = {
    "open loop vs persistence": "Squared error of the world model some steps ahead without looking, on evaluation "
    "episodes, as a share of that of repeating the last observation. Near or above 1, the model knows no more than "
    "that little changes, and imagination has little to teach; of an agent that hardly moves it is large, for then "
    "repeating is hard to beat.",
    "reward error vs mean": "Absolute error of the predicted reward per agent step, as a share of that of always "
    "saying the episode's mean; the error itself stands below. Near or above 1, the actor strives for what is not "
    "rewarded.",
    "value bias": "The critic's prediction minus the discounted rewards that followed up to the time limit and the "
    "critic's own value there (bootstrapped), mean along evaluation episodes; both stand below. Far above 0 the critic "
    "hopes for too much, far below 0 it does not know yet what is earned. That last value hides part of what is wrong "
    "everywhere: of a constant bias 37% are seen in the 100 agent steps of Meta-World, 80% in the 500 of DMControl.",
    "return": "Return of evaluation episodes, where success is the score: it moves where every success is 0.",
    "distance to retrieved": "Distance of a state of evaluation episodes to the nearest one of the retrieved episodes, "
    "as a share of the same between retrieved episodes. Near 1 they show what the agent meets; far above 1 rehearsal "
    "and guidance are about something else.",
    "prior alone": "Score of the cloned prior acting alone in evaluation episodes, before the first environment step: "
    "what guidance has to show. Hold it against the task's untrained level; what a final score has above it was "
    "learned online.",
    "retrieved from": "Bodies that recorded the retrieved episodes, mean share over seeds; and scenes, where those are "
    "others. What is of another body or scene than the task's rehearses something else. Where states are observed only "
    "episodes with the task's kind of state can be retrieved: the body is right by construction, of random ones too.",
}
"""How to read each column of the report's table."""


@dataclass(frozen=True)
class Diagnosis:
    """What is known of one method on one task.

    Attributes:
        values: by name, mean over seeds, each at its last evaluation (the prior's at step 0).
        embodiments, scenes: mean share of the retrieved episodes that are of each; empty where none were retrieved, or
            nobody counted.
    """

    method: str
    task: str
    values: Mapping[str, float]
    embodiments: Mapping[str, float]
    scenes: Mapping[str, float]


def of_run(run: Run, episodes: Sequence[Episode]) -> list[dict[str, object]]:
    """Rows ``env_step name value`` of one run, means over the episodes of an evaluation.

    Names are those of the rows' metrics, ``RATIOS`` of their means, ``prior_score``, ``prior_return`` and
    ``prior_success`` (at the last step) at step 0, and ``episode_return`` of runs whose score is their success. What
    is not finite is left out.
    """
    found: dict[int, dict[str, list[float]]] = {}
    for episode in episodes:
        here = found.setdefault(episode.env_step, {})
        if episode.kind == "evaluation":
            own = {EPISODE_RETURN: episode.episode_return} if run.score == "success" else {}
            for name, value in (episode.metrics | own).items():
                here.setdefault(name, []).append(value)
        elif episode.kind == "prior":
            here.setdefault(PRIOR_SCORE, []).append(score_of(run, episode))
            here.setdefault(PRIOR_RETURN, []).append(episode.episode_return)
            here.setdefault("prior_success", []).append(episode.success_last)
    rows: list[dict[str, object]] = []
    for step, numbers in sorted(found.items()):
        means = {name: sum(values) / len(values) for name, values in numbers.items()}
        for name, (error, trivial) in RATIOS.items():
            if means.get(trivial, 0.0) > 0 and error in means:
                means[name] = means[error] / means[trivial]
        rows += [{"env_step": step, "name": name, "value": value} for name, value in means.items()]
    return [row for row in rows if math.isfinite(row["value"])]  # type: ignore[arg-type]


def diagnoses(frame: pd.DataFrame, runs: Iterable[Run]) -> tuple[Diagnosis, ...]:
    """One for each method and task of which anything is known, in the order of their names.

    Args:
        frame: ``method task seed env_step name value``, rows of ``of_run`` of all runs.
        runs: their records.
    """
    last = frame.sort_values("env_step").groupby(["method", "task", "name", "seed"])["value"].last()
    means = last.groupby(["method", "task", "name"]).mean()
    values: dict[tuple[str, str], dict[str, float]] = {}
    for method, task, name, value in means.reset_index().itertuples(index=False, name=None):
        values.setdefault((method, task), {})[name] = float(value)
    retrieved: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if _shares(run, "retrieved_scenes"):
            retrieved.setdefault((run.identity.method, run.identity.task), []).append(run)
    return tuple(
        Diagnosis(
            *cell,
            values.get(cell, {}),
            *(_mean_shares(retrieved.get(cell, ()), f"retrieved_{what}") for what in ("embodiments", "scenes")),
        )
        for cell in sorted({*values, *retrieved})
    )


def _mean_shares(runs: Sequence[Run], key: str) -> dict[str, float]:
    """Mean shares over runs, the largest first."""
    shares = [_shares(run, key) for run in runs]
    means = {name: float(np.mean([one.get(name, 0.0) for one in shares])) for one in shares for name in one}
    return dict(sorted(means.items(), key=lambda item: (-item[1], item[0])))


def _shares(run: Run, key: str) -> dict[str, float]:
    """Counts of a record as shares; none where they are no counts."""
    counts = run.diagnostics.get(key)
    if not isinstance(counts, dict) or not all(type(count) is int and count > 0 for count in counts.values()):
        return {}
    return {str(name): count / sum(counts.values()) for name, count in counts.items()}
