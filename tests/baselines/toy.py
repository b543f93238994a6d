"""Labelled and reward-free episodes of the toy task, and what every baseline needs to be built for it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wpt import toy

from wpt_bench.baselines.agent import GROUP
from wpt_bench.baselines.methods import METHODS
from wpt_bench.data.views import DataView, EpisodeView
from wpt_bench.protocol import Agent, AgentContext, DataAccess, Method, Units

SMALL = {
    "hidden": 16,
    "layers": 2,
    "channels": 4,
    "batch": 8,
    "updates_per_step": 1.0,
    "actor_every": 1,
    "offline_updates": 3,
    "world_model": toy.SIZE,
    "retrieved": 3,
    "prior_updates": 5,
    "prior_batch": 8,
    "prior_units": 16,
    "prior_depth": 4,
}
TASKS = (toy.task(), dataclasses.replace(toy.task(), name="leave"))
CASES = [(method, kind) for method in METHODS for kind in method.observations]


def method(name: str) -> Method:
    """The baseline of this name."""
    return next(one for one in METHODS if one.name == name)


def settings(one: Method, **changes: Any) -> Any:
    """The method's settings at a size for tests."""
    assert one.settings_group == GROUP
    values = {**SMALL, **changes}
    return one.settings(**{name: value for name, value in values.items() if name in one.settings.__struct_fields__})


def episode(
    state: NDArray[Any], action: NDArray[np.float32], reward: Sequence[float] | None, task: str | None = None
) -> EpisodeView:
    """An episode with labels, or without."""
    labels = None if reward is None else (np.array(reward, np.float32), np.zeros(len(reward), np.float32))
    access = DataAccess.REWARD_FREE if reward is None else DataAccess.LABELLED
    units = Units.identity(0) if state.ndim > 2 else Units.identity(state.shape[1])
    return EpisodeView(state, action, units, action.shape[1], access, labels, task)


def episodes(one: Method, kind: str, count: int = 4) -> list[EpisodeView]:
    """Episodes as the method's grant gives them: with labels or task identity where it declares so."""
    rng = np.random.default_rng(0)
    made = []
    shape = (toy.STEPS + 1, 3) if kind == "state" else (toy.STEPS + 1, 64, 64, 3)
    for _ in range(count):
        seen = rng.normal(size=shape).astype(np.float32)
        seen = seen if kind == "state" else rng.integers(0, 256, shape).astype(np.uint8)
        action = rng.uniform(-1, 1, (toy.STEPS + 1, 2)).astype(np.float32)
        rewarded = one.data_access in (DataAccess.LABELLED, DataAccess.LABELLED_MULTITASK)
        for task in TASKS if one.shared else (None,):
            reward = rng.uniform(size=toy.STEPS + 1) if rewarded else None
            made.append(episode(seen, action, reward, None if task is None else task.name))
    return made


def agent(one: Method, kind: str, folder: Path, **changes: Any) -> Agent:
    """The method's agent for the toy task; ``changes`` are to its context or, where they name them, its settings."""
    return one.build(context(one, kind, folder, **changes))


def context(one: Method, kind: str, folder: Path, **changes: Any) -> AgentContext:
    """What an agent of the method is told."""
    own = {name: changes.pop(name) for name in list(changes) if name in one.settings.__struct_fields__}
    given = episodes(one, kind)
    first = given[0].observation[0]
    values = {
        "observation": kind,
        "initial_observation": first,
        "units": Units.identity(3 if kind == "state" else 0),
        "data": DataView(one.data_access, given),
        "tasks": TASKS if one.shared else TASKS[:1],
        **changes,
    }
    weights = toy.write_weights(folder, kind) if one.pretrained else None
    return toy.context(weights, settings(one, **own), **values)


def fill(made: Agent, kind: str, count: int = 2) -> None:
    """Gives the agent ``count`` episodes of its own."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        for step in range(toy.STEPS + 1):
            seen = rng.normal(size=3).astype(np.float32)
            if kind == "pixels":
                seen = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
            else:
                seen = toy.measured(seen, made.context.units)
            made.observe(seen, rng.uniform(-1, 1, 2).astype(np.float32) if step else None, float(step > 0))
