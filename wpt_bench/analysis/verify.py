"""Whether a published folder is whole, says of each run what a run can say, and has the figures that its rows give."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from wpt_bench import records
from wpt_bench.analysis import archive
from wpt_bench.analysis.archive import CONTENTS, EPISODES, FIGURES, MANIFEST, RUNS, Manifest
from wpt_bench.analysis.publish import recompute
from wpt_bench.protocol import UserError
from wpt_bench.records import Episode, Recorded, RecordError, Run

RELATIVE = 1e-9
"""How far a recomputed number may lie from the published one, as a share of it: another processor rounds otherwise."""
ABSOLUTE = 1e-12
"""The same where both are next to nothing, as the difference of two equal scores is."""
FIGURES_NAMED = 20
"""Differing figures are named up to this many; one altered return changes hundreds."""

_NOTHING = object()


@dataclass(frozen=True)
class Verified:
    """What was checked of one published folder, and one sentence for each thing that is wrong."""

    folder: Path
    runs: int
    episodes: int
    figures: int
    findings: tuple[str, ...]


def published_folders(path: Path) -> list[Path]:
    """``path`` if it is a published folder, else those in it; raises UserError if there is none."""
    if archive.is_published(path):
        return [path]
    found = archive.published_in(path)
    if not found:
        raise UserError(
            f"{path} is no published folder and holds none; make one: wpt-bench publish dmc --profile quick."
        )
    return found


def find_run(folders: Sequence[Path], prefix: str) -> Recorded:
    """The published run whose id begins with ``prefix``; raises UserError unless there is exactly one."""
    found = {
        one.run.id: one
        for folder in folders
        for one in archive.read(folder)[0]
        if one.run.id.startswith(prefix) and one.run.status == "done"
    }
    where = ", ".join(map(str, folders))
    if not found:
        raise UserError(f"No published run of {where} has an id that begins with {prefix!r}; see the lines of {RUNS}.")
    if len(found) > 1:
        raise UserError(
            f"{len(found)} published runs of {where} have ids that begin with {prefix!r}; give more digits."
        )
    return found.popitem()[1]


def verify(folder: Path) -> Verified:
    """Checks checksums, ids, the rows of every run, and recomputes every figure; changes nothing."""
    found, findings = archive.read(folder)
    manifest: Manifest | None = None
    with suppress(RecordError):  # `read` has said so
        manifest = archive.read_manifest(folder)
        findings += _contents(folder, manifest, found)
    published = [one for one in found if one.file == folder / EPISODES]
    episodes = 0
    for one in published:
        try:
            rows = one.episodes()
        except (RecordError, OSError) as error:
            findings.append(" ".join(str(error).split()))
            continue
        episodes += len(rows)
        where = f"{one.file}, run {one.run.id} ({one.run.identity.method} on {one.run.identity.task}, "
        where += f"seed {one.run.identity.seed})"
        findings += [f"{where}: {what}" for what in faults(one.run, rows)]
    findings += _strangers(folder, found)
    compared, differing = _figures(folder, manifest, published)
    return Verified(folder, len(published), episodes, compared, tuple(dict.fromkeys(findings + differing)))


# Files and runs


def _contents(folder: Path, manifest: Manifest, found: Sequence[Recorded]) -> Iterator[str]:
    """What the manifest does not vouch for, and what it says that is not so."""
    path = folder / MANIFEST
    for name in CONTENTS:
        if name not in manifest.files:
            yield f"{path} has no checksum of {name}."
    for other in archive.unlisted(folder, manifest):
        yield f"{folder / other} is not in {MANIFEST}, so nothing vouches for it."
    runs = [one.run for one in found if one.file == folder / EPISODES]
    if len(runs) != manifest.runs:
        yield f"{folder / RUNS} has {len(runs)} usable runs and {MANIFEST} says {manifest.runs}."
    for run in runs:
        its = (run.identity.suite, run.identity.profile)
        if its != (manifest.suite, manifest.profile):
            yield f"{folder / RUNS}: run {run.id} is of {' '.join(its)}, not of {manifest.suite} {manifest.profile}."
        if run.status != "done":
            yield f"{folder / RUNS}: run {run.id} is {run.status}, and only finished runs are published."
    there = {run.id for run in runs}
    for gap in manifest.left_out:
        if gap.record is not None and not gap.id == gap.record.id == records.digest(gap.record.identity):
            yield f"{path}: the id of run {gap.id}, which was left out, is not the digest of its identity."
        if gap.id in there:
            yield f"{path} lists run {gap.id} as left out, and {RUNS} has it."


def _strangers(folder: Path, found: Sequence[Recorded]) -> Iterator[str]:
    """Rows that belong to no run."""
    known = {one.run.id for one in found}
    try:
        rows = archive.runs_with_episodes(folder)
    except RecordError as error:
        yield " ".join(str(error).split())
        return
    for run, count in rows.items():
        if run not in known:
            yield f"{folder / EPISODES} has {count} rows of run {run}, which is not in {RUNS}."


# Episodes of one run


def faults(run: Run, rows: Sequence[Episode]) -> Iterator[str]:
    """What is wrong with the rows of a finished run: a sentence each, as the rest of one that names file and run."""
    try:
        wanted = expected_rows(run, prior=any(row.kind == "prior" for row in rows))
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        yield f"its record does not say when it is evaluated ({type(error).__name__}: {error})."
        return
    there = [(_kind(row.kind, row.task), row.env_step, row.index) for row in rows]
    yield from _misplaced(wanted, there)
    for row in rows:
        yield from (f"{_name(row)} {what}." for what in _impossible(run, row))
    for name in ("updates", "wall_clock"):
        for before, after in pairwise(rows):
            if getattr(after, name) < getattr(before, name):
                yield f"{name} falls at {_name(after)}, from {getattr(before, name)} to {getattr(after, name)}."
                break
    if rows:
        steps, updates = max(row.env_step for row in rows), rows[-1].updates
        if run.env_steps != steps:
            yield f"its record has {run.env_steps} environment steps and its rows end at {steps}."
        if run.updates != updates:
            yield f"its record has {run.updates} updates and its rows end at {updates}."
        if run.wall_clock < rows[-1].wall_clock:
            yield f"its record has a wall-clock of {run.wall_clock} s and its rows end at {rows[-1].wall_clock} s."


def expected_rows(run: Run, *, prior: bool) -> list[tuple[str, int, int]]:
    """Kind, environment step and index of every row that the protocol asks for, in the order of the loop.

    Evaluations come before the first episode, after each that passes a multiple of ``evaluation_every`` times the
    budget, and after the last; methods without online steps are evaluated once. With ``prior``, the cloned prior was
    evaluated after the first: no record says whether there was one, and older versions did not. In a sequence the
    earlier tasks are evaluated at the end.
    """
    budget, length = run.identity.budget, run.episode_length
    protocol = run.identity.protocol
    every = max(1, round(protocol["evaluation_every"] * budget))
    evaluation = range(int(protocol["evaluation_episodes"]))
    rows = [(kind, 0, index) for kind in ("evaluation", *["prior"] * prior) for index in evaluation]
    for episode in range(math.ceil(budget / length) if run.online else 0):
        step = (episode + 1) * length
        rows.append(("train", step, episode))
        if step % every < length or step == budget:
            rows += [("evaluation", step, index) for index in evaluation]
    ended = rows[-1][1]
    return rows + [
        (_kind("earlier", task), ended, index) for task in run.identity.earlier or () for index in evaluation
    ]


def _kind(kind: str, task: str) -> str:
    """Of a row, with the earlier task of a sequence that it may be of."""
    return f"{kind} {task}".strip()


def _misplaced(wanted: Sequence[tuple[str, int, int]], there: Sequence[tuple[str, int, int]]) -> Iterator[str]:
    """How the rows differ from those that the protocol asks for."""
    missing, surplus = Counter(wanted) - Counter(there), Counter(there) - Counter(wanted)
    for what, rows in (("lacks", missing), ("has, beyond what the protocol asks for,", surplus)):
        if rows:
            kind, step, index = next(iter(rows))
            more = f" and {rows.total() - 1} rows more" if rows.total() > 1 else ""
            yield f"it {what} {kind} episode {index} at environment step {step}{more}."
    if not missing and not surplus and list(wanted) != list(there):
        kind, step, index = next(its for its, asked in zip(there, wanted, strict=True) if its != asked)
        yield f"its rows are out of order from {kind} episode {index} at environment step {step} on."


def _impossible(run: Run, row: Episode) -> Iterator[str]:
    """What no episode of the run can have."""
    if not math.isfinite(row.episode_return):
        yield f"has a return of {row.episode_return}"
    if not {row.success_any, row.success_last} <= {0.0, 1.0}:
        yield f"has successes of {row.success_any} and {row.success_last}, which are neither 0 nor 1"
    elif row.success_last > row.success_any:
        yield "succeeds at its last step and at none"
    if row.length != run.episode_length:
        yield f"has {row.length} environment steps, not {run.episode_length}"
    if not 0 <= row.guided_steps <= row.length:
        yield f"has {row.guided_steps} guided steps"
    if row.updates < 0 or not 0 <= row.wall_clock < math.inf:
        yield f"has {row.updates} updates and a wall-clock of {row.wall_clock} s"
    for name, value in row.metrics.items():
        if not math.isfinite(value):
            yield f"has a {name} of {value}"


def _name(row: Episode) -> str:
    return f"{row.kind} episode {row.index} at environment step {row.env_step}"


# Figures


def _figures(folder: Path, manifest: Manifest | None, published: Sequence[Recorded]) -> tuple[int, list[str]]:
    """How many published figures were held against recomputed ones, and a sentence for each that differs."""
    path = folder / FIGURES
    try:
        claimed = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        return 0, [" ".join(f"{path} cannot be read as figures: {error}.".split())]
    whose = Counter((one.run.identity.suite, one.run.identity.profile) for one in published)
    if not whose:
        return 0, [f"{path} has figures, and there is no run to recompute them from."]
    suite, profile = whose.most_common(1)[0][0] if manifest is None else (manifest.suite, manifest.profile)
    try:
        again = recompute(folder, suite, profile)
    except (UserError, RecordError) as error:
        return 0, [f"{path}: the figures cannot be recomputed: {error}"]
    found = list(differences(claimed, again))
    said = [
        f"{path}: {where} is published as {_value(theirs)} and its episodes give {_value(ours)}."
        for where, theirs, ours in found[:FIGURES_NAMED]
    ]
    if len(found) > FIGURES_NAMED:
        said.append(f"{path}: {len(found) - FIGURES_NAMED} more figures differ from what its episodes give.")
    return leaves(again), said


def differences(published: Any, recomputed: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every place where two trees of JSON values differ: its path, and what stands there in each.

    Numbers may differ by rounding (``RELATIVE``, ``ABSOLUTE``). What one of them lacks is shown as nothing.
    """
    if isinstance(published, Mapping) and isinstance(recomputed, Mapping):
        for key in dict.fromkeys([*published, *recomputed]):
            inner = f"{where}.{key}" if where else str(key)
            yield from differences(published.get(key, _NOTHING), recomputed.get(key, _NOTHING), inner)
    elif isinstance(published, list) and isinstance(recomputed, list):
        if len(published) != len(recomputed):
            yield f"the length of {where}", len(published), len(recomputed)
        for index, (theirs, ours) in enumerate(zip(published, recomputed, strict=False)):
            yield from differences(theirs, ours, f"{where}[{index}]")
    elif not _equal(published, recomputed):
        yield where, published, recomputed


def leaves(tree: Any) -> int:
    """How many values a tree of JSON values holds."""
    if isinstance(tree, Mapping):
        return sum(map(leaves, tree.values()))
    return sum(map(leaves, tree)) if isinstance(tree, list) else 1


def _equal(a: Any, b: Any) -> bool:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b)]
    if all(numbers):
        return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(a) is type(b) and bool(a == b)


def _value(value: Any) -> str:
    """A JSON value as a sentence shows it."""
    if value is _NOTHING:
        return "nothing"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
