"""The deterministic half of the recurrent model: a block-diagonal GRU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.nets import BlockLinear, NormSiLU, mlp
from wpt_bench.world_model.tape import BlockTape, ChainTape, Gradients, LinearTape, NormTape, block_major, row_major

_tanh_backward = torch.ops.aten.tanh_backward.default
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


class Recurrence(nn.Module):
    """h_t = f(h_{t-1}, z_{t-1}, a_t) (WPT, section 3.2; the block GRU of DreamerV3, arXiv 2301.04104)."""

    def __init__(self, size: WorldModelSize, action: int) -> None:
        super().__init__()
        hidden = size.hidden
        self.blocks = size.blocks
        self.action_in = mlp(action, hidden, 1, None, first=True)
        self.stoch_in = mlp(size.stoch_flat, hidden, 1, None)
        self.deter_in = mlp(size.deter, hidden, 1, None)
        # Every block of the GRU's input sees all three projections and its own block of the state: a dense matrix for
        # the former, a block-diagonal one for the latter. The action's columns stand apart to be applied once.
        self.core_action = nn.Linear(hidden, size.deter)
        self.core_latent = nn.Linear(2 * hidden, size.deter, bias=False)
        self.core_deter = BlockLinear(size.deter, size.deter, size.blocks, bias=False)
        self.core_norm = NormSiLU(size.deter)
        self.gates = BlockLinear(size.deter, 3 * size.deter, size.blocks)  # of each block: reset, update, candidate

    def project(self, action: Tensor) -> Tensor:
        """Padded actions ``(..., action)`` as the recurrence takes them: ``(..., deter)``, for all steps at once."""
        return self.core_action(self.action_in(action))

    def stepped(self) -> list[nn.Parameter]:
        """The parameters that every step uses: all but those that project actions."""
        parts = (self.stoch_in, self.deter_in, self.core_latent, self.core_deter, self.core_norm, self.gates)
        return [parameter for part in parts for parameter in part.parameters()]


class RecurrenceTape:
    """``Recurrence`` step after step, and back; actions come projected."""

    def __init__(self, layer: Recurrence, *, frozen: bool = False, bf16: bool = False) -> None:
        self._blocks = layer.blocks
        self._stoch_in = ChainTape(layer.stoch_in, frozen=frozen, bf16=bf16)
        self._deter_in = ChainTape(layer.deter_in, frozen=frozen, bf16=bf16)
        self._core_latent = LinearTape(layer.core_latent, frozen=frozen, bf16=bf16)
        self._core_deter = BlockTape(layer.core_deter, frozen=frozen, bf16=bf16)
        self._core_norm = NormTape(layer.core_norm, frozen=frozen)
        width = layer.gates.weight.shape[1]
        self._parts = [2 * width, width]
        # Update gates start almost closed: 1 is taken from what opens them.
        offset = layer.gates.weight.new_zeros(3 * width)
        offset[width : 2 * width] = -1
        self._gates = BlockTape(layer.gates, offset=offset, frozen=frozen, bf16=bf16)
        self._tapes = (
            self._stoch_in,
            self._deter_in,
            self._core_latent,
            self._core_deter,
            self._core_norm,
            self._gates,
        )
        self._saved: list[tuple[Tensor, ...]] = []

    def forward(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """The next deterministic state ``(N, deter)`` after projected actions ``(N, deter)``."""
        projected = torch.cat([self._stoch_in.forward(stoch), self._deter_in.forward(deter)], -1)
        core = self._core_latent.forward(projected, plus=action)
        block_major(core, self._blocks).add_(self._core_deter.forward(deter))
        opened, candidate = self._gates.forward(self._core_norm.forward(core)).split_with_sizes(self._parts, -1)
        opened, before = torch.sigmoid(opened), block_major(deter, self._blocks)
        reset, update = opened.chunk(2, -1)
        proposed = torch.mul(reset, candidate).mul_(2).sigmoid_().mul_(2).sub_(1)  # tanh, in a fifth of its time
        self._saved.append((before, opened, candidate, proposed))
        return row_major(torch.lerp(before, proposed, update))

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the gradient of the last state to those of the state, stochastic state and projected action before."""
        before, opened, candidate, proposed = self._saved.pop()
        reset, update = opened.chunk(2, -1)
        out = block_major(gradient, self._blocks)
        to_proposed = out * update
        gates = torch.empty((*out.shape[:2], 3 * out.shape[2]), device=out.device, dtype=out.dtype)
        to_opened, to_candidate = gates.split_with_sizes(self._parts, -1)
        to_reset, to_update = to_opened.chunk(2, -1)
        inner = _tanh_backward(to_proposed, proposed)
        torch.mul(inner, reset, out=to_candidate)
        torch.mul(inner, candidate, out=to_reset)
        torch.mul(out, proposed - before, out=to_update)
        _sigmoid_backward(to_opened, opened, grad_input=to_opened)
        to_core = self._core_norm.backward(row_major(self._gates.backward(gates)))
        to_deter = (out - to_proposed).add_(self._core_deter.backward(block_major(to_core, self._blocks)))
        to_stoch_in, to_deter_in = self._core_latent.backward(to_core).chunk(2, -1)
        to_deter = row_major(to_deter).add_(self._deter_in.backward(to_deter_in))
        return to_deter, self._stoch_in.backward(to_stoch_in), to_core

    def gradients(self) -> Gradients:
        """Of all parameters but those that project actions."""
        return {parameter: value for tape in self._tapes for parameter, value in tape.gradients().items()}
