"""The pixel networks as torch's layers, one after the other: what the fast ones are held against."""

import torch.nn.functional as F
from torch import Tensor, nn

from wpt_bench.world_model.convolution import ConvDecoder, ConvEncoder


def plain_layers(layers: nn.Sequential, x: Tensor) -> Tensor:
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose2d):
            x = F.conv_transpose2d(x, layer.weight, layer.bias, stride=2)
        elif isinstance(layer, nn.Conv2d):
            x = F.conv2d(x, layer.weight, layer.bias, stride=2)
        else:
            normed = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), layer.norm.weight, layer.norm.bias, 1e-3)
            x = F.silu(normed.permute(0, 3, 1, 2))
    return x


def plain_encoder(encoder: ConvEncoder, image: Tensor) -> Tensor:
    return plain_layers(encoder.layers, image).flatten(1)


def plain_decoder(decoder: ConvDecoder, deter: Tensor, stoch: Tensor) -> Tensor:
    return plain_layers(decoder.layers, (decoder.deter(deter) + decoder.stoch(stoch))[:, :, None, None])
