"""Adam with gradient clipping and decay, on all parameters as one vector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class Optimizer:
    """Fused Adam; clips the global gradient norm, then multiplies weights by ``1 - weight_decay`` (authors' code).

    The parameters become views of one vector, so that a step takes a few operations however many layers there are:
    move a network to its device before it is given to its optimizer.
    """

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
        self._vector = nn.Parameter(nn.utils.parameters_to_vector(self._parameters).detach())
        nn.utils.vector_to_parameters(self._vector.detach(), self._parameters)
        self._adam = torch.optim.Adam([self._vector], lr=learning_rate, eps=eps, fused=True)
        self._clip, self._decay = grad_clip, weight_decay

    def step(self, loss: Tensor) -> Tensor:
        """Backpropagates ``loss``, makes one step and returns the gradient's norm before clipping."""
        return self._step(torch.autograd.grad(loss, self._parameters))

    def apply(self, gradients: Mapping[nn.Parameter, Tensor]) -> Tensor:
        """Makes one step with these gradients, one for every parameter, and returns their norm before clipping."""
        return self._step([gradients[parameter] for parameter in self._parameters])

    @torch.no_grad()
    def _step(self, gradients: Iterable[Tensor]) -> Tensor:
        self._vector.grad = torch.cat([gradient.reshape(-1) for gradient in gradients])
        norm = torch.linalg.vector_norm(self._vector.grad)
        if self._clip < math.inf:
            nn.utils.clip_grads_with_norm_(self._vector, self._clip, norm)
        if self._decay:
            self._vector.mul_(1 - self._decay)
        self._adam.step()
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """Moments, of all parameters in their order, and step count; empty before the first step."""
        return dict(self._adam.state.get(self._vector, {}))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what ``state_dict`` gave; ValueError if it is of other parameters."""
        if state and state["exp_avg"].shape != self._vector.shape:
            raise ValueError(f"moments of {state['exp_avg'].numel()} parameters, not {self._vector.numel()}")
        self._adam.state.clear()
        device = self._vector.device
        self._adam.state[self._vector].update({name: value.to(device, copy=True) for name, value in state.items()})
