"""One fine-tuning update (world model, imagination, actor, critic) against the straightforward one.

Before each round the straightforward update does the same work, so that whatever else the machine does slows down
both. ``published`` is the best public code at these sizes, as measured once on a machine of this kind (two cores of an
EPYC with AVX512-BF16): r2dreamer from states, the method's authors' code from pixels.
"""

import statistics

import msgspec
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from wpt import toy
from wpt.straightforward import Straightforward

from benchmarks.measure import products_per_second, seconds
from wpt_bench import profiles
from wpt_bench.protocol import Task
from wpt_bench.running.machine import prepare_process
from wpt_bench.world_model import rssm
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.wpt.agent import Switches, WPTAgent
from wpt_bench.wpt.settings import Settings

NONE = Switches(pretrain=False, rehearsal=False, guidance=False)
TASK = Task("toy", "walk", "walker", "walker", 24, 6, 1000, 2, "return", 1.0, False, "")
COMMON = Settings(
    world_model=WorldModelSize(deter=256, hidden=128, stoch=16, classes=16, blocks=8, cnn_depth=16, units=128),
    batch=16,
    length=32,
    horizon=16,
    units=128,
    adam_eps=1e-8,
    normalise_returns=True,
)
ROUNDS = 9


def settings_of(name: str) -> Settings:
    """WPT's settings in a profile."""
    profile = profiles.load(name)
    return msgspec.convert({"world_model": profile.world_model, **profile.settings["wpt"]}, Settings)


def learner(settings: Settings, observation: str, precision: str) -> WPTAgent:
    """An agent that has seen two episodes of noise."""
    shape = (24,) if observation == "state" else (64, 64, 3)
    first = np.zeros(shape, np.float32 if observation == "state" else np.uint8)
    made = toy.agent(
        NONE,
        None,
        settings,
        task=TASK,
        observation=observation,
        precision=precision,
        initial_observation=first,
        budget=4000,
        units=toy.Units.identity(24),
    )
    rng = np.random.default_rng(0)
    for row in range(400):
        seen = rng.normal(size=shape) if observation == "state" else rng.integers(0, 256, shape)
        made.observe(seen.astype(first.dtype), rng.uniform(-1, 1, 6).astype(np.float32) if row % 200 else None, 0.5)
    return made


@pytest.mark.parametrize(
    ("name", "observation", "precision", "threads", "published"),
    [
        ("common", "state", "fp32", 2, 0.71),
        ("common", "state", "bf16", 2, None),
        ("lite", "state", "fp32", 1, None),
        ("common", "pixels", "fp32", 2, 1.69),
        ("common", "pixels", "bf16", 2, 1.69),
    ],
)
def test_update(benchmark, monkeypatch, name, observation, precision, threads, published):
    settings = COMMON if name == "common" else settings_of(name)
    if not benchmark.enabled:
        settings = msgspec.structs.replace(
            settings, world_model=toy.SIZE, units=32, batch=4, length=8, horizon=3, starts=8
        )
    before = torch.get_num_threads()
    if benchmark.enabled:
        prepare_process(threads)
    try:
        fast = learner(settings, observation, precision)
        reference = Straightforward(learner(settings, observation, "fp32"))
        references, losses = [], []

        def straightforward() -> None:
            references.append(seconds(lambda: losses.append(reference.update())))

        found = benchmark.pedantic(fast.update, setup=straightforward, rounds=ROUNDS, warmup_rounds=1)
        tolerance = 1e-3 if precision == "fp32" else 0.05
        assert {key: found[key] for key in losses[-1]} == pytest.approx(losses[-1], rel=tolerance, abs=0.01)
        if benchmark.stats is None:  # benchmarks are switched off
            return
        with monkeypatch.context() as plain, FlopCounterMode(display=False) as flops:
            plain.setattr(rssm, "fits", lambda *_: False)  # compiled code is not counted
            fast.update()
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        work, median, ours = flops.get_total_flops(), statistics.median(references[1:]), benchmark.stats.stats.median
        benchmark.extra_info.update(
            floor=work / products_per_second(dtype),
            floor_of=f"{work / 1e9:.1f} GFLOP at the rate of a large {precision} matrix product",
            reference=median,
            ratio=median / ours,
            threads=threads,
        )
        if published is not None:
            benchmark.extra_info.update(published=published, published_ratio=published / ours)
    finally:
        torch.set_num_threads(before)
