"""The guidance schedule, the windows it draws, and the cloned prior."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wpt.toy import episode
from wpt_bench.protocol import STATE_PAD
from wpt_bench.wpt.guidance import ClonedPrior, Window, clone_prior, draw_window, guidance_probability
from wpt_bench.wpt.parts import padded


def test_the_probability_falls_linearly_to_zero() -> None:
    assert [guidance_probability(step, 150_000, 1 / 3) for step in (0, 25_000, 50_000, 100_000)] == pytest.approx(
        [1.0, 0.5, 0.0, 0.0]
    )
    assert guidance_probability(75_000, 150_000, 1.0) == pytest.approx(0.5)
    assert guidance_probability(0, 150_000, 0.0) == 0.0


@given(st.integers(10, 500), st.integers(0, 10_000))
def test_a_window_lies_within_the_episode_and_is_a_tenth_of_it_or_more(steps: int, seed: int) -> None:
    window = draw_window(steps, 1.0, np.random.default_rng(seed))
    assert 0 <= window.start < window.stop <= steps
    assert window.stop - window.start >= round(steps / 10)


def test_windows_have_every_length_and_reach_both_ends() -> None:
    rng = np.random.default_rng(0)
    windows = [draw_window(50, 1.0, rng) for _ in range(2000)]
    lengths = [window.stop - window.start for window in windows]
    counts = np.bincount(lengths, minlength=51)[5::5]
    assert set(lengths) == set(range(5, 51, 5))
    assert counts.min() > 140 and counts.max() < 260  # 200 each, four standard deviations are 54
    assert min(window.start for window in windows) == 0 and max(window.stop for window in windows) == 50


def test_windows_come_with_their_probability() -> None:
    rng = np.random.default_rng(0)
    guided = sum(draw_window(50, 0.3, rng) != Window(0, 0) for _ in range(2000))
    assert guided == pytest.approx(600, abs=90)


def test_the_prior_learns_the_policy_behind_the_episodes() -> None:
    """Actions are a function of the observation before them; that, not the one they led to, must be cloned."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(8):
        state = rng.normal(size=(41, 3)).astype(np.float32)
        action = np.zeros((41, 2), np.float32)
        action[1:] = np.tanh(state[:-1, :2] - state[:-1, 2:])
        episodes.append(episode(state, action))
    torch.manual_seed(0)
    prior = ClonedPrior("state", 64, 4)
    loss = clone_prior(
        prior, episodes, updates=600, batch=64, learning_rate=3e-3, seed=0, progress=lambda fraction, what="": None
    )
    fresh = torch.zeros(256, STATE_PAD)
    fresh[:, :3] = torch.randn(256, 3, generator=torch.Generator().manual_seed(1))
    wanted = torch.tanh(fresh[:, :2] - fresh[:, 2:3])
    error = ((prior(fresh)[:, :2] - wanted) ** 2).sum(-1).mean()
    assert loss < 0.1 and error < 0.15 * (wanted**2).sum(-1).mean()


@pytest.mark.parametrize("updates", [2, 4])
def test_what_acts_is_the_mean_of_the_weights_along_the_way(updates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two updates, both count half; in the long run the newest has its share. Batches are of a single pair."""
    monkeypatch.setattr("wpt_bench.wpt.guidance.AVERAGED", 0.4)
    state = np.ones((2, 3), np.float32)
    pair = episode(state, np.array([[0.0, 0.0], [0.5, -0.5]], np.float32))
    torch.manual_seed(0)
    by_hand = ClonedPrior("state", 8, 4)
    prior = copy.deepcopy(by_hand)
    clone_prior(
        prior, [pair], updates=updates, batch=4, learning_rate=1e-2, seed=0, progress=lambda fraction, what="": None
    )
    adam = torch.optim.Adam(by_hand.parameters(), lr=1e-2, eps=1e-8)
    seen = torch.zeros(4, STATE_PAD)
    seen[:, :3] = torch.from_numpy(padded(state[:1], pair.units))[:, :3]
    visited = []
    for _ in range(updates):
        adam.zero_grad()
        ((by_hand(seen)[:, :2] - torch.tensor([0.5, -0.5])) ** 2).sum(-1).mean().backward()
        adam.step()
        visited.append([weight.detach().clone() for weight in by_hand.parameters()])
    for weight, *way in zip(prior.parameters(), *visited, strict=True):
        average = (way[0] + way[1]) / 2
        for newest in way[2:]:  # a third is less than the share
            average = 0.6 * average + 0.4 * newest
        torch.testing.assert_close(weight.detach(), average)


def test_cloning_from_pictures_reduces_the_loss() -> None:
    """The action is the brightness of the picture before it."""
    rng = np.random.default_rng(0)
    brightness = rng.integers(0, 256, 31)
    picture = np.broadcast_to(brightness[:, None, None, None], (31, 64, 64, 3)).astype(np.uint8)
    action = np.zeros((31, 1), np.float32)
    action[1:, 0] = brightness[:-1] / 127.5 - 1
    torch.manual_seed(0)
    prior = ClonedPrior("pixels", 16, 4)
    losses = [
        clone_prior(
            prior,
            [episode(picture, action)],
            updates=updates,
            batch=16,
            learning_rate=1e-3,
            seed=0,
            progress=lambda fraction, what="": None,
        )
        for updates in (1, 60)
    ]
    assert losses[1] < 0.3 * losses[0]
