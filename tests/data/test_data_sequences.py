"""Sequences: equal to the plain way, inside one episode, every start reachable; memory that does not grow."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_sampler import cut, reference_sample
from tiny_suite import SUITE, TASKS, build

from wpt_bench.data.sequences import Replay, SequenceSampler, split
from wpt_bench.data.views import EpisodeView, grant
from wpt_bench.protocol import DataAccess, Units, UserError


def view(length: int, number: int, state_dim: int = 3, action_dim: int = 2, rewarded: bool = False) -> EpisodeView:
    """An episode of ``length`` observations in memory, whose numbers say episode and row: 1000 * number + row."""
    row = 1000 * number + np.arange(length, dtype=np.float32)
    return EpisodeView(
        observation=np.repeat(row[:, None], state_dim, 1),
        action=np.repeat(row[:, None], action_dim, 1),
        units=Units(np.full(state_dim, 0.5, np.float32), np.arange(1, state_dim + 1, dtype=np.float32)),
        action_dim=action_dim,
        access=DataAccess.LABELLED if rewarded else DataAccess.REWARD_FREE,
        _labels=(row, row * 0) if rewarded else None,
    )


def same(batch, expected):
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if value is not None:
            assert value.dtype == expected[field.name].dtype
            np.testing.assert_array_equal(value, expected[field.name])


@pytest.mark.parametrize("access", [DataAccess.REWARD_FREE, DataAccess.LABELLED_MULTITASK])
@pytest.mark.parametrize("kind", ["state", "pixels"])
def test_equals_the_plain_way(tmp_path, access, kind):
    data = build(tmp_path, ("cart", "boat", "arm-push"), episodes=2, pixels=True)
    tasks = [TASKS["cart-left"], TASKS["boat-right"], TASKS["arm-push"]]
    episodes = grant(data, access, tasks[0], SUITE, kind, tasks).episodes()
    sampler = SequenceSampler(episodes, 4, kind)
    batch = sampler.sample(32, np.random.default_rng(7))
    same(batch, reference_sample(episodes, 4, kind, 32, np.random.default_rng(7)))
    assert (batch.reward is None) == (access is DataAccess.REWARD_FREE)
    assert (batch.observation_mask is None) == (kind == "pixels")
    assert batch.observation.shape == ((32, 4, 96) if kind == "state" else (32, 4, 64, 64, 3))


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 9), min_size=1, max_size=4),
    length=st.integers(1, 9),
    dims=st.tuples(st.integers(1, 96), st.integers(1, 21)),
    batch=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_chunks_padding_and_masks(lengths, length, dims, batch, seed):
    episodes = [view(rows, number, *dims, rewarded=True) for number, rows in enumerate(lengths)]
    if min(lengths) < length:
        with pytest.raises(UserError, match="shorter"):
            SequenceSampler(episodes, length, "state")
        return
    sampled = SequenceSampler(episodes, length, "state").sample(batch, np.random.default_rng(seed))
    same(sampled, reference_sample(episodes, length, "state", batch, np.random.default_rng(seed)))
    number, row = np.divmod(sampled.reward, 1000)
    assert (number == number[:, :1]).all()  # one episode per sequence
    assert (np.diff(row, axis=1) == 1).all()  # its consecutive rows
    assert (row[:, -1] < np.array(lengths)[number[:, 0].astype(int)]).all()
    np.testing.assert_array_equal(sampled.observation_mask, np.tile(np.arange(96) < dims[0], (batch, 1)))
    np.testing.assert_array_equal(sampled.action_mask, np.tile(np.arange(21) < dims[1], (batch, 1)))
    assert not sampled.observation[..., dims[0] :].any()
    assert not sampled.action[..., dims[1] :].any()


def test_episodes_and_starts_are_uniform():
    """Episodes of 4 and 8 observations, sequences of 3: starts 0-1 and 0-5; an episode is as likely as the other."""
    sampler = SequenceSampler([view(4, 0, rewarded=True), view(8, 1, rewarded=True)], 3, "state")
    first = sampler.sample(60_000, np.random.default_rng(0)).reward[:, 0]
    values, counts = np.unique(first, return_counts=True)
    np.testing.assert_array_equal(values, [0, 1, 1000, 1001, 1002, 1003, 1004, 1005])
    np.testing.assert_allclose(counts, [15_000] * 2 + [5_000] * 6, rtol=0.06)  # four standard deviations


def test_a_sequence_may_be_a_whole_episode():
    sampled = SequenceSampler([view(5, 0, rewarded=True)], 5, "state").sample(3, np.random.default_rng(0))
    np.testing.assert_array_equal(sampled.reward, [np.arange(5)] * 3)


def test_without_episodes_is_one_sentence():
    with pytest.raises(UserError, match="no offline episode"):
        SequenceSampler([], 3, "state")


def test_a_batch_is_a_copy(dataset):
    episodes = grant(dataset, DataAccess.REWARD_FREE, TASKS["cart-left"], SUITE, "state").episodes()
    batch = SequenceSampler(episodes, 31, "state").sample(4, np.random.default_rng(0))
    batch.observation[:] = 5  # writes nothing to the data
    assert not any((np.array(episode.observation) == 5).all() for episode in episodes)


def filled(lengths, capacity=10_000, action_dim=2) -> Replay:
    replay = Replay(
        (3,), np.float32, action_dim, Units(np.zeros(3, np.float32), np.arange(1, 4, dtype=np.float32)), capacity
    )
    for number, length in enumerate(lengths):
        for row in range(length):
            value = 1000 * number + row
            replay.add(np.full(3, value), None if row == 0 else np.full(action_dim, value), value, row == 0)
    return replay


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=4),
    length=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_replay_gives_sequences_of_its_episodes(lengths, length, seed):
    replay = filled(lengths)
    assert len(replay) == sum(lengths)
    assert [len(episode) for episode in replay.episodes] == lengths
    assert replay.starts(length) == sum(max(0, rows - length + 1) for rows in lengths)
    if not replay.starts(length):
        with pytest.raises(UserError, match="No episode"):
            replay.sample(1, length, np.random.default_rng(seed))
        return
    batch = replay.sample(16, length, np.random.default_rng(seed))
    for position in range(16):
        number, start = divmod(int(batch.reward[position, 0]), 1000)
        expected = cut(replay.episodes[number], start, length, "state")
        for key, value in expected.items():
            np.testing.assert_array_equal(getattr(batch, key)[position], value)
        assert start + length <= lengths[number]
        if start == 0:
            assert not batch.action[position, 0].any()


def test_replay_starts_are_uniform_over_all_of_them():
    first = filled([4, 2, 8]).sample(80_000, 3, np.random.default_rng(0)).reward[:, 0]
    values, counts = np.unique(first, return_counts=True)
    np.testing.assert_array_equal(values, [0, 1, 2000, 2001, 2002, 2003, 2004, 2005])
    np.testing.assert_allclose(counts, 10_000, rtol=0.04)


def test_the_unfinished_episode_is_sampled_as_soon_as_it_is_long_enough():
    replay = filled([2])
    assert replay.starts(3) == 0
    replay.add(np.full(3, 2), np.full(2, 2), 2, False)
    np.testing.assert_array_equal(replay.sample(1, 3, np.random.default_rng(0)).reward, [[0, 1, 2]])


def test_replay_drops_its_oldest_episodes():
    replay = filled([50, 60, 70], capacity=140)
    assert [len(episode) for episode in replay.episodes] == [60, 70]
    assert len(replay) == 130
    assert replay.sample(500, 5, np.random.default_rng(0)).reward.min() >= 1000


def test_replay_begins_with_a_first_observation():
    with pytest.raises(ValueError, match="begin an episode"):
        Replay((3,), np.float32, 2, Units.identity(3), 10).add(np.zeros(3), np.zeros(2), 0.0, False)


def test_replay_of_pictures():
    replay = Replay((64, 64, 3), np.uint8, 1, Units.identity(0), 100)
    for row in range(70):
        replay.add(np.full((64, 64, 3), row, np.uint8), None if row == 0 else np.ones(1), 1.0, row == 0)
    batch = replay.sample(8, 4, np.random.default_rng(0))
    assert batch.observation.dtype == np.uint8
    assert batch.observation_mask is None
    np.testing.assert_array_equal(np.diff(batch.observation[..., 0, 0, 0].astype(int), axis=1), 1)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 30), min_size=1, max_size=5),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_split_holds_out_some_of_every_group(sizes, fraction, seed):
    groups = [name for name, size in enumerate(sizes) for _ in range(size)]
    kept, held_out = split(groups, fraction, seed)
    assert sorted(kept + held_out) == list(range(len(groups)))
    for name, size in enumerate(sizes):
        count = sum(groups[index] == name for index in held_out)
        assert 1 <= count <= size - 1
        assert abs(count - fraction * size) <= 1
    assert split(groups, fraction, seed) == (kept, held_out)


def test_split_learns_from_an_only_episode():
    kept, held_out = split(["cart", "cart", "walker"], 0.1, 0)
    assert 2 in kept and len(held_out) == 1


MEASURE = """
import sys
import numpy as np
from wpt_bench.data.sequences import SequenceSampler
from wpt_bench.data.store import Dataset, ShardWriter, seal
from wpt_bench.data.views import grant
from wpt_bench.protocol import DataAccess
from tiny_suite import SUITE, TASKS
from pathlib import Path

def status(key):
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith(key))

folder, episodes = Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
start = status("VmRSS")
with ShardWriter(
    folder, name="s", embodiment="cart", scene="cart", collector="noise", action_repeat=2, settings={}
) as writer:
    for seed in range(episodes):
        image = rng.integers(0, 256, (251, 64, 64, 3), dtype=np.uint8)
        writer.add_episode(state=np.zeros((251, 3)), action=np.zeros((251, 1)), image=image, seed=seed, origin="x")
del image
seal(folder, suite="tiny", suite_version=1, name="x", seed=0, settings={})
written = status("VmHWM") - start
view = grant(Dataset.open(folder), DataAccess.REWARD_FREE, TASKS["cart-left"], SUITE, "pixels")
sampler = SequenceSampler(view.episodes(), 64, "pixels")
peak, anonymous = 0, 0
for _ in range(120):
    sampler.sample(16, rng)
    peak, anonymous = max(peak, status("VmRSS") - start), max(anonymous, status("RssAnon"))
print(written, peak, anonymous)
"""


def memory(folder: Path, episodes: int) -> tuple[int, int, int]:
    """MiB: growth of the peak while writing, growth of resident memory while sampling, private memory at most."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), str(episodes)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    written, peak, anonymous = map(int, done.stdout.split())
    return written, peak, anonymous


def test_memory_does_not_grow_with_the_pixels_on_disk(tmp_path):
    """3 MiB of pictures per episode, so 200 MiB against 800 MiB on disk; a batch has 12 MiB."""
    small, large = memory(tmp_path / "small", 68), memory(tmp_path / "large", 272)
    assert large[0] < small[0] + 16  # writing
    assert large[1] < 256  # sampling: two batches, and the pages touched until they are let go of after 64 MiB
    assert large[2] < small[2] + 16  # what is not the system's page cache
