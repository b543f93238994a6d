"""What users wait for, in units of a calibration workload: the part of the regression gate that asks about speed.

Before each round the calibration does its work, so that whatever else the machine does slows down both. Times are the
processor's, of one thread: nothing here waits for anything but the processor, and a busy machine changes them less.
``throughput.py`` holds what is measured against ``results/throughput.json``.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from wpt import toy

from benchmarks import test_model_free, test_replay, test_update
from benchmarks.measure import calibration, seconds
from wpt_bench import profiles, registry
from wpt_bench.running.machine import prepare_process
from wpt_bench.running.provenance import provenance
from wpt_bench.wpt.pretraining import Pretrainer

ROUNDS, WARM_UP = 40, 5
PROFILE = "gate"


def wpt_update(_: Path) -> Callable[[], object]:
    return test_update.learner(test_update.settings_of(PROFILE), "state", "fp32").update


def pretraining_update(_: Path) -> Callable[[], object]:
    profile, rng = profiles.load(PROFILE), np.random.default_rng(0)
    episodes = [
        toy.episode(rng.normal(size=(101, 39)).astype(np.float32), rng.uniform(-1, 1, size=(101, 4)).astype(np.float32))
        for _ in range(20)
    ]
    return Pretrainer(episodes, profile.world_model, profile.pretraining, "state", "fp32", 0, "cpu").update


def sac_update(folder: Path) -> Callable[[], object]:
    return test_model_free.learner("sac", folder).update


def fifty_steps(suite: str, name: str, _: Path) -> Callable[[], object]:
    """From the reset on, always the same ones."""
    task = registry.task(suite, name)
    env = registry.suite(suite).make(task, "state")
    actions = np.random.default_rng(0).uniform(-1, 1, (50, task.action_dim)).astype(np.float32)

    def episode() -> None:
        env.reset(seed=0)
        for action in actions:
            env.step(action)

    return episode


def hundred_batches(_: Path) -> Callable[[], object]:
    replay, settings, rng = test_replay.states(6_000), test_update.settings_of(PROFILE), np.random.default_rng(0)

    def batches() -> None:
        for _ in range(100):
            replay.sample(settings.batch, settings.length, rng)

    return batches


FIGURES = {
    "an update of wpt": wpt_update,
    "an update of the pre-training": pretraining_update,
    "an update of sac": sac_update,
    "50 agent steps of walker-walk": partial(fifty_steps, "dmc", "walker-walk"),
    "50 agent steps of drawer-open": partial(fifty_steps, "metaworld", "drawer-open"),
    "100 batches from the replay": hundred_batches,
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("name", FIGURES)
def test_throughput(benchmark, name, tmp_path):
    threads = torch.get_num_threads()
    if benchmark.enabled:
        prepare_process(1)
    try:
        ours, calibrate, calibrations = FIGURES[name](tmp_path), calibration(), []

        def timed_calibration() -> None:
            calibrations.append(seconds(calibrate, time.process_time))

        benchmark.pedantic(ours, setup=timed_calibration, rounds=ROUNDS, warmup_rounds=WARM_UP)
        made_on = provenance()
    finally:
        torch.set_num_threads(threads)
    if benchmark.stats is None:  # benchmarks are switched off
        return
    calibration_takes = statistics.median(calibrations[WARM_UP:])
    benchmark.extra_info.update(
        calibrations=benchmark.stats.stats.median / calibration_takes,
        calibration=calibration_takes,
        rounds=ROUNDS,
        **{key: made_on[key] for key in ("threads", "machine", "versions")},
    )
