"""From two folders of runs to the gate's verdict: what is compared, what differs, and how often the gate errs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wpt_bench import records
from wpt_bench.analysis import archive
from wpt_bench.analysis.gate import ALPHA, FIGURES, MARGIN, Answer, Side, Verdict, judge
from wpt_bench.analysis.scores import Reading, RunTable, expected_runs, load_runs, score_matrix
from wpt_bench.protocol import UserError
from wpt_bench.records import Identity

TRIALS = 1000
LOSSES = (0.1, 0.25, 0.5)
"""Shares of every score that candidates are made to lose, to see which losses are noticed."""


@dataclass(frozen=True)
class Regression:
    """A candidate held against a baseline.

    Attributes:
        suite, profile, observation, budget: of all runs; the budget in environment steps.
        baseline, candidate: folders as they were given.
        verdict: of the gate.
        notes: a sentence for whatever else differs or was left out.
    """

    suite: str
    profile: str
    observation: str
    budget: int
    baseline: str
    candidate: str
    verdict: Verdict
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ErrorRate:
    """How often the gate gives each answer about one kind of candidate.

    Attributes:
        arm: ``unchanged``; a loss, every score of unchanged runs lowered by a share of itself; or factor and level of
            the experiment whose runs stand for the candidate.
        seeds: of the candidate. baseline: of the baseline.
        runs: independent runs of the arm, per task, that candidates are drawn from.
        effect: mean of the arm's area minus that of the unchanged runs, over tasks and all runs.
        passed, regressed, inconclusive: shares of the trials. trials: how many.
    """

    arm: str
    seeds: int
    baseline: int
    runs: int
    effect: float
    passed: float
    regressed: float
    inconclusive: float
    trials: int


def compare_folders(
    baseline: Path,
    candidate: Path,
    *,
    suite: str = "",
    profile: str = "",
    methods: Sequence[str] = (),
    tasks: Sequence[str] = (),
    alpha: float = ALPHA,
    margin: float = MARGIN,
) -> Regression:
    """The gate's verdict on the runs of a candidate.

    Args:
        baseline, candidate: published folders, folders of run folders, or what ``--out`` named.
        suite, profile: may be left out where the baseline has one of each.
        methods, tasks: the baseline's without. The candidate must have finished runs of all of them.
        alpha, margin: see ``gate.judge``.

    Raises:
        UserError: there is nothing to compare, or what there is cannot be compared.
    """
    readings = Reading(_runs_in(baseline)), Reading(_runs_in(candidate))
    suite, profile = _pair(readings[0], baseline, suite, profile)
    before = _table(readings[0], suite, profile)
    after = _table(readings[1], suite, profile, before.observation)
    methods = _known(methods, before.methods, "method", baseline)
    tasks = _known(tasks, before.tasks, "task", baseline)
    for what, wanted, there in (("method", methods, after.methods), ("task", tasks, after.tasks)):
        if lacking := [name for name in wanted if name not in there]:
            raise UserError(
                f"{candidate} has no runs of the baseline's {what} {', '.join(lacking)}: make them with the same "
                f"profile (wpt-bench run {suite} --profile {profile}), or name what to compare with --{what}s."
            )
    _same_protocol(before, after, methods, tasks)
    sides = [{method: _side(table, method, tasks) for method in methods} for table in (before, after)]
    if lonely := [method for method in methods if sides[0][method].seeds + sides[1][method].seeds < 3]:
        raise UserError(f"One seed of {lonely[0]} on either side decides nothing; make more: --seeds 0,1,2,3.")
    return Regression(
        suite=suite,
        profile=profile,
        observation=before.observation,
        budget=before.budget,
        baseline=str(baseline),
        candidate=str(candidate),
        verdict=judge(*sides, alpha=alpha, margin=margin),
        notes=tuple(_notes(before, after, methods, tasks)),
    )


def error_rates(
    folder: Path,
    *,
    method: str = "wpt",
    seeds: Sequence[int],
    losses: Sequence[float] = LOSSES,
    trials: int = TRIALS,
    alpha: float = ALPHA,
    margin: float = MARGIN,
    seed: int = 0,
) -> list[ErrorRate]:
    """How often the gate errs, from draws out of independent runs; the same runs and arguments give the same rates.

    A candidate of ``n`` seeds is drawn without replacement, task by task: unchanged ones from the baseline's own runs,
    of which those that are left are the baseline then; the same with their scores lowered; broken ones from an
    experiment's arm, against as large a draw of the baseline. Runs of one trial are thus disjoint; trials share runs,
    so that a rate is that of these runs, and cannot be known better than so many runs allow.

    Args:
        folder: published, with runs of the method and an experiment that breaks it.
        method: whose.
        seeds: sizes of candidates.
        losses: shares of every score that are lost.
        trials: draws for each rate.
        alpha, margin: of the gate.
        seed: of the draws.

    Raises:
        UserError: a size leaves fewer than two runs for the baseline, or there is nothing to draw from.
    """
    reading = Reading(_runs_in(folder))
    suite, profile = _pair(reading, folder, "", "")
    table = _table(reading, suite, profile)
    _known((method,), table.methods, "method", folder)
    whole = _side(table, method, table.tasks)
    arms = {"unchanged": whole} | {f"{loss:.0%} of every score lost": _lowered(whole, loss) for loss in losses}
    own = set(arms)
    for plan in archive.read_experiments(reading.root).plans:
        for its in plan.arms:
            if its.method == method and not its.reference:
                arms[f"{its.factor}: {its.level}"] = _side_of(reading, its.runs, table.tasks)
    found = []
    for size in seeds:
        if not 1 <= size <= whole.seeds - 2:
            raise UserError(f"A candidate of {size} seeds leaves too few of the baseline's {whole.seeds}.")
        for name, arm in arms.items():
            if size > arm.seeds:
                continue
            rng = np.random.default_rng([seed, size])
            answers: Counter[Answer] = Counter()
            for _ in range(trials):
                order = _order(whole, rng)
                before, _ = _split(whole, size, order)
                _, after = _split(arm, size, order if name in own else _order(arm, rng))
                answers[judge({method: before}, {method: after}, alpha=alpha, margin=margin).answer] += 1
            found.append(
                ErrorRate(
                    arm=name,
                    seeds=size,
                    baseline=whole.seeds - size,
                    runs=arm.seeds,
                    effect=float(arm.figures["auc"].mean() - whole.figures["auc"].mean()),
                    passed=answers["pass"] / trials,
                    regressed=answers["regressed"] / trials,
                    inconclusive=answers["inconclusive"] / trials,
                    trials=trials,
                )
            )
    return found


def _runs_in(folder: Path) -> Path:
    """Where the runs are: the folder itself, or ``runs`` in what ``--out`` named."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give a published folder, a folder of runs, or what --out named.")
    return folder if archive.is_published(folder) or not (folder / "runs").is_dir() else folder / "runs"


def _apart(root: Path) -> set[str]:
    """Runs that experiments alone count, less those of levels that others are held against: a level that changes
    nothing is the baseline itself, and one that changes something is left out for what differs (``load_runs``)."""
    if not archive.is_published(root):
        return set()
    known = archive.read_experiments(root)
    held = {records.digest(run) for plan in known.plans for arm in plan.arms if arm.reference for run in arm.runs}
    return set(known.apart) - held


def _table(reading: Reading, suite: str, profile: str, observation: str | None = None) -> RunTable:
    return load_runs(reading, suite=suite, profile=profile, observation=observation, apart=_apart(reading.root))


def _pair(reading: Reading, folder: Path, suite: str, profile: str) -> tuple[str, str]:
    """Suite and profile, of those that the baseline has."""
    its = {(one.run.identity.suite, one.run.identity.profile) for one in reading.found}
    its = {(one, other) for one, other in its if suite in ("", one) and profile in ("", other)}
    if len(its) == 1:
        return its.pop()
    if not its:
        named = "".join(f" {what} {name}" for what, name in (("suite", suite), ("profile", profile)) if name)
        first = f"; the first problem: {reading.problems[0]}" if reading.problems else ""
        raise UserError(f"{folder} has no readable runs{' of' if named else ''}{named}{first}.")
    listed = ", ".join(f"{one} {other}" for one, other in sorted(its))
    raise UserError(f"{folder} has runs of {listed}; say which is meant with --suite and --profile.")


def _known(wanted: Sequence[str], there: Sequence[str], what: str, folder: Path) -> list[str]:
    """What was asked for, or all there is; UserError for what the baseline does not have."""
    if unknown := [name for name in wanted if name not in there]:
        raise UserError(f"{folder} has no runs of the {what} {unknown[0]!r}; it has {', '.join(there)}.")
    return [name for name in there if not wanted or name in wanted]


def _side(table: RunTable, method: str, tasks: Sequence[str]) -> Side:
    matrices = {figure: score_matrix(table, method, figure, tasks) for figure in _figures(table, method)}
    return Side(matrices, tuple(tasks))


def _figures(table: RunTable, method: str) -> list[str]:
    """Methods without online steps have no area."""
    online = bool(table.runs[table.runs["method"] == method]["online"].any())
    return [figure for figure in FIGURES if online or figure != "auc"]


def _side_of(reading: Reading, runs: Sequence[Identity], tasks: Sequence[str]) -> Side:
    table = expected_runs(reading, runs)
    return _side(table, table.methods[0], tasks)


def _lowered(side: Side, loss: float) -> Side:
    return Side({figure: scores * (1 - loss) for figure, scores in side.figures.items()}, side.tasks)


def _order(side: Side, rng: np.random.Generator) -> NDArray[np.intp]:
    """Of its seeds, shuffled task by task: ``(seeds, tasks)``."""
    return rng.random((side.seeds, len(side.tasks))).argsort(axis=0)


def _split(side: Side, size: int, order: NDArray[np.intp]) -> tuple[Side, Side]:
    """Two disjoint sets of runs: all but the first ``size`` of an order, and those."""
    shuffled = {figure: np.take_along_axis(scores, order, axis=0) for figure, scores in side.figures.items()}
    rest, first = ({name: its[part] for name, its in shuffled.items()} for part in (slice(size, None), slice(size)))
    return Side(rest, side.tasks), Side(first, side.tasks)


def _same_protocol(before: RunTable, after: RunTable, methods: Sequence[str], tasks: Sequence[str]) -> None:
    """Raises UserError unless runs of the two were made and are scored alike."""
    if before.budget != after.budget:
        raise UserError(
            f"The baseline has a budget of {before.budget:,} environment steps, the candidate of {after.budget:,}: "
            "sample efficiency is compared at equal budgets."
        )
    for task in tasks:
        its = [_first(table, methods, task).protocol for table in (before, after)]
        if its[0] != its[1]:
            names = sorted(name for name in its[0] | its[1] if its[0].get(name) != its[1].get(name))
            raise UserError(f"Baseline and candidate differ in the protocol of {task} ({', '.join(names)}).")


def _first(table: RunTable, methods: Sequence[str], task: str) -> Identity:
    return next(
        run.identity for run in table.records.values() if run.identity.task == task and run.identity.method in methods
    )


def _notes(before: RunTable, after: RunTable, methods: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """What a reader of the verdict should know besides."""
    notes = []
    for method in methods:
        old, new = (
            [run.identity for run in table.records.values() if run.identity.method == method]
            for table in (before, after)
        )
        for what, its in (("version", "method_version"), ("offline data", "data"), ("pre-training", "stage")):
            if (one := {getattr(i, its) for i in old}) != (other := {getattr(i, its) for i in new}):
                notes.append(f"{method}: another {what} ({_listed(one)} before, {_listed(other)} now).")
        if old[0].settings != new[0].settings:
            names = sorted(
                name
                for name in old[0].settings | new[0].settings
                if old[0].settings.get(name) != new[0].settings.get(name)
            )
            notes.append(f"{method}: other settings ({', '.join(names)}).")
    same = {records.digest(run.identity) for run in before.records.values()} & set(after.records)
    if same:
        notes.append(
            f"{len(same)} of the candidate's runs have the identity of one of the baseline's: where nothing changed "
            "they repeat it, and the test is on the safe side."
        )
    for what, table in (("baseline", before), ("candidate", after)):
        notes += [f"The {what}: {problem}" for problem in table.problems]
        if unused := [absent for absent in table.stale if absent.method in methods and absent.task in tasks]:
            notes.append(f"{len(unused)} runs of the {what} are left out ({unused[0].why}, for instance).")
    return notes


def _listed(values: set[object]) -> str:
    return ", ".join(sorted(map(str, values)))
