"""What must hold for every baseline, whatever it learns by."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running.small import silent
from wpt.toy import UNITS, measured

from baselines import toy
from wpt_bench.data.views import DataView, EpisodeView
from wpt_bench.protocol import DataAccess, DataAccessError, Method, Units, UserError
from wpt_bench.running.checkpoint import decode, encode

cases = pytest.mark.parametrize(("method", "kind"), toy.CASES, ids=[f"{one.name}-{kind}" for one, kind in toy.CASES])


@cases
def test_a_checkpoint_goes_on_as_if_nothing_had_happened(method: Method, kind: str, tmp_path: Path) -> None:
    def begun():  # type: ignore[no-untyped-def]
        made = toy.agent(method, kind, tmp_path)
        if method.online:
            toy.fill(made, kind)
        return made

    straight, path = begun(), tmp_path / "state"
    straight.offline(silent)
    straight.update()
    path.write_bytes(encode(straight.state_dict()))
    resumed = begun()
    resumed.load_state_dict(decode(path))
    assert straight.update() == resumed.update()
    ours, theirs = straight.state_dict(), resumed.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]) if torch.is_tensor(value) else value == theirs[key], key


@cases
def test_acting_is_a_function_of_the_seed_and_bounded(method: Method, kind: str, tmp_path: Path) -> None:
    made = toy.agent(method, kind, tmp_path, budget=40_000)
    made.offline(silent)
    seen = toy.episodes(method, kind)[0].observation[:2]

    def act(seed: int, evaluation: bool) -> np.ndarray:
        carry, actions = made.begin(2, seed=seed, evaluation=evaluation), []
        for _ in range(3):
            action, carry = made.act(carry, seen, evaluation=evaluation)
            actions.append(action)
        return np.stack(actions)

    for evaluation in (False, True):
        one = act(1, evaluation)
        assert one.shape == (3, 2, 2) and one.dtype == np.float32 and (np.abs(one) <= 1).all()
        assert np.array_equal(one, act(1, evaluation))
    assert np.array_equal(act(1, True), act(2, True))  # the mean action


@pytest.mark.parametrize(
    ("method", "kind"),
    [case for case in toy.CASES if case[0].online and case[0].name != "jsrl-bc"],  # whose prior begins: see below
    ids=lambda of: getattr(of, "name", of),
)
def test_training_explores_after_a_warm_up_of_uniform_actions(method: Method, kind: str, tmp_path: Path) -> None:
    seen = np.repeat(toy.episodes(method, kind)[0].observation[:1], 100, axis=0)
    made = toy.agent(method, kind, tmp_path, budget=40 * 20)

    def act(seed: int) -> np.ndarray:
        carry, actions = made.begin(len(seen), seed=seed, evaluation=False), []
        for _ in range(3):
            action, carry = made.act(carry, seen, evaluation=False)
            actions.append(action)
        return np.stack(actions)

    if made.warms_up:
        drawn = [act(seed) for seed in (1, 2)]
        counts, _ = np.histogram(drawn, bins=4, range=(-1, 1))
        assert not np.array_equal(*drawn) and np.abs(counts / np.size(drawn) - 1 / 4).max() < 0.04
        for weight in (*made.eyes.parameters(), *made.actor.parameters()):
            torch.nn.init.zeros_(weight)
        assert np.array_equal(drawn[0], act(1))  # whatever the actor says
    toy.fill(made, kind)  # a tenth of the budget
    assert not np.array_equal(act(1), act(2))


LESSER = {
    DataAccess.LABELLED: DataAccess.REWARD_FREE,
    DataAccess.LABELLED_MULTITASK: DataAccess.REWARD_FREE,
    DataAccess.DEMONSTRATIONS: DataAccess.REWARD_FREE,
    DataAccess.REWARD_FREE: DataAccess.NONE,
}


@cases
def test_a_method_handed_less_than_it_declares_is_stopped(method: Method, kind: str, tmp_path: Path) -> None:
    """Labels, task identity or the episodes themselves: each method touches what it declares, and that is guarded."""
    if method.data_access is DataAccess.NONE:
        made = toy.agent(method, kind, tmp_path)  # its view raises whatever it touches
        made.offline(silent)
        return
    bare = [
        EpisodeView(one.observation, one.action, one.units, one.action_dim, LESSER[method.data_access])
        for one in toy.episodes(method, kind)
    ]
    made = toy.agent(method, kind, tmp_path, data=DataView(LESSER[method.data_access], bare))
    with pytest.raises(DataAccessError, match="does not grant"):
        made.offline(silent)


@pytest.mark.parametrize("method", toy.METHODS, ids=lambda method: method.name)
def test_no_data_at_all_is_one_clear_sentence(method: Method, tmp_path: Path) -> None:
    if method.data_access is DataAccess.NONE:
        pytest.skip("asks for no data")
    made = toy.agent(method, method.observations[0], tmp_path, data=DataView(method.data_access, []))
    with pytest.raises(UserError, match="collect"):
        made.offline(silent)


@pytest.mark.parametrize("name", ["rlpd", "jsrl-bc"])
def test_what_states_are_measured_in_makes_no_difference(name: str, tmp_path: Path) -> None:
    """The same states in other numbers, with the units that say so: offline, online, retrieved and acted upon."""
    method = toy.method(name)

    def lived(units: Units) -> list[object]:
        offline = [
            replace(one, observation=measured(one.observation, units), units=units)
            for one in toy.episodes(method, "state", count=8)
        ]
        start = measured(np.array([0.6, -1.5, 2.0], np.float32), units)
        data = DataView(method.data_access, offline)
        made = toy.agent(method, "state", tmp_path, data=data, units=units, initial_observation=start)
        found = [made.offline(silent)]
        begun = made.begin(1, seed=0, evaluation=False)  # where there is a prior, it acts
        found.append(made.act(begun, start[None], evaluation=False)[0].tolist())
        toy.fill(made, "state")
        found.append(made.update())
        begun = made.begin(1, seed=0, evaluation=True)
        return [*found, made.act(begun, start[None], evaluation=True)[0].tolist()]

    assert lived(UNITS) == lived(Units.identity(3))


def test_half_precision_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="compute in fp32 alone, and the profile asks for bf16; choose another"):
        toy.agent(toy.method("sac"), "state", tmp_path, precision="bf16")


def test_rlpds_batches_are_half_offline(tmp_path: Path) -> None:
    made = toy.agent(toy.method("rlpd"), "state", tmp_path, batch=32)
    offline = {round(float(row), 5) for row in np.concatenate([e.reward[1:] for e in made.context.data.episodes()])}
    generator = torch.Generator()
    assert {round(r, 5) for r in made.batch(np.random.default_rng(0), generator).reward.tolist()} <= offline
    toy.fill(made, "state")  # whose rewards are 1
    rewards = made.batch(np.random.default_rng(0), generator).reward.tolist()
    assert rewards[:16] == [1.0] * 16 and {round(r, 5) for r in rewards[16:]} <= offline


def test_labels_are_put_on_the_offline_rows_alone(tmp_path: Path) -> None:
    made = toy.agent(toy.method("explore"), "state", tmp_path, batch=8)
    made.offline(silent)
    toy.fill(made, "state")
    seen = []
    learned = made.critic_loss
    made.critic_loss = lambda batch, *rest: seen.append(batch.reward) or learned(batch, *rest)
    made.update()
    (reward,) = seen
    assert reward[:4].tolist() == [1.0] * 4 and (reward[4:] != 0).all()


def test_the_prior_jump_starts_training_episodes_alone(tmp_path: Path) -> None:
    made = toy.agent(toy.method("jsrl-bc"), "state", tmp_path, budget=40 * 100)
    made.offline(silent)
    assert made.episode_metrics(made.begin(1, seed=0, evaluation=False)) == {"guided_steps": 20.0}  # warm-up: whole
    assert made.episode_metrics(made.begin(1, seed=0, evaluation=True)) == {"guided_steps": 0.0}
    toy.fill(made, "state", count=11)
    lengths = {made.episode_metrics(made.begin(1, seed=s, evaluation=False))["guided_steps"] for s in range(200)}
    assert lengths == {float(2 * tenth) for tenth in range(11)}
    for seed in range(20):
        carry = made.begin(1, seed=seed, evaluation=False)
        observation = np.full((1, 3), 0.5, np.float32)
        prior = made.prior.act(observation[:, None], made.context.units)[:, :2].cpu().numpy()
        for step in range(20):
            steps = carry.prior_steps
            action, carry = made.act(carry, observation, evaluation=False)
            assert np.array_equal(action, prior) == (step < steps)


def test_a_shared_agent_says_which_task_it_never_saw(tmp_path: Path) -> None:
    method = toy.method("mt-bc")
    only = [one for one in toy.episodes(method, "state") if one.task == toy.TASKS[0].name]
    data = DataView(method.data_access, only)
    made = toy.agent(method, "state", tmp_path, data=data, task=toy.TASKS[1])
    made.offline(silent)
    with pytest.raises(UserError, match="had no episode of leave to learn from"):
        made.begin(1, seed=0, evaluation=True)


def test_a_shared_agent_tells_tasks_apart(tmp_path: Path) -> None:
    method = toy.method("mt-bc")
    seen = np.random.default_rng(0).normal(size=(21, 3)).astype(np.float32)
    right, left = np.full((21, 2), 0.8, np.float32), np.full((21, 2), -0.8, np.float32)
    data = DataView(
        method.data_access,
        [toy.episode(seen, right, None, toy.TASKS[0].name), toy.episode(seen + 1e-3, left, None, toy.TASKS[1].name)],
    )
    actions = []
    for task in toy.TASKS:
        made = toy.agent(method, "state", tmp_path, data=data, task=task, learning_rate=1e-2, batch=32)
        made.offline(silent)
        for _ in range(150):
            made.update()
        actions.append(made.act(made.begin(1, seed=0, evaluation=True), seen[:1], evaluation=True)[0][0])
    assert actions[0] == pytest.approx([0.8, 0.8], abs=0.1) and actions[1] == pytest.approx([-0.8, -0.8], abs=0.1)
