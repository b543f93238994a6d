"""Settings of WPT's fine-tuning. Imports no torch. Defaults are the paper's (Table 6) and its authors' code's."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from wpt_bench.bounds import Count, Positive, Share, Size, Weight
from wpt_bench.world_model.config import WorldModelSize


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One set of hyperparameters for all tasks and all eight combinations of the three switches.

    Attributes:
        world_model, retrieved, guidance: taken from the profile. ``retrieved`` is k; ``guidance`` the share of the
            budget over which the probability of a guided episode falls linearly from 1 to 0.
        updates_per_step: gradient updates per agent step.
        batch, length: sequences per batch and agent steps per sequence.
        rehearsal: share of the batch drawn from the retrieved episodes; it leaves a sequence to the run's own.
        horizon: agent steps imagined. starts: posterior states of the batch that imagination starts from (0: all).
            start_from: which rows of the batch they are of: ``all``, rehearsed ones too, or ``online``.
        units, layers: hidden layers of actor, critic (``layers``) and reward head (two).
        model_lr, actor_critic_lr, adam_eps, grad_clip, weight_decay: Adam; the decay is multiplicative per update.
        entropy: weight of the policy's entropy. lam: of lambda-returns. slow_critic: share of the critic that enters
            the slow critic with each update.
        normalise_returns: divide returns by their 5-95% range where that exceeds one (DreamerV3). The paper does not;
            small models with few updates learn little without.
        prior_updates, prior_batch, prior_lr, prior_units, prior_depth: behaviour cloning of the prior.
    """

    world_model: WorldModelSize
    retrieved: Size = 500
    guidance: Weight = 1 / 3
    updates_per_step: Weight = 0.25
    batch: Size = 16
    length: Annotated[int, msgspec.Meta(ge=2)] = 64
    rehearsal: Share = 0.25
    horizon: Size = 16
    starts: Count = 0
    start_from: Literal["all", "online"] = "all"
    units: Size = 512
    layers: Size = 3
    model_lr: Positive = 1e-4
    actor_critic_lr: Positive = 8e-5
    adam_eps: Positive = 1e-5
    grad_clip: Positive = 100.0
    weight_decay: Share = 1e-6
    entropy: Weight = 1e-4
    lam: Share = 0.95
    slow_critic: Share = 0.02
    normalise_returns: bool = False
    prior_updates: Size = 150_000
    prior_batch: Size = 256
    prior_lr: Positive = 1e-4
    prior_units: Size = 512
    prior_depth: Size = 48

    def __post_init__(self) -> None:
        if round(self.rehearsal * self.batch) >= self.batch:
            raise ValueError(
                f"rehearsal {self.rehearsal} of a batch of {self.batch} leaves no sequence to the run's own episodes"
            )
