"""Hours of a grid before it is made, by hand."""

from pathlib import Path

import msgspec
import pytest

from running import small
from wpt_bench import experiments, profiles, records
from wpt_bench.experiments import Level, vary
from wpt_bench.records import Identity
from wpt_bench.running import experiment
from wpt_bench.running.estimate import estimate
from wpt_bench.running.plan import Layout, identities, new_run, select, stages

PROFILE = msgspec.structs.replace(profiles.load("quick"), minutes=30.0)


def hours(pending: list, layout: Layout, workers: int = 2) -> float:
    return estimate(PROFILE, "dmc", layout, pending, workers=workers).hours


def finish(run: Identity, layout: Layout, seconds: float) -> None:
    made = new_run(run)
    made.status, made.wall_clock = "done", seconds
    records.write_run(layout.runs / made.id, made)


def runs(**grid: object) -> list[Identity]:
    return identities(select("dmc", vary(PROFILE, "dmc", Level(name="", grid=grid))), "data")


def test_the_profiles_own_grid_takes_what_the_profile_says(tmp_path: Path) -> None:
    own = select("dmc", PROFILE)
    assert hours([*stages(own, "data"), *identities(own, "data")], Layout(tmp_path)) == pytest.approx(0.5)
    # 16 runs, and 2,000 updates beside a run's 10,000 / 2 * 0.9 * 0.2 = 900.
    assert hours(runs(), Layout(tmp_path)) == pytest.approx(0.5 * 16 / (16 + 2000 / 900))


def test_runs_count_by_their_budget_and_their_updates(tmp_path: Path) -> None:
    layout, whole = Layout(tmp_path), hours(runs(), Layout(tmp_path))
    assert hours(runs(budget=30_000), layout) == pytest.approx(3 * whole)
    half = vary(PROFILE, "dmc", Level(name="", profile={"settings": {"wpt": {"updates_per_step": 0.1}}}))
    assert hours(identities(select("dmc", half), "data"), layout) == pytest.approx(whole / 2)
    offline = identities(
        select("dmc", vary(PROFILE, "dmc", Level(name="", grid={"budget": 30_000})), (), ("iql",)), "d"
    )
    assert hours(offline, layout) == pytest.approx(whole / 4)  # a fourth of the methods, with no step of the budget


def test_finished_runs_count_by_their_budget_whatever_the_profile_says(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    first = runs()[0]
    finish(first, layout, 100.0)
    finish([run for run in runs(budget=30_000) if run.method == first.method][1], layout, 500.0)
    assert hours(runs(), layout, workers=4) == pytest.approx(16 * 150 / 4 / 3600)  # 600 s for what four runs are
    assert hours(runs(budget=20_000), layout, workers=1) == pytest.approx(2 * 16 * 150 / 3600)
    finish(small.identity("dreamer", None), layout, 9999.0)  # of another profile
    assert hours(runs(), layout, workers=4) == pytest.approx(16 * 150 / 4 / 3600)
    assert estimate(PROFILE, "dmc", layout, runs(), workers=1).measured


def test_a_method_takes_what_its_own_finished_runs_took(tmp_path: Path) -> None:
    """One run of WPT and two of sac, whose other runs cost what they did; of iql none is known but all of them."""
    layout = Layout(tmp_path)
    own, sac, iql = (identities(select("dmc", PROFILE, (), (name,)), "data") for name in ("wpt", "sac", "iql"))
    for run, seconds in ((own[0], 900.0), (sac[0], 100.0), (sac[1], 200.0)):
        finish(run, layout, seconds)
    assert hours(own, layout, workers=1) == pytest.approx(len(own) * 900 / 3600)
    assert hours([*own, *sac], layout, workers=1) == pytest.approx((len(own) * 900 + len(sac) * 150) / 3600)
    assert hours(iql, layout, workers=1) == pytest.approx(len(iql) * 400 / 3600)


def test_an_experiment_with_tasks_of_its_own_is_not_taken_for_the_profiles_grid(tmp_path: Path) -> None:
    """Its levels are of other tasks and budgets, and what a run takes is the profile's to say."""
    lite = profiles.load("lite")
    varied = experiment.grids(experiments.load("details"), "dmc", lite)
    (run, *_) = identities(varied[0].selection, "data")
    plain = identities(select("dmc", lite), "data")[0]
    one, whole = (estimate(lite, "dmc", Layout(tmp_path), [its], workers=1).hours for its in (run, plain))
    assert one == pytest.approx(whole * 20_000 / 50_000)
