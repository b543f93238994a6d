"""Offline data out to Minari and in from it, through the minari library and its HDF5 files.

Both sides keep T + 1 observations. Minari keeps T actions and rewards, those taken *at* an observation; ours are those
that *led to* it, after a row of zeros.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from numpy.typing import NDArray

from wpt_bench.data.labels import Labels, labels
from wpt_bench.data.store import Dataset, EpisodeInfo, ShardWriter, seal
from wpt_bench.protocol import IMAGE_SIZE, Suite, Task, UserError

MOST_TIMES = 2000
"""How many times its stored bytes an array of an HDF5 file may take in memory; no lossless compression of pictures or
numbers gets near."""
_ROOM = 2**16


def to_minari(
    dataset: Dataset, dataset_id: str, *, scene: str, suite: Suite | None = None, task: Task | None = None
) -> minari.MinariDataset:
    """Writes the episodes of one scene as a new Minari data set in Minari's own folder, one episode at a time.

    Observations are the unscaled states, or ``{"state", "image"}`` where pictures were recorded (kept without loss).
    Rewards, and ``infos["success"]``, are those of ``task``, which needs its ``suite``; without a task, rewards are 0.

    Args:
        dataset: where to take the episodes from.
        dataset_id: as Minari wants it, ``wpt-bench/walker-v0``; UserError if it exists or is malformed.
        scene: whose episodes; one Minari data set has one observation space.
        suite, task: for labels.
    """
    infos = [info for info in dataset.episodes if info.scene == scene]
    if not infos:
        raise UserError(f"The data in {dataset.path} has no episode of {scene}; choose a scene that was collected.")
    labelled: Sequence[Labels] | None = None
    if task is not None and suite is not None:
        labelled = labels(dataset, suite, task, [info.index for info in infos])
    shards = {shard.name: shard for shard in dataset.manifest.shards}
    with_image = all("image" in shards[info.shard].arrays for info in infos)
    state = gym.spaces.Box(-np.inf, np.inf, (infos[0].state_dim,), np.float32)
    image = gym.spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it asks for an author's e-mail address and the like
            return minari.create_dataset_from_buffers(
                dataset_id,
                _buffers(dataset, infos, labelled, with_image),
                observation_space=gym.spaces.Dict({"state": state, "image": image}) if with_image else state,
                action_space=gym.spaces.Box(-1, 1, (infos[0].action_dim,), np.float32),
                algorithm_name=", ".join(sorted({info.collector for info in infos})),
                description=f"wpt-bench, {dataset.suite} data {dataset.digest}, scene {scene}, "
                f"action repeat {dataset.action_repeat}, rewards of {'no task' if task is None else task.name}",
                data_format="hdf5",
                jpeg_encoding=False,
            )
    except ValueError as error:
        raise UserError(f"Minari cannot make the data set {dataset_id!r}: {error}") from error


def from_minari(
    dataset_id: str, folder: Path, *, suite: Suite, embodiment: str, scene: str, action_repeat: int
) -> Dataset:
    """Copies a local Minari data set into a new shard of the data set in ``folder``, and seals it.

    Rewards, and ``infos["success"]`` if there, become labels per environment step, those of an agent step at its last
    one. Physics is not in Minari: suites that label by physics cannot label these episodes.

    Args:
        dataset_id: of a Minari data set on this machine, as ``to_minari`` writes it: observations are states, or
            ``{"state", "image"}``; actions lie in [-1, 1]; episodes end by time limit.
        folder: of our data set; existing shards are kept.
        suite: that the data belongs to.
        embodiment, scene: as in ``protocol.Task``.
        action_repeat: environment steps per step of the Minari data.

    Raises:
        UserError: there is no such data set, it has other spaces, or an episode terminates.
    """
    try:
        source = minari.load_dataset(dataset_id)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"Minari has no data set {dataset_id!r} on this machine: {error}") from error
    for path in sorted(Path(source.storage.data_path).glob("*.hdf5")):
        _refuse_hostile(path)
    name = dataset_id.replace("/", "-")
    with ShardWriter(
        folder,
        name=name,
        embodiment=embodiment,
        scene=scene,
        collector="minari",
        action_repeat=action_repeat,
        settings={"dataset_id": dataset_id},
    ) as writer:
        metadata = source.storage.get_episode_metadata(source.episode_indices)
        for episode, about in zip(source.iterate_episodes(), metadata, strict=True):
            observations = episode.observations
            if not isinstance(observations, dict):
                observations = {"state": observations}
            if "state" not in observations or np.ndim(observations["state"]) != 2 or np.ndim(episode.actions) != 2:
                raise UserError(f"Minari's {dataset_id!r} has no flat states and actions; convert its spaces first.")
            if np.any(episode.terminations):
                raise UserError(f"Episode {episode.id} of {dataset_id!r} terminates; only time limits are supported.")
            options = about.get("options", {})
            writer.add_episode(
                state=observations["state"],
                image=observations.get("image"),
                action=_shifted(episode.actions),
                frame_reward=_per_frame(_shifted(episode.rewards), action_repeat),
                frame_success=_per_frame(
                    np.asarray((episode.infos or {}).get("success", _zeros(episode))), action_repeat
                ),
                seed=int(about.get("seed") or 0),
                origin=str(options.get("origin", scene)),
                quality=options.get("quality"),
            )
    return seal(folder, suite=suite.name, suite_version=suite.version, name=folder.name, seed=0, settings={})


def _refuse_hostile(path: Path) -> None:
    """Raises UserError if an HDF5 file leads to other files, or declares arrays that it does not hold."""

    def look(group: Any) -> None:
        for name in group:
            where = f"{path} has {group.name.rstrip('/')}/{name}, which"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise UserError(f"{where} leads elsewhere; do not trust this data.")
            item = group[name]
            if isinstance(item, h5py.Group):
                look(item)
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise UserError(f"{where} leads to other files; do not trust this data.")
                if item.nbytes > MOST_TIMES * item.id.get_storage_size() + _ROOM:
                    raise UserError(f"{where} declares {item.nbytes} bytes and holds none of them; do not trust it.")

    try:
        with h5py.File(path, "r") as file:
            look(file)
    except (OSError, RuntimeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as the file of a Minari data set ({error}).") from error


def _buffers(
    dataset: Dataset, infos: Sequence[EpisodeInfo], labelled: Sequence[Labels] | None, with_image: bool
) -> Iterator[EpisodeBuffer]:
    for position, info in enumerate(infos):
        state = dataset.state(info.index)
        last = np.arange(1, info.length + 1) == info.length
        reward, success = labelled[position] if labelled is not None else (np.zeros(info.length + 1, np.float32), None)
        options: dict[str, Any] = {"origin": info.origin, "collector": info.collector}
        if info.quality is not None:
            options["quality"] = info.quality
        yield EpisodeBuffer(
            id=position,
            seed=info.seed,
            options=options,
            observations={"state": state, "image": dataset.image(info.index)} if with_image else state,
            actions=dataset.action(info.index)[1:],
            rewards=reward[1:],
            terminations=np.zeros(info.length, bool),
            truncations=last,
            infos=None if success is None else {"success": success},
        )


def _shifted(taken: NDArray[Any]) -> NDArray[np.float32]:
    """From what was done at each observation to what led to it: a row of zeros in front."""
    return np.concatenate([np.zeros((1, *np.shape(taken)[1:]), np.float32), np.asarray(taken, np.float32)])


def _zeros(episode: Any) -> NDArray[np.float32]:
    return np.zeros(len(episode.rewards) + 1, np.float32)


def _per_frame(label: NDArray[Any], repeat: int) -> NDArray[np.float32]:
    """Labels (T + 1,) of agent steps spread over environment steps: each at the last frame of its step."""
    frames = np.zeros((len(label) - 1) * repeat + 1, np.float32)
    frames[::repeat] = label
    return frames
