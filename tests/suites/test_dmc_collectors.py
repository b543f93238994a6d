"""The collectors of DMControl: what they store, that it repeats, and that those which learn do learn."""

from types import SimpleNamespace

import numpy as np
import pytest

from wpt_bench.data.store import ShardWriter, seal
from wpt_bench.protocol import UserError
from wpt_bench.suites.dmc import SUITE
from wpt_bench.suites.dmc.collect_agent import Replay, pink_noise
from wpt_bench.suites.dmc.collect_objectives import FEATURES, Curiosity, RandomReward, Trunk
from wpt_bench.suites.dmc.collectors import Training, _learned_policy, collection_jobs

PAPER = ("cartpole", "acrobot", "cheetah", "walker", "quadruped")


def settings(**changed):
    values = {"pink_noise": 2, "curiosity": 2, "random_reward": 2, "training_episodes": 5, "updates_per_step": 0.02}
    values |= {"pixels": False}
    return SimpleNamespace(**{**values, **changed})


def job(name, seed=0, **changed):
    return next(
        job for job in collection_jobs(SUITE, settings(**changed), [name.split("-")[0]], seed) if job.name == name
    )


def collect(job, folder, actions=None):
    """The shard of a job, collected, or played from actions."""
    writer = ShardWriter(
        folder,
        name=job.name,
        embodiment=job.settings["embodiment"],
        scene=job.settings["scene"],
        collector=job.settings["collector"],
        action_repeat=2,
        settings=job.settings,
    )
    heard = []
    with writer:

        def told(fraction, what=""):
            heard.append(fraction)

        job.collect(writer, told) if actions is None else job.play(actions, writer, told)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    return writer


def load(writer, name):
    return np.load(writer.path / f"{name}.npy", allow_pickle=False)


def sums(writer):
    return {name: writer.path.joinpath(f"{name}.npy").read_bytes() for name in ("state", "action", "physics")}


def test_pink_noise_has_unit_variance_and_power_of_one_over_frequency():
    noise = np.stack([pink_noise(np.random.default_rng(seed), 500, 3) for seed in range(200)])
    assert noise.shape == (200, 500, 3)
    assert noise.var() == pytest.approx(1, abs=0.05)
    assert noise.mean(1).std() > 0.2  # white noise would have 0.045
    power = np.square(np.abs(np.fft.rfft(noise * np.hanning(500)[:, None], axis=1))).mean((0, 2))[3:200]
    slope = np.polyfit(np.log(np.fft.rfftfreq(500)[3:200]), np.log(power), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


def test_jobs_are_one_per_embodiment_and_collector_and_share_no_seed():
    jobs = collection_jobs(SUITE, settings(pink_noise=3), PAPER, 7)
    assert sorted(job.name for job in jobs) == sorted(
        f"{body}-{collector}" for body in PAPER for collector in ("pink-noise", "curiosity", "random-reward")
    )
    assert [job.episodes for job in jobs if job.settings["collector"] == "pink-noise"] == [3] * 5
    assert {job.settings["scene"] for job in jobs} == set(PAPER)
    plans = [job.collect.args[0] for job in jobs]
    seeds = [plan.episode_seed(index) for plan in plans for index in (*range(100), 999_999)]
    assert len(set(seeds)) == len(seeds)


def test_a_job_does_not_depend_on_what_else_is_collected():
    alone = job("walker-curiosity")
    among = next(job for job in collection_jobs(SUITE, settings(pink_noise=0), PAPER, 0) if job.name == alone.name)
    assert alone.collect.args[0] == among.collect.args[0]
    assert alone.settings == among.settings


def test_what_cannot_be_collected_is_refused():
    with pytest.raises(UserError, match="no embodiment 'wolker'"):
        collection_jobs(SUITE, settings(), ["wolker"], 0)
    with pytest.raises(UserError, match="6 curiosity episodes cannot be stored of 5 run"):
        collection_jobs(SUITE, settings(curiosity=6), ["walker"], 0)
    assert collection_jobs(SUITE, settings(pink_noise=0, curiosity=0, random_reward=0), PAPER, 0) == []


@pytest.mark.parametrize("name", ["quadruped-random-reward", "cartpole-curiosity", "acrobot-pink-noise"])
def test_stored_episodes_are_what_the_simulator_gives_for_their_seed_and_actions(name, tmp_path):
    this = job(name)
    writer = collect(this, tmp_path)
    task = next(task for task in SUITE.tasks() if task.embodiment == this.settings["scene"])
    state, action, physics = (load(writer, part) for part in ("state", "action", "physics"))
    assert state.shape == (2 * 501, task.state_dim)
    assert action.shape == (2 * 501, task.action_dim)
    assert physics.shape[0] == 2 * 1001
    assert (state.dtype, action.dtype, physics.dtype) == (np.float32, np.float32, np.float64)
    assert [episode.origin for episode in writer.episodes] == [task.name] * 2
    learned = "pink" not in name
    assert [episode.quality for episode in writer.episodes] == ([0.0, 1.0] if learned else [None, None])
    env = SUITE.make(task, "state")
    for episode in writer.episodes:
        np.testing.assert_array_equal(env.reset(seed=episode.seed)[0], state[episode.row])
        np.testing.assert_array_equal(env.frame_physics[0], physics[episode.frame])
        for step in range(1, 501):
            np.testing.assert_array_equal(env.step(action[episode.row + step])[0], state[episode.row + step])
            frames = physics[episode.frame + 2 * step - 1 : episode.frame + 2 * step + 1]
            np.testing.assert_array_equal(env.frame_physics, frames)


@pytest.mark.parametrize("name", ["walker-random-reward", "cartpole-curiosity", "cheetah-pink-noise"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(name, tmp_path):
    once = sums(collect(job(name), tmp_path / "once"))
    assert sums(collect(job(name), tmp_path / "again")) == once
    other = sums(collect(job(name, seed=1), tmp_path / "other"))
    assert all(other[part] != once[part] for part in once)


@pytest.mark.parametrize("name", ["walker-random-reward", "cartpole-curiosity"])
def test_what_a_learner_collected_is_played_from_its_actions_alone(name, tmp_path):
    once = collect(job(name), tmp_path / "once")
    again = collect(job(name, updates_per_step=0.5), tmp_path / "again", load(once, "action").reshape(2, 501, -1))
    assert sums(again) == sums(once)
    assert again.episodes == once.episodes
    with pytest.raises(ValueError, match="zip"):
        collect(job(name), tmp_path / "fewer", load(once, "action").reshape(2, 501, -1)[:1])
    assert job("acrobot-pink-noise").play is None


def test_a_subset_of_a_training_is_the_same_training_spread_evenly(tmp_path):
    every = collect(job("cartpole-random-reward", random_reward=5), tmp_path / "every")
    few = collect(job("cartpole-random-reward", random_reward=3), tmp_path / "few")
    assert [episode.quality for episode in few.episodes] == [0.0, 0.5, 1.0]
    chosen = load(every, "state").reshape(5, 501, 5)[[0, 2, 4]]
    np.testing.assert_array_equal(load(few, "state").reshape(3, 501, 5), chosen)


def test_an_embodiment_outside_the_paper_is_collected_by_the_same_code(tmp_path):
    for collector in ("random-reward", "curiosity", "pink-noise"):
        assert len(collect(job(f"reacher-{collector}"), tmp_path).episodes) == 2


def simulate(name, seed=3, steps=20):
    task = next(task for task in SUITE.tasks() if task.name == name)
    env = SUITE.make(task, "state")
    env.reset(seed=seed)
    for _ in range(steps):
        env.step(np.full(task.action_dim, 0.3, np.float32))
    return env.simulator.physics


def test_trunk_of_the_walker_is_its_torso_seen_from_the_world():
    physics = simulate("walker-walk")
    feature = Trunk(physics).read()
    velocity, turning = physics.data.qvel[:3], physics.data.qvel[2]
    np.testing.assert_allclose(feature[:2], [velocity[1], 0], atol=1e-6)  # qvel is z, x, pitch
    np.testing.assert_allclose(feature[2], physics.named.data.xipos["torso", "z"], rtol=1e-6)
    np.testing.assert_allclose(feature[5], physics.torso_upright(), rtol=1e-6)
    np.testing.assert_allclose(feature[6:], [0, turning, 0], atol=1e-6)


def test_trunk_of_the_quadruped_is_its_torso_seen_from_itself():
    physics = simulate("quadruped-walk")
    feature = Trunk(physics).read()
    rotation = physics.named.data.xmat["torso"].reshape(3, 3)
    np.testing.assert_allclose(feature[:2], (rotation.T @ physics.data.qvel[:3])[:2], atol=1e-5)
    np.testing.assert_allclose(feature[3:6], rotation.T @ [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(feature[6:], physics.data.qvel[3:6], atol=1e-5)  # a free joint turns in its own frame


@pytest.mark.parametrize(("name", "part"), [("acrobot-swingup", "lower_arm"), ("cartpole-balance", "pole_1")])
def test_trunk_of_a_body_that_stays_in_place_is_the_end_of_its_chain(name, part):
    physics = simulate(name)
    assert Trunk(physics).read()[2] == pytest.approx(physics.named.data.xipos[part, "z"])


def test_random_rewards_differ_and_are_one_at_their_target():
    rng = np.random.default_rng(0)
    replay = Replay(4, 50, state=2, action=1, feature=FEATURES, condition=RandomReward.dim)
    for _ in range(4):
        feature = rng.standard_normal((51, FEATURES)) * 3 + 1
        feature[:, 1] = 7  # never changes
        state, action = rng.standard_normal((51, 2)), rng.standard_normal((51, 1))
        replay.add(state, action, feature, np.zeros(RandomReward.dim))
    objective = RandomReward(0)
    objective.refresh(replay)
    condition = objective.draw(200)
    assert condition.shape == (200, RandomReward.dim)
    np.testing.assert_allclose(np.linalg.norm(condition[:, :FEATURES], axis=1), 1, rtol=1e-5)
    assert not condition[:, 1].any()
    condition[:, -1] = 0  # without novelty
    episode, step = np.zeros((200, 1), int), np.arange(1, 51)[None]
    reward = objective.reward(replay, episode, step, condition[:, None])
    assert reward.shape == (200, 50)
    assert 0 < reward.min() < reward.max() <= 1
    assert len(set(reward.argmax(1))) > 10  # the rewards of the family agree on no best state
    middle = np.median(reward, axis=1)  # at the median of what was visited exp(-1), whatever the reward
    np.testing.assert_allclose(np.median(middle), np.exp(-1), atol=0.05)
    mean, spread = replay.feature.mean((0, 1)), replay.feature.std((0, 1))
    spread[3:6] = 0.5
    # Along the direction, as far as the target.
    replay.feature[0, 1] = mean + spread * condition[0, FEATURES] * condition[0, :FEATURES]
    assert objective.reward(replay, np.array([0]), np.array([1]), condition[:1])[0] == pytest.approx(1, abs=1e-4)


def test_curiosity_tires_of_what_it_has_seen_and_seeks_what_is_new():
    rng = np.random.default_rng(0)
    replay = Replay(6, 100, state=3, action=2, feature=FEATURES, condition=0)

    def add(scale):
        action = scale * rng.standard_normal((101, 2))
        state = np.cumsum(action @ rng.standard_normal((2, 3)), axis=0)
        replay.add(state.astype(np.float32), action.astype(np.float32), np.zeros((101, FEATURES)), np.zeros(0))

    objective = Curiosity(0)
    for _ in range(5):
        add(0.1)
        objective.refresh(replay)
    add(3.0)
    objective.refresh(replay)
    steps = np.arange(1, 101)
    reward = [objective.reward(replay, np.full(100, row), steps, np.zeros((100, 0))).mean() for row in range(6)]
    assert reward[5] > 2 * max(reward[:5])


@pytest.mark.parametrize(("collector", "objective"), [("curiosity", Curiosity), ("random-reward", RandomReward)])
def test_a_collector_that_learns_wants_what_its_name_says(collector, objective):
    assert type(Training(job(f"cartpole-{collector}").collect.args[0]).objective) is objective


def test_pink_noise_is_of_a_strength_drawn_for_every_episode_and_dimension(tmp_path):
    action = load(collect(job("cheetah-pink-noise", pink_noise=3), tmp_path), "action").reshape(3, 501, 6)[:, 1:]
    strength = np.sqrt(np.square(action).mean(1))  # of what is left by the bounds at 1
    assert strength.min() < 0.35 and strength.max() > 0.7
    assert (np.ptp(strength, axis=0) > 0.05).all() and (np.ptp(strength, axis=1) > 0.2).all()


def test_a_learned_policy_explores_with_noise_of_up_to_two_fifths():
    """An actor that never moves from 0.25, over 60 episodes: strengths are uniform from none to the most."""
    task = next(task for task in SUITE.tasks() if task.name == "walker-walk")
    still = SimpleNamespace(act=lambda state, condition: np.full(task.action_dim, 0.25, np.float32))
    strengths = []
    for seed in range(60):
        policy = _learned_policy(np.random.default_rng(seed), task, still, None)
        noise = np.stack([policy(None, step) for step in range(task.agent_steps)]) - 0.25
        strengths.append(np.sqrt(np.square(noise).mean()))
    assert np.mean(strengths) == pytest.approx(0.2, abs=0.05)
    assert min(strengths) < 0.05 and 0.35 < max(strengths) < 0.6


def test_the_random_reward_agent_gets_more_of_what_it_wants_than_noise_gets():
    this = job("cartpole-random-reward", random_reward=24, training_episodes=24, updates_per_step=0.5)
    training = Training(this.collect.args[0])
    for _ in training.episodes():
        pass
    replay, objective = training.replay, training.objective
    objective.refresh(replay)
    steps = np.arange(1, 501)

    def reward(episode, condition):
        return objective.reward(replay, np.full(500, episode), steps, condition[None]).mean()

    gains = []
    for episode in range(12, 24):
        condition = replay.condition[episode].copy()
        condition[-1] = 0
        noise = np.mean([reward(row, condition) for row in range(training.warm_up)])
        gains.append(reward(episode, condition) - noise)
    assert np.mean(gains) > 0.05


@pytest.mark.pixels
def test_pictures_are_those_of_the_stored_states(tmp_path):
    dataset_folder = tmp_path / "data"
    collect(job("cartpole-pink-noise", pink_noise=1, pixels=True), dataset_folder)
    dataset = seal(dataset_folder, suite="dmc", suite_version=1, name="data", seed=0, settings={})
    info = dataset.episodes[0]
    env = SUITE.make(next(task for task in SUITE.tasks() if task.name == info.origin), "pixels")
    picture, _ = env.reset(seed=info.seed)
    np.testing.assert_array_equal(dataset.image(0)[0], picture)
    for step in range(1, 4):
        picture = env.step(dataset.action(0)[step])[0]
        np.testing.assert_array_equal(dataset.image(0)[step], picture)
    env.close()
