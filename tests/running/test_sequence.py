"""One agent from task to task: it goes on from its weights and with all it has seen, and kills change nothing."""

import dataclasses
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from data import tiny_suite
from learning import test_learning as learning

from running import killing, small
from wpt_bench import records, registry
from wpt_bench.data.store import Dataset
from wpt_bench.profiles import Profile
from wpt_bench.protocol import Agent, AgentContext, DataAccess, Units, UserError
from wpt_bench.records import digest
from wpt_bench.running.cache import CACHE_VARIABLE
from wpt_bench.running.exchange import Exchange, perform_with_storage
from wpt_bench.running.grid import run_grid
from wpt_bench.running.jobs import Work
from wpt_bench.running.local import this_machine
from wpt_bench.running.loop import execute
from wpt_bench.running.plan import Layout, Selection, identities, select
from wpt_bench.running.sequence import EARLIER, WEIGHTS, before_in_sequence, inherited, seen_before

TASKS = ("cart-left", "cart-right")


@pytest.fixture(scope="module", autouse=True)
def _known() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "suites", lambda: {"tiny": tiny_suite.SUITE})
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_suite.build(
        tmp_path_factory.mktemp("data"), ("cart", "boat"), episodes=11, collectors=("noise", "drift")
    )


def profile(sequence: bool = True) -> Profile:
    whole = learning.short(learning.profile("state"))
    grid = msgspec.structs.replace(whole.grids["tiny"], sequence=sequence)
    pretraining = msgspec.structs.replace(whole.pretraining, updates=6)
    return msgspec.structs.replace(whole, pretraining=pretraining, grids={"tiny": grid})


def selection(methods: tuple[str, ...] = ("wpt",), tasks: tuple[str, ...] = TASKS, **chosen: bool) -> Selection:
    return select("tiny", profile(**chosen), tasks, methods)


@pytest.fixture(scope="module")
def made(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[killing.Jobs, Layout]:
    layout = Layout(tmp_path_factory.mktemp("made"))
    jobs = killing.jobs(selection(), data.digest)
    killing.make_all(jobs, layout.out, data.path)
    return jobs, layout


def test_each_run_comes_after_the_one_before() -> None:
    runs = identities(selection(("wpt", "dreamer")), "d")
    for method in ("wpt", "dreamer"):
        first, second = [run for run in runs if run.method == method]
        assert (first.earlier, first.after) == ((), None)
        assert (second.earlier, second.after) == (("cart-left",), digest(first))
    alone = identities(selection(sequence=False), "d")
    assert {(run.earlier, run.after) for run in alone} == {(None, None)}
    assert not {digest(run) for run in alone} & {digest(run) for run in runs}


def test_a_sequence_is_of_one_body_and_of_methods_that_can_go_on() -> None:
    with pytest.raises(UserError, match="of one embodiment, and these are of boat, cart"):
        selection(tasks=("cart-left", "boat-right"))
    with pytest.raises(UserError, match="The agent of sac cannot go on from one task to the next"):
        selection(("sac",))


def test_the_next_agent_starts_from_the_last_weights(
    made: tuple[killing.Jobs, Layout], data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but those that know of the reward before: reward head and critic."""
    (_, (_, second)), layout = made
    again = Layout(tmp_path)
    shutil.copytree(layout.out, again.out, dirs_exist_ok=True)
    shutil.rmtree(again.runs / digest(second))
    method, began = registry.method("wpt"), []

    def build(context: AgentContext) -> Agent:
        agent = method.build(context)
        began.append({key: value.clone() for key, value in agent.state_dict().items() if torch.is_tensor(value)})
        return agent

    watched = dataclasses.replace(method, build=build)
    monkeypatch.setattr(registry, "method", lambda name: watched)
    execute(second, again, data.path, small.silent)
    state = inherited(before_in_sequence(second, layout), layout)
    assert state is not None
    for key, value in began[0].items():
        part = key.partition("/")[0]
        if part in ("world_model", "actor"):
            assert torch.equal(value, state[key]), key
    for part in ("reward", "critic"):
        own = [key for key in began[0] if key.startswith(f"{part}/")]
        assert not all(torch.equal(began[0][key], state[key]) for key in own)
    weights = (layout.runs / digest(second) / WEIGHTS).read_bytes()
    assert (again.runs / digest(second) / WEIGHTS).read_bytes() == weights


def test_what_was_seen_before_joins_the_data(made: tuple[killing.Jobs, Layout]) -> None:
    (_, (first, second)), layout = made
    episodes = seen_before(before_in_sequence(second, layout), layout, Units.identity(3))
    rows = [row for row in records.read_episodes(layout.runs / digest(first)) if row.kind == "train"]
    assert len(episodes) == len(rows) == 4
    for episode in episodes:
        assert episode.access is DataAccess.REWARD_FREE and not episode.rewarded and len(episode) == 31
        moved = episode.observation[:-1, 0] + tiny_suite.REPEAT * tiny_suite.SPEED * episode.action[1:, 0]
        np.testing.assert_allclose(episode.observation[1:, 0], np.clip(moved, -1, 1), atol=1e-6)
        assert not episode.observation.flags.writeable and not episode.action[0].any()


def test_episodes_of_earlier_tasks_are_counted_as_such(
    made: tuple[killing.Jobs, Layout], data: Dataset, tmp_path: Path
) -> None:
    """With k as large as all there is, everything seen before is retrieved too."""
    (_, (first, second)), layout = made
    again, total = Layout(tmp_path), len(data.episodes)
    shutil.copytree(layout.out, again.out, dirs_exist_ok=True)
    own = [info.index for info in data.episodes if info.scene == "cart"]
    for identity, everything in ((first, own), (second, [*own, *range(total, total + 4)])):
        largest = msgspec.structs.replace(identity, settings=identity.settings | {"retrieved": len(everything)})
        execute(largest, again, data.path, small.silent, episodes=0)
        found = records.read_run(again.runs / digest(largest)).diagnostics
        assert sorted(found["retrieved"]) == everything
        assert found["retrieval_precision"] == 22 / len(everything)
        online = len(everything) - 22
        assert Counter(found["retrieved_scenes"]) == Counter({"cart": 22, EARLIER: online})


def test_what_is_left_of_earlier_tasks_is_evaluated_last(made: tuple[killing.Jobs, Layout]) -> None:
    """On the episodes of the task's own evaluations: their starts and returns under its reward."""
    (_, (first, second)), layout = made
    assert not [row for row in records.read_episodes(layout.runs / digest(first)) if row.kind == "earlier"]
    rows = records.read_episodes(layout.runs / digest(second))
    left = [row for row in rows if row.kind == "earlier"]
    assert rows[-len(left) :] == left and [(row.task, row.index) for row in left] == [
        ("cart-left", 0),
        ("cart-left", 1),
    ]
    own = [row for row in rows if row.kind == "evaluation"][-2:]
    for there, here in zip(left, own, strict=True):  # the same mean actions: the tasks' rewards add up to one a frame
        assert there.env_step == second.budget
        assert there.episode_return + here.episode_return == pytest.approx(tiny_suite.FRAMES, rel=1e-5)


def test_stopped_after_an_episode_the_next_agent_goes_on_to_the_same_end(
    made: tuple[killing.Jobs, Layout], data: Dataset, tmp_path: Path
) -> None:
    its, layout = made
    second, again = its[1][1], Layout(tmp_path)
    shutil.copytree(layout.out, again.out, dirs_exist_ok=True)
    shutil.rmtree(again.runs / digest(second))
    for episodes in (1, 3, None):
        execute(second, again, data.path, small.silent, episodes=episodes)
    assert killing.outcome(its, again.out) == killing.outcome(its, layout.out)


def test_a_damaged_run_before_is_named(made: tuple[killing.Jobs, Layout], tmp_path: Path) -> None:
    (_, (_, second)), layout = made
    copied = Layout(tmp_path)
    shutil.copytree(layout.runs / str(second.after), copied.runs / str(second.after))
    episode = copied.runs / str(second.after) / "replay" / "000001.safetensors"
    episode.write_bytes(episode.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=f"{episode} is damaged.*to make this run of the sequence again"):
        before_in_sequence(second, copied)
    shutil.rmtree(copied.runs)
    with pytest.raises(UserError, match="comes before in the sequence of tasks, is not finished"):
        before_in_sequence(second, copied)


@pytest.mark.parametrize("first_made_here", [False, True])
def test_through_storage_it_ends_the_same(
    made: tuple[killing.Jobs, Layout],
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first_made_here: bool,
) -> None:
    """By workers that share no disk with whoever asks, of whom the second has never seen what the first made."""
    its, layout = made
    there = Layout(tmp_path / "asks")
    work = Work(there, data.path, data_digest=data.digest, storage=(tmp_path / "storage").as_uri())
    jobs = [*its[0], *its[1]]
    if first_made_here:
        killing.make_all((its[0], its[1][:1]), there.out, data.path)
        jobs = jobs[-1:]
    exchange = Exchange(work)
    exchange.share_inputs(jobs)
    for worker, job in enumerate(jobs):
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / f"worker-{worker}"))
        assert perform_with_storage(job, work, small.silent, patient=False)
        assert exchange.collect(job)
    assert killing.outcome(its, there.out) == killing.outcome(its, layout.out)


def test_what_goes_on_from_a_damaged_run_is_not_done_nor_a_crash(
    made: tuple[killing.Jobs, Layout], data: Dataset, tmp_path: Path
) -> None:
    its, layout = made
    copied = Layout(tmp_path)
    shutil.copytree(layout.out, copied.out, dirs_exist_ok=True)
    first = digest(its[1][0])
    (copied.runs / first / records.ROWS).write_bytes(b"")
    outcome = run_grid(its[1], copied, data.path, lambda *what: None, this_machine(1), stages=its[0])
    assert list(outcome.failed) == [first] and outcome.done == tuple(map(digest, its[0]))


@pytest.mark.parametrize("most", [4, pytest.param(30, marks=pytest.mark.chaos)])
def test_killed_again_and_again_a_sequence_ends_the_same(
    most: int, made: tuple[killing.Jobs, Layout], data: Dataset, tmp_path: Path
) -> None:
    its, layout = made
    moments = killing.counted(killing.make_all, its, tmp_path / "calm", data.path)
    out = tmp_path / "killed"
    assert killing.kill_until_done(most, moments, random.Random(0), killing.make_all, its, out, data.path) > 0
    assert killing.outcome(its, out) == killing.outcome(its, layout.out)
