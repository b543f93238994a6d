"""Forward transfer and forgetting, worked out by hand."""

import numpy as np
import pytest

from analysis.planned import arm, plan, sequence, summary
from wpt_bench.analysis.aggregate import aggregate
from wpt_bench.analysis.transfer import forward_transfer

TASKS = ["walker-stand", "walker-walk", "walker-run"]


def test_it_is_the_share_of_what_the_reference_left_to_be_gained():
    areas, reference = np.array([[0.6, 0.5], [0.8, 0.5]]), np.array([[0.4, 0.0], [0.6, 0.2]])
    # Means by task: 0.7 against 0.5 and 0.5 against 0.1, so that 0.2 of 0.5 and 0.4 of 0.9 were gained.
    assert forward_transfer(areas, reference).value == pytest.approx((0.4 + 4 / 9) / 2)
    assert forward_transfer(reference, areas).value == pytest.approx((-0.2 / 0.3 + -0.4 / 0.5) / 2)
    assert forward_transfer(np.ones((2, 2)), reference).value == 1.0
    assert forward_transfer(areas, areas).value == 0.0


def test_where_the_reference_leaves_nothing_there_is_no_figure():
    assert forward_transfer(np.full((2, 1), 0.5), np.array([[0.2], [1.0]])) is None


def test_one_seed_has_no_interval():
    found = forward_transfer(np.array([[0.5]]), np.array([[0.0], [0.2]]))
    assert found.value == pytest.approx(0.4 / 0.9) and found.low is found.corrected_low is None


def test_against_a_reference_without_spread_it_is_the_scaled_mean_with_its_intervals():
    areas = np.random.default_rng(0).random((4, 3))
    found, mean = forward_transfer(areas, np.full((4, 3), 0.2)), aggregate(areas, ["mean"])["mean"]
    for name in ("value", "corrected_low", "corrected_high"):
        assert getattr(found, name) == pytest.approx((getattr(mean, name) - 0.2) / 0.8)


def test_paired_by_seed_what_both_have_in_common_cancels():
    common = np.random.default_rng(0).normal(0, 0.1, (5, 1))
    areas, reference = 0.43 + common + np.array([[0.01, -0.01, 0.02, 0.0, 0.01]]).T, 0.4 + common
    paired, independent = (forward_transfer(areas, reference, paired=its) for its in (True, False))
    assert paired.value == independent.value and paired.excludes_zero and not independent.excludes_zero


def carried_of(root, kept, scores=((0.5, 0.7), (0.6, 0.6), (0.4, 0.2))):
    its = sequence(root, TASKS, scores, kept)
    fresh = arm(root, "start", "fresh", {task: [0.2, 0.4] for task in TASKS})
    scratch = arm(root, "start", "scratch", {task: [0.0, 0.2] for task in TASKS}, method="dreamer", reference=True)
    (factor,) = summary(root, plan(its, fresh, scratch, name="adaptation")).factors
    (carried,) = factor.carried
    return carried, factor


def test_transfer_is_against_every_other_arm_and_its_mean_leaves_out_the_first_task(tmp_path):
    carried, factor = carried_of(tmp_path, None)
    assert carried.order == tuple(TASKS) and [one.against for one in carried.transfer] == ["fresh", "scratch"]
    fresh, scratch = carried.transfer
    assert [fresh.tasks[task].value for task in TASKS] == pytest.approx([3 / 7, 3 / 7, 0.0])
    assert fresh.mean.value == pytest.approx(3 / 14)
    assert [scratch.tasks[task].value for task in TASKS] == pytest.approx([5 / 9, 5 / 9, 2 / 9])
    assert scratch.mean.value == pytest.approx(7 / 18)
    assert factor.arms[0].overall.auc_against.value == pytest.approx(0.525 - 0.1)  # of six runs the middle four


def test_forgetting_is_the_score_of_a_tasks_own_run_minus_that_at_the_end_of_the_last(tmp_path):
    carried, _ = carried_of(tmp_path, {TASKS[0]: [0.3, 0.6], TASKS[1]: [0.7, 0.5]})
    assert {task: its.value for task, its in carried.forgetting.items()} == pytest.approx(
        {TASKS[0]: (0.2 + 0.1) / 2, TASKS[1]: 0.0}
    )
    assert carried.forgotten.value == pytest.approx(0.075)
    assert "forgetting +0.075 [" in carried.sentence


@pytest.mark.parametrize("kept", [None, {TASKS[0]: [0.3, 0.6]}, {TASKS[0]: [0.3, float("nan")], TASKS[1]: [0.1, 0.1]}])
def test_what_no_row_says_is_not_measured(tmp_path, kept):
    carried, _ = carried_of(tmp_path, kept)
    assert carried.forgotten is None and None in carried.forgetting.values()
    assert carried.sentence.endswith("forgetting not measured.")
