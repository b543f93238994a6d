"""The grants: what each method sees, and that nothing else can be reached."""

import dataclasses

import numpy as np
import pytest
from tiny_suite import SUITE, TASKS, build, record

from wpt_bench.data.labels import labels
from wpt_bench.data.store import Dataset, ShardWriter, seal
from wpt_bench.data.views import DataView, EpisodeView, demonstrations, grant
from wpt_bench.protocol import DataAccess, DataAccessError, Task, Units, UserError

HIDDEN = ("embodiment", "scene", "origin", "collector", "quality", "physics", "labels", "frame_labels", "seed", "shard")
ALL = tuple(TASKS.values())


def granted(dataset: Dataset, access: DataAccess, task: str = "cart-left", tasks: tuple[Task, ...] = ()) -> DataView:
    return grant(dataset, access, TASKS[task], SUITE, "state", tasks)


def indices(dataset: Dataset, **known) -> list[int]:
    return [info.index for info in dataset.episodes if all(getattr(info, key) == known[key] for key in known)]


def test_nothing_is_granted_to_online_methods(dataset):
    for data in (dataset, None):
        view = granted(data, DataAccess.NONE)
        for touch in (view.episodes, lambda view=view: view.physics, lambda view=view: view.dataset):
            with pytest.raises(DataAccessError, match="declares the data access 'none', which does not grant"):
                touch()


def test_reward_free_is_every_episode_in_order_without_labels(dataset):
    view = granted(dataset, DataAccess.REWARD_FREE)
    assert len(view.episodes()) == len(dataset.episodes)
    for info, episode in zip(dataset.episodes, view.episodes(), strict=True):
        np.testing.assert_array_equal(episode.observation, dataset.state(info.index))
        np.testing.assert_array_equal(episode.action, dataset.action(info.index))
        np.testing.assert_array_equal(episode.units.scale, SUITE.units(info.embodiment).scale)
        assert episode.action_dim == info.action_dim
        assert len(episode) == 31
        assert not episode.rewarded
        for name in ("reward", "success", "task"):
            with pytest.raises(DataAccessError, match=f"'reward-free', which does not grant the {name}"):
                getattr(episode, name)


def test_labelled_is_the_embodiment_with_the_tasks_reward(dataset):
    for task, toward in (("cart-left", -1), ("cart-right", 1)):
        episodes = granted(dataset, DataAccess.LABELLED, task).episodes()
        assert len(episodes) == 6
        for index, episode in zip(indices(dataset, scene="cart"), episodes, strict=True):
            frames = (1 + toward * dataset.physics(index)[1:, 0]) / 2  # hand-worked: at each of two frames
            np.testing.assert_allclose(episode.reward[1:], frames[::2] + frames[1::2], rtol=1e-6)
            assert episode.reward[0] == 0
            assert episode.task == task


def test_labelled_is_the_scene_where_rewards_were_recorded(dataset):
    episodes = granted(dataset, DataAccess.LABELLED, "arm-push").episodes()
    chosen = indices(dataset, scene="arm-push")
    assert len(episodes) == len(chosen) == 6
    for index, episode in zip(chosen, episodes, strict=True):
        np.testing.assert_array_equal(episode.observation, dataset.state(index))
        np.testing.assert_array_equal(episode.success, dataset.frame_labels(index)[1][::2])


def test_multitask_has_an_episode_once_per_task(dataset):
    episodes = granted(dataset, DataAccess.LABELLED_MULTITASK, tasks=ALL).episodes()
    names = [episode.task for episode in episodes]
    assert {name: names.count(name) for name in TASKS} == dict.fromkeys(TASKS, 6)
    left, right = (next(e for e in episodes if e.task == name) for name in ("cart-left", "cart-right"))
    np.testing.assert_allclose(left.reward[1:] + right.reward[1:], 2.0, rtol=1e-6)


def test_demonstrations_are_the_best_tenth_without_rewards(tmp_path):
    data = build(tmp_path, ("cart",), episodes=25, collectors=("noise",))
    returns = [float(-data.physics(index)[1:, 0].sum()) for index in range(25)]
    best = sorted(sorted(range(25), key=lambda index: -returns[index])[:2])
    episodes = granted(data, DataAccess.DEMONSTRATIONS).episodes()
    assert len(episodes) == 2
    for index, episode in zip(best, episodes, strict=True):
        np.testing.assert_array_equal(episode.observation, data.state(index))
        assert episode.task == "cart-left"
        for name in ("reward", "success"):
            with pytest.raises(DataAccessError, match=f"'demonstrations', which does not grant the {name}"):
                getattr(episode, name)


def ending(reward: float, success: float):
    return np.array([0, reward], np.float32), np.array([0, success], np.float32)


def test_which_episodes_are_demonstrations():
    by_return, by_success = TASKS["cart-left"], TASKS["arm-push"]
    assert demonstrations(by_return, [ending(1, 0), ending(3, 0), ending(2, 0)]) == [1]  # at least one
    assert demonstrations(by_return, [ending(value, 0) for value in [5, *range(20)]]) == [19, 20]
    assert demonstrations(by_return, [ending(1, 0)] * 20) == [0, 1]  # ties: the earlier ones
    assert demonstrations(by_success, [ending(9, 0), ending(1, 1), ending(0, 1)]) == [1, 2]
    lost = np.zeros(3, np.float32), np.array([0, 1, 0], np.float32)  # succeeded, but not at the last step
    assert demonstrations(by_success, [lost]) == []


def test_demonstrations_of_several_tasks_keep_their_task(dataset):
    labelled = labels(dataset, SUITE, TASKS["arm-push"], indices(dataset, scene="arm-push"))
    successes = sum(success[-1] for _, success in labelled)
    names = [e.task for e in granted(dataset, DataAccess.DEMONSTRATIONS, tasks=ALL).episodes()]
    assert names.count("cart-left") == names.count("cart-right") == names.count("boat-right") == 1
    assert names.count("arm-push") == successes


def test_without_any_demonstration_is_one_sentence(tmp_path):
    data = build(tmp_path, ("arm-push",), episodes=1, collectors=("still",), seed=3)
    assert labels(data, SUITE, TASKS["arm-push"], [0])[0][1][-1] == 0
    with pytest.raises(UserError, match="succeeds at its last step"):
        granted(data, DataAccess.DEMONSTRATIONS, "arm-push")


def test_pixels_come_without_states(pixel_dataset):
    view = grant(pixel_dataset, DataAccess.REWARD_FREE, TASKS["cart-left"], SUITE, "pixels")
    for info, episode in zip(pixel_dataset.episodes, view.episodes(), strict=True):
        np.testing.assert_array_equal(episode.observation, pixel_dataset.image(info.index))
        assert episode.units.scale.size == 0  # the size would tell the embodiment
        with pytest.raises(DataAccessError, match="the state"):
            episode.state  # noqa: B018


def test_labels_of_data_that_has_none_are_one_sentence(tmp_path):
    whole = record(TASKS["cart-left"], 0, 1.0)
    del whole["physics"]
    of = {"embodiment": "cart", "scene": "cart", "collector": "noise", "action_repeat": 2, "settings": {}}
    with ShardWriter(tmp_path, name="bare", **of) as writer:
        writer.add_episode(**whole)
    bare = seal(tmp_path, suite="tiny", suite_version=1, name="test", seed=0, settings={})
    assert len(granted(bare, DataAccess.REWARD_FREE, "cart-left").episodes()) == 1
    with pytest.raises(UserError, match="bare holds no physics; collect the data with it"):
        granted(bare, DataAccess.LABELLED, "cart-left")


def test_pixels_that_were_not_recorded(dataset):
    with pytest.raises(UserError, match="holds no image"):
        grant(dataset, DataAccess.REWARD_FREE, TASKS["cart-left"], SUITE, "pixels")


def test_another_action_repeat_is_refused(dataset):
    slower = dataclasses.replace(TASKS["cart-left"], action_repeat=4)
    for access in set(DataAccess) - {DataAccess.NONE}:
        with pytest.raises(UserError, match="action repeat 2 and task cart-left has 4"):
            grant(dataset, access, slower, SUITE, "state")
        with pytest.raises(UserError, match="action repeat"):
            grant(dataset, access, TASKS["cart-right"], SUITE, "state", (slower,))


def test_a_scene_that_was_not_collected(tmp_path):
    data = build(tmp_path, ("cart",), episodes=1)
    for access in (DataAccess.LABELLED, DataAccess.LABELLED_MULTITASK, DataAccess.DEMONSTRATIONS):
        with pytest.raises(UserError, match="no episode of boat"):
            granted(data, access, "boat-right")
    with pytest.raises(UserError, match="no episode of arm-pull"):
        granted(data, DataAccess.LABELLED_MULTITASK, tasks=(TASKS["cart-left"], TASKS["arm-pull"]))
    assert len(granted(data, DataAccess.REWARD_FREE, "boat-right").episodes()) == 2
    with pytest.raises(UserError, match="needs offline data"):
        granted(None, DataAccess.REWARD_FREE)


def test_another_state_size_than_the_suites(dataset, monkeypatch):
    monkeypatch.setattr(type(SUITE), "units", lambda self, embodiment: Units.identity(7))
    with pytest.raises(UserError, match="numbers per state"):
        granted(dataset, DataAccess.REWARD_FREE)


def reachable(start: object) -> list[object]:
    """Everything that attributes, containers and the bases of arrays lead to; of the views also the private ones."""
    found: list[object] = []
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type) or callable(item):
            continue
        seen.add(id(item))
        found.append(item)
        if isinstance(item, (list, tuple, set, frozenset)):
            waiting += item
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, (DataView, EpisodeView)):
            waiting += list(vars(item).values())
        elif isinstance(item, np.ndarray):
            waiting.append(item.base)  # its other attributes make new views of itself
        elif not isinstance(item, (str, int, float, bytes, np.generic)):
            for name in dir(item):
                if not name.startswith("_"):
                    try:
                        waiting.append(getattr(item, name))
                    except Exception:  # an attribute that is not there leads nowhere
                        continue
    return found


@pytest.mark.parametrize("access", [DataAccess.NONE, DataAccess.REWARD_FREE, DataAccess.DEMONSTRATIONS])
def test_snooping_finds_nothing(dataset, access):
    view = granted(dataset, access)
    items = reachable(view)
    for item in items:
        assert not isinstance(item, (Dataset, type(dataset.episodes[0]), type(SUITE)))
        if isinstance(item, str) and access is not DataAccess.DEMONSTRATIONS:
            assert not any(word in item for word in ("cart", "boat", "noise", "still", str(dataset.path)))
        if isinstance(item, np.ndarray):
            assert len(item) <= 31 or item.ndim == 1  # never more than one episode
            assert item.size <= 31 * 5
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    rewards = labels(dataset, SUITE, TASKS["cart-left"], indices(dataset, scene="cart"))
    for reward, _ in rewards:
        assert not any(array.shape == reward.shape and np.array_equal(array, reward) for array in arrays)


def test_what_stays_with_the_harness_says_so(dataset):
    for access in set(DataAccess) - {DataAccess.NONE}:
        view = granted(dataset, access)
        for holder in (view, view.episodes()[0]):
            for name in HIDDEN:
                with pytest.raises(DataAccessError, match=f"which does not grant the {name}"):
                    getattr(holder, name)
            with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
                holder.nonsense  # noqa: B018


def test_episodes_cannot_be_changed(dataset):
    episode = granted(dataset, DataAccess.LABELLED).episodes()[0]
    for array in (episode.observation, episode.action, episode.reward):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        episode.action_dim = 3
