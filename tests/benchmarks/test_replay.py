"""Sequences per second from the memory map: 16 x 64 frames of 64 x 64, page cache warm, against the plain way.

A round is one batch of 16 sequences. To reach: 10,000 sequences per second, so at most 1.6 ms a round.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wpt_bench.data.sequences import Batch, Replay, SequenceSampler
from wpt_bench.data.store import Dataset, ShardWriter, seal
from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import ACTION_PAD, STATE_PAD, DataAccess, Units
from wpt_bench.running.machine import prepare_process

BATCH, LENGTH, EPISODES, ROWS = 16, 64, 40, 251
COLD_BYTES = 2**27
"""More than any cache holds."""

Arrays = tuple[NDArray[Any], NDArray[np.float32]]


@pytest.fixture(autouse=True, scope="module")
def as_in_a_worker():
    """Else the plain way would pay for memory that it takes anew for every batch, and look four times as slow."""
    prepare_process()


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


def plain(episodes, batch: int, length: int, rng: np.random.Generator) -> Arrays:
    """Slices, pads and stacks, as most code bases do."""
    observations, actions = [], []
    for _ in range(batch):
        episode = episodes[rng.integers(len(episodes))]
        start = rng.integers(len(episode) - length + 1)
        rows = np.array(episode.observation[start : start + length])
        if rows.ndim == 2:
            rows = np.pad(episode.units.apply(rows), ((0, 0), (0, STATE_PAD - rows.shape[1])))
        observations.append(rows)
        actions.append(np.pad(episode.action[start : start + length], ((0, 0), (0, ACTION_PAD - 6))))
    return np.stack(observations), np.stack(actions)


def test_pixels_from_the_memory_map(benchmark, episodes):
    sampler = SequenceSampler(episodes["image"], LENGTH, "pixels")
    judge(benchmark, partial(sampler.sample, BATCH), partial(plain, episodes["image"], BATCH, LENGTH))


def test_pixels_from_replay(benchmark):
    replay = Replay((64, 64, 3), np.uint8, 6, Units.identity(0), 10_000)
    rng = np.random.default_rng(0)
    for row in range(4_000):
        picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        replay.add(picture, None if row % ROWS == 0 else np.zeros(6), 0.0, row % ROWS == 0)
    judge(benchmark, partial(replay.sample, BATCH, LENGTH), partial(plain, replay.episodes, BATCH, LENGTH))


def test_states_from_the_memory_map(benchmark, episodes):
    sampler = SequenceSampler(episodes["state"], 32, "state")
    judge(benchmark, partial(sampler.sample, BATCH), partial(plain, episodes["state"], BATCH, 32))


def test_states_from_replay(benchmark):
    replay = states(20_000)
    judge(benchmark, partial(replay.sample, BATCH, 32), partial(plain, replay.episodes, BATCH, 32))


def states(rows: int) -> Replay:
    """Noise."""
    replay = Replay((24,), np.float32, 6, Units.identity(24), 100_000)
    rng = np.random.default_rng(0)
    for row in range(rows):
        replay.add(rng.standard_normal(24), None if row % 501 == 0 else np.zeros(6), 0.0, row % 501 == 0)
    return replay


def judge(benchmark, ours: Callable[[np.random.Generator], Batch], plain: Callable[[np.random.Generator], Arrays]):
    """Times ours, the plain way, and copying as many bytes from where no cache holds them."""
    batch = benchmark(ours, np.random.default_rng(0))
    assert batch.observation.shape[0] == batch.action.shape[0] == BATCH
    if benchmark.stats is None:  # benchmarks are switched off
        return
    nbytes = batch.observation.nbytes + batch.action.nbytes
    source = np.ones((max(2, COLD_BYTES // nbytes), nbytes), np.uint8)
    rows, target = itertools.cycle(source), np.ones(nbytes, np.uint8)
    floor = median_seconds(lambda: np.copyto(target, next(rows)))
    rng = np.random.default_rng(0)
    reference = median_seconds(lambda: plain(rng))
    benchmark.extra_info.update(
        floor=floor,
        floor_of="copying as many bytes within memory",
        reference=reference,
        ratio=reference / benchmark.stats.stats.median,
        sequences_per_second=BATCH / benchmark.stats.stats.median,
    )


def median_seconds(call: Callable[[], object]) -> float:
    """Of a hundred calls, after three."""
    seconds = []
    for _ in range(103):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[3:])
