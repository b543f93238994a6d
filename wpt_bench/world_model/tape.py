"""Layers that are stepped through time, with backward passes written by hand.

Automatic differentiation of a loop over time spends most of a small model's update on bookkeeping: a graph node for
every operation of every step, and a gradient of every weight at every step. A tape records what its layer's backward
pass needs. Going back, from the last step to the first, carries gradients of activations alone; those of parameters
are summed from many steps together, and not at all by a frozen tape. Nothing here is differentiable by autograd.

With ``bf16`` the inputs of matrix products are bfloat16, and everything between them float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wpt_bench.world_model.nets import BlockLinear, NormSiLU, widened

Gradients = dict[nn.Parameter, Tensor]
_silu_backward: Any = torch.ops.aten.silu_backward.default
_layer_norm_backward: Any = torch.ops.aten.native_layer_norm_backward.default
ENOUGH_ROWS = 512
"""Rows that make a matrix product efficient: with fewer, the gradients of parameters wait for more steps."""


class Tape(Protocol):
    """One layer over many steps."""

    def forward(self, x: Tensor) -> Tensor:
        """One step further."""
        ...

    def backward(self, gradient: Tensor) -> Tensor:
        """One step back: from the gradient of the last output not yet gone back through to that of its input."""
        ...

    def gradients(self) -> Gradients:
        """Of the layer's parameters, summed over all steps gone back through."""
        ...


class _First(Tape, Protocol):
    """A tape whose input may be something that nobody wants a gradient of."""

    def end(self, gradient: Tensor) -> None:
        """One step back where nothing wants the gradient of the input."""
        ...


class _Sum:
    """Gradients of parameters, summed over steps.

    Args:
        compute: from what steps recorded, rows of all of them joined, to the gradients.
        axis: of the rows.
        off: whether to forget what is recorded.
    """

    def __init__(self, compute: Callable[..., tuple[Tensor, ...]], *, axis: int = 0, off: bool) -> None:
        self._compute, self._axis, self._off = compute, axis, off
        self._waiting: list[tuple[Tensor, ...]] = []
        self._rows = 0
        self._total: tuple[Tensor, ...] | None = None

    def add(self, *recorded: Tensor) -> None:
        """One step more."""
        if self._off:
            return
        self._waiting.append(recorded)
        self._rows += recorded[0].shape[self._axis]
        if self._rows >= ENOUGH_ROWS:
            self._settle()

    def result(self) -> tuple[Tensor, ...]:
        """The sums so far."""
        if self._waiting:
            self._settle()
        assert self._total is not None
        return self._total

    def _settle(self) -> None:
        steps = zip(*self._waiting, strict=True)
        joined = (parts[0] if len(parts) == 1 else torch.cat(parts, self._axis) for parts in steps)
        found = self._compute(*joined)
        if self._total is None:
            self._total = found
        else:
            torch._foreach_add_(self._total, found)
        self._waiting, self._rows = [], 0


class LinearTape:
    """``nn.Linear``: ``(N, inputs)`` to ``(N, outputs)``."""

    def __init__(self, layer: nn.Linear, *, frozen: bool = False, bf16: bool = False) -> None:
        self._layer, self._bf16 = layer, bf16
        self._weight = _input(layer.weight.detach(), bf16)
        self._columns = self._weight.t()
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._inputs: list[Tensor] = []
        self._sum = _Sum(self._parameters, off=frozen)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """See ``Tape``; a layer without bias takes ``plus`` instead, ``(N, outputs)``."""
        x = _input(x, self._bf16)
        self._inputs.append(x)
        plus = self._bias if plus is None else plus
        if self._bf16:
            y = torch.mm(x, self._columns).float()
            return y if plus is None else y.add_(plus)
        return torch.mm(x, self._columns) if plus is None else torch.addmm(plus, x, self._columns)

    def backward(self, gradient: Tensor) -> Tensor:
        """See ``Tape``."""
        self.end(gradient)
        return widened(torch.mm(_input(gradient, self._bf16), self._weight))

    def end(self, gradient: Tensor) -> None:
        """One step back where nothing wants the gradient of the input."""
        self._sum.add(gradient, self._inputs.pop())

    def gradients(self) -> Gradients:
        """See ``Tape``."""
        return dict(zip(self._layer.parameters(), self._sum.result(), strict=True))

    def _parameters(self, gradient: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        weight = widened(torch.mm(_input(gradient, self._bf16).t(), x))
        return (weight,) if self._bias is None else (weight, gradient.sum(0))


class BlockTape:
    """A block-diagonal linear layer. Outputs, and their gradients, are block-major: ``(blocks, N, outputs / blocks)``.

    Inputs are ``(N, inputs)``: with the blocks as the axis of a batch, no copy is needed to multiply them. ``offset``
    ``(outputs / blocks)`` is a constant added to every block's bias.
    """

    def __init__(
        self, layer: BlockLinear, *, offset: Tensor | None = None, frozen: bool = False, bf16: bool = False
    ) -> None:
        self._layer, self._bf16 = layer, bf16
        self._weight = _input(layer.weight.detach(), bf16)
        self._back = self._weight.transpose(1, 2)
        self._bias = None if layer.bias is None else layer.bias.detach().view(len(self._weight), 1, -1)
        if self._bias is not None and offset is not None:
            self._bias = self._bias + offset
        self._inputs: list[Tensor] = []
        self._sum = _Sum(self._parameters, axis=1, off=frozen)

    def forward(self, x: Tensor) -> Tensor:
        """See ``Tape``."""
        x = block_major(_input(x, self._bf16), len(self._weight))
        self._inputs.append(x)
        if self._bf16:
            y = torch.bmm(x, self._weight).float()
            return y if self._bias is None else y.add_(self._bias)
        return torch.bmm(x, self._weight) if self._bias is None else torch.baddbmm(self._bias, x, self._weight)

    def backward(self, gradient: Tensor) -> Tensor:
        """See ``Tape``."""
        self._sum.add(gradient, self._inputs.pop())
        return widened(torch.bmm(_input(gradient, self._bf16), self._back))

    def gradients(self) -> Gradients:
        """See ``Tape``."""
        return dict(zip(self._layer.parameters(), self._sum.result(), strict=True))

    def _parameters(self, gradient: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        weight = widened(torch.bmm(x.transpose(1, 2), _input(gradient, self._bf16)))
        return (weight,) if self._bias is None else (weight, gradient.sum(1).flatten())


class NormTape:
    """LayerNorm and SiLU over the last axis."""

    def __init__(self, layer: NormSiLU, *, frozen: bool = False) -> None:
        self._norm = layer.norm
        self._shape, self._eps = layer.norm.normalized_shape, layer.norm.eps
        self._weight, self._bias = layer.norm.weight.detach(), layer.norm.bias.detach()
        self._saved: list[tuple[Tensor, ...]] = []
        self._sum = _Sum(self._parameters, off=frozen)

    def forward(self, x: Tensor) -> Tensor:
        """See ``Tape``."""
        normed, mean, rstd = torch.native_layer_norm(x, self._shape, self._weight, self._bias, self._eps)
        self._saved.append((x, mean, rstd, normed))
        return F.silu(normed)

    def backward(self, gradient: Tensor) -> Tensor:
        """See ``Tape``."""
        x, mean, rstd, normed = self._saved.pop()
        gradient = _silu_backward(gradient, normed)
        self._sum.add(gradient, x, mean, rstd)
        return self._norm_backward(gradient, x, mean, rstd, (True, False, False))[0]

    def gradients(self) -> Gradients:
        """See ``Tape``."""
        return dict(zip((self._norm.weight, self._norm.bias), self._sum.result(), strict=True))

    def _parameters(self, *recorded: Tensor) -> tuple[Tensor, ...]:
        gradient, x, mean, rstd = recorded
        return self._norm_backward(gradient, x, mean, rstd, (False, True, True))[1:]

    def _norm_backward(self, gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, which: tuple[bool, ...]) -> Any:
        return _layer_norm_backward(gradient, x, self._shape, mean, rstd, self._weight, self._bias, which)


class ChainTape:
    """Linear layers and their activations, one after the other (see ``nets.mlp``)."""

    def __init__(self, layers: nn.Sequential, *, frozen: bool = False, bf16: bool = False) -> None:
        first, *others = layers
        assert isinstance(first, nn.Linear)
        self._first: _First = LinearTape(first, frozen=frozen, bf16=bf16)
        self._others: list[Tape] = [
            LinearTape(layer, frozen=frozen, bf16=bf16)
            if isinstance(layer, nn.Linear)
            else NormTape(layer, frozen=frozen)
            for layer in others
            if isinstance(layer, nn.Linear | NormSiLU)
        ]
        assert len(self._others) == len(others)

    def forward(self, x: Tensor) -> Tensor:
        """See ``Tape``."""
        x = self._first.forward(x)
        for tape in self._others:
            x = tape.forward(x)
        return x

    def backward(self, gradient: Tensor) -> Tensor:
        """See ``Tape``."""
        return self._first.backward(self._back(gradient))

    def end(self, gradient: Tensor) -> None:
        """One step back where nothing wants the gradient of the input."""
        self._first.end(self._back(gradient))

    def gradients(self) -> Gradients:
        """See ``Tape``."""
        return {p: value for tape in (self._first, *self._others) for p, value in tape.gradients().items()}

    def _back(self, gradient: Tensor) -> Tensor:
        for tape in reversed(self._others):
            gradient = tape.backward(gradient)
        return gradient


def _input(x: Tensor, bf16: bool) -> Tensor:
    """An input of a matrix product."""
    return x.bfloat16() if bf16 else x


def block_major(x: Tensor, blocks: int) -> Tensor:
    """``(N, width)`` seen as ``(blocks, N, width / blocks)``."""
    return x.view(x.shape[0], blocks, -1).transpose(0, 1)


def row_major(x: Tensor) -> Tensor:
    """``(blocks, N, width)`` as ``(N, blocks * width)``: a copy."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)
