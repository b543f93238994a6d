"""From two folders of runs to the gate's verdict: what is compared, what is refused, and what else differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wpt_bench import records
from wpt_bench.analysis import archive
from wpt_bench.analysis.gate import ALPHA, FIGURES, MARGIN, Side, Verdict, judge
from wpt_bench.analysis.scores import IncompleteError, Reading, RunTable, load_runs, score_matrix
from wpt_bench.protocol import UserError
from wpt_bench.records import Identity, RecordError, Run


@dataclass(frozen=True)
class Regression:
    """A candidate held against a baseline.

    Attributes:
        suite, profile, observation, budget: of all runs; the budget in environment steps.
        tasks: that are compared.
        baseline, candidate: folders as they were given.
        verdict: of the gate.
        notes: a sentence for whatever else differs or was left out.
    """

    suite: str
    profile: str
    observation: str
    budget: int
    tasks: tuple[str, ...]
    baseline: str
    candidate: str
    verdict: Verdict
    notes: tuple[str, ...]


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
    roots = runs_in(baseline), runs_in(candidate)
    readings = Reading(roots[0]), Reading(roots[1])
    suite, profile = suite_and_profile(readings[0], baseline, suite, profile)
    before = table_of(readings[0], suite, profile)
    after = table_of(readings[1], suite, profile, before.observation)
    methods = known(methods, before.methods, "method", baseline)
    tasks = known(tasks, before.tasks, "task", baseline)
    for what, wanted, there in (("method", methods, after.methods), ("task", tasks, after.tasks)):
        if lacking := [name for name in wanted if name not in there]:
            raise UserError(
                f"{candidate} has no runs of the baseline's {what} {', '.join(lacking)}: make them with the same "
                f"profile (wpt-bench run {suite} --profile {profile}), or name what to compare with --{what}s."
            )
    sides = [
        _sides(before, methods, tasks, "baseline", baseline),
        _sides(after, methods, tasks, "candidate", candidate),
    ]
    _same_protocol(before, after, methods, tasks)
    _refuse_others(before, after, readings[1], methods, tasks, candidate)
    for method in methods:
        figures = [list(side[method].figures) for side in sides]
        if figures[0] != figures[1]:
            raise UserError(f"{method} learns online on one side and offline on the other, which is no comparison.")
        if sides[0][method].seeds + sides[1][method].seeds < 3:
            raise UserError(f"One seed of {method} on either side decides nothing; make more: --seeds 0,1,2,3.")
    return Regression(
        suite=suite,
        profile=profile,
        observation=before.observation,
        budget=before.budget,
        tasks=tuple(tasks),
        baseline=str(baseline),
        candidate=str(candidate),
        verdict=judge(*sides, alpha=alpha, margin=margin),
        notes=tuple(_notes(before, after, methods, tasks)),
    )


def runs_in(folder: Path) -> Path:
    """Where the runs are: the folder itself, or ``runs`` in what ``--out`` named; UserError if it was tampered with."""
    if archive.is_published(folder):
        try:
            wrong = archive.altered(folder, archive.read_manifest(folder))
        except RecordError as error:
            wrong = [" ".join(str(error).split())]
        if wrong:
            raise UserError(f"{wrong[0]} All that is wrong: wpt-bench verify {folder}.")
        return folder
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give a published folder, a folder of runs, or what --out named.")
    return folder / "runs" if (folder / "runs").is_dir() else folder


def _apart(root: Path) -> set[str]:
    """Runs that experiments alone count, less those of levels that others are held against: a level that changes
    nothing is the baseline itself, and one that changes something is left out for what differs (``load_runs``)."""
    if not archive.is_published(root):
        return set()
    its = archive.read_experiments(root)
    held = {records.digest(run) for plan in its.plans for arm in plan.arms if arm.reference for run in arm.runs}
    return set(its.apart) - held


def table_of(reading: Reading, suite: str, profile: str, observation: str | None = None) -> RunTable:
    """The runs of a suite and profile, without those that an experiment alone counts."""
    return load_runs(reading, suite=suite, profile=profile, observation=observation, apart=_apart(reading.root))


def suite_and_profile(reading: Reading, folder: Path, suite: str, profile: str) -> tuple[str, str]:
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


def known(wanted: Sequence[str], there: Sequence[str], what: str, folder: Path) -> list[str]:
    """What was asked for, or all there is; UserError for what the baseline does not have."""
    if unknown := [name for name in wanted if name not in there]:
        raise UserError(f"{folder} has no runs of the {what} {unknown[0]!r}; it has {', '.join(there)}.")
    return [name for name in there if not wanted or name in wanted]


def _sides(table: RunTable, methods: Sequence[str], tasks: Sequence[str], whose: str, folder: Path) -> dict[str, Side]:
    try:
        return {method: side_of(table, method, tasks) for method in methods}
    except IncompleteError as error:
        gaps = [gap for gap in table.missing if gap.method in methods and gap.task in tasks]
        why = f" {gaps[0].task}, seed {gaps[0].seed}: {gaps[0].why.splitlines()[-1]}" if gaps else ""
        raise UserError(f"The {whose}, {folder}, is not whole: {error}{why}") from error


def side_of(table: RunTable, method: str, tasks: Sequence[str]) -> Side:
    """A method's figures; raises IncompleteError if a run is missing."""
    matrices = {figure: score_matrix(table, method, figure, tasks) for figure in _figures(table, method)}
    return Side(matrices, tuple(tasks))


def _figures(table: RunTable, method: str) -> list[str]:
    """Methods without online steps have no area."""
    online = bool(table.runs[table.runs["method"] == method]["online"].any())
    return [figure for figure in FIGURES if online or figure != "auc"]


def _same_protocol(before: RunTable, after: RunTable, methods: Sequence[str], tasks: Sequence[str]) -> None:
    """Raises UserError unless runs of the two were made and are scored alike."""
    if before.budget != after.budget:
        raise UserError(
            f"The baseline has a budget of {before.budget:,} environment steps, the candidate of {after.budget:,}: "
            "sample efficiency is compared at equal budgets."
        )
    for task in tasks:
        old, new = (_first(table, methods, task) for table in (before, after))
        if old.suite_version != new.suite_version:
            raise UserError(
                f"The baseline is of version {old.suite_version} of the suite, the candidate of {new.suite_version}: "
                "other environments, which are not compared."
            )
        its = old.protocol, new.protocol
        if its[0] != its[1]:
            names = sorted(name for name in its[0] | its[1] if its[0].get(name) != its[1].get(name))
            raise UserError(f"Baseline and candidate differ in the protocol of {task} ({', '.join(names)}).")


def _first(table: RunTable, methods: Sequence[str], task: str) -> Identity:
    return next(
        run.identity for run in table.records.values() if run.identity.task == task and run.identity.method in methods
    )


def _refuse_others(
    before: RunTable, after: RunTable, reading: Reading, methods: Sequence[str], tasks: Sequence[str], folder: Path
) -> None:
    """Raises UserError if the candidate's folder has runs of two kinds, or the baseline's own records."""
    versions = {run.identity.method: run.identity.method_version for run in after.records.values()}
    identities = {one.run.id: one.run.identity for one in reading.found}
    others = [
        absent
        for absent in after.stale
        if absent.method in methods
        and absent.task in tasks
        and identities[absent.id].method_version >= versions[absent.method]
    ]
    if others:
        raise UserError(
            f"{folder} has runs of two kinds: {len(others)} would be left out ({others[0].why}, for instance). Which "
            "is the candidate? Give a folder that has one kind of runs; experiments are told apart in a published one."
        )
    sums = [
        set(zip(_checksums(table), table.runs["auc"], table.runs["score"], strict=True)) for table in (before, after)
    ]
    if copied := {its for its in sums[0] & sums[1] if its[0]}:
        raise UserError(
            f"{len(copied)} of the candidate's runs are records of the baseline, which say nothing of the code as it "
            "is now: make the candidate's in a folder of their own, with --out."
        )


def _checksums(table: RunTable) -> list[str]:
    """Of every record in the order of ``runs``: with its times in it, so that no run repeats another's."""
    return [table.records[run_id].checksum for run_id in table.runs["id"]]


def _of(table: RunTable, methods: Iterable[str], tasks: Iterable[str]) -> list[Run]:
    """The runs that are compared."""
    return [run for run in table.records.values() if run.identity.method in methods and run.identity.task in tasks]


def _notes(before: RunTable, after: RunTable, methods: Sequence[str], tasks: Sequence[str]) -> Iterator[str]:
    """What a reader of the verdict should know besides."""
    old, new = _of(before, methods, tasks), _of(after, methods, tasks)
    revisions = [{_code(run) for run in its} for its in (old, new)]
    yield f"Code: {_listed(revisions[0])} before, {_listed(revisions[1])} now."
    if len(revisions[1]) > 1:
        yield "The candidate's runs are of several revisions of the code; what the older ones did counts as well."
    processors = [{_processor(run) for run in its} for its in (old, new)]
    if processors[0] != processors[1]:
        yield (
            f"Another processor ({_listed(processors[0])} before, {_listed(processors[1])} now), where unchanged code "
            "gives other runs too."
        )
    for method in methods:
        its = [[run.identity for run in side if run.identity.method == method] for side in (old, new)]
        for what, name in (
            ("version", "method_version"),
            ("offline data", "data"),
            ("part of the data", "subset"),
            ("sequence of tasks", "earlier"),
        ):
            one, other = ({_text(getattr(i, name)) for i in side} for side in its)
            if one != other:
                yield f"{method}: another {what} ({_listed(one)} before, {_listed(other)} now)."
        if its[0][0].settings != its[1][0].settings:
            was, now = (side[0].settings for side in its)
            names = sorted(name for name in was | now if was.get(name) != now.get(name))
            yield f"{method}: other settings ({', '.join(names)})."
        stages = [{(i.seed, i.stage) for i in side} for side in its]
        if any(dict(stages[0]).get(seed, stage) != stage for seed, stage in stages[1]):
            yield f"{method}: another pre-training."
    if same := {run.id for run in old} & {run.id for run in new}:
        yield (
            f"{len(same)} of the candidate's runs have the identity of one of the baseline's: where nothing changed "
            "they repeat it, and the test is on the safe side."
        )
    if more := [name for name in after.methods if name not in before.methods]:
        yield f"The baseline has no runs of {', '.join(more)}, which the candidate has: nothing is said of them."
    for what, table in (("baseline", before), ("candidate", after)):
        yield from (f"The {what}: {problem}" for problem in table.problems)
        if unused := [absent for absent in table.stale if absent.method in methods and absent.task in tasks]:
            yield f"{len(unused)} runs of the {what} are left out ({unused[0].why}, for instance)."


def _processor(run: Run) -> str:
    machine = run.provenance.get("machine")
    return str(machine.get("processor")) if isinstance(machine, dict) else "unknown"


def _text(value: object) -> str:
    return str(value) if value else "all" if isinstance(value, dict) else "none"


def _code(run: Run) -> str:
    """The revision of wpt-bench, or its version where it was installed, and the package of a method of another one."""
    made_by, package = run.provenance, run.provenance.get("package")
    own = made_by.get("git_revision") or f"wpt-bench {(made_by.get('versions') or {}).get('wpt-bench', 'unknown')}"
    return own + (f" with {package}" if package else "")


def _listed(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values)))
