"""Stages, made once and used by several runs: the pre-trained world model, and agents that all tasks share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from filelock import FileLock
from numpy.typing import NDArray

from wpt_bench import records, registry
from wpt_bench.data.sequences import split
from wpt_bench.data.store import Dataset
from wpt_bench.data.views import EpisodeView, grant
from wpt_bench.profiles import Pretraining, Subset
from wpt_bench.protocol import AgentContext, DataAccess, Progress, UserError, episode_seed
from wpt_bench.running import checkpoint, inputs
from wpt_bench.running.plan import (
    Layout,
    PretrainingIdentity,
    SharedAgentIdentity,
    StageIdentity,
    resolve,
    shared_tasks,
)
from wpt_bench.running.provenance import provenance
from wpt_bench.running.subset import choose
from wpt_bench.wpt.pretraining import Example, Pretrainer, open_loop_error, validation_loss

VALIDATIONS = 10
"""Validations along a pre-training."""
VALIDATION_BATCH = 16
OPEN_LOOP_CHUNKS = 64
_FAILURE = "failure.json"
_PUBLISHED = "runs.jsonl"
"""What a published folder has and an output folder has not; see ``analysis.archive``, which running does not know."""


class Stage(msgspec.Struct, forbid_unknown_fields=True):
    """Contents of ``stage.json``, written when a stage has ended.

    Attributes:
        curve: rows of ``update``, ``training`` metrics and, of a pre-training, ``held_out`` losses by embodiment.
        open_loop: of a pre-training, one row per embodiment, of ``wpt.pretraining.open_loop_error``.
        notes, files, checksum: as in ``records.Run``.
    """

    id: str
    identity: dict[str, Any]
    provenance: dict[str, Any]
    wall_clock: float
    curve: list[dict[str, Any]]
    open_loop: list[dict[str, Any]]
    notes: list[str] = []
    files: dict[str, str] = {}
    checksum: str = ""


def read_stage(layout: Layout, stage_id: str) -> Stage | None:
    """The record of a finished stage, or None."""
    path = layout.record(stage_id)
    if not path.exists():
        return None
    try:
        return records.decode_checked(path.read_bytes(), Stage)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UserError(f"{path} is damaged ({error}); {_again(path.parent)}") from error


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of ``failure.json``, which is there from when a stage has failed for good until it is made again.

    Attributes:
        sentence: why, for people; ``trace`` is the traceback, empty where its process died.
    """

    sentence: str
    trace: str


def keep_failure(layout: Layout, stage_id: str, failure: Failure) -> Path:
    """Writes ``failure.json``, replacing the one before, and returns its path."""
    folder = layout.stage(stage_id)
    records.make_folder(folder)
    records.write_atomic(folder / _FAILURE, msgspec.json.format(msgspec.json.encode(failure), indent=1))
    return folder / _FAILURE


def why_failed(layout: Layout, stage_id: str) -> str | None:
    """A sentence if a stage failed when it was last made, which names the file with the traceback; else None."""
    path = layout.stage(stage_id) / _FAILURE
    if path.with_name("stage.json").exists():  # another process has made it meanwhile
        return None
    try:
        failure = msgspec.json.decode(path.read_bytes(), type=Failure)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        return f"{path} cannot be read as why a stage failed: {' '.join(str(error).split())}."
    return f"its stage failed, with the traceback in {path}: {failure.sentence}"


def is_done(layout: Layout, stage_id: str) -> bool:
    """Whether a stage has ended and its weights are there; UserError if they are damaged."""
    stage = read_stage(layout, stage_id)
    if stage is None or not layout.weights(stage_id).exists():
        return False
    if damage := _damage(stage, layout.weights(stage_id)):
        raise UserError(f"{damage}; {_again(layout.stage(stage_id))}")
    return True


def whole_weights(layout: Layout, stage_id: str) -> Path:
    """The weights of a finished stage; UserError if there are none, or they are not those that it ended with."""
    if not is_done(layout, stage_id):
        raise UserError(f"The stage {stage_id} is not in {layout.out / 'stages'}; make it: wpt-bench pretrain.")
    return layout.weights(stage_id)


def _damage(stage: Stage, path: Path) -> str | None:
    """What is wrong with one of a stage's files, if it was there when the stage ended."""
    return records.damaged({path.name: expected}, path.parent) if (expected := stage.files.get(path.name)) else None


def _again(folder: Path) -> str:
    """What to do about a damaged stage; nothing of a published folder can be made again in its place."""
    published = folder.parents[1]
    if (published / _PUBLISHED).is_file():
        return f"do not trust {published}; get it again or do without it."
    return f"delete {folder}, and the same command makes it again."


def make(
    identity: StageIdentity,
    layout: Layout,
    data: Path,
    progress: Progress,
    *,
    device: str = "cpu",
    checkpoint_seconds: float = checkpoint.SECONDS,
) -> None:
    """Makes a stage, or goes on with it from its last checkpoint; returns at once if it is done."""
    stage_id = records.digest(identity)
    folder = layout.stage(stage_id)
    records.make_folder(folder)
    with FileLock(folder / ".lock"):
        records.sweep(folder)
        if is_done(layout, stage_id):
            return
        (folder / _FAILURE).unlink(missing_ok=True)
        dataset = Dataset.open(data)
        if isinstance(identity, PretrainingIdentity):
            made = _pretrain(identity, dataset, folder, progress, device, checkpoint_seconds)
        else:
            made = _train_shared(identity, dataset, folder, progress, device, checkpoint_seconds)
        records.write_atomic(layout.weights(stage_id), checkpoint.encode(made.weights))
        if made.examples:
            records.write_atomic(layout.examples(stage_id), _encode(made.examples))
        left = [path for path in (layout.weights(stage_id), layout.examples(stage_id)) if path.is_file()]
        stage = Stage(
            id=stage_id,
            identity=msgspec.to_builtins(identity),
            provenance=provenance(),
            wall_clock=made.learned.seconds,
            curve=made.learned.curve,
            open_loop=made.open_loop,
            notes=made.learned.notes,
            files={path.name: records.sha256(path) for path in left},
        )
        records.write_atomic(layout.record(stage_id), records.encode_checked(stage))
        checkpoint.clear(folder)


class _Learned(msgspec.Struct, frozen=True):
    """How far ``_learn`` has come: what a checkpoint holds beside the learner's state, which is under ``learner/``."""

    stage_updates: int
    curve: list[dict[str, Any]]
    seconds: float
    notes: list[str]


@dataclass(frozen=True)
class _Made:
    """What a stage leaves behind; see ``Stage``. A pre-training also leaves an example for each embodiment."""

    weights: dict[str, Any]
    learned: _Learned
    open_loop: list[dict[str, Any]] = field(default_factory=list)
    examples: dict[str, Example] = field(default_factory=dict)


def _pretrain(
    identity: PretrainingIdentity,
    dataset: Dataset,
    folder: Path,
    progress: Progress,
    device: str,
    checkpoint_seconds: float,
) -> _Made:
    """A world model, from every offline episode but the held-out ones."""
    seed = identity.seed
    settings = msgspec.convert(identity.pretraining, Pretraining)
    training, held_out = _split(identity, dataset, settings.held_out)
    everything = [episode for episodes in training.values() for episode in episodes]
    kind = (identity.observation, identity.precision)
    pretrainer = Pretrainer(everything, identity.world_model, settings, *kind, seed, device)

    def validate() -> dict[str, Any]:
        return {"held_out": _validate(pretrainer, held_out, settings.length, seed, device)}

    hint = "lower `learning_rate` of the profile's [pretraining]"
    learned = _learn(pretrainer, settings.updates, folder, progress, checkpoint_seconds, hint, validate)
    open_loop, examples = [], {}
    for embodiment, episodes in held_out.items():
        errors, examples[embodiment] = open_loop_error(
            pretrainer.world_model, episodes, training[embodiment], OPEN_LOOP_CHUNKS, _validation_seed(seed), device
        )
        open_loop.append({"embodiment": embodiment} | errors)
    return _Made(pretrainer.world_model.state_dict(), learned, open_loop, examples)


def _train_shared(
    identity: SharedAgentIdentity,
    dataset: Dataset,
    folder: Path,
    progress: Progress,
    device: str,
    checkpoint_seconds: float,
) -> _Made:
    """One agent for all tasks of the multi-task grant, trained offline."""
    method, suite = registry.method(identity.method), inputs.suite(identity.suite, identity.inputs)
    settings: Any = resolve(method, identity.settings)
    tasks = shared_tasks(suite, dataset)
    task = tasks[0]
    agent = method.build(
        AgentContext(
            task=task,
            observation=identity.observation,
            units=suite.units(task.embodiment),
            seed=identity.seed,
            budget=0,
            data=grant(
                *(dataset, method.data_access, task, suite, identity.observation, tasks, progress),
                indices=choose(dataset, msgspec.convert(identity.subset, Subset), None),
            ),
            settings=settings,
            pretrained=None,
            initial_observation=np.zeros(0, np.float32),  # no episode is ever begun
            device=device,
            precision=identity.precision,
            tasks=tasks,
        )
    )
    agent.offline(progress)
    hint = f"lower the step size in the profile's [settings.{method.settings_name}]"
    updates = method.offline_updates(settings)
    learned = _learn(agent, updates, folder, progress, checkpoint_seconds, hint)
    weights = {key: value for key, value in agent.state_dict().items() if not key.count("optimizer")}
    return _Made(weights, learned)


class _Learner(Protocol):
    def update(self) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def _learn(
    learner: _Learner,
    total: int,
    folder: Path,
    progress: Progress,
    checkpoint_seconds: float,
    hint: str,
    validate: Callable[[], dict[str, Any]] = dict,
) -> _Learned:
    """``total`` updates, from the last checkpoint if there is one; the curve has ``VALIDATIONS`` rows."""
    started = time.monotonic()
    state, problems = checkpoint.load(folder, _so_far)
    so_far = _so_far(state) if state is not None else _Learned(0, [], 0.0, [])
    updates, curve = so_far.stage_updates, so_far.curve
    notes = so_far.notes + checkpoint.note(problems, state is not None)
    if state is not None:
        try:
            learner.load_state_dict({key.removeprefix("learner/"): value for key, value in state.items()})
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise UserError(f"The checkpoint in {folder} does not fit ({error}); {_again(folder)}") from error
    saved, every = time.monotonic(), max(1, total // VALIDATIONS)

    def now() -> _Learned:
        return _Learned(updates, curve, so_far.seconds + time.monotonic() - started, notes)

    while updates < total:
        metrics = learner.update()
        updates += 1
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise UserError(f"{name} became {value} at offline update {updates}; {hint}.")
        if updates % every == 0:
            curve.append({"update": updates, "training": metrics} | validate())
        progress(updates / total, f"{updates:,} offline updates")
        if time.monotonic() - saved >= checkpoint_seconds:
            state = {f"learner/{key}": value for key, value in learner.state_dict().items()}
            checkpoint.save(folder, updates, state | msgspec.structs.asdict(now()))
            saved = time.monotonic()
    return now()


def _so_far(state: Mapping[str, Any]) -> _Learned:
    try:
        return msgspec.convert(state, _Learned)
    except msgspec.ValidationError as error:
        raise checkpoint.Damaged(f"a checkpoint is none of a stage ({error})") from error


def _split(
    identity: PretrainingIdentity, dataset: Dataset, share: float
) -> tuple[dict[str, list[EpisodeView]], dict[str, list[EpisodeView]]]:
    """Training and held-out episodes by embodiment, for the validation alone: no model sees the names."""
    suite = inputs.suite(identity.suite, identity.inputs)
    chosen = choose(dataset, msgspec.convert(identity.subset, Subset), identity.scene)
    view = grant(dataset, DataAccess.REWARD_FREE, suite.tasks()[0], suite, identity.observation, indices=chosen)
    episodes = view.episodes()
    infos = [dataset.episodes[index] for index in chosen]
    scenes = [info.scene for info in infos]

    def group(members: Sequence[int]) -> dict[str, list[EpisodeView]]:
        groups: dict[str, list[EpisodeView]] = {}
        for member in members:
            groups.setdefault(infos[member].embodiment, []).append(episodes[member])
        return groups

    training, held_out = split(scenes, share, identity.seed)
    return group(training), group(held_out)


def _validate(
    pretrainer: Pretrainer, held_out: dict[str, list[EpisodeView]], length: int, seed: int, device: str
) -> dict[str, Any]:
    """Held-out losses by embodiment; the same batch at every validation."""
    return {
        embodiment: validation_loss(
            pretrainer.world_model, episodes, length, VALIDATION_BATCH, _validation_seed(seed), device
        )
        for embodiment, episodes in held_out.items()
    }


def _validation_seed(seed: int) -> int:
    return episode_seed(seed, "validation", 0)


def open_loop(layout: Layout, stage_ids: Sequence[str]) -> dict[str, Any]:
    """What a report shows of several pre-trainings: ``open_loop`` and ``open_loop_examples``, see the two below; and
    what each took: ``pretraining``."""
    return {
        "pretraining": [
            {"stage": stage.id, "updates": stage.identity["pretraining"]["updates"], "wall_clock": stage.wall_clock}
            for stage in _finished(layout, stage_ids)
            if "pretraining" in stage.identity
        ],
        "open_loop": open_loop_rows(layout, stage_ids),
        "open_loop_examples": open_loop_examples(layout, stage_ids),
    }


def open_loop_rows(layout: Layout, stage_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Open-loop rows of several pre-trainings, each with its seed and kind of observation."""
    return [
        {"stage": stage.id, "seed": stage.identity["seed"], "observation": stage.identity["observation"]} | row
        for stage in _finished(layout, stage_ids)
        for row in stage.open_loop
    ]


def open_loop_examples(layout: Layout, stage_ids: Sequence[str]) -> list[dict[str, Any]]:
    """For each of several finished pre-trainings its examples, as plain arrays.

    Returns:
        ``stage``, ``seed``; ``embodiments``: by name ``truth``, ``predicted`` and, of states, ``dimension`` (see
        ``wpt.pretraining.Example``), nothing if the pre-training kept none, as one made by an older version;
        ``damage``: a sentence if its file cannot be read.
    """
    found = []
    for stage in _finished(layout, stage_ids):
        row: dict[str, Any] = {"stage": stage.id, "seed": stage.identity["seed"], "embodiments": {}, "damage": ""}
        path = layout.examples(stage.id)
        try:
            if path.exists():
                if _damage(stage, path):
                    raise ValueError("its checksum differs")
                examples = _decode(path.read_bytes())
                row["embodiments"] = {
                    errors["embodiment"]: examples[errors["embodiment"]] for errors in stage.open_loop
                }
        except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
            row["damage"] = f"{path} is damaged ({error}); {_again(path.parent)}"
        found.append(row)
    return found


def _finished(layout: Layout, stage_ids: Sequence[str]) -> list[Stage]:
    return [stage for stage_id in stage_ids if (stage := read_stage(layout, stage_id)) is not None]


def _encode(examples: Mapping[str, Example]) -> bytes:
    """Examples by embodiment as a safetensors file: ``<embodiment>/truth``, ``<embodiment>/predicted``, ..."""
    parts = {embodiment: vars(example) for embodiment, example in examples.items()}
    return safetensors.numpy.save(
        {
            f"{embodiment}/{name}": np.ascontiguousarray(array)
            for embodiment, example in parts.items()
            for name, array in example.items()
            if array is not None
        }
    )


def _decode(data: bytes) -> dict[str, dict[str, NDArray[Any]]]:
    """Inverse of ``_encode``; KeyError if an embodiment lacks its truth or prediction."""
    examples: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in safetensors.numpy.load(data).items():
        embodiment, _, part = name.rpartition("/")
        examples.setdefault(embodiment, {})[part] = array
    for embodiment, example in examples.items():
        if not {"truth", "predicted"} <= set(example):
            raise KeyError(f"{embodiment} lacks its truth or prediction")
    return examples
