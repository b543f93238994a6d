"""Pixel encoder and decoder. Pictures have their channels last in memory, from the frames to the loss and back.

Everything computes in float32, or under ``torch.autocast`` in bfloat16; parameters stay float32. Some functions have
backward passes of their own, where torch's fast forward and fast backward pass belong to different formulations; these
cannot be differentiated twice.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.nets import NORM_EPS, BlockLinear, NormSiLU

aten = torch.ops.aten


def scale_frames(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pictures as encoder and decoder see them: uint8 ``(..., H, W, C)`` to ``(..., C, H, W)`` in [-0.5, 0.5]."""
    # 127.5 goes first because bfloat16 holds all 256 differences exactly.
    scaled = frames.to(dtype, memory_format=torch.contiguous_format).sub_(127.5).div_(255)
    return scaled.movedim(-1, -3)


def _rows(image: Tensor) -> Tensor:
    """``(N, C, H, W)`` to ``(N * H * W, C)``: a view if channels are last in memory."""
    return image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])


def _image(rows: Tensor, height: int, width: int) -> Tensor:
    """``(N * H * W, C)`` to ``(N, C, H, W)``: a view."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


class _SquaredError(torch.autograd.Function):
    """The difference is kept, so that each pass goes over the pictures once."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor) -> Tensor:
        error = prediction - target
        ctx.save_for_backward(error)
        # One norm a picture: a single one over them all adds too many numbers into one float32.
        norms = torch.linalg.vector_norm(error.permute(0, 2, 3, 1).flatten(1), dim=1)
        return norms.float().square_().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (error,) = ctx.saved_tensors
        return error * (2 * gradient).to(error.dtype), None


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Summed squared difference of pictures ``(N, C, H, W)``: a float32 scalar. The target gets no gradient."""
    return _SquaredError.apply(prediction, target)


class _CentredNormSiLU(torch.autograd.Function):
    """LayerNorm, then SiLU, over the channels of pictures whose mean over channels is zero.

    Torch's LayerNorm is slow forward on rows as short as these; in bfloat16 it is slow both ways, and so many rows
    make the gradients of its parameters wrong. Here statistics and sums are float32.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = _rows(image)
        wide = rows.float()
        scale = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        scale.square_().div_(rows.shape[1]).add_(NORM_EPS).rsqrt_()
        normed = wide * scale
        normed = torch.addcmul(bias, normed, weight, out=normed).to(image.dtype)
        ctx.save_for_backward(rows, scale, normed, weight, bias)
        return _image(F.silu(normed), *image.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        rows, scale, normed, weight, bias = ctx.saved_tensors
        inner = aten.silu_backward(_rows(gradient), normed).float()
        # This also takes the mean over channels out of the gradient. Centred weights would do it next.
        outer, *parameters = aten.native_layer_norm_backward(
            inner, rows.float(), [rows.shape[1]], torch.zeros_like(scale), scale, weight, bias, [True, True, True]
        )
        return _image(outer.to(gradient.dtype), *gradient.shape[2:]), *parameters


class ChannelNormSiLU(NormSiLU):
    """LayerNorm over the channels of an image ``(N, C, H, W)``, then SiLU.

    Half of the norm is done by the layer before, whose weights are centred: the mean over channels must be zero.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        return _CentredNormSiLU.apply(x, self.norm.weight, self.norm.bias)


def _centred(weight: Tensor, outputs: int) -> Tensor:
    """The weights of a layer less their mean over its output channels, the axis ``outputs``."""
    centred = weight - weight.mean(outputs, keepdim=True)
    # Flat and back: so the gradient, whose channels come last, is contiguous when it gets to the parameter, as usual.
    return centred.flatten().view_as(weight)


class CentredConv2d(nn.Conv2d):
    """A convolution of stride 2 without bias, less the mean of its output over the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H', W')``."""
        return F.conv2d(x, _centred(self.weight, 0), stride=2)


class _EvenTransposed(torch.autograd.Function):
    """A transposed convolution of stride 2 whose kernel is even.

    Forward it is computed as an ordinary convolution with half the kernel and four times the channels, one for each of
    the four pixels that take the place of one. Its backward pass is an ordinary convolution anyway.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(image, weight)
        inputs, outputs, kernel, _ = weight.shape
        half = kernel // 2
        quarters = weight.view(inputs, outputs, half, 2, half, 2).flip(2, 4).permute(3, 5, 1, 0, 2, 4)
        quarters = quarters.reshape(4 * outputs, inputs, half, half)
        y = F.conv2d(image, quarters, bias.repeat(4), padding=half - 1).permute(0, 2, 3, 1).contiguous()
        # (N, H, W, [row, column, channel]) to (N, H, row, W, [column, channel]), in units of 4 bytes: fewer to move.
        y = y.view(torch.int32).unflatten(3, (2, -1)).transpose(2, 3).contiguous().view(image.dtype)
        count, height, _, width, _ = y.shape
        return y.view(count, 2 * height, 2 * width, outputs).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        image, weight = ctx.saved_tensors
        geometry = ([2, 2], [0, 0], [1, 1], True, [0, 0], 1)  # stride, padding, dilation, transposed, ..., groups
        outer, kernel, _ = aten.convolution_backward(gradient, image, weight, None, *geometry, [True, True, False])
        return outer, kernel.contiguous(), gradient.sum((0, 2, 3))


class Deconvolution(nn.ConvTranspose2d):
    """A transposed convolution of stride 2; without bias, it is less the mean of its output over the channels."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, 2 H + kernel - 2, 2 W + kernel - 2)``."""
        weight = self.weight if self.bias is not None else _centred(self.weight, 1)
        kernel = self.kernel_size[0]
        if x.shape[2:] == (1, 1):  # a matrix product, three times as fast as such
            y = _rows(x) @ weight.permute(0, 2, 3, 1).flatten(1)
            return _image(y.view(-1, self.out_channels), kernel, kernel)
        if kernel % 2:
            return F.conv_transpose2d(x, weight, stride=2)
        bias = x.new_zeros(self.out_channels) if self.bias is None else self.bias
        return _EvenTransposed.apply(x, weight.to(x.dtype), bias.to(x.dtype))


class ConvEncoder(nn.Module):
    """Images ``(N, 3 * frames, 64, 64)`` in [-0.5, 0.5] to ``(N, 32 * depth)``: four convolutions of stride 2."""

    def __init__(self, depth: int, frames: int = 1) -> None:
        super().__init__()
        channels = [3 * frames, depth, 2 * depth, 4 * depth, 8 * depth]
        self.layers = nn.Sequential()
        for inputs, outputs in pairwise(channels):
            self.layers.extend([CentredConv2d(inputs, outputs, 4, 2, bias=False), ChannelNormSiLU(outputs)])
        self.outputs = 4 * channels[-1]

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings ``(N, 32 * depth)``."""
        return self.layers(image.contiguous(memory_format=torch.channels_last)).flatten(1)


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
            self.layers.extend([Deconvolution(inputs, outputs, kernel, 2, bias=False), ChannelNormSiLU(outputs)])
        self.layers.append(Deconvolution(depth, 3, 6, 2))

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """Images from ``deter (N, deter)`` and ``stoch (N, stoch * classes)``."""
        return self.layers((self.deter(deter) + self.stoch(stoch))[:, :, None, None])
