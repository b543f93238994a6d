import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.synthetic import BUDGET, flat, grid, identity, write
from wpt_bench.analysis.scores import (
    IncompleteError,
    Reading,
    area_under_curve,
    curve_array,
    load_runs,
    load_tables,
    score_matrix,
    untrained,
)
from wpt_bench.protocol import UserError
from wpt_bench.records import digest


def load(root, **options):
    return load_runs(root, suite="dmc", profile="quick", **options)


def test_score_curve_start_and_area_against_hand_worked_values(tmp_path):
    write(tmp_path, "dreamer", "walker-stand", 3, {0: [0.1, 0.3], 5000: [0.4, 0.6], BUDGET: [0.8, 1.2]})
    table = load(tmp_path)
    run = table.runs.iloc[0]
    assert run["score"] == pytest.approx(1.0)
    assert run["start"] == pytest.approx(0.2)
    # (0.2 + 0.5) / 2 over the first half and (0.5 + 1.0) / 2 over the second.
    assert run["auc"] == pytest.approx(0.5 * 0.35 + 0.5 * 0.75)
    assert table.curves[["env_step", "score"]].to_numpy() == pytest.approx(
        np.array([[0, 0.2], [5000, 0.5], [BUDGET, 1.0]])
    )
    assert untrained(table) == {"walker-stand": pytest.approx(0.2)}
    assert table.missing == table.stale == table.problems == ()


def test_a_success_score_is_the_last_step_not_any_step(tmp_path):
    write(tmp_path, "dreamer", "door-open", 0, {0: [0.0, 0.0], BUDGET: [1.0, 0.0]}, score="success", scale=1.0)
    assert load(tmp_path).runs["score"].tolist() == [0.5]


def test_scores_are_never_clipped(tmp_path):
    write(tmp_path, "dreamer", "walker-stand", 0, flat(-0.02, 1.3))
    assert load(tmp_path).runs[["start", "score"]].to_numpy()[0] == pytest.approx([-0.02, 1.3])


def test_area_of_a_curve_that_ends_beyond_the_budget_is_cut_there():
    # A line from 0 to 2 over 20 steps, of a budget of 10: the triangle 0..1.
    assert area_under_curve([0, 20], [0.0, 2.0], 10) == pytest.approx(0.5)
    assert area_under_curve([0, 4, 10], [0.0, 1.0, 1.0], 10) == pytest.approx((2 + 6) / 10)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_area_lies_between_lowest_and_highest_point(values):
    area = area_under_curve(np.linspace(0, 100, len(values)), values, 100)
    assert min(values) - 1e-9 <= area <= max(values) + 1e-9


def test_matrix_is_seeds_by_tasks(tmp_path):
    for task, row in {"b": [0.1, 0.2], "a": [0.3, 0.4]}.items():
        for seed, value in enumerate(row):
            write(tmp_path, "wpt", task, seed, flat(value))
    table = load(tmp_path)
    assert table.tasks == ["a", "b"]
    assert score_matrix(table, "wpt") == pytest.approx(np.array([[0.3, 0.1], [0.4, 0.2]]))
    steps, curves = curve_array(table, "wpt")
    assert steps.tolist() == [0, BUDGET]
    assert curves[:, :, 1] == pytest.approx(score_matrix(table, "wpt"))


def test_curves_evaluated_at_other_steps_are_interpolated(tmp_path):
    write(tmp_path, "wpt", "a", 0, {0: [0.0], 5000: [0.5], BUDGET: [1.0]})
    write(tmp_path, "wpt", "a", 1, {0: [0.0], BUDGET: [0.4]})
    steps, curves = curve_array(load(tmp_path), "wpt")
    assert steps.tolist() == [0, 5000, BUDGET]
    assert curves[:, 0] == pytest.approx(np.array([[0, 0.5, 1.0], [0, 0.2, 0.4]]))


@pytest.mark.parametrize("status", ["pending", "running", "failed"])
def test_only_done_runs_count(tmp_path, status):
    write(tmp_path, "wpt", "a", 0, flat(0.5))
    write(tmp_path, "wpt", "a", 1, flat(0.9), status=status, error="NaN loss" if status == "failed" else None)
    table = load(tmp_path)
    assert table.runs["seed"].tolist() == [0]
    assert [(absent.seed, absent.status) for absent in table.missing] == [(1, status)]
    assert "NaN loss" in table.missing[0].why or status != "failed"
    with pytest.raises(IncompleteError, match=r"wpt has 1 of 2 runs \(missing: a seed 1\)"):
        score_matrix(table, "wpt")
    with pytest.raises(IncompleteError):
        curve_array(table, "wpt")


def test_expected_runs_without_a_record_are_missing(tmp_path):
    write(tmp_path, "wpt", "a", 0, flat(0.5))
    expected = [identity("wpt", "a", seed) for seed in (0, 1)] + [identity("dreamer", "a", 0)]
    table = load(tmp_path, expected=expected)
    assert [(absent.method, absent.seed, absent.status) for absent in table.missing] == [
        ("dreamer", 0, "pending"),
        ("wpt", 1, "pending"),
    ]
    assert table.methods == ["dreamer", "wpt"]
    with pytest.raises(IncompleteError):
        score_matrix(table, "dreamer")


def test_runs_outside_the_expected_grid_are_stale_with_the_reason(tmp_path):
    write(tmp_path, "wpt", "a", 0, flat(0.5))
    write(tmp_path, "wpt", "a", 0, flat(0.9), data="e" * 16, method_version=7)
    write(tmp_path, "wpt", "b", 0, flat(0.9))
    table = load(tmp_path, expected=[identity("wpt", "a", 0)])
    assert table.runs["score"].tolist() == [pytest.approx(0.5)]
    assert {absent.why for absent in table.stale} == {
        "another version of the method, data set",
        "not one of the runs asked for",
    }


def test_runs_that_an_experiment_counts_are_neither_in_the_table_nor_stale(tmp_path):
    wanted = [identity("wpt", "walker-stand", seed) for seed in range(2)]
    for seed in range(2):
        write(tmp_path, "wpt", "walker-stand", seed, flat(0.5))
        for share in (0.1, 0.2, 0.3):  # more of them than of the table's own
            write(tmp_path, "wpt", "walker-stand", seed, flat(0.9), subset={"share": share})
    variants = [one.run.id for one in Reading(tmp_path).found if one.run.identity.subset]
    for options in ({"expected": wanted, "apart": [*variants, digest(wanted[0])]}, {"apart": variants}):
        table = load(tmp_path, **options)
        assert table.runs["score"].tolist() == pytest.approx([0.5, 0.5]) and table.stale == table.missing == ()
    assert len(load(tmp_path, expected=wanted).stale) == 6


@pytest.mark.parametrize(
    ("change", "newer"),
    [
        ({"method_version": 2}, True),
        ({"suite_version": 2}, True),
        ({"budget": 4000}, False),
        ({"data": "e" * 16}, False),
        ({"settings": {"learning_rate": 1.0}}, False),
        ({"stage": "6" * 16}, False),
        ({"protocol": {"action_repeat": 1}}, False),
    ],
)
def test_runs_that_differ_are_never_mixed(tmp_path, change, newer):
    """The newer version wins even with fewer runs; of the rest, the group with more finished runs."""
    for seed in range(3):
        write(tmp_path, "wpt", "a", seed, flat(0.5))
        write(tmp_path, "dreamer", "a", seed, flat(0.1))
    write(tmp_path, "wpt", "a", 0, flat(0.9), **change)
    table = load(tmp_path)
    scores = table.runs[table.runs["method"] == "wpt"]["score"].tolist()
    assert scores == ([pytest.approx(0.9)] if newer else [pytest.approx(0.5)] * 3)
    dreamers = 0 if "suite_version" in change else 3
    assert (table.runs["method"] == "dreamer").sum() == dreamers
    assert len(table.stale) == (1 if not newer else 3 + (3 - dreamers))
    assert all(absent.why.startswith("another ") for absent in table.stale)


def test_two_pretraining_seeds_may_share_a_table(tmp_path):
    write(tmp_path, "wpt", "a", 0, flat(0.5), stage="6" * 16)
    write(tmp_path, "wpt", "a", 1, flat(0.6), stage="7" * 16)
    table = load(tmp_path)
    assert table.stale == () and set(table.runs["stage"]) == {"6" * 16, "7" * 16}


@pytest.mark.parametrize(
    "change",
    [
        {"budget": 4000},
        {"data": "e" * 16},
        {"suite_version": 2},
        {"method_version": 2},
        {"settings": {"learning_rate": 1.0}, "seed": 0},
        {"protocol": {"action_repeat": 1}},
    ],
)
def test_an_expected_grid_that_mixes_is_refused(tmp_path, change):
    write(tmp_path, "wpt", "a", 0, flat(0.5))
    other = {"method": "wpt", "task": "a", "seed": 1, **change}
    with pytest.raises(UserError, match="cannot share a table"):
        load(tmp_path, expected=[identity("wpt", "a", 0), identity(**other)])


def test_state_and_pixels_are_two_tables(tmp_path):
    write(tmp_path, "wpt", "a", 0, flat(0.5))
    write(tmp_path, "wpt", "a", 0, flat(0.9), observation="pixels")
    with pytest.raises(UserError, match="never share a table"):
        load(tmp_path)
    state, pixels = load_tables(tmp_path, suite="dmc", profile="quick")
    assert (state.observation, pixels.observation) == ("state", "pixels")
    assert state.runs["score"].tolist() == [pytest.approx(0.5)]
    assert pixels.runs["score"].tolist() == [pytest.approx(0.9)]
    assert state.stale == pixels.stale == ()


def test_other_suites_and_profiles_are_left_alone(tmp_path):
    write(tmp_path, "wpt", "a", 0, flat(0.5))
    write(tmp_path, "wpt", "a", 0, flat(0.9), suite="metaworld")
    write(tmp_path, "wpt", "a", 0, flat(0.9), profile="lite")
    table = load(tmp_path)
    assert len(table.runs) == 1 and table.stale == ()


@pytest.mark.parametrize("folder", ["missing", "empty", "other"])
def test_no_runs_is_one_sentence(tmp_path, folder):
    root = tmp_path / folder
    if folder != "missing":
        root.mkdir()
    if folder == "other":
        write(root, "wpt", "a", 0, flat(0.5), suite="metaworld")
    for call in (load, lambda root: load_tables(root, suite="dmc", profile="quick")):
        with pytest.raises(UserError, match="holds no runs of suite dmc with profile quick") as caught:
            call(root)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"\x00\xff", b'{"a": "\xff"}', b'{"schema": 99}', b'{"schema": 1}', b"null"]
)
def test_a_corrupt_run_record_is_named_and_the_rest_goes_on(tmp_path, raw):
    write(tmp_path, "wpt", "a", 0, flat(0.5))
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "run.json").write_bytes(raw)
    table = load(tmp_path)
    assert len(table.runs) == 1
    assert len(table.problems) == 1 and str(bad / "run.json") in table.problems[0]


def test_an_altered_identity_is_found_out(tmp_path):
    write(tmp_path, "wpt", "a", 0, flat(0.5))
    folder = write(tmp_path, "wpt", "a", 1, flat(0.5))
    record = json.loads((folder / "run.json").read_text())
    record["identity"]["seed"] = 9
    (folder / "run.json").write_text(json.dumps(record))
    table = load(tmp_path)
    assert table.runs["seed"].tolist() == [0] and "altered" in table.problems[0]


def test_a_torn_last_line_of_a_done_run_is_noticed(tmp_path):
    folder = write(tmp_path, "wpt", "a", 0, flat(0.5))
    write(tmp_path, "wpt", "a", 1, flat(0.5))
    path = folder / "episodes.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    table = load(tmp_path)
    assert table.runs["seed"].tolist() == [1]
    assert "rows are lost" in table.problems[0] and str(path) in table.problems[0]
    assert [absent.seed for absent in table.missing] == [0]


def test_a_torn_last_line_of_a_running_run_is_no_problem(tmp_path):
    folder = write(tmp_path, "wpt", "a", 0, flat(0.5), status="running")
    with open(folder / "episodes.jsonl", "ab") as file:
        file.write(b'{"kind": "evalu')
    table = load(tmp_path)
    assert table.problems == () and len(table.missing) == 1


@pytest.mark.parametrize("line", [b"garbage\n", b'{"kind": "evaluation"}\n', b"\xff\xfe\n"])
def test_a_corrupt_line_is_named(tmp_path, line):
    folder = write(tmp_path, "wpt", "a", 0, flat(0.5))
    path = folder / "episodes.jsonl"
    path.write_bytes(line + path.read_bytes())
    table = load(tmp_path)
    assert table.runs.empty and str(path) in table.problems[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(tmp_path, value):
    folder = write(tmp_path, "wpt", "a", 0, flat(0.5, value))
    table = load(tmp_path)
    assert table.runs.empty and str(folder / "episodes.jsonl") in table.problems[0]


def test_a_zero_scale_is_refused_naming_the_run(tmp_path):
    folder = write(tmp_path, "wpt", "a", 0, flat(0.5), scale=0.0)
    assert f"run {folder.name}" in load(tmp_path).problems[0]


@pytest.mark.parametrize(
    ("curve", "says"),
    [
        ({}, "no evaluation"),
        ({0: [0.1], 5000: [0.2]}, "not from 0 to the budget"),
        ({1000: [0.1], BUDGET: [0.2]}, "not from 0 to the budget"),
        ({0: [0.1, 0.1], BUDGET: [0.2]}, "rows are lost"),
    ],
)
def test_a_done_run_with_part_of_its_evaluations_does_not_count(tmp_path, curve, says):
    write(tmp_path, "wpt", "a", 0, curve)
    table = load(tmp_path)
    assert table.runs.empty and says in table.problems[0]


def test_a_row_written_twice_is_found(tmp_path):
    folder = write(tmp_path, "wpt", "a", 0, flat(0.5))
    path = folder / "episodes.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[-1])
    assert "twice" in load(tmp_path).problems[0]


def test_a_copied_run_folder_counts_once(tmp_path):
    folder = write(tmp_path, "wpt", "a", 0, flat(0.5))
    folder.rename(tmp_path / "copy")
    write(tmp_path, "wpt", "a", 0, flat(0.5))
    table = load(tmp_path)
    assert len(table.runs) == 1 and "same run" in table.problems[0]


def test_episodes_without_a_run_record_are_named(tmp_path):
    folder = write(tmp_path, "wpt", "a", 0, flat(0.5))
    write(tmp_path, "wpt", "a", 1, flat(0.5))
    (folder / "run.json").unlink()
    assert str(folder) in load(tmp_path).problems[0]


def test_an_offline_only_method_needs_one_evaluation_and_has_no_area(tmp_path):
    write(tmp_path, "td3-bc", "a", 0, {0: [0.4, 0.6]}, online=False)
    run = load(tmp_path).runs.iloc[0]
    assert run["score"] == pytest.approx(0.5) and np.isnan(run["auc"]) and not run["online"]


def test_loading_is_the_same_whatever_the_order_on_disk(tmp_path):
    grid(tmp_path / "one", {"wpt": 0.6, "dreamer": 0.3})
    grid(tmp_path / "two", {"dreamer": 0.3, "wpt": 0.6})
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert one.runs.equals(two.runs) and one.curves.equals(two.curves) and one.cells == two.cells


def test_analysis_and_reports_import_no_torch():
    code = (
        "import sys; import wpt_bench.analysis.compare, wpt_bench.analysis.scores, wpt_bench.analysis.aggregate;"
        "import wpt_bench.reports.page, wpt_bench.reports.console, wpt_bench.reports.figures;"
        "assert 'torch' not in sys.modules and 'wpt_bench.running' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
