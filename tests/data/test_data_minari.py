"""Minari and back: observations, actions, rewards and successes are equal, and so is the T + 1 convention."""

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from tiny_suite import REPEAT, SUITE, TASKS

from wpt_bench.data.labels import labels
from wpt_bench.data.minari_io import from_minari, to_minari
from wpt_bench.data.store import verify
from wpt_bench.protocol import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def minari_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def back(folder, name, embodiment, scene, action_repeat=REPEAT):
    return from_minari(name, folder, suite=SUITE, embodiment=embodiment, scene=scene, action_repeat=action_repeat)


def test_round_trip_of_states_and_labels(dataset, tmp_path):
    task = TASKS["arm-push"]
    chosen = [info for info in dataset.episodes if info.scene == "arm-push"]
    to_minari(dataset, "wpt-bench/arm-v0", scene="arm-push", suite=SUITE, task=task)
    found = back(tmp_path / "back", "wpt-bench/arm-v0", "arm", "arm-push")
    assert verify(found.path) == []
    assert len(found.episodes) == len(chosen) == 6
    before = labels(dataset, SUITE, task, [info.index for info in chosen])
    after = labels(found, SUITE, task, range(6))
    for info, other, old, new in zip(chosen, found.episodes, before, after, strict=True):
        np.testing.assert_array_equal(found.state(other.index), dataset.state(info.index))
        np.testing.assert_array_equal(found.action(other.index), dataset.action(info.index))
        np.testing.assert_array_equal(new[0], old[0])
        np.testing.assert_array_equal(new[1], old[1])
        assert (other.seed, other.origin, other.quality) == (info.seed, info.origin, info.quality)
        assert (other.length, other.action_repeat, other.collector) == (info.length, REPEAT, "minari")


def test_round_trip_of_pictures_is_without_loss(pixel_dataset, tmp_path):
    to_minari(pixel_dataset, "cart-v1", scene="cart")
    found = back(tmp_path / "back", "cart-v1", "cart", "cart")
    chosen = [info.index for info in pixel_dataset.episodes if info.scene == "cart"]
    for index, other in zip(chosen, range(len(found.episodes)), strict=True):
        np.testing.assert_array_equal(found.image(other), pixel_dataset.image(index))
        np.testing.assert_array_equal(found.state(other), pixel_dataset.state(index))
        assert not found.frame_labels(other)[0].any()


def test_minari_sees_its_own_convention(dataset):
    """Minari's action and reward t are those taken at observation t."""
    task = TASKS["cart-left"]
    index = next(info.index for info in dataset.episodes if info.scene == "cart")
    episode = to_minari(dataset, "cart-v0", scene="cart", suite=SUITE, task=task)[0]
    assert episode.observations.shape == (31, 3)
    assert episode.actions.shape == (30, 1)
    np.testing.assert_array_equal(episode.actions, dataset.action(index)[1:])
    np.testing.assert_array_equal(episode.rewards, labels(dataset, SUITE, task, [index])[0][0][1:])
    assert episode.truncations.tolist() == [False] * 29 + [True]
    assert not episode.terminations.any()


def foreign(name: str, *, terminates: bool = False, action: float = 0.5, space=None) -> None:
    """A data set that somebody else made, of two steps."""
    state = np.arange(6, dtype=np.float64).reshape(3, 2)
    space = space or gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    buffer = EpisodeBuffer(
        observations=state if isinstance(space, gym.spaces.Box) else {"other": state},
        actions=np.full((2, 1), action),
        rewards=[1.5, 2.5],
        terminations=[False, terminates],
        truncations=[False, not terminates],
    )
    minari.create_dataset_from_buffers(
        name, [buffer], observation_space=space, action_space=gym.spaces.Box(-2, 2, (1,), np.float64)
    )


def test_data_of_others(tmp_path):
    foreign("other-v0")
    found = back(tmp_path / "back", "other-v0", "cart", "cart", action_repeat=1)
    np.testing.assert_array_equal(found.state(0), [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(found.action(0), [[0], [0.5], [0.5]])
    np.testing.assert_array_equal(found.frame_labels(0)[0], [0, 1.5, 2.5])
    assert (found.episodes[0].origin, found.episodes[0].quality) == ("cart", None)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"terminates": True}, "terminates"),
        ({"action": 1.5}, "outside"),
        ({"space": gym.spaces.Dict({"other": gym.spaces.Box(-9, 9, (2,), np.float64)})}, "no flat states"),
    ],
)
def test_data_that_does_not_fit_is_one_sentence_and_leaves_nothing(tmp_path, made, words):
    foreign("other-v0", **made)
    with pytest.raises(UserError, match=words):
        back(tmp_path / "back", "other-v0", "cart", "cart", action_repeat=1)
    assert list((tmp_path / "back").iterdir()) == []


def test_names_that_do_not_exist_or_do(dataset, tmp_path):
    with pytest.raises(UserError, match="no data set 'missing-v0'"):
        back(tmp_path / "back", "missing-v0", "cart", "cart")
    with pytest.raises(UserError, match="no episode of moon"):
        to_minari(dataset, "moon-v0", scene="moon")
    to_minari(dataset, "cart-v0", scene="cart")
    for name in ("cart-v0", "not an id"):
        with pytest.raises(UserError, match="Minari cannot make"):
            to_minari(dataset, name, scene="cart")


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (lambda file: file.__setitem__("episode_0/secret", h5py.ExternalLink("/etc/passwd", "/")), "leads elsewhere"),
        (lambda file: file.__setitem__("episode_0/again", h5py.SoftLink("/")), "leads elsewhere"),
        (
            lambda file: file.create_dataset("raw", (4,), "u1", external=[("/etc/passwd", 0, 4)]),
            "leads to other files",
        ),
        (lambda file: file.create_dataset("huge", (10**13,), "f8", chunks=(1024,)), "holds none of them"),
    ],
)
def test_a_strangers_file_leads_nowhere_and_takes_no_memory(dataset, tmp_path, tamper, words):
    to_minari(dataset, "cart-v3", scene="cart")
    with h5py.File(tmp_path / "minari" / "cart-v3" / "data" / "main_data.hdf5", "a") as file:
        tamper(file)
    with pytest.raises(UserError, match=words):
        back(tmp_path / "back", "cart-v3", "cart", "cart")
    assert not (tmp_path / "back").exists()
