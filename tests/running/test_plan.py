"""From a profile to a grid."""

import dataclasses

import msgspec
import pytest

from running import small
from wpt_bench import profiles, registry
from wpt_bench.protocol import UserError
from wpt_bench.records import digest
from wpt_bench.running.plan import identities, select, stages


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_makes_a_grid_of_each_suite(name: str) -> None:
    profile = profiles.load(name)
    for suite, grid in profile.grids.items():
        runs = identities(select(suite, profile), "digest")
        assert len(runs) == len(grid.tasks) * len(grid.methods) * len(grid.seeds)
        assert {run.observation for run in runs} == {profile.observation}


@pytest.mark.parametrize("suite", ["dmc", "metaworld"])
def test_pixels_without_pictures_in_the_data_are_refused_before_anything_is_collected(suite: str) -> None:
    profile = profiles.load("smoke-pixels")
    grid = profile.grid(suite)
    grid = msgspec.structs.replace(grid, data=msgspec.structs.replace(grid.data, pixels=False))
    blind = msgspec.structs.replace(profile, grids={suite: grid})
    with pytest.raises(UserError, match=rf"no pictures; set pixels = true in \[grids.{suite}.data\]"):
        select(suite, blind)
    assert select(suite, blind, methods=("drqv2",)).methods


def test_a_group_of_methods_shares_settings_and_each_may_have_its_own() -> None:
    tables = {"model-free": {"batch": 32, "members": 3}, "sac": {"members": 5}}
    profile = msgspec.structs.replace(small.profile(), settings=tables)
    runs = {run.method: run.settings for run in identities(select("dmc", profile, (), ("sac", "rlpd", "iql")), "d")}
    assert [runs[name]["batch"] for name in ("sac", "rlpd", "iql")] == [32, 32, 32]
    assert (runs["sac"]["members"], runs["rlpd"]["members"]) == (5, 3) and "members" not in runs["iql"]


def test_a_groups_setting_that_no_method_knows_is_named() -> None:
    profile = msgspec.structs.replace(small.profile(), settings={"model-free": {"bach": 32}})
    with pytest.raises(UserError, match=r"\[settings.model-free\].*'bach'; did you mean 'batch'"):
        select("dmc", profile)


def test_every_number_of_a_profile_and_of_settings_is_bounded() -> None:
    """A number of which nothing can be made is refused where it is read, not in the middle of a grid."""
    free = {"optimism", "target_entropy", "quality", "seeds"}  # of any sign; seeds are looked at by ``refuse_sizes``
    structs = [profiles.Profile, profiles.Pretraining, profiles.Grid, profiles.Data, profiles.Subset]
    structs += [method.settings for method in registry.methods().values() if method.settings.__module__[:4] == "wpt_"]
    for struct in structs:
        for field in msgspec.inspect.type_info(struct).fields:
            if isinstance(field.type, msgspec.inspect.IntType | msgspec.inspect.FloatType) and field.name not in free:
                assert (field.type.ge, field.type.gt) != (None, None), (struct, field.name)


def test_a_setting_of_a_group_that_does_not_fit_is_named() -> None:
    profile = msgspec.structs.replace(small.profile(), settings={"model-free": {"learning_rate": -1.0}})
    with pytest.raises(UserError, match=r"Settings 'sac' with 'model-free' of profile 'small' do not fit: .*learning_"):
        select("dmc", profile, (), ("sac",))


def test_a_table_of_no_method_is_named() -> None:
    profile = msgspec.structs.replace(small.profile(), settings={"rpld": {"batch": 32}})
    with pytest.raises(UserError, match="no table of settings named 'rpld'; did you mean 'rlpd'"):
        select("dmc", profile)


def test_an_agent_for_all_tasks_refuses_those_it_would_not_learn() -> None:
    other = next(task.name for task in registry.suite("dmc").tasks() if not task.paper)
    with pytest.raises(UserError, match=f"mt-iql learns the paper's tasks all at once and dmc/{other} is not among"):
        select("dmc", small.profile(), (other,), ("mt-iql",))


@pytest.mark.parametrize("name", profiles.names())
def test_jump_starts_clone_the_prior_as_guidance_does(name: str) -> None:
    settings = profiles.load(name).settings
    wpt, group = ({k: v for k, v in settings.get(t, {}).items() if k[:6] == "prior_"} for t in ("wpt", "model-free"))
    assert wpt == group


def test_what_runs_start_from_is_made_once() -> None:
    selection = small.selection(("wpt", "wpt-no-guidance", "uds", "mt-iql", "mt-bc", "iql"), (0, 1))
    wanted = stages(selection, "digest")
    names = [getattr(stage, "method", "world model") for stage in wanted]
    # one pre-training seed serves both run seeds; agents that tasks share have a seed for each
    assert sorted(names) == ["mt-bc", "mt-bc", "mt-iql", "mt-iql", "world model"]
    of = {run.method: run.stage for run in identities(selection, "digest") if run.seed == 0}
    assert of["wpt"] == of["wpt-no-guidance"] == of["uds"] != of["mt-iql"] and of["iql"] is None


def test_quick_is_as_large_as_promised() -> None:
    quick = profiles.load("quick")
    assert quick.pretraining.updates >= 1000
    for suite, least in (("dmc", 10_000), ("metaworld", 4_000)):
        grid = quick.grids[suite]
        selection = select(suite, quick)
        assert grid.budget >= least and len(grid.seeds) >= 2 and grid.evaluation_episodes == 5
        assert len({task.scene for task in selection.tasks}) >= 2
        updates = quick.settings["wpt"]["updates_per_step"] * 0.9 * grid.budget / selection.tasks[0].action_repeat
        assert updates >= 500
    dmc = quick.grids["dmc"].data
    assert dmc.pink_noise + dmc.curiosity + dmc.random_reward >= 20
    assert quick.grids["metaworld"].data.episodes >= 20 and len(quick.grids["metaworld"].data.scenes) >= 10


def test_the_papers_profile_has_the_papers_numbers() -> None:
    paper = profiles.load("paper")
    assert {suite: len(grid.tasks) for suite, grid in paper.grids.items()} == {"dmc": 22, "metaworld": 50}
    assert all((grid.budget, grid.retrieved) == (150_000, 500) for grid in paper.grids.values())
    pretraining = paper.pretraining
    assert (pretraining.updates, pretraining.batch, pretraining.length) == (200_000, 16, 64)


def test_a_task_larger_than_the_padding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.task
    monkeypatch.setattr(registry, "task", lambda suite, name: dataclasses.replace(real(suite, name), action_dim=22))
    with pytest.raises(UserError, match="22 action and 5 state dimensions; methods are built for at most 21 and 96"):
        small.selection()


def test_a_method_is_refused_observations_it_cannot_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = dataclasses.replace(registry.method("dreamer"), observations=("pixels",))
    monkeypatch.setattr(registry, "method", lambda name: blind)
    with pytest.raises(UserError, match="dreamer learns from pixels and the profile 'small' has state observations"):
        small.selection(("dreamer",))


def test_precision_is_part_of_what_a_run_and_a_pre_training_are() -> None:
    """So neither weights nor scores of two precisions are taken for one another."""
    profile = profiles.load("quick")
    assert profile.precision == "fp32"
    other = msgspec.structs.replace(profile, precision="bf16")
    one, two = (identities(select("dmc", each), "digest")[1] for each in (profile, other))
    assert (one.protocol["precision"], two.protocol["precision"]) == ("fp32", "bf16")
    assert digest(one) != digest(two) and one.stage is not None and one.stage != two.stage
