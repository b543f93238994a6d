"""What a comparison says of one method: its row of the table, and its part in smaller tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wpt_bench.analysis.aggregate import Band, Estimate
from wpt_bench.analysis.reach import Reach, Saving


@dataclass(frozen=True)
class Cost:
    """When a method's IQM first reaches a level, and what its runs had spent by then, in the median.

    ``updates`` (gradient updates) and ``wall_clock`` (seconds) are None where the level is not reached.
    """

    reach: Reach
    updates: float | None
    wall_clock: float | None


@dataclass(frozen=True)
class Held:
    """A method held against another on the same tasks.

    Attributes:
        score: IQM of the score at the budget minus the other's.
        auc: IQM of the area under the curve minus the other's; None unless both act online.
        improvement: chance that a run beats one of the other on the same task.
    """

    score: Estimate
    auc: Estimate | None
    improvement: Estimate


@dataclass(frozen=True)
class MethodSummary:
    """One row of the methods' table.

    Attributes:
        name, family, data_access, tuning, online: as recorded (empty, None where no run counts).
        tuning_evaluations: evaluations of online performance that were spent on choosing its hyperparameters here;
            None where no run counts.
        seeds: how many are expected.
        done, expected: runs that count, and runs that an aggregate needs: every task with every seed of the method.
        estimates: by name of the metric; empty while the method is incomplete.
        auc: IQM of the area under the curve; None while incomplete, and for methods without online steps.
        curve: IQM along the curve; None as for ``auc``.
        profile: share of runs above each score; None while incomplete.
        against: held against learning from scratch; None for scratch itself, and unless both are complete.
        wpt_against: WPT held against it; None unless both are complete, and for WPT itself and its variants.
        prior, above_prior: IQM of the score that the cloned prior of the same runs has alone, before the first
            environment step, and that of the final score minus it; None while incomplete, and without such a prior.
        above_prior_return: mean return of the last evaluation minus the prior's, over tasks and seeds, where success is
            the score and the return is what is learned from; None as for ``above_prior``.
        reach: when it reaches the final IQM of learning from scratch; None as for ``against.auc``.
        costs: of reaching ``LEVELS``; empty as for ``auc``.
        wall_clock, updates: median seconds and mean gradient updates per run that counts, None without any. Other work
            of the machine lengthens a run's wall-clock, and no mean of a few runs stands that.
        wall_clock_range: seconds of the shortest and of the longest run, None without any.
        peak_memory: most bytes of resident memory of a run that counts, None without any.
        retrieval_precision: mean share of retrieved episodes that are of the task's own scene, None without any.
        stages: ids of the pre-trainings its runs start from.
        incomplete: why it has no aggregate, else None.
    """

    name: str
    family: str
    data_access: str
    tuning: str
    tuning_evaluations: int | None
    online: bool
    seeds: int
    done: int
    expected: int
    estimates: Mapping[str, Estimate]
    auc: Estimate | None
    curve: Band | None
    profile: Band | None
    against: Held | None
    wpt_against: Held | None
    prior: Estimate | None
    above_prior: Estimate | None
    above_prior_return: Estimate | None
    reach: Saving | None
    costs: tuple[Cost, ...]
    wall_clock: float | None
    wall_clock_range: tuple[float, float] | None
    updates: float | None
    peak_memory: int | None
    retrieval_precision: float | None
    stages: tuple[str, ...]
    incomplete: str | None

    @property
    def iqm(self) -> Estimate | None:
        """Interquartile mean of the scores at the budget, None while incomplete."""
        return self.estimates.get("iqm")


@dataclass(frozen=True)
class Part:
    """One method on the tasks of one embodiment, or on a single task.

    Attributes:
        method: its name.
        iqm: of the scores at the budget.
        auc: IQM of the area under the curve; None without online steps.
        auc_against: IQM of the area under the curve minus that of learning from scratch; None for scratch itself,
            without scratch, and without online steps.
        curve: IQM along the curve; None without online steps.
        reach: when it reaches the final IQM of learning from scratch on these tasks, and what that saves; None for
            scratch itself, without scratch, and without online steps.
    """

    method: str
    iqm: Estimate
    auc: Estimate | None
    auc_against: Estimate | None
    curve: Band | None
    reach: Saving | None
