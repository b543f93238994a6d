"""How often the regression gate errs: its answers about candidates that are drawn from runs whose quality is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wpt_bench.analysis import archive
from wpt_bench.analysis.gate import ALPHA, MARGIN, Answer, Side, answer
from wpt_bench.analysis.regression import known, runs_in, side_of, suite_and_profile, table_of
from wpt_bench.analysis.scores import Reading, expected_runs
from wpt_bench.protocol import UserError
from wpt_bench.records import Identity

TRIALS = 1000
POOLS = 40
"""Sets of runs that might have been made instead of those that were, to see how well so many runs know a rate."""
POOL_TRIALS = 100
PERMUTATIONS = 2000
"""Shuffles in a trial: fewer than a verdict takes, for there are many trials."""
LOSSES = (0.1, 0.25, 0.5)
"""Shares of every score that candidates are made to lose, to see which losses are noticed."""


@dataclass(frozen=True)
class ErrorRate:
    """How often the gate gives each answer about one kind of candidate.

    Attributes:
        method: which is judged, by itself.
        arm: ``unchanged``; a loss, every score of unchanged runs lowered by a share of itself; or experiment, factor
            and level whose runs stand for the candidate.
        seeds: of the candidate. baseline: of the baseline.
        runs: independent seeds of the arm that candidates are drawn from.
        effect: mean of the arm's area (of its final score, where it is offline) minus that of the unchanged runs, over
            tasks and all runs.
        passed, regressed, inconclusive: shares of the trials. trials: how many.
        low, high: 95% interval of ``regressed``, from the rates that resampled sets of runs give.
    """

    method: str
    arm: str
    seeds: int
    baseline: int
    runs: int
    effect: float
    passed: float
    regressed: float
    inconclusive: float
    trials: int
    low: float
    high: float


def error_rates(
    folder: Path,
    *,
    suite: str = "",
    profile: str = "",
    method: str,
    seeds: Sequence[int],
    losses: Sequence[float] = LOSSES,
    trials: int = TRIALS,
    alpha: float = ALPHA,
    margin: float = MARGIN,
    seed: int = 0,
) -> list[ErrorRate]:
    """How often the gate errs, from draws out of independent runs; the same runs and arguments give the same rates.

    Runs are drawn seed by seed, with all tasks of a seed. An unchanged candidate of ``n`` seeds is drawn without
    replacement from the baseline's own runs, of which those that are left are the baseline then; so is one whose scores
    are lowered. A broken candidate is drawn with replacement from an experiment's arm, and its baseline with
    replacement from all of the baseline's runs: without, draws of nearly all runs would hardly vary.

    Args:
        folder: published, with runs of the method and an experiment that breaks it.
        suite, profile: may be left out where the folder has one of each.
        method: whose.
        seeds: sizes of candidates.
        losses: shares of every score that are lost.
        trials: draws for each rate.
        alpha, margin: of the gate.
        seed: of the draws.

    Raises:
        UserError: a size leaves fewer than two runs for the baseline, or there is nothing to draw from.
    """
    reading = Reading(runs_in(folder))
    suite, profile = suite_and_profile(reading, folder, suite, profile)
    table = table_of(reading, suite, profile)
    known((method,), table.methods, "method", folder)
    whole = side_of(table, method, table.tasks)
    for size in seeds:
        if not 1 <= size <= whole.seeds - 2:
            raise UserError(f"A candidate of {size} seeds leaves too few of the baseline's {whole.seeds}.")
    level = _level(whole)
    arms = [("unchanged", whole, _halves(0.0), 0.0)]
    arms += [(f"{loss:.0%} of every score lost", whole, _halves(loss), -loss * level) for loss in losses]
    for plan in archive.read_experiments(reading.root).plans:
        for its in plan.arms:
            if its.method == method and not its.reference:
                broken = _arm(reading, its.runs, table.tasks)
                arms.append((f"{plan.name}, {its.factor}: {its.level}", broken, _replaced, _level(broken) - level))
    found = []
    for size in seeds:
        for name, arm, draw, effect in arms:
            rng = np.random.default_rng([seed, size])
            answers = _answers(whole, arm, draw, size, trials, rng, alpha, margin)
            others = [
                _answers(*_resampled(whole, arm, rng), draw, size, POOL_TRIALS, rng, alpha, margin)["regressed"]
                for _ in range(POOLS)
            ]
            low, high = np.quantile(np.array(others) / POOL_TRIALS, [0.025, 0.975]).tolist()
            found.append(
                ErrorRate(
                    method=method,
                    arm=name,
                    seeds=size,
                    baseline=draw(whole, arm, size, rng)[0].seeds,
                    runs=arm.seeds,
                    effect=effect,
                    passed=answers["pass"] / trials,
                    regressed=answers["regressed"] / trials,
                    inconclusive=answers["inconclusive"] / trials,
                    trials=trials,
                    low=low,
                    high=high,
                )
            )
    return found


def methods_in(folder: Path, suite: str = "", profile: str = "", wanted: Sequence[str] = ()) -> list[str]:
    """Methods that have runs of their own there, or those that are asked for; UserError if one has none."""
    reading = Reading(runs_in(folder))
    return known(
        wanted, table_of(reading, *suite_and_profile(reading, folder, suite, profile)).methods, "method", folder
    )


_Draw = Callable[[Side, Side, int, np.random.Generator], tuple[Side, Side]]
"""Baseline and candidate of so many seeds, from the baseline's runs and from an arm's."""


def _level(side: Side) -> float:
    """Mean of the first figure: the area, or the final score where there is none."""
    return float(next(iter(side.figures.values())).mean())


def _answers(
    whole: Side,
    arm: Side,
    draw: _Draw,
    size: int,
    trials: int,
    rng: np.random.Generator,
    alpha: float,
    margin: float,
) -> Counter[Answer]:
    """How often the gate gives each answer."""
    drawn = (draw(whole, arm, size, rng) for _ in range(trials))
    return Counter(answer(*sides, alpha=alpha, margin=margin, permutations=PERMUTATIONS) for sides in drawn)


def _halves(loss: float) -> _Draw:
    """Disjoint draws of the baseline's runs; the candidate loses a share of its scores."""

    def draw(whole: Side, arm: Side, size: int, rng: np.random.Generator) -> tuple[Side, Side]:
        order = rng.permutation(whole.seeds)
        return _taken(whole, order[size:]), _taken(arm, order[:size], 1 - loss)

    return draw


def _replaced(whole: Side, arm: Side, size: int, rng: np.random.Generator) -> tuple[Side, Side]:
    return _resampled(whole, whole, rng)[0], _taken(arm, rng.integers(arm.seeds, size=size))


def _resampled(whole: Side, arm: Side, rng: np.random.Generator) -> tuple[Side, Side]:
    """As many runs of both as there are, drawn with replacement; the same of both where they are the same."""
    again = _taken(whole, rng.integers(whole.seeds, size=whole.seeds))
    return again, again if arm is whole else _taken(arm, rng.integers(arm.seeds, size=arm.seeds))


def _taken(side: Side, seeds: NDArray[np.intp], share: float = 1.0) -> Side:
    """Some of its seeds, with all their tasks; ``share`` of their scores."""
    return Side({figure: scores[seeds] * share for figure, scores in side.figures.items()}, side.tasks)


def _arm(reading: Reading, runs: Sequence[Identity], tasks: Sequence[str]) -> Side:
    table = expected_runs(reading, runs)
    return side_of(table, table.methods[0], tasks)
