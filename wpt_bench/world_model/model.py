"""The world model: encoder, recurrent model, decoder, and the reward-free loss they are trained on."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.convolution import ConvDecoder, ConvEncoder, scale_frames, squared_error
from wpt_bench.world_model.functional import symlog
from wpt_bench.world_model.losses import balanced_kl
from wpt_bench.world_model.nets import StateDecoder, initialise, mixed, mlp, widened
from wpt_bench.world_model.rssm import RSSM, Latent

FREE_NATS = 1.0
DYNAMICS_SCALE = 1.0
REPRESENTATION_SCALE = 0.1
"""Loss = reconstruction + 1.0 max(1, KL(sg q || p)) + 0.1 max(1, KL(q || sg p)) (WPT, section 3.2; authors' scales).

The maximum is taken at every step, as in DreamerV3's code. The authors take it of the batch's mean: at sizes where that
mean lies below one, priors of a pre-trained model learn nothing any more.
"""


class WorldModelLoss(NamedTuple):
    """Scalars to be minimised, their parts as metrics, and the posteriors ``(L, B, ...)`` behind them."""

    loss: Tensor
    metrics: dict[str, Tensor]
    latents: Latent


class WorldModel(nn.Module):
    """A generalist world model over zero-padded observations and actions; no task or embodiment id reaches it.

    Args:
        size: all widths.
        observation: ``state`` (padded to ``state`` numbers) or ``pixels`` (64x64 RGB).
        state, action: padded lengths.
        precision: what matrix products and convolutions take; weights, and all between them, are float32.
    """

    def __init__(
        self,
        size: WorldModelSize,
        observation: Literal["state", "pixels"],
        state: int,
        action: int,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__()
        self.size, self.observation, self.action = size, observation, action
        self.bf16 = precision == "bf16"
        self.encoder: nn.Module
        self.decoder: nn.Module
        if observation == "pixels":
            self.encoder = ConvEncoder(size.cnn_depth)
            self.decoder = ConvDecoder(size)
            embedding = self.encoder.outputs
        else:
            self.encoder = mlp(state, size.units, size.layers, None, first=True)
            self.decoder = StateDecoder(size, state)
            embedding = size.units
        self.rssm = RSSM(size, embedding, action, bf16=self.bf16)
        initialise(self)

    def prepare(self, observation: Tensor) -> Tensor:
        """Observations as encoder and decoder see them.

        State: scaled, padded float ``(..., state)`` to symlog of it. Pixels: uint8 ``(..., 64, 64, 3)`` to float or
        bfloat16 ``(..., 3, 64, 64)`` in [-0.5, 0.5].
        """
        if self.observation == "state":
            return symlog(observation)
        return scale_frames(observation, torch.bfloat16 if self.bf16 else torch.float32)

    def encode(self, prepared: Tensor) -> Tensor:
        """Embeddings of prepared observations, any leading axes."""
        lead = prepared.dim() - (1 if self.observation == "state" else 3)
        with mixed(prepared.device, self.bf16):
            embedding = self.encoder(prepared.flatten(0, lead - 1))
        return widened(embedding).unflatten(0, prepared.shape[:lead])

    def decode(self, latents: Latent) -> Tensor:
        """Predicted prepared observations, any leading axes."""
        lead = latents.deter.shape[:-1]
        with mixed(latents.deter.device, self.bf16):
            return self.decoder(latents.deter.flatten(0, -2), latents.stoch.flatten(0, -2)).unflatten(0, lead)

    def loss(
        self, observation: Tensor, mask: Tensor | None, action: Tensor, generator: torch.Generator
    ) -> WorldModelLoss:
        """The reward-free loss of time-major chunks.

        Args:
            observation: prepared, ``(L, B, ...)``.
            mask: float ``(B, state)``, 1 at real dimensions of a padded state; None for pixels.
            action: padded float ``(L, B, action)``.
            generator: noise of the posterior samples.
        """
        noise = self.rssm.noise(tuple(action.shape[:2]), generator)
        latents, posterior, prior = self.rssm.observe(self.encode(observation), action, noise)
        decoded = self.decode(latents)
        if mask is None:
            error = squared_error(decoded.flatten(0, 1), observation.flatten(0, 1))
        else:
            error = ((widened(decoded) - observation) ** 2 * mask).sum()
        reconstruction = error / action[..., 0].numel()
        dynamics, representation = balanced_kl(posterior, prior)
        loss = (
            reconstruction
            + DYNAMICS_SCALE * dynamics.clamp(min=FREE_NATS).mean()
            + REPRESENTATION_SCALE * representation.clamp(min=FREE_NATS).mean()
        )
        metrics = {"reconstruction": reconstruction, "kl": dynamics.mean(), "world_model_loss": loss}
        return WorldModelLoss(loss, {name: value.detach() for name, value in metrics.items()}, latents)

    @torch.no_grad()
    def open_loop(self, observation: Tensor, action: Tensor, context: int, generator: torch.Generator) -> Tensor:
        """Predictions decoded from the prior: ``context`` observations are seen, the rest only their actions.

        Args:
            observation: prepared, ``(L, B, ...)``; only the first ``context`` are used.
            action: padded float ``(L, B, action)``.

        Returns:
            Prepared-space predictions of observations ``context`` to L - 1: ``(L - context, B, ...)``.
        """
        batch = action.shape[1]
        noise = self.rssm.noise((len(action), batch), generator)
        seen, _, _ = self.rssm.observe(self.encode(observation[:context]), action[:context], noise[:context])
        latent = Latent(seen.deter[-1], seen.stoch[-1])
        predicted = []
        for step in range(context, len(action)):
            latent = self.rssm.imagine_step(latent, action[step], noise[step])
            predicted.append(latent)
        return widened(self.decode(Latent(*(torch.stack(part) for part in zip(*predicted, strict=True)))))
