import pytest

from analysis.synthetic import flat, grid, write
from wpt_bench.analysis.compare import compare, compare_runs
from wpt_bench.analysis.scores import load_runs, without_tasks_under_way
from wpt_bench.analysis.summary import figures

FAST = {"resamples": 200, "curve_resamples": 50}


def compared(root):
    return compare(load_runs(root, suite="dmc", profile="quick"), **FAST)


def test_rows_fall_by_iqm_with_what_each_was_granted(tmp_path):
    grid(tmp_path, {"dreamer": 0.2, "wpt": 0.9}, spread=0.01)
    comparison = compared(tmp_path)
    best, scratch = comparison.rows
    assert (best.name, best.data_access, best.family) == ("wpt", "reward-free", "WPT")
    assert (scratch.name, scratch.data_access, scratch.stages) == ("dreamer", "none", ())
    assert best.stages == ("5" * 16,)
    assert (best.done, best.expected, best.seeds) == (4, 4, 2)
    assert best.wall_clock == pytest.approx(205.0) and best.updates == 500
    assert best.curve.value[-1] == pytest.approx(best.iqm.value)
    assert scratch.iqm.value < scratch.iqm.high < best.iqm.low


def test_sentences_say_what_is_separated_and_what_is_not(tmp_path):
    for seed in range(3):
        write(tmp_path, "dreamer", "a", seed, flat(0.0, 0.2 + 0.02 * seed))
        write(tmp_path, "wpt", "a", seed, flat(0.0, 0.84 - 0.02 * seed))
        write(tmp_path, "wpt-no-guidance", "a", seed, flat(0.0, 0.25 - 0.02 * seed))
        write(tmp_path, "wpt-pretrain-only", "a", seed, flat(0.0, 0.01 * seed))
    above, near, below, few = compared(tmp_path).sentences
    assert above.startswith("wpt reaches IQM 0.820 [") and ": separated, wpt is higher; " in above
    # Straight from 0 to .82 over 10,000 steps: .22 after .22 / .82 of them.
    assert "final IQM of 0.220 is first reached after 2,683 steps, by dreamer itself after 10,000: 73% saved [" in above
    assert near.startswith("wpt-no-guidance") and near.endswith("not separated at this budget.")  # saves nothing then
    assert "separated, wpt-pretrain-only is lower; " in below and below.endswith("0.220 is not reached.")
    assert few.startswith("Intervals in these sentences are corrected") and "rliable's of 3 seeds are too" in few


@pytest.mark.parametrize(("seeds", "apart"), [(range(5), True), (range(5, 10), False)], ids=["the same", "others"])
def test_methods_with_the_seeds_of_scratch_are_paired_with_it_and_no_others(tmp_path, seeds, apart):
    """What seeds have in common is three times what WPT adds: it cancels only where they are the same."""
    common = [0.0, 0.15, 0.3, 0.05, 0.25]
    for place, (seed, shift) in enumerate(zip(seeds, common, strict=True)):
        write(tmp_path, "dreamer", "a", place, flat(0.0, 0.3 + shift))
        write(tmp_path, "wpt", "a", seed, flat(0.0, 0.4 + shift + 0.01 * (place % 2)))
    comparison = compared(tmp_path)
    row = next(row for row in comparison.rows if row.name == "wpt")
    assert row.against.score.excludes_zero == row.against.auc.excludes_zero == apart
    (part,) = (part for part in comparison.tasks["a"] if part.method == "wpt")
    assert part.auc_against.excludes_zero == apart
    # Of straight lines that to .4 passes .3 after three quarters of the way: paired, in every resample sooner.
    assert (row.reach.saved_low is not None and row.reach.saved_low > 0) == apart


def test_wpt_is_held_against_the_methods_that_are_no_variants_of_it(tmp_path):
    """It ends at .6, .61, ... on both tasks: sac .3 below it, iql .2 above without a step, awac shifted by the seed."""
    for task in ("a", "b"):
        for seed, shift in enumerate((0.0, 0.3, -0.3, 0.15)):
            near = 0.01 * seed
            write(tmp_path, "wpt", task, seed, flat(0.0, 0.6 + near))
            write(tmp_path, "wpt-no-guidance", task, seed, flat(0.0, 0.5))
            write(tmp_path, "sac", task, seed, flat(0.0, 0.3 + near * (2 if task == "a" else 0)))
            write(tmp_path, "iql", task, seed, {0: [0.8 + near * (seed % 2)]}, online=False)
            write(tmp_path, "awac", task, seed, flat(0.6, 0.6 + shift))
    comparison = compared(tmp_path)
    held = {row.name: row.wpt_against for row in comparison.rows}
    assert held["wpt"] is None and held["wpt-no-guidance"] is None
    # Interquartile means of eight, without two at either end: sac's are .3 three times and .32.
    assert held["sac"].score.value == pytest.approx(0.615 - 0.305) and held["sac"].improvement.value == 1
    assert held["sac"].auc.value == pytest.approx((0.615 - 0.305) / 2)
    assert held["iql"].auc is None and held["iql"].improvement.value == 0
    (said,) = (one for one in comparison.sentences if one.startswith("At the budget, in IQM, wpt is "))
    parts = ("is above sac (+0.310 [", "; below iql (-0.", "; not separated from awac (")
    assert [said.index(part) for part in parts] == sorted(said.index(part) for part in parts)


def test_without_other_methods_nothing_is_said_of_them(tmp_path):
    grid(tmp_path, {"dreamer": 0.2, "wpt": 0.9, "wpt-no-guidance": 0.5})
    comparison = compared(tmp_path)
    assert not any(row.wpt_against for row in comparison.rows)
    assert not any(one.startswith("At the budget") for one in comparison.sentences)


def test_one_seed_separates_nothing(tmp_path):
    write(tmp_path, "dreamer", "a", 0, flat(0.1))
    write(tmp_path, "wpt", "a", 0, flat(0.9))
    said = compared(tmp_path).sentences
    assert said[0].endswith("not separated at this budget (one seed: no interval).")
    assert "no difference can be told from chance" in said[1]


def test_a_missing_run_leaves_its_method_without_aggregate_and_the_others_with_theirs(tmp_path):
    grid(tmp_path, {"dreamer": 0.2, "wpt": 0.9})
    write(tmp_path, "wpt", "walker-stand", 2, flat(0.9))
    comparison = compared(tmp_path)
    row = next(row for row in comparison.rows if row.name == "wpt")
    assert comparison.rows[-1] is row
    assert row.iqm is None and row.auc is None and row.curve is None
    assert row.incomplete in comparison.sentences
    assert "wpt has 5 of 6 runs (missing: cheetah-run seed 2)" in row.incomplete
    assert comparison.rows[0].iqm is not None


def test_a_method_without_any_finished_run_is_a_row(tmp_path):
    write(tmp_path, "dreamer", "a", 0, flat(0.1))
    write(tmp_path, "wpt", "a", 0, {}, status="failed", error="NaN loss")
    row = compared(tmp_path).rows[-1]
    assert (row.name, row.done, row.expected, row.wall_clock) == ("wpt", 0, 1, None)


def test_without_scratch_the_sentences_say_so(tmp_path):
    grid(tmp_path, {"wpt": 0.9, "wpt-no-guidance": 0.1})
    said = compared(tmp_path).sentences
    assert said[0].startswith("wpt has the highest IQM")
    assert said[1] == "dreamer is not among the methods, so nothing is held against learning from scratch."


def test_an_offline_only_method_has_a_score_but_no_curve(tmp_path):
    for seed in range(2):
        write(tmp_path, "dreamer", "a", seed, flat(0.1))
        write(tmp_path, "td3-bc", "a", seed, {0: [0.5 + 0.1 * seed]}, online=False)
    comparison = compared(tmp_path)
    row = comparison.rows[0]
    assert (row.name, row.online, row.auc, row.curve) == ("td3-bc", False, None, None)
    assert row.iqm.value == pytest.approx(0.55)
    assert "with 0 online steps" in comparison.sentences[0]


def test_the_order_of_methods_changes_no_interval(tmp_path):
    grid(tmp_path / "few", {"wpt": 0.6, "dreamer": 0.3})
    grid(tmp_path / "many", {"dreamer": 0.3, "wpt-no-guidance": 0.5, "td3-bc": 0.4, "wpt": 0.6})
    few = {row.name: row for row in compared(tmp_path / "few").rows}
    many = {row.name: row for row in compared(tmp_path / "many").rows}
    for name, row in few.items():
        assert row.estimates == many[name].estimates and row.auc == many[name].auc
        assert (row.curve.low == many[name].curve.low).all()


def test_the_only_embodiment_and_the_only_task_have_the_very_figures_of_all_tasks(tmp_path):
    grid(tmp_path, {"dreamer": 0.3, "wpt": 0.6}, tasks=["walker-run"], seeds=range(4))
    comparison = compared(tmp_path)
    (embodiment,), (task,) = comparison.embodiments.values(), comparison.tasks.values()
    for row, *parts in zip(comparison.rows, embodiment, task, strict=True):
        areas = row.against and row.against.auc
        assert all((part.method, part.iqm, part.auc_against) == (row.name, row.iqm, areas) for part in parts)


def test_a_method_that_lacks_a_task_has_figures_on_the_others(tmp_path):
    """As tiers are published: a baseline on one task of two bodies, beside methods that have both."""
    grid(tmp_path, {"dreamer": 0.3, "wpt": 0.6}, tasks=["walker-run", "cheetah-run"])
    grid(tmp_path, {"sac": 0.5}, tasks=["walker-run"])
    comparison = compared(tmp_path)
    (sac,) = (row for row in comparison.rows if row.name == "sac")
    assert sac.iqm is None and sac.incomplete
    for pieces, done, lacking in (
        (comparison.tasks, "walker-run", "cheetah-run"),
        (comparison.embodiments, "walker", "cheetah"),
    ):
        (part,) = (part for part in pieces[done] if part.method == "sac")
        assert part.iqm.value == pytest.approx(0.5, abs=0.1) and part.auc_against is not None
        assert {part.method for part in pieces[lacking]} == {"dreamer", "wpt"}


def whole(root):
    return without_tasks_under_way(load_runs(root, suite="dmc", profile="quick"))


def test_a_task_under_way_changes_no_figure_of_those_that_are_whole(tmp_path):
    """Four methods' grids, task after task, cut off in the second task after one of two seeds."""
    levels = {"dreamer": 0.3, "wpt": 0.6}
    for root in ("one", "two"):
        grid(tmp_path / root, levels, tasks=["walker-run"])
    grid(tmp_path / "two", levels, tasks=["cheetah-run"], seeds=[0])
    write(tmp_path / "two", "dreamer", "cheetah-run", 1, {}, status="running")
    one, two = (figures([compare(whole(tmp_path / root), **FAST)], [])["tables"][0] for root in ("one", "two"))
    assert two.pop("under_way") == [{"task": "cheetah-run", "done": 2, "expected": 4}]
    said = two.pop("sentences")
    assert "Under way, and in no figure yet: cheetah-run (2 of 4 runs)." in said
    said.remove("Under way, and in no figure yet: cheetah-run (2 of 4 runs).")
    assert [(run["method"], run["seed"], run["status"]) for run in two.pop("stale")] == [
        ("dreamer", 0, "done"),
        ("dreamer", 1, "running"),
        ("wpt", 0, "done"),
    ]
    assert "On the one task measured (walker-run), 1 more under way: " in two["headline"]
    two["headline"] = two["headline"].replace(", 1 more under way", "")
    assert two | {"sentences": said, "stale": []} == one
    (comparison,) = compare_runs(tmp_path / "two", suite="dmc", profile="quick")
    assert comparison.table.tasks == ["walker-run"] and comparison.table.under_way


def test_a_task_stays_where_one_method_is_whole_or_a_run_failed_or_nothing_else_is_whole(tmp_path):
    levels = {"dreamer": 0.3, "wpt": 0.6}
    roots = ("whole", "failed", "alone", "emptied")
    for root in roots:
        grid(tmp_path / root, levels, tasks=["cheetah-run"], seeds=[0])
        if root != "alone":
            grid(tmp_path / root, {"dreamer": 0.3} if root == "emptied" else levels, tasks=["walker-run"])
    grid(tmp_path / "whole", {"dreamer": 0.3}, tasks=["cheetah-run"])
    write(tmp_path / "failed", "wpt", "cheetah-run", 1, {}, status="failed", error="NaN loss")
    write(tmp_path / "alone", "wpt", "cheetah-run", 1, {}, status="running")
    write(tmp_path / "emptied", "wpt", "cheetah-run", 1, {}, status="running")
    for root in roots:
        table = whole(tmp_path / root)
        assert "cheetah-run" in table.tasks and not table.under_way, root
        assert next(row for row in compare(table, **FAST).rows if row.name == "wpt").incomplete


def test_a_task_that_one_method_has_begun_needs_all_seeds_of_all_methods(tmp_path):
    grid(tmp_path, {"dreamer": 0.3, "wpt": 0.6}, tasks=["walker-run"])
    grid(tmp_path, {"dreamer": 0.3}, tasks=["cheetah-run"], seeds=[0])
    assert [(one.done, one.expected) for one in whole(tmp_path).under_way] == [(1, 4)]
    grid(tmp_path, {"sac": 0.5}, tasks=["cheetah-run"], seeds=[0])  # a single run makes no task whole
    grid(tmp_path, {"sac": 0.5}, tasks=["walker-run"], seeds=[0])
    assert [(one.done, one.expected) for one in whole(tmp_path).under_way] == [(2, 5)]
