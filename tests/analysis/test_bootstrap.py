# ruff: noqa: NPY002 (rliable listens to the global generator only)
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rliable import library, metrics

from wpt_bench.analysis.aggregate import (
    METRICS,
    aggregate,
    curve_band,
    difference,
    performance_profile,
    probability_of_improvement,
)
from wpt_bench.analysis.bootstrap import counts, interval, iqm, iqm_draws, margin, mean_draws, stretched, whole

RLIABLE = {
    "iqm": metrics.aggregate_iqm,
    "median": metrics.aggregate_median,
    "mean": metrics.aggregate_mean,
    "optimality_gap": metrics.aggregate_optimality_gap,
}
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 7))


def rliables_draws(scores, resamples, seed):
    """The resamples that rliable would make of ``scores``: its own indices, as scores and as counts."""
    np.random.seed(seed)
    bootstrap = library.StratifiedBootstrap(scores)
    drawn, tables = [], []
    for _ in range(resamples):
        runs, tasks = bootstrap.update_indices()
        drawn.append(scores[runs, tasks])
        tables.append([(runs == run).sum(axis=0) for run in range(len(scores))])
    return np.array(drawn), np.array(tables, dtype=np.uint8)


def test_on_rliables_own_resamples_every_statistic_is_rliables():
    scores = np.random.default_rng(0).normal(0.6, 0.4, (5, 7))
    drawn, tables = rliables_draws(scores, 300, seed=1)
    for name, metric in METRICS.items():
        assert metric.value(scores) == pytest.approx(RLIABLE[name](scores), abs=1e-12)
        expected = [RLIABLE[name](resample) for resample in drawn]
        assert metric.draws(scores, tables) == pytest.approx(expected, abs=1e-12)


def test_on_rliables_own_resamples_the_interval_is_rliables():
    scores = np.random.default_rng(3).random((4, 6))
    np.random.seed(7)
    _, theirs = library.get_interval_estimates(
        {"m": scores}, lambda matrix: np.array([metrics.aggregate_iqm(matrix)]), reps=400
    )
    _, tables = rliables_draws(scores, 400, seed=7)
    assert interval(iqm_draws(scores, tables)) == pytest.approx(theirs["m"][:, 0], abs=1e-12)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_with_resamples_of_its_own_the_interval_is_rliables_up_to_chance(name):
    scores = np.random.default_rng(5).random((5, 8))
    drawn, _ = rliables_draws(scores, 4000, seed=2)
    theirs = np.array([RLIABLE[name](resample) for resample in drawn])
    ours = aggregate(scores, [name], resamples=50_000)[name]
    # The standard error of a 2.5% quantile of 4,000 draws is about 0.043 of their deviation.
    assert [ours.low, ours.high] == pytest.approx(interval(theirs), abs=5 * 0.043 * theirs.std())


@given(arrays(np.float64, SHAPES, elements=st.sampled_from([0.0, 0.1, 0.25, 0.3, 1.0, 1.7])), st.integers(0, 99))
@settings(deadline=None)
def test_the_iqm_of_counted_runs_is_that_of_runs_written_out(scores, seed):
    tables = counts(*scores.shape, 5, seed)
    for table, found in zip(tables, iqm_draws(scores, tables), strict=True):
        written_out = np.stack([np.repeat(scores[:, task], table[:, task]) for task in range(scores.shape[1])], axis=1)
        assert found == pytest.approx(metrics.aggregate_iqm(written_out), abs=1e-12)


def test_points_of_a_curve_are_drawn_together():
    curves = np.random.default_rng(0).random((3, 4, 5))
    tables = counts(3, 4, 50, 0)
    for point in range(5):
        assert iqm_draws(curves, tables)[:, point] == pytest.approx(iqm_draws(curves[..., point], tables))
        assert mean_draws(curves, tables)[:, point] == pytest.approx(mean_draws(curves[..., point], tables))


@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 3))
def test_every_task_of_a_resample_holds_as_many_runs_as_there_are_seeds(seeds, tasks, stream):
    tables = counts(seeds, tasks, 30, 0, stream)
    assert (tables.sum(axis=1) == seeds).all() and tables.shape == (30, seeds, tasks)


def test_runs_are_drawn_with_equal_chance_independently_of_each_other():
    tables = counts(3, 2, 60_000, 0)
    expected = {0: 8 / 27, 1: 12 / 27, 2: 6 / 27, 3: 1 / 27}  # binomial of three draws with a chance of a third
    for run, task in itertools.product(range(3), range(2)):
        for times, chance in expected.items():
            assert (tables[:, run, task] == times).mean() == pytest.approx(chance, abs=0.01)
    assert np.corrcoef(tables[:, 0, 0], tables[:, 0, 1])[0, 1] == pytest.approx(0, abs=0.02)
    other = counts(3, 2, 60_000, 0, 1)
    assert np.corrcoef(tables[:, 0, 0], other[:, 0, 0])[0, 1] == pytest.approx(0, abs=0.02)


def test_counts_repeat_and_cannot_be_written_over():
    assert (counts(3, 4, 10, 0) == counts.__wrapped__(3, 4, 10, 0)).all()
    with pytest.raises(ValueError, match="read-only"):
        counts(3, 4, 10, 0)[0] = 0


@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 3))
def test_whole_seeds_come_with_all_their_tasks(seeds, tasks, stream):
    tables = whole(np.zeros((seeds, tasks)), 30, 0, stream)
    assert tables.shape == (30, seeds, tasks)
    assert (tables == counts(seeds, 1, 30, 0, stream)).all()


def test_the_correction_by_hand():
    # Three seeds: sqrt(3 / 2) times the quantile of t with 2 degrees, 4.3027; draws with a deviation of .1.
    draws = np.array([0.4, 0.6] * 50)
    assert margin(draws, 3) == pytest.approx(0.1 * 1.22474 * 4.30265, rel=1e-4)
    assert margin(draws, 2) == pytest.approx(0.1 * 1.41421 * 12.7062, rel=1e-4)
    assert margin(draws, 250) == pytest.approx(0.1 * 1.97, rel=5e-3)
    wide = stretched(1.0, np.array([0.5, 1.0, 2.0]), 3)
    assert wide == pytest.approx(1 + 1.22474 * 4.30265 / 1.95996 * np.array([-0.5, 0, 1]), rel=1e-4)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "world",
    [
        pytest.param(lambda rng, seeds: rng.normal(0, 1, (seeds, 4)), id="tasks vary by themselves"),
        pytest.param(lambda rng, seeds: np.repeat(rng.normal(0, 1, (seeds, 1)), 4, 1), id="with the seed"),
        pytest.param(lambda rng, seeds: rng.normal(0, 1, (seeds, 4)) * [0, 0, 0, 1], id="one varies"),
    ],
)
def test_a_corrected_interval_covers_however_the_tasks_of_a_seed_hang_together(world, seeds):
    """Drawing seeds within tasks, with degrees of freedom of all of them, covers 63 to 87% in the last two."""
    rng = np.random.default_rng(0)
    found = [aggregate(world(rng, seeds), ["mean"], resamples=400, seed=trial)["mean"] for trial in range(400)]
    covered = np.mean([one.corrected_low <= 0 <= one.corrected_high for one in found])
    assert covered == pytest.approx(0.95, abs=0.035)  # three standard errors


def test_a_corrected_interval_of_normal_means_is_students():
    """One task: the bootstrap's deviation, corrected, is the standard error, so that the interval is the t interval."""
    scores = np.array([[0.2], [0.5], [0.3], [0.9]])
    found = aggregate(scores, ["mean"], resamples=50_000)["mean"]
    half = 3.18245 * scores.std(ddof=1) / 2
    assert [found.corrected_low, found.corrected_high] == pytest.approx([0.475 - half, 0.475 + half], rel=0.02)


def test_a_corrected_interval_is_wider_than_rliables_and_symmetric():
    found = aggregate(np.random.default_rng(0).random((3, 4)), resamples=2000)
    for one in found.values():
        assert one.corrected_high - one.corrected_low > one.high - one.low > 0
        assert one.corrected_low + one.corrected_high == pytest.approx(2 * one.value)
    assert str(found["mean"]) != found["mean"].corrected


def test_a_profile_is_the_share_of_runs_above_each_score():
    found = performance_profile(np.array([[0.1, 0.5], [0.3, 0.9]]), np.array([0.0, 0.3, 0.6, 0.95]), resamples=500)
    assert found.value.tolist() == [1.0, 0.5, 0.25, 0.0]
    assert (found.low >= 0).all() and (found.high <= 1).all()
    assert found.low[0] == found.high[0] == 1 and found.low[3] == found.high[3] == 0


def test_profiles_are_rliables():
    scores, levels = np.random.default_rng(0).random((5, 4)), np.linspace(0, 1, 11)
    theirs, _ = library.create_performance_profile({"m": scores}, levels, reps=2)
    assert performance_profile(scores, levels, resamples=10).value == pytest.approx(theirs["m"])


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_the_probability_of_improvement_is_rliables_also_with_ties(data):
    values = st.sampled_from([0.0, 0.2, 0.4, 1.0])
    tasks = data.draw(st.integers(1, 4))
    one, other = (
        data.draw(arrays(np.float64, (data.draw(st.integers(1, 5)), tasks), elements=values)) for _ in range(2)
    )
    found = probability_of_improvement(one, other, resamples=20)
    assert found.value == pytest.approx(metrics.probability_of_improvement(one, other), abs=1e-12)
    assert probability_of_improvement(other, one, resamples=20).value == pytest.approx(1 - found.value)


def test_the_interval_of_improvement_is_rliables_up_to_chance():
    rng = np.random.default_rng(1)
    one, other = rng.normal(0.6, 0.3, (5, 6)), rng.normal(0.4, 0.3, (4, 6))
    np.random.seed(0)
    _, theirs = library.get_interval_estimates(
        {"m": (one, other)}, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=1500
    )
    ours = probability_of_improvement(one, other, resamples=20_000)
    assert [ours.low, ours.high] == pytest.approx(theirs["m"][:, 0], abs=0.04)


def test_improvement_by_hand():
    # Task 1: 2 beats 1 but not 3, 4 beats both: 3 of 4 pairs. Task 2: a tie and a loss: half of 2.
    found = probability_of_improvement(
        np.array([[2.0, 0.0], [4.0, 0.0]]), np.array([[1.0, 0.0], [3.0, 1.0]]), resamples=50
    )
    assert found.value == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert 0 <= found.corrected_low < found.value < found.corrected_high <= 1


def test_an_unpaired_difference_draws_both_sides_independently():
    scores = np.random.default_rng(2).random((4, 5))
    same = difference(scores, scores, "mean", resamples=20_000)
    assert same.value == 0 and same.low < 0 < same.high  # paired draws cancel
    # Variances of independent means add up.
    alone = aggregate(scores, ["mean"], resamples=20_000)["mean"]
    width, of_one = (its.corrected_high - its.corrected_low for its in (same, alone))
    assert width == pytest.approx(np.sqrt(2) * of_one, rel=0.05)
    shifted = difference(scores + 1.7, scores, resamples=500)
    assert shifted.value == pytest.approx(1.7) and shifted.excludes_zero


def test_a_paired_difference_is_the_interval_of_the_differences():
    """What seeds have in common cancels; of a mean, the interval is Student's of the differences by seed."""
    rng = np.random.default_rng(3)
    common, others = rng.normal(0, 1, (5, 1)), rng.normal(0, 0.1, (5, 3))
    scores = others + rng.normal(0.3, 0.1, (5, 3))
    found = difference(scores + common, others + common, "mean", paired=True, resamples=50_000)
    gains = (scores - others).mean(axis=1)
    half = 2.77645 * gains.std(ddof=1) / np.sqrt(5)
    assert found.value == pytest.approx(gains.mean())
    assert [found.corrected_low, found.corrected_high] == pytest.approx(
        [found.value - half, found.value + half], rel=0.02
    )
    assert found.excludes_zero and not difference(scores + common, others + common, "mean").excludes_zero


def test_only_equally_many_seeds_can_be_paired():
    with pytest.raises(ValueError, match="same seeds"):
        difference(np.zeros((3, 2)), np.zeros((2, 2)), paired=True)


def test_what_has_no_spread_separates_nothing():
    """An interval of no width is none: two equal methods that both reach the end of the scale are no rare thing."""
    found = difference(np.full((2, 1), 0.2), np.zeros((2, 1)), paired=True)
    assert found.value == pytest.approx(0.2) and found.flat and not found.excludes_zero


def test_a_bands_ends_are_those_of_its_points():
    curves = np.random.default_rng(0).random((4, 3, 2))
    band = curve_band(np.arange(2), curves, resamples=1000)
    for point in range(2):
        alone = aggregate(curves[..., point], ["iqm"], resamples=1000)["iqm"]
        assert (band.low[point], band.high[point]) == pytest.approx((alone.corrected_low, alone.corrected_high))
        assert band.value[point] == pytest.approx(iqm(curves[..., point]))


@pytest.mark.parametrize("function", [difference, probability_of_improvement])
def test_one_seed_on_either_side_gives_no_interval(function):
    two, one = np.array([[0.1], [0.4]]), np.array([[0.2]])
    for pair in ((two, one), (one, two)):
        found = function(*pair)
        assert found.low is None and not found.excludes_zero and "one seed" in found.corrected


def test_two_seeds_say_next_to_nothing_however_many_there_are_to_compare_with():
    """Student's t of one degree of freedom is 12.7; of nine, 2.3, and the interval would end within the scale."""
    two, ten = np.array([[0.4], [0.6]]), np.linspace(0, 1, 10)[:, None]
    for pair in ((two, ten), (ten, two)):
        found = probability_of_improvement(*pair)
        assert (found.value, found.corrected_low, found.corrected_high) == pytest.approx((0.5, 0, 1))


@pytest.mark.parametrize("function", [difference, probability_of_improvement])
def test_what_is_no_number_is_refused_on_either_side(function):
    good, bad = np.zeros((2, 1)), np.array([[0.0], [np.nan]])
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match="finite"):
            function(*pair)
