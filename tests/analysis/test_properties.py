import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from analysis.planned import arm, plan
from analysis.synthetic import BUDGET, flat, grid, write
from wpt_bench import registry
from wpt_bench.analysis.aggregate import aggregate
from wpt_bench.analysis.arms import arm_tables
from wpt_bench.analysis.properties import (
    CROSS_EMBODIMENT,
    FAMILIES,
    IMPROVEMENT,
    NON_EXPERT,
    REWARD_FREE,
    STABILITY,
    Declaration,
    _spreads,
    declared,
    measured,
    reasons,
)
from wpt_bench.analysis.scores import Reading, load_runs, score_matrix

PLANNED = (
    *(Declaration(name, "Offline RL", "labelled", False) for name in ("iql", "td3-bc", "cql")),
    *(Declaration(name, "Off2On RL", "labelled", True) for name in ("cal-ql", "iql-finetune", "awac")),
    Declaration("rlpd", "RLPD", "labelled", True),
    Declaration("mt-bc", "MT IL", "demonstrations", False),
    *(Declaration(name, "MT offline RL", "labelled-multitask", False) for name in ("mt-iql", "mt-td3-bc")),
    Declaration("wpt", "WPT", "reward-free", True),
    *(Declaration(name, "Reward-free comparators", "reward-free", True) for name in ("uds", "explore", "jsrl-bc")),
    *(Declaration(name, "From scratch", "none", True) for name in ("dreamer", "sac")),
)
POSTER = {
    REWARD_FREE: "no no no yes no yes",
    NON_EXPERT: "yes yes yes no yes yes",
    CROSS_EMBODIMENT: "no no no yes yes yes",
    IMPROVEMENT: "no yes yes no no yes",
}


def table(root):
    return load_runs(root, suite="dmc", profile="quick")


def measure(root):
    return measured(table(root), resamples=2000)


def declared_verdicts(found, name):
    return [cell.verdict for cell in found.rows[name]]


def test_the_families_grants_give_the_posters_ticks_and_crosses():
    found = declared(PLANNED)
    assert found.families == FAMILIES
    for name, row in POSTER.items():
        assert declared_verdicts(found, name)[:6] == row.split()


def test_scratch_sees_no_data_and_code_declares_no_stability():
    found = declared(PLANNED)
    for name in (REWARD_FREE, NON_EXPERT, CROSS_EMBODIMENT):
        assert found.cell(name, "From scratch").verdict == "not applicable"
    assert found.cell(IMPROVEMENT, "From scratch").verdict == "yes"
    assert set(declared_verdicts(found, STABILITY)) == {"not applicable"}


def test_a_family_whose_methods_differ_has_it_for_some():
    found = declared([*PLANNED, Declaration("dt", "Offline RL", "demonstrations", False)])
    assert found.cell(REWARD_FREE, "Offline RL").verdict == "some"
    assert found.cell(REWARD_FREE, "Offline RL").methods == ("dt",)
    assert found.cell(NON_EXPERT, "Offline RL").verdict == "some"
    assert found.cell(IMPROVEMENT, "Offline RL").verdict == "no"


def test_families_of_other_packages_are_columns_behind_the_posters():
    found = declared([Declaration("x", "Zebra", "none", True), Declaration("y", "", "none", True)])
    assert found.families == (*FAMILIES, "Zebra")
    assert found.cell(REWARD_FREE, "WPT").why == "no method of it is installed"


def test_what_is_installed_declares_wpt_as_the_poster_has_it():
    found = declared(
        Declaration(method.name, method.family, str(method.data_access), method.online)
        for method in registry.methods().values()
    )
    assert [found.cell(name, "WPT").verdict for name in POSTER] == ["yes"] * 4
    assert [found.cell(name, "From scratch").verdict for name in POSTER] == ["not applicable"] * 3 + ["yes"]


def two_seeds(root, method, task, first, second, **options):
    """Two runs with curves given as start and end."""
    for seed, (start, end) in enumerate([first, second]):
        write(root, method, task, seed, flat(start, end), **options)


def test_reward_free_effect_is_the_score_above_that_of_scratch(tmp_path):
    """Two seeds: resampled means are the lower, the middle and the higher one, so the interval spans both seeds."""
    two_seeds(tmp_path, "dreamer", "a", (0.1, 0.4), (0.1, 0.4))
    two_seeds(tmp_path, "wpt", "a", (0.7, 0.84), (0.7, 0.85))
    cell = measure(tmp_path).cell(REWARD_FREE, "WPT")
    assert (cell.effect.value, cell.effect.low, cell.effect.high) == pytest.approx((0.445, 0.44, 0.45))
    assert cell.verdict == "yes" and cell.methods == ("wpt",)


def test_scratch_is_drawn_too_and_what_scratch_learns_as_well_is_no_tick(tmp_path):
    two_seeds(tmp_path, "dreamer", "a", (0.0, 0.8), (0.0, 0.9))
    two_seeds(tmp_path, "sac", "a", (0.0, 0.1), (0.0, 0.1))  # scratch is dreamer
    two_seeds(tmp_path, "wpt", "a", (0.0, 0.9), (0.0, 0.9))
    cell = measure(tmp_path).cell(REWARD_FREE, "WPT")
    assert (cell.effect.value, cell.effect.low, cell.effect.high) == pytest.approx((0.05, 0.0, 0.1))
    assert cell.verdict == "no"


def test_wpt_with_parts_switched_off_is_in_no_pool(tmp_path):
    grid(tmp_path, {"dreamer": 0.2, "wpt-no-guidance": 0.0, "wpt-pretrain-only": 0.0})
    names, found = (REWARD_FREE, IMPROVEMENT, STABILITY), measure(tmp_path)
    assert all(found.cell(name, "WPT").verdict == "not measured" for name in names)
    grid(tmp_path, {"wpt": 0.9})
    found = measure(tmp_path)
    assert all(found.cell(name, "WPT").methods == ("wpt",) for name in names)


def test_at_the_floor_there_is_nothing_to_be_steadier_than_and_no_improvement_to_measure(tmp_path):
    two_seeds(tmp_path, "dreamer", "a", (0.0, 0.0), (0.0, 0.0))
    two_seeds(tmp_path, "wpt", "a", (0.0, 0.7), (0.0, 0.9))
    found = measure(tmp_path)
    stability, improvement = found.cell(STABILITY, "WPT"), found.cell(IMPROVEMENT, "From scratch")
    assert (stability.verdict, stability.effect) == ("not measured", None)
    assert stability.figures["spread"] == pytest.approx(0.2 / np.sqrt(2)) and "dreamer score the same" in stability.why
    assert improvement.verdict == "not measured" and "ends with the score that it began with" in improvement.why
    assert found.cell(IMPROVEMENT, "WPT").effect.value == pytest.approx(0.8)


def test_who_was_granted_rewards_says_nothing_of_data_without(tmp_path):
    two_seeds(tmp_path, "dreamer", "a", (0.1, 0.3), (0.1, 0.5))
    two_seeds(tmp_path, "awac", "a", (0.4, 0.8), (0.5, 0.8))
    found = measure(tmp_path)
    assert found.cell(REWARD_FREE, "Off2On RL").verdict == "not measured"
    assert "granted rewards" in found.cell(REWARD_FREE, "Off2On RL").why
    assert found.cell(REWARD_FREE, "From scratch").verdict == "not applicable"


def test_demonstrations_count_as_data_without_rewards(tmp_path):
    two_seeds(tmp_path, "dreamer", "a", (0.0, 0.1), (0.0, 0.1))
    for seed in range(2):
        write(tmp_path, "mt-bc", "a", seed, {0: [0.49 + 0.02 * seed]}, online=False)
    found = measure(tmp_path)
    assert found.cell(REWARD_FREE, "MT IL").effect.value == pytest.approx(0.4)
    assert found.cell(REWARD_FREE, "MT IL").verdict == "yes"
    improvement = found.cell(IMPROVEMENT, "MT IL")
    assert (improvement.verdict, improvement.effect) == ("no", None) and "by construction" in improvement.why
    assert "drawdown" not in found.cell(STABILITY, "MT IL").figures


@pytest.mark.parametrize(
    ("ends", "verdict"), [((0.5, 0.61), "yes"), ((0.2, 0.6), "no"), ((0.1, 0.15), "no")], ids=["up", "unclear", "down"]
)
def test_improvement_is_each_runs_gain(tmp_path, ends, verdict):
    two_seeds(tmp_path, "awac", "a", (0.2, ends[0]), (0.3, ends[1]))
    cell = measure(tmp_path).cell(IMPROVEMENT, "Off2On RL")
    gains = sorted([ends[0] - 0.2, ends[1] - 0.3])
    assert (cell.effect.low, cell.effect.high) == pytest.approx(gains)
    assert cell.effect.value == pytest.approx(np.mean(gains)) and cell.verdict == verdict


def test_spread_and_drawdown_against_hand_worked_values(tmp_path):
    steps = [0, BUDGET // 2, BUDGET]
    curves = {0: [0.1, 0.9, 0.2], 1: [0.5, 0.4, 0.6]}  # falls of 0.7 and 0.1; ends 0.2 and 0.6
    for seed, values in curves.items():
        write(tmp_path, "wpt", "a", seed, {step: [value] for step, value in zip(steps, values, strict=True)})
        write(tmp_path, "wpt", "b", seed, {0: [0.3], BUDGET: [0.3]})
    figures = measure(tmp_path).cell(STABILITY, "WPT").figures
    assert figures["spread"] == pytest.approx((0.4 / np.sqrt(2) + 0.0) / 2)
    assert figures["drawdown"] == pytest.approx((0.7 + 0.1 + 0.0 + 0.0) / 4)


def many(root, method, spread, tasks="abcd", seeds=5):
    noise = np.random.default_rng(len(method))
    for task in tasks:
        for seed in range(seeds):
            write(root, method, task, seed, flat(0.0, 0.5 + spread * noise.standard_normal()))


def test_steadier_than_scratch_is_a_tick_and_wilder_a_cross(tmp_path):
    many(tmp_path, "dreamer", 0.1)
    many(tmp_path, "wpt", 0.001)
    many(tmp_path, "awac", 0.2)
    found = measure(tmp_path)
    steady, wild = found.cell(STABILITY, "WPT"), found.cell(STABILITY, "Off2On RL")
    assert steady.verdict == "yes" and wild.verdict == "no"
    own = score_matrix(table(tmp_path), "dreamer").std(axis=0, ddof=1).mean()
    assert steady.effect.value == pytest.approx(own - steady.figures["spread"])
    assert steady.effect.low < steady.effect.value < steady.effect.high
    assert found.cell(STABILITY, "From scratch").verdict == "not applicable"
    assert found.cell(STABILITY, "From scratch").figures["spread"] == pytest.approx(own)


def test_resampled_spreads_stand_around_the_samples_own():
    """Of two seeds half of all resamples have no spread at all: unscaled, two seeds would look steadier than five."""
    values = np.array([0.2, 0.6])
    drawn = values[np.array([[0, 0], [0, 1], [1, 0], [1, 1]])]
    assert _spreads(values, drawn) == pytest.approx(np.array([0, 2, 2, 0]) * 0.4 / np.sqrt(2))


def test_steadiness_takes_five_seeds_on_either_side(tmp_path):
    many(tmp_path, "dreamer", 0.1)
    many(tmp_path, "wpt", 0.001, seeds=4)
    cell = measure(tmp_path).cell(STABILITY, "WPT")
    assert (cell.verdict, cell.effect) == ("not measured", None) and "fewer than 5 seeds" in cell.why
    assert cell.figures["spread"] < 0.01


def test_an_effect_without_spread_is_not_measured(tmp_path):
    """Every run goes from 0 to 1: nothing estimates how far from that others could end, and a cross would be absurd."""
    for seed in range(3):
        write(tmp_path, "dreamer", "a", seed, flat(0.0, 0.1))
        write(tmp_path, "wpt", "a", seed, flat(0.0, 1.0))
    for name in (REWARD_FREE, IMPROVEMENT):
        cell = measure(tmp_path).cell(name, "WPT")
        assert cell.verdict == "not measured" and "is without spread" in cell.why


def test_without_scratch_there_is_spread_but_no_verdict(tmp_path):
    many(tmp_path, "wpt", 0.1)
    found = measure(tmp_path)
    cell = found.cell(STABILITY, "WPT")
    assert cell.verdict == "not measured" and cell.figures["spread"] > 0 and "dreamer" in cell.why
    assert found.cell(REWARD_FREE, "WPT").verdict == "not measured"
    assert "runs of dreamer are missing" in found.cell(REWARD_FREE, "WPT").why
    assert found.cell(IMPROVEMENT, "WPT").verdict == "yes"


def test_one_seed_measures_nothing(tmp_path):
    for method in ("dreamer", "wpt"):
        write(tmp_path, method, "a", 0, flat(0.1, 0.9))
    found = measure(tmp_path)
    for name in (REWARD_FREE, IMPROVEMENT, STABILITY):
        assert found.cell(name, "WPT").verdict == "not measured"
        assert "one seed" in found.cell(name, "WPT").why


def test_a_method_with_missing_runs_is_not_pooled(tmp_path):
    grid(tmp_path, {"dreamer": 0.2, "sac": 0.1})
    write(tmp_path, "dreamer", "walker-stand", 2, flat(0.9))
    assert measure(tmp_path).cell(IMPROVEMENT, "From scratch").methods == ("sac",)
    write(tmp_path, "sac", "walker-stand", 2, {}, status="failed", error="NaN")
    cell = measure(tmp_path).cell(IMPROVEMENT, "From scratch")
    assert cell.verdict == "not measured" and "runs of dreamer, sac are missing" in cell.why


def test_methods_of_a_family_are_strata_that_weigh_the_same(tmp_path):
    two_seeds(tmp_path, "dreamer", "a", (0.0, 0.5), (0.0, 0.7))
    for seed in range(5):
        write(tmp_path, "sac", "a", seed, flat(0.0, 0.2))
    cell = measure(tmp_path).cell(IMPROVEMENT, "From scratch")
    assert cell.effect.value == pytest.approx(0.4) and cell.methods == ("dreamer", "sac")


@pytest.mark.parametrize("name", [NON_EXPERT, CROSS_EMBODIMENT])
def test_what_needs_other_data_sets_is_not_measured(tmp_path, name):
    grid(tmp_path, {"dreamer": 0.2, "wpt": 0.9})
    found = measure(tmp_path)
    assert found.cell(name, "WPT").verdict == "not measured" and "one data set" in found.cell(name, "WPT").why
    assert found.cell(name, "From scratch").verdict == "not applicable"
    assert found.cell(name, "RLPD").why == "no finished run in this table"
    assert f"Not measured, {name} of WPT: {found.cell(name, 'WPT').why}." in reasons(found)
    assert "Not measured, all of Offline RL" in " ".join(reasons(found))


def test_agrees_with_the_aggregate_where_that_can_express_it(tmp_path):
    many(tmp_path, "wpt", 0.2)
    ours = measured(table(tmp_path), resamples=20_000).cell(IMPROVEMENT, "WPT").effect
    theirs = aggregate(score_matrix(table(tmp_path), "wpt"), ["mean"], resamples=20_000)["mean"]  # all start at 0
    assert ours.value == pytest.approx(theirs.value)
    ends = ("corrected_low", "corrected_high")
    assert [getattr(ours, end) for end in ends] == pytest.approx([getattr(theirs, end) for end in ends], abs=0.004)


def test_the_same_on_every_call_and_whatever_else_is_in_the_table(tmp_path):
    grid(tmp_path, {"dreamer": 0.2, "wpt": 0.9}, seeds=[0, 1, 2])
    first = measure(tmp_path)
    assert measure(tmp_path) == first
    grid(tmp_path, {"awac": 0.5, "td3-bc": 0.4}, seeds=[0, 1, 2])
    again = measure(tmp_path)
    for name in (REWARD_FREE, IMPROVEMENT, STABILITY):
        assert again.cell(name, "WPT") == first.cell(name, "WPT")


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
@settings(max_examples=20, deadline=None)
def test_the_interval_of_a_gain_lies_within_its_seeds(tmp_path_factory, ends):
    assume(np.ptp(ends) > 1e-6)
    root = tmp_path_factory.mktemp("runs")
    for seed, end in enumerate(ends):
        write(root, "wpt", "a", seed, flat(0.2, end))
    effect = measured(table(root), resamples=100).cell(IMPROVEMENT, "WPT").effect
    assert min(ends) - 0.2 - 1e-9 <= effect.low <= effect.high <= max(ends) - 0.2 + 1e-9


# The arms of the experiment data

BOTH = ("walker-stand", "cheetah-run")


def around(height):
    """Two tasks, three seeds: a mean of ``height`` on either, and around it what no two heights have in common."""
    noise = np.random.default_rng(round(100 * height)).normal(0, 0.01, 3)
    return {task: (height + noise - noise.mean()).tolist() for task in BOTH}


def with_arms(root, *arms, scratch=0.2):
    """Table 1 of a table with ``wpt`` and learning from scratch, and of the arms."""
    if scratch is not None:
        arm(root, "", "", around(scratch), method="dreamer")
    arm(root, "", "", around(0.6))
    reading = Reading(root)
    expected = [one.run.identity for one in reading.found if not one.run.identity.subset]
    its = load_runs(reading, suite="dmc", profile="quick", expected=expected)
    return measured(its, arm_tables(plan(*arms), reading), resamples=2000)


def noisy(root, *heights):
    return [
        arm(root, "noise", str(value), around(height), value=value, subset={"noise": value})
        for value, height in heights
    ]


def test_non_expert_data_is_measured_by_the_worst_of_it_against_scratch_and_the_slope(tmp_path):
    found = with_arms(tmp_path, *noisy(tmp_path, (0.0, 0.6), (1.0, 0.5), (2.0, 0.3))).cell(NON_EXPERT, "WPT")
    assert (found.verdict, found.methods) == ("yes", ("wpt",))
    assert found.effect.value == pytest.approx(0.3 - 0.2) and found.effect.excludes_zero
    slope = found.figures["slope"]
    assert slope.value == pytest.approx((0.3 - 0.6) / 2)  # three even places: the one between has no weight
    assert slope.corrected_low < slope.value < slope.corrected_high < 0


def test_of_collectors_the_unlearned_one_counts_and_there_is_no_slope(tmp_path):
    arms = [
        arm(tmp_path, "collectors", name, around(height), subset={"collectors": [name]})
        for name, height in (("pink-noise", 0.1), ("curiosity", 0.9))
    ]
    found = with_arms(tmp_path, *arms).cell(NON_EXPERT, "WPT")
    assert found.verdict == "no" and found.effect.value == pytest.approx(0.1 - 0.2) and found.figures is None


def test_cross_embodiment_data_is_measured_by_what_adding_it_changes(tmp_path):
    arms = [
        arm(tmp_path, "other scenes", str(value), around(height), value=value, subset={"foreign": value})
        for value, height in ((0.0, 0.4), (0.5, 0.9), (1.0, 0.55))
    ]
    found = with_arms(tmp_path, *arms).cell(CROSS_EMBODIMENT, "WPT")
    assert found.verdict == "yes" and found.effect.value == pytest.approx(0.15) and found.methods == ("wpt",)


@pytest.mark.parametrize(
    ("gap", "scratch", "why"),
    [
        (None, 0.2, "runs of the experiment data are missing, of noise 2.0"),
        (0.3, None, "runs of dreamer are missing"),
    ],
)
def test_what_the_arms_do_not_say_stays_unmeasured(tmp_path, gap, scratch, why):
    arms = noisy(tmp_path, (0.0, 0.6))
    scores = around(0.3) | {"cheetah-run": [0.3, 0.3, gap]}
    arms.append(arm(tmp_path, "noise", "2.0", scores, value=2.0, subset={"noise": 2.0}))
    found = with_arms(tmp_path, *arms, scratch=scratch)
    assert (found.cell(NON_EXPERT, "WPT").verdict, found.cell(NON_EXPERT, "WPT").why) == ("not measured", why)
    assert found.cell(CROSS_EMBODIMENT, "WPT").verdict == "not measured"
