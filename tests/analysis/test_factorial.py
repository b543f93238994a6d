import itertools

import numpy as np
import pytest

from wpt_bench.analysis.factorial import ARMS, PARTS, RANDOM_REPLAY, factorial
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
