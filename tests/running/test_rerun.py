"""Real small runs, told as they were and not: training their beginning again tells which."""

import tempfile
from pathlib import Path

import msgspec
import pytest

from running import small
from wpt_bench import profiles, records
from wpt_bench.data.store import Dataset
from wpt_bench.protocol import UserError
from wpt_bench.records import Episode, Identity, Run
from wpt_bench.running.loop import execute
from wpt_bench.running.plan import Layout, identities, select
from wpt_bench.running.rerun import Rerun, rerun

Record = tuple[Run, list[Episode]]
GRID = {"evaluation_every": 0.5, "evaluation_episodes": 2}


def make(prepared: tuple[Layout, Dataset], folder: Path, identity: Identity, episodes: int | None = None) -> Record:
    (folder / "stages").symlink_to(prepared[0].out / "stages")
    layout = Layout(folder)
    execute(identity, layout, small.path(prepared[0]), small.silent, episodes=episodes)
    run = layout.runs / records.digest(identity)
    return records.read_run(run), records.read_episodes(run)


@pytest.fixture(scope="module")
def scratch(prepared: tuple[Layout, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The beginning of a run whose first episode comes before the first update: all that is needed of it."""
    identity = small.identity("dreamer", None, **GRID | {"budget": 10_000, "evaluation_every": 0.2})
    return make(prepared, tmp_path_factory.mktemp("scratch"), identity, episodes=2)


@pytest.fixture(scope="module")
def wpt(prepared: tuple[Layout, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Record:
    return make(
        prepared, tmp_path_factory.mktemp("wpt"), small.identity("wpt", prepared[1].digest, budget=4000, **GRID)
    )


def again(record: Record, layout: Layout, **options: int) -> Rerun:
    return rerun(*record, layout, small.silent, **options)


def told(record: Record, changes: dict[int, dict[str, object]]) -> Record:
    """The record with some rows changed."""
    run, rows = record
    return run, [msgspec.structs.replace(row, **changes.get(number, {})) for number, row in enumerate(rows)]


def elsewhere(record: Record, **machine: object) -> Record:
    """The record as if it had been made on another machine."""
    run, rows = record
    provenance = run.provenance | {"machine": run.provenance["machine"] | machine}
    return msgspec.structs.replace(run, provenance=provenance), rows


# Rows of these runs: evaluations 0, 1; episodes 2, 3; evaluations 4, 5; and of the whole one episodes 6, 7;
# evaluations 8, 9. In that one all but the first two come two later, after evaluations of the prior.


@pytest.mark.parametrize(("episodes", "rows"), [(2, 8), (9, 12)])
def test_an_honest_run_comes_out_again(prepared: tuple[Layout, Dataset], wpt: Record, episodes: int, rows: int) -> None:
    made = again(wpt, prepared[0], episodes=episodes)
    assert (made.findings, made.environment) == ((), ())
    assert (made.episodes, made.compared) == (min(episodes, 4), rows)
    assert made.reproduced
    assert wpt[1][8].updates > 0 and wpt[1][8].metrics  # an episode that was learned in is among those compared


def test_a_run_from_before_there_were_diagnoses_comes_out_again(prepared: tuple[Layout, Dataset], wpt: Record) -> None:
    run, rows = wpt
    old = [row for row in rows if row.kind != "prior"]
    old = [msgspec.structs.replace(row, metrics={}) if row.kind == "evaluation" else row for row in old]
    made = again((run, old), prepared[0], episodes=2)
    assert made.reproduced and made.compared == 6


def test_a_made_up_diagnosis_is_found_out(prepared: tuple[Layout, Dataset], wpt: Record) -> None:
    changes = {0: {"metrics": {"open_loop": 0.0}}, 2: {"episode_return": 1000.0}}
    evaluation, prior = again(told(wpt, changes), prepared[0], episodes=1).findings
    assert "open_loop 0.0 (came out as " in evaluation and "prior episode 0 at environment step 0" in prior


def test_a_run_without_data_needs_none(scratch: Record, tmp_path: Path) -> None:
    assert again(scratch, Layout(tmp_path), episodes=2).reproduced
    assert not list(tmp_path.iterdir())


def test_an_offline_run_is_trained_whole(prepared: tuple[Layout, Dataset], tmp_path: Path) -> None:
    record = make(prepared, tmp_path, small.identity("iql", prepared[1].digest))
    made = again(record, prepared[0])
    assert (made.reproduced, made.episodes, made.compared) == (True, 0, 2)
    assert again(told(record, {0: {"episode_return": 1.0}}), prepared[0]).findings


def test_made_up_rows_are_found_out(scratch: Record, tmp_path: Path) -> None:
    changes = {
        0: {"episode_return": 900.0},
        1: {"wall_clock": 1e6},  # which is nobody's to repeat
        2: {"success_any": 0.5, "guided_steps": 7},
        3: {"updates": 7, "metrics": {"loss": 1.0}},
        4: {"index": 2},
    }
    made = again(told(scratch, changes), Layout(tmp_path), episodes=2)
    assert not made.reproduced and all(f"Run {scratch[0].id}" in finding for finding in made.findings)
    first, second, third, *others = made.findings
    assert "evaluation episode 0 at environment step 0, is recorded with episode_return 900.0 (came out as " in first
    assert "train episode 0 at environment step 1000" in second
    assert "success_any 0.5 (came out as " in second and "guided_steps 7 (came out as 0)" in second
    assert "updates 7 (came out as " in third and "loss 1.0 (came out as None)" in third
    assert others == [
        f"Run {scratch[0].id}: evaluation episode 2 at environment step 2000 is recorded and did not come out.",
        f"Run {scratch[0].id}: evaluation episode 0 at environment step 2000 came out and is not recorded.",
    ]


def test_a_row_too_many_is_found_out(scratch: Record, tmp_path: Path) -> None:
    run, rows = scratch
    (more,) = again((run, [rows[0], *rows]), Layout(tmp_path), episodes=1).findings
    assert "has a row twice" in more


def test_a_run_told_as_another_seeds_is_found_out(scratch: Record, tmp_path: Path) -> None:
    run, rows = scratch
    identity = msgspec.structs.replace(run.identity, seed=1)
    other = msgspec.structs.replace(run, identity=identity, id=records.digest(identity))
    assert again((other, rows), Layout(tmp_path), episodes=1).findings


def test_what_the_method_declares_is_not_the_records_to_change(scratch: Record, tmp_path: Path) -> None:
    run = msgspec.structs.replace(scratch[0], score_scale=500.0)
    (finding,) = again((run, scratch[1]), Layout(tmp_path), episodes=1).findings
    assert "its score_scale is recorded as 500.0, and dreamer on cartpole-balance has 1000.0" in finding


def test_leftovers_of_the_temporary_folder_fool_nobody(
    scratch: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, rows = told(scratch, {2: {"episode_return": 900.0}})
    temporary = tmp_path / "temporary"
    for name in ("", "wpt-bench-rerun-"):
        folder = temporary / name / "runs" / run.id
        records.write_run(folder, run)
        records.append_episodes(folder, rows)
    before = sorted(temporary.rglob("*"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert again((run, rows), Layout(tmp_path / "out"), episodes=1).findings
    assert sorted(temporary.rglob("*")) == before


def test_another_environment_is_said_and_noise_compared_within_a_tolerance(scratch: Record, tmp_path: Path) -> None:
    record = elsewhere(scratch, cpu_capability="ABACUS")
    made = again(record, Layout(tmp_path), episodes=2)
    assert not made.reproduced and made.findings == ()
    (difference,) = made.environment
    assert "cpu_capability" in difference and "recorded ABACUS" in difference
    assert made.compared == sum(row.kind == "train" and row.updates == 0 for row in scratch[1]) == 1
    value = scratch[1][2].episode_return
    assert not again(told(record, {2: {"episode_return": value * 1.005}}), Layout(tmp_path), episodes=1).findings
    (finding,) = again(told(record, {2: {"episode_return": value * 1.5}}), Layout(tmp_path), episodes=1).findings
    assert "further off than 1%" in finding


def test_where_something_learned_acts_nothing_is_compared_elsewhere(
    prepared: tuple[Layout, Dataset], wpt: Record
) -> None:
    made = again(elsewhere(wpt, cpu_capability="ABACUS"), prepared[0], episodes=1)
    assert (made.compared, made.findings, made.reproduced) == (0, (), False)
    assert any("of the pre-training that is here" in difference for difference in made.environment)


@pytest.mark.parametrize("provenance", [{}, {"threads": 10**9, "machine": None, "versions": {}}])
def test_an_environment_that_was_not_recorded_is_no_way_out(scratch: Record, tmp_path: Path, provenance: dict) -> None:
    run = msgspec.structs.replace(scratch[0], provenance=provenance)
    made = again((run, scratch[1]), Layout(tmp_path), episodes=1)
    assert not made.reproduced and any("threads" in difference for difference in made.environment)


def test_missing_data_is_said_with_the_command_that_makes_it(wpt: Record, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not in .*; collect it: wpt-bench data collect dmc --profile small"):
        again(wpt, Layout(tmp_path))


def test_a_missing_stage_is_made_or_said_with_the_command(
    prepared: tuple[Layout, Dataset], wpt: Record, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(prepared[0].out / "data")
    with pytest.raises(UserError, match=r"pre-training .* is not in .*; make it: wpt-bench run dmc --profile small"):
        again(wpt, Layout(tmp_path))
    selection = select("dmc", profiles.load("smoke"), (small.TASK,), ("wpt-pretrain-only",), (0,))
    (identity,) = identities(selection, prepared[1].digest)  # smoke's pre-training, on the small data
    (tmp_path / "made").mkdir()
    record = make(prepared, tmp_path / "made", identity)
    assert again(record, Layout(tmp_path), episodes=1).reproduced
    assert (tmp_path / "stages" / identity.stage / "weights.safetensors").exists()
    other = msgspec.structs.replace(identity, stage="0" * 16)
    with pytest.raises(UserError, match="the profile smoke alone makes another one: it has changed since, or"):
        rerun(msgspec.structs.replace(record[0], identity=other), record[1], Layout(tmp_path), small.silent)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method_version": 99}, "made by version 99 of dreamer, and version"),
        ({"suite_version": 99}, "made by version 99 of dmc, and version"),
        ({"method": "dreamr"}, "did you mean 'dreamer'"),
        ({"settings": {"horizon": "far"}}, "settings are none of dreamer here"),
        ({"protocol": {}}, "protocol does not say evaluation_every"),
        ({"protocol": {"action_repeat": 7}}, "protocol has action_repeat 7, and that of dmc/cartpole-balance is 2"),
        ({"protocol": {"warm_up": 0.5}}, r"protocol has warm_up 0\.5"),
        ({"protocol": {"evaluation_starts": "same"}}, "protocol has evaluation_starts 'same'"),
    ],
)
def test_a_run_that_this_version_does_not_make_is_refused(
    scratch: Record, tmp_path: Path, changes: dict, said: str
) -> None:
    identity = scratch[0].identity
    if changes.get("protocol"):
        changes = {"protocol": identity.protocol | changes["protocol"]}
    run = msgspec.structs.replace(scratch[0], identity=msgspec.structs.replace(identity, **changes))
    with pytest.raises(UserError, match=said):
        again((run, scratch[1]), Layout(tmp_path))
