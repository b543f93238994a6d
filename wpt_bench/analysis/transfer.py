"""An agent carried from task to task: what it gains on later tasks, and what it forgets of earlier ones.

The measures of Continual World (Wołczyk et al. 2021, arXiv 2105.10919), on this benchmark's scores. Their mean of
transfer is over all tasks; ours leaves out the first of a sequence, which comes after no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wpt_bench.analysis.aggregate import (
    TABLE_RESAMPLES,
    Estimate,
    aggregate,
    estimate,
    three,
)
from wpt_bench.analysis.arms import ArmTable
from wpt_bench.analysis.bootstrap import Scores, check, margin, task_mean_draws, whole


@dataclass(frozen=True)
class Transfer:
    """Forward transfer to the tasks of a sequence.

    Attributes:
        against: level of the arm whose runs begin each task without the tasks before.
        tasks: by name, in the order of the sequence; None where runs are missing or it is not defined.
        mean: over the tasks that come after another; None where one of them is.
    """

    against: str
    tasks: Mapping[str, Estimate | None]
    mean: Estimate | None


@dataclass(frozen=True)
class Carried:
    """What an arm whose runs are sequences of tasks gains and forgets.

    Attributes:
        level: of the arm.
        order: its tasks, in the order of the sequence.
        transfer: against every arm of the factor whose runs are no sequences.
        forgetting: of each task but the last: its score at the end of its own run minus that at the end of the last
            task's, mean over seeds; None where it was not measured.
        forgotten: mean of the same over tasks; None where one of them is.
    """

    level: str
    order: tuple[str, ...]
    transfer: tuple[Transfer, ...]
    forgetting: Mapping[str, Estimate | None]
    forgotten: Estimate | None

    @property
    def sentence(self) -> str:
        """Mean transfer and forgetting, and whether they are separated from zero."""
        said = [f"forward transfer against {one.against} {_said(one.mean)}" for one in self.transfer]
        return f"Of {self.level}, mean over tasks: {'; '.join([*said, f'forgetting {_said(self.forgotten)}'])}."


def in_sequence(one: ArmTable) -> bool:
    """Whether the runs of an arm are sequences of tasks."""
    return any(run.earlier is not None for run in one.arm.runs)


def carried(one: ArmTable, others: Mapping[str, ArmTable], *, resamples: int = TABLE_RESAMPLES) -> Carried:
    """The measures of one arm in sequence against others, by level, that are not."""
    last = max(one.arm.runs, key=lambda run: len(run.earlier or ()))
    order = (*(last.earlier or ()), last.task)
    transfer = tuple(
        Transfer(
            level,
            {task: _transfer(one, other, [task], resamples) for task in order},
            _transfer(one, other, order[1:], resamples),
        )
        for level, other in others.items()
    )
    lost = {task: _lost(one, task, last.task) for task in order[:-1]}
    measured = [matrix for matrix in lost.values() if matrix is not None]
    return Carried(
        level=one.arm.level,
        order=order,
        transfer=transfer,
        forgetting={task: _mean(matrix, resamples) for task, matrix in lost.items()},
        forgotten=_mean(np.concatenate(measured, axis=1), resamples)
        if measured and len(measured) == len(lost)
        else None,
    )


def forward_transfer(
    areas: Scores, reference: Scores, *, paired: bool = False, resamples: int = TABLE_RESAMPLES, seed: int = 0
) -> Estimate | None:
    """Mean over tasks of ``(AUC - AUC_ref) / (1 - AUC_ref)``, each area the mean of its seeds.

    One where all that the reference left to be gained was gained, zero where nothing was. None where a reference run
    has an area of one or more: it leaves nothing to be gained.

    Args:
        areas, reference: areas under the curve divided by the budget, float64 ``(seeds, tasks)``, of the same tasks.
        paired: whether a row of both is the same seed; without, seeds of both are drawn independently.
        resamples: of the bootstrap.
        seed: of the resampling.

    Raises:
        ValueError: an area is not finite, or there is none.
    """
    check(areas)
    check(reference)
    if reference.max() >= 1:
        return None
    ours, theirs = areas.mean(axis=0), reference.mean(axis=0)
    value = float(((ours - theirs) / (1 - theirs)).mean())
    if min(len(areas), len(reference)) == 1:
        return Estimate(value)
    mine = task_mean_draws(areas, whole(areas, resamples, seed))
    its = task_mean_draws(reference, whole(reference, resamples, seed, 0 if paired else 1))
    draws = ((mine - its) / (1 - its)).mean(axis=1)
    if paired:
        return estimate(value, draws, float(margin(draws, len(areas))))
    # As for a difference: the two sides are independent, and each is corrected for its own number of seeds.
    margins = [
        margin(((mine - theirs) / (1 - theirs)).mean(axis=1), len(areas)),
        margin(((ours - its) / (1 - its)).mean(axis=1), len(reference)),
    ]
    return estimate(value, draws, float(np.hypot(*margins)))


def _transfer(one: ArmTable, other: ArmTable, tasks: tuple[str, ...] | list[str], resamples: int) -> Estimate | None:
    areas, reference = (its.matrix("auc", tasks) if tasks else None for its in (one, other))
    if areas is None or reference is None:
        return None
    return forward_transfer(areas, reference, paired=one.seeds == other.seeds, resamples=resamples)


def _lost(one: ArmTable, task: str, last: str) -> Scores | None:
    """What every seed lost of one task by the end of the last one, ``(seeds, 1)``; None if a seed does not say."""
    learned, rows = one.matrix("score", [task]), one.table.earlier
    kept = rows[(rows["task"] == last) & (rows["earlier"] == task)].set_index("seed")["score"]
    kept = kept.reindex(one.table.seeds(one.arm.method))
    if learned is None or kept.isna().any():
        return None
    return learned - kept.to_numpy(dtype=np.float64)[:, None]


def _said(figure: Estimate | None) -> str:
    if figure is None:
        return "not measured"
    if figure.corrected_low is None:
        return f"{three(figure.value, '+')} (one seed: no interval)"
    verdict = f"{figure.verdict} from zero" if not figure.flat else figure.verdict
    return f"{three(figure.value, '+')} {figure.corrected}, {verdict}"


def _mean(matrix: Scores | None, resamples: int) -> Estimate | None:
    return None if matrix is None else aggregate(matrix, ["mean"], resamples=resamples)["mean"]
