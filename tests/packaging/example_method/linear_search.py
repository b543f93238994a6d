"""Random search over linear policies: try a changed one every episode, keep it if its return is the best so far."""

import msgspec
import numpy as np
import torch

from wpt_bench.protocol import DataAccess, Method, Range


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    noise: float = 0.3


class LinearSearch:
    def __init__(self, context):
        self.task, self.units, self.noise = context.task, context.units, context.settings.noise
        self.best = self.candidate = np.zeros((self.task.action_dim, self.task.state_dim + 1))
        self.best_return, self.steps, self.total = -np.inf, 0, 0.0

    def offline(self, progress):
        return {}  # nothing to learn before the first step: no data was asked for

    def begin(self, batch, *, seed, evaluation):  # what it returns is the carry, handed to every `act` of the episode
        if evaluation:
            return self.best
        self.candidate = self.best + np.random.default_rng(seed).normal(scale=self.noise, size=self.best.shape)
        return self.candidate

    def act(self, carry, observation, *, evaluation):  # (batch, state_dim) -> (batch, action_dim)
        inputs = np.pad(self.units.apply(observation), ((0, 0), (0, 1)), constant_values=1.0)
        return np.tanh(inputs @ carry.T).astype(np.float32), carry

    def observe(self, observation, action, reward):  # of training episodes only; action is None after a reset
        self.steps, self.total = (0, 0.0) if action is None else (self.steps + 1, self.total + reward)
        if self.steps == self.task.agent_steps and self.total > self.best_return:
            self.best, self.best_return = self.candidate, self.total

    def episode_metrics(self, carry):
        return {"best_return": self.best_return}

    def update(self):
        return {}  # no gradients here, as updates_per_step says below

    def state_dict(self):  # tensors and JSON values; a killed run goes on from here
        return {"best": torch.from_numpy(self.best), "best_return": torch.tensor(self.best_return)}

    def load_state_dict(self, state):
        self.best, self.best_return = state["best"].numpy(), float(state["best_return"])


METHOD = Method(
    name="linear-search",
    version=1,  # raise it when behaviour changes: older runs are then never mixed in
    family="From scratch",
    data_access=DataAccess.NONE,
    observations=("state",),
    paper="yours",
    build=LinearSearch,
    settings=Settings,
    settings_name="linear-search",  # a profile overrides them in [settings.linear-search]
    updates_per_step=lambda settings: 0.0,
    search={"noise": Range(0.03, 3.0, log=True)},  # what `wpt-bench tune` may change, nothing that changes the cost
)
