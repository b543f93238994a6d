"""Diagnoses: each formula by hand, on a real small model, and that an agent is none the wiser for being asked."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from running.small import silent

from wpt.toy import SETTINGS, STEPS, context, episode, fill, write_weights
from wpt.toy import agent as make
from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import Diagnosed, Units
from wpt_bench.world_model.functional import TWO_HOT_BINS, TWO_HOT_RANGE
from wpt_bench.wpt.agent import Switches, WPTAgent
from wpt_bench.wpt.diagnosis import Neighbours, nearest, nearest_elsewhere, reward_errors, unexplained, values
from wpt_bench.wpt.pretraining import CONTEXT, HORIZON

ALL, NONE = Switches(True, True, True), Switches(False, False, False)
KINDS = pytest.mark.parametrize("observation", ["state", "pixels"])


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write_weights(tmp_path_factory.mktemp(kind), kind) for kind in ("state", "pixels")}


def pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (STEPS + 1, count, 64, 64, 3), np.uint8)


def offline() -> list[EpisodeView]:
    seen = pictures(4, seed=9)
    return [episode(seen[:, index], np.full((STEPS + 1, 2), 0.1 * index, np.float32)) for index in range(4)]


def agent(observation: str, switches: Switches, pretrained: dict[str, Path]) -> WPTAgent:
    changes = {}
    if observation == "pixels":
        changes = {"data": SimpleNamespace(episodes=offline), "initial_observation": pictures(1, seed=9)[0, 0]}
    made = make(switches, pretrained[observation], observation=observation, **changes)
    made.offline(silent)
    return made


def played(observation: str, rows: int = STEPS + 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two episodes."""
    rng = np.random.default_rng(5)
    seen = pictures(2, seed=6)[:rows] if observation == "pixels" else rng.normal(size=(rows, 2, 3)).astype(np.float32)
    action = rng.uniform(-1, 1, (rows, 2, 2)).astype(np.float32)
    reward = rng.normal(size=(rows, 2)).astype(np.float32)
    action[0], reward[0] = 0, 0
    return seen, action, reward


def test_squared_error_is_a_share_of_the_variance_over_all_dimensions() -> None:
    truth = torch.tensor([[1.0, 0.0], [3.0, 0.0]])  # one episode of two steps: variance 1 + 0
    variance = truth.var(0, correction=0).sum()[None]
    truth = truth[:, None, None]
    assert unexplained(truth, truth, variance).tolist() == [0.0]
    assert unexplained(torch.tensor([2.0, 0.0]).expand_as(truth), truth, variance).tolist() == [1.0]
    assert unexplained(truth + torch.tensor([0.0, 2.0]), truth, variance).tolist() == [4.0]
    chunks = torch.cat([truth, truth + 1], 1)  # of two chunks, one is missed by 1 in both dimensions
    assert unexplained(truth.expand_as(chunks), chunks, variance).tolist() == [1.0]


def test_reward_errors_by_hand() -> None:
    found = reward_errors(torch.tensor([[1.0, 0.5], [0.0, 0.5], [2.0, 0.5]]), torch.tensor([[0.0, 1], [1, 1], [2, 1]]))
    assert found["reward_error"].tolist() == pytest.approx([2 / 3, 0.5])
    assert found["reward_error_mean"].tolist() == pytest.approx([2 / 3, 0.0])


def test_values_by_hand() -> None:
    found = values(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[1.0], [10.0]]))
    last = 10 + 0.99 * 3
    realised = (1 + 0.99 * last + last) / 2
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"value": 1.5, "value_realised": realised, "value_bias": 1.5 - realised}
    )


def test_a_critic_that_knows_the_future_has_no_bias() -> None:
    reward = torch.rand(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known = [torch.full((2,), 7.0, dtype=torch.float64)]
    for one in reversed(reward.unbind()):
        known.append(one + 0.99 * known[-1])
    assert values(torch.stack(known[::-1]), reward)["value_bias"].abs().max() < 1e-9


def test_neighbours_on_a_line_by_hand() -> None:
    keys = np.array([[0.0], [1.0], [1.5], [10.0]], np.float32)
    assert nearest(np.array([[4.0], [1.1]], np.float32), keys) == pytest.approx([2.5, 0.1])
    assert nearest_elsewhere(keys, np.array([0, 0, 1, 1])) == pytest.approx([1.5, 0.5, 0.5, 9.0])


@given(st.integers(0, 1000), st.integers(2, 6))
def test_neighbours_elsewhere_are_those_of_a_plain_search(seed: int, owners: int) -> None:
    rng = np.random.default_rng(seed)
    owner = np.sort(np.concatenate([np.arange(owners), rng.integers(0, owners, 20)]))
    keys = rng.normal(size=(len(owner), 4)).astype(np.float32)
    apart = np.sqrt(((keys[:, None] - keys[None]) ** 2).sum(-1))
    apart[owner[:, None] == owner] = np.inf
    assert nearest_elsewhere(keys, owner) == pytest.approx(apart.min(1), rel=1e-3)


def test_one_is_as_near_as_retrieved_episodes_are_to_one_another(pretrained: dict[str, Path]) -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(200, 60, 3)).astype(np.float32)  # of sixty episodes alike
    held = [episode(states[:, index], np.zeros((200, 2), np.float32)) for index in range(50)]
    neighbours = Neighbours(context(pretrained["state"]), SETTINGS.world_model, held)
    alike = neighbours.distances(states[:, 50:])
    assert alike.shape == (10,) and alike == pytest.approx(np.ones(10), abs=0.3)
    assert alike.mean() == pytest.approx(1, abs=0.1)
    assert neighbours.distances(states[:, :3]) == pytest.approx(np.zeros(3), abs=0.01)
    assert (neighbours.distances(states[:, 50:] * 20 + 50) > 3).all()


def test_pictures_are_as_near_as_features_of_the_pretrained_encoder(pretrained: dict[str, Path]) -> None:
    asked, seen = agent("pixels", ALL, pretrained), pictures(2, seed=6)
    with torch.no_grad():  # the agent has learned nothing yet

        def features(frames: np.ndarray) -> np.ndarray:
            return asked.world_model.encode(asked.world_model.prepare(torch.from_numpy(frames))).numpy()

        held = [features(offline()[index].observation) for index in asked.retrieved]
        ours = [features(seen[:, index]) for index in range(2)]

    def apart(one: np.ndarray, others: list[np.ndarray]) -> float:
        return np.sqrt(((one[:, None] - np.concatenate(others)) ** 2).sum(-1)).min(1).mean()

    spread = np.mean([apart(one, [other for other in held if other is not one]) for one in held])
    expected = [apart(one, held) / spread for one in ours]
    found = asked.diagnose(seen, *played("pixels")[1:], seed=0)
    assert [row["retrieved_distance"] for row in found] == pytest.approx(expected, rel=1e-2)


def test_units_are_applied_before_distances_are_taken(pretrained: dict[str, Path]) -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(30, 4, 3)).astype(np.float32)
    units = Units(np.full(3, 2.0, np.float32), np.full(3, 4.0, np.float32))
    plain = [episode(states[:, index] / 4 + 2, np.zeros((30, 2), np.float32)) for index in range(4)]
    scaled = [EpisodeView(one.observation, one.action, units, 2, one.access) for one in plain]
    here = Neighbours(context(pretrained["state"], units=units), SETTINGS.world_model, scaled)
    assert here.distances(states / 4 + 2) == pytest.approx(np.zeros(4), abs=0.01)
    assert (here.distances(states) > 3).all()


@KINDS
def test_persistence_and_the_models_error_are_those_of_the_episode(observation, pretrained) -> None:
    """In an episode of as many rows as are predicted over, there is one place to predict from."""
    asked = agent(observation, NONE, pretrained)
    seen, action, reward = played(observation, rows=CONTEXT + HORIZON)
    found = asked.diagnose(seen, action, reward, seed=3)
    model, numbers = asked.world_model, seen.astype(np.float64)
    space = np.sign(numbers) * np.log1p(np.abs(numbers)) if observation == "state" else numbers / 255 - 0.5
    padded = asked._pad(seen.reshape(-1, *seen.shape[2:]), Units.identity(3)).unflatten(0, seen.shape[:2])
    actions = torch.from_numpy(np.pad(action, ((0, 0), (0, 0), (0, 19))))
    whose = torch.arange(2).repeat(8)
    prepared = model.prepare(padded[:, whose])
    predicted = model.open_loop(prepared, actions[:, whose], CONTEXT, torch.Generator().manual_seed(3))
    if observation == "pixels":
        predicted = predicted.permute(0, 1, 3, 4, 2)
    for index in range(2):
        own = space[:, index].reshape(len(space), -1)
        variance = own.var(0).sum()
        persistence = ((own[CONTEXT:] - own[CONTEXT - 1]) ** 2).sum(1).mean() / variance
        made = predicted[:, whose == index].flatten(3 if observation == "pixels" else 2).numpy()
        made = made.reshape(HORIZON, 8, -1)[..., : own.shape[1]]
        error = ((made - own[CONTEXT:, None]) ** 2).sum(-1).mean() / variance
        assert found[index]["open_loop_persistence"] == pytest.approx(persistence, rel=1e-3)
        assert found[index]["open_loop"] == pytest.approx(error, rel=1e-3)


def test_an_episode_shorter_than_the_prediction_is_predicted_as_far_as_it_goes(pretrained) -> None:
    for rows in (2, 4, CONTEXT + 1, CONTEXT + HORIZON - 1):
        for row in agent("state", NONE, pretrained).diagnose(*played("state", rows), seed=0):
            assert all(np.isfinite(list(row.values()))) and row["open_loop_persistence"] > 0


def test_a_motionless_episode_leaves_numbers_finite(pretrained: dict[str, Path]) -> None:
    _, action, reward = played("state")
    for row in agent("state", ALL, pretrained).diagnose(
        np.zeros((STEPS + 1, 2, 3), np.float32), action, reward, seed=0
    ):
        assert np.isfinite(list(row.values())).all() and row["open_loop_persistence"] == 0


@KINDS
def test_heads_are_asked_at_the_observations_they_speak_of(observation, pretrained) -> None:
    """Heads that say one number whatever they see: the bin of theirs in two-hot space."""
    asked = agent(observation, NONE, pretrained)
    seen, action, reward = played(observation)
    says = {asked.reward: 131, asked.behaviour.critic: 135}
    said = []
    for head, place in says.items():
        with torch.no_grad():
            head[-1].bias[place] = 100.0
        said.append(np.expm1((place - TWO_HOT_BINS // 2) * 2 * TWO_HOT_RANGE / (TWO_HOT_BINS - 1)))
    found = asked.diagnose(seen, action, reward, seed=0)
    for index, own in enumerate(reward[1:].T.astype(np.float64)):
        returns = [said[1]]
        for one in own[::-1]:
            returns.append(one + 0.99 * returns[-1])
        assert found[index]["reward_error"] == pytest.approx(np.abs(own - said[0]).mean(), rel=1e-4)
        assert found[index]["reward_error_mean"] == pytest.approx(np.abs(own - own.mean()).mean(), rel=1e-4)
        assert found[index]["value"] == pytest.approx(said[1], rel=1e-4)
        assert found[index]["value_realised"] == pytest.approx(np.mean(returns[1:]), rel=1e-3, abs=1e-4)


@KINDS
def test_who_is_asked_learns_the_same(observation, pretrained) -> None:
    asked, other = (agent(observation, ALL, pretrained) for _ in range(2))
    told = []
    for _ in range(2):
        for one in (asked, other):
            if observation == "state":
                fill(one)
        before = torch.random.get_rng_state()
        told.append(asked.diagnose(*played(observation), seed=4))
        asked.begin_prior(2, seed=0)
        assert torch.equal(before, torch.random.get_rng_state())
        if observation == "state":
            assert asked.update() == other.update()
    ours, theirs = asked.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if torch.is_tensor(ours[key]))
    assert told[0][0]["retrieved_distance"] == told[1][0]["retrieved_distance"]  # that encoder is frozen
    if observation == "state":
        assert told[0][0]["open_loop"] != told[1][0]["open_loop"]


def test_diagnoses_are_a_function_of_the_seed(pretrained: dict[str, Path]) -> None:
    one, other = (agent("state", ALL, pretrained) for _ in range(2))
    assert one.diagnose(*played("state"), seed=1) == other.diagnose(*played("state"), seed=1)
    assert one.diagnose(*played("state"), seed=1) != one.diagnose(*played("state"), seed=2)


def test_only_methods_that_retrieve_have_distances_and_only_cloned_priors_act(pretrained: dict[str, Path]) -> None:
    for switches, retrieves, clones in (
        (NONE, False, False),
        (Switches(True, False, False), False, False),
        (Switches(False, True, False), True, False),
        (Switches(False, False, True), True, True),
    ):
        asked = agent("state", switches, pretrained)
        assert isinstance(asked, Diagnosed)
        assert ("retrieved_distance" in asked.diagnose(*played("state"), seed=0)[0]) is retrieves
        assert (asked.begin_prior(1, seed=0) is not None) is clones


@KINDS
def test_the_prior_chooses_every_action_of_its_episodes(observation, pretrained) -> None:
    asked = agent(observation, ALL, pretrained)
    assert asked.prior is not None
    seen, frames = played(observation)[0], None
    carry = asked.begin_prior(2, seed=0)
    for row in seen[:STEPS]:
        action, carry = asked.act(carry, row, evaluation=True)
        frames = asked.prior.stack(frames, row)
        assert np.array_equal(action, asked.prior.act(frames, Units.identity(3))[:, :2].numpy())
