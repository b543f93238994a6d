"""Retrieval: exact neighbours, no duplicates, and a clear word when there are too few."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wpt.toy import episode
from wpt_bench.protocol import UserError
from wpt_bench.wpt.retrieval import candidates, nearest_episodes, random_episodes


@given(st.integers(1, 30), st.integers(0, 1000))
def test_neighbours_are_those_of_a_plain_search(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(30, 5)).astype(np.float32)
    query = rng.normal(size=5).astype(np.float32)
    indices = rng.permutation(100)[:30].tolist()
    found = nearest_episodes(query, keys, indices, count)
    distance = ((keys - query) ** 2).sum(1)
    assert len(set(found)) == count
    assert found == [indices[row] for row in np.argsort(distance, kind="stable")[:count]]


def test_only_episodes_of_our_dimensions_are_candidates() -> None:
    shapes = [(2, 6), (2, 1), (2, 6), (3, 6), (2, 4)]
    episodes = [episode(np.zeros((3, state), np.float32), np.zeros((3, dim), np.float32)) for state, dim in shapes]
    assert candidates(episodes, 6, (2,), 2) == [0, 2]


def test_too_few_episodes_are_an_error_that_says_what_to_do() -> None:
    episodes = [episode(np.zeros((3, 2), np.float32), np.zeros((3, 6), np.float32))]
    with pytest.raises(
        UserError, match=r"needs 2 offline episodes with 6 action dimensions .* the data has 1; collect"
    ):
        candidates(episodes, 6, (2,), 2)


def test_the_random_control_draws_without_replacement_and_by_seed() -> None:
    drawn = random_episodes(range(50, 90), 20, 0)
    assert len(set(drawn)) == 20 and set(drawn) <= set(range(50, 90))
    assert drawn == random_episodes(range(50, 90), 20, 0) != random_episodes(range(50, 90), 20, 1)
