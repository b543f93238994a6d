# ruff: noqa: NPY002 (rliable listens to the global generator only)
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rliable import metrics

from wpt_bench.analysis.aggregate import METRICS, Estimate, aggregate, curve_band
from wpt_bench.analysis.bootstrap import iqm

SCORES = np.array([[0.1, 0.9], [0.2, 0.5], [0.3, 0.7], [0.4, 1.5]])


def test_point_estimates_against_hand_worked_values():
    found = aggregate(SCORES, resamples=10)
    # Sorted: .1 .2 .3 .4 .5 .7 .9 1.5; the middle half is .3 .4 .5 .7. Task means are .25 and .9.
    assert found["iqm"].value == pytest.approx((0.3 + 0.4 + 0.5 + 0.7) / 4)
    assert found["mean"].value == pytest.approx((0.25 + 0.9) / 2)
    assert found["median"].value == pytest.approx((0.25 + 0.9) / 2)
    # Shortfalls from 1, with 1.5 counting as 1.
    assert found["optimality_gap"].value == pytest.approx((0.9 + 0.1 + 0.8 + 0.5 + 0.7 + 0.3 + 0.6 + 0.0) / 8)


def test_median_is_over_tasks_of_their_means():
    scores = np.array([[0.0, 0.2, 0.9], [0.2, 0.4, 0.7]])
    assert aggregate(scores, ["median"], resamples=10)["median"].value == pytest.approx(0.3)


def test_two_seeds_two_tasks_iqm_is_the_mean_of_the_middle_two():
    found = aggregate(np.array([[0.1, 0.8], [0.3, 0.4]]), ["iqm"], resamples=10)
    assert found["iqm"].value == pytest.approx(0.35)


@given(arrays(np.float64, st.tuples(st.integers(1, 7), st.integers(1, 9)), elements=st.floats(-2, 2)))
def test_iqm_is_rliables_for_every_shape(scores):
    assert iqm(scores) == pytest.approx(metrics.aggregate_iqm(scores), abs=1e-12)


def test_interval_has_the_exact_percentiles_of_a_case_that_can_be_enumerated():
    """Two seeds, one task: resampled means are 0, 0.5 and 1 with chances 1/4, 1/2, 1/4, so the interval is [0, 1]."""
    found = aggregate(np.array([[0.0], [1.0]]), ["mean"], resamples=2000)["mean"]
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_same_input_same_interval_and_the_global_generator_is_left_alone():
    np.random.seed(123)
    before = np.random.get_state()[1].copy()
    first = aggregate(SCORES, resamples=200)
    assert (np.random.get_state()[1] == before).all()
    np.random.random(17)
    assert aggregate(SCORES, resamples=200) == first
    assert aggregate(SCORES, resamples=200, seed=1) != first


def test_curve_is_rliable_at_every_point_and_repeats():
    curves = np.random.default_rng(0).random((3, 2, 4))
    expected = [metrics.aggregate_iqm(curves[:, :, point]) for point in range(4)]
    assert iqm(curves) == pytest.approx(expected)
    steps = np.arange(4)
    one, two = (curve_band(steps, curves, resamples=100) for _ in range(2))
    assert one.value == pytest.approx(expected)
    assert (one.low == two.low).all() and (one.high == two.high).all()
    assert (one.low <= one.value).all() and (one.value <= one.high).all()


def test_one_seed_has_no_interval():
    found = aggregate(np.array([[0.2, 0.4]]))
    assert found["mean"] == Estimate(pytest.approx(0.3), None, None)
    assert "one seed: no interval" in str(found["mean"])
    band = curve_band(np.arange(2), np.array([[[0.1, 0.2]]]))
    assert band.low is None and band.high is None


@pytest.mark.parametrize("bad", [np.array([[0.1, np.nan]]), np.array([[np.inf], [0.0]]), np.empty((0, 2))])
def test_what_is_no_finite_score_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        aggregate(bad)


@given(
    st.lists(st.lists(st.floats(-0.2, 1.2), min_size=3, max_size=3), min_size=2, max_size=5),
    st.sampled_from(sorted(METRICS)),
)
@settings(max_examples=25, deadline=None)
def test_interval_lies_within_the_range_of_what_can_be_drawn(rows, name):
    scores = np.array(rows)
    found = aggregate(scores, [name], resamples=50)[name]
    bounds = (1 - scores).clip(0), scores
    least, most = min(bound.min() for bound in bounds), max(bound.max() for bound in bounds)
    assert least - 1e-9 <= found.low <= found.high <= most + 1e-9


def test_equal_seeds_give_a_width_of_zero():
    found = aggregate(np.full((4, 3), 0.25), ["iqm"], resamples=100)["iqm"]
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("estimate", "verdict"),
    [
        (Estimate(0.3), "one seed"),
        (Estimate(0.3, 0.2, 0.4, 0.1, 0.5), "separated"),
        (Estimate(0.3, 0.2, 0.4, -0.1, 0.7), "not separated"),
        (Estimate(0.3, 0.2, 0.4, 0.3, 0.3), "no spread: not decided"),
        (Estimate(0.0, 0.0, 0.0, 0.0, 0.0), "not separated"),
    ],
)
def test_a_verdict_is_that_of_the_corrected_interval(estimate, verdict):
    assert estimate.verdict == verdict and estimate.excludes_zero == (verdict == "separated")


def test_where_seeds_balance_rliables_interval_is_shown_and_the_corrected_one_is_not():
    found = aggregate(np.array([[0.0, 1.0], [1.0, 0.0]]), ["mean"], resamples=500)["mean"]
    assert str(found) == "0.500 [0.000, 1.000]" and found.corrected == "(no spread)"


def test_what_rounds_to_zero_is_written_without_a_sign():
    assert str(Estimate(-1e-17, -1e-9, 0.25, -0.0004, 0.0005)) == "0.000 [0.000, 0.250]"
    assert Estimate(-0.0006, -0.1, 0.1, -0.0006, 0.2).corrected == "[-0.001, 0.200]"
