"""Offline data of Meta-World: its own scripted policies, made better and worse by Gaussian action noise.

Scores count success at an episode's last step, and the policies go on after they have succeeded: that of door-open
pushes the door past its goal, without noise in every episode. So the hand rests, but for the noise, while the last
frame was a success, as an agent's would that is rewarded for the same.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wpt_bench.suites.metaworld import NAMES
from wpt_bench.suites.metaworld.camera import Camera
from wpt_bench.suites.metaworld.simulator import Simulator
from wpt_bench.suites.rendering import without_graphics

with without_graphics():
    from metaworld.policies import ENV_POLICY_MAP

from wpt_bench.protocol import CollectionJob, Progress, Task, episode_seed

SIGMAS = (0.0, 0.3, 0.6, 1.0, 1.5, 2.0)
"""Standard deviations of the action noise; one is drawn for each episode, and is its recorded quality."""

_EPISODES_PER_SCENE = 1_000_000  # room in the numbering of episodes, so that scenes never share a seed


def job(task: Task, episodes: int, seed: int, pixels: bool) -> CollectionJob:
    """Collects ``episodes`` episodes of one scene; the same seed gives the same episodes whatever else is collected."""
    return CollectionJob(
        name=task.scene,
        collect=partial(_collect, task, episodes, seed, pixels),
        episodes=episodes,
        settings={
            "collector": "scripted",
            "in_success": "rests",
            "embodiment": task.embodiment,
            "scene": task.scene,
            "episodes": episodes,
            "sigmas": list(SIGMAS),
            "pixels": pixels,
        },
    )


def noise_level(seed: int) -> float:
    """Sigma of the episode of ``seed``: uniform over SIGMAS."""
    return float(np.random.default_rng([seed, 1]).choice(SIGMAS))


def rollout(
    simulator: Simulator, task: Task, seed: int, sigma: float, camera: Camera | None = None
) -> dict[str, NDArray[Any]]:
    """One episode of the scripted policy of ``task`` with action noise, as ``ShardWriter.add_episode`` takes it.

    Returns float32 ``state`` (T + 1, 39), ``action`` (T + 1, 4) clipped to [-1, 1], ``frame_reward`` and
    ``frame_success`` (T * action_repeat + 1,); with a camera also uint8 ``image`` (T + 1, 64, 64, 3).
    """
    rng = np.random.default_rng([seed, 2])
    policy_class: Any = ENV_POLICY_MAP[f"{task.name}-v3"]
    policy = policy_class()
    state = np.zeros((task.agent_steps + 1, task.state_dim), np.float32)
    action = np.zeros((task.agent_steps + 1, task.action_dim), np.float32)
    frame_reward = np.zeros(task.episode_length + 1, np.float32)
    frame_success = np.zeros(task.episode_length + 1, np.float32)

    image = []

    observation = simulator.reset(seed)
    state[0] = observation
    if camera is not None:
        image.append(camera.image())
    frame = 0
    for step in range(1, task.agent_steps + 1):
        with warnings.catch_warnings():
            # Some policies shift positions inside the observation they are given, and all warn that they overshoot.
            warnings.simplefilter("ignore")
            wanted = np.asarray(policy.get_action(observation.copy()))
        wanted[:3] *= 1.0 - frame_success[frame]
        action[step] = np.clip(wanted + sigma * rng.standard_normal(task.action_dim), -1.0, 1.0)
        for _ in range(task.action_repeat):
            frame += 1
            observation, frame_reward[frame], frame_success[frame] = simulator.step(action[step])
        state[step] = observation
        if camera is not None:
            image.append(camera.image())
    arrays = {"state": state, "action": action, "frame_reward": frame_reward, "frame_success": frame_success}
    return arrays | ({"image": np.stack(image)} if image else {})


def _collect(task: Task, episodes: int, seed: int, pixels: bool, writer: Any, progress: Progress) -> None:
    simulator = Simulator(task.name)
    camera = Camera(simulator) if pixels else None
    for index in range(episodes):
        episode = episode_seed(seed, "collection", NAMES.index(task.name) * _EPISODES_PER_SCENE + index)
        sigma = noise_level(episode)
        arrays = rollout(simulator, task, episode, sigma, camera)
        writer.add_episode(seed=episode, origin=task.name, quality=sigma, **arrays)
        progress((index + 1) / episodes, f"{task.scene}: episode {index + 1} of {episodes}")
    if camera is not None:
        camera.close()
    simulator.close()
