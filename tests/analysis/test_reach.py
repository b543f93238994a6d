import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wpt_bench.analysis.bootstrap import iqm
from wpt_bench.analysis.reach import reach, reach_final, steps_to_reach

STEPS = np.array([0, 100, 200, 300])


@pytest.mark.parametrize(
    ("curve", "level", "expected"),
    [
        ([0.0, 0.2, 0.6, 0.5], 0.4, 150.0),  # half way from .2 to .6
        ([0.0, 0.2, 0.6, 0.5], 0.2, 100.0),
        ([0.5, 0.0, 0.0, 0.6], 0.5, 0.0),  # there at once; what comes after does not count
        ([0.0, 0.8, 0.1, 0.9], 0.85, 293.75),  # the first peak is below
        ([0.0, 0.1, 0.2, 0.3], 0.31, math.inf),
        ([0.3, 0.3, 0.3, 0.3], 0.3, 0.0),
    ],
)
def test_steps_by_hand(curve, level, expected):
    assert steps_to_reach(STEPS, np.array(curve), level) == pytest.approx(expected)


@given(arrays(np.float64, (3, 4), elements=st.floats(0, 1)), arrays(np.float64, 3, elements=st.floats(0, 1)))
def test_many_curves_and_levels_are_one_by_one(curves, levels):
    found = steps_to_reach(STEPS, curves, levels)
    for curve, level, steps in zip(curves, levels, found, strict=True):
        if not (curve >= level).any():
            assert steps == math.inf
            continue
        if steps == 0:
            assert curve[0] >= level
            continue
        assert np.interp(steps, STEPS, curve) == pytest.approx(level, abs=1e-9)
        before = np.linspace(0, steps, 50, endpoint=False)
        assert (np.interp(before, STEPS, curve) < level + 1e-9).all()


def curves(*tops):
    """One task, a seed for each top: straight from 0."""
    return np.array([[np.linspace(0, top, 4)] for top in tops])


def test_a_fixed_level_is_reached_by_the_iqm():
    found = reach(STEPS, curves(0.6, 0.6, 0.6), 0.3, resamples=200)
    assert found.env_steps == pytest.approx(150) and found.low == found.high == pytest.approx(150)
    assert found.reached == 1.0


def test_the_end_of_the_budget_is_an_open_end():
    found = reach(STEPS, curves(0.2, 0.4, 0.9), 0.45, resamples=2000)
    assert found.env_steps == pytest.approx(300 * 0.45 / iqm(np.array([[0.2], [0.4], [0.9]])))
    assert found.high is None and found.low < found.env_steps and 0.2 < found.reached < 1.0


def test_what_is_never_reached_says_so():
    found = reach(STEPS, curves(0.2, 0.21), 0.9, resamples=100)
    assert (found.env_steps, found.low, found.high, found.reached) == (None, None, None, 0.0)


def test_the_uncertainty_of_the_other_method_is_part_of_the_interval():
    sure = reach(STEPS, curves(0.6, 0.62, 0.64), 0.31, resamples=500)
    unsure = reach_final(STEPS, curves(0.6, 0.62, 0.64), STEPS, curves(0.21, 0.31, 0.41), resamples=500)
    assert unsure.level == pytest.approx(0.31) and unsure.env_steps == pytest.approx(sure.env_steps)
    assert unsure.low < sure.low and (unsure.high is None or unsure.high > sure.high)


def test_one_seed_has_no_interval():
    saving = reach_final(STEPS, curves(0.6), STEPS, curves(0.3, 0.3))
    for found in (reach(STEPS, curves(0.6), 0.3), saving):
        assert found.env_steps == pytest.approx(150) and found.low is found.high is found.reached is None
    assert saving.saved == pytest.approx(0.5) and saving.saved_low is saving.saved_high is None


UP_AND_DOWN = np.array([[[0.0, 0.2, 0.05, 0.1]]] * 2)
"""Ends at .1, which it passes half way to the first evaluation: after 50 steps."""


def test_what_is_saved_is_a_share_of_the_steps_that_the_other_itself_took():
    early, late = (reach_final(STEPS, curves(top, top), STEPS, UP_AND_DOWN, resamples=50) for top in (1.2, 0.3))
    assert (early.env_steps, early.other, early.saved) == pytest.approx((25, 50, 0.5))
    assert (late.env_steps, late.other, late.saved) == pytest.approx((100, 50, -1.0))
    assert (early.saved_low, early.saved_high) == pytest.approx((0.5, 0.5))


def test_nothing_is_saved_against_oneself_however_the_curve_goes():
    found = reach_final(STEPS, UP_AND_DOWN, STEPS, UP_AND_DOWN, resamples=50)
    assert (found.saved, found.saved_low, found.saved_high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("other", [[0.0, 0.0, 0.0, 0.0], [0.2, 0.5, 0.4, 0.1]], ids=["never leaves 0", "falls"])
def test_against_what_ends_no_higher_than_it_began_nothing_can_be_saved(other):
    found = reach_final(STEPS, curves(0.6, 0.7), STEPS, np.array([[other]] * 2), resamples=50)
    assert (found.other, found.saved, found.saved_low, found.saved_high) == (0.0, None, None, None)


def test_what_is_not_reached_saves_nothing_that_could_be_said():
    found = reach_final(STEPS, curves(0.2, 0.21), STEPS, curves(0.9, 0.9), resamples=50)
    assert (found.env_steps, found.other, found.saved) == (None, 300, None)


def test_the_interval_of_what_is_saved_has_no_end_where_the_other_may_be_there_from_the_start():
    sure = reach_final(STEPS, curves(0.6, 0.62, 0.64), STEPS, curves(0.3, 0.3, 0.3), resamples=500)
    assert sure.saved_low < sure.saved < sure.saved_high < 1
    others = np.array([[[0.3, 0.2, 0.2, 0.1]], [[0.1, 0.2, 0.2, 0.5]]])  # a resample of the first alone falls
    open_ended = reach_final(STEPS, curves(0.6, 0.62), STEPS, others, resamples=500)
    assert open_ended.saved is not None and open_ended.saved_low is None and open_ended.saved_high > 0
