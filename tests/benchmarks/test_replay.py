"""Sequences per second from the memory map: 16 x 64 frames of 64 x 64, page cache warm, against the plain way.

``pytest tests/benchmarks/test_replay.py --benchmark-enable``; a round is one batch of 16 sequences. To reach: 10,000
sequences per second, so at most 1.6 ms a round.
"""

import numpy as np
import pytest

from wpt_bench.data.sequences import Replay, SequenceSampler
from wpt_bench.data.store import Dataset, ShardWriter, seal
from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import DataAccess, Units

BATCH, LENGTH, EPISODES, ROWS = 16, 64, 40, 251


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    """120 MiB of pictures, read once so that they are in the page cache."""
    folder, rng = tmp_path_factory.mktemp("replay"), np.random.default_rng(0)
    with ShardWriter(
        folder, name="s", embodiment="walker", scene="walker", collector="noise", action_repeat=2, settings={}
    ) as writer:
        for seed in range(EPISODES):
            writer.add_episode(
                state=rng.standard_normal((ROWS, 24)),
                action=np.concatenate([np.zeros((1, 6)), rng.uniform(-1, 1, (ROWS - 1, 6))]),
                image=rng.integers(0, 256, (ROWS, 64, 64, 3), dtype=np.uint8),
                seed=seed,
                origin="walker-walk",
            )
    data = seal(folder, suite="dmc", suite_version=1, name="replay", seed=0, settings={})
    return {kind: [view(data, index, kind) for index in range(EPISODES)] for kind in ("state", "image")}


def view(data: Dataset, index: int, kind: str) -> EpisodeView:
    return EpisodeView(
        data.window(index, kind), data.window(index, "action"), Units.identity(24), 6, DataAccess.REWARD_FREE
    )


def plain(episodes, rng):
    """Slices, pads and stacks, as most code bases do."""
    images, actions = [], []
    for _ in range(BATCH):
        episode = episodes[rng.integers(len(episodes))]
        start = rng.integers(len(episode) - LENGTH + 1)
        images.append(np.array(episode.observation[start : start + LENGTH]))
        actions.append(np.pad(episode.action[start : start + LENGTH], ((0, 0), (0, 15))))
    return np.stack(images), np.stack(actions)


@pytest.mark.benchmark(group="pixels 16x64")
def test_pixels_plain(benchmark, episodes):
    benchmark(plain, episodes["image"], np.random.default_rng(0))


@pytest.mark.benchmark(group="pixels 16x64")
def test_pixels_from_the_memory_map(benchmark, episodes):
    sampler = SequenceSampler(episodes["image"], LENGTH, "pixels")
    benchmark(sampler.sample, BATCH, np.random.default_rng(0))


@pytest.mark.benchmark(group="pixels 16x64")
def test_pixels_from_replay(benchmark):
    replay = Replay((64, 64, 3), np.uint8, 6, Units.identity(0), 10_000)
    rng = np.random.default_rng(0)
    for row in range(4_000):
        picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        replay.add(picture, None if row % 251 == 0 else np.zeros(6), 0.0, row % 251 == 0)
    benchmark(replay.sample, BATCH, LENGTH, rng)


@pytest.mark.benchmark(group="state 16x32")
def test_states_from_the_memory_map(benchmark, episodes):
    sampler = SequenceSampler(episodes["state"], 32, "state")
    benchmark(sampler.sample, BATCH, np.random.default_rng(0))


@pytest.mark.benchmark(group="state 16x32")
def test_states_from_replay(benchmark):
    replay = Replay((24,), np.float32, 6, Units.identity(24), 100_000)
    rng = np.random.default_rng(0)
    for row in range(20_000):
        replay.add(rng.standard_normal(24), None if row % 501 == 0 else np.zeros(6), 0.0, row % 501 == 0)
    benchmark(replay.sample, BATCH, 32, rng)
