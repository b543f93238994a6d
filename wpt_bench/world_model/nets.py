"""Layers, encoders and decoders. Observations are time-and-batch flattened: the leading axes are free."""

from __future__ import annotations

from itertools import pairwise

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
        return F.silu(self.norm(x))


class ChannelNormSiLU(NormSiLU):
    """LayerNorm over the channels of an image ``(N, C, H, W)``, then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        return F.silu(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class BlockLinear(nn.Module):
    """A linear layer whose matrix is block-diagonal: ``(N, inputs)`` to ``(N, outputs)``."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Block ``b`` of the outputs sees block ``b`` of the inputs only."""
        blocks, width, _ = self.weight.shape
        y = torch.bmm(x.view(-1, blocks, width).transpose(0, 1), self.weight)
        return y.transpose(0, 1).reshape(len(x), -1) + self.bias


def initialise(module: nn.Module) -> None:
    """Truncated-normal weights of variance 1 / mean(fan in, fan out), zero biases (DreamerV3's initialiser)."""
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
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def mlp(inputs: int, units: int, layers: int, outputs: int | None) -> nn.Sequential:
    """``layers`` hidden layers of ``units``; then a linear layer to ``outputs`` unless that is None."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(inputs, units, bias=False), NormSiLU(units)]
        inputs = units
    if outputs is not None:
        parts.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*parts)


class ConvEncoder(nn.Module):
    """Images ``(N, 3 * frames, 64, 64)`` in [-0.5, 0.5] to ``(N, 32 * depth)``: four convolutions of stride 2."""

    def __init__(self, depth: int, frames: int = 1) -> None:
        super().__init__()
        channels = [3 * frames, depth, 2 * depth, 4 * depth, 8 * depth]
        self.layers = nn.Sequential()
        for inputs, outputs in pairwise(channels):
            self.layers.extend([nn.Conv2d(inputs, outputs, 4, 2, bias=False), ChannelNormSiLU(outputs)])
        self.outputs = 4 * channels[-1]

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings ``(N, 32 * depth)``."""
        return self.layers(image).flatten(1)


class ConvDecoder(nn.Module):
    """Latent states to images ``(N, 3, 64, 64)``: the deterministic and stochastic branch, summed, then deconvolved."""

    def __init__(self, size: WorldModelSize) -> None:
        super().__init__()
        depth, wide = size.cnn_depth, 2 * size.hidden
        self.deter = nn.Sequential(
            BlockLinear(size.deter, wide, size.blocks), NormSiLU(wide), nn.Linear(wide, 32 * depth)
        )
        self.stoch = nn.Sequential(
            nn.Linear(size.stoch_flat, wide, bias=False), NormSiLU(wide), nn.Linear(wide, 32 * depth)
        )
        channels, kernels = [32 * depth, 4 * depth, 2 * depth, depth], [5, 5, 6]
        self.layers = nn.Sequential()
        for (inputs, outputs), kernel in zip(pairwise(channels), kernels, strict=True):
            self.layers.extend([nn.ConvTranspose2d(inputs, outputs, kernel, 2, bias=False), ChannelNormSiLU(outputs)])
        self.layers.append(nn.ConvTranspose2d(depth, 3, 6, 2))

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """Images from ``deter (N, deter)`` and ``stoch (N, stoch * classes)``."""
        return self.layers((self.deter(deter) + self.stoch(stoch))[:, :, None, None])


class StateDecoder(nn.Module):
    """Latent states to padded state observations in symlog space, ``(N, STATE_PAD)``."""

    def __init__(self, size: WorldModelSize, outputs: int) -> None:
        super().__init__()
        self.layers = mlp(size.feature, size.units, size.layers, outputs)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """Predictions ``(N, outputs)``."""
        return self.layers(torch.cat([deter, stoch], -1))
