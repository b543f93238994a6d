"""Experiments as files: what fits, what is shared between levels, and what is said of those that do not fit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as replaced

from wpt_bench import experiments, profiles
from wpt_bench.data.store import EpisodeInfo
from wpt_bench.experiments import Level, vary
from wpt_bench.protocol import UserError
from wpt_bench.records import Arm, Plan, decode_checked, digest, encode_checked
from wpt_bench.running import experiment
from wpt_bench.running.plan import identities, select, together
from wpt_bench.running.subset import choose

COLLECTORS = ("pink-noise", "curiosity", "random-reward")
BODY, REST = (0, "shard", "walker", "walker", "walker"), (500, 0, 2, 24, 6)
HEAD = 'name = "mine"\nquestion = "?"\n'
FACTOR = HEAD + '[[factors]]\nname = "k"\ndescription = ""\nmethods = ["wpt"]\n'
TWO = FACTOR + 'reference = "1"\nlevels = [{{ name = "1" }}, {{ name = "2", {} }}]'


@pytest.mark.parametrize("suite", ["dmc", "metaworld"])
@pytest.mark.parametrize("profile", ["smoke", "quick", "lite"])
@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_fits_every_profile(name: str, profile: str, suite: str) -> None:
    varied = experiment.grids(experiments.load(name), suite, profiles.load(profile), (), ())
    plan = experiment.plan(experiments.load(name), varied, "data")
    assert {arm.factor for arm in plan.arms} == set(plan.factors)
    for factor in plan.factors:
        arms = [arm for arm in plan.arms if arm.factor == factor]
        assert any(arm.reference for arm in arms)
        ids = [[digest(run) for run in arm.runs] for arm in arms]
        assert len({tuple(its) for its in ids}) == len(ids), "two levels are the same"
        assert len({run.task for arm in arms for run in arm.runs}) * len(
            {run.seed for arm in arms for run in arm.runs}
        ) == len(ids[0])
    assert (
        decode_checked(encode_checked(plan), Plan).arms
        == msgspec.json.decode(msgspec.json.encode(plan), type=Plan).arms
    )


def test_what_is_not_varied_is_shared_with_the_plain_grid() -> None:
    profile = profiles.load("smoke")
    varied = experiment.grids(experiments.load("sensitivity"), "metaworld", profile)
    plain = {digest(run) for run in identities(select("metaworld", profile, (), ("wpt",)), "data")}
    everything = together([one.selection for one in varied], "data")
    assert plain <= set(everything)
    defaults = [one for one in varied if {digest(run) for run in identities(one.selection, "data")} == plain]
    assert [one.level.name for one in defaults] == ["0.25", "1", "k", "all"]
    assert len(everything) == len(plain) * (1 + 3 + 2 + 2 + 1)  # shares, guidance, k and starts without those


def test_a_subset_has_a_model_of_its_own_and_irrelevance_has_not() -> None:
    levels = {
        (one.factor.name, one.level.name): identities(one.selection, "data")[0]
        for one in experiment.grids(experiments.load("data"), "metaworld", profiles.load("smoke"))
    }
    whole = levels["quantity", "1"]
    assert levels["irrelevance", "0.5"].stage == whole.stage
    assert levels["irrelevance", "0.5"].subset == {"irrelevant": 0.5}
    assert levels["quantity", "0.1"].stage != whole.stage != levels["other scenes", "0"].stage
    assert levels["other scenes", "1"] == whole and whole.subset == {}


def test_scenes_have_models_of_their_own_where_none_is_shared() -> None:
    profile = profiles.load("smoke")
    grid = msgspec.structs.replace(profile.grids["dmc"], subset=profiles.Subset(foreign=0.0))
    apart = msgspec.structs.replace(profile, grids={"dmc": grid})
    runs = identities(select("dmc", apart, ("walker-walk", "walker-run", "cheetah-run"), ("wpt",), (0,)), "data")
    assert runs[0].stage == runs[1].stage != runs[2].stage


def test_numbers_of_a_grid_are_multiplied() -> None:
    profile = profiles.load("quick")
    assert vary(profile, "dmc", Level(name="", times={"retrieved": 0.25})).grids["dmc"].retrieved == 5
    assert vary(profile, "dmc", Level(name="", times={"retrieved": 0.001})).grids["dmc"].retrieved == 1
    assert vary(profile, "dmc", Level(name="")) == profile


@pytest.mark.parametrize(
    "level",
    [
        Level(name="odd", grid={"retreived": 3}),
        Level(name="odd", grid={"subset": {"share": 0.0}}),
        Level(name="odd", grid={"subset": {"irrelevant": 1.5}}),
        Level(name="odd", profile={"inputs": "baked"}),
        Level(name="odd", profile={"world_model": {"deter": 10**9}}),
        Level(name="odd", times={"tasks": 2.0}),
        Level(name="odd", times={"nothing": 2.0}),
    ],
)
def test_a_level_that_does_not_fit_is_named(level: Level) -> None:
    with pytest.raises(UserError, match="'odd', a variation of profile 'smoke', does not fit") as raised:
        vary(profiles.load("smoke"), "dmc", level)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (HEAD, "factors"),
        (HEAD + "factors = []", "factors"),
        (FACTOR + 'reference = "1"\nlevels = [{ name = "1" }]', "levels"),
        (FACTOR + 'reference = "3"\nlevels = [{ name = "1" }, { name = "2" }]', "reference '3' is none of the levels"),
        (FACTOR + 'reference = "1"\nlevels = [{ name = "1" }, { name = "1" }]', "two levels .* the same name"),
        (
            FACTOR.replace('methods = ["wpt"]', "") + 'reference = "1"\nlevels = [{ name = "1" }, { name = "2" }]',
            "names methods",
        ),
        (FACTOR.replace("mine", "../mine") + 'reference = "1"\nlevels = [{ name = "1" }, { name = "2" }]', "name"),
        (FACTOR + "surprise = 1", "surprise"),
        (TWO.format("grid = { tasks = ['reach'] }"), "'2' changes tasks, which all levels"),
        (TWO.format("profile = { grids = {} }"), "'2' changes grids"),
        ("name = [", "cannot be used"),
        ("[" * 100_000, "cannot be used"),
        ("# " + "x" * 2**20, "larger than"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_sentence(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=why) as raised:
        experiments.load(str(path))
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_unknown_names_are_told_from_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no experiment 'ablatoin'; did you mean 'ablation'"):
        experiments.load("ablatoin")
    with pytest.raises(UserError, match="There is no experiment file"):
        experiments.load(str(tmp_path / "none.toml"))
    one = (
        FACTOR
        + 'suites = ["dmc"]\nreference = "1"\nlevels = [{ name = "1" }, { name = "2", times = { retrieved = 2 } }]'
    )
    (tmp_path / "mine.toml").write_text(one)
    with pytest.raises(UserError, match="'mine' has nothing to vary in the suite 'metaworld'"):
        experiment.grids(experiments.load(str(tmp_path / "mine.toml")), "metaworld", profiles.load("smoke"))


@pytest.mark.parametrize("profile", ["quick", "lite", "paper"])
@pytest.mark.parametrize("name", experiments.names())
def test_every_level_leaves_enough_episodes_to_retrieve(name: str, profile: str) -> None:
    """Of DMControl's bodies, which are of dimensions of their own: by the numbers that the profile collects."""
    whole = profiles.load(profile)
    counts = {kind: getattr(whole.grids["dmc"].data, kind.replace("-", "_")) for kind in COLLECTORS}
    infos = [
        EpisodeInfo(*BODY, kind, place / max(count - 1, 1) if kind != "pink-noise" else None, *REST)
        for kind, count in counts.items()
        for place in range(count)
    ]
    there = SimpleNamespace(path="here", episodes=[replace(info, index=index) for index, info in enumerate(infos)])
    for one in experiment.grids(experiments.load(name), "dmc", whole):
        left = choose(there, one.selection.grid.subset, "walker")
        assert len(left) >= one.selection.grid.retrieved, one.level.name


def test_no_experiment_reports_tasks_that_settings_were_tuned_on() -> None:
    """But the one that is about settings."""
    for name in set(experiments.names()) - {"details"}:
        for profile in ("quick", "lite"):
            for suite, grid in profiles.load(profile).grids.items():
                varied = experiment.grids(experiments.load(name), suite, profiles.load(profile))
                tasks = {task.name for one in varied for task in one.selection.tasks}
                assert not tasks & set(grid.tuning), (name, profile, suite)


def test_who_retrieves_nothing_has_no_irrelevant_episodes() -> None:
    profile = vary(profiles.load("smoke"), "metaworld", Level(name="", grid={"subset": {"irrelevant": 0.5}}))
    assert select("metaworld", profile, (), ("wpt", "uds", "jsrl-bc"))
    for method in ("iql", "mt-iql", "sac"):
        with pytest.raises(UserError, match=f"{method} retrieves nothing"):
            select("metaworld", profile, (), (method,))


def test_an_experiment_of_other_data_or_versions_is_left_out_and_said_so() -> None:
    profile = profiles.load("smoke")
    plan = experiment.plan(
        experiments.load("ablation"), experiment.grids(experiments.load("ablation"), "dmc", profile), "data"
    )
    assert experiment.current([plan], "data") == ([plan], [])
    for data in ("other", None):
        kept, (said,) = experiment.current([plan], data)
        assert not kept and "ablation was made with another data set" in said
    arm = plan.arms[0]
    older = msgspec.structs.replace(arm, runs=[msgspec.structs.replace(run, method_version=0) for run in arm.runs])
    kept, (said,) = experiment.current([msgspec.structs.replace(plan, arms=[older, *plan.arms[1:]])], "data")
    assert not kept and "with other versions of methods" in said and "--suite dmc --profile smoke" in said


GRID = (("walker-stand", "walker-walk", "walker-run"), (0, 1, 2, 3))
ASKED = st.tuples(*(st.lists(st.sampled_from(choices), min_size=1, unique=True) for choices in GRID))


def planned(name: str, tasks: Sequence[str], seeds: Sequence[int], data: str = "data") -> Plan:
    loaded = experiments.load(name)
    return experiment.plan(loaded, experiment.grids(loaded, "dmc", profiles.load("smoke"), tasks, seeds), data)


def merged(before: Plan, asked: Plan, data: str = "data") -> Plan | None:
    return experiment.merge(experiments.load(asked.name), profiles.load("smoke"), before, asked, data)


@settings(max_examples=25, deadline=None)
@given(before=ASKED, asked=ASKED)
def test_two_calls_make_one_grid_of_all_their_tasks_and_seeds(
    before: tuple[list[str], list[int]], asked: tuple[list[str], list[int]]
) -> None:
    first, second = planned("data", *before), planned("data", *asked)
    both = merged(first, second)
    assert both is not None and merged(both, first) == both and merged(both, second) == both
    wanted = {(task, seed) for task in (*before[0], *asked[0]) for seed in (*before[1], *asked[1])}
    for arm, *its in zip(both.arms, first.arms, second.arms, strict=True):
        cells = [(run.task, run.seed) for run in arm.runs]
        assert set(cells) == wanted and len(cells) == len(wanted)
        assert cells == sorted(cells, key=lambda cell: cell[1])
        assert all(run in arm.runs for one in its for run in one.runs)


def test_a_sequence_is_added_to_at_its_end_and_by_other_seeds() -> None:
    stand, walk, run = GRID[0]
    short, long = planned("adaptation", (stand, walk), (0,)), planned("adaptation", (stand, walk, run), (1,))
    both = merged(short, long)
    assert both is not None and both == planned("adaptation", (stand, walk, run), (0, 1)) == merged(long, short)
    assert merged(short, planned("adaptation", (walk, stand), (1,))) is None
    assert merged(short, planned("adaptation", (walk,), (0,))) is None
    assert merged(short, planned("adaptation", ("cheetah-run",), (0,))) is None


def test_what_is_of_something_else_is_not_merged() -> None:
    before, asked = planned("data", GRID[0][:1], (0,)), planned("data", GRID[0][:1], (1,))
    assert merged(before, planned("data", GRID[0][:1], (1,), "other"), "other") is None

    def changed(arm: Arm, **changes: object) -> Plan:
        others = [one for one in before.arms if one != arm]
        return replaced(before, arms=[replaced(arm, runs=[replaced(run, **changes) for run in arm.runs]), *others])

    for arm in before.arms:
        for changes in ({"method_version": 0}, {"settings": {}}, {"budget": 1}, {"subset": {"share": 0.3}}):
            assert merged(changed(arm, **changes), asked) is None
        assert merged(changed(arm, stage="another pre-training"), asked) is None
        assert merged(replaced(before, arms=[*before.arms, replaced(arm, level="of old")]), asked) is None
    gone = planned("ablation", GRID[0][:1], (0,))
    runs = [replaced(run, task="walker-fly") for run in gone.arms[0].runs]
    assert merged(replaced(gone, arms=[replaced(gone.arms[0], runs=runs)]), gone) is None


def test_a_level_that_is_new_is_missing_for_what_was_asked_before() -> None:
    asked, before = planned("data", GRID[0][:1], (1,)), planned("data", GRID[0][:1], (0,))
    both = merged(replaced(before, arms=before.arms[:-1]), asked)
    assert both == planned("data", GRID[0][:1], (0, 1))
