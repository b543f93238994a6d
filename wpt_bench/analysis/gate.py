"""The regression gate: has sample efficiency become worse? Statistics of two sets of independent runs.

Everything that may have become worse is tested at once: area under the curve and final score of every method, on all
tasks together and on each. The test shuffles which seeds are the candidate's and compares the most damning statistic of
all with what shuffling gives (Westfall and Young 1993, single-step maxT). A seed is shuffled with all its tasks,
figures and methods, so that these may depend on each other in any way. Where the seeds of both sides are independent
draws from one distribution, the chance of calling any figure worse is then at most ``alpha``, whatever scores are
distributed like and however few the seeds. What all seeds of a side share, the data set and the machine, is no part of
that chance. Statistics are studentised with a variance of each side's own (Janssen 1997), so that a candidate that is
merely more variable is not taken for a worse one.

Not being called worse is not enough to pass: a candidate of two seeds hardly ever is. A pass takes ``LEAST`` seeds on
either side and intervals that rule out that more than ``margin`` of the baseline's figure is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wpt_bench.analysis.aggregate import CURVE_RESAMPLES, Estimate, difference, probability_of_improvement
from wpt_bench.analysis.bootstrap import Scores, check

ALPHA = 0.05
MARGIN = 0.25
PERMUTATIONS = 10_000
LEAST = 6
"""Seeds that a pass takes: a change after which 40% of the runs fail entirely, and the others not at all, is in none of
six runs of a single task in 5% of cases, and no interval of what does not vary could rule it out."""
FIGURES = {"auc": "area under the curve", "score": "final score"}
"""What is compared, by column of ``RunTable.runs``."""

Answer = Literal["pass", "regressed", "inconclusive"]
EXIT_CODES: dict[Answer, int] = {"pass": 0, "regressed": 1, "inconclusive": 2}

_ROUNDING = 1e-12
"""Differences and variances below this are rounding errors: scores are of the order of one."""


@dataclass(frozen=True)
class Side:
    """Runs of one method: float64 ``(seeds, tasks)`` by figure, a key of ``FIGURES``; no area if it is offline."""

    figures: Mapping[str, Scores]
    tasks: tuple[str, ...]

    @property
    def seeds(self) -> int:
        """Runs of every task."""
        return len(next(iter(self.figures.values())))


@dataclass(frozen=True)
class Change:
    """One figure of the candidate beside the baseline's.

    Attributes:
        method: whose.
        figure: key of ``FIGURES``.
        task: of which; empty for the mean over all tasks.
        baseline, candidate: means over seeds.
        difference: candidate minus baseline, with two-sided intervals of this figure alone.
        improvement: chance that a run of the candidate beats one of the baseline on the same task.
        p: of having become worse by chance, one-sided, adjusted for all figures that are tested.
    """

    method: str
    figure: str
    task: str
    baseline: float
    candidate: float
    difference: Estimate
    improvement: Estimate
    p: float


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        answer: ``regressed`` if any figure became worse; else ``pass`` if there are enough seeds and no method can have
            lost more than ``margin`` of a figure over all tasks; else ``inconclusive``.
        changes: by method and figure, all tasks first.
        alpha, margin: as asked for.
        seeds: of baseline and candidate, by method.
    """

    answer: Answer
    changes: tuple[Change, ...]
    alpha: float
    margin: float
    seeds: Mapping[str, tuple[int, int]]

    @property
    def worse(self) -> tuple[Change, ...]:
        """The changes that make it regressed."""
        return tuple(change for change in self.changes if change.p <= self.alpha)

    @property
    def open(self) -> tuple[Change, ...]:
        """Figures over all tasks of which more than the margin may be lost."""
        return tuple(
            change
            for change in self.changes
            if not change.task and not _kept(change.difference, change.baseline, self.margin)
        )

    @property
    def few(self) -> bool:
        """Whether there are too few seeds to pass."""
        return min(map(min, self.seeds.values())) < LEAST


def judge(
    baseline: Mapping[str, Side],
    candidate: Mapping[str, Side],
    *,
    alpha: float = ALPHA,
    margin: float = MARGIN,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Verdict:
    """Compares the methods of a candidate with a baseline's; the same runs give the same verdict.

    Args:
        baseline, candidate: by method; the same methods, with the same figures and tasks, any number of seeds. A row is
            a seed, the same one for all methods that have as many.
        alpha: chance of calling anything regressed where nothing changed.
        margin: share of a figure over all tasks that may be lost and pass.
        permutations: shuffles of seeds; the smallest p is one in as many.
        seed: of the shuffles and of the bootstrap behind the intervals.

    Raises:
        ValueError: methods, figures or tasks of the two differ, a score is not finite, or both have one seed.
    """
    pairs = _pairs(baseline, candidate)
    changes = [
        _change(*name, baseline[name[0]], candidate[name[0]], chance, seed)
        for name, chance in _adjusted(pairs, permutations, seed).items()
    ]
    verdict = Verdict(
        answer="inconclusive",
        changes=tuple(changes),
        alpha=alpha,
        margin=margin,
        seeds={method: (before.seeds, after.seeds) for method, before, after in pairs},
    )
    answer: Answer = "regressed" if verdict.worse else "inconclusive" if verdict.few or verdict.open else "pass"
    return replace(verdict, answer=answer)


def answer(baseline: Side, candidate: Side, *, alpha: float, margin: float, permutations: int, seed: int = 0) -> Answer:
    """The answer of ``judge`` for one method, without what else a verdict says: for many trials."""
    chances = _adjusted([("", baseline, candidate)], permutations, seed)
    if min(chances.values()) <= alpha:
        return "regressed"
    if min(baseline.seeds, candidate.seeds) < LEAST:
        return "inconclusive"
    kept = all(
        _kept(_difference(old, candidate.figures[figure], seed), float(old.mean()), margin)
        for figure, old in baseline.figures.items()
    )
    return "pass" if kept else "inconclusive"


def _pairs(baseline: Mapping[str, Side], candidate: Mapping[str, Side]) -> list[tuple[str, Side, Side]]:
    """Method, baseline and candidate."""
    if not baseline or set(baseline) != set(candidate):
        raise ValueError("baseline and candidate have different methods, or none")
    for method, before in baseline.items():
        after = candidate[method]
        if before.tasks != after.tasks or list(before.figures) != list(after.figures):
            raise ValueError(f"figures or tasks of {method} differ")
        if before.seeds + after.seeds < 3:
            raise ValueError(f"of one seed of {method} on either side nothing follows")
        for scores in (*before.figures.values(), *after.figures.values()):
            check(scores)
    return [(method, before, candidate[method]) for method, before in baseline.items()]


def _adjusted(pairs: list[tuple[str, Side, Side]], permutations: int, seed: int) -> dict[tuple[str, str, str], float]:
    """Adjusted p by method, figure and task."""
    statistics, named = [], []
    for method, before, after in pairs:
        labels = _labels(after.seeds, before.seeds + after.seeds, permutations, seed)
        values = np.concatenate([_columns(after), _columns(before)])
        statistics.append(_studentised(values, labels, after.seeds))
        named += [(method, figure, task) for task in _scopes(before) for figure in before.figures]
    shuffled = np.concatenate(statistics, axis=1)
    # As small as the observed one, but for rounding: equal statistics of other shuffles count.
    least = shuffled.min(axis=1)
    p = (least[:, None] <= shuffled[0] + 1e-9).mean(axis=0)
    return dict(zip(named, p.tolist(), strict=True))


def _scopes(side: Side) -> tuple[str, ...]:
    """All tasks together, and each where there are several."""
    return ("", *side.tasks) if len(side.tasks) > 1 else ("",)


def _columns(side: Side) -> NDArray[np.float64]:
    """Every figure of every scope, scope by scope: float64 ``(seeds, scopes x figures)``."""
    values = np.stack(list(side.figures.values()), axis=-1)
    if len(side.tasks) > 1:
        values = np.concatenate([values.mean(axis=1, keepdims=True), values], axis=1)
    return values.reshape(len(values), -1)


@lru_cache(maxsize=4)
def _labels(candidates: int, seeds: int, permutations: int, seed: int) -> NDArray[np.float64]:
    """Which seeds are called the candidate's: 0 or 1, ``(permutations, seeds)``; the first row is how it is."""
    rng = np.random.default_rng([seed, candidates, seeds])
    labels = (rng.random((permutations, seeds)).argsort(axis=1) < candidates).astype(np.float64)
    labels[0] = np.arange(seeds) < candidates
    labels.flags.writeable = False
    return labels


def _studentised(values: NDArray[np.float64], labels: NDArray[np.float64], candidates: int) -> NDArray[np.float64]:
    """Candidate minus baseline in standard errors, of every shuffle: ``(permutations, columns)``.

    Values ``(seeds, columns)``, candidates first. A single seed has no variance of its own: then it is pooled. Where
    seeds do not vary at all, equal means are no difference and others an infinite one.
    """
    values = values - values.mean(axis=0)
    others = len(values) - candidates
    sums = labels @ values
    means, baselines = sums / candidates, -sums / others
    squares = labels @ values**2
    spreads = squares - candidates * means**2, (values**2).sum(axis=0) - squares - others * baselines**2
    if min(candidates, others) == 1:
        variances = sum(spreads) / (len(values) - 2) * (1 / candidates + 1 / others)
    else:
        variances = sum(
            spread / (count * (count - 1)) for spread, count in zip(spreads, (candidates, others), strict=True)
        )
    differences = means - baselines
    differences[np.abs(differences) < _ROUNDING] = 0.0
    variances = np.where(variances < _ROUNDING, 0.0, variances)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = differences / np.sqrt(variances)
    return np.nan_to_num(found, nan=0.0, posinf=np.inf, neginf=-np.inf)


def _change(method: str, figure: str, task: str, before: Side, after: Side, p: float, seed: int) -> Change:
    columns = [before.tasks.index(task)] if task else list(range(len(before.tasks)))
    old, new = (side.figures[figure][:, columns] for side in (before, after))
    return Change(
        method=method,
        figure=figure,
        task=task,
        baseline=float(old.mean()),
        candidate=float(new.mean()),
        difference=_difference(old, new, seed),
        improvement=probability_of_improvement(new, old, seed=seed),
        p=p,
    )


def _difference(old: Scores, new: Scores, seed: int) -> Estimate:
    return difference(new, old, "mean", resamples=CURVE_RESAMPLES, seed=seed)


def _kept(change: Estimate, baseline: float, margin: float) -> bool:
    """Whether an interval rules out that more than the margin is lost."""
    low = change.corrected_low
    return low is not None and low > -margin * abs(baseline)
