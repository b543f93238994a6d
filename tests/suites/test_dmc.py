"""The DMControl suite against dm_control itself: same observations, rewards and dynamics, and exact relabelling."""

import functools
import math
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wpt_bench.data.store import ShardWriter, seal
from wpt_bench.protocol import ACTION_PAD, STATE_PAD, Task, UserError
from wpt_bench.records import digest
from wpt_bench.suites.dmc import _EMBODIMENTS, SUITE
from wpt_bench.suites.dmc.env import DMCEnv
from wpt_bench.suites.dmc.labels import recompute
from wpt_bench.suites.dmc.variants import HardReward

TASKS = {task.name: task for task in SUITE.tasks()}
PAPER = [task.name for task in SUITE.tasks() if task.paper]
OTHERS = [
    "cheetah-run-hard",
    "cup-catch",
    "finger-turn-hard",
    "fish-swim",
    "hopper-hop",
    "humanoid-run",
    "manipulator-bring-ball",
    "point-mass-easy",
    "reacher-hard",
    "swimmer-swimmer6",
]
FIRST_OF = {}
for task in SUITE.tasks():
    FIRST_OF.setdefault(task.embodiment, task.name)


@functools.cache
def shared_env(name: str) -> DMCEnv:
    """One env per task for the tests that do not need a fresh one: making one takes 0.1 to 0.2 s."""
    return SUITE.make(TASKS[name], "state")


def smooth_actions(task: Task, steps: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    action, actions = np.zeros(task.action_dim), []
    for _ in range(steps):
        action = np.clip(0.9 * action + 0.45 * random.standard_normal(task.action_dim), -1, 1)
        actions.append(action.astype(np.float32))
    return np.array(actions)


def play(env: DMCEnv, actions: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """An episode as a collector stores it."""
    states, rewards, physics = [env.reset(seed=seed)[0]], [0.0], [env.frame_physics]
    for action in actions:
        state, reward, *_ = env.step(action)
        states.append(state)
        rewards.append(reward)
        physics.append(env.frame_physics)
    return {
        "state": np.array(states),
        "action": np.concatenate([np.zeros_like(actions[:1]), actions]),
        "reward": np.array(rewards, np.float32),
        "physics": np.concatenate(physics),
    }


def test_the_papers_tasks_and_all_of_dm_controls_benchmarking_set_are_there():
    from dm_control import suite

    assert len(PAPER) == 22
    assert len(TASKS) == len(SUITE.tasks()) == 44
    assert {task.embodiment for task in SUITE.tasks() if task.paper} == {
        "cartpole",
        "acrobot",
        "walker",
        "cheetah",
        "quadruped",
    }
    short = {"ball_in_cup": "cup", "point_mass": "point-mass"}
    for domain, name in suite.BENCHMARKING:
        assert f"{short.get(domain, domain)}-{name.replace('_', '-')}" in TASKS


@pytest.mark.parametrize("name", TASKS)
def test_table_equals_simulator(name):
    task, env = TASKS[name], shared_env(name)
    physics, simulated, substeps = env.simulator
    env.reset(seed=0)
    assert env.state().shape == (task.state_dim,) == env.observation_space.shape
    assert simulated.action_spec(physics).shape == (task.action_dim,) == env.action_space.shape
    assert task.state_dim <= STATE_PAD
    assert task.action_dim <= ACTION_PAD
    assert physics.model.ncam > int(task.camera)
    assert simulated.get_termination(physics) is None
    assert substeps * physics.timestep() * task.episode_length == pytest.approx(
        {"walker": 25, "humanoid": 25, "acrobot": 10, "cartpole": 10, "cheetah": 10, "manipulator": 10}.get(
            task.embodiment, {"fish": 40, "swimmer6": 30, "swimmer15": 30}.get(task.embodiment.split("-")[0], 20)
        )
    )


@pytest.mark.parametrize("name", TASKS)
def test_same_seed_same_trajectory(name):
    task, env = TASKS[name], shared_env(name)
    actions = smooth_actions(task, 20)
    first = play(env, actions, seed=11)
    other = play(env, actions, seed=12)
    again = play(env, actions, seed=11)
    fresh = play(SUITE.make(task, "state"), actions, seed=11)
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
        np.testing.assert_array_equal(first[key], fresh[key])
    assert not np.array_equal(first["physics"][0], other["physics"][0])


def test_without_a_seed_the_generator_goes_on():
    env = shared_env("walker-walk")
    env.reset(seed=5)
    second, third = env.reset()[0], env.reset()[0]
    assert not np.array_equal(second, third)
    env.reset(seed=5)
    np.testing.assert_array_equal(env.reset()[0], second)


@pytest.mark.parametrize(
    ("name", "domain", "public"),
    [
        ("cartpole-balance", "cartpole", "balance"),
        ("acrobot-swingup", "acrobot", "swingup"),
        ("walker-run", "walker", "run"),
        ("cheetah-run", "cheetah", "run"),
        ("quadruped-walk", "quadruped", "walk"),
        ("quadruped-run", "quadruped", "run"),
        ("cup-catch", "ball_in_cup", "catch"),
        ("reacher-hard", "reacher", "hard"),
        ("humanoid-walk", "humanoid", "walk"),
    ],
)
def test_equals_dm_controls_own_environment(name, domain, public, monkeypatch):
    from dm_control import suite

    from wpt_bench.suites.dmc.quadruped import norm

    task = TASKS[name]
    actions = smooth_actions(task, 25, seed=1)
    ours = play(shared_env(name), actions, seed=3)
    random = int(np.random.default_rng(3).integers(2**32))  # what the env's generator draws after reset(seed=3)
    theirs = suite.load(domain, public, task_kwargs={"random": random})
    spec = theirs.action_spec()
    with monkeypatch.context() as patched:
        if domain == "quadruped":  # the one difference that is meant, of one bit on some processors
            patched.setattr(np.linalg, "norm", norm)
        step = theirs.reset()
    flat = [np.concatenate([np.ravel(value) for value in step.observation.values()])]
    rewards = [0.0]
    for action in actions.astype(np.float64):
        controls = (spec.maximum + spec.minimum) / 2 + action * ((spec.maximum - spec.minimum) / 2)
        first, step = theirs.step(controls), theirs.step(controls)
        rewards.append(first.reward + step.reward)
        flat.append(np.concatenate([np.ravel(value) for value in step.observation.values()]))
    np.testing.assert_array_equal(ours["state"], np.array(flat, np.float32))
    np.testing.assert_array_equal(ours["reward"], np.array(rewards, np.float32))
    np.testing.assert_array_equal(ours["physics"][-1], theirs.physics.get_state())


@pytest.mark.parametrize(
    ("vector", "fused", "plain"),
    [
        ((3.0, 4.0), 5.0, 5.0),
        ((0.1, 0.4), 0.41231056256176607, 0.4123105625617661),
        ((0.2, 0.8), 0.8246211251235321, 0.8246211251235323),
        ((0.1, 2.1), 2.102379604162864, 2.1023796041628637),
    ],
)
def test_the_norm_of_the_quadrupeds_reset_is_summed_with_fused_multiply_adds(vector, fused, plain):
    from wpt_bench.suites.dmc.quadruped import norm

    assert norm(np.array(vector)) == fused
    assert math.sqrt(sum(value * value for value in vector)) == plain


@pytest.mark.parametrize("name", PAPER + OTHERS)
def test_labels_equal_the_online_reward(name):
    task = TASKS[name]
    episode = play(shared_env(name), smooth_actions(task, 40, seed=2), seed=21)
    again = recompute(task, 21, episode["physics"], episode["action"])
    assert again.dtype == np.float32
    assert again[0] == 0
    np.testing.assert_array_equal(again, episode["reward"])


@pytest.mark.parametrize(
    ("origin", "other"),
    [
        ("acrobot-swingup", "acrobot-swingup-hard"),
        ("walker-stand", "walker-backflip"),
        ("walker-stand", "walker-walk-hard"),
        ("cheetah-run", "cheetah-jump"),
        ("quadruped-walk", "quadruped-roll-fast"),
        ("reacher-easy", "reacher-hard"),
    ],
)
def test_relabelled_episode_equals_playing_the_other_task(origin, other):
    """These tasks start alike, so the same seed and actions give the same episode in both."""
    actions = smooth_actions(TASKS[origin], 40, seed=4)
    episode, truth = (play(shared_env(name), actions, seed=8) for name in (origin, other))
    np.testing.assert_array_equal(episode["state"], truth["state"])
    np.testing.assert_array_equal(episode["physics"], truth["physics"])
    relabelled = recompute(TASKS[other], 8, episode["physics"], episode["action"])
    np.testing.assert_array_equal(relabelled, truth["reward"])


@pytest.mark.parametrize("embodiment", FIRST_OF)
def test_tasks_of_an_embodiment_observe_alike(embodiment):
    first, *others = (shared_env(task.name) for task in SUITE.tasks() if task.embodiment == embodiment)
    first.reset(seed=9)
    state = first.simulator.physics.get_state()
    for env in (first, *others):
        env.reset(seed=9)
        with env.simulator.physics.reset_context():
            env.simulator.physics.set_state(state)
    for env in others:
        np.testing.assert_array_equal(env.state(), first.state())


def test_labels_of_a_stored_data_set(tmp_path):
    task = TASKS["cheetah-run"]
    episodes = [play(shared_env("cheetah-run"), smooth_actions(task, 10, seed=s), seed=s) for s in (1, 2)]
    with ShardWriter(
        tmp_path,
        name="cheetah",
        embodiment="cheetah",
        scene="cheetah",
        collector="test",
        action_repeat=2,
        settings={},
    ) as writer:
        for seed, episode in zip((1, 2), episodes, strict=True):
            arrays = {key: episode[key] for key in ("state", "action", "physics")}
            writer.add_episode(**arrays, seed=seed, origin=task.name)
    dataset = seal(tmp_path, suite="dmc", suite_version=SUITE.version, name="test", seed=0, settings={})
    for index in (1, 0):
        reward, success = SUITE.labels(dataset, task, index)
        np.testing.assert_array_equal(reward, episodes[index]["reward"])
        assert success.dtype == np.float32
        assert not success.any()
    with pytest.raises(UserError, match="embodiment cheetah"):
        SUITE.labels(dataset, TASKS["walker-walk"], 0)


def pose(name: str, qpos: dict[str, float], qvel: dict[str, float]) -> float:
    """Reward of a task in a pose that is set by hand; joints by name, the rest as the model has it."""
    physics, task, _ = shared_env(name).simulator
    with physics.reset_context():
        for joint, value in qpos.items():
            physics.named.data.qpos[joint] = value
        for joint, value in qvel.items():
            physics.named.data.qvel[joint] = value
    return float(task.get_reward(physics))


@pytest.mark.parametrize(
    ("name", "qpos", "qvel", "reward"),
    [
        # Standing at the model's 1.3 m, above 1.2 m: only speed counts.
        ("walker-walk-backwards", {}, {"rootx": -1}, 1),
        ("walker-walk-backwards", {}, {"rootx": 1}, 1 / 6),
        # 6 m/s is half a margin of 4 short of 8: linear from 1 to 0.5 gives 0.75, and (5 * 0.75 + 1) / 6.
        ("walker-run-backwards", {}, {"rootx": -6}, 4.75 / 6),
        # Upside down and 2 m up: feet and thighs are above 1.1 m and 1 m.
        ("walker-backflip", {"rooty": np.pi, "rootz": 2}, {"rootx": -6}, 1),
        ("walker-backflip", {"rooty": np.pi, "rootz": 2}, {"rootx": 6}, 1 / 6),
        ("cheetah-run-backwards", {}, {"rootx": -4}, 0.5),
        ("cheetah-run-backwards", {}, {"rootx": 9}, 0),
        # 2 m up, everything is above 1.2 m: only speed counts.
        ("cheetah-run-front", {"rootz": 2}, {"rootx": 3}, 3.5 / 6),
        ("cheetah-run-back", {"rootz": 2}, {"rootx": 6}, 1),
        ("cheetah-jump", {"rootz": 2}, {}, 1),
        ("cheetah-jump", {"rootz": 2}, {"rootx": 0.75}, 5.5 / 6),
        ("cheetah-jump", {"rootz": 2}, {"rootx": -9}, 5 / 6),
        ("quadruped-stand", {"root": [0, 0, 1, 1, 0, 0, 0]}, {}, 1),
        ("quadruped-stand", {"root": [0, 0, 1, 0, 1, 0, 0]}, {}, 0),
        ("quadruped-stand", {"root": [0, 0, 1, 0.5**0.5, 0.5**0.5, 0, 0]}, {}, 0.5),
        ("quadruped-jump", {"root": [0, 0, 2, 1, 0, 0, 0]}, {}, 1),
        # Speed 0.5 sideways and up counts like speed forwards.
        ("quadruped-roll", {"root": [0, 0, 1, 1, 0, 0, 0]}, {"root": [0, 0.3, 0.4, 0, 0, 0]}, 1),
        ("quadruped-roll-fast", {"root": [0, 0, 1, 1, 0, 0, 0]}, {"root": [0, 0.3, 0.4, 0, 0, 0]}, 0.55),
    ],
)
def test_rewards_by_hand(name, qpos, qvel, reward):
    assert pose(name, qpos, qvel) == pytest.approx(reward, abs=2e-4)


def test_cheetah_feet_are_not_mixed_up():
    """Nose down, the back foot is the high one: that is running on the front foot."""
    nose_down = {"rootz": 0.4, "rooty": np.pi / 2}
    front, back = (pose(f"cheetah-run-{foot}", nose_down, {"rootx": 6}) for foot in ("front", "back"))
    assert front > back


def test_quadruped_jump_counts_the_centre_of_mass():
    low, high = (pose("quadruped-jump", {"root": [0, 0, z, 1, 0, 0, 0]}, {}) for z in (0.6, 0.8))
    assert high - low == pytest.approx(0.2 * 0.5, abs=1e-9)  # half a point per metre below 1 m


@pytest.mark.parametrize(
    ("threshold", "reward", "controls", "expected"),
    [
        (0.6, 0.6, [0, 0], 0.6),
        (0.6, 0.59, [0, 0], 0.0),
        (0.6, 1.0, [0.3, -0.4], 0.95),
        (0.6, 0.1, [1, 0], -0.1),
        (0.2, 0.3, [0, 0], 0.3),
        (0.2, 0.19, [3, 4], -0.5),
    ],
)
def test_hard_reward_by_hand(threshold, reward, controls, expected):
    class Plain:
        def get_reward(self, physics):
            return reward

    class Hard(HardReward, Plain):
        pass

    class Physics:
        def control(self):
            return np.array(controls, float)

    task = Hard()
    task.threshold = threshold
    assert task.get_reward(Physics()) == pytest.approx(expected)


def test_hard_tasks_have_the_papers_thresholds():
    thresholds = {
        name: shared_env(name).simulator.task.threshold
        for name in TASKS
        if name.endswith("-hard") and TASKS[name].embodiment in ("acrobot", "walker", "cheetah")
    }
    assert thresholds == {"acrobot-swingup-hard": 0.6, "walker-walk-hard": 0.6, "cheetah-run-hard": 0.2}


def test_episode_ends_by_time_limit_only():
    env = shared_env("acrobot-swingup")
    with pytest.raises(gym.error.ResetNeeded):
        SUITE.make(env.task, "state").step(np.zeros(1, np.float32))
    _, info = env.reset(seed=0)
    assert env.frame_physics.shape == (1, 4)
    ends = []
    for action in smooth_actions(env.task, env.task.agent_steps):
        _, _, terminated, truncated, info = env.step(action)
        assert not terminated
        assert info["success"] == 0.0
        ends.append(truncated)
    assert ends == [False] * 499 + [True]
    assert env.frame_physics.shape == (2, 4)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(action)


def test_actions_are_clipped_and_cover_the_controls():
    env = shared_env("quadruped-walk")
    spec = env.simulator.task.action_spec(env.simulator.physics)
    assert spec.maximum.max() > 1  # so that the mapping matters
    for value, bound in ((-1, spec.minimum), (7, spec.maximum), (0, (spec.minimum + spec.maximum) / 2)):
        env.reset(seed=0)
        env.step(np.full(12, value, np.float32))
        np.testing.assert_allclose(env.simulator.physics.control(), bound)


@pytest.mark.parametrize(
    "name", ["cartpole-balance", "acrobot-swingup-hard", "walker-walk", "cheetah-jump", "quadruped-roll"]
)
@pytest.mark.filterwarnings("ignore:.*Box observation space (minimum|maximum) value.*", "ignore:.*spec.*None")
def test_gymnasiums_checker(name):
    check_env(SUITE.make(TASKS[name], "state"), skip_render_check=True)


@pytest.mark.parametrize("embodiment", FIRST_OF)
def test_units_bring_every_part_near_one(embodiment):
    """Root mean square within [1/4, 4]; contacts, which random actions may not make, are only kept from being large."""
    name = FIRST_OF[embodiment]
    scale = SUITE.units(embodiment).scale
    assert scale.dtype == np.float32
    assert scale.shape == (TASKS[name].state_dim,)
    states = np.concatenate(
        [play(shared_env(name), smooth_actions(TASKS[name], 60, seed), seed)["state"] for seed in range(3)]
    )
    _, parts = _EMBODIMENTS[embodiment]
    sums: dict[str, list[float]] = {}
    start = 0
    for part, size, _ in parts:
        sums.setdefault(part, []).append(np.mean(np.square((states * scale)[:, start : start + size])))
        start += size
    for part, squares in sums.items():
        size = np.sqrt(np.mean(squares))
        assert size < 4, part
        if part != "touch":
            assert size > 0.25, part


def test_unknown_embodiment_is_the_users_mistake():
    with pytest.raises(UserError, match="no embodiment 'horse'"):
        SUITE.units("horse")


def test_protocol_can_be_hashed_and_tells_kinds_apart():
    task = TASKS["quadruped-walk"]
    state, pixels = SUITE.protocol(task, "state"), SUITE.protocol(task, "pixels")
    assert digest(state) != digest(pixels)
    assert pixels["camera"] == "2"
    assert pixels["rendering"]["shadows"] is False
    assert SUITE.protocol(TASKS["walker-walk"], "pixels")["camera"] == "0"


def test_listing_tasks_loads_no_simulator():
    code = """
import sys
from wpt_bench.suites.dmc import SUITE
SUITE.tasks()
print({"mujoco", "dm_control"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
