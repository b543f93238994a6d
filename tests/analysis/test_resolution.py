import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import norm, t

from wpt_bench.analysis.resolution import simulate


@pytest.mark.parametrize(("seeds", "expected"), [(3, 0.89), (5, 0.92), (10, 0.937)])
def test_intervals_of_a_mean_over_many_normal_tasks_cover_what_theory_says(seeds, expected):
    """The bootstrap's deviation is short by sqrt((n - 1) / n), and what it estimates is itself uncertain."""
    found = simulate("mean", seeds, 20, trials=700)
    short = norm.ppf(0.975) * ((seeds - 1) / seeds) ** 0.5
    theory = 1 - 2 * t.sf(short, 20 * (seeds - 1))
    assert found.rliable == pytest.approx(expected, abs=0.02)
    assert found.rliable == pytest.approx(theory, abs=0.02)
    assert found.corrected == pytest.approx(0.95, abs=0.02)
    assert found.false_alarms < 0.08


def test_the_corrected_interval_of_one_task_is_students():
    """One task, three seeds: t with two degrees of freedom; the bootstrap alone covers three quarters."""
    found = simulate("mean", 3, 1, trials=1000)
    assert found.rliable < 0.8 and found.corrected == pytest.approx(0.95, abs=0.02)


def test_more_seeds_resolve_more():
    few, many = (simulate("iqm", seeds, 4, trials=200) for seeds in (3, 10))
    assert many.half_width < 0.7 * few.half_width and many.difference < 0.7 * few.difference


@pytest.mark.parametrize(("metric", "seeds", "tasks"), [("iqm", 3, 1), ("mean", 5, 1)])
def test_the_published_table_is_what_the_simulation_gives(metric, seeds, tasks):
    rows = pd.read_csv(Path(__file__).parents[2] / "results" / "resolution.csv")
    (row,) = rows[(rows["metric"] == metric) & (rows["seeds"] == seeds) & (rows["tasks"] == tasks)].to_dict("records")
    again = dataclasses.asdict(simulate(metric, seeds, tasks, trials=row["trials"]))
    assert pd.Series(row).to_dict() == pytest.approx(again, abs=1e-4)
