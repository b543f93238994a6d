import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from wpt_bench.analysis.bootstrap import p_value
from wpt_bench.analysis.factorial import ARMS, PARTS, RANDOM_REPLAY, allowed_for, factorial, holm
from wpt_bench.wpt.methods import METHODS

FAST = {"resamples": 500}
CLOSE = 2e-3  # of an IQM of scores that vary a little


def scores(level, seeds=3):
    """Two tasks around ``level``, the same in every seed but for a little, in each level another."""
    return level + np.random.default_rng(round(1000 * level)).normal(0, 0.0005, (seeds, 2))


def effects_of(scores, *args, **kwargs):
    """With as many first seeds as there are rows."""
    return factorial(scores, {name: tuple(range(len(its))) for name, its in scores.items()}, *args, **kwargs)


def test_arms_are_the_methods_that_the_package_has():
    """Analysis may not import methods, so that their switches stand in both places."""
    switches = {
        method.name: tuple(method.build.keywords[name] for name in ("pretrain", "rehearsal", "guidance"))
        for method in METHODS
        if not method.build.keywords["random_replay"]
    }
    assert switches == ARMS
    assert [method.name for method in METHODS if method.build.keywords["random_replay"]] == [RANDOM_REPLAY]


def test_effects_of_parts_that_add_up_are_what_each_adds():
    adds = (0.1, 0.2, 0.3)
    levels = {name: sum(add for add, on in zip(adds, its, strict=True) if on) for name, its in ARMS.items()}
    found = effects_of({name: scores(level) for name, level in levels.items()}, **FAST)
    effects = {effect.name: effect.estimate for effect in found.effects}
    assert [effects[part].value for part in PARTS] == pytest.approx(adds, abs=CLOSE)
    interactions = [" x ".join(parts) for size in (2, 3) for parts in itertools.combinations(PARTS, size)]
    assert [effects[name].value for name in interactions] == pytest.approx([0.0] * 4, abs=CLOSE)
    assert all(effects[part].excludes_zero for part in PARTS) and not any(
        effects[i].excludes_zero for i in interactions
    )
    assert set(effects) == {*PARTS, *interactions} and found.missing == ()


def test_a_part_that_works_only_with_another_is_an_interaction():
    """Rehearsal brings .4, but only with guidance: on average .2, and the interaction is half of .4 - 0."""
    found = effects_of({name: scores(0.4 if its[1] and its[2] else 0.0) for name, its in ARMS.items()}, **FAST)
    values = {effect.name: effect.estimate.value for effect in found.effects}
    for name in ("rehearsal", "guidance", "rehearsal x guidance"):
        assert values[name] == pytest.approx(0.2, abs=CLOSE)
    assert values["pre-training"] == pytest.approx(0, abs=1e-12)


def test_without_all_arms_there_are_single_switches_only():
    levels = {"dreamer": 0.1, "wpt-pretrain-only": 0.3, "wpt-no-guidance": 0.35, "wpt": 0.9}
    found = effects_of({name: scores(level) for name, level in levels.items()}, **FAST)
    assert found.effects == () and found.control is None
    assert found.missing == ("wpt-rehearsal-only", "wpt-guidance-only", "wpt-no-rehearsal", "wpt-no-pretrain")
    assert {effect.name: pytest.approx(effect.estimate.value, abs=CLOSE) for effect in found.single} == {
        "pre-training: wpt-pretrain-only against dreamer": 0.2,
        "rehearsal: wpt-no-guidance against wpt-pretrain-only": 0.05,
        "guidance: wpt against wpt-no-guidance": 0.55,
        "rehearsal and guidance: wpt against wpt-pretrain-only": 0.6,
    }


def test_all_arms_give_twelve_single_switches_and_one_of_two_parts():
    found = effects_of({name: scores(0.1) for name in ARMS}, **FAST)
    assert len({effect.name for effect in found.single}) == 13


def test_random_replay_is_the_control_of_retrieval():
    found = effects_of({"wpt": scores(0.5), RANDOM_REPLAY: scores(0.2), "sac": scores(0.9)}, **FAST)
    assert found.control.estimate.value == pytest.approx(0.3, abs=CLOSE) and found.control.estimate.excludes_zero
    assert found.control.arms == ("wpt", RANDOM_REPLAY)


def test_arms_of_the_same_seeds_are_paired_by_them_and_others_are_not():
    rng = np.random.default_rng(0)
    arms = {name: rng.normal(0.5, 0.1, (5, 4)) for name in ARMS}
    seeds = dict.fromkeys(ARMS, tuple(range(5)))
    switches = {name: 1 if its[0] else -1 for name, its in ARMS.items()}

    def half_width(seeds):
        main = factorial(arms, seeds, "mean", resamples=20_000).effects[0].estimate
        return (main.corrected_high - main.corrected_low) / 2

    # Student's interval of the effect of each seed: its eight arms, with weight 1/4.
    effects = sum(sign * arms[name].mean(axis=1) for name, sign in switches.items()) / 4
    assert half_width(seeds) == pytest.approx(2.77645 * effects.std(ddof=1) / np.sqrt(5), rel=0.02)
    # One arm of other seeds: the effects of seven, and that arm beside them.
    rest = effects - arms["wpt"].mean(axis=1) / 4
    parts = [2.77645 * part.std(ddof=1) / np.sqrt(5) for part in (rest, arms["wpt"].mean(axis=1) / 4)]
    assert half_width(seeds | {"wpt": tuple(range(5, 10))}) == pytest.approx(np.hypot(*parts), rel=0.02)


def test_one_seed_has_no_interval():
    found = effects_of({"wpt": scores(0.5, seeds=1), "wpt-no-guidance": scores(0.2)}, **FAST)
    (effect,) = found.single
    assert effect.estimate.value == pytest.approx(0.3, abs=CLOSE) and effect.estimate.low is None


def test_the_p_value_of_an_effect_is_that_of_students_test_of_the_seeds():
    rng = np.random.default_rng(1)
    arms = {"wpt": rng.normal(0.6, 0.1, (5, 3)), "wpt-no-guidance": rng.normal(0.5, 0.1, (5, 3))}
    (effect,) = effects_of(arms, "mean", resamples=50_000).single
    expected = ttest_rel(*(its.mean(axis=1) for its in arms.values())).pvalue
    assert 0.001 < expected < 0.5 and effect.p == pytest.approx(expected, rel=0.03) and effect.holm is None


@given(st.floats(-3, 3), st.floats(1e-6, 3), st.integers(2, 30))
def test_the_p_value_is_below_its_level_where_the_interval_excludes_zero(value, half_width, seeds):
    """But for rounding, where the interval ends at zero."""
    if abs(abs(value) - half_width) > 1e-9:
        assert (p_value(value, half_width, seeds) < 0.05) == (abs(value) > half_width)


def test_holms_correction_of_a_worked_example():
    """In rising order 4 x .005, 3 x .01, 2 x .03; the last, 1 x .04, is not below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1))
def test_holms_correction_is_between_none_and_bonferronis_and_keeps_the_order(p_values):
    found = holm(p_values)
    for p, corrected in zip(p_values, found, strict=True):
        assert p <= corrected <= min(1.0, p * len(p_values)) + 1e-12
    assert np.all(np.diff(np.asarray(found)[np.argsort(p_values, kind="stable")]) >= 0)


def test_effects_are_corrected_for_all_of_their_kind_on_every_measure():
    rng = np.random.default_rng(2)

    def measured():
        return effects_of({name: rng.normal(0.5, 0.1, (3, 2)) for name in (*ARMS, RANDOM_REPLAY)}, **FAST)

    measures = [measured(), measured()]
    corrected = allowed_for(*measures)
    for kind in (lambda one: one.effects, lambda one: one.single, lambda one: (one.control,)):
        before, after = ([effect for one in both for effect in kind(one)] for both in (measures, corrected))
        assert [effect.holm for effect in after] == pytest.approx(holm([effect.p for effect in before]))
        assert [(effect.name, effect.p) for effect in after] == [(effect.name, effect.p) for effect in before]
    alone = [effect.holm for effect in allowed_for(measures[0])[0].single]
    assert alone == pytest.approx(holm([effect.p for effect in measures[0].single]))


def test_what_has_no_interval_or_no_spread_has_no_p_value_and_counts_for_none():
    arms = {name: scores(0.2) for name in ("dreamer", "wpt-pretrain-only")} | {
        "wpt-no-guidance": scores(0.9),
        "wpt": scores(0.9) + 0.05,
    }
    (found,) = allowed_for(effects_of(arms, **FAST))
    of = {effect.name.split(":")[0]: effect for effect in found.single}
    assert of["guidance"].p is None and of["guidance"].holm is None and of["guidance"].estimate.flat
    assert of["pre-training"].p is None
    assert of["rehearsal and guidance"].holm == pytest.approx(2 * of["rehearsal and guidance"].p)
    (effect,) = effects_of({"wpt": scores(0.5, seeds=1), "wpt-no-guidance": scores(0.2)}, **FAST).single
    assert effect.p is None
