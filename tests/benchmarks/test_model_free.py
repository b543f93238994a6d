"""Two updates of the model-free methods at batch 256 and two layers of 256, drawing batches included, on two threads.

Two, because TD3's actor learns every second time.

``published``: what public code took on two threads of a machine of this kind, CORL's TD3+BC, IQL, SAC-N with ten
critics, CQL and Cal-QL, and Stable-Baselines3's SAC. The plain way computes critic by critic what ours computes for all
critics at once.
"""

import statistics
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from baselines import toy
from benchmarks.measure import products_per_second, seconds
from wpt_bench.baselines.agent import ModelFreeAgent
from wpt_bench.baselines.networks import EnsembleLinear, EnsembleNorm
from wpt_bench.data.views import DataView
from wpt_bench.protocol import Task, Units
from wpt_bench.running.machine import prepare_process

TASK = Task("toy", "walk", "walker", "walker", 24, 6, 1000, 2, "return", 1.0, False, "")
ROUNDS = 15


class OneByOne(nn.Module):
    """The layers of an ensemble, member by member as if they were networks of their own."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """``(members, N, inputs)`` to ``(members, N, 1)``."""
        return torch.stack([self._member(member, rows) for member, rows in enumerate(x)])

    def _member(self, member: int, x: Tensor) -> Tensor:
        for layer in self.layers:
            if isinstance(layer, EnsembleLinear):
                x = torch.addmm(layer.bias[member], x, layer.weight[member])
            elif isinstance(layer, EnsembleNorm):
                x = F.layer_norm(x, x.shape[-1:], layer.weight[member, 0], layer.bias[member, 0])
            else:
                x = layer(x)
        return x


def one_by_one(agent: ModelFreeAgent) -> ModelFreeAgent:
    """The agent, its critics computed one after the other."""
    for critic in (agent.critic, agent.slow_critic.module):
        critic.ensemble.layers = OneByOne(critic.ensemble.layers)
    return agent


def learner(name: str, folder: Path, **settings: int) -> ModelFreeAgent:
    """An agent with ten episodes of noise, its own and granted."""
    rng = np.random.default_rng(0)
    method = toy.method(name)
    sizes = {"hidden": 256, "layers": 2, "batch": 256, **settings}
    given = [
        toy.episode(
            rng.normal(size=(501, 24)).astype(np.float32),
            rng.uniform(-1, 1, (501, 6)).astype(np.float32),
            rng.uniform(size=501) if method.data_access == "labelled" else None,
        )
        for _ in range(10)
    ]
    made = toy.agent(
        method,
        "state",
        folder,
        task=TASK,
        units=Units.identity(24),
        data=DataView(method.data_access, given),
        budget=20_000,
        **sizes,
    )
    assert isinstance(made, ModelFreeAgent)
    for row in range(5010 if method.online else 0):
        action = rng.uniform(-1, 1, 6).astype(np.float32) if row % 501 else None
        made.observe(rng.normal(size=24).astype(np.float32), action, 0.5)
    return made


@pytest.mark.parametrize(
    ("name", "settings", "published"),
    [
        ("td3-bc", {}, 150),
        ("iql", {}, 109),
        ("sac", {}, 63),
        ("sac", {"members": 10}, 18),
        ("cql", {"actions": 10}, 11),
        ("cal-ql", {"actions": 10}, 11),
        ("rlpd", {"members": 10}, None),
    ],
    ids=["td3-bc", "iql", "sac", "sac-10-critics", "cql", "cal-ql", "rlpd"],
)
def test_two_updates(benchmark, name, settings, published, tmp_path):
    before = torch.get_num_threads()
    if benchmark.enabled:
        prepare_process(2)
    else:
        settings = {**settings, "hidden": 16, "batch": 16}
    try:
        ours, plain = learner(name, tmp_path, **settings), one_by_one(learner(name, tmp_path, **settings))
        references, losses = [], []

        def twice(agent: ModelFreeAgent) -> dict[str, float]:
            agent.update()
            return agent.update()

        def straightforward() -> None:
            references.append(seconds(lambda: losses.append(twice(plain))))

        found = benchmark.pedantic(partial(twice, ours), setup=straightforward, rounds=ROUNDS, warmup_rounds=3)
        assert found == pytest.approx(losses[-1], rel=2e-2, abs=1e-3)
        if benchmark.stats is None:  # benchmarks are switched off
            return
        with FlopCounterMode(display=False) as flops:
            twice(ours)
        median = benchmark.stats.stats.median
        reference = statistics.median(references[3:])
        work = flops.get_total_flops()
        benchmark.extra_info.update(
            floor=work / products_per_second(torch.float32),
            floor_of=f"{work / 1e9:.2f} GFLOP at the rate of a large fp32 matrix product",
            reference=reference,
            ratio=reference / median,
            threads=2,
        )
        if published is not None:
            benchmark.extra_info.update(published=2 / published, published_ratio=2 / published / median)
    finally:
        torch.set_num_threads(before)
