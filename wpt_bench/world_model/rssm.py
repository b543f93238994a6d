"""The recurrent state-space model with a block-diagonal GRU and categorical latents.

Everything that does not depend on the recurrence is computed once for the whole sequence, outside the loop over time:
projections of actions and embeddings before it, priors after it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wpt_bench.world_model.compiled import HeadTape, PosteriorScan, PriorScan, fits
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.functional import sample_one_hot, sample_one_hot_backward
from wpt_bench.world_model.nets import NormSiLU, mixed, mlp, widened
from wpt_bench.world_model.recurrence import Recurrence, RecurrenceTape
from wpt_bench.world_model.tape import ChainTape, Gradients, LinearTape, NormTape


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

    def __init__(self, size: WorldModelSize, embedding: int, action: int, *, bf16: bool = False) -> None:
        super().__init__()
        hidden = size.hidden
        self.size, self.bf16 = size, bf16
        self.recurrence = Recurrence(size, action)
        self.prior_head = mlp(size.deter, hidden, 2, size.stoch_flat)
        self.posterior_deter = nn.Linear(size.deter, hidden, bias=False)
        self.posterior_embedding = nn.Linear(embedding, hidden, bias=False)
        self.posterior_norm = NormSiLU(hidden)
        self.posterior_head = nn.Linear(hidden, size.stoch_flat)

    def initial(self, batch: int) -> Latent:
        """The latent state before an episode or a chunk: zeros."""
        weight = self.posterior_deter.weight
        return Latent(weight.new_zeros(batch, self.size.deter), weight.new_zeros(batch, self.size.stoch_flat))

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Uniform numbers ``(*shape, stoch)``, one for each categorical sample."""
        device = self.posterior_deter.weight.device
        return torch.rand((*shape, self.size.stoch), generator=generator, device=device)

    def prior(self, deter: Tensor) -> Tensor:
        """Logits of the prior: ``(..., deter)`` to ``(..., stoch, classes)``."""
        with mixed(deter.device, self.bf16):
            logits = self.prior_head(deter)
        return self._grouped(widened(logits))

    @torch.no_grad()
    def observe_step(self, latent: Latent, action: Tensor, embedding: Tensor, noise: Tensor) -> Latent:
        """One posterior step, for acting: padded actions ``(N, action)``, ``noise`` uniform ``(N, stoch)``."""
        with mixed(action.device, self.bf16):
            projected, embedded = self.recurrence.project(action), self.posterior_embedding(embedding)
        return PosteriorTape(self).forward(latent, widened(projected), widened(embedded), noise)[0]

    @torch.no_grad()
    def imagine_step(self, latent: Latent, action: Tensor, noise: Tensor) -> Latent:
        """One prior step: padded actions ``(N, action)``, ``noise`` uniform ``(N, stoch)``."""
        return PriorTape(self).forward(latent, action, noise)

    def imagination(self, start: Latent, steps: int) -> PriorSteps | PriorScan:
        """Steps of the prior from ``(N, ...)`` latent states, and back."""
        return (PriorScan if fits(start.deter, self.bf16) else PriorSteps)(self, start, steps)

    def head_tape(self, layers: nn.Sequential, *, frozen: bool = False) -> ChainTape:
        """The tape of a network that sees latent states, joined."""
        if fits(self.posterior_deter.weight, self.bf16):
            return HeadTape(layers, self.size.deter, frozen=frozen)
        return ChainTape(layers, frozen=frozen, bf16=self.bf16)

    def observe(self, embedding: Tensor, action: Tensor, noise: Tensor) -> tuple[Latent, Tensor, Tensor]:
        """Posteriors along chunks that start from a zero latent state and a zero action.

        Args:
            embedding: float ``(L, B, embedding)``.
            action: float ``(L, B, action)``; ``action[t]`` led to observation t, ``action[0]`` is ignored.
            noise: uniform ``(L, B, stoch)``.

        Returns:
            Latent states ``(L, B, ...)``; logits of posterior and prior ``(L, B, stoch, classes)``.
        """
        action = torch.cat([torch.zeros_like(action[:1]), action[1:]])
        with mixed(action.device, self.bf16):
            projected, embedded = self.recurrence.project(action), self.posterior_embedding(embedding)
        projected, embedded = widened(projected), widened(embedded)
        trained = [*self.recurrence.stepped(), *self.posterior_deter.parameters()]
        trained += [*self.posterior_norm.parameters(), *self.posterior_head.parameters()]
        deter, stoch, logits = _Observe.apply(self, projected, embedded, noise, *trained)
        return Latent(deter, stoch), self._grouped(logits), self.prior(deter)

    def _grouped(self, logits: Tensor) -> Tensor:
        return logits.unflatten(-1, (self.size.stoch, self.size.classes))


class SampleTape:
    """One-hot samples ``(N, stoch * classes)`` of logits of that shape, passing gradients straight through."""

    def __init__(self, size: WorldModelSize) -> None:
        self._shape = (size.stoch, size.classes)
        self._probs: list[Tensor] = []

    def forward(self, logits: Tensor, noise: Tensor) -> Tensor:
        """``noise``: uniform ``(N, stoch)``."""
        sample, probs = sample_one_hot(logits.unflatten(-1, self._shape), noise)
        self._probs.append(probs)
        return sample.flatten(-2)

    def backward(self, gradient: Tensor) -> Tensor:
        """From the gradient of the last sample to that of its logits."""
        return sample_one_hot_backward(gradient.unflatten(-1, self._shape), self._probs.pop()).flatten(-2)


class PriorTape:
    """Steps of the prior and back, without gradients of parameters: imagination trains none of them."""

    def __init__(self, rssm: RSSM) -> None:
        layer, how = rssm.recurrence, {"frozen": True, "bf16": rssm.bf16}
        self._action_in, self._core_action = ChainTape(layer.action_in, **how), LinearTape(layer.core_action, **how)
        self._recurrence = RecurrenceTape(layer, **how)
        self._head, self._sample = ChainTape(rssm.prior_head, **how), SampleTape(rssm.size)
        self._widths = [rssm.size.deter, rssm.size.stoch_flat]

    def forward(self, latent: Latent, action: Tensor, noise: Tensor) -> Latent:
        """The next latent state after padded actions ``(N, action)``; ``noise`` is uniform, ``(N, stoch)``."""
        projected = self._core_action.forward(self._action_in.forward(action))
        deter = self._recurrence.forward(latent.deter, latent.stoch, projected)
        return Latent(deter, self._sample.forward(self._head.forward(deter), noise))

    def backward(self, gradient: Latent) -> tuple[Latent, Tensor]:
        """From the gradient of the last state to those of the state before it and of the action."""
        deter = gradient.deter + self._head.backward(self._sample.backward(gradient.stoch))
        deter, stoch, projected = self._recurrence.backward(deter)
        return Latent(deter, stoch), self._action_in.backward(self._core_action.backward(projected))


class PriorSteps:
    """``PriorTape`` over features: ``(N, feature)`` states, latent states joined.

    Args:
        rssm: the dynamics.
        start: latent states ``(N, ...)``.
        steps: at most.
    """

    def __init__(self, rssm: RSSM, start: Latent, steps: int) -> None:
        self._tape, self._latent = PriorTape(rssm), start
        self._widths = [rssm.size.deter, rssm.size.stoch_flat]
        self._features = [start.feature]

    def forward(self, action: Tensor, noise: Tensor) -> None:
        """One step further, after padded actions ``(N, action)``; ``noise`` is uniform, ``(N, stoch)``."""
        self._latent = self._tape.forward(self._latent, action, noise)
        self._features.append(self._latent.feature)

    @property
    def feature(self) -> Tensor:
        """The last states."""
        return self._features[-1]

    def features(self) -> Tensor:
        """All states, those imagination started from first: ``(1 + steps, N, feature)``."""
        return torch.stack(self._features)

    def backward(self, gradient: Tensor) -> Tensor:
        """From the gradients of all states reached, ``(steps, N, feature)``, to those of all actions."""
        deters, stochs = (part.unbind() for part in gradient.split(self._widths, -1))
        carried, actions = Latent(torch.zeros_like(deters[0]), torch.zeros_like(stochs[0])), []
        for deter, stoch in zip(reversed(deters), reversed(stochs), strict=True):
            carried, action = self._tape.backward(Latent(deter + carried.deter, stoch + carried.stoch))
            actions.append(action)
        return torch.stack(actions[::-1])


class PosteriorTape:
    """Steps of the posterior and back."""

    def __init__(self, rssm: RSSM) -> None:
        self._recurrence = RecurrenceTape(rssm.recurrence, bf16=rssm.bf16)
        self._deter = LinearTape(rssm.posterior_deter, bf16=rssm.bf16)
        self._norm = NormTape(rssm.posterior_norm)
        self._head, self._sample = LinearTape(rssm.posterior_head, bf16=rssm.bf16), SampleTape(rssm.size)

    def forward(self, latent: Latent, action: Tensor, embedded: Tensor, noise: Tensor) -> tuple[Latent, Tensor]:
        """The next latent state and its logits, after projected actions and embeddings; ``noise`` is uniform."""
        deter = self._recurrence.forward(latent.deter, latent.stoch, action)
        logits = self._head.forward(self._norm.forward(self._deter.forward(deter).add_(embedded)))
        return Latent(deter, self._sample.forward(logits, noise)), logits

    def backward(self, gradient: Latent, logits: Tensor) -> tuple[Latent, Tensor, Tensor]:
        """From the gradients of the last state and its logits to those of the state before, the action, the embedding.

        Action and embedding as projected.
        """
        hidden = self._norm.backward(self._head.backward(logits + self._sample.backward(gradient.stoch)))
        deter, stoch, action = self._recurrence.backward(gradient.deter + self._deter.backward(hidden))
        return Latent(deter, stoch), action, hidden

    def gradients(self) -> Gradients:
        """Of all parameters stepped through."""
        tapes = (self._recurrence, self._deter, self._norm, self._head)
        return {parameter: value for tape in tapes for parameter, value in tape.gradients().items()}


class PosteriorSteps:
    """``PosteriorTape`` along a sequence, from the zero state.

    Args:
        rssm: the model.
        action, embedded: as projected, ``(L, B, ...)``.
        noise: uniform ``(L, B, stoch)``.
    """

    def __init__(self, rssm: RSSM, action: Tensor, embedded: Tensor, noise: Tensor) -> None:
        self._tape, latent, steps = PosteriorTape(rssm), rssm.initial(action.shape[1]), []
        for inputs in zip(action.unbind(), embedded.unbind(), noise.unbind(), strict=True):
            latent, logits = self._tape.forward(latent, *inputs)
            steps.append((*latent, logits))
        self._outputs = [torch.stack(part) for part in zip(*steps, strict=True)]

    def outputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Deterministic and stochastic states, and logits."""
        deter, stoch, logits = self._outputs
        return deter, stoch, logits

    def backward(self, deter: Tensor, stoch: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Gradients]:
        """From gradients of states and logits to those of actions and embeddings, and of all parameters."""
        carried = Latent(torch.zeros_like(deter[0]), torch.zeros_like(stoch[0]))
        actions, embedded = torch.empty_like(deter), []
        for step in range(len(deter) - 1, -1, -1):
            gradient = Latent(deter[step] + carried.deter, stoch[step] + carried.stoch)
            carried, actions[step], hidden = self._tape.backward(gradient, logits[step])
            embedded.append(hidden)
        return actions, torch.stack(embedded[::-1]), self._tape.gradients()


class _Observe(torch.autograd.Function):
    """The posterior along a sequence, as one node of the graph."""

    @staticmethod
    def forward(
        ctx: Any, rssm: RSSM, action: Tensor, embedded: Tensor, noise: Tensor, *trained: nn.Parameter
    ) -> tuple[Tensor, Tensor, Tensor]:
        scan = PosteriorScan if fits(action, rssm.bf16) else PosteriorSteps
        ctx.scan, ctx.trained = scan(rssm, action, embedded, noise), trained
        return ctx.scan.outputs()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, deter: Tensor, stoch: Tensor, logits: Tensor) -> tuple[Tensor | None, ...]:
        action, embedded, gradients = ctx.scan.backward(deter, stoch, logits)
        return None, action, embedded, None, *(gradients[parameter] for parameter in ctx.trained)
