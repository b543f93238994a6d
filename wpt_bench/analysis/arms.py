"""The runs of an experiment, arm by arm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wpt_bench.analysis.bootstrap import Scores
from wpt_bench.analysis.scores import SCRATCH, IncompleteError, Reading, RunTable, expected_runs, score_matrix
from wpt_bench.records import Arm, Plan


@dataclass(frozen=True)
class ArmTable:
    """One method at one level of a factor, and its runs."""

    arm: Arm
    table: RunTable

    @property
    def online(self) -> bool:
        """Whether its runs take environment steps; True while there is none."""
        return bool(self.table.runs["online"].all())

    @property
    def seeds(self) -> list[int]:
        """Rows of its matrices."""
        return self.table.seeds(self.arm.method)

    def matrix(self, column: str = "score", tasks: Sequence[str] | None = None) -> Scores | None:
        """A column of ``RunTable.runs``, float64 ``(seeds, tasks)``; None if a run or its value is missing."""
        try:
            return score_matrix(self.table, self.arm.method, column, tasks)
        except IncompleteError:
            return None


def arm_tables(plan: Plan, reading: Reading) -> dict[str, tuple[ArmTable, ...]]:
    """By factor, the arms that have runs to be made, in the plan's order.

    Raises:
        UserError: an arm mixes what may not share a table.
    """
    tables = [ArmTable(arm, expected_runs(reading, arm.runs)) for arm in plan.arms if arm.runs]
    return {name: found for name in plan.factors if (found := tuple(one for one in tables if one.arm.factor == name))}


def reference_of(one: ArmTable, arms: Iterable[ArmTable]) -> ArmTable | None:
    """What an arm is held against: the reference level's run of the same method, or its only one; None for itself."""
    if one.arm.reference:
        return None
    references = [other for other in arms if other.arm.reference]
    same = [other for other in references if other.arm.method == one.arm.method]
    return same[0] if same else references[0] if len(references) == 1 else None


def scratch_beside(one: ArmTable, arms: Iterable[ArmTable]) -> ArmTable | None:
    """Learning from scratch at the level of an arm that does something else."""
    beside = [other for other in arms if other.arm.level == one.arm.level and other.arm.method == SCRATCH]
    return beside[0] if beside and one.arm.method != SCRATCH else None
