"""Labels: equal to what the simulator paid, computed once, and never taken from a damaged cache."""

import multiprocessing

import numpy as np
import pytest
from tiny_suite import SUITE, TASKS, Points, TinySuite, build

from wpt_bench.data.labels import labels
from wpt_bench.data.store import Dataset
from wpt_bench.protocol import UserError


class Counting(TinySuite):
    """Counts the episodes it labels."""

    def __init__(self):
        self.calls = []

    def labels(self, dataset, task, episode):
        self.calls.append((task.name, episode))
        return super().labels(dataset, task, episode)


def of_scene(dataset: Dataset, scene: str) -> list[int]:
    return [info.index for info in dataset.episodes if info.scene == scene]


def test_labels_are_what_the_simulator_pays(dataset):
    for task in TASKS.values():
        chosen = of_scene(dataset, task.scene)
        for index, (reward, success) in zip(chosen, labels(dataset, SUITE, task, chosen), strict=True):
            env = Points(task, "state")
            env.reset(seed=dataset.episodes[index].seed)
            paid = [env.step(action) for action in dataset.action(index)[1:]]
            np.testing.assert_allclose(reward, [0] + [step[1] for step in paid], rtol=1e-6)
            np.testing.assert_array_equal(success, [0] + [step[4]["success"] for step in paid])
            assert paid[-1][3]


def test_labels_are_computed_once(tmp_path):
    data, suite = build(tmp_path, ("cart",)), Counting()
    task = TASKS["cart-left"]
    first = labels(data, suite, task, [4, 0])
    assert suite.calls == [("cart-left", index) for index in range(6)]
    again = labels(Dataset.open(tmp_path), suite, task, [4, 0])
    assert len(suite.calls) == 6
    for before, after in zip(first, again, strict=True):
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)
    labels(data, suite, TASKS["cart-right"], [0])
    assert len(suite.calls) == 9  # the shard of that episode


def test_a_data_set_that_grew_keeps_its_labels(tmp_path):
    suite = Counting()
    labels(build(tmp_path, ("cart",)), suite, TASKS["cart-left"], range(6))
    grown = build(tmp_path, ("boat",))
    labels(grown, suite, TASKS["cart-left"], of_scene(grown, "cart"))
    assert len(suite.calls) == 6


def test_another_suite_version_or_shard_is_labelled_anew(tmp_path):
    data, suite = build(tmp_path / "one", ("cart",), collectors=("noise",)), Counting()
    labels(data, suite, TASKS["cart-left"], [0])
    suite.version = 2
    labels(data, suite, TASKS["cart-left"], [0])
    assert len(suite.calls) == 6
    other = build(tmp_path / "other", ("cart",), collectors=("noise",), seed=1)
    (tmp_path / "one" / "labels").rename(tmp_path / "other" / "labels")
    found = labels(other, suite, TASKS["cart-left"], [0])[0][0]
    np.testing.assert_array_equal(found, SUITE.labels(other, TASKS["cart-left"], 0)[0])
    assert len(suite.calls) == 9


@pytest.mark.parametrize("damage", ["flip-sum", "flip-value", "truncate", "empty"])
def test_a_damaged_cache_is_computed_again(tmp_path, damage):
    data, suite = build(tmp_path, ("cart",), collectors=("noise",)), Counting()
    expected = np.array(labels(data, suite, TASKS["cart-left"], range(3)))
    path = tmp_path / "labels" / "cart-left-v1" / "cart-noise"
    raw = bytearray(path.read_bytes())
    assert len(raw) == 32 + 2 * 4 * 3 * 31
    if damage.startswith("flip"):
        raw[0 if damage == "flip-sum" else 40] ^= 1
    path.write_bytes({"truncate": raw[:-8], "empty": b""}.get(damage, raw))
    np.testing.assert_array_equal(labels(data, suite, TASKS["cart-left"], range(3)), expected)
    assert len(suite.calls) == 6
    labels(data, suite, TASKS["cart-left"], range(3))
    assert len(suite.calls) == 6


def test_progress_is_told(tmp_path):
    told = []
    data = build(tmp_path, ("cart",))
    labels(data, SUITE, TASKS["cart-left"], range(6), lambda fraction, what="": told.append((fraction, what)))
    assert [fraction for fraction, _ in told] == [0, 0.5]
    assert "cart-left" in told[0][1]


def test_useless_labels_of_a_suite_are_one_sentence(tmp_path):
    class Broken(TinySuite):
        def labels(self, dataset, task, episode):
            reward, success = super().labels(dataset, task, episode)
            return reward[1:], success

    with pytest.raises(UserError, match="no usable reward of cart-left for episode 0"):
        labels(build(tmp_path, ("cart",)), Broken(), TASKS["cart-left"], [0])


def ask(path, queue):
    suite = Counting()
    found = labels(Dataset.open(path), suite, TASKS["cart-left"], range(300))
    queue.put((len(suite.calls), float(sum(reward.sum() for reward, _ in found))))


def test_two_processes_share_the_work(tmp_path):
    build(tmp_path, ("cart",), episodes=300, collectors=("noise",))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=ask, args=(tmp_path, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    (calls, total), (other_calls, other_total) = queue.get(timeout=60), queue.get(timeout=60)
    for process in processes:
        process.join()
    assert calls + other_calls == 300
    assert total == other_total
