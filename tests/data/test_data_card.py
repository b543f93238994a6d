"""The data card: hand-worked numbers from stored labels, per collector and together."""

import io

import msgspec
import numpy as np
import pytest
from rich.console import Console
from tiny_suite import SUITE, TASKS, build

from wpt_bench.data.card import Card, CardRow, card, table
from wpt_bench.data.store import ShardWriter, seal
from wpt_bench.protocol import UserError


def arm(folder, collector, rewards, successes):
    """A shard of two-step arm episodes whose reward is all in the last frame."""
    with ShardWriter(
        folder,
        name=f"arm-push-{collector}",
        embodiment="arm",
        scene="arm-push",
        collector=collector,
        action_repeat=2,
        settings={},
    ) as writer:
        for seed, (reward, success) in enumerate(zip(rewards, successes, strict=True)):
            writer.add_episode(
                state=np.zeros((3, 4)),
                action=np.zeros((3, 2)),
                frame_reward=[0, 0, 0, 0, reward],
                frame_success=[0, 1, 0, 0, success],
                seed=seed,
                origin="arm-push",
            )


@pytest.fixture
def arms(tmp_path):
    arm(tmp_path, "scripted", [4, 1, 7], [1, 0, 1])
    arm(tmp_path, "noise", [-2], [0])
    return seal(tmp_path, suite="tiny", suite_version=1, name="arms", seed=0, settings={})


def test_hand_worked_card(arms):
    found = card(arms, SUITE, [TASKS["arm-push"]], retrieved={"arm-push": 5.5})
    assert (found.episodes, found.agent_steps, found.digest, found.suite) == (4, 8, arms.digest, "tiny")
    rows = {row.collector: row for row in found.rows}
    assert list(rows) == ["noise", "scripted", "all"]
    scripted = rows["scripted"]
    assert (scripted.episodes, scripted.agent_steps) == (3, 6)
    assert (scripted.best, scripted.median, scripted.mean) == (7, 4, 4)
    assert scripted.success == pytest.approx(2 / 3)
    assert scripted.retrieved is None
    together = rows["all"]
    assert (together.episodes, together.best, together.median, together.mean) == (4, 7, 2.5, 2.5)
    assert (together.success, together.retrieved) == (0.5, 5.5)


def test_json_and_table(arms):
    found = card(arms, SUITE, [TASKS["arm-push"]], retrieved={"arm-push": 5.5})
    assert msgspec.json.decode(msgspec.json.encode(found), type=Card) == found
    text = shown(found)
    assert arms.digest in text
    line = next(line for line in text.splitlines() if " all " in line)
    assert line.split() == ["arm-push", "all", "4", "7.0", "2.5", "2.5", "0.50", "5.5"]


def shown(found: Card) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(table(found))
    return console.file.getvalue()


def test_the_table_fits_a_terminal(tmp_path):
    """With the longest names of the suites, and numbers as large as returns become."""
    names = {"embodiment": "quadruped", "scene": "quadruped", "task": "quadruped-walk-jump", "episodes": 40}
    row = CardRow(collector="random-reward", agent_steps=20_000, best=1000.0, median=999.9, mean=123.4, **names)
    rows = [row, msgspec.structs.replace(row, collector="all", retrieved=1000.0)]
    text = shown(Card(suite="dmc", name="quick", digest="0" * 16, episodes=40, agent_steps=20_000, rows=rows))
    assert "…" not in text
    assert "success" not in text
    assert text.count("quadruped-walk-jump") == 2


def test_every_task_of_a_scene_and_scenes_without_a_task(dataset):
    told = []
    tasks = [TASKS["cart-left"], TASKS["cart-right"], TASKS["arm-pull"]]
    found = card(dataset, SUITE, tasks, progress=lambda fraction, what="": told.append(fraction))
    known = [(row.scene, row.task, row.collector) for row in found.rows]
    collectors = ("noise", "still", "all")
    expected = [("arm-pull", "arm-pull"), ("arm-push", None), ("boat", None)]
    expected += [("cart", "cart-left"), ("cart", "cart-right")]
    assert known == [(*pair, collector) for pair in expected for collector in collectors]
    by_task = {row.task: row for row in found.rows if row.scene == "cart" and row.collector == "all"}
    assert by_task["cart-left"].mean == pytest.approx(60 - by_task["cart-right"].mean)
    assert by_task["cart-left"].success is None
    assert all(row.best is None and row.mean is None for row in found.rows if row.task is None)
    assert len(told) == 3


def test_one_collector_needs_no_sum(tmp_path):
    data = build(tmp_path, ("cart",), collectors=("noise",))
    assert [row.collector for row in card(data, SUITE, [TASKS["cart-left"]]).rows] == ["noise"]


def test_a_task_that_was_not_collected(tmp_path):
    with pytest.raises(UserError, match="no episode for boat-right"):
        card(build(tmp_path, ("cart",)), SUITE, [TASKS["boat-right"]])
