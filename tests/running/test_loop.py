"""The interaction loop on the real cartpole: what it records, and that interruptions leave no trace."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from running import small
from wpt_bench import records, registry
from wpt_bench.data.store import Dataset
from wpt_bench.protocol import Agent, Progress, UserError
from wpt_bench.running import checkpoint
from wpt_bench.running.loop import Diverged, execute, lock
from wpt_bench.running.plan import Layout, identities, new_run, stages
from wpt_bench.running.stages import make


def _share(prepared: tuple[Layout, Dataset], folder: Path) -> Layout:
    """A fresh output folder with the stages of ``prepared``."""
    (folder / "stages").symlink_to(prepared[0].out / "stages")
    return Layout(folder)


DIAGNOSES = (
    *("open_loop", "open_loop_persistence", "reward_error", "reward_error_mean"),
    *("value", "value_realised", "value_bias", "retrieved_distance"),
)


class Silent:
    """An agent that offers no diagnosis, and else is the one it is made of."""

    def __init__(self, agent: Agent) -> None:
        self.offline, self.begin, self.act, self.observe = agent.offline, agent.begin, agent.act, agent.observe
        self.episode_metrics, self.update = agent.episode_metrics, agent.update
        self.state_dict, self.load_state_dict = agent.state_dict, agent.load_state_dict


@pytest.mark.parametrize("name", ["dreamer", "wpt"])
def test_a_run_that_is_diagnosed_ends_as_one_that_is_not(
    prepared: tuple[Layout, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    identity, outcomes = small.identity(name, prepared[1].digest, budget=4000), []
    method = registry.method(name)
    silent = dataclasses.replace(method, build=lambda context: Silent(method.build(context)))
    for folder, made in (("diagnosed", method), ("silent", silent)):
        (tmp_path / folder).mkdir()
        layout = _share(prepared, tmp_path / folder)
        monkeypatch.setattr(registry, "method", lambda name, made=made: made)
        execute(identity, layout, small.path(prepared[0]), small.silent)
        outcomes.append(small.outcome(layout, records.digest(identity)))
    (rows, weights), (plain, expected) = outcomes
    assert weights == expected
    assert not any(row.kind == "prior" or (row.kind == "evaluation" and row.metrics) for row in plain)
    told = [row for row in rows if row.kind == "evaluation"]
    assert all(row.metrics for row in told) and len(rows) - len(plain) == (2 if name == "wpt" else 0)
    rows = [msgspec.structs.replace(row, metrics={}) if row in told else row for row in rows if row.kind != "prior"]
    assert rows == plain


class Stop(Exception):
    """Ends a run from within, as if somebody had."""


def stop_at(update: int) -> Progress:
    """Progress that stops at an offline update."""

    def progress(fraction: float, what: str = "") -> None:
        if what == f"{update} offline updates":
            raise Stop

    return progress


def test_an_offline_phase_goes_on_where_it_stopped(prepared: tuple[Layout, Dataset], tmp_path: Path) -> None:
    data, outcomes = small.path(prepared[0]), []
    identity = small.identity("iql", prepared[1].digest)
    for name, stops in (("calm", ()), ("stopped", (3, 12))):
        layout = Layout(tmp_path / name)
        for update in stops:
            with pytest.raises(Stop):
                execute(identity, layout, data, stop_at(update), checkpoint_seconds=0.0)
            newest, _ = checkpoint.load(layout.runs / records.digest(identity), lambda state: None)
            assert newest is not None and newest["updates"] == update - 1  # the one that it stopped in was not saved
        execute(identity, layout, data, small.silent)
        outcomes.append(small.outcome(layout, records.digest(identity)))
    assert outcomes[0] == outcomes[1]
    run = records.read_run(layout.runs / records.digest(identity))
    assert (run.updates, run.env_steps, run.online) == (20, 0, False)
    assert run.diagnostics["offline_metrics"]["critic_loss"] >= 0
    rows = records.read_episodes(layout.runs / run.id)
    assert {(row.kind, row.env_step) for row in rows} == {("evaluation", 0)}


def test_a_shared_agent_is_trained_once_and_goes_on_where_it_stopped(
    prepared: tuple[Layout, Dataset], tmp_path: Path
) -> None:
    data, weights = small.path(prepared[0]), []
    selection = small.selection(("mt-iql",))
    (stage,) = stages(selection, prepared[1].digest)
    for name, stops in (("calm", ()), ("stopped", (3, 12))):
        layout = Layout(tmp_path / name)
        for update in stops:
            with pytest.raises(Stop):
                make(stage, layout, data, stop_at(update), checkpoint_seconds=0.0)
        make(stage, layout, data, small.silent)
        weights.append(layout.weights(records.digest(stage)).read_bytes())
    assert weights[0] == weights[1]
    (identity,) = identities(selection, prepared[1].digest)
    execute(identity, layout, data, small.silent)
    run = records.read_run(layout.runs / records.digest(identity))
    assert run.identity.stage == records.digest(stage) and (run.updates, run.env_steps) == (20, 0)
    assert not (layout.runs / run.id / "weights.safetensors").exists()  # they are the stage's


def test_the_record_says_what_happened(prepared: tuple[Layout, Dataset], tmp_path: Path) -> None:
    layout = _share(prepared, tmp_path)
    identity = small.identity("wpt", prepared[1].digest, evaluation_every=0.5, evaluation_episodes=2, budget=4000)
    execute(identity, layout, small.path(prepared[0]), small.silent)
    run = records.read_run(layout.runs / records.digest(identity))
    rows = records.read_episodes(layout.runs / run.id)
    assert (run.status, run.env_steps, run.data_access) == ("done", 4000, "reward-free")
    assert [row.env_step for row in rows if row.kind == "train"] == [1000, 2000, 3000, 4000]
    assert [(row.env_step, row.index) for row in rows if row.kind == "evaluation"] == [
        (step, index) for step in (0, 2000, 4000) for index in (0, 1)
    ]
    # Warm-up is a tenth of the budget: 200 agent steps; then 0.02 updates per agent step.
    assert run.updates == int(0.02 * (2000 - 200)) == rows[-1].updates
    first = next(row for row in rows if row.kind == "train")
    assert first.guided_steps == 500  # in warm-up the cloned prior drives the whole episode
    assert len(run.diagnostics["retrieved"]) == 2 and run.diagnostics["prior_loss"] > 0
    assert run.diagnostics["retrieval_precision"] == 1.0  # there is no other embodiment
    assert run.diagnostics["retrieved_scenes"] == run.diagnostics["retrieved_embodiments"] == {"cartpole": 2}
    prior = [row for row in rows if row.kind == "prior"]
    assert prior == rows[2:4] and [row.index for row in prior] == [0, 1]
    assert {(row.env_step, row.updates, row.guided_steps) for row in prior} == {(0, 0, 500)}
    assert {frozenset(row.metrics) for row in rows if row.kind == "evaluation"} == {frozenset(DIAGNOSES)}
    assert run.provenance["threads"] == 1 and run.provenance["versions"]["torch"]
    assert (
        not list((layout.runs / run.id / "replay").glob("*"))
        and (layout.runs / run.id / "weights.safetensors").exists()
    )


def test_no_two_evaluations_of_a_run_have_a_start_in_common(prepared: tuple[Layout, Dataset], tmp_path: Path) -> None:
    """A policy that never learns would score the same twice from the same start."""
    layout = _share(prepared, tmp_path)
    identity = small.identity("sac", None)
    identity = msgspec.structs.replace(identity, settings=identity.settings | {"updates_per_step": 0.0})
    execute(identity, layout, None, small.silent)
    folder = layout.runs / records.digest(identity)
    rows = [row for row in records.read_episodes(folder) if row.kind == "evaluation"]
    assert len({row.episode_return for row in rows}) == len(rows) > 2


def test_a_done_run_is_not_made_again(prepared: tuple[Layout, Dataset], tmp_path: Path) -> None:
    layout = _share(prepared, tmp_path)
    identity = small.identity("dreamer", None)
    execute(identity, layout, None, small.silent)
    before = (layout.runs / records.digest(identity) / "run.json").stat().st_mtime_ns
    execute(identity, layout, None, small.silent)
    assert (layout.runs / records.digest(identity) / "run.json").stat().st_mtime_ns == before


def test_stopped_after_an_episode_it_goes_on_to_the_same_end(tmp_path: Path) -> None:
    identity, outcomes = small.identity("dreamer", None), []
    run_id = records.digest(identity)
    for layout, stops in ((Layout(tmp_path / "calm"), ()), (Layout(tmp_path / "stopped"), (1,))):
        for episodes in stops:
            execute(identity, layout, None, small.silent, episodes=episodes)
            rows = records.read_episodes(layout.runs / run_id)
            assert [row.index for row in rows if row.kind == "train"] == list(range(episodes))
            run = records.read_run(layout.runs / run_id)
            assert (run.status, run.env_steps) == ("running", 1000 * episodes)
        execute(identity, layout, None, small.silent)
        outcomes.append(small.outcome(layout, run_id))
    assert outcomes[0] == outcomes[1]


def test_two_processes_do_not_make_the_same_run(tmp_path: Path) -> None:
    layout, identity = Layout(tmp_path), small.identity("dreamer", None)
    folder = layout.runs / records.digest(identity)
    folder.mkdir(parents=True)
    with lock(folder) as held:
        with pytest.raises(UserError, match="another process"):
            execute(identity, layout, None, small.silent)
        assert held.is_locked
    assert not held.is_locked


def test_a_loss_that_is_not_finite_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    identity = small.identity("dreamer", None)
    settings = identity.settings | {"model_lr": 4e9, "grad_clip": 4e9}
    with pytest.raises(Diverged, match=r"became (nan|inf|-inf) at update \d+; try a smaller step size"):
        execute(msgspec.structs.replace(identity, settings=settings), Layout(tmp_path), None, small.silent)


def test_a_run_id_changes_with_what_matters_and_only_then() -> None:
    base = small.identity("wpt", "d")
    assert records.digest(base) == records.digest(small.identity("wpt", "d"))
    others = [
        small.identity("wpt", "e"),
        small.identity("wpt", "d", seed=1),
        small.identity("wpt-no-guidance", "d"),
        small.identity("wpt", "d", budget=4000),
        small.identity("wpt", "d", evaluation_episodes=3),
        msgspec.structs.replace(base, method_version=base.method_version + 1),
    ]
    assert len({records.digest(identity) for identity in (base, *others)}) == 1 + len(others)
    assert records.digest(small.identity("dreamer", "d")) == records.digest(small.identity("dreamer", "e"))


def test_a_folder_with_the_record_of_another_run_is_left_alone(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    asked, other = small.identity("dreamer", None, seed=0), small.identity("dreamer", None, seed=1)
    folder = layout.runs / records.digest(asked)
    records.write_run(folder, new_run(other))
    before = (folder / records.RECORD).read_bytes()
    with pytest.raises(UserError, match="the record of another run"):
        execute(asked, layout, None, small.silent)
    assert (folder / records.RECORD).read_bytes() == before
    assert [path.name for path in layout.runs.iterdir()] == [folder.name]
