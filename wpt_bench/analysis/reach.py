"""How soon a score is reached: environment steps, and what they save against learning from scratch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wpt_bench.analysis.aggregate import CURVE_RESAMPLES
from wpt_bench.analysis.bootstrap import CONFIDENCE, check, iqm, iqm_draws, stretched, whole


@dataclass(frozen=True)
class Reach:
    """When the IQM of a method first reaches a level.

    Attributes:
        level: the IQM asked for.
        env_steps: environment steps, linear between evaluations; None if it is not reached within the budget.
        low, high: corrected 95% interval; None without one (one seed), ``high`` also where the budget ends first.
        reached: share of the resamples that reach it within the budget; None for one seed.
    """

    level: float
    env_steps: float | None
    low: float | None = None
    high: float | None = None
    reached: float | None = None


@dataclass(frozen=True)
class Saving(Reach):
    """When the IQM of a method first reaches the final IQM of another, and what that saves against the other.

    Both are first passages: a curve that goes up and down passes its own end early, and held against the whole budget
    it would seem to save most of it against itself.

    Attributes:
        other: environment steps after which the other's own IQM first reaches its final one; 0 where it ends no higher
            than it began, so that nothing can be saved.
        saved: ``1 - env_steps / other``, negative where the method is the later one; None where ``env_steps`` is, or
            ``other`` is 0.
        saved_low, saved_high: corrected 95% interval of it; None as ``saved``, and without an interval; ``saved_low``
            also where the method may not get there within the budget, or the other be there from the start.
    """

    other: float = 0.0
    saved: float | None = None
    saved_low: float | None = None
    saved_high: float | None = None


def steps_to_reach(
    env_steps: NDArray[np.int64], scores: NDArray[np.float64], level: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Environment steps at which curves first reach a level, linear between evaluations; infinite if they never do.

    Args:
        env_steps: rising, ``(points,)``.
        scores: float64 ``(..., points)``.
        level: a number, or one for each curve ``(...)``.

    Returns:
        float64 ``(...)``.
    """
    level = np.asarray(level, dtype=np.float64)[..., None]
    there = scores >= level
    first = there.argmax(axis=-1)[..., None]
    before = np.maximum(first - 1, 0)
    steps = np.asarray(env_steps, dtype=np.float64)
    low, high = (np.take_along_axis(scores, at, axis=-1) for at in (before, first))
    rise = np.where(high > low, high - low, 1.0)
    share = np.where(first > before, (level - low) / rise, 0.0)
    found = steps[before] + share * (steps[first] - steps[before])
    return np.where(there.any(axis=-1), found[..., 0], math.inf)


def reach(
    env_steps: NDArray[np.int64],
    scores: NDArray[np.float64],
    level: float,
    *,
    resamples: int = CURVE_RESAMPLES,
    seed: int = 0,
) -> Reach:
    """When the IQM of ``scores``, ``(seeds, tasks, points)``, first reaches a fixed level."""
    check(scores)
    value = steps_to_reach(env_steps, iqm(scores), level)
    if len(scores) == 1:
        return Reach(level, _finite(value))
    return _reach(level, value, steps_to_reach(env_steps, _curves(scores, resamples, seed, 0), level))


def reach_final(
    env_steps: NDArray[np.int64],
    scores: NDArray[np.float64],
    other_steps: NDArray[np.int64],
    others: NDArray[np.float64],
    *,
    paired: bool = False,
    resamples: int = CURVE_RESAMPLES,
    seed: int = 0,
) -> Saving:
    """When the IQM of a method first reaches the final IQM of another, whose uncertainty is part of the intervals.

    Args:
        env_steps, scores: of the evaluations of the first, ``(points,)``, float64 ``(seeds, tasks, points)``.
        other_steps, others: of the other, the same.
        paired: whether a row of both is the same seed; without, seeds of both are drawn independently.
    """
    check(scores)
    check(others)
    curve = iqm(others)
    level, other = float(curve[-1]), float(steps_to_reach(other_steps, curve, curve[-1]))
    value = steps_to_reach(env_steps, iqm(scores), level)
    steps = _finite(value)
    saved = None if steps is None or not other else 1 - steps / other
    if min(len(scores), len(others)) == 1:
        return Saving(level, steps, other=other, saved=saved)
    curves = _curves(others, resamples, seed, 0 if paired else 1)
    draws = steps_to_reach(env_steps, _curves(scores, resamples, seed, 0), curves[:, -1])
    found = Saving(**vars(_reach(level, value, draws)), other=other, saved=saved)
    if saved is None:
        return found
    # Against a resample of the other that is there from the start, nothing is saved at best.
    theirs = steps_to_reach(other_steps, curves, curves[:, -1])
    shares = np.divide(draws, theirs, out=np.where(draws > 0, math.inf, 1.0), where=theirs > 0)
    low, high = _percentiles(1 - shares)
    return replace(found, saved_low=_finite(low), saved_high=_finite(high))


def _curves(scores: NDArray[np.float64], resamples: int, seed: int, stream: int) -> NDArray[np.float64]:
    """IQM along the curve of every resample, stretched: ``(resamples, points)``."""
    drawn = whole(scores, resamples, seed, stream)
    return stretched(iqm(scores), iqm_draws(scores, drawn), len(scores))


def _reach(level: float, value: NDArray[np.float64], draws: NDArray[np.float64]) -> Reach:
    low, high = _percentiles(draws)
    return Reach(level, _finite(value), _finite(low), _finite(high), float(np.isfinite(draws).mean()))


def _percentiles(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Those of the interval that are draws themselves: between finite and infinite ones nothing can be interpolated."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def _finite(value: NDArray[np.float64] | float) -> float | None:
    return float(value) if math.isfinite(value) else None
