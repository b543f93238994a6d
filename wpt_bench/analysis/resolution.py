"""What a number of seeds can resolve: coverage of intervals and the smallest difference seen, by simulation.

Scores of a task are normal around the task's own mean, with the same standard deviation everywhere; task means are
spread evenly over [0, 1]. Real scores are neither, so that this is a best case. Nothing hangs together with the seed,
which rliable's intervals count on and the corrected ones do not; methods are paired by seed, as in tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from wpt_bench.analysis.aggregate import METRICS, Estimate, aggregate, difference

DEVIATION = 0.1
"""Standard deviation of the scores of one task over seeds; results are in units of it."""
POWER = 0.8
TRIALS, RESAMPLES = 2000, 2000
ENOUGH_RUNS = 20_000
"""Seeds whose aggregate counts as the true one."""


@dataclass(frozen=True)
class Resolution:
    """What intervals of one metric are worth.

    Attributes:
        metric: key of ``METRICS``. seeds, tasks: of each method.
        rliable, corrected: share of trials in which the percentile interval, and the corrected one, holds the truth.
        half_width: of the corrected interval on average, in standard deviations of a task's scores.
        difference: between two methods, in the same units, that is called separated in ``POWER`` of the trials.
        false_alarms: share of trials in which two equal methods are called separated.
        trials: how many.
    """

    metric: str
    seeds: int
    tasks: int
    rliable: float
    corrected: float
    half_width: float
    difference: float
    false_alarms: float
    trials: int


def simulate(metric: str, seeds: int, tasks: int, *, trials: int = TRIALS, seed: int = 0) -> Resolution:
    """Draws the scores of two equal methods again and again; the same arguments give the same figures."""
    rng = np.random.default_rng([seed, seeds, tasks])
    means = np.linspace(0, 1, tasks)
    truth = METRICS[metric].value(means + DEVIATION * rng.standard_normal((ENOUGH_RUNS, tasks)))
    singles, differences = [], []
    for trial in range(trials):
        scores, others = (means + DEVIATION * rng.standard_normal((seeds, tasks)) for _ in range(2))
        singles.append(aggregate(scores, [metric], resamples=RESAMPLES, seed=seed + trial)[metric])
        differences.append(difference(scores, others, metric, paired=True, resamples=RESAMPLES, seed=seed + trial))
    # A method that is better by d throughout moves every draw by d: it is seen as soon as d lifts the lower end over 0.
    needed = [-_ends(one)[0] for one in differences]
    widths = [high - low for low, high in map(_ends, singles)]
    return Resolution(
        metric=metric,
        seeds=seeds,
        tasks=tasks,
        rliable=_covered(singles, lambda one: (one.low, one.high), truth),
        corrected=_covered(singles, _ends, truth),
        half_width=float(np.mean(widths)) / 2 / DEVIATION,
        difference=float(np.quantile(needed, POWER)) / DEVIATION,
        false_alarms=float(np.mean([one.excludes_zero for one in differences])),
        trials=trials,
    )


Ends = tuple[float | None, float | None]


def _ends(one: Estimate) -> tuple[float, float]:
    assert one.corrected_low is not None and one.corrected_high is not None
    return one.corrected_low, one.corrected_high


def _covered(estimates: Iterable[Estimate], ends: Callable[[Estimate], Ends], truth: float) -> float:
    found = [(low, high) for low, high in map(ends, estimates) if low is not None and high is not None]
    return float(np.mean([low <= truth <= high for low, high in found]))
