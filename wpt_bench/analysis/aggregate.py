"""Aggregates over tasks and seeds with stratified 95% bootstrap intervals, the same on every call.

Every figure has two intervals: the percentile interval that rliable gives, and the same one corrected for few seeds
(see ``bootstrap.margin``). What is called separated, and what bands of curves show, is the corrected one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rliable import metrics

from wpt_bench.analysis.bootstrap import (
    Counts,
    Draws,
    Scores,
    check,
    counts,
    interval,
    iqm,
    iqm_draws,
    margin,
    mean_draws,
    task_mean_draws,
)

TABLE_RESAMPLES = 50_000
CURVE_RESAMPLES = 2_000
ONE_SEED = "one seed: no interval"
NO_SPREAD = "no spread"
"""In place of an interval without width, which would look like certainty: all runs agree, and so do all resamples."""
_WIDTH = 1e-9  # less is rounding
NOT_SEPARATED = "not separated at this budget"
PROFILE_LEVELS = np.linspace(0.0, 1.0, 101)
"""Scores at which performance profiles are computed."""


@dataclass(frozen=True)
class Metric:
    """An aggregate of a score matrix ``(seeds, tasks)``: its value, and its value in every resample."""

    value: Callable[[Scores], float]
    draws: Callable[[Scores, Counts], Draws]


METRICS: dict[str, Metric] = {
    "iqm": Metric(metrics.aggregate_iqm, iqm_draws),
    "median": Metric(metrics.aggregate_median, lambda scores, drawn: np.median(task_mean_draws(scores, drawn), axis=1)),
    "mean": Metric(metrics.aggregate_mean, mean_draws),
    "optimality_gap": Metric(
        metrics.aggregate_optimality_gap, lambda scores, drawn: mean_draws(1.0 - np.minimum(scores, 1.0), drawn)
    ),
}
"""Interquartile mean over all runs, median and mean of the tasks' mean scores, and the mean shortfall from a score of 1
(Agarwal et al. 2021): rliable's functions, and the same of every resample at once."""


def three(value: float, sign: str = "") -> str:
    """A number to three digits; what rounds to zero has no minus, lest rounding errors change a sentence."""
    return f"{round(value, 3) + 0.0:{sign}.3f}"


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% intervals: rliable's, and corrected for few seeds; all None where one seed allows none."""

    value: float
    low: float | None = None
    high: float | None = None
    corrected_low: float | None = None
    corrected_high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{three(self.value)} ({ONE_SEED})"
        if self.flat:
            return f"{three(self.value)} ({NO_SPREAD})"
        return f"{three(self.value)} [{three(self.low)}, {three(self.high)}]"

    @property
    def corrected(self) -> str:
        """The corrected interval as text."""
        if self.corrected_low is None or self.corrected_high is None:
            return f"({ONE_SEED})"
        if self.flat:
            return f"({NO_SPREAD})"
        return f"[{three(self.corrected_low)}, {three(self.corrected_high)}]"

    @property
    def flat(self) -> bool:
        """Whether no resample differs from another, so that the interval says nothing about the true value."""
        if self.corrected_low is None or self.corrected_high is None:
            return False
        return self.corrected_high - self.corrected_low < _WIDTH

    @property
    def excludes_zero(self) -> bool:
        """Whether the corrected interval lies on one side of zero. Without an interval it does not."""
        if self.corrected_low is None or self.corrected_high is None:
            return False
        return self.corrected_low > 0 or self.corrected_high < 0


@dataclass(frozen=True)
class Band:
    """A curve: environment steps (or levels) ``(points,)``, values ``(points,)`` and the corrected 95% interval.

    ``low`` and ``high`` are None where one seed allows none.
    """

    env_steps: NDArray[np.int64] | NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64] | None
    high: NDArray[np.float64] | None


def estimate(value: float, draws: Draws, half_width: float) -> Estimate:
    """An estimate from its draws, ``(resamples,)``, and half the width of its corrected interval."""
    low, high = interval(draws)
    return Estimate(value, float(low), float(high), float(value - half_width), float(value + half_width))


def aggregate(
    scores: Scores, names: Sequence[str] = tuple(METRICS), *, resamples: int = TABLE_RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Aggregates of one method's scores by name.

    Args:
        scores: float64 ``(seeds, tasks)``.
        names: keys of ``METRICS``.
        resamples: bootstrap resamples; each draws seeds within every task (the strata).
        seed: of the resampling; the same scores and seed give the same interval.

    Raises:
        ValueError: a score is not finite, or there is none.
    """
    check(scores)
    if len(scores) == 1:
        return {name: Estimate(float(METRICS[name].value(scores))) for name in names}
    drawn = counts(*scores.shape, resamples, seed)
    found = {}
    for name in names:
        value, draws = float(METRICS[name].value(scores)), METRICS[name].draws(scores, drawn)
        found[name] = estimate(value, draws, float(margin(draws, *scores.shape)))
    return found


def curve_band(
    env_steps: NDArray[np.int64], scores: NDArray[np.float64], *, resamples: int = CURVE_RESAMPLES, seed: int = 0
) -> Band:
    """IQM of one method at each evaluation, with pointwise intervals; ``scores`` are ``(seeds, tasks, points)``.

    Raises:
        ValueError: a score is not finite, or there is none.
    """
    check(scores)
    value = iqm(scores)
    if len(scores) == 1:
        return Band(env_steps, value, None, None)
    draws = iqm_draws(scores, counts(*scores.shape[:2], resamples, seed))
    half_width = margin(draws, *scores.shape[:2])
    return Band(env_steps, value, value - half_width, value + half_width)


def performance_profile(
    scores: Scores, levels: NDArray[np.float64] = PROFILE_LEVELS, *, resamples: int = CURVE_RESAMPLES, seed: int = 0
) -> Band:
    """Share of runs that score above each level (Agarwal et al. 2021, eq. 2), with pointwise intervals in [0, 1].

    Args:
        scores: float64 ``(seeds, tasks)``.
        levels: float64 ``(points,)``.

    Raises:
        ValueError: a score is not finite, or there is none.
    """
    check(scores)
    above = (scores[..., None] > levels).astype(np.float64)
    value = above.mean(axis=(0, 1))
    if len(scores) == 1:
        return Band(levels, value, None, None)
    draws = mean_draws(above, counts(*scores.shape, resamples, seed))
    half_width = margin(draws, *scores.shape)
    return Band(levels, value, (value - half_width).clip(0, 1), (value + half_width).clip(0, 1))


def difference(
    scores: Scores, others: Scores, name: str = "iqm", *, resamples: int = TABLE_RESAMPLES, seed: int = 0
) -> Estimate:
    """An aggregate of one method minus that of another, whose seeds are drawn independently.

    Args:
        scores, others: float64 ``(seeds, tasks)``, of the same tasks.
        name: key of ``METRICS``.

    Raises:
        ValueError: a score is not finite, or there is none.
    """
    check(scores)
    check(others)
    metric = METRICS[name]
    values = [float(metric.value(matrix)) for matrix in (scores, others)]
    value = values[0] - values[1]
    if min(len(scores), len(others)) == 1:
        return Estimate(value)
    draws = [
        metric.draws(matrix, counts(*matrix.shape, resamples, seed, stream))
        for stream, matrix in enumerate((scores, others))
    ]
    margins = [margin(of, *matrix.shape) for of, matrix in zip(draws, (scores, others), strict=True)]
    return estimate(value, draws[0] - draws[1], float(np.hypot(*margins)))


def probability_of_improvement(
    scores: Scores, others: Scores, *, resamples: int = CURVE_RESAMPLES, seed: int = 0
) -> Estimate:
    """Chance that a run of one method beats a run of another on the same task, averaged over tasks; ties count half.

    The Mann-Whitney statistic (Agarwal et al. 2021, section 4.3); intervals within [0, 1]. One of no width says that
    every pair of runs agrees, not that every pair would.

    Args:
        scores, others: float64 ``(seeds, tasks)``, of the same tasks.

    Raises:
        ValueError: a score is not finite, or there is none.
    """
    check(scores)
    check(others)
    wins = np.sign(scores[:, None] - others[None]) / 2 + 0.5
    value = float(wins.mean())
    if min(len(scores), len(others)) == 1:
        return Estimate(value)
    mine = counts(*scores.shape, resamples, seed)
    theirs = counts(*others.shape, resamples, seed, 1)
    pairs = wins.shape[0] * wins.shape[1] * wins.shape[2]
    # Sums over the seeds of one side first: resamples x (other side's seeds x tasks) at most.
    draws = (np.einsum("rst,sot->rot", mine, wins, optimize=False) * theirs).sum(axis=(1, 2)) / pairs
    found = estimate(value, draws, max(float(margin(draws, *matrix.shape)) for matrix in (scores, others)))
    assert found.corrected_low is not None and found.corrected_high is not None
    return replace(found, corrected_low=max(found.corrected_low, 0.0), corrected_high=min(found.corrected_high, 1.0))
