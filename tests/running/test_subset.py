"""Which episodes a grid has: by share, collector, quality and scene, and how many irrelevant ones a run retrieves."""

from collections import Counter

import msgspec
import numpy as np
import pytest
from data import tiny_suite
from hypothesis import given
from hypothesis import strategies as st

from wpt_bench.data.store import Dataset
from wpt_bench.data.views import grant
from wpt_bench.profiles import Subset
from wpt_bench.protocol import DataAccess, UserError
from wpt_bench.running.subset import choose, mixed


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four scenes, ten episodes of noise (quality 1) and ten that stand still (quality 0) in each."""
    return tiny_suite.build(tmp_path_factory.mktemp("data"), episodes=10)


def counted(dataset: Dataset, indices: list[int]) -> Counter[tuple[str, str]]:
    return Counter((dataset.episodes[index].scene, dataset.episodes[index].collector) for index in indices)


def test_everything_is_everything(dataset: Dataset) -> None:
    for scene in (None, "cart", "arm-pull"):
        assert choose(dataset, Subset(), scene) == list(range(80))


@given(st.floats(0.01, 1), st.floats(0, 1))
def test_shares_are_of_every_scene_and_collector(dataset: Dataset, share: float, foreign: float) -> None:
    chosen = choose(dataset, Subset(share=share, foreign=foreign), "cart")
    assert chosen == sorted(set(chosen))
    own = max(1, round(share * 10))
    others = max(1, round(foreign * own)) if foreign else 0
    for (scene, _), count in counted(dataset, chosen).items():
        assert count == (own if scene == "cart" else others)
    assert len(counted(dataset, chosen)) == (8 if foreign else 2)


def test_a_share_is_spread_over_the_order_of_recording(dataset: Dataset) -> None:
    noise = [info.index for info in dataset.episodes if (info.scene, info.collector) == ("cart", "noise")]
    chosen = choose(dataset, Subset(share=0.3, collectors=("noise",), foreign=0.0), "cart")
    assert chosen == [noise[0], noise[3], noise[6]]


def test_quality_is_a_closed_range(dataset: Dataset) -> None:
    for low, high, collectors in ((0, 0, {"still"}), (0.5, 1, {"noise"}), (0, 1, {"noise", "still"})):
        found = choose(dataset, Subset(quality=(low, high)), "cart")
        assert {dataset.episodes[index].collector for index in found} == collectors


def test_nothing_left_is_said(dataset: Dataset) -> None:
    with pytest.raises(UserError, match="has no episode of cart with quality"):
        choose(dataset, Subset(quality=(0.2, 0.3)), "cart")
    with pytest.raises(UserError, match="has no episode that fits collectors"):
        choose(dataset, Subset(collectors=("curiosity",)), None)


@pytest.mark.parametrize("irrelevant", [0.0, 0.25, 0.5, 1.0])
def test_a_run_has_so_many_irrelevant_episodes(dataset: Dataset, irrelevant: float) -> None:
    task, everything = tiny_suite.TASKS["arm-push"], choose(dataset, Subset(), None)
    chosen = mixed(dataset, everything, task, "state", irrelevant, 8, seed=3)
    scenes = Counter(dataset.episodes[index].scene for index in chosen)
    assert scenes["arm-pull"] == 8 * irrelevant and scenes["arm-push"] == 8 - 8 * irrelevant
    assert chosen == sorted(set(chosen)) == mixed(dataset, everything, task, "state", irrelevant, 8, seed=3)
    assert chosen != mixed(dataset, everything, task, "state", irrelevant, 8, seed=4)


def test_a_body_like_no_other_has_no_irrelevant_episodes(dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"tiny/cart-left needs 4 irrelevant episodes of its dimensions .* has 0"):
        mixed(dataset, choose(dataset, Subset(), None), tiny_suite.TASKS["cart-left"], "state", 0.5, 8, seed=0)


@pytest.mark.parametrize("name", ["cart-left", "cart-right"])
@pytest.mark.parametrize("access", [DataAccess.REWARD_FREE, DataAccess.LABELLED, DataAccess.DEMONSTRATIONS])
def test_every_grant_is_cut(dataset: Dataset, access: DataAccess, name: str) -> None:
    """What was left out is in no view, and what is in one is what its index says."""
    task = tiny_suite.TASKS[name]
    chosen = choose(dataset, Subset(share=0.2, foreign=0.5), "cart")
    views = grant(dataset, access, task, tiny_suite.SUITE, "state", indices=chosen).episodes()
    own = [index for index in chosen if access is DataAccess.REWARD_FREE or dataset.episodes[index].scene == "cart"]
    if access is DataAccess.DEMONSTRATIONS:  # the best tenth, at least one
        own = [max(own, key=lambda index: tiny_suite.SUITE.labels(dataset, task, index)[0].sum())]
    for index, view in zip(own, views, strict=True):
        np.testing.assert_array_equal(view.observation, dataset.state(index))


def test_a_subset_survives_its_record() -> None:
    subset = Subset(share=0.5, quality=(0.0, 0.3), foreign=0.0, irrelevant=0.0)
    plain = msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(subset)))
    assert msgspec.convert(plain, Subset) == subset and msgspec.to_builtins(Subset()) == {}
