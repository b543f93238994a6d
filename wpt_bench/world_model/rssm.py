"""The recurrent state-space model with a block-diagonal GRU and categorical latents.

Everything that does not depend on the recurrence is computed once for the whole sequence, outside the loop over time:
projections of actions and embeddings before it, priors after it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.functional import sample_one_hot, unimix_log_probs
from wpt_bench.world_model.nets import BlockLinear, NormSiLU, mlp


class Latent(NamedTuple):
    """A latent state: ``deter`` float ``(..., deter)`` and ``stoch`` float ``(..., stoch * classes)``, one-hot."""

    deter: Tensor
    stoch: Tensor

    @property
    def feature(self) -> Tensor:
        """What heads see: both, joined over the last axis."""
        return torch.cat([self.deter, self.stoch], -1)


class RSSM(nn.Module):
    """h_t = f(h_{t-1}, z_{t-1}, a_t); prior p(z_t | h_t); posterior q(z_t | h_t, e_t) (WPT, section 3.2)."""

    def __init__(self, size: WorldModelSize, embedding: int, action: int) -> None:
        super().__init__()
        hidden = size.hidden
        self.size = size
        self.action_in = mlp(action, hidden, 1, None)
        self.stoch_in = mlp(size.stoch_flat, hidden, 1, None)
        self.deter_in = mlp(size.deter, hidden, 1, None)
        # Every block of the GRU's input sees all three projections and its own block of the state: a dense matrix for
        # the former, a block-diagonal one for the latter. The action's columns stand apart to be applied once.
        self.core_action = nn.Linear(hidden, size.deter, bias=False)
        self.core_latent = nn.Linear(2 * hidden, size.deter, bias=False)
        self.core_deter = BlockLinear(size.deter, size.deter, size.blocks)
        self.core_norm = NormSiLU(size.deter)
        self.gates = BlockLinear(size.deter, 3 * size.deter, size.blocks)
        self.prior_head = mlp(size.deter, hidden, 2, size.stoch_flat)
        self.posterior_deter = nn.Linear(size.deter, hidden, bias=False)
        self.posterior_embedding = nn.Linear(embedding, hidden, bias=False)
        self.posterior_norm = NormSiLU(hidden)
        self.posterior_head = nn.Linear(hidden, size.stoch_flat)

    def initial(self, batch: int) -> Latent:
        """The latent state before an episode or a chunk: zeros."""
        device = self.gates.bias.device
        return Latent(
            torch.zeros(batch, self.size.deter, device=device), torch.zeros(batch, self.size.stoch_flat, device=device)
        )

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Uniform numbers ``(*shape, stoch)``, one for each categorical sample."""
        return torch.rand((*shape, self.size.stoch), generator=generator, device=self.gates.bias.device)

    def prior(self, deter: Tensor) -> Tensor:
        """Log-probabilities of the prior: ``(..., deter)`` to ``(..., stoch, classes)``."""
        return unimix_log_probs(self.prior_head(deter).unflatten(-1, (self.size.stoch, self.size.classes)))

    def step(self, latent: Latent, action: Tensor) -> Tensor:
        """The next deterministic state ``(N, deter)`` after padded actions ``(N, action)``."""
        return self._recur(latent, self.core_action(self.action_in(action)))

    def observe_step(self, latent: Latent, action: Tensor, embedding: Tensor, noise: Tensor) -> Latent:
        """One posterior step, for acting. ``noise``: uniform ``(N, stoch)``."""
        deter = self.step(latent, action)
        log_q = self._posterior(deter, self.posterior_embedding(embedding))
        return Latent(deter, sample_one_hot(log_q, noise).flatten(-2))

    def imagine_step(self, latent: Latent, action: Tensor, noise: Tensor) -> Latent:
        """One prior step, for imagination. ``noise``: uniform ``(N, stoch)``."""
        deter = self.step(latent, action)
        return Latent(deter, sample_one_hot(self.prior(deter), noise).flatten(-2))

    def observe(self, embedding: Tensor, action: Tensor, noise: Tensor) -> tuple[Latent, Tensor, Tensor]:
        """Posteriors along chunks that start from a zero latent state and a zero action.

        Args:
            embedding: float ``(L, B, embedding)``.
            action: float ``(L, B, action)``; ``action[t]`` led to observation t, ``action[0]`` is ignored.
            noise: uniform ``(L, B, stoch)``.

        Returns:
            Latent states ``(L, B, ...)``; log-probabilities of posterior and prior ``(L, B, stoch, classes)``.
        """
        action = torch.cat([torch.zeros_like(action[:1]), action[1:]])
        actions = self.core_action(self.action_in(action)).unbind()
        embeddings = self.posterior_embedding(embedding).unbind()
        latent = self.initial(embedding.shape[1])
        deters, stochs, log_qs = [], [], []
        for core, embedded, uniform in zip(actions, embeddings, noise.unbind(), strict=True):
            deter = self._recur(latent, core)
            log_q = self._posterior(deter, embedded)
            latent = Latent(deter, sample_one_hot(log_q, uniform).flatten(-2))
            deters.append(deter)
            stochs.append(latent.stoch)
            log_qs.append(log_q)
        latents = Latent(torch.stack(deters), torch.stack(stochs))
        return latents, torch.stack(log_qs), self.prior(latents.deter)

    def _recur(self, latent: Latent, core_action: Tensor) -> Tensor:
        projected = torch.cat([self.stoch_in(latent.stoch), self.deter_in(latent.deter)], -1)
        core = self.core_norm(core_action + self.core_latent(projected) + self.core_deter(latent.deter))
        blocks = self.size.blocks
        gates = self.gates(core).view(len(core), blocks, 3, -1)
        reset, candidate, update = (gates[:, :, i].reshape(len(core), -1) for i in range(3))
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1)
        return latent.deter + update * (candidate - latent.deter)

    def _posterior(self, deter: Tensor, embedded: Tensor) -> Tensor:
        hidden = self.posterior_norm(self.posterior_deter(deter) + embedded)
        return unimix_log_probs(self.posterior_head(hidden).unflatten(-1, (self.size.stoch, self.size.classes)))
