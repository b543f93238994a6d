"""Shared pre-training: one world model per suite, data set and pre-training seed, for every run that asks for it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock

from wpt_bench import records, registry
from wpt_bench.data.sequences import split
from wpt_bench.data.store import Dataset
from wpt_bench.data.views import EpisodeView, grant
from wpt_bench.profiles import Pretraining
from wpt_bench.protocol import DataAccess, Progress, UserError, episode_seed
from wpt_bench.running import checkpoint
from wpt_bench.running.plan import Layout, StageIdentity
from wpt_bench.running.provenance import provenance
from wpt_bench.wpt.pretraining import Pretrainer, open_loop_error, validation_loss

CHECKPOINT_SECONDS = 30.0
VALIDATIONS = 10
"""Validations along a pre-training."""
VALIDATION_BATCH = 16
OPEN_LOOP_CHUNKS = 64


class Stage(msgspec.Struct, forbid_unknown_fields=True):
    """Contents of ``stage.json``, written when a pre-training has ended.

    Attributes:
        curve: one row per validation: ``update``, training loss and, by embodiment, held-out loss.
        open_loop: one row per embodiment, of ``wpt.pretraining.open_loop_error``.
    """

    id: str
    identity: dict[str, Any]
    provenance: dict[str, Any]
    wall_clock: float
    curve: list[dict[str, Any]]
    open_loop: list[dict[str, Any]]


def read_stage(layout: Layout, stage_id: str) -> Stage | None:
    """The record of a finished pre-training, or None."""
    path = layout.stage(stage_id) / "stage.json"
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Stage)
    except msgspec.DecodeError as error:
        raise UserError(f"{path} is damaged ({error}); delete {path.parent} to pre-train again.") from error


def is_done(layout: Layout, stage_id: str) -> bool:
    """Whether a pre-training has ended and its weights are there."""
    return layout.weights(stage_id).exists() and read_stage(layout, stage_id) is not None


def pretrain(
    identity: StageIdentity,
    layout: Layout,
    data: Path,
    progress: Progress,
    *,
    device: str = "cpu",
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Pre-trains a world model, or goes on from its last checkpoint; returns at once if it is done."""
    stage_id = records.digest(identity)
    folder = layout.stage(stage_id)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if is_done(layout, stage_id):
            return
        seed = identity.seed
        settings = msgspec.convert(identity.pretraining, Pretraining)
        training, held_out = _split(identity, Dataset.open(data), settings.held_out)
        everything = [episode for episodes in training.values() for episode in episodes]
        kind = (identity.observation, identity.precision)
        pretrainer = Pretrainer(everything, identity.world_model, settings, *kind, seed, device)
        curve: list[dict[str, Any]] = []
        clock, started = 0.0, time.monotonic()
        state = checkpoint.load(folder)
        if state is not None:
            pretrainer.load_state_dict(state)
            curve, clock = state["curve"], state["wall_clock"]
        saved, total = time.monotonic(), settings.updates
        every = max(1, total // VALIDATIONS)
        metrics: dict[str, float] = {}
        while pretrainer.updates < total:
            metrics = pretrainer.update()
            if not math.isfinite(metrics["world_model_loss"]):
                raise UserError(
                    f"The world model's loss became {metrics['world_model_loss']} at pre-training update "
                    f"{pretrainer.updates}; lower `learning_rate` of the profile's [pretraining]."
                )
            if pretrainer.updates % every == 0:
                losses = _validate(pretrainer, held_out, settings.length, seed, device)
                curve.append({"update": pretrainer.updates, "training": metrics, "held_out": losses})
            progress(pretrainer.updates / total, f"loss {metrics['world_model_loss']:.2f}")
            if time.monotonic() - saved >= checkpoint_seconds:
                state = pretrainer.state_dict()
                state |= {"curve": curve, "wall_clock": clock + time.monotonic() - started}
                checkpoint.save(folder, pretrainer.updates, state)
                saved = time.monotonic()
        open_loop = [
            {"embodiment": embodiment}
            | open_loop_error(
                pretrainer.world_model, episodes, training[embodiment], OPEN_LOOP_CHUNKS, _validation_seed(seed), device
            )
            for embodiment, episodes in held_out.items()
        ]
        records.write_atomic(layout.weights(stage_id), checkpoint.encode(pretrainer.world_model.state_dict()))
        seconds = clock + time.monotonic() - started
        stage = Stage(stage_id, msgspec.to_builtins(identity), provenance(), seconds, curve, open_loop)
        records.write_atomic(folder / "stage.json", msgspec.json.format(msgspec.json.encode(stage), indent=1))
        checkpoint.clear(folder)


def _split(
    identity: StageIdentity, dataset: Dataset, share: float
) -> tuple[dict[str, list[EpisodeView]], dict[str, list[EpisodeView]]]:
    """Training and held-out episodes by embodiment, for the validation alone: no model sees the names."""
    suite = registry.suite(identity.suite)
    view = grant(dataset, DataAccess.REWARD_FREE, suite.tasks()[0], suite, identity.observation)
    episodes = view.episodes()
    scenes = [info.scene for info in dataset.episodes]

    def group(indices: Sequence[int]) -> dict[str, list[EpisodeView]]:
        groups: dict[str, list[EpisodeView]] = {}
        for index in indices:
            groups.setdefault(dataset.episodes[index].embodiment, []).append(episodes[index])
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


def open_loop_rows(layout: Layout, stage_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Open-loop rows of several pre-trainings, each with its seed."""
    stages = [stage for stage_id in stage_ids if (stage := read_stage(layout, stage_id)) is not None]
    return [{"stage": stage.id, "seed": stage.identity["seed"]} | row for stage in stages for row in stage.open_loop]
