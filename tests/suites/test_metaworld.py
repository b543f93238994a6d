"""The Meta-World suite against the real simulator."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wpt_bench.data.store import Dataset, ShardWriter, seal
from wpt_bench.protocol import UserError, episode_seed
from wpt_bench.suites.metaworld import NAMES, SUITE
from wpt_bench.suites.metaworld.collect import SIGMAS, noise_level, rollout
from wpt_bench.suites.metaworld.env import MetaWorldEnv
from wpt_bench.suites.metaworld.simulator import Simulator

TASKS = {task.name: task for task in SUITE.tasks()}
STEPS = 6
_CHILD = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from test_metaworld import SUITE, TASKS, trajectory
print(hashlib.sha256(trajectory(SUITE.make(TASKS["peg-insert-side"], "state"), 3).tobytes()).hexdigest())
"""


def checked(env) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # An object's coordinates have no bounds in Meta-World, and some goals are fixed.
        warnings.filterwarnings("ignore", message=".*(infinity|values are equal).*")
        check_env(env, skip_render_check=True)


def trajectory(env, seed: int, steps: int = STEPS) -> np.ndarray:
    """Observations, rewards and successes of one episode's start under random actions of ``seed``, as one array."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, 4)).astype(np.float32)
    rows = [np.append(env.reset(seed=seed)[0], (0.0, 0.0))]
    for action in actions:
        observation, reward, _, _, info = env.step(action)
        assert observation in env.observation_space
        rows.append(np.append(observation, (reward, info["success"])))
    return np.array(rows)


@pytest.fixture(scope="module", params=NAMES)
def env(request) -> Iterator[MetaWorldEnv]:
    env = SUITE.make(TASKS[request.param], "state")
    yield env
    env.close()


def test_first_observation_is_where_things_are(env):
    first, _ = env.reset(seed=3)
    assert first in env.observation_space
    mujoco.mj_forward(env._simulator.model, env._simulator.data)
    inner = env._simulator._env
    objects, goal = inner._get_pos_objects(), inner._get_pos_goal()
    np.testing.assert_allclose(first[4:7], objects[:3], atol=1e-6)
    if len(objects) == 6:
        np.testing.assert_allclose(first[11:14], objects[3:], atol=1e-6)
    np.testing.assert_allclose(first[36:], goal, atol=1e-6)
    np.testing.assert_array_equal(first[18:36], first[:18])
    # Independent of how we rebuild it: nothing jumps when the simulator takes its first step.
    second, _, _ = env._simulator.step(np.zeros(4, np.float32))
    moved = np.abs(second - first)
    assert moved[[0, 1, 2, 4, 5, 6, 11, 12, 13]].max() < 0.015
    assert moved[36:].max() < 1e-5
    np.testing.assert_allclose(second[18:36], first[:18], atol=1e-6)


def test_same_seed_same_trajectory_whatever_came_before(env):
    before = trajectory(env, 11)
    other = trajectory(env, 12)
    env.reset()
    np.testing.assert_array_equal(trajectory(env, 11), before)
    assert not np.array_equal(other[0], before[0])  # another seed, another episode
    fresh = SUITE.make(env._task, "state")
    np.testing.assert_array_equal(trajectory(fresh, 11), before)
    fresh.close()


@pytest.mark.parametrize("name", ["bin-picking", "door-open", "hammer", "reach", "stick-pull"])
def test_environment_check(name):
    checked(SUITE.make(TASKS[name], "state"))


def test_same_trajectory_in_another_process():
    here = trajectory(SUITE.make(TASKS["peg-insert-side"], "state"), 3)
    command = [sys.executable, "-c", _CHILD, __file__.rpartition("/")[0]]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
    assert there == hashlib.sha256(here.tobytes()).hexdigest()


def test_table_is_metaworlds_own_list():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert sorted(f"{name}-v3" for name in NAMES) == sorted(ALL_V3_ENVIRONMENTS)
    assert len(TASKS) == 50
    assert all(task.paper and task.scene == task.name and task.agent_steps == 100 for task in SUITE.tasks())
    assert TASKS["door-open"].id == "mw/door-open"


def test_importing_the_suite_loads_no_simulator():
    code = (
        "import sys, wpt_bench.suites.metaworld as m; m.SUITE.tasks(); m.SUITE.units('sawyer');"
        "sys.exit(any(name in sys.modules for name in ('mujoco', 'metaworld', 'torch')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_episode_is_truncated_after_200_environment_steps():
    task = TASKS["reach"]
    env = SUITE.make(task, "state")
    with pytest.raises(Exception, match="reset"):
        env.step(np.zeros(4, np.float32))
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(100)]
    assert ends == [(False, False)] * 99 + [(False, True)]
    with pytest.raises(Exception, match="reset"):
        env.step(np.zeros(4, np.float32))


def test_agent_step_is_two_environment_steps():
    task = TASKS["drawer-open"]
    env, simulator = SUITE.make(task, "state"), Simulator(task.name)
    env.reset(seed=4)
    simulator.reset(4)
    for action in np.random.default_rng(0).uniform(-3, 3, (20, 4)).astype(np.float32):
        observation, reward, _, _, info = env.step(action)
        clipped = np.clip(action, -1, 1)
        _, first, _ = simulator.step(clipped)
        second_observation, second, success = simulator.step(clipped)
        np.testing.assert_array_equal(observation, second_observation.astype(np.float32))
        assert reward == first + second
        assert info["success"] == success


def test_unseeded_resets_follow_the_last_seed():
    env = SUITE.make(TASKS["push"], "state")
    env.reset(seed=1)
    first = [env.reset()[0] for _ in range(2)]
    env.reset(seed=1)
    np.testing.assert_array_equal(first, [env.reset()[0] for _ in range(2)])
    assert not np.array_equal(*first)


def test_goals_fill_their_range():
    """Over 40 seeds the drawer stands all over its 20 cm, not at one frozen place."""
    env = SUITE.make(TASKS["drawer-open"], "state")
    x = [env.reset(seed=seed)[0][4] for seed in range(40)]
    assert min(x) < -0.07
    assert max(x) > 0.07


def test_reward_reads_the_objects_in_place():
    """These two rewards depend on positions that Meta-World reads before it has moved the objects."""
    simulator = Simulator("dial-turn")
    simulator.reset(3)
    inner = simulator._env
    offset = np.array([0.05, 0.02, 0.09])
    np.testing.assert_allclose(inner.dial_push_position, inner._get_pos_objects() + offset, atol=1e-9)
    simulator = Simulator("window-open")
    simulator.reset(3)
    inner = simulator._env
    np.testing.assert_allclose(inner.window_handle_pos_init, inner._get_pos_objects(), atol=1e-9)


@pytest.mark.parametrize("name", ["drawer-open", "plate-slide", "assembly", "door-open", "faucet-open"])
def test_scripted_policy_solves_it_without_noise(name):
    simulator = Simulator(name)
    last = [rollout(simulator, TASKS[name], seed, 0.0)["frame_success"][-1] for seed in range(3)]
    assert np.mean(last) > 0.6


def test_noise_levels_are_uniform():
    drawn = [noise_level(episode_seed(0, "collection", index)) for index in range(3000)]
    values, counts = np.unique(drawn, return_counts=True)
    assert tuple(values) == SIGMAS
    assert counts.min() > 400  # 500 expected, standard deviation 20


def collect(folder, *, seed: int, scenes: tuple[str, ...], pixels: bool = False, episodes: int = 3) -> Dataset:
    settings = SimpleNamespace(episodes=episodes, pixels=pixels)
    for job in SUITE.collection_jobs(settings, scenes, seed):
        with ShardWriter(
            folder,
            name=job.name,
            embodiment="sawyer",
            scene=job.name,
            collector="scripted",
            action_repeat=2,
            settings=job.settings,
        ) as writer:
            seen: list[float] = []
            job.collect(writer, lambda fraction, what="", seen=seen: seen.append(fraction))
            assert seen == [(index + 1) / episodes for index in range(episodes)]
    return seal(folder, suite="metaworld", suite_version=1, name="test", seed=seed, settings={})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return collect(tmp_path_factory.mktemp("data"), seed=0, scenes=("door-open", "drawer-open"))


def test_collected_episodes_replay_in_the_environment(dataset):
    """What was recorded is what an agent taking these actions sees, and its labels are the rewards it gets."""
    for info in dataset.episodes:
        task = TASKS[info.scene]
        env = SUITE.make(task, "state")
        state, action = dataset.state(info.index), dataset.action(info.index)
        reward, success = SUITE.labels(dataset, task, info.index)
        assert reward.dtype == success.dtype == np.float32
        assert reward.shape == success.shape == (101,)
        assert reward[0] == success[0] == 0
        np.testing.assert_array_equal(env.reset(seed=info.seed)[0], state[0])
        for step in range(1, 101):
            observation, online, _, _, end = env.step(action[step])
            np.testing.assert_array_equal(observation, state[step])
            assert reward[step] == pytest.approx(online, rel=1e-6)
            assert success[step] == end["success"]


def test_collected_actions_show_their_noise(dataset):
    assert {info.quality for info in dataset.episodes} <= set(SIGMAS)
    assert [info.scene for info in dataset.episodes] == ["door-open"] * 3 + ["drawer-open"] * 3
    assert len({info.seed for info in dataset.episodes}) == 6
    simulator = Simulator("drawer-open")
    quiet, loud = (rollout(simulator, TASKS["drawer-open"], 1, sigma)["action"] for sigma in (0.0, 2.0))
    # The policy holds the gripper open without noise; with sigma 2 chance shuts it about a third of the time.
    assert set(quiet[1:, 3]) == {-1.0}
    assert 0.15 < np.mean(loud[1:, 3] > 0) < 0.5


def test_stored_actions_are_the_scripted_policys_at_the_recorded_noise(dataset):
    assert {info.scene for info in dataset.episodes if info.quality > 0} == {"door-open", "drawer-open"}
    for scene in ("door-open", "drawer-open"):
        simulator = Simulator(scene)
        for info in dataset.episodes:
            if info.scene == scene:
                expected = rollout(simulator, TASKS[scene], info.seed, info.quality)["action"]
                np.testing.assert_array_equal(dataset.action(info.index), expected)
        simulator.close()


def test_same_seed_same_bytes_whatever_else_is_collected(dataset, tmp_path):
    again = collect(tmp_path / "again", seed=0, scenes=("drawer-open",))
    shards = {shard.name: shard for shard in dataset.manifest.shards}
    assert again.manifest.shards[0].arrays == shards["drawer-open"].arrays
    other = collect(tmp_path / "other", seed=1, scenes=("drawer-open",))
    assert other.manifest.shards[0].arrays["state"] != shards["drawer-open"].arrays["state"]


def test_labels_of_another_scene_are_refused(dataset):
    with pytest.raises(UserError, match="door-open"):
        SUITE.labels(dataset, TASKS["drawer-open"], 0)


def test_unknown_scene_and_embodiment():
    with pytest.raises(UserError, match="door-opne"):
        SUITE.collection_jobs(SimpleNamespace(episodes=1, pixels=False), ["door-opne"], 0)
    with pytest.raises(UserError, match="walker"):
        SUITE.units("walker")


def test_scale_is_ten_for_positions_and_one_for_the_rest(dataset):
    units = SUITE.units("sawyer")
    scale = units.scale
    positions = [0, 1, 2, 4, 5, 6, 11, 12, 13, 18, 19, 20, 22, 23, 24, 29, 30, 31, 36, 37, 38]
    assert np.flatnonzero(scale == 10).tolist() == positions
    assert np.flatnonzero(scale == 1).tolist() == sorted(set(range(39)) - set(positions))
    assert scale.dtype == np.float32
    # The hand's coordinates spread over order one once scaled.
    hand = units.apply(np.concatenate([dataset.state(index) for index in range(6)]))[:, :3]
    assert np.all((hand.std(axis=0) > 0.3) & (hand.std(axis=0) < 3))
    assert np.all(np.abs(hand[:, :2].mean(axis=0)) < 2)  # x and y lie around zero, where symlog is steep
    assert np.flatnonzero(units.offset).tolist() == [1, 5, 12, 19, 23, 30, 37]


@pytest.mark.pixels
def test_pictures_are_upright_and_undisturbed(tmp_path):
    """The camera stands the right way up, and two pixel environments in one process leave each other alone."""
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 4)).astype(np.float32)

    def pictures(*envs) -> np.ndarray:
        """Environments take turns: uint8 (envs, steps + 1, 64, 64, 3)."""
        rows = [[env.reset(seed=2)[0] for env in envs]]
        rows += [[env.step(action)[0] for env in envs] for action in actions]
        return np.array(rows).swapaxes(0, 1)

    door = SUITE.make(TASKS["door-open"], "pixels")
    checked(door)
    up = door._simulator.data.camera("corner2").xmat.reshape(3, 3)[:, 1]
    assert up[2] > 0.5
    door_alone = pictures(door)[0]
    assert door_alone.std() > 20  # not one colour
    drawer = SUITE.make(TASKS["drawer-open"], "pixels")
    together = pictures(door, drawer)
    np.testing.assert_array_equal(together[0], door_alone)
    np.testing.assert_array_equal(together[1], pictures(drawer)[0])
    assert not np.array_equal(together[0], together[1])
    drawer.close()

    data = collect(tmp_path, seed=0, scenes=("door-open",), pixels=True, episodes=1)
    np.testing.assert_array_equal(door.reset(seed=data.episodes[0].seed)[0], data.image(0)[0])
    np.testing.assert_array_equal(door.step(data.action(0)[1])[0], data.image(0)[1])
    door.close()


def test_protocol_says_what_scores_depend_on():
    protocol = SUITE.protocol(TASKS["door-open"], "state")
    assert protocol["episode_length"] == 200
    assert protocol["action_repeat"] == 2
    assert "v2" in protocol["reward"]
    assert "camera" not in protocol
    camera = SUITE.protocol(TASKS["door-open"], "pixels")["camera"]
    assert camera["cam_pos"] == [0.75, 0.075, 0.7]
    assert camera["rendering"]["shadows"] is False
