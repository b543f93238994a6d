"""Settings are searched with Optuna, with the same budget for all methods, on tasks that no table of results has.

A *search* is of one table of settings. Where several of the chosen methods read it, as WPT's eight combinations of
switches do, a trial is judged by all of their runs, so that what is shared is not tuned for one of them. A trial is one
run for every method, task and seed, made by the grid like any other. Its value is the mean over these runs of the area
under the curve, which is what the benchmark asks for (online experience saved) and, as a mean over all evaluations,
less noisy than the last one; of methods without online steps it is the score.

Trial 0 has the profile's present settings. What trial n tries is a function of the finished trials before it: a search
that was killed asks for the same again, and its finished runs, known by their settings, are not made twice. A trial
that failed by no fault of its settings (memory, disk, a worker that was killed) is not finished and ends the search
there; gone on with, the search makes it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

import msgspec
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from wpt_bench import profiles, records, registry
from wpt_bench.analysis.evaluations import area_under_curve, evaluations
from wpt_bench.profiles import Profile
from wpt_bench.protocol import Choice, Range, UserError
from wpt_bench.records import Identity, digest
from wpt_bench.running import plan
from wpt_bench.running.grid import Outcome
from wpt_bench.running.loop import lock
from wpt_bench.running.plan import Layout, PretrainingIdentity, Selection, StageIdentity, new_run

RESULTS = "lite"
"""The profile whose tables are published: nothing is tuned on its tasks, whatever profile is tuned."""
DIGITS = 3
"""Significant digits of the numbers tried, so that what is pasted into a profile is what was run."""

Value = float | bool | str
Make = Callable[[int, Sequence[Identity], Sequence[StageIdentity]], Outcome]
"""Makes the runs of all searches' trials of one number, and the stages that they start from."""


class TrialRun(msgspec.Struct, frozen=True):
    """One run of a trial.

    Attributes:
        score: None if it failed; ``why`` is the sentence that says how.
        evaluations: of online performance that it made.
    """

    id: str
    method: str
    task: str
    seed: int
    score: float | None
    evaluations: int
    why: str = ""


class Trial(msgspec.Struct, frozen=True):
    """Settings that were tried. ``value`` is the mean of the runs' scores, None if one of them failed."""

    number: int
    value: float | None
    settings: dict[str, Value]
    runs: list[TrialRun]


class Record(msgspec.Struct, frozen=True):
    """All that is known of a search, as its ``tuning.json`` holds it.

    Attributes:
        study: the search's folder below ``out/tuning``.
        methods, tasks, seeds: of the runs of a trial. table: that is tuned. read_by: every method that reads it.
        space: what was searched.
        evaluations: of online performance that were spent, in all runs.
        best: number of the best trial, the earliest of equals; None if none has a value.
        toml: its settings for a profile.
    """

    study: str
    suite: str
    profile: str
    table: str
    methods: list[str]
    read_by: list[str]
    tasks: list[str]
    seeds: list[int]
    space: dict[str, dict[str, object]]
    trials: list[Trial]
    evaluations: int
    best: int | None
    toml: str


def select(
    suite: str, profile: Profile, tasks: Sequence[str] = (), methods: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Selection:
    """What is tuned on; empty arguments take the profile's tasks for tuning, its methods and its first seed.

    Raises:
        UserError: a task is in a table of results, or there is none; a method declares no settings to search, or the
            profile's lie outside of what is searched.
    """
    grid = profile.grid(suite)
    if not (tasks or grid.tuning):
        raise UserError(
            f"The profile {profile.name!r} names no tasks to tune {suite} on; name some of no table with --tasks."
        )
    selection = plan.select(suite, profile, tasks or grid.tuning, methods, seeds or grid.seeds[:1])
    published = profiles.load(RESULTS)
    for its in (profile, published):
        table = {registry.task(suite, name) for name in its.grids[suite].tasks} if suite in its.grids else set()
        if used := [task.id for task in selection.tasks if task in table]:
            raise UserError(
                f"{', '.join(used)} stands in the results of the profile {its.name!r}, on which nothing is tuned; "
                "choose other --tasks."
            )
    for method in selection.methods:
        if not method.search:
            raise UserError(f"{method.name} declares no settings to search; choose other --methods.")
    for search in searches(selection, None):
        search.refuse_outside()
    return selection


def searches(selection: Selection, data: str | None) -> list[Search]:
    """One search for every table of settings that the selection's methods read; ``data`` is the data set's digest."""
    tables = dict.fromkeys(method.settings_name for method in selection.methods)
    return [
        Search(table, replace(selection, methods=tuple(m for m in selection.methods if m.settings_name == table)), data)
        for table in tables
    ]


@dataclass(frozen=True)
class Search:
    """Of one table of settings. ``selection`` has the methods that read it; ``data`` is the data set's digest."""

    table: str
    selection: Selection
    data: str | None

    @property
    def space(self) -> Mapping[str, Range | Choice]:
        """What is searched."""
        return self.selection.methods[0].search

    @cached_property
    def present(self) -> dict[str, Value]:
        """The profile's values of what is searched."""
        settings = plan.settings(self.selection, self.selection.methods[0])
        return {name: getattr(settings, name) for name in self.space}

    def refuse_outside(self) -> None:
        """Raises UserError if the present settings lie outside of what is searched."""
        for name, value in self.present.items():
            span = self.space[name]
            inside = value in span.options if isinstance(span, Choice) else span.low <= float(value) <= span.high
            if not inside:
                raise UserError(
                    f"{name} is {value} in [settings.{self.table}] of the profile {self.selection.profile.name!r}, "
                    f"outside of what is searched: {span}."
                )

    @cached_property
    def name(self) -> str:
        """Of the folder and the study. Its digest is of all that scores depend on, and of what is searched."""
        depends = digest([self.runs(self.present), _plain(self.space)])
        return f"{self.selection.suite}-{self.selection.profile.name}-{quote(self.table, safe='')}-{depends}"

    def runs(self, values: Mapping[str, Value]) -> list[Identity]:
        """The runs of a trial."""
        return plan.identities(self._with(values), self.data)

    def stages(self, values: Mapping[str, Value]) -> list[StageIdentity]:
        """What they start from."""
        return [] if self.data is None else plan.stages(self._with(values), self.data)

    def _with(self, values: Mapping[str, Value]) -> Selection:
        """The selection with other settings, under another profile's name: its runs are in no report of the profile."""
        profile = self.selection.profile
        settings = profile.settings | {self.table: profile.settings.get(self.table, {}) | dict(values)}
        other = msgspec.structs.replace(profile, name=f"{profile.name}-tuning", settings=settings)
        return replace(self.selection, profile=other)


def record_file(layout: Layout, study: str) -> Path:
    """Where a search's record lies; beside it, Optuna's own."""
    return layout.out / "tuning" / study / "tuning.json"


def tune(wanted: Sequence[Search], layout: Layout, trials: int, make: Make) -> list[Record]:
    """Goes on with the searches, trial by trial of all of them, until each has ``trials``.

    Raises:
        Busy: another process works on one of them.
        UserError: the pre-training that trials start from failed, or a trial by no fault of its settings; or Optuna's
            storage cannot be used.
        RecordError: a run's record is damaged; nothing was concluded from it.
    """
    with ExitStack() as stack:
        studies = [stack.enter_context(_study(search, layout)) for search in wanted]
        for number in range(trials):
            asked = [(study, study.ask()) for study in studies if study.trials == number]
            if not asked:
                continue
            runs = [run for study, values in asked for run in study.search.runs(values)]
            stages = [stage for study, values in asked for stage in study.search.stages(values)]
            outcome = make(number, runs, stages)
            failed = outcome.failed
            for stage in stages:
                if isinstance(stage, PretrainingIdentity) and digest(stage) in failed:
                    raise UserError(f"Pre-training failed: {failed[digest(stage)]}")
            lost = []
            for study, values in asked:
                whys = _lost(study.search.runs(values), outcome)
                if whys:
                    lost.append(f"trial {number} of settings.{study.search.table} ({whys[0]})")
                else:
                    study.tell(values, [_judged(run, layout, failed) for run in study.search.runs(values)])
            if lost:
                raise UserError(
                    f"By no fault of its settings, {', '.join(lost)} failed and does not count; the same command makes "
                    "it again."
                )
        return [study.write() for study in studies]


def _lost(runs: Sequence[Identity], outcome: Outcome) -> list[str]:
    """Why a trial failed, for each of its runs that did, if none of them did by a fault of its settings."""
    ids = {job for run in runs for job in (digest(run), run.stage) if job in outcome.failed}
    return [outcome.failed[job] for job in sorted(ids)] if ids <= outcome.machine else []


def _judged(identity: Identity, layout: Layout, failed: Mapping[str, str]) -> TrialRun:
    """What a run came to."""
    run_id = digest(identity)
    folder = layout.runs / run_id
    begun = (folder / records.RECORD).exists()  # not where its stage failed
    run = records.read_run(folder) if begun else new_run(identity)
    episodes = records.read_episodes(folder, run.files.get(records.ROWS))
    score = None
    if run.status == "done":
        curve = evaluations(run, folder / records.ROWS, episodes)
        area = area_under_curve([at.env_step for at in curve], [at.score for at in curve], identity.budget)
        score = area if run.online else curve[-1].score
    made = len({row.env_step for row in episodes if row.kind == "evaluation"})
    why = failed.get(run_id) or failed.get(identity.stage or "", "")
    return TrialRun(run_id, identity.method, identity.task, identity.seed, score, made, why)


@contextmanager
def _study(search: Search, layout: Layout) -> Iterator[_Study]:
    """The search's trials so far, which no other process adds to meanwhile.

    They are kept in SQLite: unlike Optuna's journal, it recovers from a process that is killed while it writes.
    """
    folder = record_file(layout, search.name).parent
    records.make_folder(folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with lock(folder), _usable(folder):
        url = URL.create("sqlite", database=str((folder / "study.sqlite3").absolute()))
        storage = optuna.storages.RDBStorage(url.render_as_string())
        try:
            yield _Study(search, layout, _maximising(search.name, storage=storage))
        finally:
            storage.engine.dispose()


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(
            f"{folder / 'study.sqlite3'} cannot be used: {reason}; make room, or delete {folder} if it is damaged: "
            "finished runs are kept, and the search goes over them again."
        ) from error


def _maximising(
    name: str | None = None,
    *,
    storage: optuna.storages.BaseStorage | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> optuna.Study:
    return optuna.create_study(
        study_name=name, storage=storage, sampler=sampler, direction="maximize", load_if_exists=True
    )


class _Study:
    """A search and Optuna's record of it, to which only finished trials are added."""

    def __init__(self, search: Search, layout: Layout, study: optuna.Study) -> None:
        self.search = search
        self._layout, self._kept = layout, study
        self._distributions = {name: _distribution(span) for name, span in search.space.items()}

    @property
    def trials(self) -> int:
        """How many are finished."""
        return len(self._kept.trials)

    def ask(self) -> dict[str, Value]:
        """What to try next. The sampler is seeded anew each time, so the answer depends on finished trials alone."""
        if self.trials == 0:
            return self.search.present
        past = _maximising(sampler=optuna.samplers.TPESampler(seed=self.trials))
        past.add_trials(self._kept.trials)
        asked = past.ask(self._distributions).params
        return {name: _rounded(value, self.search.space[name]) for name, value in asked.items()}

    def tell(self, values: Mapping[str, Value], runs: Sequence[TrialRun]) -> None:
        """Adds a trial, failed if one of its runs is."""
        scores = [run.score for run in runs if run.score is not None]
        whole = len(scores) == len(runs)
        trial = optuna.trial.create_trial(
            state=TrialState.COMPLETE if whole else TrialState.FAIL,
            value=fmean(scores) if whole else None,
            params=dict(values),
            distributions=self._distributions,
            user_attrs={"runs": msgspec.to_builtins(runs)},
        )
        self._kept.add_trial(trial)
        self.write()

    def write(self) -> Record:
        """Writes the record of what there is so far."""
        record = self.record()
        plain = msgspec.json.format(msgspec.json.encode(record), indent=1)
        records.write_atomic(record_file(self._layout, record.study), plain)
        return record

    def record(self) -> Record:
        """What there is so far."""
        search, selection = self.search, self.search.selection
        trials = [
            Trial(
                number=trial.number,
                value=trial.value if trial.state == TrialState.COMPLETE else None,
                settings=trial.params,
                runs=msgspec.convert(trial.user_attrs["runs"], list[TrialRun]),
            )
            for trial in self._kept.trials
        ]
        values = {trial.number: trial.value for trial in trials if trial.value is not None}
        best = max(values, key=values.__getitem__, default=None)
        spent = {run.id: run.evaluations for trial in trials for run in trial.runs}  # a run of two trials is made once
        return Record(
            study=search.name,
            suite=selection.suite,
            profile=selection.profile.name,
            table=search.table,
            methods=[method.name for method in selection.methods],
            read_by=[name for name, method in registry.methods().items() if method.settings_name == search.table],
            tasks=[task.name for task in selection.tasks],
            seeds=list(selection.grid.seeds),
            space=_plain(search.space),
            trials=trials,
            evaluations=sum(spent.values()),
            best=best,
            toml="" if best is None else _toml(search.table, trials[best].settings),
        )


def _distribution(span: Range | Choice) -> BaseDistribution:
    if isinstance(span, Choice):
        return CategoricalDistribution(span.options)
    return FloatDistribution(span.low, span.high, log=span.log)


def _rounded(value: Value, span: Range | Choice) -> Value:
    if isinstance(span, Choice):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), span.low), span.high)


def _plain(space: Mapping[str, Range | Choice]) -> dict[str, dict[str, object]]:
    return {name: asdict(span) for name, span in space.items()}


def _toml(table: str, settings: Mapping[str, Value]) -> str:
    """Settings as a profile holds them; TOML's numbers, switches and strings are written like JSON's."""
    key = table if re.fullmatch(r"[A-Za-z0-9_-]+", table) else json.dumps(table)
    return "\n".join([f"[settings.{key}]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())])
