import pytest

from analysis.synthetic import flat, write
from wpt_bench import registry
from wpt_bench.analysis.literature import (
    held_against_published,
    nearest_to_budget,
    published_band,
    published_inside,
    published_scores,
)
from wpt_bench.analysis.scores import load_runs

SAC = ("SAC", "SAC(UTD2)")


@pytest.mark.parametrize(
    ("task", "low", "high"),
    [("walker-walk", 0.7082, 0.8472), ("cheetah-run", 0.2135, 0.3286), ("cartpole-balance", 0.9984, 0.9996)],
)
def test_bands_of_sac_from_states_at_100k_steps(task, low, high):
    """Lowest and highest of three sources: 708-847, 214-329 and 998-1000 points of return."""
    assert published_band(task, "state", SAC, 100_000) == pytest.approx((0.9 * low, 1.1 * high), abs=1e-9)


def test_a_band_is_of_the_methods_named_alone():
    """SAC(UTD2) has one source, so its span is a point."""
    alone = published_band("walker-walk", "state", ["SAC(UTD2)"], 100_000)
    assert alone == pytest.approx((0.9 * 0.7828, 1.1 * 0.7828))
    everything = published_band("walker-walk", "state", set(published_scores()["method"]), 100_000)
    assert everything is not None and everything[0] <= 0.9 * 0.7082 and everything[1] > 1.1 * 0.8472


@pytest.mark.parametrize(
    "wrong",
    [
        ("walker-backflip", "state", SAC, 100_000),
        ("walker-walk", "state", ("DrQ-v2",), 100_000),
        ("walker-walk", "state", SAC, 99_000),
    ],
)
def test_what_nobody_published_has_no_band(wrong):
    assert published_band(*wrong) is None


def test_every_row_is_a_score_of_a_task_of_ours():
    rows = published_scores()
    known = {(name, task.name) for name, suite in registry.suites().items() for task in suite.tasks() if task.paper}
    assert set(zip(rows["suite"], rows["task"], strict=True)) <= known
    assert set(rows["observation"]) == {"state", "pixels"}
    assert set(rows["method"]) == {*SAC, "DreamerV3", "DrQ-v2", "TD-MPC2"}
    assert rows["score"].between(0, 1).all() and rows["env_steps"].between(100_000, 500_000).all()
    assert (rows["n_seeds"] >= 1).all() and rows["origin"].notna().all()
    assert not rows.duplicated(["origin", "method", "suite", "task", "observation", "env_steps"]).any()


def test_no_figure_counts_success_at_any_step():
    """Only TD-MPC2's files count success at the last step, as we do."""
    rows = published_scores()
    assert set(rows["origin"][rows["suite"] == "metaworld"]) == {"tdmpc2"}


def test_points_inside_are_of_the_tables_tasks_kind_and_budget(tmp_path):
    budget = 150_000
    for task in ("walker-walk", "walker-backflip"):
        write(tmp_path, "wpt", task, 0, {0: [0.0], budget: [0.5]}, budget=budget)
    table = load_runs(tmp_path, suite="dmc", profile="quick")
    points = published_inside(table)
    assert set(points["task"]) == {"walker-walk"} and set(points["observation"]) == {"state"}
    assert set(points["env_steps"]) == {100_000, 150_000}
    last = nearest_to_budget(table)
    assert (last["env_steps"] == 150_000).all() and len(last) == len(points) / 2
    assert set(last["origin"][last["method"] == "SAC"]) == {"pytorch_sac", "tdmpc2"}


def test_short_runs_have_no_points_beside_them(tmp_path):
    write(tmp_path, "wpt", "walker-walk", 0, flat(0.5))
    table = load_runs(tmp_path, suite="dmc", profile="quick")
    assert published_inside(table).empty and nearest_to_budget(table).empty


def test_a_method_is_held_against_its_publications_at_the_budget(tmp_path):
    budget = 100_000
    for task, score in (("walker-walk", 0.8), ("cheetah-run", 0.5), ("walker-backflip", 0.1)):
        for seed in (0, 1):
            write(tmp_path, "sac", task, seed, {0: [0.0], budget: [score]}, budget=budget)
            write(tmp_path, "iql", task, seed, {0: [0.0], budget: [score]}, budget=budget)
    (sentence,) = held_against_published(load_runs(tmp_path, suite="dmc", profile="quick"))
    assert sentence.startswith("sac lies where SAC and SAC(UTD2) were published, widened by 10%, on 1 of 2 tasks: ")
    assert "walker-walk 0.800 (0.637 to 0.932)" in sentence and "backflip" not in sentence
    shorter = tmp_path / "shorter"
    write(shorter, "sac", "walker-walk", 0, {0: [0.0], 50_000: [0.8]}, budget=50_000)
    assert held_against_published(load_runs(shorter, suite="dmc", profile="quick")) == []
