"""A small real suite: points that move in a box. Two embodiments, relabelled from physics, and an arm with two scenes
whose rewards are recorded, as the two real suites do it. Spawned workers import it by name.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import gymnasium as gym
import msgspec
import numpy as np

from wpt_bench.data.store import Dataset, ShardWriter, seal
from wpt_bench.protocol import CollectionJob, Task, Units, episode_seed

REPEAT, FRAMES, SPEED = 2, 60, 0.25
DIMS = {"cart": (3, 1), "boat": (5, 2), "arm": (4, 2)}


class Settings(msgspec.Struct, frozen=True):
    """How much to collect, and which job goes wrong, and how."""

    episodes: int = 3
    collectors: tuple[str, ...] = ("noise", "still")
    pixels: bool = False
    trouble: str = ""  # "raise:<job>", "die:<job>", "sleep:<job>"


def _task(embodiment: str, name: str, scene: str, score: str) -> Task:
    state_dim, action_dim = DIMS[embodiment]
    return Task(
        "tiny", name, embodiment, scene, state_dim, action_dim, FRAMES, REPEAT, score, float(FRAMES), True, "top"
    )


TASKS = {
    task.name: task
    for task in (
        _task("cart", "cart-right", "cart", "return"),
        _task("cart", "cart-left", "cart", "return"),
        _task("boat", "boat-right", "boat", "return"),
        _task("arm", "arm-push", "arm-push", "success"),
        _task("arm", "arm-pull", "arm-pull", "success"),
    )
}


class Points(gym.Env):
    """``action_dim`` points in [-1, 1], moved by ``SPEED`` times the action a frame. The last number is their sum."""

    def __init__(self, task: Task, observation: str):
        self.task, self.kind = task, observation
        self.action_space = gym.spaces.Box(-1, 1, (task.action_dim,), np.float32)
        self.observation_space = (
            gym.spaces.Box(-np.inf, np.inf, (task.state_dim,), np.float32)
            if observation == "state"
            else gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.points, self.frame = self.np_random.uniform(-1, 1, self.task.action_dim), 0
        return self.observe(), {"success": 0.0}

    def step(self, action):
        total = 0.0
        for _ in range(self.task.action_repeat):
            self.advance(action)
            total += reward(self.task, self.points)
        truncated = self.frame >= self.task.episode_length
        return self.observe(), total, False, truncated, {"success": success(self.task, self.points)}

    def advance(self, action):
        self.points = np.clip(self.points + SPEED * np.asarray(action, np.float64), -1, 1)
        self.frame += 1

    def observe(self):
        return state_of(self.task, self.points) if self.kind == "state" else image_of(self.points)


def state_of(task: Task, points) -> np.ndarray:
    state = np.zeros(task.state_dim, np.float32)
    state[: len(points)] = points
    state[-1] = points.sum()
    return state


def image_of(points) -> np.ndarray:
    image = np.zeros((64, 64, 3), np.uint8)
    for channel, point in enumerate(points):
        image[:, int((point + 1) * 31), channel] = 255
    return image


def reward(task: Task, points) -> float:
    toward = -1.0 if task.name.endswith(("left", "pull")) else 1.0
    return float(1 + toward * points[0]) / 2


def success(task: Task, points) -> float:
    return float(task.score == "success" and reward(task, points) > 0.9)


class TinySuite:
    name, version = "tiny", 1

    def tasks(self):
        return tuple(TASKS.values())

    def make(self, task, observation):
        return Points(task, observation)

    def units(self, embodiment):
        scale = np.arange(1, DIMS[embodiment][0] + 1, dtype=np.float32)
        return Units(np.full_like(scale, 0.25), scale)

    def protocol(self, task, observation):
        return {"horizon": task.episode_length}

    def collection_jobs(self, settings, scenes, seed):
        return [
            CollectionJob(
                name=f"{scene}-{collector}",
                collect=partial(_collect, settings, scene, collector, seed),
                episodes=settings.episodes,
                settings={
                    "embodiment": scene.split("-")[0],
                    "scene": scene,
                    "collector": collector,
                    "episodes": settings.episodes,
                },
                play=partial(_play, settings, scene, collector, seed),
            )
            for scene in scenes
            for collector in settings.collectors
        ]

    def labels(self, dataset, task, episode):
        if task.score == "success":
            frame_reward, frame_success = dataset.frame_labels(episode)
            rewards = np.concatenate([[0], frame_reward[1:].reshape(-1, REPEAT).sum(1)])
            return rewards.astype(np.float32), np.array(frame_success[::REPEAT])
        physics = dataset.physics(episode)
        rewards = np.array([reward(task, points) for points in physics[1:]]).reshape(-1, REPEAT).sum(1)
        return np.concatenate([[0], rewards]).astype(np.float32), np.zeros(len(rewards) + 1, np.float32)


SUITE = TinySuite()


def _collect(settings, scene, collector, seed, writer, progress):
    task = next(task for task in TASKS.values() if task.scene == scene)
    for index in range(settings.episodes):
        if index == 1 and settings.trouble.partition(":")[2] == f"{scene}-{collector}":
            kind = settings.trouble.partition(":")[0]
            if kind == "raise":
                raise RuntimeError("the cart fell over")
            if kind == "die":
                os._exit(9)
            time.sleep(600)
        of_episode = episode_seed(seed, "collection", index)
        episode = record(task, of_episode, 0.0 if collector == "still" else 1.0, settings.pixels, collector == "drift")
        writer.add_episode(**episode)
        progress((index + 1) / settings.episodes, writer.name)


def _play(settings, scene, collector, seed, recorded, writer, progress):
    task = next(task for task in TASKS.values() if task.scene == scene)
    for index, action in enumerate(recorded):
        of_episode = episode_seed(seed, "collection", index)
        noise = 0.0 if collector == "still" else 1.0
        writer.add_episode(**record(task, of_episode, noise, settings.pixels, recorded=action))
        progress((index + 1) / len(recorded), writer.name)


def record(
    task: Task, seed: int, noise: float, pixels: bool = False, drift: bool = False, recorded: np.ndarray | None = None
) -> dict:
    """One episode, as ``ShardWriter.add_episode`` takes it: actions that are ``recorded``, or random ones of size
    ``noise``.

    With ``drift`` they lean one way for the whole episode, so that some episodes are good at something.
    """
    env = Points(task, "state")
    states, images = [env.reset(seed=seed)[0]], [image_of(env.points)]
    rng = np.random.default_rng([seed, 1])
    actions = [np.zeros(task.action_dim, np.float32)]
    leaning = rng.uniform(-1, 1, task.action_dim) if drift else 0.0
    physics = [env.points]
    for step in range(task.agent_steps):
        action = leaning + noise * rng.uniform(-1, 1, task.action_dim) if recorded is None else recorded[step + 1]
        actions.append(np.clip(action, -1, 1).astype(np.float32))
        for _ in range(REPEAT):
            env.advance(actions[-1])
            physics.append(env.points)
        states.append(env.observe())
        images.append(image_of(env.points))
    episode = {"state": states, "action": actions, "seed": seed, "origin": task.name, "quality": noise}
    if task.score == "return":
        episode["physics"] = physics
    else:
        episode["frame_reward"] = [0.0] + [reward(task, points) for points in physics[1:]]
        episode["frame_success"] = [0.0] + [success(task, points) for points in physics[1:]]
    if pixels:
        episode["image"] = images
    return episode


def build(
    folder: Path,
    scenes=("cart", "boat", "arm-push", "arm-pull"),
    *,
    episodes: int = 3,
    collectors=("noise", "still"),
    pixels: bool = False,
    seed: int = 0,
) -> Dataset:
    """A small data set, collected in this process."""
    settings = Settings(episodes, collectors, pixels)
    for job in SUITE.collection_jobs(settings, scenes, seed):
        with ShardWriter(
            folder,
            name=job.name,
            embodiment=job.settings["embodiment"],
            scene=job.settings["scene"],
            collector=job.settings["collector"],
            action_repeat=REPEAT,
            settings=job.settings,
        ) as writer:
            job.collect(writer, lambda fraction, what="": None)
    return seal(folder, suite="tiny", suite_version=1, name="test", seed=seed, settings={})
