"""Settings of WPT's fine-tuning. Imports no torch. Defaults are the paper's (Table 6) and its authors' code's."""

from __future__ import annotations

from typing import Literal

import msgspec

from wpt_bench.world_model.config import WorldModelSize


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One set of hyperparameters for all tasks and all eight combinations of the three switches.

    Attributes:
        world_model, retrieved, guidance: taken from the profile. ``retrieved`` is k; ``guidance`` the share of the
            budget over which the probability of a guided episode falls linearly from 1 to 0.
        updates_per_step: gradient updates per agent step.
        batch, length: sequences per batch and agent steps per sequence.
        rehearsal: share of the batch drawn from the retrieved episodes.
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
    retrieved: int = 500
    guidance: float = 1 / 3
    updates_per_step: float = 0.25
    batch: int = 16
    length: int = 64
    rehearsal: float = 0.25
    horizon: int = 16
    starts: int = 0
    start_from: Literal["all", "online"] = "all"
    units: int = 512
    layers: int = 3
    model_lr: float = 1e-4
    actor_critic_lr: float = 8e-5
    adam_eps: float = 1e-5
    grad_clip: float = 100.0
    weight_decay: float = 1e-6
    entropy: float = 1e-4
    lam: float = 0.95
    slow_critic: float = 0.02
    normalise_returns: bool = False
    prior_updates: int = 150_000
    prior_batch: int = 256
    prior_lr: float = 1e-4
    prior_units: int = 512
    prior_depth: int = 48
