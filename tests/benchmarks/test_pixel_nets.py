"""Pixel encoder and decoder, forward and backward, on 512 frames (16 sequences of 32), against the plain way.

A round goes from uint8 frames to the gradient of every parameter. Before each round the plain way does the same work,
so that whatever else the machine does slows down both.
"""

import statistics
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from world_model.plain import plain_decoder, plain_encoder

from benchmarks.measure import products_per_second, seconds
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.convolution import ConvDecoder, ConvEncoder, scale_frames, squared_error
from wpt_bench.world_model.nets import initialise

SIZE = WorldModelSize(deter=256, hidden=128, stoch=16, classes=16, cnn_depth=16, units=128)
FRAMES, ROUNDS = 512, 7


class Nets(nn.Module):
    """Encoder and decoder, with latent states for the decoder that do not depend on the encoder."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.encoder, self.decoder = ConvEncoder(SIZE.cnn_depth), ConvDecoder(SIZE)
        initialise(self)
        self.frames = torch.randint(0, 256, (frames, 64, 64, 3), dtype=torch.uint8)
        self.deter, self.stoch = torch.randn(frames, SIZE.deter).tanh(), torch.rand(frames, SIZE.stoch_flat)


def ours(nets: Nets, dtype: torch.dtype) -> Tensor:
    image = scale_frames(nets.frames, dtype)
    embedding = nets.encoder(image).float()
    return squared_error(nets.decoder(nets.deter, nets.stoch), image) / len(image) + (embedding**2).mean()


def plain(nets: Nets, dtype: torch.dtype) -> Tensor:
    """Torch's layers, one after the other."""
    image = nets.frames.movedim(-1, -3).float() / 255 - 0.5
    embedding = plain_encoder(nets.encoder, image)
    prediction = plain_decoder(nets.decoder, nets.deter, nets.stoch)
    return ((prediction - image) ** 2).flatten(1).sum(1).mean() + (embedding.float() ** 2).mean()


def gradients(way, nets: Nets, dtype: torch.dtype) -> tuple[Tensor, ...]:
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = way(nets, dtype)
    return torch.autograd.grad(loss, list(nets.parameters()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_encoder_and_decoder(benchmark, dtype, tolerance):
    torch.manual_seed(0)
    nets = Nets(FRAMES if benchmark.enabled else 2)
    references = []

    def reference() -> None:
        references.append(seconds(partial(gradients, plain, nets, dtype)))

    got = benchmark.pedantic(
        partial(gradients, ours, nets, dtype), setup=reference, rounds=ROUNDS, warmup_rounds=1, iterations=1
    )
    # In float32: in bfloat16 torch's gradients of the norms' parameters are wrong when there are many rows.
    for gradient, truth in zip(got, gradients(plain, nets, torch.float32), strict=True):
        assert (gradient - truth).norm() < tolerance * truth.norm()
    if benchmark.stats is None:  # benchmarks are switched off
        return
    with FlopCounterMode(display=False) as flops:
        gradients(plain, nets, dtype)
    median = statistics.median(references[-ROUNDS:])
    benchmark.extra_info.update(
        floor=flops.get_total_flops() / products_per_second(dtype),
        floor_of=f"{flops.get_total_flops() / 1e9:.1f} GFLOP at the rate of a large {dtype} matrix product",
        reference=median,
        ratio=median / benchmark.stats.stats.median,
        threads=torch.get_num_threads(),
    )
