"""The pixel networks against the plain formulation: torch's layers one after the other, in float32."""

import pytest
import torch
from torch import Tensor, nn

from world_model.plain import plain_layers
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.convolution import (
    CentredConv2d,
    ChannelNormSiLU,
    ConvDecoder,
    ConvEncoder,
    Deconvolution,
    scale_frames,
    squared_error,
)
from wpt_bench.world_model.nets import initialise

SMALL = WorldModelSize(deter=24, hidden=8, stoch=3, classes=4, blocks=4, cnn_depth=5, units=16, layers=2)
EXACT, ROUNDED = 1e-5, 0.05
"""Relative deviations allowed to float32 and to bfloat16, whose numbers have 8 bits, through up to seven layers."""

precisions = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, EXACT), (torch.bfloat16, ROUNDED)], ids=["float32", "bfloat16"]
)


def randomise(module: nn.Module) -> None:
    """Weights as they start; norms and biases away from their trivial start."""
    initialise(module)
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=0.5, std=0.3)


def deviation(value: Tensor, truth: Tensor) -> float:
    assert value.shape == truth.shape
    return float((value.detach().float() - truth.detach()).norm() / truth.detach().norm())


def compare(fast: Tensor, plain: Tensor, wanted: list[Tensor], tolerance: float) -> None:
    """The values, and the gradients of one random weighting of them."""
    weighting = torch.randn_like(plain)
    assert deviation(fast, plain) < tolerance
    got = torch.autograd.grad((fast.float() * weighting).sum(), wanted)
    truths = torch.autograd.grad((plain * weighting).sum(), wanted)
    for tensor, gradient, truth in zip(wanted, got, truths, strict=True):
        assert gradient.dtype == torch.float32
        assert gradient.is_contiguous() or not isinstance(tensor, nn.Parameter)
        assert deviation(gradient, truth) < tolerance


def check_layers(layers: nn.Sequential, x: Tensor, dtype: torch.dtype, tolerance: float) -> None:
    randomise(layers)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        fast = layers(x.to(dtype))
    assert fast.dtype == dtype
    compare(fast, plain_layers(layers, x), [x, *layers.parameters()], tolerance)


@precisions
@pytest.mark.parametrize("size", [(4, 4), (9, 8), (15, 31)])
@pytest.mark.parametrize("channels", [(1, 4), (3, 7), (16, 32)])
def test_a_convolution_and_its_norm(channels, size, dtype, tolerance) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(CentredConv2d(*channels, 4, 2, bias=False), ChannelNormSiLU(channels[1]))
    check_layers(layers, torch.randn(3, channels[0], *size), dtype, tolerance)


@precisions
@pytest.mark.parametrize("size", [(1, 1), (5, 5), (3, 8)])
@pytest.mark.parametrize("channels", [(2, 3), (5, 7), (32, 16)])
@pytest.mark.parametrize("kernel", [5, 6])
def test_a_transposed_convolution_and_its_norm(kernel, channels, size, dtype, tolerance) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(Deconvolution(*channels, kernel, 2, bias=False), ChannelNormSiLU(channels[1]))
    check_layers(layers, torch.randn(3, channels[0], *size), dtype, tolerance)


@precisions
@pytest.mark.parametrize("size", [(4, 4), (5, 3)])
@pytest.mark.parametrize("kernel", [2, 4, 6])
def test_a_transposed_convolution_with_a_bias(kernel, size, dtype, tolerance) -> None:
    torch.manual_seed(0)
    check_layers(nn.Sequential(Deconvolution(5, 3, kernel, 2)), torch.randn(3, 5, *size), dtype, tolerance)


def test_norms_of_many_rows_in_bfloat16() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(CentredConv2d(1, 4, 4, 2, bias=False), ChannelNormSiLU(4))
    check_layers(layers, torch.randn(40, 1, 64, 64), torch.bfloat16, ROUNDED)


@precisions
@pytest.mark.parametrize("frames", [1, 3])
def test_the_encoder(frames, dtype, tolerance) -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(5, frames)
    randomise(encoder)
    image = torch.randint(0, 256, (3, 64, 64, 3 * frames), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        embedding = encoder(scale_frames(image, dtype))
    plain = plain_layers(encoder.layers, image.permute(0, 3, 1, 2).float() / 255 - 0.5).flatten(1)
    assert embedding.shape == (3, encoder.outputs)
    compare(embedding, plain, list(encoder.parameters()), tolerance)


@precisions
def test_the_decoder(dtype, tolerance) -> None:
    torch.manual_seed(0)
    decoder = ConvDecoder(SMALL)
    randomise(decoder)
    deter, stoch = torch.randn(3, 24, requires_grad=True), torch.randn(3, 12, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        image = decoder(deter, stoch)
    plain = plain_layers(decoder.layers, (decoder.deter(deter) + decoder.stoch(stoch))[:, :, None, None])
    assert image.shape == (3, 3, 64, 64) and image.is_contiguous(memory_format=torch.channels_last)
    compare(image, plain, [deter, stoch, *decoder.parameters()], tolerance)


def test_frames_are_scaled_and_keep_their_channels_last() -> None:
    frames = torch.arange(256, dtype=torch.uint8).repeat(3, 2, 1).reshape(2, 3, 8, 8, 4).transpose(0, 1)
    truth = frames.movedim(-1, -3).float() / 255 - 0.5
    scaled = scale_frames(frames)
    assert torch.allclose(scaled, truth, atol=1e-6)
    assert scaled.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert (scale_frames(frames, torch.bfloat16).float() - truth).abs().max() <= 0.25 / 255 + 1e-6


@precisions
def test_the_squared_error(dtype, tolerance) -> None:
    prediction = torch.randn(5, 3, 16, 12, requires_grad=True)
    target = torch.rand(5, 3, 16, 12)
    fast = squared_error(prediction.to(dtype), target.to(dtype))
    assert fast.dtype == torch.float32
    compare(fast, ((prediction - target) ** 2).sum(), [prediction], tolerance)
