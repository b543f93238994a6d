import msgspec
import pytest

from analysis.synthetic import BUDGET, flat, grid, write
from wpt_bench import records
from wpt_bench.analysis.compare import compare
from wpt_bench.analysis.scores import load_runs

SEEDS = range(4)


def said(root, **levels):
    """Headline and glance of runs that rise to these levels; later seeds of dreamer end higher, of others lower."""
    for method, level in levels.items():
        for seed in SEEDS:
            more = 0.004 * (seed if method == "dreamer" else max(SEEDS) - seed)
            write(root, method, "walker-stand", seed, flat(0.0, level + more))
    comparison = compare(load_runs(root, suite="dmc", profile="quick"), resamples=200, curve_resamples=100)
    return comparison.headline, comparison.glance


def test_yes_when_the_areas_are_separated_and_when_scratch_was_reached(tmp_path):
    headline, _ = said(tmp_path, dreamer=0.2, wpt=0.8)
    # Straight lines to .806 and .206: areas are half of that; .206 / .806 of the steps reach .206.
    assert "On the one task measured (walker-stand): yes, at this budget of 10,000 environment steps." in headline
    assert "Area under the curve 0.403 against 0.103, difference +0.300" in headline
    assert "0.206 is first reached after 2,556 steps, by dreamer itself after 10,000: 74% saved [" in headline


def test_a_saving_whose_interval_holds_zero_is_not_called_shown(tmp_path):
    """Half of the seeds pass what scratch ends at soon, the others never."""
    for seed in SEEDS:
        plateau = 0.45 if seed % 2 else 0.62
        write(tmp_path, "dreamer", "a", seed, {0: [0.0], BUDGET: [0.5 + 0.01 * seed]})
        write(tmp_path, "wpt", "a", seed, {0: [0.0], 500: [plateau], BUDGET: [plateau + 0.05]})
    comparison = compare(load_runs(tmp_path, suite="dmc", profile="quick"), resamples=200, curve_resamples=200)
    (row,) = (row for row in comparison.rows if row.name == "wpt")
    assert row.against.auc.excludes_zero and row.reach.saved > 0 and (row.reach.saved_low or 0.0) <= 0
    assert comparison.headline.endswith("], not shown to be above 0.")


@pytest.mark.parametrize(("alone", "above"), [(0.2, True), (0.6, False), (0.9, False)])
def test_what_wpt_ends_at_is_held_against_what_it_cloned(tmp_path, alone, above):
    """WPT ends at .5 to .9, .7 on average over seeds: above a prior of .2, neither above one of .6 nor of .9."""
    for seed in SEEDS:
        write(tmp_path, "dreamer", "a", seed, flat(0.0, 0.02 * seed))
        write(tmp_path, "wpt", "a", seed, flat(0.0, 0.5 + 0.4 / 3 * seed), prior=[alone, alone])
    comparison = compare(load_runs(tmp_path, suite="dmc", profile="quick"), resamples=200, curve_resamples=100)
    row = comparison.rows[0]
    assert row.name == "wpt" and row.prior.value == pytest.approx(alone)
    assert row.above_prior.value == pytest.approx(0.7 - alone)
    assert comparison.headline.endswith("It is not shown to end above its own cloned prior.") != above
    (beyond,) = (sentence for sentence in comparison.glance if sentence.startswith("Beyond its data: "))
    assert ("wpt ends above its own" in beyond) == above and f"has IQM {alone:.3f} " in beyond


@pytest.mark.parametrize(("earned", "above"), [(400.0, True), (100.0, False)])
def test_where_success_is_the_score_returns_are_held_against_the_priors_too(tmp_path, earned, above):
    """WPT succeeds no more often than its prior, half of the time, and earns 400 or 100 (3 a seed more) to its 100."""
    for seed in SEEDS:
        write(tmp_path, "dreamer", "a", seed, flat(0.0, 0.02 * seed), score="success", scale=1.0)
        folder = write(tmp_path, "wpt", "a", seed, flat(0.0, 0.5), score="success", scale=1.0, prior=[0.5, 0.5])
        rows = [
            msgspec.structs.replace(row, success_last=0.5, episode_return=100.0 + seed % 2)
            if row.kind == "prior"
            else msgspec.structs.replace(row, episode_return=earned + 3 * seed if row.env_step == BUDGET else 9e9)
            for row in records.read_episodes(folder)
        ]
        records.discard(folder / records.ROWS)
        records.append_episodes(folder, rows)
    comparison = compare(load_runs(tmp_path, suite="dmc", profile="quick"), resamples=200, curve_resamples=100)
    (row,) = (row for row in comparison.rows if row.name == "wpt")
    assert row.above_prior.value == 0 and row.above_prior_return.value == pytest.approx(earned + 4.5 - 100.5)
    assert ("own cloned prior in success, but is in return." in comparison.headline) == above
    (beyond,) = (sentence for sentence in comparison.glance if sentence.startswith("Beyond its data: "))
    says = (
        "is above the prior's; difference +304 [" if above else "is not shown to be above the prior's; difference +4 ["
    )
    assert f"Its mean return, which it learns from, {says}" in beyond


def test_a_prior_that_some_runs_lack_is_held_against_nothing(tmp_path):
    for seed in SEEDS:
        write(tmp_path, "dreamer", "a", seed, flat(0.0, 0.02 * seed))
        write(tmp_path, "wpt", "a", seed, flat(0.0, 0.5), prior=[0.9] if seed else [])
    row = compare(load_runs(tmp_path, suite="dmc", profile="quick"), resamples=50, curve_resamples=50).rows[0]
    assert row.name == "wpt" and row.prior is None and row.above_prior is None


def test_where_scratch_never_leaves_its_level_no_saving_is_claimed(tmp_path):
    for seed in SEEDS:
        write(tmp_path, "dreamer", "walker-stand", seed, flat(0.0))
        write(tmp_path, "wpt", "walker-stand", seed, flat(0.0, 0.8 + 0.01 * seed))
    comparison = compare(load_runs(tmp_path, suite="dmc", profile="quick"), resamples=200, curve_resamples=100)
    none = "dreamer ends no higher than it began (IQM 0.000), so the steps saved cannot be quantified."
    assert comparison.headline.endswith(none) and comparison.sentences[0].endswith(none)
    assert "dreamer 0.000 (no spread), difference +0.8" in comparison.sentences[0]


def test_no_when_wpt_is_below(tmp_path):
    headline, _ = said(tmp_path, dreamer=0.8, wpt=0.2)
    assert ": no, it learns more slowly, at this budget of 10,000 environment steps. Area" in headline


def test_not_shown_when_the_interval_holds_zero(tmp_path):
    headline, _ = said(tmp_path, dreamer=0.3, wpt=0.3)
    assert ": not shown, at this budget of 10,000 environment steps. Area" in headline


def test_one_seed_shows_nothing(tmp_path):
    for method, level in (("dreamer", 0.1), ("wpt", 0.9)):
        write(tmp_path, method, "a", 0, flat(0.0, level))
    headline = compare(load_runs(tmp_path, suite="dmc", profile="quick")).headline
    assert "On the one task measured (a): not shown" in headline and "(one seed: no interval)" in headline


@pytest.mark.parametrize(("there", "absent"), [("wpt", "dreamer"), ("dreamer", "wpt"), ("sac", "wpt and dreamer")])
def test_without_both_methods_the_runs_cannot_say(tmp_path, there, absent):
    headline, _ = said(tmp_path, **{there: 0.5})
    assert f"These runs cannot say: {absent} not among the methods." in headline


def test_an_incomplete_method_leaves_it_open(tmp_path):
    write(tmp_path, "wpt", "walker-stand", 9, {}, status="failed", error="NaN")
    headline, _ = said(tmp_path, dreamer=0.2, wpt=0.8)
    assert headline.endswith("Not known yet: wpt incomplete.")


def test_at_a_glance_where_at_what_cost_and_which_part(tmp_path):
    levels = {"dreamer": 0.2, "wpt-pretrain-only": 0.3, "wpt-no-guidance": 0.5, "wpt": 0.9}
    grid(tmp_path, levels, seeds=range(5), spread=0.01)
    comparison = compare(load_runs(tmp_path, suite="dmc", profile="quick"), resamples=500, curve_resamples=200)
    where, cost, part = comparison.glance
    assert "cheetah +" in where and "walker +" in where and where.count("separated from zero") == 2
    assert "On the 2 tasks measured: yes" in comparison.headline
    # 200 seconds, and 10 more from seed to seed.
    assert "of wpt makes 500 updates in 3:40 (3:20 to 4:00), one of dreamer 500 updates in 3:40 (3:20 to 4:00)" in cost
    assert "guidance: wpt against wpt-no-guidance +" in part and "separated from zero" in part


def test_one_run_on_a_busy_machine_widens_the_range_and_leaves_the_cost(tmp_path):
    for method in ("dreamer", "wpt"):
        for seed in range(3):
            busy = {"seconds": 2000.0} if (method, seed) == ("wpt", 1) else {}
            write(tmp_path, method, "a", seed, flat(0.0, 0.5), **busy)
    comparison = compare(load_runs(tmp_path, suite="dmc", profile="quick"), resamples=50, curve_resamples=50)
    (cost,) = (sentence for sentence in comparison.glance if sentence.startswith("At what cost"))
    assert "500 updates in 3:40 (3:20 to 33:20), one of dreamer 500 updates in 3:30 (3:20 to 3:40)" in cost
