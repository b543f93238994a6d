"""Rewards of other tasks for stored episodes: from physics, from the cache on disk, and the straightforward way.

The straightforward way sets dm_control's physics and asks its task, frame by frame.
"""

from __future__ import annotations

import time

import mujoco
import numpy as np
import pytest

from wpt_bench import registry
from wpt_bench.data.labels import labels
from wpt_bench.data.store import Dataset, ShardWriter, seal
from wpt_bench.suites.dmc.labels import recompute

FRAMES = 1000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """One episode of a walker that flails."""
    folder, rng = tmp_path_factory.mktemp("relabelling"), np.random.default_rng(0)
    suite, task = registry.suite("dmc"), registry.task("dmc", "walker-stand")
    env = suite.make(task, "state")
    states, physics = [env.reset(seed=1)[0]], [env.frame_physics]
    action = np.zeros((task.agent_steps + 1, task.action_dim), np.float32)
    for step in range(1, len(action)):
        action[step] = rng.uniform(-1, 1, task.action_dim)
        states.append(env.step(action[step])[0])
        physics.append(env.frame_physics)
    described = {"embodiment": "walker", "scene": "walker", "collector": "noise", "action_repeat": task.action_repeat}
    with ShardWriter(folder, name="walker-noise", settings={}, **described) as writer:
        writer.add_episode(
            state=np.stack(states), action=action, seed=1, origin=task.name, physics=np.concatenate(physics)
        )
    return seal(folder, suite="dmc", suite_version=suite.version, name="relabelling", seed=0, settings={})


@pytest.mark.parametrize("name", ["walker-stand", "walker-run"])
def test_from_physics(benchmark, dataset, name):
    task = registry.task("dmc", name)
    physics, action = np.asarray(dataset.physics(0)), np.asarray(dataset.action(0))
    made = benchmark(recompute, task, 1, physics, action)
    seconds, plain = _plain(name, physics)
    np.testing.assert_allclose(made, plain, atol=1e-5)
    if benchmark.stats is None:  # benchmarks are switched off
        return
    benchmark.extra_info.update(
        floor=_step_only(name, physics),
        floor_of="setting the state and MuJoCo's mj_step1 of every frame",
        reference=seconds,
        ratio=seconds / benchmark.stats.stats.median,
        frames_per_second=FRAMES / benchmark.stats.stats.median,
    )


def test_from_the_cache(benchmark, dataset):
    suite, task = registry.suite("dmc"), registry.task("dmc", "walker-walk")
    ((computed, _),) = labels(dataset, suite, task, [0])
    ((cached, _),) = benchmark(labels, dataset, suite, task, [0])
    np.testing.assert_array_equal(cached, computed)
    if benchmark.stats is None:
        return
    seconds, _ = _plain("walker-walk", np.asarray(dataset.physics(0)))
    (path,) = (dataset.path / "labels").glob("walker-walk*/walker-noise")
    started = time.perf_counter()
    path.read_bytes()
    benchmark.extra_info.update(
        floor=time.perf_counter() - started,
        floor_of="reading the file",
        reference=seconds,
        ratio=seconds / benchmark.stats.stats.median,
        frames_per_second=FRAMES / benchmark.stats.stats.median,
    )


def _plain(name: str, physics: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds for one episode, and its rewards per agent step."""
    simulator = registry.suite("dmc").make(registry.task("dmc", name), "state").simulator
    rewards = np.zeros(FRAMES // 2 + 1, np.float32)
    started = time.perf_counter()
    for frame, row in enumerate(physics[1:]):
        with simulator.physics.reset_context():
            simulator.physics.set_state(row)
        rewards[1 + frame // 2] += simulator.task.get_reward(simulator.physics)
    return time.perf_counter() - started, rewards


def _step_only(name: str, physics: np.ndarray) -> float:
    """Seconds of what no way can leave out: the positions that follow from each state."""
    physics_object = registry.suite("dmc").make(registry.task("dmc", name), "state").simulator.physics
    model, data = physics_object.model, physics_object.data
    started = time.perf_counter()
    with model.disable("constraint"):
        for row in physics[1:]:
            data.qpos[:] = row[: model.nq]
            data.qvel[:] = row[model.nq : model.nq + model.nv]
            mujoco.mj_step1(model.ptr, data.ptr)
    return time.perf_counter() - started
