"""Adam with gradient clipping and decay, whose state is a flat dictionary of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class Optimizer:
    """Fused Adam; clips the global gradient norm, then multiplies weights by ``1 - weight_decay`` (authors' code)."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        eps: float,
        grad_clip: float,
        weight_decay: float,
    ) -> None:
        self._parameters = list(parameters)
        self._adam = torch.optim.Adam(self._parameters, lr=learning_rate, eps=eps, fused=True)
        self._clip, self._decay = grad_clip, weight_decay

    def step(self, loss: Tensor) -> Tensor:
        """Backpropagates ``loss``, makes one step and returns the gradient's norm before clipping."""
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip, foreach=True)
        if self._decay:
            torch._foreach_mul_([parameter.data for parameter in self._parameters], 1 - self._decay)
        self._adam.step()
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and step counts, ``<index>.<name>`` by parameter order; empty before the first step."""
        return {
            f"{index}.{name}": value
            for index, parameter in enumerate(self._parameters)
            for name, value in self._adam.state.get(parameter, {}).items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what ``state_dict`` gave."""
        self._adam.state.clear()
        for key, value in state.items():
            index, name = key.split(".")
            self._adam.state[self._parameters[int(index)]][name] = value.clone()
