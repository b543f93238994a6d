"""Whether a recorded run is what its identity gives: its first episodes are trained again and held against the rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from wpt_bench import profiles, records, registry
from wpt_bench.data.store import Dataset
from wpt_bench.profiles import refuse_sizes
from wpt_bench.protocol import Progress, UserError
from wpt_bench.records import Episode, Identity, Run
from wpt_bench.running.loop import execute
from wpt_bench.running.machine import prepare_process
from wpt_bench.running.plan import HARNESS, Layout, new_run, resolve, select, stages
from wpt_bench.running.provenance import provenance
from wpt_bench.running.sequence import before_in_sequence
from wpt_bench.running.stages import is_done, make, read_stage

EPISODES = 3
MOST_THREADS = 256
"""A record that claims more threads than any machine it could have come from is made again with one."""
TOLERANCE = 0.01
"""How far a return may lie from the recorded one where another processor or library rounds otherwise, as a share of it
(of 1 if it is smaller); for episodes alone in which nothing acts that was learned."""

_DECLARED = ("family", "data_access", "embodiment", "score", "score_scale", "episode_length", "online")
"""Fields of a record that follow from its identity, though its id is no hash of them."""
_OF_THE_GRID = ("evaluation_every", "evaluation_episodes", "precision", "inputs")
"""What of a protocol the profile decides; the rest is the suite's and the code's."""


@dataclass(frozen=True)
class Rerun:
    """What became of training a run's beginning again.

    Attributes:
        run: its id.
        episodes: training episodes that were made again.
        compared: rows that were held against the recorded ones.
        environment: what differs between the recorded environment and this one; empty where equality was demanded.
        findings: one sentence for each row, or declaration, that is not what it was recorded as.
    """

    run: str
    episodes: int
    compared: int
    environment: tuple[str, ...]
    findings: tuple[str, ...]

    @property
    def reproduced(self) -> bool:
        """Whether everything came out exactly as recorded, in the recorded environment."""
        return not self.findings and not self.environment


def rerun(run: Run, rows: Sequence[Episode], layout: Layout, progress: Progress, *, episodes: int = EPISODES) -> Rerun:
    """Trains the first ``episodes`` training episodes of a finished run again, in a folder that is thrown away.

    Sets this process's threads to the recorded ones. Methods without online steps are trained whole.

    Args:
        run: its record.
        rows: all its recorded episodes.
        layout: where its data set lies, and its pre-training, which is made there if it is missing.
        progress: told how far it is.
        episodes: how many training episodes.

    Raises:
        UserError: this version makes other runs of that method, task or suite, or the run's data set is not here.
    """
    identity = run.identity
    _refuse_other_versions(identity)
    threads = run.provenance.get("threads")
    prepare_process(threads if isinstance(threads, int) and 1 <= threads <= MOST_THREADS else 1)
    data = _data(identity, layout)
    if identity.stage is not None:
        _ensure_stage(identity, identity.stage, layout, data, progress)
    again = _train(identity, layout, data, progress, episodes)
    environment = _environment(run.provenance, provenance(identity), "this machine")
    stage = read_stage(layout, identity.stage) if identity.stage else None
    if stage is not None:
        environment += _environment(run.provenance, stage.provenance, "the pre-training that is here")
    findings = _declarations(run)
    recorded = [row for row in rows if row.env_step <= again[-1].env_step]
    again = _as_told(again, recorded)
    if environment:
        noise = [row for row in again if _nothing_learned(row)]
        theirs = {row.index: row for row in recorded if row.kind == "train"}
        for row in noise:
            findings += _far(run.id, theirs[row.index], row) if row.index in theirs else _unequal(run.id, [], [row])
        compared = len(noise)
    else:
        findings += _unequal(run.id, recorded, again)
        compared = len(again)
    return Rerun(run.id, sum(row.kind == "train" for row in again), compared, tuple(environment), tuple(findings))


# What it needs


def _refuse_other_versions(identity: Identity) -> None:
    """Raises UserError where the code here makes no run of this identity: versions, settings and protocol."""
    method, suite = registry.method(identity.method), registry.suite(identity.suite)
    task = registry.task(identity.suite, identity.task)
    for what, its, ours in (
        (f"version of {method.name}", identity.method_version, method.version),
        (f"version of {suite.name}", identity.suite_version, suite.version),
    ):
        if its != ours:
            raise UserError(
                f"The run was made by {what.replace('version', f'version {its}')}, and version {ours} is installed; "
                "check out the revision in its record and try again."
            )
    try:
        resolve(method, identity.settings)
        refuse_sizes({"protocol": identity.protocol, "budget": identity.budget, "seed": identity.seed})
    except ValueError as error:
        raise UserError(f"The run's settings are none of {method.name} here: {error}.") from error
    for name in _OF_THE_GRID:
        if name not in identity.protocol:
            raise UserError(f"The run's protocol does not say {name}, so that nobody can make it again.")
    for name, value in (suite.protocol(task, identity.observation) | HARNESS).items():
        if identity.protocol.get(name) != value:
            raise UserError(
                f"The run's protocol has {name} {identity.protocol.get(name)!r}, and that of {task.id} is {value!r} "
                "here; check out the revision in its record and try again."
            )


def _data(identity: Identity, layout: Layout) -> Path | None:
    """The data set with the recorded digest; None for methods that see none."""
    if identity.data is None:
        return None
    for folder in (layout.data(identity.suite, identity.profile), *sorted((layout.out / "data").glob("*/"))):
        if (folder / "manifest.json").exists() and Dataset.open(folder).digest == identity.data:
            return folder
    raise UserError(
        f"Data set {identity.data} is not in {layout.out / 'data'}; "
        f"collect it: wpt-bench data collect {identity.suite} --profile {identity.profile}, with --published and the "
        "folder of the run, for what it has the actions of."
    )


def _ensure_stage(identity: Identity, stage: str, layout: Layout, data: Path | None, progress: Progress) -> None:
    """Makes what the run starts from, if it is not there."""
    if is_done(layout, stage):
        return
    command = f"wpt-bench run {identity.suite} --profile {identity.profile} --methods {identity.method}"
    missing = f"The pre-training {stage} is not in {layout.out / 'stages'}"
    if data is None or identity.data is None or identity.profile not in profiles.names():
        raise UserError(f"{missing}; make it: {command} --seeds {identity.seed}.")
    selection = select(identity.suite, profiles.load(identity.profile), (), (identity.method,), (identity.seed,))
    wanted = {records.digest(one): one for one in stages(selection, identity.data)}
    if stage not in wanted:
        raise UserError(
            f"{missing}, and the profile {identity.profile} alone makes another one: it has changed since, or the run "
            "is of an experiment, which makes what it starts from; run that first."
        )
    make(wanted[stage], layout, data, progress)


def _train(identity: Identity, layout: Layout, data: Path | None, progress: Progress, episodes: int) -> list[Episode]:
    """Rows of the run's beginning, made in a new folder that only shares the finished stages."""
    with tempfile.TemporaryDirectory(prefix="wpt-bench-rerun-") as folder:
        there = Layout(Path(folder))
        if identity.stage is not None:
            (there.out / "stages").symlink_to((layout.out / "stages").absolute(), target_is_directory=True)
        there.runs.mkdir(parents=True)
        for before in before_in_sequence(identity, layout):
            (there.runs / before.id).symlink_to((layout.runs / before.id).absolute(), target_is_directory=True)
        execute(identity, there, data, progress, episodes=episodes)
        return records.read_episodes(there.runs / records.digest(identity))


# What differs


def _environment(recorded: Mapping[str, Any], other: Mapping[str, Any], whose: str) -> list[str]:
    """What of an environment decides how numbers are rounded or pictures drawn, and differs or was not recorded.

    Versions of wpt-bench itself and of a method's package are no part of it: versions of method, task and suite say
    what is computed. Nor is what draws, where nothing is drawn: in runs from states, and in pre-training.
    """
    names = ("threads", "graphics") if "graphics" in other else ("threads",)
    pairs = [(name, recorded.get(name), other.get(name)) for name in names]
    machines = [where.get("machine") or {} for where in (recorded, other)]
    pairs += [(name, *(machine.get(name, "unknown") for machine in machines)) for name in ("cpu_capability", "gpu")]
    versions = [where.get("versions") or {} for where in (recorded, other)]
    libraries = [name for name in dict.fromkeys([*versions[0], *versions[1]]) if name != "wpt-bench"]
    pairs += [(name, *(version.get(name, "unknown") for version in versions)) for name in libraries]
    return [f"{name} {ours} of {whose}, recorded {its}" for name, its, ours in pairs if its != ours]


def _declarations(run: Run) -> list[str]:
    """What the record says of its method and task, and the code here does not."""
    here = new_run(run.identity)
    return [
        f"Run {run.id}: its {name} is recorded as {getattr(run, name)!r}, and {run.identity.method} on "
        f"{run.identity.task} has {getattr(here, name)!r}."
        for name in _DECLARED
        if getattr(run, name) != getattr(here, name)
    ]


def _as_told(again: Sequence[Episode], recorded: Sequence[Episode]) -> list[Episode]:
    """What came out, without diagnoses of a kind that the record, made by an older version, has none of."""
    rows = list(again)
    if not any(row.kind == "prior" for row in recorded):
        rows = [row for row in rows if row.kind != "prior"]
    if not any(row.metrics for row in recorded if row.kind == "evaluation"):
        rows = [msgspec.structs.replace(row, metrics={}) if row.kind == "evaluation" else row for row in rows]
    return rows


def _unequal(run: str, recorded: Sequence[Episode], again: Sequence[Episode]) -> list[str]:
    """One sentence for each row that is not bit for bit the recorded one, but for its clock."""
    theirs, ours = ({(row.kind, row.env_step, row.index, row.task): row for row in rows} for rows in (recorded, again))
    said = [f"Run {run} has a row twice within its first {len(again)}."] if len(theirs) < len(recorded) else []
    for key in dict.fromkeys([*theirs, *ours]):
        its, made = theirs.get(key), ours.get(key)
        if its is None or made is None:
            what = "is recorded and did not come out" if made is None else "came out and is not recorded"
            said.append(f"Run {run}: {key[0]} episode {key[2]} at environment step {key[1]} {what}.")
            continue
        before, after = _values(its), _values(made)
        each = ", ".join(
            f"{name} {before.get(name)} (came out as {after.get(name)})"
            for name in dict.fromkeys([*before, *after])
            if before.get(name) != after.get(name)
        )
        if each:
            said.append(f"Run {run}, {_name(its)}, is recorded with {each}.")
    return said


def _values(row: Episode) -> dict[str, Any]:
    """What of a row has to come out again, metrics by their names."""
    values = msgspec.structs.asdict(row)
    del values["wall_clock"], values["metrics"]
    return values | row.metrics


def _far(run: str, its: Episode, ours: Episode) -> list[str]:
    """A sentence if a return lies beyond the tolerance of other environments."""
    if abs(its.episode_return - ours.episode_return) <= TOLERANCE * max(1.0, abs(its.episode_return)):
        return []
    return [
        f"Run {run}, {_name(its)}, is recorded with a return of {its.episode_return} and came out with "
        f"{ours.episode_return}: further off than {TOLERANCE:.0%}, which another environment is allowed before the "
        "first update."
    ]


def _nothing_learned(row: Episode) -> bool:
    """Whether an episode's actions were noise alone."""
    return row.kind == "train" and row.updates == 0 and row.guided_steps == 0


def _name(row: Episode) -> str:
    return f"{row.kind} episode {row.index} at environment step {row.env_step}"
