"""Losses of heads and latents, in compiled code where there is such code: else as in ``functional``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wpt_bench.world_model import functional, kernels
from wpt_bench.world_model.compiled import fits
from wpt_bench.world_model.functional import TWO_HOT_BINS, TWO_HOT_RANGE, symexp, two_hot_position, unimix_log_probs


def two_hot_mean(logits: Tensor) -> Tensor:
    """See ``functional.two_hot_mean``."""
    if not fits(logits):
        return functional.two_hot_mean(logits)
    flat, mean, gradient = _outputs(logits)
    bins = torch.linspace(-TWO_HOT_RANGE, TWO_HOT_RANGE, TWO_HOT_BINS)
    kernels.two_hot_mean(flat.numpy(), bins.numpy(), mean.numpy(), gradient.numpy())
    return symexp(_Known.apply(logits, mean.view(logits.shape[:-1]), gradient.view_as(logits)))


def two_hot_loss(logits: Tensor, target: Tensor) -> Tensor:
    """See ``functional.two_hot_loss``."""
    if not fits(logits):
        return functional.two_hot_loss(logits, target)
    flat, loss, gradient = _outputs(logits)
    below, share = two_hot_position(target.flatten())
    kernels.two_hot_loss(flat.numpy(), below.numpy(), share.numpy(), loss.numpy(), gradient.numpy())
    return _Known.apply(logits, loss.view(logits.shape[:-1]), gradient.view_as(logits))


def balanced_kl(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """KL(q || p) in nats, once with gradients to ``p`` alone and once to ``q`` alone.

    Args:
        q, p: logits ``(..., stoch, classes)`` of distributions that are mixed with the uniform one.

    Returns:
        float ``(...)`` each.
    """
    if not fits(q):
        log_q, log_p = unimix_log_probs(q), unimix_log_probs(p)
        return functional.categorical_kl(log_q.detach(), log_p), functional.categorical_kl(log_q, log_p.detach())
    flat_q, flat_p = (logits.detach().flatten(0, -3).contiguous() for logits in (q, p))
    kl, to_q, to_p = torch.empty(len(flat_q)), torch.empty_like(flat_q), torch.empty_like(flat_p)
    kernels.categorical_kl(*(tensor.numpy() for tensor in (flat_q, flat_p, kl, to_q, to_p)))
    kl = kl.view(q.shape[:-2])
    return _Known.apply(p, kl, to_p.view_as(p)), _Known.apply(q, kl, to_q.view_as(q))


class _Known(torch.autograd.Function):
    """A value of every row whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, of: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_value: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * to_value[(..., *[None] * (gradient.dim() - to_value.dim()))], None, None


def _outputs(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of logits, and room for a value of each and its gradient."""
    flat = logits.detach().reshape(-1, logits.shape[-1])
    return flat, torch.empty(len(flat)), torch.empty_like(flat)
