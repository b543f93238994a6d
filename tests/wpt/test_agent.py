"""The fine-tuning agent: what each switch changes, what never happens, and that it learns."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from running.small import silent
from safetensors.torch import load_file

from wpt.toy import LEARNING, SETTINGS, SIZE, STEPS, UNITS, episodes, fill, learn, measured, write_weights
from wpt.toy import agent as make
from wpt_bench.protocol import ACTION_PAD, Units, UserError
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.rssm import RSSM
from wpt_bench.wpt.agent import Switches, WPTAgent
from wpt_bench.wpt.guidance import ClonedPrior

ALL = Switches(pretrain=True, rehearsal=True, guidance=True)
NONE = Switches(pretrain=False, rehearsal=False, guidance=False)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("stage"))


def test_pretraining_decides_the_weights_a_run_starts_from(pretrained: Path) -> None:
    scratch, tuned = make(NONE, None), make(Switches(True, False, False), pretrained)
    for name, weight in load_file(pretrained).items():
        assert torch.equal(tuned.world_model.state_dict()[name], weight)
    assert not torch.equal(
        scratch.world_model.rssm.recurrence.core_latent.weight, tuned.world_model.rssm.recurrence.core_latent.weight
    )


def test_arms_without_pretraining_retrieve_with_the_pretrained_encoder(pretrained: Path) -> None:
    agents = [make(Switches(on, True, False), pretrained) for on in (True, False)]
    for agent in agents:
        agent.offline(silent)
    assert agents[0].retrieved == agents[1].retrieved
    assert agents[0].retrieved[0] == 0  # episode 0 starts where we do


def test_random_replay_is_of_otherepisodes(pretrained: Path) -> None:
    found = set()
    for seed in range(5):
        agent = make(Switches(True, True, True, random_replay=True), pretrained, seed=seed)
        agent.offline(silent)
        found.add(tuple(agent.retrieved))
        assert len(set(agent.retrieved)) == 3
    assert len(found) > 1


def test_a_quarter_of_a_batch_is_rehearsed_and_has_no_reward(pretrained: Path) -> None:
    agent = make(ALL, pretrained)
    agent.offline(silent)
    fill(agent)
    online, rehearsed = agent._sample(np.random.default_rng(0))
    assert rehearsed is not None
    assert (len(online.action), len(rehearsed.action)) == (6, 2)
    assert online.reward is not None and rehearsed.reward is None
    without = make(Switches(True, False, True), pretrained)
    without.offline(silent)
    fill(without)
    online, rehearsed = without._sample(np.random.default_rng(0))
    assert len(online.action) == 8 and rehearsed is None


def test_what_states_are_measured_in_makes_no_difference(pretrained: Path) -> None:
    """The same states in other numbers, with the units that say so: nothing that an agent does or learns changes."""
    start = np.array([0.6, -1.5, 2.0], np.float32)

    def lived(units: Units) -> tuple[Any, ...]:
        offline = [replace(one, observation=measured(one.observation, units), units=units) for one in episodes()]
        agent = make(
            ALL,
            pretrained,
            data=SimpleNamespace(episodes=lambda: offline),
            units=units,
            initial_observation=measured(start, units),
        )
        found = agent.offline(silent)
        guided = act(agent, STEPS, measured(start, units), seed=0, evaluation=False)  # warm-up: the prior's
        fill(agent)
        losses = agent.update()
        return found, losses, guided.tolist(), act(agent, 3, measured(start, units), seed=0, evaluation=True).tolist()

    assert lived(UNITS) == lived(Units.identity(3))


def act(agent: WPTAgent, steps: int, observation: np.ndarray, *, seed: int, evaluation: bool) -> np.ndarray:
    """The first actions of an episode, or of as many as there are observations, in which nothing moves."""
    observation = np.atleast_2d(observation)
    carry, actions = agent.begin(len(observation), seed=seed, evaluation=evaluation), []
    for _ in range(steps):
        action, carry = agent.act(carry, observation, evaluation=evaluation)
        actions.append(action)
    return np.stack(actions)


def constant_actor(agent: WPTAgent, mean: float, std: float) -> None:
    """An actor whose policy has this mean and this deviation everywhere."""
    last = agent.behaviour.actor[-1]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias[:ACTION_PAD] = np.arctanh(mean)
        last.bias[ACTION_PAD:] = torch.logit(torch.tensor((std - 0.1) / 0.9)) - 2


def test_training_explores_and_evaluation_does_not() -> None:
    """With a constant actor, so that what else is drawn, the latent state, says nothing."""
    agent, standing = make(NONE, None), np.zeros((500, 3), np.float32)
    fill(agent, 1)  # a tenth of the budget: warm-up is over
    constant_actor(agent, mean=0.3, std=0.15)
    for seed in (1, 2):
        assert act(agent, 2, standing, seed=seed, evaluation=True) == pytest.approx(0.3, abs=1e-6)
    explored = [act(agent, 2, standing, seed=seed, evaluation=False) for seed in (1, 2)]
    assert not np.array_equal(*explored)
    assert np.mean(explored) == pytest.approx(0.3, abs=0.01) and np.std(explored) == pytest.approx(0.15, rel=0.05)


def test_the_warm_up_is_uniform_whatever_the_actor_says() -> None:
    agent, standing = make(NONE, None), np.zeros((500, 3), np.float32)
    before = act(agent, 2, standing, seed=1, evaluation=False)
    assert not np.array_equal(before, act(agent, 2, standing, seed=2, evaluation=False))
    counts, _ = np.histogram(before, bins=8, range=(-1, 1))
    assert counts.sum() == before.size and np.abs(counts / before.size - 1 / 8).max() < 0.03
    constant_actor(agent, mean=0.3, std=0.15)
    assert np.array_equal(before, act(agent, 2, standing, seed=1, evaluation=False))


@pytest.mark.parametrize("evaluation", [True, False])
def test_padded_action_dimensions_stay_zero(
    pretrained: Path, evaluation: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authors' code samples them without a mask: imagination and acting then see noise where replay has zeros."""
    agent = make(ALL, pretrained, budget=2 * STEPS)
    agent.offline(silent)
    fill(agent, 1)  # past warm-up
    carry = agent.begin(2, seed=0, evaluation=evaluation)
    for _ in range(5):
        action, carry = agent.act(carry, np.zeros((2, 3), np.float32), evaluation=evaluation)
        assert action.shape == (2, 2) and np.abs(carry.action[:, 2:]).sum() == 0
    imagined: list[torch.Tensor] = []
    imagination = RSSM.imagination

    def watched(*start: Any) -> Any:
        steps = imagination(*start)
        step = steps.forward
        steps.forward = lambda action, noise: (imagined.append(action), step(action, noise))[1]
        return steps

    monkeypatch.setattr(RSSM, "imagination", watched)
    agent.update()
    assert len(imagined) == SETTINGS.horizon
    assert all((action[:, 2:] == 0).all() and (action[:, :2] != 0).any() for action in imagined)


def test_entropy_counts_real_dimensions_only() -> None:
    agent = make(NONE, None, settings=msgspec.structs.replace(SETTINGS, starts=0, batch=64, horizon=15))
    fill(agent)
    std = 0.9 / (1 + np.exp(-2)) + 0.1  # of an untrained actor, whose mean is near 0
    clamped = np.clip(std * np.random.default_rng(0).normal(size=100_000), -1, 1) / std
    per_dimension = 0.5 * (clamped**2).mean() + np.log(std) + 0.5 * np.log(2 * np.pi)
    assert agent.update()["entropy"] == pytest.approx(2 * per_dimension, abs=0.03)


def test_evaluation_changes_nothing_and_is_repeatable(pretrained: Path) -> None:
    agent = make(ALL, pretrained)
    agent.offline(silent)
    fill(agent)
    before = {key: value.clone() for key, value in agent.state_dict().items() if torch.is_tensor(value)}
    actions = []
    for _ in range(2):
        carry = agent.begin(3, seed=5, evaluation=True)
        taken = []
        for step in range(4):
            action, carry = agent.act(carry, np.full((3, 3), step, np.float32), evaluation=True)
            taken.append(action)
        actions.append(np.stack(taken))
    assert np.array_equal(*actions)
    assert all(torch.equal(value, agent.state_dict()[key]) for key, value in before.items())


def test_the_prior_drives_all_of_the_warm_up_and_windows_after_it(pretrained: Path) -> None:
    agent = make(ALL, pretrained, budget=2 * STEPS * 10)
    agent.offline(silent)
    assert agent.episode_metrics(agent.begin(1, seed=0, evaluation=False)) == {"guided_steps": STEPS}
    fill(agent, 1)  # a tenth of the budget: warm-up is over
    guided = [agent.episode_metrics(agent.begin(1, seed=seed, evaluation=False))["guided_steps"] for seed in range(40)]
    assert 0 in guided and len(set(guided)) > 3
    assert agent.episode_metrics(agent.begin(1, seed=0, evaluation=True)) == {"guided_steps": 0}
    fill(agent, 9)
    late = [agent.episode_metrics(agent.begin(1, seed=seed, evaluation=False))["guided_steps"] for seed in range(20)]
    assert set(late) == {0}


def test_the_prior_acts_within_its_window_alone(pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, inner = make(Switches(True, False, True), pretrained), 0
    fill(agent, 1)  # past warm-up
    monkeypatch.setattr(ClonedPrior, "act", lambda *_: torch.full((1, ACTION_PAD), 0.25))
    for seed in range(5):
        window = agent.begin(1, seed=seed, evaluation=False).guided
        actions = act(agent, STEPS, np.zeros(3, np.float32), seed=seed, evaluation=False)
        guided = np.flatnonzero((actions == 0.25).all((1, 2)))
        assert guided.tolist() == list(range(window.start, window.stop))
        inner += 0 < window.start < window.stop < STEPS
    assert inner


def test_whether_an_episode_is_guided_does_not_hang_on_where_things_stand(pretrained: Path) -> None:
    """The simulator draws positions from the numbers that an episode's seed begins with."""
    agent = make(ALL, pretrained, budget=2 * STEPS * 10)
    agent.offline(silent)
    fill(agent, 1)  # a tenth of the budget, of whose first third episodes are guided
    positions = [np.random.default_rng(seed).random() for seed in range(400)]
    guided = [agent.begin(1, seed=seed, evaluation=False).guided.stop > 0 for seed in range(400)]
    assert np.mean(guided) == pytest.approx(0.7, abs=0.1)
    assert abs(np.corrcoef(positions, guided)[0, 1]) < 0.2


def test_imagination_starts_from_all_rows_or_from_online_ones(pretrained: Path) -> None:
    started: list[torch.Tensor] = []
    for start_from in ("all", "online"):
        settings = msgspec.structs.replace(SETTINGS, start_from=start_from)
        agent = make(Switches(True, True, False), pretrained, settings)
        agent.offline(silent)
        fill(agent)
        starts = agent._starts
        agent._starts = lambda latents, generator, starts=starts: (
            started.append(latents.deter) or starts(latents, generator)
        )
        agent.update()
    every, online = (rows.unflatten(0, (SETTINGS.length, -1)) for rows in started)
    assert every.shape[1] == 8 and torch.equal(online, every[:, :6])  # the two after them are rehearsed


def test_rewards_of_rehearsed_rows_do_not_exist_for_the_reward_head(pretrained: Path) -> None:
    """The reward head's gradient is that of the online rows alone."""
    agent = make(ALL, pretrained)
    agent.offline(silent)
    fill(agent)
    shapes: list[tuple[int, ...]] = []
    agent.reward.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    agent.update()
    assert shapes[0] == (SETTINGS.length - 1, 6, SIZE.feature)


def test_a_restored_agent_goes_on_bit_for_bit(pretrained: Path) -> None:
    one = make(ALL, pretrained)
    one.offline(silent)
    fill(one)
    for _ in range(3):
        one.update()
    other = make(ALL, pretrained)
    fill(other)
    state = one.state_dict()
    other.load_state_dict({k: v.clone() if torch.is_tensor(v) else v for k, v in state.items()})
    for _ in range(3):
        assert one.update() == other.update()
    ours, theirs = one.state_dict(), other.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if torch.is_tensor(ours[key]))


def test_a_checkpoint_of_another_size_is_refused_in_a_sentence(pretrained: Path) -> None:
    wide = WorldModelSize(deter=64, hidden=16, stoch=4, classes=4, blocks=2, units=32, layers=1, cnn_depth=4)
    agent = make(NONE, None, settings=msgspec.structs.replace(SETTINGS, world_model=wide))
    with pytest.raises(UserError, match="world_model does not fit this model: it was made with other sizes"):
        agent.load_state_dict(make(NONE, None).state_dict())


def test_pretraining_without_weights_says_what_to_run() -> None:
    with pytest.raises(UserError, match="wpt-bench pretrain"):
        make(ALL, None)


def test_the_agent_learns_a_toy_task_from_imagination() -> None:
    """Move a point to the origin in the plane: after 300 updates the return beats random play by a wide margin."""
    agent = make(NONE, None, settings=LEARNING, budget=2 * STEPS * 20)
    random_play, trained = learn(agent, agent.update, seed=0)
    assert trained > 0.65 * STEPS > 1.2 * random_play, (trained, random_play)  # 15.8 +- 0.9 of twelve seeds
