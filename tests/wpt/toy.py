"""A toy task, its offline episodes, and an agent for it: small enough that a test takes a second."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import ACTION_PAD, STATE_PAD, AgentContext, DataAccess, Task, Units
from wpt_bench.running.checkpoint import encode
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.model import WorldModel
from wpt_bench.wpt.agent import Switches, WPTAgent
from wpt_bench.wpt.settings import Settings

SIZE = WorldModelSize(deter=32, hidden=16, stoch=4, classes=4, blocks=2, units=32, layers=1, cnn_depth=4)
SETTINGS = Settings(
    world_model=SIZE,
    retrieved=3,
    batch=8,
    length=8,
    horizon=5,
    starts=32,
    units=32,
    layers=1,
    model_lr=1e-3,
    actor_critic_lr=1e-3,
    normalise_returns=True,
    prior_updates=30,
    prior_batch=32,
    prior_units=32,
    prior_lr=3e-3,
    prior_depth=4,
)
STEPS = 20


def task(action_dim: int = 2) -> Task:
    """A point in the plane."""
    return Task("toy", "reach", "point", "point", 3, action_dim, 2 * STEPS, 2, "return", 1.0, False, "")


def write_weights(folder: Path, observation: str = "state") -> Path:
    """A world model as if pre-trained."""
    torch.manual_seed(7)
    path = folder / "weights.safetensors"
    path.write_bytes(encode(WorldModel(SIZE, observation, STATE_PAD, ACTION_PAD).state_dict()))
    return path


UNITS = Units(np.zeros(3, np.float32), np.array([1 / 64, 32, 1 / 8], np.float32))
"""Of a suite whose states are no numbers of order one; powers of two, with which nothing is rounded."""


def measured(state: NDArray[np.float32], units: Units) -> NDArray[np.float32]:
    """The numbers in which a suite of these units gives a state."""
    return state / units.scale + units.offset


def episode(observation: NDArray[Any], action: NDArray[np.float32]) -> EpisodeView:
    """A reward-free episode whose states need no scaling."""
    return EpisodeView(
        observation=observation,
        action=action,
        units=Units.identity(observation.shape[1]),
        action_dim=action.shape[1],
        access=DataAccess.REWARD_FREE,
    )


def episodes(count: int = 6, action_dim: int = 2) -> list[EpisodeView]:
    """Offline episodes; the i-th starts at (i, i, i)."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(count):
        state = rng.normal(size=(STEPS + 1, 3)).astype(np.float32)
        state[0] = index
        made.append(episode(state, np.full((STEPS + 1, action_dim), 0.1 * index, np.float32)))
    return made


def agent(switches: Switches, pretrained: Path | None, settings: Settings = SETTINGS, **changes: Any) -> WPTAgent:
    """An agent for ten episodes of the toy task."""
    return WPTAgent(context(pretrained, settings, **changes), switches)


def context(pretrained: Path | None, settings: Settings = SETTINGS, **changes: Any) -> AgentContext:
    """What the agent is told."""
    values = {
        "task": task(),
        "observation": "state",
        "units": Units.identity(3),
        "seed": 0,
        "budget": 2 * STEPS * 10,
        "data": SimpleNamespace(episodes=episodes),
        "settings": settings,
        "pretrained": pretrained,
        "initial_observation": np.zeros(3, np.float32),
        "device": "cpu",
        "precision": "fp32",
        "tasks": (),
    }
    return AgentContext(**(values | changes))


def fill(agent: WPTAgent, count: int = 2, reward: float = 1.0) -> None:
    """Gives the agent ``count`` online episodes."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        for step in range(STEPS + 1):
            action = rng.uniform(-1, 1, 2).astype(np.float32) if step else None
            state = measured(rng.normal(size=3).astype(np.float32), agent.context.units)
            agent.observe(state, action, reward * (step > 0))


LEARNING = msgspec.structs.replace(
    SETTINGS, batch=16, length=16, horizon=8, starts=128, entropy=1e-3, model_lr=4e-3, actor_critic_lr=2e-3
)
"""Settings with which 300 updates are enough for ``learn``."""


def learn(agent: WPTAgent, update: Callable[[], object], seed: int) -> tuple[float, float]:
    """Moves a point to the origin of the plane, for 20 episodes; mean returns of random play and after training."""
    rng = np.random.default_rng(seed)

    def play(evaluation: bool, episode: int) -> float:
        state = rng.uniform(-1, 1, 3).astype(np.float32)
        state[2] = 0
        carry = agent.begin(1, seed=episode, evaluation=evaluation)
        if not evaluation:
            agent.observe(state.copy(), None, 0.0)
        total = 0.0
        for _ in range(STEPS):
            action, carry = agent.act(carry, state[None], evaluation=evaluation)
            state[:2] = np.clip(state[:2] + 0.25 * action[0], -1, 1)
            reward = 1.0 - float(np.linalg.norm(state[:2]))
            total += reward
            if not evaluation:
                agent.observe(state.copy(), action[0], reward)
        return total

    random_play = float(np.mean([play(False, episode) for episode in range(2)]))  # warm-up: uniform actions
    for index in range(18):
        for _ in range(17):
            update()
        play(False, 100 + index)
    return random_play, float(np.mean([play(True, episode) for episode in range(200, 210)]))
