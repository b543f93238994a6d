"""The table of transitions against a plain one, and against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baselines import toy
from wpt_bench.baselines.networks import SHIFT, random_shift
from wpt_bench.baselines.transitions import (
    Sight,
    Transitions,
    of_all_tasks,
    rewarded,
    rewards_to_go,
)
from wpt_bench.protocol import DISCOUNT, Units, UserError

STATE, PIXELS = Sight(False, 1, 1), Sight(True, 1, 1)
ONE = Units.identity(1)


def play(table: Transitions, lengths: list[int], finished: bool = True) -> list[list[tuple[float, float, float]]]:
    """Episodes whose states count upwards from 100 for each episode, and whose rewards are 1, 2, ..., all kept."""
    made = []
    for number, length in enumerate(lengths):
        rows = [(100.0 * number + step, step / 10, float(step)) for step in range(length + 1)]
        for step, (state, action, reward) in enumerate(rows):
            seen = np.array([state], np.float32)
            table.add(seen, np.array([action], np.float32) if step else None, reward if step else 0.0, ONE)
        made.append(rows)
    return made


def inverse(x: torch.Tensor) -> list[float]:
    """States back from symlog."""
    return [round(float(value), 3) for value in torch.expm1(x).flatten()]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 3), st.integers(0, 2**16))
def test_sampled_transitions_are_those_that_were_played(lengths: list[int], steps: int, seed: int) -> None:
    table = Transitions(STATE, sum(lengths) + len(lengths), steps)
    made = play(table, lengths)
    plain = {
        (rows[t][0], rows[t + steps][0], rows[t + 1][1]): sum(DISCOUNT**k * rows[t + 1 + k][2] for k in range(steps))
        for rows in made
        for t in range(len(rows) - steps)
    }
    assert len(table) == len(plain)
    if not plain:
        with pytest.raises(UserError, match="no transition to learn from"):
            table.sample(4, np.random.default_rng(seed), "cpu")
        return
    batch = table.sample(64, np.random.default_rng(seed), "cpu")
    columns = (inverse(batch.observation), inverse(batch.next_observation), batch.action.flatten().tolist())
    for first, last, action, reward in zip(*columns, batch.reward.tolist(), strict=True):
        key = next(key for key in plain if key == pytest.approx((first, last, action), abs=1e-2))
        assert reward == pytest.approx(plain[key], rel=1e-5)


def test_rewards_to_go_are_discounted_for_ever_and_unknown_in_an_unfinished_episode() -> None:
    # The last reward goes on: 4 / (1 - 0.99) = 400, then 2 + 0.99 * 400 = 398 and 1 + 0.99 * 398.
    assert rewards_to_go(np.array([1, 2, 4], np.float32)).tolist() == pytest.approx([395.02, 398, 400])
    table = Transitions(STATE, 10)
    play(table, [2])
    assert np.isneginf(table.sample(8, np.random.default_rng(0), "cpu").to_go.numpy()).all()
    play(table, [1])  # the first episode has ended
    known = {round(value, 4) for value in table.sample(64, np.random.default_rng(0), "cpu").to_go.tolist()}
    assert known == {round(1 + 0.99 * 200, 4), 200.0, -np.inf}


def test_rewards_are_scaled_wherever_they_come_from() -> None:
    tenth = Sight(False, 1, 1, reward_scale=0.1)
    own, offline = Transitions(tenth, 10), Transitions(tenth, 10)
    play(own, [2])
    state, action = np.zeros((3, 1), np.float32), np.zeros((3, 1), np.float32)
    offline.add_episode(toy.episode(state, action, [0, 1, 2]), np.array([0, 1, 2], np.float32))
    play(own, [1])
    for table in (own, offline):
        batch = table.sample(64, np.random.default_rng(0), "cpu")
        found = set(zip(batch.reward.numpy().round(4).tolist(), batch.to_go.numpy().round(4).tolist(), strict=True))
        assert {(0.1, 19.9), (0.2, 20.0)} <= {(round(r, 4), round(g, 4)) for r, g in found}


def test_the_range_of_returns_is_of_offline_episodes_by_task() -> None:
    table = Transitions(Sight(False, 1, 1, reward_scale=0.1), 20)
    action = np.zeros((3, 1), np.float32)
    told = ((0, [9, 1, 2]), (0, [0, 4, 4]), (0, [0, 0, 5]), (1, [0, 3, 3]))  # what leads to the first state is nothing
    states = [np.zeros((3, 1), np.float32) for _ in told]
    for state, (task, rewards) in zip(states, told, strict=True):
        table.add_episode(toy.episode(state, action, rewards), np.array(rewards, np.float32), task)
    play(table, [3])  # own experience tells nothing of the data
    assert table.return_ranges() == pytest.approx({0: 0.5, 1: 0.0})


def test_frames_are_stacked_within_their_episode() -> None:
    table = Transitions(PIXELS, 8)
    for number in range(2):
        for step in range(4):
            frame = np.full((64, 64, 3), 10 * number + step, np.uint8)
            table.add(frame, np.zeros(1, np.float32) if step else None, 0.0, ONE)
    batch = table.sample(200, np.random.default_rng(0), "cpu")
    stacks = {tuple(stack[0, 0, ::3].tolist()) for stack in batch.observation}
    assert stacks == {(0, 0, 0), (0, 0, 1), (0, 1, 2), (10, 10, 10), (10, 10, 11), (10, 11, 12)}
    assert torch.equal(batch.observation[..., 3:], batch.next_observation[..., :6])  # one step apart


def test_tasks_share_observations_and_are_drawn_equally_often() -> None:
    state, action = np.arange(6, dtype=np.float32)[:, None], np.zeros((6, 1), np.float32)
    short = np.arange(3, dtype=np.float32)[:, None]
    episodes = [
        toy.episode(state, action, [0, 1, 1, 1, 1, 1], "walk"),
        toy.episode(state, action, [0, 2, 2, 2, 2, 2], "run"),
        toy.episode(short, action[:3], [0, 1, 1], "walk"),
    ]
    sight = Sight(False, 96, 21)
    table = of_all_tasks(sight, episodes, ("run", "walk", "jump"))
    assert table._observed == 9  # not 15
    assert table.balance() == [0, 1]
    batch = table.sample(4000, np.random.default_rng(0), "cpu")
    assert float((batch.task == 0).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert torch.equal(batch.reward, torch.where(batch.task == 0, 2.0, 1.0))
    assert batch.mask[0].tolist() == [1.0] + 20 * [0.0]


def test_offline_episodes_without_labels_or_without_anything_are_refused() -> None:
    with pytest.raises(UserError, match="has no episode; collect some first"):
        rewarded(STATE, [])
    bare = toy.episode(np.zeros((3, 1), np.float32), np.zeros((3, 1), np.float32), None)
    with pytest.raises(UserError, match="does not grant the reward"):
        rewarded(STATE, [bare])


def test_states_are_scaled_and_padded() -> None:
    sight = Sight(False, 4, 2)
    seen = sight.states(np.array([[3.0, -1.0]], np.float32), Units(np.array([1, 0], np.float32), np.full(2, 2.0)))
    assert seen[0].tolist() == pytest.approx([np.log1p(4.0), -np.log1p(2.0), 0, 0])


def test_pictures_are_shifted_whole_and_edges_are_repeated() -> None:
    ramp = torch.arange(10).repeat(10, 1)
    picture = torch.stack([ramp.T, ramp], -1).repeat(300, 1, 1, 1)  # a pixel's row and column
    shifted = random_shift(picture, torch.Generator().manual_seed(0))
    down, right = shifted[:, 5, 5, 0] - 5, shifted[:, 5, 5, 1] - 5
    assert set(down.tolist()) == set(right.tolist()) == set(range(-SHIFT, SHIFT + 1))
    wanted = (torch.arange(10) + down[:, None]).clamp(0, 9)
    assert torch.equal(shifted[..., 0], wanted[:, :, None].expand(-1, -1, 10))
    assert torch.equal(shifted[:, 0, :, 1], (torch.arange(10) + right[:, None]).clamp(0, 9))
