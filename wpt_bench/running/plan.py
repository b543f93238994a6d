"""From a profile to the runs of its grid, each with the identity that its id is the hash of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from wpt_bench import registry
from wpt_bench.data.store import Dataset
from wpt_bench.profiles import Grid, Inputs, Profile, refuse_sizes
from wpt_bench.protocol import (
    ACTION_PAD,
    DISCOUNT,
    STATE_PAD,
    WARM_UP,
    DataAccess,
    Method,
    ObservationKind,
    Precision,
    Suite,
    Task,
    UserError,
)
from wpt_bench.records import Identity, Run, digest
from wpt_bench.world_model.config import WorldModelSize

PRETRAINING_VERSION = 3
HARNESS: dict[str, Any] = {
    "evaluation_starts": "fresh",  # before, every evaluation of a run had the same
    "warm_up": WARM_UP,
    "discount": DISCOUNT,
}
"""What of a run's protocol is the same for all: neither the suite nor the profile decides it."""


class PretrainingIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a shared pre-training is a function of; its digest is the stage's id.

    Attributes:
        pretraining: the profile's ``Pretraining`` as JSON, without the seeds.
        data: digest of the data set. subset, scene: what was taken of it, see ``running.subset.choose``.
        inputs: as in ``Profile``.
        seed: of this pre-training.
    """

    version: int
    suite: str
    suite_version: int
    observation: ObservationKind
    precision: Precision
    world_model: WorldModelSize
    pretraining: dict[str, Any]
    data: str
    seed: int
    inputs: Inputs
    subset: dict[str, Any] = {}
    scene: str | None = None


class SharedAgentIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an agent that all tasks of a suite share is a function of; its digest is the stage's id.

    Attributes: as in ``Identity`` and its protocol; ``seed`` is that of the runs that evaluate it; ``inputs`` as in
    ``Profile``.
    """

    method: str
    method_version: int
    suite: str
    suite_version: int
    observation: ObservationKind
    precision: Precision
    discount: float
    settings: dict[str, Any]
    data: str
    seed: int
    inputs: Inputs
    subset: dict[str, Any] = {}


StageIdentity = PretrainingIdentity | SharedAgentIdentity
"""What is made once and then used by several runs."""


@dataclass(frozen=True)
class Layout:
    """Where things lie below the output folder."""

    out: Path

    def data(self, suite: str, profile: str) -> Path:
        """The offline data set that a profile's grid uses."""
        return self.out / "data" / f"{suite}-{profile}"

    def stage(self, stage_id: str) -> Path:
        """A shared pre-training, or an agent that all tasks share."""
        return self.out / "stages" / stage_id

    def record(self, stage_id: str) -> Path:
        """Its record, there once it is finished."""
        return self.stage(stage_id) / "stage.json"

    def weights(self, stage_id: str) -> Path:
        """Its weights."""
        return self.stage(stage_id) / "weights.safetensors"

    def examples(self, stage_id: str) -> Path:
        """Of a pre-training: for every embodiment a held-out chunk and its open-loop prediction."""
        return self.stage(stage_id) / "open_loop.safetensors"

    @property
    def runs(self) -> Path:
        """One folder per run id."""
        return self.out / "runs"

    @property
    def plans(self) -> Path:
        """One file per experiment."""
        return self.out / "experiments"

    def plan(self, suite: str, profile: str, experiment: str) -> Path:
        """Which runs an experiment consists of."""
        return self.plans / f"{suite}-{profile}-{experiment}.json"

    def report(self, suite: str, profile: str) -> Path:
        """The rendered report of a grid, or of an experiment's whose name follows."""
        return self.out / "reports" / f"{suite}-{profile}"


@dataclass(frozen=True)
class Selection:
    """One suite's grid of a profile, after the command line has narrowed or widened it."""

    suite: str
    profile: Profile
    grid: Grid
    tasks: tuple[Task, ...]
    methods: tuple[Method, ...]

    @property
    def scenes(self) -> tuple[str, ...]:
        """Scenes whose offline data the grid needs: the profile's, and those of its tasks."""
        suite = registry.suite(self.suite)
        own = self.grid.data.scenes or dict.fromkeys(task.scene for task in suite.tasks() if task.paper)
        return tuple(dict.fromkeys([*own, *(task.scene for task in self.tasks)]))

    @property
    def needs_data(self) -> bool:
        """Whether any method of the grid sees offline data."""
        return any(method.data_access != DataAccess.NONE or method.pretrained for method in self.methods)


def select(
    suite: str,
    profile: Profile,
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> Selection:
    """The profile's grid for a suite; empty arguments keep the profile's choice, ``all`` takes everything there is."""
    every_task = [task.name for task in registry.suite(suite).tasks()]
    grid = profile.grid(suite)
    task_names = every_task if list(tasks) == ["all"] else tasks or grid.tasks
    usable = [name for name, method in registry.methods().items() if profile.observation in method.observations]
    method_names = usable if list(methods) == ["all"] else methods or grid.methods
    grid = msgspec.structs.replace(grid, seeds=tuple(seeds or grid.seeds), tasks=tuple(task_names))
    _refuse_unknown_settings(profile)
    chosen_tasks = tuple(dict.fromkeys(registry.task(suite, name) for name in task_names))
    chosen = tuple(dict.fromkeys(registry.method(name) for name in method_names))
    for method in chosen:
        if profile.observation not in method.observations:
            raise UserError(
                f"{method.name} learns from {' or '.join(method.observations)} and the profile {profile.name!r} has "
                f"{profile.observation} observations; choose another profile or method."
            )
        foreign = [task.id for task in chosen_tasks if method.shared and not task.paper]
        if foreign:
            raise UserError(
                f"{method.name} learns the paper's tasks all at once and {', '.join(foreign)} is not among them; "
                "choose other tasks or methods."
            )
    for task in chosen_tasks:
        if task.action_dim > ACTION_PAD or task.state_dim > STATE_PAD:
            raise UserError(
                f"{task.id} has {task.action_dim} action and {task.state_dim} state dimensions; methods are built for "
                f"at most {ACTION_PAD} and {STATE_PAD}."
            )
        if grid.budget % task.episode_length:
            raise UserError(
                f"The budget of {grid.budget} environment steps is not a whole number of {task.id}'s episodes of "
                f"{task.episode_length}; change it in the profile."
            )
    if grid.sequence:
        _refuse_carrying(chosen_tasks, chosen)
    if grid.subset.irrelevant is not None:
        for method in chosen:
            if method.shared or "retrieved" not in {field.name for field in msgspec.structs.fields(method.settings)}:
                raise UserError(f"{method.name} retrieves nothing, so that no episode is irrelevant; choose another.")
    selection = Selection(suite, profile, grid, chosen_tasks, chosen)
    if profile.observation == "pixels" and selection.needs_data and not grid.data.pixels:
        raise UserError(
            f"The profile {profile.name!r} has pixel observations and its data would have no pictures; set pixels = "
            f"true in [grids.{suite}.data]."
        )
    _refuse_long_sequences(selection)
    return selection


def _refuse_carrying(tasks: Sequence[Task], methods: Sequence[Method]) -> None:
    bodies = {task.embodiment for task in tasks}
    if len(bodies) > 1:
        raise UserError(f"A sequence of tasks is of one embodiment, and these are of {', '.join(sorted(bodies))}.")
    for method in methods:
        if not method.sequential:
            raise UserError(
                f"The agent of {method.name} cannot go on from one task to the next; choose another method."
            )


def _refuse_long_sequences(selection: Selection) -> None:
    """Sequences that no episode is long enough for; and with it, whatever does not fit in settings."""
    profile, grid = selection.profile, selection.grid
    for method in selection.methods:
        its = settings(selection, method)
        length, pace = getattr(its, method.sequence) if method.sequence else 0, method.updates_per_step(its)
        for task in selection.tasks if pace else ():
            first = math.ceil(WARM_UP * grid.budget / task.action_repeat + 1 / pace)  # agent steps before it learns
            there = min(task.agent_steps, first) + 1
            if length > there:
                raise UserError(
                    f"{method.sequence} is {length} in [settings.{method.settings_name}] of the profile "
                    f"{profile.name!r}, and when {method.name} begins to learn {task.id}, no episode has more than "
                    f"{there} observations; set a shorter one or a larger budget."
                )
    length = profile.pretraining.length
    if any(method.pretrained for method in selection.methods):
        for task in registry.suite(selection.suite).tasks():
            if task.scene in selection.scenes and length > task.agent_steps + 1:
                raise UserError(
                    f"length is {length} in [pretraining] of the profile {profile.name!r}, and an episode of "
                    f"{task.scene} has no more than {task.agent_steps + 1} observations; set a shorter one."
                )


def _refuse_unknown_settings(profile: Profile) -> None:
    """Tables of no method, and names in a group's table that none of its methods knows: a method takes what it does."""
    methods = registry.methods().values()
    tables = {table for method in methods for table in (method.settings_name, method.settings_group) if table}
    for table in profile.settings:
        if table not in tables:
            raise registry.nearest("table of settings named", table, tables)
    known: dict[str, set[str]] = {}
    for method in methods:
        names = {field.name for field in msgspec.structs.fields(method.settings)}
        known.setdefault(method.settings_group, set()).update(names)
    for group, names in known.items():
        for name in profile.settings.get(group, {}):
            if name not in names:
                raise registry.nearest(f"setting of methods in [settings.{group}] named", name, names)


def settings(selection: Selection, method: Method) -> Any:
    """The method's settings: its defaults, what it shares with the profile and its group, and its own overrides."""
    shared = {"world_model": selection.profile.world_model, "retrieved": selection.grid.retrieved}
    shared["guidance"] = selection.grid.guidance
    known = {field.name for field in msgspec.structs.fields(method.settings)}
    values = {name: msgspec.to_builtins(value) for name, value in shared.items() if name in known}
    group = selection.profile.settings.get(method.settings_group, {})
    values |= {name: value for name, value in group.items() if name in known}
    values |= selection.profile.settings.get(method.settings_name, {})
    try:
        return resolve(method, values)
    except ValueError as error:
        tables = " with ".join(repr(table) for table in (method.settings_name, method.settings_group) if table)
        raise UserError(f"Settings {tables} of profile {selection.profile.name!r} do not fit: {error}.") from error


def resolve(method: Method, values: Mapping[str, Any]) -> Any:
    """A method's settings from what a profile or a record holds; ValueError if they do not fit, or ask for too much."""
    refuse_sizes(values)
    return msgspec.convert(values, method.settings)


def stages(selection: Selection, data: str) -> list[StageIdentity]:
    """Whatever runs of the grid start from, each once; ``data`` is the digest of the data set."""
    wanted = [
        stage
        for seed in selection.grid.seeds
        for task in selection.tasks
        for method in selection.methods
        if (stage := _stage(selection, method, task, data, seed)) is not None
    ]
    return list({digest(stage): stage for stage in wanted}.values())


def shared_tasks(suite: Suite, dataset: Dataset) -> tuple[Task, ...]:
    """The tasks of the multi-task grants: those of the paper whose scene the data set has."""
    present = {info.scene for info in dataset.episodes}
    return tuple(task for task in suite.tasks() if task.paper and task.scene in present)


def identities(selection: Selection, data: str | None) -> list[Identity]:
    """All runs of the grid, seed by seed so that every method has a first result early.

    ``data`` is the digest of the data set; where it is None (not collected yet) no run has its final id.
    """
    suite = registry.suite(selection.suite)
    before: dict[str, Identity] = {}
    made = []
    for seed in selection.grid.seeds:
        before.clear()
        for task in selection.tasks:
            for method in selection.methods:
                identity = _identity(selection, suite, task, method, seed, data)
                if selection.grid.sequence:
                    identity = _following(identity, before.get(method.name))
                before[method.name] = identity
                made.append(identity)
    return made


def together(selections: Sequence[Selection], data: str | None) -> dict[str, Identity]:
    """The runs of several grids, each once, by id, seed by seed so that every method has a first result early."""
    found = {digest(run): run for selection in selections for run in identities(selection, data)}
    return dict(sorted(found.items(), key=lambda item: item[1].seed))


def _following(identity: Identity, before: Identity | None) -> Identity:
    """The run in a sequence of tasks, after the run before."""
    if before is None:
        return msgspec.structs.replace(identity, earlier=())
    earlier = (*(before.earlier or ()), before.task)
    return msgspec.structs.replace(identity, earlier=earlier, after=digest(before))


def _identity(selection: Selection, suite: Suite, task: Task, method: Method, seed: int, data: str | None) -> Identity:
    profile, grid = selection.profile, selection.grid
    stage = None if data is None else _stage(selection, method, task, data, seed)
    without_data = method.data_access == DataAccess.NONE
    return Identity(
        method=method.name,
        method_version=method.version,
        suite=suite.name,
        suite_version=suite.version,
        task=task.name,
        seed=seed,
        profile=profile.name,
        observation=profile.observation,
        budget=grid.budget,
        protocol=suite.protocol(task, profile.observation)
        | {
            "evaluation_every": grid.evaluation_every,
            "evaluation_episodes": grid.evaluation_episodes,
            "precision": profile.precision,
            "inputs": profile.inputs,
        }
        | HARNESS,
        settings=msgspec.to_builtins(settings(selection, method)),
        data=None if without_data else data,
        stage=None if stage is None else digest(stage),
        subset={} if without_data or method.shared else msgspec.to_builtins(grid.subset),
    )


def _stage(selection: Selection, method: Method, task: Task, data: str, run_seed: int) -> StageIdentity | None:
    """What the method's runs of one task and seed start from."""
    profile = selection.profile
    subset = msgspec.structs.replace(selection.grid.subset, irrelevant=None)
    everywhere = subset.foreign == 1  # then tasks of all scenes start from one model
    if method.shared:
        return SharedAgentIdentity(
            method=method.name,
            method_version=method.version,
            suite=selection.suite,
            suite_version=registry.suite(selection.suite).version,
            observation=profile.observation,
            precision=profile.precision,
            discount=DISCOUNT,
            settings=msgspec.to_builtins(settings(selection, method)),
            data=data,
            seed=run_seed,
            inputs=profile.inputs,
            subset=msgspec.to_builtins(msgspec.structs.replace(subset, foreign=1.0)),
        )
    if not method.pretrained:
        return None
    pretraining = msgspec.to_builtins(profile.pretraining)
    seeds = pretraining.pop("seeds")
    return PretrainingIdentity(
        version=PRETRAINING_VERSION,
        suite=selection.suite,
        suite_version=registry.suite(selection.suite).version,
        observation=profile.observation,
        precision=profile.precision,
        world_model=profile.world_model,
        pretraining=pretraining,
        data=data,
        seed=seeds[run_seed % len(seeds)],
        inputs=profile.inputs,
        subset=msgspec.to_builtins(subset),
        scene=None if everywhere else task.scene,
    )


def new_run(identity: Identity) -> Run:
    """The record of a run that has not begun."""
    task, method = registry.task(identity.suite, identity.task), registry.method(identity.method)
    return Run(
        id=digest(identity),
        identity=identity,
        family=method.family,
        data_access=str(method.data_access),
        tuning=method.tuning,
        tuning_evaluations=method.tuning_evaluations,
        embodiment=task.embodiment,
        score=task.score,
        score_scale=task.score_scale,
        episode_length=task.episode_length,
        online=method.online,
    )
