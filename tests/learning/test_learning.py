"""Every method learns, by the real harness on a small real task: from random it gets at least a third of the way to the
best there is, on every task it is given and with every seed. (Most get nearly all of it; UDS, which takes all offline
rewards for zero, gets half.)

The tasks are points in a box (``tests/data/tiny_suite.py``); offline episodes lean one way or another, so that some of
them are good at the task. All seeds and budgets were fixed before; settings are small and the same for all methods but
for the ratio of updates.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from data import tiny_suite
from running.small import silent

from wpt_bench import records, registry
from wpt_bench.profiles import Data, Grid, Pretraining, Profile
from wpt_bench.protocol import Method, episode_seed
from wpt_bench.records import Identity
from wpt_bench.running.loop import execute
from wpt_bench.running.plan import Layout, identities, select, stages
from wpt_bench.running.stages import make
from wpt_bench.world_model.config import WorldModelSize

SEEDS = (0, 1)
EPISODES = 10
ONE, ALL = ("cart-left",), ("cart-left", "cart-right", "boat-right")
WORLD_MODELS = ("dreamer", "wpt", "wpt-no-guidance")
METHODS = [one for one in registry.methods().values() if one.settings_group or one.name in WORLD_MODELS]


def cases(methods: Iterable[Method]) -> list[Any]:
    """Methods with each kind of observation that they take."""
    return [pytest.param(one, kind, id=f"{one.name}-{kind}") for one in methods for kind in one.observations]


CASES, EVERY = cases(METHODS), cases(registry.methods().values())


def profile(kind: str) -> Profile:
    """Small enough that a run takes some seconds."""
    pixels = kind == "pixels"
    model_free = {"hidden": 64, "layers": 2, "channels": 8, "batch": 32 if pixels else 64}
    model_free |= {"updates_per_step": 1.0, "actor_every": 1, "offline_updates": 1000 if pixels else 1500}
    rate = 3e-4 if pixels else 1e-3
    model_free |= {"learning_rate": rate, "actor_rate": rate, "target_rate": 0.005 if pixels else 0.01}
    prior = {"prior_updates": 200, "prior_batch": 64, "prior_lr": 1e-3, "prior_units": 64, "prior_depth": 8}
    wpt = {"updates_per_step": 0.5, "batch": 8 if pixels else 16, "length": 8, "horizon": 6, "starts": 64}
    wpt |= {"units": 64, "layers": 1}
    wpt |= {"model_lr": 3e-3, "actor_critic_lr": 2e-3, "adam_eps": 1e-8, "entropy": 1e-3, "normalise_returns": True}
    return Profile(
        name=f"learning-{kind}",
        description="",
        observation=kind,
        world_model=WorldModelSize(deter=64, hidden=32, stoch=8, classes=8, blocks=2, units=64, layers=1, cnn_depth=8),
        pretraining=Pretraining(updates=200, batch=16, length=8, learning_rate=3e-3, adam_eps=1e-8),
        grids={
            "tiny": Grid(
                tasks=ONE,
                seeds=SEEDS,
                methods=(),
                budget=tiny_suite.FRAMES * (60 if pixels else 100),
                data=Data(pixels=pixels),
                evaluation_every=1.0,
                evaluation_episodes=EPISODES,
                retrieved=20,
            )
        },
        settings={"model-free": model_free | prior, "wpt": wpt | prior},
        minutes=1,
        memory_gib=1,
        disk_gib=1,
    )


@pytest.fixture(scope="module", autouse=True)
def _known(monkeypatch_module: pytest.MonkeyPatch) -> None:
    monkeypatch_module.setattr(registry, "suites", lambda: {"tiny": tiny_suite.SUITE})


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("learning"))


@pytest.mark.learning
@pytest.mark.parametrize(("method", "kind"), CASES)
def test_learning(method: Method, kind: str, layout: Layout, record_property: Any) -> None:
    lines, problems = [], []
    runs, data = begin(method, profile(kind), layout)
    for task in dict.fromkeys(run.task for run in runs):
        learned = [learn(run, layout, data) for run in runs if run.task == task]
        random, best = played(task, "random"), played(task, "best")
        lines.append(f"{task} {random:.2f} " + "/".join(f"{score:.2f}" for score in learned) + f" {best:.2f}")
        if min(learned) < random + (best - random) / 3:
            problems.append(lines[-1])
    record_property("learning", f"{method.name:18} {kind:7} " + " · ".join(lines))
    assert not problems


@pytest.mark.parametrize(("method", "kind"), EVERY)
def test_a_short_pass(method: Method, kind: str, layout: Layout) -> None:
    """Every method and kind of observation goes all the way, though no way far."""
    runs, data = begin(method, short(profile(kind)), layout)
    for run in runs:
        execute(run, layout, data, silent)
        made = records.read_run(layout.runs / records.digest(run))
        assert made.status == "done" and made.updates > 0


def short(whole: Profile) -> Profile:
    """The same with a few episodes and updates."""
    grid = msgspec.structs.replace(whole.grids["tiny"], seeds=(0,), budget=4 * tiny_suite.FRAMES, evaluation_episodes=2)
    fewer = {"prior_updates": 5, "batch": 8, "updates_per_step": 0.1}
    return msgspec.structs.replace(
        whole,
        pretraining=msgspec.structs.replace(whole.pretraining, updates=2),
        grids={"tiny": grid},
        settings={
            "model-free": whole.settings["model-free"] | fewer | {"offline_updates": 5},
            "wpt": whole.settings["wpt"] | fewer,
        },
    )


def begin(method: Method, whole: Profile, layout: Layout) -> tuple[list[Identity], Path]:
    """The runs of a method, with their data and stages made."""
    selection = select("tiny", whole, ALL if method.shared else ONE, (method.name,))
    folder = layout.data("tiny", whole.name)
    if not folder.exists():
        pixels = whole.observation == "pixels"
        tiny_suite.build(folder, ("cart", "boat"), episodes=60, collectors=("noise", "drift"), pixels=pixels)
    data = tiny_suite.Dataset.open(folder)
    for stage in stages(selection, data.digest):
        make(stage, layout, data.path, silent)
    return identities(selection, data.digest), data.path


def learn(identity: Identity, layout: Layout, data: Path) -> float:
    """The score of one run at its end."""
    execute(identity, layout, data, silent)
    rows = records.read_episodes(layout.runs / records.digest(identity))
    last = [row.episode_return for row in rows if row.kind == "evaluation"][-EPISODES:]
    return float(np.mean(last)) / tiny_suite.FRAMES


@cache
def played(name: str, how: str) -> float:
    """The score of uniform actions, or of those that go straight where the task wants, in the evaluation's episodes."""
    task = tiny_suite.TASKS[name]
    toward = -1.0 if name.endswith("left") else 1.0
    scores = []
    for seed in SEEDS:
        for index in range(EPISODES):
            env = tiny_suite.SUITE.make(task, "state")
            env.reset(seed=episode_seed(seed, "evaluation", index))
            rng, total, truncated = np.random.default_rng([seed, index]), 0.0, False
            while not truncated:
                action = rng.uniform(-1, 1, task.action_dim) if how == "random" else np.full(task.action_dim, toward)
                _, reward, _, truncated, _ = env.step(action)
                total += reward
            scores.append(total / tiny_suite.FRAMES)
    return float(np.mean(scores))
