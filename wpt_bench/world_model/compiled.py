"""The recurrent model's scans in compiled code, for float32 on a CPU: what ``rssm``'s tapes do, from the same arrays.

The kernels step through time; gradients of matrices are left to one large product of torch's after all steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wpt_bench.world_model import kernels
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.nets import BlockLinear, NormSiLU
from wpt_bench.world_model.recurrence import Recurrence
from wpt_bench.world_model.tape import ChainTape, Gradients, LinearTape, block_major

if TYPE_CHECKING:
    from wpt_bench.world_model.rssm import RSSM, Latent

Floats = NDArray[np.float32]
Out = TypeVar("Out")


class PosteriorScan:
    """See ``rssm.PosteriorSteps``."""

    def __init__(self, rssm: RSSM, action: Tensor, embedded: Tensor, noise: Tensor) -> None:
        self._rssm = rssm
        steps, batch, deter = action.shape
        stoch, hidden = rssm.size.stoch_flat, rssm.size.hidden
        self._cell, self._posterior = _cell(rssm.recurrence), _posterior(rssm)
        self._kept, self._norms = _kept(steps, batch, hidden, deter), _norms(steps, batch, hidden)
        self._hidden, self._probs = _empty(steps, batch, hidden), _empty(steps, batch, stoch)
        self._states = _empty(steps + 1, batch, deter + stoch)
        self._states[0] = 0
        logits = _empty(steps, batch, stoch)
        kernels.observe(
            self._cell,
            self._posterior,
            self._kept,
            self._norms,
            self._hidden,
            self._probs,
            logits,
            self._states,
            _array(action),
            _array(embedded),
            _array(noise),
        )
        self._deter, self._logits = deter, logits

    def outputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Deterministic and stochastic states, and logits."""
        deter, stoch = torch.from_numpy(self._states[1:]).tensor_split([self._deter], -1)
        return deter.contiguous(), stoch.contiguous(), torch.from_numpy(self._logits)

    def backward(self, deter: Tensor, stoch: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Gradients]:
        """From gradients of states and logits to those of actions and embeddings, and of all parameters."""
        steps, batch, hidden = self._hidden.shape
        to_states = torch.cat([deter, stoch], -1).numpy()
        to_logits = logits.clone(memory_format=torch.contiguous_format).numpy()
        to_hidden, to_core = _empty(steps, batch, hidden), _empty(steps, batch, self._deter)
        to_gates = _empty(steps, batch, 3 * self._deter)
        to_from_stoch, to_from_deter = _empty(steps, batch, hidden), _empty(steps, batch, hidden)
        sums = np.zeros((8, max(hidden, self._deter)), np.float32)
        kernels.observe_back(
            self._cell,
            self._posterior,
            self._kept,
            self._norms,
            self._probs,
            self._states,
            self._rssm.size.stoch,
            to_states,
            to_logits,
            to_hidden,
            to_gates,
            to_core,
            to_from_stoch,
            to_from_deter,
            sums,
        )
        rssm, layer = self._rssm, self._rssm.recurrence
        ((stoch_in, stoch_norm),), ((deter_in, deter_norm),) = _hidden(layer.stoch_in), _hidden(layer.deter_in)
        before, reached = (torch.from_numpy(part).flatten(0, 1) for part in (self._states[:-1], self._states[1:]))
        old, chosen = before[:, : self._deter], before[:, self._deter :]
        gates, core, from_stoch, from_deter, posterior, logit = (
            torch.from_numpy(part).flatten(0, 1)
            for part in (to_gates, to_core, to_from_stoch, to_from_deter, to_hidden, to_logits)
        )
        took_stoch, took_deter, took_core, took_hidden = (
            torch.from_numpy(part).flatten(0, 1)
            for part in (self._kept.from_stoch, self._kept.from_deter, self._kept.from_core, self._hidden)
        )
        scales = torch.from_numpy(sums)

        def norm(layer: NormSiLU, row: int) -> Gradients:
            width = len(layer.norm.weight)
            return {layer.norm.weight: scales[row, :width], layer.norm.bias: scales[row + 1, :width]}

        gradients: Gradients = {
            _weight(stoch_in): from_stoch.t() @ chosen,
            _weight(deter_in): from_deter.t() @ old,
            _weight(layer.core_latent): torch.cat([core.t() @ took_stoch, core.t() @ took_deter], 1),
            layer.core_deter.weight: _of_blocks(layer.core_deter, old, core),
            layer.gates.weight: _of_blocks(layer.gates, took_core, gates),
            _bias(layer.gates): gates.sum(0),
            _weight(rssm.posterior_deter): posterior.t() @ reached[:, : self._deter],
            _weight(rssm.posterior_head): logit.t() @ took_hidden,
            rssm.posterior_head.bias: logit.sum(0),
        }
        gradients |= norm(stoch_norm, 0) | norm(deter_norm, 2) | norm(layer.core_norm, 4)
        gradients |= norm(rssm.posterior_norm, 6)
        return torch.from_numpy(to_core), torch.from_numpy(to_hidden), gradients


class PriorScan:
    """See ``rssm.PriorSteps``. Rows are independent of each other: threads share them."""

    def __init__(self, rssm: RSSM, start: Latent, steps: int) -> None:
        feature, weights = start.feature, (_cell(rssm.recurrence), _prior(rssm))
        self._rows = _shares(len(feature))
        self._parts = [_PriorRows(rssm.size, *weights, feature[rows], steps) for rows in self._rows]

    def forward(self, action: Tensor, noise: Tensor) -> None:
        """One step further, after padded actions ``(N, action)``; ``noise`` is uniform, ``(N, stoch)``."""
        _together(lambda part, rows: part.forward(_array(action[rows]), _array(noise[rows])), self._parts, self._rows)

    @property
    def feature(self) -> Tensor:
        """The last states."""
        return _joined([part.states[part.step] for part in self._parts], 0)

    def features(self) -> Tensor:
        """All states, those imagination started from first: ``(1 + steps, N, feature)``."""
        return _joined([part.states[: part.step + 1] for part in self._parts], 1)

    def backward(self, gradient: Tensor) -> Tensor:
        """From the gradients of all states reached, ``(steps, N, feature)``, to those of all actions.

        What is handed over is spent.
        """
        back = _together(lambda part, rows: part.backward(_array(gradient[:, rows])), self._parts, self._rows)
        return _joined(back, 1)


class _PriorRows:
    """Steps of some of the rows, and back."""

    def __init__(
        self, size: WorldModelSize, cell: kernels.Cell, prior: kernels.Prior, start: Tensor, steps: int
    ) -> None:
        rows = len(start)
        self._cell, self._prior, self._groups = cell, prior, size.stoch
        self._kept = _kept(steps, rows, size.hidden, size.deter)
        self._norms = [_norms(steps, rows, size.hidden) for _ in range(3)]
        self._probs = _empty(steps, rows, size.stoch_flat)
        self.states, self.step = _empty(steps + 1, rows, size.feature), 0
        self.states[0] = start.numpy()

    def forward(self, action: Floats, noise: Floats) -> None:
        weights, kept = (self._cell, self._prior), (self._kept, *self._norms, self._probs)
        kernels.imagine(*weights, *kept, self.step, self.states[self.step], action, noise, self.states[self.step + 1])
        self.step += 1

    def backward(self, gradient: Floats) -> Floats:
        actions = _empty(*gradient.shape[:2], len(self._prior.action_in))
        weights, kept = (self._cell, self._prior), (self._kept, *self._norms, self._probs)
        kernels.imagine_back(*weights, *kept, self._groups, self.states, gradient, actions)
        return actions


class HiddenTape:
    """A linear layer without bias and its ``NormSiLU``, see ``tape.Tape``. Gradients handed to it are spent.

    Args:
        linear, norm: the layers.
        dense: inputs before those that are one-hot; None if none are.
        frozen: whether nobody wants gradients of parameters.
    """

    def __init__(self, linear: nn.Linear, norm: NormSiLU, *, dense: int | None = None, frozen: bool = False) -> None:
        self._linear, self._norm, self._frozen = linear, norm.norm, frozen
        self._weight, self._back = _both(linear)
        self._scale, self._shift = _norm(norm)
        self._dense = linear.in_features if dense is None else dense
        self._saved: list[tuple[Tensor, Floats, Floats]] = []
        threads = torch.get_num_threads()
        self._sums = _zeros(threads, 2, linear.out_features)
        self._chosen = _zeros(threads, linear.in_features - self._dense, linear.out_features)
        self._to_dense = torch.zeros(linear.out_features, self._dense)

    def forward(self, x: Tensor) -> Tensor:
        """See ``Tape``."""
        rows, width = len(x), self._weight.shape[1]
        hat, rstd, out = _empty(rows, width), _empty(rows), _empty(rows, width)
        inputs = _array(x)

        def compute(part: slice) -> None:
            weights = self._weight, self._scale, self._shift
            kernels.hidden(inputs[part], self._dense, *weights, hat[part], rstd[part], out[part])

        _together(compute, _shares(rows))
        self._saved.append((x, hat, rstd))
        return torch.from_numpy(out)

    def backward(self, gradient: Tensor) -> Tensor:
        """See ``Tape``."""
        return self._step(gradient, _zeros(len(gradient), len(self._weight)))

    def end(self, gradient: Tensor) -> None:
        """One step back where nothing wants the gradient of the input."""
        self._step(gradient, _empty(0, len(self._weight)))

    def gradients(self) -> Gradients:
        """See ``Tape``."""
        weight = torch.cat([self._to_dense, torch.from_numpy(self._chosen).sum(0).t()], 1)
        scale, shift = torch.from_numpy(self._sums).sum(0)
        return {_weight(self._linear): weight, self._norm.weight: scale, self._norm.bias: shift}

    def _step(self, gradient: Tensor, to_x: Floats) -> Tensor:
        x, hat, rstd = self._saved.pop()
        inside, inputs = _array(gradient), _array(x)

        def compute(part: slice, sums: Floats, chosen: Floats) -> None:
            weights = self._back, self._scale, self._shift
            kernels.hidden_back(inside[part], *weights, hat[part], rstd[part], *sums, to_x[part])
            if not self._frozen:
                kernels.chosen_back(inside[part], inputs[part], self._dense, chosen)

        _together(compute, _shares(len(x)), self._sums, self._chosen)
        if not self._frozen:
            self._to_dense.addmm_(torch.from_numpy(inside).t(), x[:, : self._dense])
        return torch.from_numpy(to_x)


class HeadTape(ChainTape):
    """The same as ``ChainTape``, of a network that sees states: hidden layers are compiled."""

    def __init__(self, layers: nn.Sequential, dense: int, *, frozen: bool = False) -> None:
        (linear, norm), *others = _hidden(layers)
        self._first = HiddenTape(linear, norm, dense=dense, frozen=frozen)
        self._others = [HiddenTape(*pair, frozen=frozen) for pair in others]
        self._others.append(LinearTape(_last(layers), frozen=frozen))


def fits(x: Tensor, bf16: bool = False) -> bool:
    """Whether there is compiled code for such numbers."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not bf16


_SHARE = 128
"""Rows that are worth a thread."""


def _shares(rows: int) -> list[slice]:
    """Rows in as many parts as torch has threads, or fewer."""
    parts = max(1, min(torch.get_num_threads(), rows // _SHARE))
    edges = [rows * part // parts for part in range(parts + 1)]
    return [slice(*edge) for edge in itertools.pairwise(edges)]


def _together(compute: Callable[..., Out], first: Sequence[Any], *others: Iterable[Any]) -> list[Out]:
    """``compute`` of every part, in as many threads as there are parts; ``others`` may be longer."""
    calls = list(zip(first, *others, strict=False))
    if len(calls) == 1:
        return [compute(*calls[0])]
    waiting = [_threads().submit(compute, *call) for call in calls[1:]]
    return [compute(*calls[0]), *(one.result() for one in waiting)]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor()


def _joined(parts: list[Floats], axis: int) -> Tensor:
    tensors = [torch.from_numpy(part) for part in parts]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, axis)


def _cell(layer: Recurrence) -> kernels.Cell:
    ((stoch_in, stoch_norm),), ((deter_in, deter_norm),) = _hidden(layer.stoch_in), _hidden(layer.deter_in)
    bias = _bias(layer.gates)
    offset = torch.zeros_like(bias).view(layer.blocks, 3, -1)
    offset[:, 1] = -1  # see RecurrenceTape
    return kernels.Cell(
        *_both(stoch_in),
        *_norm(stoch_norm),
        *_both(deter_in),
        *_norm(deter_norm),
        *_both(layer.core_latent),
        *_both(layer.core_deter),
        *_norm(layer.core_norm),
        *_both(layer.gates),
        _array(bias + offset.flatten()),
    )


def _posterior(rssm: RSSM) -> kernels.Posterior:
    head = rssm.posterior_head
    return kernels.Posterior(*_both(rssm.posterior_deter), *_norm(rssm.posterior_norm), *_both(head), _array(head.bias))


def _prior(rssm: RSSM) -> kernels.Prior:
    layer, head = rssm.recurrence, _last(rssm.prior_head)
    (first, first_norm), (second, second_norm) = _hidden(rssm.prior_head)
    ((action_in, action_norm),) = _hidden(layer.action_in)
    return kernels.Prior(
        *_both(action_in),
        _array(action_in.bias),
        *_norm(action_norm),
        *_both(layer.core_action),
        _array(layer.core_action.bias),
        *_both(first),
        *_norm(first_norm),
        *_both(second),
        *_norm(second_norm),
        *_both(head),
        _array(head.bias),
    )


def _hidden(layers: nn.Sequential) -> list[tuple[nn.Linear, NormSiLU]]:
    """The hidden layers of an ``nets.mlp``."""
    pairs = []
    for linear, norm in itertools.pairwise(layers):
        if isinstance(norm, NormSiLU):
            assert isinstance(linear, nn.Linear)
            pairs.append((linear, norm))
    return pairs


def _last(layers: nn.Sequential) -> nn.Linear:
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    return last


def _weight(layer: nn.Linear) -> nn.Parameter:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def _bias(layer: BlockLinear) -> nn.Parameter:
    assert layer.bias is not None
    return layer.bias


def _both(layer: nn.Linear | BlockLinear) -> tuple[Floats, Floats]:
    """A layer's matrix as the kernels want it, inputs first, and its transpose."""
    weight = layer.weight.detach()
    one, other = _array(weight), _array(weight.transpose(-1, -2))
    return (one, other) if isinstance(layer, BlockLinear) else (other, one)


def _norm(layer: NormSiLU) -> tuple[Floats, Floats]:
    return _array(layer.norm.weight), _array(layer.norm.bias)


def _kept(steps: int, rows: int, hidden: int, deter: int) -> kernels.CellKept:
    norms = (_norms(steps, rows, width) for width in (hidden, hidden, deter))
    widths = (hidden, hidden, deter, 3 * deter, deter)
    return kernels.CellKept(*norms, *(_empty(steps, rows, width) for width in widths))


def _norms(steps: int, rows: int, width: int) -> kernels.Norms:
    return kernels.Norms(_empty(steps, rows, width), _empty(steps, rows))


def _empty(*shape: int) -> Floats:
    return np.empty(shape, np.float32)


def _zeros(*shape: int) -> Floats:
    return np.zeros(shape, np.float32)


def _array(x: Tensor) -> Floats:
    return x.detach().contiguous().numpy()


def _of_blocks(layer: BlockLinear, x: Tensor, gradient: Tensor) -> Tensor:
    blocks = len(layer.weight)
    return torch.bmm(block_major(x, blocks).transpose(1, 2), block_major(gradient, blocks))
