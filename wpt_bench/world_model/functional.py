"""The arithmetic of distributions, as plain functions of tensors: no distribution objects in a hot loop."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    below, share = two_hot_position(target)
    index, share = below.unsqueeze(-1), share.unsqueeze(-1)
    return _TwoHotLoss.apply(logits, torch.cat([index, index + 1], -1), torch.cat([1 - share, share], -1))


def two_hot_position(target: Tensor) -> tuple[Tensor, Tensor]:
    """The bin below a number in plain units, int64, and the share of the bin above it: ``(...)`` each."""
    position = (symlog(target).clamp(-TWO_HOT_RANGE, TWO_HOT_RANGE) + TWO_HOT_RANGE) * (
        (TWO_HOT_BINS - 1) / (2 * TWO_HOT_RANGE)
    )
    below = position.floor().clamp(max=TWO_HOT_BINS - 2)
    return below.nan_to_num().long(), position - below  # a NaN target gives a NaN loss, not a bad index


class _TwoHotLoss(torch.autograd.Function):
    """Cross-entropy with two classes: its gradient is softmax minus target, made in place in two passes."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, share: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, -1)
        ctx.save_for_backward(log_p, index, share)
        return -(log_p.gather(-1, index) * share).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        log_p, index, share = ctx.saved_tensors
        return log_p.exp().scatter_add_(-1, index, -share).mul_(gradient.unsqueeze(-1)), None, None


def two_hot_mean(logits: Tensor) -> Tensor:
    """Mean of a symlog two-hot head in plain units: float ``(..., 255)`` to ``(...)``."""
    bins = torch.linspace(-TWO_HOT_RANGE, TWO_HOT_RANGE, TWO_HOT_BINS, device=logits.device, dtype=logits.dtype)
    return symexp(F.softmax(logits, -1) @ bins)


def unimix_log_probs(logits: Tensor) -> Tensor:
    """Log-probabilities over the last axis, mixed with 1% of the uniform distribution."""
    return torch.log((1 - UNIMIX) * F.softmax(logits, -1) + UNIMIX / logits.shape[-1])


def sample_one_hot(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """One-hot samples over the last axis, from probabilities mixed with 1% of the uniform distribution.

    Args:
        logits: float ``(..., classes)``.
        uniform: numbers in [0, 1), ``(...)``: each picks the class in whose share of the probability it falls.

    Returns:
        The sample and the probabilities before mixing, both float ``(..., classes)``.
    """
    probs = F.softmax(logits, -1)
    classes = probs.shape[-1]
    shares = torch.add(_uniform_shares(classes, probs.device, probs.dtype), probs.cumsum(-1), alpha=1 - UNIMIX)
    picked = torch.searchsorted(shares, uniform.unsqueeze(-1), right=True).clamp_(max=classes - 1)
    return torch.zeros_like(probs).scatter_(-1, picked, 1.0), probs


@lru_cache
def _uniform_shares(classes: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The uniform distribution's part of the cumulative shares."""
    return UNIMIX / classes * torch.arange(1, classes + 1, device=device, dtype=dtype)


def sample_one_hot_backward(gradient: Tensor, probs: Tensor) -> Tensor:
    """The gradient of the logits from that of the sample: straight through to the mixed probabilities."""
    return torch.ops.aten._softmax_backward_data(gradient * (1 - UNIMIX), probs, -1, probs.dtype)


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
        reward, value: float ``(H, N)``, of states 1 to H.

    Returns:
        float ``(H, N)``, of states 0 to H - 1.
    """
    # Linear in rewards and values: two small matrices instead of a loop.
    steps = torch.arange(len(reward), device=reward.device, dtype=reward.dtype)
    ahead = steps - steps.unsqueeze(-1)
    decay = torch.where(ahead >= 0, (discount * lam) ** ahead, 0.0)
    following = discount * (1 - lam) * decay
    following[:, -1] += discount * lam * decay[:, -1]
    return decay @ reward + following @ value


def to_floats(metrics: dict[str, Tensor]) -> dict[str, float]:
    """Scalars as numbers, all in one transfer from their device."""
    return dict(zip(metrics, torch.stack(list(metrics.values())).tolist(), strict=True))
