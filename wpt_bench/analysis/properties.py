"""Table 1: what each family of methods can do, once as its code declares it and once as runs measure it.

Declared cells follow from the grants that methods ask for. A measured cell is a tick only if the corrected 95%
interval of the effect that stands for the property lies above zero; where runs cannot show it, whatever they do, the
cell is not measured. The effects are the same for every table, and printed below it (``EFFECTS``). A family's methods
are pooled: every method on every task weighs the same, and the bootstrap draws whole seeds, with all that was run with
them on either side of an effect. WPT with parts switched off is not WPT, and in no pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wpt_bench.analysis.aggregate import ONE_SEED, Estimate, estimate, three
from wpt_bench.analysis.arms import ArmTable
from wpt_bench.analysis.bootstrap import margin
from wpt_bench.analysis.factorial import ARMS, RANDOM_REPLAY
from wpt_bench.analysis.scores import SCRATCH, UNGRANTED, RunTable, score_matrix

FAMILIES = (
    *("Offline RL", "Off2On RL", "RLPD", "MT IL", "MT offline RL", "WPT"),
    *("Reward-free comparators", "From scratch"),
)
"""Columns: those of the poster's Table 1 in its order, and two that it does not have. Other families come after."""

REWARD_FREE = "reward-free offline data"
NON_EXPERT = "non-expert offline data"
CROSS_EMBODIMENT = "cross-embodiment offline data"
IMPROVEMENT = "continual improvement"
STABILITY = "training stability"

NOISE, COLLECTORS, OTHERS = "noise", "collectors", "other scenes"
"""Factors of the experiment ``data`` that two of the effects come from."""
UNLEARNED = "pink-noise"
"""The collector that learned nothing."""
FEWEST = 5
"""Seeds that training stability takes: with three, the interval of a difference in spreads is at least twice as wide as
it, however steady a family is, with four on a single task nearly as wide."""

DECLARED_RULES = {
    REWARD_FREE: "the grant leaves rewards out (reward-free, demonstrations)",
    NON_EXPERT: "it learns from offline data that nobody selected by return (any grant but demonstrations)",
    CROSS_EMBODIMENT: "the grant has other bodies or tasks in it (reward-free, labelled-multitask, demonstrations)",
    IMPROVEMENT: "it goes on learning from environment steps",
    STABILITY: "nothing that code can declare",
}
"""When a method has a property by its declaration; ``some`` where the methods of a family differ."""

EFFECTS = {
    REWARD_FREE: (
        f"final score minus that of {SCRATCH} on the same tasks, over methods from which rewards of the offline data "
        "were withheld"
    ),
    NON_EXPERT: (
        f"final score from the worst of the data alone (on Meta-World the noisiest range of noise, on DMControl "
        f"{UNLEARNED} alone) minus that of {SCRATCH} on the same tasks. Beside it the slope: how the score changes per "
        "unit of noise, by least squares over the ranges; of collectors there is none"
    ),
    CROSS_EMBODIMENT: (
        "final score from all of the data minus that from the data of the task's own scene alone: of other bodies on "
        "DMControl, on Meta-World of other scenes of the one body"
    ),
    IMPROVEMENT: (
        "score at the budget minus score at step 0 of the same run, over methods with environment steps; families "
        "without any are a cross by construction, and where no run's score changes nothing is measured"
    ),
    STABILITY: (
        f"spread across seeds of {SCRATCH} minus that of the family; spread is the standard deviation over seeds "
        "within a task, averaged over tasks (few seeds understate it). Beside it the drawdown: a run's largest fall "
        f"from the best score so far, averaged over runs with a curve. Not measured where all runs of {SCRATCH} score "
        f"the same on every task, as at the floor: then nothing can be steadier; nor with fewer than {FEWEST} seeds on "
        "either side, which cannot show it"
    ),
}
"""What is measured for each property."""

POOLING = (
    "A tick: the corrected 95% interval of the effect lies above zero; a cross: it was measured and does not, which "
    "does not show the opposite; an effect without spread is not measured. Effects are of means, not of interquartile "
    "means. A family's methods are pooled: each method on each task weighs the same, and a seed is drawn with all of "
    "its runs. WPT with parts switched off, and its control, are in no pool. Only methods with every expected run and "
    "two or more seeds count."
)
"""How a family of several methods gets one cell."""

EFFECT_RESAMPLES = 10_000

Verdict = Literal["yes", "no", "some", "not measured", "not applicable"]


@dataclass(frozen=True)
class Declaration:
    """What one installed method declares of itself.

    Attributes:
        name, family: as registered.
        data_access: its grant, as recorded (``reward-free``, ``none``, ...).
        online: whether it takes environment steps.
    """

    name: str
    family: str
    data_access: str
    online: bool


@dataclass(frozen=True)
class Cell:
    """One property of one family.

    Attributes:
        verdict: ``some`` occurs in declared tables only, ``not measured`` in measured ones only.
        effect: behind a measured verdict, else None.
        figures: further numbers by name (``spread``, ``drawdown``, ``slope``).
        methods: those the verdict rests on.
        why: the reason, where the verdict does not rest on an effect.
    """

    verdict: Verdict
    effect: Estimate | None = None
    figures: Mapping[str, float | Estimate] | None = None
    methods: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Properties:
    """A table: ``rows`` holds per property one cell for each of ``families``."""

    families: tuple[str, ...]
    rows: Mapping[str, tuple[Cell, ...]]

    def cell(self, name: str, family: str) -> Cell:
        """The cell of one property and family."""
        return self.rows[name][self.families.index(family)]


def declared(methods: Iterable[Declaration]) -> Properties:
    """Table 1 as the code of the installed methods declares it."""
    known = list(methods)
    return _table(
        (method.family for method in known),
        lambda name, family: _declared(name, [method for method in known if method.family == family]),
    )


def measured(
    table: RunTable,
    varied: Mapping[str, Sequence[ArmTable]] = {},
    *,
    resamples: int = EFFECT_RESAMPLES,
    seed: int = 0,
) -> Properties:
    """Table 1 as the runs of ``table`` measure it; the same runs and seed give the same table.

    ``varied`` are the arms of the experiment ``data``, by factor.
    """
    families = dict(zip(table.runs["method"], table.runs["family"], strict=True))

    def cell(name: str, family: str) -> Cell:
        own = [method for method in table.methods if families.get(method) == family and method not in _NO_FAMILY]
        return _measured(table, varied, name, own, _Bootstrap(resamples, seed))

    return _table(families.values(), cell)


def reasons(table: Properties) -> list[str]:
    """Why cells were not measured: one sentence per reason and set of families, naming the properties."""
    families: dict[tuple[str, str], list[str]] = {}
    for name, cells in table.rows.items():
        for family, cell in zip(table.families, cells, strict=True):
            if cell.verdict == "not measured":
                families.setdefault((cell.why, name), []).append(family)
    names: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (why, name), theirs in families.items():
        names.setdefault((why, tuple(theirs)), []).append(name)
    return [
        f"Not measured, {'all' if len(its) == len(table.rows) else ', '.join(its)} of {', '.join(theirs)}: {why}."
        for (why, theirs), its in names.items()
    ]


def _table(families: Iterable[str], cell: Callable[[str, str], Cell]) -> Properties:
    """A table whose columns are the poster's families, then any others by name."""
    columns = (*FAMILIES, *sorted(set(families) - {*FAMILIES, ""}))
    return Properties(columns, {name: tuple(cell(name, family) for family in columns) for name in EFFECTS})


# Declared


def _holds(name: str, method: Declaration) -> bool | None:
    """Whether a method has a property by its declaration; None where there is nothing to declare."""
    if name == IMPROVEMENT:
        return method.online
    if name == STABILITY or method.data_access == UNGRANTED:
        return None
    having = {
        REWARD_FREE: ("reward-free", "demonstrations"),
        NON_EXPERT: ("reward-free", "labelled", "labelled-multitask"),
        CROSS_EMBODIMENT: ("reward-free", "labelled-multitask", "demonstrations"),
    }
    return method.data_access in having[name]


def _declared(name: str, methods: Sequence[Declaration]) -> Cell:
    said = {method.name: holds for method in methods if (holds := _holds(name, method)) is not None}
    if not methods:
        return Cell("not applicable", why="no method of it is installed")
    if not said:
        return Cell("not applicable", why="code cannot declare it" if name == STABILITY else "it sees no offline data")
    verdict: Verdict = "yes" if all(said.values()) else "some" if any(said.values()) else "no"
    return Cell(verdict, methods=tuple(method for method, holds in said.items() if holds))


# Measured


class _NotMeasured(Exception):
    """Why an effect has no figure."""


@dataclass(frozen=True)
class _Stratum:
    """One method on one task: a figure of each run, float64 ``(seeds,)``, and which seeds they are."""

    values: NDArray[np.float64]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class _Statistic:
    """Of a stratum: its value, and that of each resample, ``(resamples, seeds)`` to ``(resamples,)``."""

    value: Callable[[NDArray[np.float64]], float]
    draws: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def _spreads(values: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Resampled standard deviations, scaled so that their mean is the sample's own.

    Seeds drawn twice make a resample less spread than its sample, the more so the fewer there are; without the scale a
    family with few seeds would look steadier than one with many.
    """
    draws = drawn.std(axis=1, ddof=1)
    return np.asarray(draws * (values.std(ddof=1) / (draws.mean() or 1.0)))


_MEAN = _Statistic(lambda values: float(values.mean()), lambda values, drawn: np.asarray(drawn.mean(axis=1)))
_SPREAD = _Statistic(lambda values: float(values.std(ddof=1)), _spreads)


@dataclass(frozen=True)
class _Bootstrap:
    """Draws whole seeds; those of equal sets are the same ones, and drawn together, other sets count as independent."""

    resamples: int
    seed: int

    def effect(self, terms: Iterable[tuple[float, Sequence[_Stratum]]], of: _Statistic = _MEAN) -> Estimate:
        """A weighted sum of means over strata. Sets of seeds are independent, each corrected for its own number."""
        value, draws = 0.0, dict[tuple[int, ...], NDArray[np.float64]]()
        for weight, strata in terms:
            for one in strata:
                share = weight / len(strata)
                value += share * of.value(one.values)
                drawn = of.draws(one.values, one.values[self._places(one.seeds)])
                draws[one.seeds] = draws.get(one.seeds, 0.0) + share * drawn
        half_width = float(np.linalg.norm([margin(its, len(seeds)) for seeds, its in draws.items()]))
        return estimate(value, np.sum(list(draws.values()), axis=0), half_width)

    def _places(self, seeds: tuple[int, ...]) -> NDArray[np.int64]:
        """Which seeds every resample holds, with replacement: ``(resamples, seeds)``."""
        rng = np.random.default_rng([self.seed, *seeds])
        return rng.integers(len(seeds), size=(self.resamples, len(seeds)))


def _measured(
    table: RunTable,
    varied: Mapping[str, Sequence[ArmTable]],
    name: str,
    own: Sequence[str],
    bootstrap: _Bootstrap,
) -> Cell:
    """One cell; ``own`` are the methods of the family that have a run in the table."""
    try:
        if not own:
            raise _NotMeasured("no finished run in this table")
        if name in (REWARD_FREE, NON_EXPERT, CROSS_EMBODIMENT) and not _granted(table, own):
            return Cell("not applicable", why="it sees no offline data")
        arms = {factor: [one for one in its if one.arm.method in own] for factor, its in varied.items()}
        if name == NON_EXPERT:
            return _non_expert(table, arms, bootstrap)
        if name == CROSS_EMBODIMENT:
            return _cross_embodiment(arms, bootstrap)
        return _MEASURES[name](table, own, bootstrap)
    except _NotMeasured as error:
        return Cell("not measured", why=str(error))


def _verdict(effect: Estimate) -> Verdict:
    if effect.flat and effect.verdict != "not separated":
        raise _NotMeasured(f"the effect, {three(effect.value, '+')}, is without spread, so that there is no interval")
    return "yes" if effect.excludes_zero and effect.value > 0 else "no"


def _reward_free(table: RunTable, own: Sequence[str], bootstrap: _Bootstrap) -> Cell:
    withheld = [method for method in own if _attribute(table, method, "data_access") in _WITHHELD]
    if not withheld:
        raise _NotMeasured("its methods are granted rewards, and no run withheld them")
    chosen = _complete(table, withheld)
    # Every method has every task, so that of scratch the mean over tasks is that over strata.
    scratch = _strata(table, _complete(table, [SCRATCH]), "score")
    effect = bootstrap.effect([(1.0, _strata(table, chosen, "score")), (-1.0, scratch)])
    return Cell(_verdict(effect), effect, methods=chosen)


def _improvement(table: RunTable, own: Sequence[str], bootstrap: _Bootstrap) -> Cell:
    online = [method for method in own if _attribute(table, method, "online")]
    if not online:
        return Cell("no", methods=tuple(own), why="no environment steps, by construction")
    chosen = _complete(table, online)
    scores, starts = _strata(table, chosen, "score"), _strata(table, chosen, "start")
    if not any((score.values != start.values).any() for score, start in zip(scores, starts, strict=True)):
        raise _NotMeasured("every run ends with the score that it began with")
    effect = bootstrap.effect([(1.0, scores), (-1.0, starts)])
    return Cell(_verdict(effect), effect, methods=chosen)


def _stability(table: RunTable, own: Sequence[str], bootstrap: _Bootstrap) -> Cell:
    chosen = _complete(table, own)
    scores = _strata(table, chosen, "score")
    figures = {"spread": float(np.mean([_SPREAD.value(one.values) for one in scores]))} | _drawdown(table, chosen)
    if SCRATCH in own:
        return Cell("not applicable", None, figures, chosen, f"the others are held against {SCRATCH}")
    try:
        scratch = _strata(table, _complete(table, [SCRATCH]), "score")
    except _NotMeasured as error:
        return Cell("not measured", None, figures, chosen, f"nothing to hold it against: {error}")
    if not any(np.ptp(one.values) for one in scratch):
        why = f"all runs of {SCRATCH} score the same on every task, and nothing can be steadier than that"
        return Cell("not measured", None, figures, chosen, why)
    if min(len(one.seeds) for one in (*scratch, *scores)) < FEWEST:
        return Cell("not measured", None, figures, chosen, f"fewer than {FEWEST} seeds cannot show it")
    effect = bootstrap.effect([(1.0, scratch), (-1.0, scores)], _SPREAD)
    return Cell(_verdict(effect), effect, figures, chosen)


def _non_expert(table: RunTable, arms: Mapping[str, Sequence[ArmTable]], bootstrap: _Bootstrap) -> Cell:
    levels = _by_value(arms.get(NOISE, ()))
    collectors = [one for one in arms.get(COLLECTORS, ()) if one.arm.level == UNLEARNED]
    worst = levels[max(levels)] if levels else collectors
    if not worst:
        raise _NotMeasured("all runs learned from one data set, of one mixture of qualities")
    scores = _arm_strata(worst)
    tasks = worst[0].table.tasks
    if {one.table.budget for one in worst} != {table.budget} or not set(tasks) <= set(table.tasks):
        raise _NotMeasured(f"no run of {SCRATCH} on the same tasks with the same budget")
    scratch = _strata(table, _complete(table, [SCRATCH]), "score", tasks)
    effect = bootstrap.effect([(1.0, scores), (-1.0, scratch)])
    figures = {"slope": _slope(levels, bootstrap)} if len(levels) > 1 else None
    return Cell(_verdict(effect), effect, figures, tuple(one.arm.method for one in worst))


def _slope(levels: Mapping[float, Sequence[ArmTable]], bootstrap: _Bootstrap) -> Estimate:
    """Of a straight line through the mean scores at the levels, by least squares: a weighted sum of those means."""
    places = np.array(sorted(levels))
    weights = (places - places.mean()) / ((places - places.mean()) ** 2).sum()
    return bootstrap.effect((weight, _arm_strata(levels[place])) for weight, place in zip(weights, places, strict=True))


def _cross_embodiment(arms: Mapping[str, Sequence[ArmTable]], bootstrap: _Bootstrap) -> Cell:
    levels = _by_value(arms.get(OTHERS, ()))
    if len(levels) < 2:
        raise _NotMeasured("all runs learned from one data set, with the same bodies")
    everything, own = (_arm_strata(levels[end]) for end in (max(levels), min(levels)))
    effect = bootstrap.effect([(1.0, everything), (-1.0, own)])
    return Cell(_verdict(effect), effect, methods=tuple(one.arm.method for one in levels[max(levels)]))


def _by_value(arms: Iterable[ArmTable]) -> dict[float, list[ArmTable]]:
    levels: dict[float, list[ArmTable]] = {}
    for one in arms:
        if one.arm.value is not None:
            levels.setdefault(one.arm.value, []).append(one)
    return levels


def _arm_strata(arms: Sequence[ArmTable]) -> list[_Stratum]:
    """One for every method and task of the arms of a level."""
    matrices = [(matrix, tuple(one.seeds)) for one in arms if (matrix := one.matrix()) is not None]
    if len(matrices) < len(arms):
        raise _NotMeasured(f"runs of the experiment data are missing, of {arms[0].arm.factor} {arms[0].arm.level}")
    if any(len(seeds) < 2 for _, seeds in matrices):
        raise _NotMeasured(ONE_SEED)
    return [_Stratum(column, seeds) for matrix, seeds in matrices for column in matrix.T]


_Measure = Callable[[RunTable, Sequence[str], _Bootstrap], Cell]
_WITHHELD = ("reward-free", "demonstrations")
_NO_FAMILY = {*ARMS, RANDOM_REPLAY} - {"wpt", SCRATCH}
_MEASURES: dict[str, _Measure] = {
    REWARD_FREE: _reward_free,
    IMPROVEMENT: _improvement,
    STABILITY: _stability,
}


def _attribute(table: RunTable, method: str, column: str) -> object:
    """What the records of a method say in ``column``, the same in all of them."""
    return table.runs[table.runs["method"] == method].iloc[0][column]


def _granted(table: RunTable, methods: Sequence[str]) -> bool:
    return any(_attribute(table, method, "data_access") != UNGRANTED for method in methods)


def _complete(table: RunTable, methods: Sequence[str]) -> tuple[str, ...]:
    """Those of ``methods`` with every expected run and more than one seed."""
    done = Counter(table.runs["method"])
    whole = [method for method in methods if done[method] == len(table.seeds(method)) * len(table.tasks) > 0]
    if not whole:
        raise _NotMeasured(f"runs of {', '.join(methods)} are missing")
    several = tuple(method for method in whole if len(table.seeds(method)) > 1)
    if not several:
        raise _NotMeasured(ONE_SEED)
    return several


def _strata(table: RunTable, methods: Sequence[str], column: str, tasks: Sequence[str] | None = None) -> list[_Stratum]:
    """One for every method and task (all of the table's without), in a fixed order."""
    return [
        _Stratum(its, tuple(table.seeds(method)))
        for method in methods
        for its in score_matrix(table, method, column, tasks).T
    ]


def _drawdown(table: RunTable, methods: Sequence[str]) -> dict[str, float]:
    """Mean over runs with a curve of the largest fall from the running maximum; nothing without such runs."""
    with_curve = table.runs[table.runs["method"].isin(list(methods)) & table.runs["online"].astype(bool)]["id"]
    curves: pd.DataFrame = table.curves[table.curves["id"].isin(with_curve)].sort_values(["id", "env_step"])
    if curves.empty:
        return {}
    falls = curves.groupby("id")["score"].cummax() - curves["score"]
    return {"drawdown": float(falls.groupby(curves["id"]).max().mean())}
