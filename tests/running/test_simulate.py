"""The simulated grid, by hand."""

from pathlib import Path

import msgspec
import pytest

from running import small
from wpt_bench import records
from wpt_bench.data.store import Dataset
from wpt_bench.protocol import UserError
from wpt_bench.running.plan import Layout, identities, new_run, select, stages
from wpt_bench.running.simulate import Simulated, makespan, makespans, measured, simulated
from wpt_bench.running.stages import Stage


def free(*seconds: float) -> list[Simulated]:
    return [Simulated(str(place), each) for place, each in enumerate(seconds)]


@pytest.mark.parametrize(
    ("seconds", "workers", "expected"),
    [
        ((3, 3, 2, 2, 2), 1, 12),
        ((3, 3, 2, 2, 2), 2, 7),  # 3+2+2 beside 3+2: in order, not the best there is (6)
        ((2, 2, 2, 3, 3), 2, 7),  # 2+2+3 beside 2+3
        ((1, 1, 1, 9), 2, 10),  # the long one comes last and is waited for
        ((9, 1, 1, 1), 2, 9),
        ((5, 4), 1000, 5),
        ((), 3, 0),
    ],
)
def test_the_next_job_goes_to_whoever_is_free(seconds: tuple[float, ...], workers: int, expected: float) -> None:
    assert makespan(free(*seconds), workers) == expected


def test_runs_wait_for_their_own_stage_alone() -> None:
    jobs = [
        Simulated("a", 10),
        Simulated("b", 4),
        Simulated("run of a", 5, "a"),
        Simulated("run of b", 5, "b"),
        Simulated("free", 3),
    ]
    # Two workers: a until 10, b until 4, then the run of b until 9, the free one until 12; the run of a from 10 to 15.
    assert makespan(jobs, 2) == 15
    assert makespan(jobs, 1) == 27
    assert makespan(jobs, 100) == 15  # no more workers make it shorter than a and its run
    assert makespan([job for job in jobs if job.job_id != "a"], 100) == 9  # a was made before: nobody waits for it


def test_efficiency_is_the_share_of_time_that_is_worked() -> None:
    one, two, many = makespans(free(3600, 3600, 3600), [1, 2, 10])
    assert (one.hours, one.efficiency, one.speedup) == (3, 1, 1)
    assert (two.hours, two.efficiency, two.speedup) == (2, 0.75, 1.5)
    assert (many.hours, many.efficiency, many.speedup) == (1, pytest.approx(0.3), 3)


def test_times_are_those_of_finished_runs(tmp_path: Path) -> None:
    layout, selection = Layout(tmp_path), small.selection(("dreamer", "sac"), (0, 1))
    runs = identities(selection, None)
    for seconds, identity in zip((10.0, 40.0, 20.0, 60.0), runs, strict=True):  # seed by seed
        run = new_run(identity)
        run.status, run.wall_clock = "done", seconds
        records.write_run(layout.runs / run.id, run)
    failed = new_run(msgspec.structs.replace(runs[0], seed=7))
    failed.status, failed.wall_clock = "failed", 1000.0
    records.write_run(layout.runs / failed.id, failed)
    times = measured(layout, "dmc", "small")
    assert times == {"dreamer": 15.0, "sac": 50.0}
    assert [job.seconds for job in simulated(runs, (), times)] == [15.0, 50.0, 15.0, 50.0]
    wpt = small.selection(("wpt",))
    with pytest.raises(UserError, match="how long pre-training, wpt takes"):
        simulated(identities(wpt, "d"), stages(wpt, "d"), times)


def test_a_stage_is_measured_once_however_many_runs_start_from_it(
    prepared: tuple[Layout, Dataset], tmp_path: Path
) -> None:
    """Of two stages of 10 and 30 seconds three runs start from the first and one from the second."""
    layout, data = Layout(tmp_path), prepared[1].digest
    ids = []
    for updates, seconds in ((20, 10.0), (21, 30.0)):
        stage = small.stage(data, updates=updates)
        ids.append(records.digest(stage))
        records.make_folder(layout.stage(ids[-1]))
        made = Stage(ids[-1], msgspec.to_builtins(stage), {}, seconds, [], [])
        layout.record(ids[-1]).write_bytes(msgspec.json.encode(made))
    for seed in range(4):
        run = new_run(msgspec.structs.replace(small.identity("wpt", data, seed=seed), stage=ids[seed == 3]))
        run.status, run.wall_clock = "done", 1.0
        records.write_run(layout.runs / run.id, run)
    assert measured(layout, "dmc", "small") == {"wpt": 1.0, "pre-training": 20.0}


def test_tasks_of_a_sequence_are_made_one_after_another() -> None:
    tasks = ("cartpole-balance", "cartpole-balance-sparse")
    runs = identities(select("dmc", small.profile(sequence=True), tasks, ("dreamer",), (0, 1)), None)
    jobs = simulated(runs, (), {"dreamer": 5.0})
    assert makespan(jobs, 100) == 10 and makespan(jobs, 1) == 20


def test_a_grid_of_72_tasks_18_methods_and_5_seeds() -> None:
    """Equal runs after one stage for each seed: what remains is the stage, and the last, partly filled round."""
    jobs = [Simulated(f"stage {seed}", 600.0) for seed in range(5)]
    jobs += [
        Simulated(f"{task} {method} {seed}", 100.0, f"stage {seed}" if method < 9 else None)
        for seed in range(5)
        for task in range(72)
        for method in range(18)
    ]
    by_workers = {row.workers: row for row in makespans(jobs, [1, 10, 1000])}
    assert by_workers[1].hours == pytest.approx((5 * 600 + 6480 * 100) / 3600)
    assert by_workers[10].efficiency > 0.99
    # 1,000 workers: 995 begin with the runs that wait for nothing, 3,240 of them in four rounds, and stages end after
    # six rounds' time; then 3,240 in four rounds.
    assert by_workers[1000].hours * 3600 == pytest.approx(1000)
