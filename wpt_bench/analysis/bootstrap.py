"""Two bootstraps over seeds, vectorised: rliable's, which draws within every task, and one that draws whole seeds.

``counts`` is the scheme of rliable's ``StratifiedBootstrap`` (Agarwal et al. 2021, section 4.1), which draws from
numpy's global generator whatever seed it is given and calls a Python function for every resample. Here a resample is a
table of counts, how often it holds each run. Counts depend on the number of seeds and tasks and on the seed of the
resampling alone, so they are drawn once for all methods of a shape, and statistics of all resamples are a few array
operations.

That scheme takes a seed's runs on several tasks for independent. They need not be: they begin with the same weights and
the same starts, those of a multi-task method are one network, and a pre-training per seed is behind all of them. So
``whole`` draws seeds with all their tasks, and corrected intervals rest on it: the seed is what was repeated.

Percentile intervals of few seeds are too narrow: a resample of n seeds varies by (n - 1) / n of what samples vary.
``margin`` makes up for it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

CONFIDENCE = 0.95
TAIL = (1 + CONFIDENCE) / 2
PIECE = 2048
"""Resamples at a time, so that what they need stays in a core's cache."""

Scores = NDArray[np.float64]
Counts = NDArray[np.uint8]
Draws = NDArray[np.float64]


@lru_cache(maxsize=32)
def counts(seeds: int, tasks: int, resamples: int, seed: int, stream: int = 0) -> Counts:
    """How often each resample holds each run: uint8 ``(resamples, seeds, tasks)``; read only.

    Every task of a resample holds ``seeds`` runs. Equal arguments give equal counts; streams are independent of each
    other, for statistics of two methods whose runs have nothing to do with each other.
    """
    rng = np.random.default_rng([seed, stream])
    found = np.empty((resamples, seeds, tasks), np.uint8)
    for first in range(0, resamples, PIECE):
        part = found[first : first + PIECE]
        drawn = rng.integers(seeds, size=(len(part), seeds, tasks), dtype=np.uint8)
        for run in range(seeds):
            np.sum(drawn == run, axis=1, dtype=np.uint8, out=part[:, run])
    found.flags.writeable = False
    return found


def whole(scores: NDArray[np.float64], resamples: int, seed: int, stream: int = 0) -> Counts:
    """As ``counts`` for ``scores``, ``(seeds, tasks, ...)``, but all tasks of a resample hold a seed equally often.

    Methods of the same seeds are drawn together in one stream, those of other seeds in another.
    """
    seeds, tasks = scores.shape[:2]
    return np.broadcast_to(counts(seeds, 1, resamples, seed, stream), (resamples, seeds, tasks))


def iqm(scores: Scores) -> NDArray[np.float64]:
    """Interquartile mean over seeds and tasks: ``(seeds, tasks, ...)`` to ``(...)``.

    The mean of what is left when the lowest and the highest quarter of the runs (rounded down) are cut off (Agarwal et
    al. 2021): rliable's ``aggregate_iqm``, at every point of a curve at once.
    """
    ordered = np.sort(scores.reshape(-1, *scores.shape[2:]), axis=0)
    cut = len(ordered) // 4
    return np.asarray(ordered[cut : len(ordered) - cut].mean(axis=0))


def iqm_draws(scores: Scores, drawn: Counts) -> Draws:
    """``iqm`` of every resample: scores ``(seeds, tasks)`` or ``(seeds, tasks, points)``, draws ``(resamples, ...)``.

    Runs are sorted once. The weight of a run in the mean is what its copies, in their place among all copies of a
    resample, leave of themselves between the quarters that are cut off.
    """
    points = scores.reshape(scores.shape[0] * scores.shape[1], -1)
    runs = len(points)
    cut = runs // 4
    orders = points.argsort(axis=0)
    found = np.empty((len(drawn), points.shape[1]))
    for first in range(0, len(drawn), PIECE):
        # Runs along the first axis: partial sums over them are then additions of whole rows.
        part = np.ascontiguousarray(drawn[first : first + PIECE].reshape(-1, runs).T).astype(np.int32)
        below = np.empty_like(part)
        for point, order in enumerate(orders.T):
            ordered = points[order, point]
            np.copyto(below[0], part[order[0]])
            for place in range(1, runs):
                np.add(below[place - 1], part[order[place]], out=below[place])
            np.clip(below, cut, runs - cut, out=below)
            total = (runs - cut) * ordered[-1] - cut * ordered[0] - np.diff(ordered) @ below[:-1]
            found[first : first + PIECE, point] = total / (runs - 2 * cut)
    return found.reshape(len(drawn), *scores.shape[2:])


def mean_draws(values: NDArray[np.float64], drawn: Counts) -> Draws:
    """Mean over seeds and tasks of every resample: ``(seeds, tasks, ...)`` to ``(resamples, ...)``."""
    runs = values.shape[0] * values.shape[1]
    flat = values.reshape(runs, -1)
    pieces = [
        drawn[first : first + PIECE].reshape(-1, runs).astype(np.float64) @ flat
        for first in range(0, len(drawn), PIECE)
    ]
    return np.concatenate(pieces).reshape(len(drawn), *values.shape[2:]) / runs


def task_mean_draws(scores: Scores, drawn: Counts) -> Draws:
    """Mean over seeds of every resample: ``(seeds, tasks)`` to ``(resamples, tasks)``."""
    return np.einsum("rst,st->rt", drawn, scores, optimize=False) / len(scores)


def margin(draws: Draws, seeds: int) -> NDArray[np.float64]:
    """Half the width of the corrected 95% interval, from draws of whole seeds: ``(resamples, ...)`` to ``(...)``.

    The standard deviation of the resamples, times ``sqrt(n / (n - 1))``, which undoes the bootstrap's bias of the
    variance, times the quantile of Student's t with ``n - 1`` degrees of freedom, which allows for that variance being
    estimated. Exact for the mean over tasks of scores whose means by seed are normal, however the tasks of a seed hang
    together and whichever of them vary, else an approximation, whose coverage ``resolution.simulate`` measures. Being
    symmetric it does not depend on which few values a handful of seeds can take, as percentiles do.
    """
    return _t(seeds) * np.sqrt(seeds / (seeds - 1)) * draws.std(axis=0)


def stretched(value: NDArray[np.float64] | float, draws: Draws, seeds: int) -> Draws:
    """Draws whose deviations from ``value`` are as much larger as ``margin`` is than that of a normal interval.

    For what is no smooth function of the draws, such as the step at which a curve reaches a level.
    """
    return value + _t(seeds) / ndtri(TAIL) * np.sqrt(seeds / (seeds - 1)) * (draws - value)


def p_value(value: float, half_width: float, seeds: int) -> float:
    """The level at which a corrected interval would just end at zero: Student's t of ``value``, two-sided.

    Less than 1 - ``CONFIDENCE`` where the interval of half the width ``half_width`` excludes zero, and only there.
    """
    return float(2 * stdtr(seeds - 1, -abs(value) * _t(seeds) / half_width))


def _t(seeds: int) -> float:
    return float(stdtrit(seeds - 1, TAIL))


def interval(draws: Draws) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The percentile interval over the first axis, as rliable's (arch's ``percentile`` method)."""
    low, high = np.quantile(draws, [1 - TAIL, TAIL], axis=0)
    return low, high


def check(scores: NDArray[np.float64]) -> None:
    """Raises ValueError unless all scores are finite and there is at least one."""
    if scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError("scores must be finite, and at least one")
