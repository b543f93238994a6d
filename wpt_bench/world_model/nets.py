"""Layers of the networks, and the decoder of states. Time and batch are flattened: the leading axes are free."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wpt_bench.world_model.config import WorldModelSize

NORM_EPS = 1e-3


class NormSiLU(nn.Module):
    """LayerNorm over the last axis, then SiLU: the activation of every hidden layer here."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        # In bfloat16, torch's norm gives wrong gradients of scale and shift when there are many rows.
        return F.silu(self.norm(widened(x)))


class BlockLinear(nn.Module):
    """A linear layer whose matrix is block-diagonal: ``(N, inputs)`` to ``(N, outputs)``."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Block ``b`` of the outputs sees block ``b`` of the inputs only."""
        blocks, width, _ = self.weight.shape
        y = torch.bmm(x.view(-1, blocks, width).transpose(0, 1), self.weight)
        y = y.transpose(0, 1).reshape(len(x), -1)
        return y if self.bias is None else y + self.bias


class InputLinear(nn.Linear):
    """A first layer, of numbers whose size matters: actions, states.

    The norm behind it makes the same of ``W x`` and ``W 2x``; beside a bias that does not start at zero, it does not.
    """


def mixed(device: torch.device, bf16: bool) -> torch.autocast:
    """A context in which, with ``bf16``, matrix products and convolutions take their inputs in bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def widened(x: Tensor) -> Tensor:
    """bfloat16 as float32; anything else as it is."""
    return x.float() if x.dtype == torch.bfloat16 else x


def initialise(module: nn.Module) -> None:
    """Truncated-normal weights of variance 1 / mean(fan in, fan out), zero biases (DreamerV3's initialiser).

    But biases of an ``InputLinear`` are uniform in +-1 / sqrt(inputs) (as the authors' code has them).
    """
    for part in module.modules():
        if isinstance(part, BlockLinear):
            _, inputs, outputs = part.weight.shape
        elif isinstance(part, nn.Linear):
            outputs, inputs = part.weight.shape
        elif isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            area = part.kernel_size[0] * part.kernel_size[1]
            inputs, outputs = part.in_channels * area, part.out_channels * area
        else:
            continue
        std = (2 / (inputs + outputs)) ** 0.5 / 0.8796  # a normal cut at two deviations has deviation 0.8796
        nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(part, InputLinear):
            nn.init.uniform_(part.bias, -(inputs**-0.5), inputs**-0.5)
        elif part.bias is not None:
            nn.init.zeros_(part.bias)


def mlp(inputs: int, units: int, layers: int, outputs: int | None, *, first: bool = False) -> nn.Sequential:
    """``layers`` hidden layers of ``units``; then a linear layer to ``outputs`` unless that is None.

    ``first``: whether it takes actions or states, see ``InputLinear``, and not what another network made of them.
    """
    parts: list[nn.Module] = []
    for layer in range(layers):
        linear = InputLinear(inputs, units) if first and layer == 0 else nn.Linear(inputs, units, bias=False)
        parts += [linear, NormSiLU(units)]
        inputs = units
    if outputs is not None:
        parts.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*parts)


def head(inputs: int, units: int, layers: int, outputs: int, scale: float = 0.0) -> nn.Sequential:
    """An MLP; reward and critic start at zero output (``scale`` 0), actors near a zero mean (DreamerV3)."""
    network = mlp(inputs, units, layers, outputs)
    initialise(network)
    last = network[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(scale)
    return network


class StateDecoder(nn.Module):
    """Latent states to padded state observations in symlog space, ``(N, STATE_PAD)``."""

    def __init__(self, size: WorldModelSize, outputs: int) -> None:
        super().__init__()
        self.layers = mlp(size.feature, size.units, size.layers, outputs)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """Predictions ``(N, outputs)``."""
        return self.layers(torch.cat([deter, stoch], -1))
