"""What the loop asks of an agent, and when: a stub that writes it down, on the suite of points in a box."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from data import tiny_suite
from learning import test_learning as learning
from numpy.typing import NDArray

from running import small
from wpt_bench import records, registry
from wpt_bench.data.store import Dataset
from wpt_bench.profiles import Subset
from wpt_bench.protocol import AgentContext, DataAccess, Method, Progress, UserError
from wpt_bench.records import Episode, Run
from wpt_bench.running.loop import execute
from wpt_bench.running.plan import Layout, identities, select

FRAMES, STEPS = tiny_suite.FRAMES, tiny_suite.FRAMES // tiny_suite.REPEAT


class Settings(msgspec.Struct, frozen=True):
    """Updates per agent step, and k of the retrieval."""

    pace: float = 0.0
    retrieved: int = 0


class Stub:
    """Acts alike in all dimensions as ``policy`` says for the step of the episode; writes down all that is asked.

    An update changes how it acts, by all that it has observed.

    ``chosen`` are the places, among the granted episodes, of those that it works with.
    """

    def __init__(self, context: AgentContext, policy: Callable[[int], float], chosen: Sequence[int]) -> None:
        self.context, self.policy, self.chosen = context, policy, chosen
        self.asked: list[tuple[Any, ...]] = []
        self.observed: list[tuple[NDArray[Any], NDArray[np.float32] | None, float]] = []
        self.learned = 0.0

    def offline(self, progress: Progress) -> dict[str, Any]:
        return {"retrieved": list(self.chosen)}

    def begin(self, batch: int, *, seed: int, evaluation: bool) -> int:
        self.asked.append(("begin", batch, evaluation))
        return 0

    def act(self, carry: int, observation: NDArray[Any], *, evaluation: bool) -> tuple[NDArray[np.float32], int]:
        self.asked.append(("act", len(observation), evaluation))
        action = self.policy(carry) + self.learned
        return np.full((len(observation), self.context.task.action_dim), action, np.float32), carry + 1

    def observe(self, observation: NDArray[Any], action: NDArray[np.float32] | None, reward: float) -> None:
        self.asked.append(("observe", action is not None))
        self.observed.append((observation, action, reward))

    def episode_metrics(self, carry: int) -> dict[str, float]:
        return {}

    def update(self) -> dict[str, float]:
        self.asked.append(("update",))
        self.learned = (self.learned + sum(reward for _, _, reward in self.observed)) % 1 - 0.5
        return {"learned": self.learned}

    def state_dict(self) -> dict[str, Any]:
        return {"learned": self.learned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learned = state["learned"]


class Stop(Exception):
    """Ends a run from within, as if somebody had."""


@dataclass
class Played:
    """A run of the stub: its record, and the agent that was in it."""

    run: Run
    rows: list[Episode]
    agent: Stub

    def of_kind(self, kind: str) -> list[Episode]:
        return [row for row in self.rows if row.kind == kind]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Played]:
    """Makes the one run of a ``grid``, which stops each time before so many steps of simulators have been made."""
    monkeypatch.setattr(registry, "suites", lambda: {"tiny": tiny_suite.SUITE})

    def play(
        *,
        task: str = "arm-push",
        seed: int = 0,
        name: str = "stub",
        pace: float = 0.0,
        policy: Callable[[int], float] = lambda step: 0.0,
        data: Dataset | None = None,
        chosen: Sequence[int] = (),
        episodes: int | None = None,
        stops: Sequence[int] = (),
        **grid: Any,
    ) -> Played:
        agents: list[Stub] = []

        def build(context: AgentContext) -> Stub:
            agents.append(Stub(context, policy, chosen))
            return agents[-1]

        access = DataAccess.REWARD_FREE if data else DataAccess.NONE
        stub = Method(name, 1, "Stubs", access, ("state",), "", build, Settings, name, lambda settings: settings.pace)
        monkeypatch.setattr(registry, "methods", lambda: {name: stub})
        whole = learning.profile("state")
        grid = {"tasks": (task,), "seeds": (seed,), "methods": (name,), "evaluation_episodes": 2} | grid
        grids = {"tiny": msgspec.structs.replace(whole.grids["tiny"], **grid)}
        whole = msgspec.structs.replace(whole, grids=grids, settings={name: {"pace": pace}})
        (identity,) = identities(select("tiny", whole), data and data.digest)
        layout = Layout(tmp_path / "-".join(map(str, ("out", *stops))))
        step = tiny_suite.Points.step
        for steps in stops:
            left = iter(range(steps))

            def stopping(self: tiny_suite.Points, action: NDArray[np.float32], left: Iterator[int] = left) -> Any:
                if next(left, None) is None:
                    raise Stop
                return step(self, action)

            with monkeypatch.context() as patch, pytest.raises(Stop):
                patch.setattr(tiny_suite.Points, "step", stopping)
                execute(identity, layout, data and data.path, small.silent, checkpoint_seconds=0.0)
        assert execute(identity, layout, data and data.path, small.silent, episodes=episodes)
        folder = layout.runs / records.digest(identity)
        return Played(records.read_run(folder), records.read_episodes(folder), agents[-1])

    return play


Play = Callable[..., Played]


def test_evaluations_are_told_from_training_and_only_training_is_observed(play: Play) -> None:
    played = play(budget=2 * FRAMES, evaluation_every=0.5, evaluation_episodes=3)
    evaluation = [("begin", 3, True), *[("act", 3, True)] * STEPS]
    training = [("begin", 1, False), ("observe", False), *[("act", 1, False), ("observe", True)] * STEPS]
    assert played.agent.asked == evaluation + 2 * (training + evaluation)


def test_what_is_observed_is_what_the_action_with_it_led_to(play: Play) -> None:
    played = play(budget=FRAMES, policy=lambda step: 0.01 * step)
    (before, action, reward), *rest = played.agent.observed
    assert action is None and reward == 0.0 and len(rest) == STEPS
    for step, (after, action, reward) in enumerate(rest):
        np.testing.assert_allclose(action, 0.01 * step)
        frames = np.clip(before[0] + tiny_suite.SPEED * 0.01 * step * np.array([1, 2]), -1, 1)
        assert after[0] == pytest.approx(frames[1], abs=1e-6)
        assert reward == pytest.approx(sum((1 + frames) / 2), abs=1e-6)
        before = after
    (row,) = played.of_kind("train")
    assert row.episode_return == pytest.approx(sum(reward for _, _, reward in rest))


@pytest.mark.parametrize(
    ("budget", "share", "steps"),
    [
        (10 * FRAMES, 0.25, [0, 180, 300, 480, 600]),  # every 150: after the episodes in which 150, 300, ... lie
        (7 * FRAMES, 0.35, [0, 180, 300, 420]),  # every 147: 441 is beyond the end, which counts
        (3 * FRAMES, 0.1, [0, 60, 120, 180]),  # every 18: after each episode, once
    ],
)
def test_an_evaluation_follows_the_episode_in_which_it_is_due(
    play: Play, budget: int, share: float, steps: list[int]
) -> None:
    rows = play(budget=budget, evaluation_every=share).of_kind("evaluation")
    assert [(row.env_step, row.index) for row in rows] == [(step, index) for step in steps for index in range(2)]


@pytest.mark.parametrize(("task", "last"), [("arm-push", 0.0), ("arm-pull", 1.0)])
def test_success_at_any_step_is_not_success_at_the_last(play: Play, task: str, last: float) -> None:
    """The arm pushes as far as it can, and then pulls."""
    played = play(task=task, budget=2 * FRAMES, policy=lambda step: 1.0 if step < STEPS / 2 else -1.0)
    assert {row.kind for row in played.rows} == {"train", "evaluation"}
    assert {(row.success_any, row.success_last) for row in played.rows} == {(1.0, last)}


def test_the_first_training_observation_is_known_before_the_first_step(play: Play) -> None:
    agent = play(budget=2 * FRAMES).agent
    starts = [observation for observation, action, _ in agent.observed if action is None]
    np.testing.assert_array_equal(agent.context.initial_observation, starts[0])
    assert not np.array_equal(starts[0], starts[1])


@pytest.mark.parametrize(
    ("pace", "steps"),
    [
        (0.5, list(range(8, 61, 2))),  # a tenth of the budget is 6 agent steps; then at every second one
        (2.0, sorted([*range(7, 61)] * 2)),
    ],
)
def test_updates_come_along_the_episode(play: Play, pace: float, steps: list[int]) -> None:
    played = play(budget=2 * FRAMES, pace=pace)
    taken, updates = 0, []
    for asked in played.agent.asked:
        taken += asked == ("observe", True)
        if asked == ("update",):
            updates.append(taken)
    assert updates == steps
    assert [row.updates for row in played.of_kind("train")] == [sum(step <= STEPS for step in steps), len(steps)]


def test_stopped_at_any_moment_it_goes_on_to_the_same_end(play: Play) -> None:
    """Of an evaluation with its 60 steps, and three times a training episode of 30 and an evaluation."""
    grid = {"budget": 3 * FRAMES, "evaluation_every": 1 / 3, "pace": 0.5}
    calm = play(**grid)
    first_evaluation, first_episode, its_evaluation, second_episode, third_episode = 20, 60 + 15, 30 + 20, 90 + 10, 90
    stopped = play(**grid, stops=(first_evaluation, first_episode, its_evaluation, second_episode, third_episode))
    assert len(calm.rows) == 3 + 4 * 2 and stopped.agent.learned == calm.agent.learned != 0
    for ours, theirs in zip(stopped.rows, calm.rows, strict=True):
        assert msgspec.structs.replace(ours, wall_clock=theirs.wall_clock) == theirs
    assert (stopped.run.updates, stopped.run.env_steps) == (calm.run.updates, calm.run.env_steps)


def test_evaluation_episodes_are_the_same_for_every_method_and_differ_from_training(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tiny_suite.Points, int]] = []
    reset = tiny_suite.Points.reset

    def watched(self: tiny_suite.Points, *, seed: int) -> Any:
        asked.append((self, seed))
        return reset(self, seed=seed)

    monkeypatch.setattr(tiny_suite.Points, "reset", watched)
    found = []
    for name, seed, action in (("one", 0, -1.0), ("other", 0, 1.0), ("one", 1, -1.0)):
        played = play(
            name=name, seed=seed, pace=action + 1, policy=lambda step, action=action: action, budget=3 * FRAMES
        )
        trains, _ = asked.pop(0)  # the agent is built with the first observation of its training
        training = [seed for env, seed in asked if env is trains]
        evaluation = [seed for env, seed in asked if env is not trains]
        asked.clear()
        assert len({*training, *evaluation}) == len(training) + len(evaluation) == 3 + 2 * 2
        rows = [(row.env_step, row.index) for row in played.of_kind("evaluation")]
        found.append(dict(zip(rows, evaluation, strict=True)))
    assert found[0] == found[1] and not {*found[0].values()} & {*found[2].values()}


def test_what_was_retrieved_is_recorded_as_the_data_set_counts_it(play: Play, tmp_path: Path) -> None:
    """Of half the data the agent has as many episodes as it retrieves, and names them by their places among these."""
    dataset, places = tiny_suite.build(tmp_path / "data", episodes=10), [5, 0, 1, 4, 2]
    subset = Subset(share=0.5, irrelevant=0.5)
    played = play(data=dataset, chosen=places, retrieved=6, subset=subset, budget=FRAMES, episodes=0)
    granted, found = played.agent.context.data.episodes(), played.run.diagnostics
    assert len(granted) == 6 and len(found["retrieved"]) == 5
    for place, index in zip(places, found["retrieved"], strict=True):
        np.testing.assert_array_equal(granted[place].observation, dataset.state(index))
        assert index % 2 == 0  # of every ten episodes alike each second one is there
    scenes = [dataset.episodes[index].scene for index in found["retrieved"]]
    assert found["retrieved_scenes"] == {"arm-pull": 3, "arm-push": 2} == Counter(scenes)
    assert found["retrieved_embodiments"] == {"arm": 5} and found["retrieval_precision"] == 2 / 5


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda action, carry: action, "two things, actions (2, 2) and the next carry"),
        (lambda action, carry: (action[0], carry), "returned actions (2,) instead of (2, 2), batch first"),
        (lambda action, carry: (action[:1], carry), "returned actions (1, 2) instead of (2, 2), batch first"),
        (lambda action, carry: (action + np.nan, carry), "an action that is not finite after 0 updates"),
    ],
)
def test_an_answer_that_no_simulator_understands_is_said_in_one_sentence(
    play: Play, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Any, Any], Any], why: str
) -> None:
    act = Stub.act
    monkeypatch.setattr(Stub, "act", lambda *args, **kwargs: answer(*act(*args, **kwargs)))
    with pytest.raises(UserError, match=re.escape(why)):
        play(budget=FRAMES)
