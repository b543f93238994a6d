"""From the episodes of one run to its evaluations, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wpt_bench import records
from wpt_bench.records import Episode, Run


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: environment steps before it, mean score of its episodes, their number, and the cost so far."""

    env_step: int
    score: float
    episodes: int
    updates: int
    wall_clock: float


def score_of(run: Run, episode: Episode) -> float:
    """An episode's score, 0 to 1 by the run's rule and scale; NaN where the scale is 0."""
    value = episode.episode_return if run.score == "return" else episode.success_last
    return value / run.score_scale if run.score_scale else math.nan


def evaluations(run: Run, path: Path, episodes: Sequence[Episode]) -> list[Evaluation]:
    """Evaluations by rising environment step; raises RecordError, naming ``path``, if they are not whole."""
    found: dict[int, dict[int, tuple[float, Episode]]] = {}
    for episode in episodes:
        if episode.kind != "evaluation":
            continue
        here = found.setdefault(episode.env_step, {})
        if episode.index in here:
            raise records.RecordError(
                f"{path} has evaluation episode {episode.index} at step {episode.env_step} twice (run {run.id})."
            )
        score = score_of(run, episode)
        if not math.isfinite(score):
            raise records.RecordError(
                f"{path}: the score of evaluation episode {episode.index} at step {episode.env_step} is not a finite "
                f"number (run {run.id})."
            )
        here[episode.index] = (score, episode)
    if not found:
        raise records.RecordError(f"{path} has no evaluation, though run {run.id} is recorded as done.")
    if len({len(scores) for scores in found.values()}) > 1:
        raise records.RecordError(
            f"{path} has evaluations of different numbers of episodes (run {run.id}): rows are lost."
        )
    last = max(found)
    if run.online and (last < run.identity.budget or min(found) > 0):
        raise records.RecordError(
            f"{path} has evaluations from step {min(found)} to {last}, not from 0 to the budget of "
            f"{run.identity.budget} (run {run.id})."
        )
    return [
        Evaluation(
            step,
            float(np.mean([score for score, _ in here.values()])),
            len(here),
            max(episode.updates for _, episode in here.values()),
            max(episode.wall_clock for _, episode in here.values()),
        )
        for step, here in sorted(found.items())
    ]


def earlier_scores(run: Run, episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean score on each earlier task of a sequence when the run had ended, as far as they were evaluated then.

    Tasks of one suite are scored alike, so that the run's own scale serves.
    """
    last = max((episode.env_step for episode in episodes if episode.kind == "evaluation"), default=0)
    found: dict[str, list[float]] = {}
    for episode in episodes:
        if episode.kind == "earlier" and episode.env_step == last:
            found.setdefault(episode.task, []).append(score_of(run, episode))
    return {task: float(np.mean(scores)) for task, scores in found.items() if np.isfinite(scores).all()}


def guided_shares(run: Run, episodes: Sequence[Episode]) -> list[dict[str, object]]:
    """Share of agent steps that the cloned prior chose, by training episode; nothing where it chose none."""
    repeat = run.identity.protocol.get("action_repeat", 1)
    training = [episode for episode in episodes if episode.kind == "train"]
    if not any(episode.guided_steps for episode in training):
        return []
    return [
        {"env_step": episode.env_step, "guided": episode.guided_steps * repeat / episode.length} for episode in training
    ]


def area_under_curve(env_steps: Sequence[float], scores: Sequence[float], budget: float) -> float:
    """Area below the curve by the trapezoid rule from step 0 to ``budget``, divided by ``budget``.

    ``env_steps`` rise from 0 to the budget or beyond; the part beyond is cut off.
    """
    steps, values = np.asarray(env_steps, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    inside = steps < budget
    steps, values = (
        np.append(steps[inside], budget),
        np.append(values[inside], np.interp(budget, steps, values)),
    )
    return float(np.trapezoid(values, steps) / budget)
