"""The arithmetic of distributions, as plain functions of tensors: no distribution objects in a hot loop."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TWO_HOT_BINS = 255
TWO_HOT_RANGE = 20.0
"""Two-hot heads have 255 bins, evenly spaced over [-20, 20] in symlog space (the WPT authors' code)."""
UNIMIX = 0.01
"""Share of the uniform distribution mixed into every categorical (DreamerV3, arXiv 2301.04104)."""


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|), elementwise (DreamerV3, eq. 1)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of ``symlog``."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def two_hot_loss(logits: Tensor, target: Tensor) -> Tensor:
    """-ln p(target) of a symlog two-hot head (DreamerV3, eq. 9-10).

    Args:
        logits: float ``(..., 255)``.
        target: float ``(...)``, in plain (not symlog) units; values beyond the outer bins count as those.

    Returns:
        float ``(...)``.
    """
    position = (symlog(target).clamp(-TWO_HOT_RANGE, TWO_HOT_RANGE) + TWO_HOT_RANGE) * (
        (TWO_HOT_BINS - 1) / (2 * TWO_HOT_RANGE)
    )
    below = position.floor().clamp(max=TWO_HOT_BINS - 2)
    share = (position - below).unsqueeze(-1)
    index = below.nan_to_num().long().unsqueeze(-1)  # a NaN target gives a NaN loss, not a bad index
    log_p = F.log_softmax(logits, -1)
    return -((1 - share) * log_p.gather(-1, index) + share * log_p.gather(-1, index + 1)).squeeze(-1)


def two_hot_mean(logits: Tensor) -> Tensor:
    """Mean of a symlog two-hot head in plain units: float ``(..., 255)`` to ``(...)``."""
    bins = torch.linspace(-TWO_HOT_RANGE, TWO_HOT_RANGE, TWO_HOT_BINS, device=logits.device, dtype=logits.dtype)
    return symexp(F.softmax(logits, -1) @ bins)


def unimix_log_probs(logits: Tensor) -> Tensor:
    """Log-probabilities over the last axis, mixed with 1% of the uniform distribution."""
    return torch.log((1 - UNIMIX) * F.softmax(logits, -1) + UNIMIX / logits.shape[-1])


def sample_one_hot(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """One-hot samples over the last axis, with straight-through gradients to the probabilities.

    Args:
        log_probs: float ``(..., classes)``.
        uniform: numbers in [0, 1), ``(...)``: each picks the class in whose share of the probability it falls.

    Returns:
        float ``(..., classes)``: exactly one-hot in value.
    """
    probs = log_probs.exp()
    passed = probs.detach().cumsum(-1)[..., :-1] <= uniform.unsqueeze(-1)
    hard = torch.zeros_like(probs).scatter_(-1, passed.sum(-1, keepdim=True), 1.0)
    return hard + (probs - probs.detach())


def categorical_kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) summed over the groups of latents: float ``(..., stoch, classes)`` to ``(...)``, in nats."""
    return (log_q.exp() * (log_q - log_p)).sum((-2, -1))


def clamp_straight_through(x: Tensor) -> Tensor:
    """Clamps to [-1, 1]; the gradient passes as if it had not (authors' truncated normal)."""
    return x + (x.clamp(-1.0, 1.0) - x).detach()


def normal_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Elementwise log-density of a normal distribution."""
    return -0.5 * ((x - mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)


def lambda_return(reward: Tensor, value: Tensor, discount: float, lam: float) -> Tensor:
    """Lambda-returns V_t = r_{t+1} + discount ((1 - lam) v_{t+1} + lam V_{t+1}), with V_H = v_H (DreamerV3, eq. 4).

    Args:
        reward: float ``(H, N)``; ``reward[t]`` arrives with state t + 1.
        value: float ``(H + 1, N)``, of states 0 to H.

    Returns:
        float ``(H, N)``, of states 0 to H - 1.
    """
    result = []
    following = value[-1]
    for step in range(len(reward) - 1, -1, -1):
        following = reward[step] + discount * ((1 - lam) * value[step + 1] + lam * following)
        result.append(following)
    return torch.stack(result[::-1])
