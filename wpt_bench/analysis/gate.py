"""The regression gate: has sample efficiency become worse? Statistics of two sets of independent runs.

Everything that may have become worse is tested at once: area under the curve and final score of every method, on all
tasks together and on each. The test shuffles which runs are the candidate's, within every task, and compares the most
damning statistic of all with what shuffling gives (Westfall and Young 1993, single-step maxT with studentised
statistics), so that the chance of calling any figure worse where nothing changed is at most ``alpha``, whatever scores
are distributed like, however few the seeds and however the figures depend on each other.

Not being called worse is not enough to pass: a candidate of two seeds is never worse. It passes if intervals also rule
out that more than ``margin`` of the baseline's figure is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wpt_bench.analysis.aggregate import CURVE_RESAMPLES, Estimate, difference, probability_of_improvement
from wpt_bench.analysis.bootstrap import Scores, check

ALPHA = 0.05
MARGIN = 0.25
PERMUTATIONS = 10_000
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
        difference: candidate minus baseline, with intervals of this figure alone.
        improvement: chance that a run of the candidate beats one of the baseline on the same task.
        p: of having become worse by chance, adjusted for all figures that are tested.
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
        answer: ``regressed`` if any figure became worse; else ``pass`` if no method can have lost more than ``margin``
            of a figure over all tasks; else ``inconclusive``.
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
        return tuple(change for change in self.changes if not change.task and not _kept(change, self.margin))


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
        baseline, candidate: by method; the same methods, with the same figures and tasks, any number of seeds.
        alpha: chance of calling anything regressed where nothing changed.
        margin: share of a figure over all tasks that may be lost and pass.
        permutations: shuffles of runs; the smallest p is one in as many.
        seed: of the shuffles and of the bootstrap behind the intervals.

    Raises:
        ValueError: methods, figures or tasks of the two differ, a score is not finite, or both have one seed.
    """
    statistics, named, pairs = [], [], _pairs(baseline, candidate)
    for stream, (method, before, after) in enumerate(pairs):
        values = np.concatenate([_stack(after), _stack(before)])
        labels = _labels(after.seeds, len(values), len(before.tasks), permutations, seed, stream)
        statistics.append(_studentised(values, labels, after.seeds))
        named += [(method, figure, task) for task in _scopes(before) for figure in before.figures]
    shuffled = np.concatenate(statistics, axis=1)
    # As small as the observed one, but for rounding: equal statistics of other shuffles count.
    least = shuffled.min(axis=1)
    p = (least[:, None] <= shuffled[0] + 1e-9).mean(axis=0)
    changes = [
        _change(*name, baseline[name[0]], candidate[name[0]], float(chance), seed)
        for name, chance in zip(named, p, strict=True)
    ]
    worse = any(change.p <= alpha for change in changes)
    kept = all(_kept(change, margin) for change in changes if not change.task)
    return Verdict(
        answer="regressed" if worse else "pass" if kept else "inconclusive",
        changes=tuple(changes),
        alpha=alpha,
        margin=margin,
        seeds={method: (before.seeds, after.seeds) for method, before, after in pairs},
    )


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


def _stack(side: Side) -> NDArray[np.float64]:
    """Float64 ``(seeds, tasks, figures)``."""
    return np.stack(list(side.figures.values()), axis=-1)


def _scopes(side: Side) -> tuple[str, ...]:
    """All tasks together, and each where there are several."""
    return ("", *side.tasks) if len(side.tasks) > 1 else ("",)


@lru_cache(maxsize=8)
def _labels(candidates: int, runs: int, tasks: int, permutations: int, seed: int, stream: int) -> NDArray[np.float64]:
    """Which runs are called the candidate's: 0 or 1, ``(permutations, runs, tasks)``; the first row is how it is."""
    rng = np.random.default_rng([seed, stream])
    labels = (rng.random((permutations, runs, tasks)).argsort(axis=1) < candidates).astype(np.float64)
    labels[0] = (np.arange(runs) < candidates)[:, None]
    labels.flags.writeable = False
    return labels


def _studentised(values: NDArray[np.float64], labels: NDArray[np.float64], candidates: int) -> NDArray[np.float64]:
    """Candidate minus baseline in standard errors, of every shuffle: ``(permutations, scopes x figures)``.

    Values ``(runs, tasks, figures)``, candidates first. Variances are pooled within each task. Where runs do not vary
    at all, equal means are no difference and others an infinite one.
    """
    values = values - values.mean(axis=0)
    others = len(values) - candidates
    sums = np.einsum("prt,rtf->ptf", labels, values, optimize=True)
    means, baselines = sums / candidates, -sums / others
    squares = (values**2).sum(axis=0) - candidates * means**2 - others * baselines**2
    variances = squares.clip(min=0) / (len(values) - 2) * (1 / candidates + 1 / others)
    differences, tasks = means - baselines, values.shape[1]
    if tasks > 1:
        differences = np.concatenate([differences.mean(axis=1, keepdims=True), differences], axis=1)
        variances = np.concatenate([variances.sum(axis=1, keepdims=True) / tasks**2, variances], axis=1)
    differences[np.abs(differences) < _ROUNDING] = 0.0
    variances[variances < _ROUNDING] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        found = differences / np.sqrt(variances)
    return np.nan_to_num(found, nan=0.0, posinf=np.inf, neginf=-np.inf).reshape(len(labels), -1)


def _change(method: str, figure: str, task: str, before: Side, after: Side, p: float, seed: int) -> Change:
    columns = [before.tasks.index(task)] if task else list(range(len(before.tasks)))
    old, new = (side.figures[figure][:, columns] for side in (before, after))
    return Change(
        method=method,
        figure=figure,
        task=task,
        baseline=float(old.mean()),
        candidate=float(new.mean()),
        difference=difference(new, old, "mean", resamples=CURVE_RESAMPLES, seed=seed),
        improvement=probability_of_improvement(new, old, seed=seed),
        p=p,
    )


def _kept(change: Change, margin: float) -> bool:
    """Whether its interval rules out that more than the margin is lost."""
    low = change.difference.corrected_low
    return low is not None and low > -margin * abs(change.baseline)
