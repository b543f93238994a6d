"""How busy a grid keeps two cores, and how soon one of its workers takes the first step.

The grid is one pre-training and some runs with the networks of ``smoke``, on the real cartpole; the plain way makes
the same one after another, in one worker.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from running import small

from wpt_bench.data.store import Dataset
from wpt_bench.records import digest
from wpt_bench.running import bench
from wpt_bench.running.grid import run_grid
from wpt_bench.running.local import this_machine
from wpt_bench.running.plan import Layout

WORKERS = 2
START = """
import numpy as np
from wpt_bench import registry
import wpt_bench.running.grid, wpt_bench.wpt.agent
task = registry.task("dmc", "walker-walk")
env = registry.suite("dmc").make(task, "state")
env.reset(seed=0)
env.step(np.zeros(task.action_dim, np.float32))
"""
PLAIN_START = """
import torch
from dm_control import suite
env = suite.load("walker", "walk")
env.reset()
env.step([0] * 6)
"""


def test_a_grid_keeps_the_cores_busy(benchmark, tmp_path):
    updates, budget, seeds = (200, 3000, (0, 1, 2, 3)) if benchmark.enabled else (20, 2000, (0,))
    dataset = bench.ensure_data(small.selection(), Layout(tmp_path), small.silent, lambda question: False, workers=1)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    made = benchmark.pedantic(_grid, (tmp_path / "ours", dataset, updates, budget, seeds, WORKERS))
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert made == 1 + 2 * len(seeds)
    if benchmark.stats is None:  # benchmarks are switched off
        return
    occupied = _job_seconds(tmp_path / "ours")
    cpu = now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime
    started = time.perf_counter()
    _grid(tmp_path / "plain", dataset, updates, budget, seeds, 1)
    reference, ours = time.perf_counter() - started, benchmark.stats.stats.mean
    benchmark.extra_info.update(
        floor=cpu / WORKERS,
        floor_of="processor time of the workers over two cores",
        reference=reference,
        ratio=reference / ours,
        busy=cpu / WORKERS / ours,
        occupied=occupied / WORKERS / ours,  # which other programs on the machine do not change, but for its start
    )


def _grid(out: Path, dataset: Dataset, updates: int, budget: int, seeds: tuple[int, ...], workers: int) -> int:
    """Makes the grid in a folder of its own; returns how many jobs were done."""
    stage = small.stage(dataset.digest, updates=updates)
    runs = [small.identity("dreamer", None, seed, budget=budget, evaluation_every=0.5) for seed in seeds] + [
        msgspec.structs.replace(
            small.identity("wpt", dataset.digest, seed, budget=budget, evaluation_every=0.5), stage=digest(stage)
        )
        for seed in seeds
    ]
    outcome = run_grid(runs, Layout(out), dataset.path, lambda *what: None, this_machine(workers), stages=[stage])
    assert not outcome.failed
    return len(outcome.done)


def _job_seconds(out: Path) -> float:
    """Wall-clock of the pre-training and of all runs, summed."""
    files = [*out.glob("runs/*/run.json"), *out.glob("stages/*/stage.json")]
    return sum(msgspec.json.decode(path.read_bytes())["wall_clock"] for path in files)


def test_a_worker_starts(benchmark):
    benchmark.pedantic(_python, (START,), rounds=3, warmup_rounds=1)
    if benchmark.stats is None:
        return
    benchmark.extra_info.update(
        floor=min(_seconds("import torch, mujoco") for _ in range(3)),
        floor_of="importing torch and mujoco",
        reference=(reference := min(_seconds(PLAIN_START) for _ in range(3))),
        ratio=reference / benchmark.stats.stats.min,
    )


def _python(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True)


def _seconds(script: str) -> float:
    started = time.perf_counter()
    _python(script)
    return time.perf_counter() - started
