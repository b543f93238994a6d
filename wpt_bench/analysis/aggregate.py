"""Aggregates over tasks and seeds with 95% bootstrap intervals, the same on every call.

Every figure has two intervals: the percentile interval that rliable gives, and a corrected one, for which whole seeds
are drawn and which allows for how few they are (see ``bootstrap``). What is called separated, and what bands of curves
show, is the corrected one.
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
    whole,
)

TABLE_RESAMPLES = 50_000
CURVE_RESAMPLES = 2_000
ONE_SEED = "one seed: no interval"
NO_SPREAD = "no spread"
"""In place of an interval without width, which would look like certainty: no resample differs from another."""
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


def told_apart(tasks: Sequence[str]) -> tuple[str, ...]:
    """Metrics that say different things: of two tasks at most, their median is the mean, and the gap its rest to 1."""
    return tuple(METRICS) if len(tasks) > 2 else ("iqm", "mean")


def three(value: float, sign: str = "") -> str:
    """A number to three digits; what rounds to zero has no minus, lest rounding errors change a sentence."""
    return f"{round(value, 3) + 0.0:{sign}.3f}"


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% intervals, all None where one seed allows none.

    Attributes:
        value: the figure.
        low, high: the percentile interval; of an aggregate and of the probability of improvement rliable's.
        corrected_low, corrected_high: of whole seeds, corrected for few of them.
    """

    value: float
    low: float | None = None
    high: float | None = None
    corrected_low: float | None = None
    corrected_high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{three(self.value)} ({ONE_SEED})"
        if self.high - self.low < _WIDTH:
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
        """Whether no resample of whole seeds differs from another, so that the interval says nothing of the true value.

        All runs may be alike, seeds may balance over tasks, or differ from another method's by the same.
        """
        if self.corrected_low is None or self.corrected_high is None:
            return False
        return self.corrected_high - self.corrected_low < _WIDTH

    @property
    def excludes_zero(self) -> bool:
        """Whether the corrected interval lies on one side of zero. Without an interval, or its width, it does not."""
        if self.corrected_low is None or self.corrected_high is None or self.flat:
            return False
        return self.corrected_low > 0 or self.corrected_high < 0

    @property
    def verdict(self) -> str:
        """``separated`` (from zero) or not, or why that is not decided."""
        if self.corrected_low is None:
            return "one seed"
        if self.flat and abs(self.value) > _WIDTH:
            return f"{NO_SPREAD}: not decided"
        return "separated" if self.excludes_zero else "not separated"


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
        resamples: bootstrap resamples, for either interval.
        seed: of the resampling; the same scores and seed give the same interval.

    Raises:
        ValueError: a score is not finite, or there is none.
    """
    check(scores)
    if len(scores) == 1:
        return {name: Estimate(float(METRICS[name].value(scores))) for name in names}
    within, together = counts(*scores.shape, resamples, seed), whole(scores, resamples, seed)
    found = {}
    for name in names:
        metric = METRICS[name]
        half_width = float(margin(metric.draws(scores, together), len(scores)))
        found[name] = estimate(float(metric.value(scores)), metric.draws(scores, within), half_width)
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
    half_width = margin(iqm_draws(scores, whole(scores, resamples, seed)), len(scores))
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
    half_width = margin(mean_draws(above, whole(scores, resamples, seed)), len(scores))
    return Band(levels, value, (value - half_width).clip(0, 1), (value + half_width).clip(0, 1))


@dataclass(frozen=True)
class Sampled:
    """An aggregate of one method's scores, and of its resamples of whole seeds: something to take differences of.

    Attributes:
        value: of the scores.
        draws: of the resamples, ``(resamples,)``; None for one seed.
        seeds: how many.
        stream: of the resampling. What shares one is resampled together, row by row: methods of the same seeds.
    """

    value: float
    draws: Draws | None
    seeds: int
    stream: int


def sampled(
    scores: Scores, name: str = "iqm", *, resamples: int = TABLE_RESAMPLES, seed: int = 0, stream: int = 0
) -> Sampled:
    """Resamples whole seeds of ``scores``, float64 ``(seeds, tasks)``; ``name`` is a key of ``METRICS``.

    Raises:
        ValueError: a score is not finite, or there is none.
    """
    check(scores)
    value, seeds = float(METRICS[name].value(scores)), len(scores)
    if seeds == 1:
        return Sampled(value, None, seeds, stream)
    return Sampled(value, METRICS[name].draws(scores, whole(scores, resamples, seed, stream)), seeds, stream)


def contrast(terms: Sequence[tuple[float, Sampled]]) -> Estimate:
    """A weighted sum of aggregates. Those of one stream are paired by seed, those of different ones independent.

    Methods of a table begin a seed with the same starts, and most with the same weights and pre-training, so that what
    they have in common cancels in a difference of the same seeds. Sets of seeds that overlap without being equal count
    as independent. Both intervals are of these resamples.
    """
    value = float(sum(weight * term.value for weight, term in terms))
    streams: dict[int, list[tuple[float, Draws]]] = {}
    seeds = {}
    for weight, term in terms:
        if term.draws is None:
            return Estimate(value)
        streams.setdefault(term.stream, []).append((weight, term.draws))
        seeds[term.stream] = term.seeds
    sums = {stream: np.sum([weight * draws for weight, draws in paired], axis=0) for stream, paired in streams.items()}
    half_width = float(np.linalg.norm([margin(draws, seeds[stream]) for stream, draws in sums.items()]))
    return estimate(value, np.sum(list(sums.values()), axis=0), half_width)


def difference(
    scores: Scores,
    others: Scores,
    name: str = "iqm",
    *,
    paired: bool = False,
    resamples: int = TABLE_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """An aggregate of one method minus that of another.

    Args:
        scores, others: float64 ``(seeds, tasks)``, of the same tasks.
        name: key of ``METRICS``.
        paired: whether a row of both is the same seed; without, seeds of both are drawn independently.

    Raises:
        ValueError: a score is not finite, there is none, or paired ones are not equally many.
    """
    if paired and len(scores) != len(others):
        raise ValueError("paired scores must be of the same seeds")
    ours = sampled(scores, name, resamples=resamples, seed=seed)
    theirs = sampled(others, name, resamples=resamples, seed=seed, stream=0 if paired else 1)
    return contrast([(1.0, ours), (-1.0, theirs)])


def probability_of_improvement(
    scores: Scores, others: Scores, *, resamples: int = CURVE_RESAMPLES, seed: int = 0
) -> Estimate:
    """Chance that a run of one method beats a run of another on the same task, averaged over tasks; ties count half.

    The Mann-Whitney statistic (Agarwal et al. 2021, section 4.3), which knows no pairs of seeds: those of both sides
    are drawn independently. Intervals within [0, 1].

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
    pairs = wins.shape[0] * wins.shape[1] * wins.shape[2]

    def draws(mine: Counts, theirs: Counts) -> Draws:
        # Sums over the seeds of one side first: resamples x (other side's seeds x tasks) at most.
        return np.asarray((np.einsum("rst,sot->rot", mine, wins, optimize=False) * theirs).sum(axis=(1, 2)) / pairs)

    within = draws(counts(*scores.shape, resamples, seed), counts(*others.shape, resamples, seed, 1))
    together = draws(whole(scores, resamples, seed), whole(others, resamples, seed, 1))
    found = estimate(value, within, float(margin(together, min(len(scores), len(others)))))
    assert found.corrected_low is not None and found.corrected_high is not None
    return replace(found, corrected_low=max(found.corrected_low, 0.0), corrected_high=min(found.corrected_high, 1.0))
