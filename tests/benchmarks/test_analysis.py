"""Statistics against rliable's own loop, and the report of two thousand runs.

rliable makes 50,000 resamples in minutes, so that it makes a few hundred here and its time is taken in proportion. The
floor is the traffic of the counts: one pass over a byte per run and resample.
"""

import resource
import statistics
import time

import numpy as np
import pytest
from analysis.synthetic import grid
from rliable import library

from benchmarks.measure import seconds
from wpt_bench.analysis import bootstrap
from wpt_bench.analysis.aggregate import METRICS, aggregate, curve_band
from wpt_bench.analysis.compare import compare_runs
from wpt_bench.reports.page import write

METHODS, SEEDS, TASKS, POINTS = 10, 5, 20, 30
MINUTE, GIB = 60.0, 2**30


def scores():
    return np.random.default_rng(0).random((METHODS, SEEDS, TASKS))


@pytest.mark.parametrize(("name", "resamples"), [("aggregates", 50_000), ("curves", 2_000)])
def test_intervals_of_ten_methods(benchmark, name, resamples):
    resamples = resamples if benchmark.enabled else 200
    drawn = resamples // 250 if benchmark.enabled else 20
    curves = np.random.default_rng(1).random((METHODS, SEEDS, TASKS, POINTS))

    def ours():
        bootstrap.counts.cache_clear()
        if name == "aggregates":
            return [aggregate(matrix, resamples=resamples) for matrix in scores()]
        return [curve_band(np.arange(POINTS), matrix, resamples=resamples) for matrix in curves]

    def all_metrics(matrix):
        return np.array([metric.value(matrix) for metric in METRICS.values()])

    def along(matrix):
        return np.array([METRICS["iqm"].value(matrix[:, :, point]) for point in range(POINTS)])

    def rliables():
        matrices = scores() if name == "aggregates" else curves
        function = all_metrics if name == "aggregates" else along
        return library.get_interval_estimates(dict(enumerate(matrices)), function, reps=drawn)

    references = [seconds(rliables) * resamples / drawn for _ in range(2)]
    found = benchmark.pedantic(ours, rounds=3, warmup_rounds=1)
    assert len(found) == METHODS
    if benchmark.stats is None:  # benchmarks are switched off
        return
    table = np.ones((resamples * SEEDS * TASKS,), np.uint8)
    points = POINTS if name == "curves" else 1
    median, reference = benchmark.stats.stats.median, statistics.median(references)
    benchmark.extra_info.update(
        floor=METHODS * points * min(seconds(table.copy) for _ in range(5)),
        floor_of=f"{METHODS * points} copies of the counts, {table.nbytes / 1e6:.0f} MB",
        reference=reference,
        ratio=reference / median,
    )
    assert reference / median > 20


def test_report_of_two_thousand_runs(benchmark, tmp_path):
    names = [
        *("dreamer", "wpt-pretrain-only", "wpt-rehearsal-only", "wpt-guidance-only", "wpt-no-guidance"),
        *("wpt-no-rehearsal", "wpt-no-pretrain", "wpt", "wpt-random-replay", "sac"),
    ]
    bodies = ("walker", "cheetah", "quadruped", "acrobot")
    tasks = [f"{body}-{verb}" for body in bodies for verb in ("stand", "walk", "run", "jump", "roll")]
    chosen, seeds = (tasks, range(10)) if benchmark.enabled else (tasks[:2], range(2))
    grid(tmp_path / "runs", dict.fromkeys(names, 0.4), tasks=chosen, seeds=seeds, points=31)

    def report():
        return write(compare_runs(tmp_path / "runs", suite="dmc", profile="quick"), tmp_path / "out", title="large")

    started = time.perf_counter()
    page = benchmark.pedantic(report, rounds=1)
    assert page.stat().st_size < 20 * 2**20
    if benchmark.stats is None:
        return
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    benchmark.extra_info.update(floor_of=f"2,000 runs, peak memory of the process {memory / 2**20:,.0f} MiB")
    assert time.perf_counter() - started < MINUTE and memory < 2 * GIB
