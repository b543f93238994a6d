"""From run folders to tidy scores: what counts, what is missing, and what must not be mixed in.

``load_runs`` reads every record of one suite and profile and keeps one comparable group: a run counts when it is
``done``, its evaluations are whole and finite, and it shares protocol, observation kind, budget, method version and
data with the rest. Everything else is listed with its reason and never averaged over.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wpt_bench import records
from wpt_bench.analysis import archive, diagnostics
from wpt_bench.analysis.evaluations import Evaluation, area_under_curve, earlier_scores, evaluations, guided_shares
from wpt_bench.protocol import UserError
from wpt_bench.records import Identity, Recorded, Run

Cell = tuple[str, str, int]
"""Method, task and seed: one run of a grid."""

UNGRANTED = "none"
"""The data access of methods that learn from scratch; their evaluation at step 0 is a task's untrained level."""

SCRATCH = "dreamer"
"""The method that every other is held against: learning from scratch with the same code."""


class IncompleteError(UserError):
    """An aggregate was asked for over cells of which some have no finished run."""


@dataclass(frozen=True)
class Absent:
    """A run that does not count: which one, and why."""

    id: str
    method: str
    task: str
    seed: int
    status: str
    why: str


@dataclass(frozen=True)
class UnderWay:
    """A task that no figure counts yet: how many of its runs are done, of how many that its methods need."""

    task: str
    done: int
    expected: int


@dataclass(frozen=True)
class RunTable:
    """Runs of one suite, profile and observation kind that may stand in one table.

    Attributes:
        suite, profile, observation: what they have in common.
        budget: environment steps of every run.
        cells: every expected run, in a fixed order, whether it is finished or not.
        runs: one row per run that counts: ``id method method_version task seed embodiment family data_access tuning
            tuning_evaluations online score start auc wall_clock updates env_steps peak_memory stage
            retrieval_precision evaluations episodes``. ``score`` is the mean of the last evaluation, ``start`` of the
            one at step 0, ``auc`` the area under the curve divided by the budget (NaN for methods without online
            steps).
        curves: one row per run and evaluation: ``id method task seed env_step score updates wall_clock``, the last two
            spent until then.
        guided: one row per training episode of runs in which a cloned prior acted: ``id method task seed env_step
            guided``, the last the share of agent steps it chose.
        diagnostics: what agents told of themselves at their evaluations: ``id method task seed env_step name value``,
            see ``diagnostics.of_run``.
        earlier: one row per run of a sequence and earlier task that it was evaluated on at its end: ``id method task
            seed earlier score``.
        records: the record behind each row of ``runs``, by run id.
        missing: expected runs that are pending, running, failed, or without a usable record.
        stale: runs of the suite and profile that are not comparable with, or not part of, this table, nor of an
            experiment; and those of tasks that are under way.
        problems: records that could not be used; one sentence each, naming the file or run.
        under_way: tasks that no figure counts yet, see ``without_tasks_under_way``.
    """

    suite: str
    profile: str
    observation: str
    budget: int
    cells: tuple[Cell, ...]
    runs: pd.DataFrame
    curves: pd.DataFrame
    guided: pd.DataFrame
    diagnostics: pd.DataFrame
    earlier: pd.DataFrame
    records: dict[str, Run] = field(repr=False)
    missing: tuple[Absent, ...]
    stale: tuple[Absent, ...]
    problems: tuple[str, ...]
    under_way: tuple[UnderWay, ...] = ()

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order of the cells."""
        return list(dict.fromkeys(method for method, _, _ in self.cells))

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, sorted."""
        return sorted({task for _, task, _ in self.cells})

    @property
    def embodiments(self) -> dict[str, list[str]]:
        """Tasks by embodiment, as the finished runs record it; both sorted."""
        pairs = sorted(set(zip(self.runs["embodiment"], self.runs["task"], strict=True)))
        return {name: [task for its, task in pairs if its == name] for name in dict.fromkeys(name for name, _ in pairs)}

    def seeds(self, method: str) -> list[int]:
        """Seeds that ``method`` is expected to have, sorted."""
        return sorted({seed for name, _, seed in self.cells if name == method})


class Reading:
    """Every readable record below a folder, and what is tabulated of each: read once, however many tables it goes into.

    Attributes:
        root: folder of run folders, or a published folder (see ``archive``).
        found: the records.
        problems: a sentence for every one that cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found, self.problems = read_all(root)
        self._by_id = {one.run.id: one for one in self.found}
        self._rows: dict[str, _Rows] = {}

    def of(self, identities: Iterable[Identity]) -> list[Recorded]:
        """The records of these runs, as far as they are there."""
        return [one for identity in identities if (one := self._by_id.get(records.digest(identity)))]

    def rows(self, one: Recorded) -> _Rows:
        """What the tables hold of a finished run; raises RecordError or OSError if its episodes cannot be used."""
        if one.run.id not in self._rows:
            self._rows[one.run.id] = _rows(one)
        return self._rows[one.run.id]


def read(root: Path | Reading) -> Reading:
    """All records below a folder, unless they were read already."""
    return root if isinstance(root, Reading) else Reading(root)


def load_runs(
    root: Path | Reading,
    *,
    suite: str,
    profile: str,
    observation: str | None = None,
    expected: Iterable[Identity] | None = None,
    apart: Collection[str] = (),
) -> RunTable:
    """Reads the runs below ``root`` into one table of comparable runs.

    Args:
        root: folder of run folders, a published folder (see ``archive``), or what was read of one.
        suite: name of the suite, ``dmc`` or ``metaworld``.
        profile: name of the profile.
        observation: ``state`` or ``pixels``; may be left out where only one of them is found.
        expected: identities of the runs that belong to the table (a grid). Without them the newest versions count, and
            among runs that differ otherwise (budget, data, protocol, settings) the group with most finished runs; the
            others are listed as stale.
        apart: ids of runs that experiments count; unless they are expected they are no part of the table and not stale.

    Raises:
        UserError: no run is found, or ``expected`` itself mixes what may not share a table.
    """
    reading = read(root)
    found = [one for one in reading.found if (one.run.identity.suite, one.run.identity.profile) == (suite, profile)]
    grid = None if expected is None else {records.digest(identity): identity for identity in expected}
    kinds = {one.run.identity.observation for one in found} if grid is None else {i.observation for i in grid.values()}
    if observation is not None:
        kinds &= {observation}
    if len(kinds) > 1:
        raise UserError("State and pixel runs never share a table; say which observation kind is meant.")
    if not kinds or not found:
        problems = reading.problems
        notes = f" ({len(problems)} records could not be read; the first: {problems[0]})" if problems else ""
        raise UserError(
            f"{reading.root} holds no runs of suite {suite} with profile {profile}{notes}; "
            f"run the benchmark first, for instance: wpt-bench run {suite} --profile {profile}."
        )
    kind = kinds.pop()
    found = [one for one in found if one.run.identity.observation == kind]
    if grid is None:
        kept, stale = _settle([one for one in found if one.run.id not in apart] or found)
        identities = [one.run.identity for one in kept]
    else:
        identities = [identity for identity in grid.values() if identity.observation == kind]
        _refuse_mixture(identities)
        kept = [one for one in found if one.run.id in grid]
        others = [one.run for one in found if one.run.id not in grid and one.run.id not in apart]
        stale = [_absent(run, _difference(run.identity, identities)) for run in others]
    return _tabulate(reading, suite, profile, kind, identities, kept, stale)


def expected_runs(root: Path | Reading, expected: Sequence[Identity]) -> RunTable:
    """A table of exactly these runs, one or more, of which none need be there yet.

    Raises:
        UserError: they mix what may not share a table.
    """
    reading, identities = read(root), list({records.digest(identity): identity for identity in expected}.values())
    _refuse_mixture(identities)
    its = identities[0]
    return _tabulate(reading, its.suite, its.profile, its.observation, identities, reading.of(identities), ())


def load_tables(
    root: Path | Reading,
    *,
    suite: str,
    profile: str,
    expected: Iterable[Identity] | None = None,
    apart: Collection[str] = (),
) -> list[RunTable]:
    """One table per observation kind found (or expected): state and pixels never share one.

    Raises:
        UserError: as ``load_runs``.
    """
    reading = read(root)
    identities = None if expected is None else list(expected)
    known = [one.run.identity for one in reading.found] if identities is None else identities
    kinds: set[str] = {i.observation for i in known if (i.suite, i.profile) == (suite, profile)}
    return [
        load_runs(reading, suite=suite, profile=profile, observation=kind, expected=identities, apart=apart)
        for kind in (*sorted(kinds, reverse=True),) or (None,)
    ]


def without_tasks_under_way(table: RunTable) -> RunTable:
    """The table without those tasks on which no method has all seeds yet, and no run failed; their runs are left out.

    All seeds: as many as any method of the table has. So a grid that is made task by task has figures of the tasks that
    are whole. A task on which one method is whole stays, as does one with a failed run, and methods that lack runs on
    them are incomplete: what is left out does not depend on how it came out. Where no task is whole, or a method would
    have none left, all stay.
    """
    seeds = {method: len(table.seeds(method)) for method in table.methods}
    done = Counter(zip(table.runs["task"], table.runs["method"], strict=True))
    whole = {task for (task, _), count in done.items() if count == max(seeds.values())}
    failed = {gap.task for gap in table.missing if gap.status not in ("pending", "running")}
    aside = [task for task in table.tasks if task not in whole | failed]
    cells = tuple(cell for cell in table.cells if cell[1] not in aside)
    if not whole or not aside or {method for method, _, _ in cells} != set(seeds):
        return table

    def kept(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[~frame["task"].isin(aside)].reset_index(drop=True)

    why = "its task is under way: no method has all seeds on it yet"
    runs = kept(table.runs)
    left_out = [
        *(_absent(run, why) for run_id, run in table.records.items() if run_id not in set(runs["id"])),
        *(replace(gap, why=why) for gap in table.missing if gap.task in aside),
    ]
    return replace(
        table,
        cells=cells,
        runs=runs,
        curves=kept(table.curves),
        guided=kept(table.guided),
        diagnostics=kept(table.diagnostics),
        earlier=kept(table.earlier),
        records={run_id: table.records[run_id] for run_id in runs["id"]},
        missing=tuple(gap for gap in table.missing if gap.task not in aside),
        stale=_in_order([*table.stale, *left_out]),
        under_way=tuple(UnderWay(task, int((table.runs["task"] == task).sum()), sum(seeds.values())) for task in aside),
    )


def score_matrix(
    table: RunTable, method: str, column: str = "score", tasks: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """Scores of one method, float64 ``(seeds, tasks)``; rows are the method's seeds, columns the tasks.

    Args:
        table: the runs.
        method: whose.
        column: of ``table.runs``.
        tasks: some of ``table.tasks``; all without.

    Raises:
        IncompleteError: a cell has no finished run. Nothing is averaged over the gap.
    """
    rows = table.runs[table.runs["method"] == method]
    matrix = rows.pivot(index="seed", columns="task", values=column)
    matrix = matrix.reindex(index=table.seeds(method), columns=list(table.tasks if tasks is None else tasks))
    _refuse_gaps(table, method, matrix)
    return matrix.to_numpy(dtype=np.float64)


def curve_array(
    table: RunTable, method: str, column: str = "score", tasks: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Curves of one method: environment steps ``(points,)`` and scores float64 ``(seeds, tasks, points)``.

    The points are all environment steps at which any run of the method was evaluated; a run that was evaluated at
    other steps is interpolated linearly between its own.

    Args:
        table: the runs.
        method: whose.
        column: of ``table.curves``: ``score``, ``updates`` or ``wall_clock``.
        tasks: some of ``table.tasks``; all without.

    Raises:
        IncompleteError: a cell has no finished run.
    """
    tasks = table.tasks if tasks is None else tasks
    score_matrix(table, method, tasks=tasks)
    rows = table.curves[(table.curves["method"] == method) & table.curves["task"].isin(tasks)]
    steps = np.unique(rows["env_step"].to_numpy(dtype=np.int64))
    curves = dict(iter(rows.groupby(["seed", "task"])))
    values = [
        [np.interp(steps, curves[seed, task]["env_step"], curves[seed, task][column]) for task in tasks]
        for seed in table.seeds(method)
    ]
    return steps, np.asarray(values, dtype=np.float64)


def untrained(table: RunTable) -> dict[str, float]:
    """Per task, the mean score at step 0 of the methods that were granted no data: the level of an untrained agent."""
    rows = table.runs[(table.runs["data_access"] == UNGRANTED) & table.runs["start"].notna()]
    return {str(task): float(group.mean()) for task, group in rows.groupby("task")["start"]}


Found = list[Recorded]


def read_all(root: Path) -> tuple[Found, list[str]]:
    """Every readable record below ``root``, and a sentence for every one that is not."""
    if archive.is_published(root):
        return archive.read(root)
    found: Found = []
    problems: list[str] = []
    seen: dict[str, Path] = {}
    for folder in records.find_runs(root):
        try:
            run = records.read_run(folder)
        except (records.RecordError, OSError, UnicodeDecodeError) as error:
            problems.append(_naming(folder / "run.json", error))
            continue
        if run.id in seen:
            problems.append(f"{folder} holds the same run as {seen[run.id]} and is left out.")
            continue
        seen[run.id] = folder
        read = functools.partial(records.read_episodes, folder, run.files.get(records.ROWS))
        found.append(Recorded(run, folder / records.ROWS, read))
    if root.is_dir():
        problems += [
            f"{path.parent} has episodes but no run.json, so nobody can say what they belong to."
            for path in sorted(root.glob("*/episodes.jsonl"))
            if not (path.parent / "run.json").exists()
        ]
    return found, problems


def _naming(path: Path, error: Exception) -> str:
    """The error as one sentence that names the file."""
    text = " ".join(str(error).split())
    return text if str(path) in text else f"{path} cannot be read: {text}."


def _absent(run: Run, why: str) -> Absent:
    identity = run.identity
    return Absent(run.id, identity.method, identity.task, identity.seed, run.status, why)


def _in_order(absent: Iterable[Absent]) -> tuple[Absent, ...]:
    return tuple(sorted(absent, key=lambda one: (one.method, one.task, one.seed, one.id)))


def _settle(found: Found) -> tuple[Found, list[Absent]]:
    """One comparable group out of runs that may differ, and the others with the reason why they are left out.

    Versions: the highest counts. Budget, data, protocol and settings have no order: the group with most finished runs
    counts (then with most runs).
    """
    kept, stale = found, []

    def narrow(
        what: str,
        value: Callable[[Identity], Hashable],
        within: Callable[[Identity], Hashable] = lambda identity: None,
        newest: bool = False,
    ) -> None:
        nonlocal kept
        votes: dict[Hashable, Counter[Hashable]] = {}
        for run in (one.run for one in kept):
            if (choice := value(run.identity)) is not None:
                weight = 1 + len(found) * (run.status == "done")
                votes.setdefault(within(run.identity), Counter())[choice] += weight
        chosen = {
            group: max(counts, key=lambda choice: (choice if newest else counts[choice], repr(choice)))
            for group, counts in votes.items()
        }
        remaining = []
        for one in kept:
            choice = value(one.run.identity)
            if choice is None or choice == chosen[within(one.run.identity)]:
                remaining.append(one)
            else:
                stale.append(_absent(one.run, _other(what, choice, chosen[within(one.run.identity)])))
        kept = remaining

    if any(_is_plain(one.run.identity) for one in kept):  # those of a level alone are none of a grid
        stale += [
            _absent(one.run, "of an experiment, on part of the data or in a sequence of tasks")
            for one in kept
            if not _is_plain(one.run.identity)
        ]
        kept = [one for one in kept if _is_plain(one.run.identity)]
    narrow("version of the suite", lambda i: i.suite_version, newest=True)
    narrow("version of the method", lambda i: i.method_version, lambda i: i.method, newest=True)
    narrow("budget", lambda i: i.budget)
    narrow("data set", lambda i: i.data)
    narrow("protocol", lambda i: records.digest(i.protocol), lambda i: i.task)
    narrow("settings", lambda i: records.digest(i.settings), lambda i: i.method)
    # Several pre-training seeds may stand behind a table, but only one of them behind each cell.
    stages = Counter(one.run.identity.stage for one in kept if one.run.identity.stage is not None)
    narrow(
        "pre-training",
        lambda i: None if i.stage is None else (stages[i.stage], i.stage),
        lambda i: (i.method, i.task, i.seed),
        newest=True,
    )
    cells: dict[Cell, Recorded] = {}
    for one in kept:
        cell = (one.run.identity.method, one.run.identity.task, one.run.identity.seed)
        if cell in cells:
            stale.append(_absent(one.run, f"another run of the cell of run {cells[cell].run.id}"))
        else:
            cells[cell] = one
    return list(cells.values()), stale


def _is_plain(identity: Identity) -> bool:
    """Whether a run has all of the data, and a task of its own."""
    return not identity.subset and identity.earlier is None


def _other(what: str, its: Hashable, tables: Hashable) -> str:
    if isinstance(its, tuple):
        its, tables = its[-1], tables[-1] if isinstance(tables, tuple) else tables
    return f"another {what}: {its}, the table has {tables}"


def _difference(identity: Identity, grid: Sequence[Identity]) -> str:
    """Why a run is not part of an expected grid: what differs from the expected run of its cell."""
    cell = (identity.method, identity.task, identity.seed)
    for other in grid:
        if (other.method, other.task, other.seed) == cell:
            names = {
                "method_version": "version of the method",
                "suite_version": "version of the suite",
                "data": "data set",
                "stage": "pre-training",
            }
            differing = [
                names.get(name, name)
                for name in Identity.__struct_fields__
                if getattr(identity, name) != getattr(other, name)
            ]
            return "another " + ", ".join(differing)
    return "not one of the runs asked for"


def _refuse_mixture(identities: Sequence[Identity]) -> None:
    """Raises UserError if the expected runs differ in what must be equal for scores to share a table."""

    def only_one(what: str, value: Callable[[Identity], Hashable], within: Callable[[Identity], Hashable]) -> None:
        seen: dict[Hashable, Hashable] = {}
        for identity in identities:
            if (its := value(identity)) is not None and seen.setdefault(within(identity), its) != its:
                raise UserError(
                    f"The runs asked for differ in {what} ({seen[within(identity)]} and {its}) and cannot share a "
                    "table; ask for one of them."
                )

    only_one("suite version", lambda i: i.suite_version, lambda i: None)
    only_one("budget", lambda i: i.budget, lambda i: None)
    only_one("data set", lambda i: i.data, lambda i: None)
    only_one("version", lambda i: i.method_version, lambda i: i.method)
    only_one("protocol", lambda i: records.digest(i.protocol), lambda i: i.task)
    only_one("run id", records.digest, lambda i: (i.method, i.task, i.seed))


def _tabulate(
    reading: Reading,
    suite: str,
    profile: str,
    observation: str,
    identities: Sequence[Identity],
    kept: Sequence[Recorded],
    stale: Sequence[Absent],
) -> RunTable:
    missing: list[Absent] = []
    faults = list(reading.problems)
    usable: dict[str, tuple[Run, _Rows]] = {}
    recorded = {one.run.id for one in kept}
    for identity in identities:
        if (run_id := records.digest(identity)) not in recorded:
            missing.append(
                Absent(run_id, identity.method, identity.task, identity.seed, "pending", "no usable record of it")
            )
    for one in kept:
        run = one.run
        if run.status != "done":
            missing.append(_absent(run, run.error or "not finished"))
            continue
        try:
            usable[run.id] = run, reading.rows(one)
        except (records.RecordError, OSError, UnicodeDecodeError) as error:
            faults.append(_naming(one.file, error))
            missing.append(_absent(run, "its episodes cannot be used; see the problems"))
    made = [rows for _, rows in usable.values()]
    cells = tuple(sorted((i.method, i.task, i.seed) for i in identities))
    order = ["method", "task", "seed"]
    runs = pd.DataFrame([its.run for its in made], columns=_COLUMNS).sort_values(order, ignore_index=True)
    points = [point for its in made for point in its.curve]
    curves = pd.DataFrame(points, columns=["id", *order, "env_step", "score", "updates", "wall_clock"])
    guided = [episode for its in made for episode in its.guided]
    told = [number for its in made for number in its.told]
    earlier = [score for its in made for score in its.earlier]
    return RunTable(
        suite=suite,
        profile=profile,
        observation=observation,
        budget=max(identity.budget for identity in identities),
        cells=cells,
        runs=runs,
        curves=curves.sort_values([*order, "env_step"], ignore_index=True),
        guided=pd.DataFrame(guided, columns=["id", *order, "env_step", "guided"]),
        diagnostics=pd.DataFrame(told, columns=["id", *order, "env_step", "name", "value"]),
        earlier=pd.DataFrame(earlier, columns=["id", *order, "earlier", "score"]),
        records={run_id: run for run_id, (run, _) in usable.items()},
        missing=tuple(sorted(missing, key=lambda absent: (absent.method, absent.task, absent.seed))),
        stale=_in_order(stale),
        problems=tuple(dict.fromkeys(faults)),  # one file may be behind many runs
    )


_COLUMNS = [
    *("id", "method", "method_version", "task", "seed", "embodiment", "family", "data_access"),
    *("tuning", "tuning_evaluations", "online"),
    *("score", "start", "auc", "wall_clock", "updates", "env_steps", "peak_memory", "stage"),
    *("retrieval_precision", "evaluations", "episodes"),
]


@dataclass(frozen=True)
class _Rows:
    """What one run brings to the tables: its row of ``runs``, and those of the others."""

    run: dict[str, object]
    curve: list[dict[str, object]]
    guided: list[dict[str, object]]
    told: list[dict[str, object]]
    earlier: list[dict[str, object]]


def _rows(one: Recorded) -> _Rows:
    run, episodes = one.run, one.episodes()
    curve = evaluations(run, one.file, episodes)
    key = {"id": run.id, "method": run.identity.method, "task": run.identity.task, "seed": run.identity.seed}
    return _Rows(
        _row(run, curve),
        [
            {**key, "env_step": at.env_step, "score": at.score, "updates": at.updates, "wall_clock": at.wall_clock}
            for at in curve
        ],
        [{**key, **row} for row in guided_shares(run, episodes)],
        [{**key, **row} for row in diagnostics.of_run(run, episodes)],
        [{**key, "earlier": task, "score": score} for task, score in earlier_scores(run, episodes).items()],
    )


def _row(run: Run, curve: Sequence[Evaluation]) -> dict[str, object]:
    identity, first, last = run.identity, curve[0], curve[-1]
    area = area_under_curve([at.env_step for at in curve], [at.score for at in curve], identity.budget)
    return {
        "id": run.id,
        "method": identity.method,
        "method_version": identity.method_version,
        "task": identity.task,
        "seed": identity.seed,
        "embodiment": run.embodiment,
        "family": run.family,
        "data_access": run.data_access,
        "tuning": run.tuning,
        "tuning_evaluations": run.tuning_evaluations,
        "online": run.online,
        "score": last.score,
        "start": first.score if first.env_step == 0 else math.nan,
        "auc": area if run.online else math.nan,
        "wall_clock": run.wall_clock,
        "updates": run.updates,
        "env_steps": run.env_steps,
        "peak_memory": run.peak_memory,
        "stage": identity.stage,
        "retrieval_precision": run.diagnostics.get("retrieval_precision", math.nan),
        "evaluations": len(curve),
        "episodes": last.episodes,
    }


def _refuse_gaps(table: RunTable, method: str, matrix: pd.DataFrame) -> None:
    gaps = [(task, seed) for seed, row in matrix.isna().iterrows() for task, gap in row.items() if gap]
    if matrix.size == 0 or gaps:
        listed = ", ".join(f"{task} seed {seed}" for task, seed in gaps[:3]) + (", ..." if len(gaps) > 3 else "")
        raise IncompleteError(
            f"{method} has {matrix.size - len(gaps)} of {matrix.size} runs (missing: {listed}), so it has no aggregate."
        )
