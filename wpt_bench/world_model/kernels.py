"""Steps of the recurrent model and back, compiled: what `tape` and `recurrence` say with a call for every operation.

At the sizes a CPU can train, a step's operations take less time than calling them. Here a whole step, or scan, is one
call of machine code: float32, one thread, no C compiler needed, and kept on disk beside this file for every later
process (numba does not see changes in other files: all of it is in this one, but for two constants, after a change of
which this file must be touched). `compiled` holds the arrays.

All matrices are ``(inputs, outputs)``; names that end in ``_back`` are their transposes. A state is a row of deter and
stoch, joined. Arrays are float32, rows first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from wpt_bench.world_model.functional import UNIMIX
from wpt_bench.world_model.nets import NORM_EPS

Array = Any
"""float32 array."""
_F = np.float32
_EPS, _UNIMIX = _F(NORM_EPS), _F(UNIMIX)
_ONE, _ZERO = _F(1), _F(0)
_WIDE = bool(get_host_cpu_features().get("avx512f"))
_LANES, _ROWS = (16, 8) if _WIDE else (8, 4)
"""A tile of a product is ``_ROWS`` rows of two vectors of ``_LANES``: as many as stay in registers."""


def _compiled(function: Callable[..., Any]) -> Any:
    """Machine code of a function, kept on disk where a folder for it can be written, else made by every process.

    Sums may be reordered, so that they become vectors: the same order on every call, but for a machine of another kind.
    """
    how: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz", "arcp"}}
    try:
        return njit(cache=True, **how)(function)
    except RuntimeError:  # neither beside this file nor in the user's cache
        return njit(**how)(function)


_inline: Callable[[Any], Any] = intrinsic


class Cell(NamedTuple):
    """Weights of the recurrence; ``H`` hidden, ``D`` deter, ``S`` stoch_flat, ``w`` = ``D / blocks``."""

    stoch_in: Array  # (S, H)
    stoch_in_back: Array
    stoch_scale: Array  # (H,)
    stoch_shift: Array
    deter_in: Array  # (D, H)
    deter_in_back: Array
    deter_scale: Array  # (H,)
    deter_shift: Array
    core_latent: Array  # (2 H, D)
    core_latent_back: Array
    core_deter: Array  # (blocks, w, w)
    core_deter_back: Array
    core_scale: Array  # (D,)
    core_shift: Array
    gates: Array  # (blocks, w, 3 w)
    gates_back: Array
    gates_bias: Array  # (3 D,), what update gates are shifted by included


class Posterior(NamedTuple):
    """Weights from a deterministic state to its posterior."""

    deter: Array  # (D, H)
    deter_back: Array
    scale: Array  # (H,)
    shift: Array
    head: Array  # (H, S)
    head_back: Array
    head_bias: Array  # (S,)


class Prior(NamedTuple):
    """Weights from a deterministic state to its prior, and from an action to what the recurrence takes."""

    action_in: Array  # (A, H)
    action_in_back: Array
    action_in_bias: Array  # (H,)
    action_scale: Array  # (H,)
    action_shift: Array
    core_action: Array  # (H, D)
    core_action_back: Array
    core_action_bias: Array  # (D,)
    first: Array  # (D, H)
    first_back: Array
    first_scale: Array  # (H,)
    first_shift: Array
    second: Array  # (H, H)
    second_back: Array
    second_scale: Array
    second_shift: Array
    head: Array  # (H, S)
    head_back: Array
    head_bias: Array  # (S,)


class Norms(NamedTuple):
    """What a norm keeps for its way back, for all steps: normalised inputs ``(T, N, width)``, scales ``(T, N)``."""

    hat: Array
    rstd: Array


class CellKept(NamedTuple):
    """What the recurrence keeps of all steps, ``(T, N, width)``."""

    stoch: Norms
    deter: Norms
    core: Norms
    from_stoch: Array  # H, behind the norm, as the next two: what matrices took
    from_deter: Array  # H
    from_core: Array  # D
    gates: Array  # 3 D: of each block reset and update, opened, and candidate
    proposed: Array  # D


# Matrix products


def _tile(rows: int, vectors: int) -> Any:
    """A tile of a product, held in registers: ``c += a @ b``; addresses, and float32 numbers from row to row."""
    lanes = ir.VectorType(ir.FloatType(), _LANES)
    wide, narrow = ir.IntType(64), ir.IntType(32)

    @_inline
    def tile(typing: Any, a: Any, a_row: Any, b: Any, b_row: Any, c: Any, c_row: Any, depth: Any) -> Any:
        def code(context: Any, build: Any, _: Any, arguments: Any) -> Any:
            a, a_row, b, b_row, c, c_row, depth = arguments
            a, b, c = (build.inttoptr(address, ir.FloatType().as_pointer()) for address in (a, b, c))
            signature = ir.FunctionType(lanes, [lanes] * 3)
            multiply_add = get_or_insert_function(build.module, signature, f"llvm.fma.v{_LANES}f32")

            def row(start: Any, length: Any, index: int) -> Any:
                return build.gep(start, [build.mul(length, wide(index))])

            def vector(start: Any, index: int) -> Any:
                return build.bitcast(build.gep(start, [wide(index * _LANES)]), lanes.as_pointer())

            inputs = [row(a, a_row, i) for i in range(rows)]
            outputs = [vector(row(c, c_row, i), j) for i in range(rows) for j in range(vectors)]
            sums = [build.load(output, align=4) for output in outputs]
            before, loop, after = build.block, build.append_basic_block(), build.append_basic_block()
            build.branch(loop)
            build.position_at_end(loop)
            step = build.phi(wide)
            step.add_incoming(wide(0), before)
            carried = [build.phi(lanes) for _ in sums]
            weights = [build.load(vector(build.gep(b, [build.mul(step, b_row)]), j), align=4) for j in range(vectors)]
            found = []
            for i in range(rows):
                number = build.load(build.gep(inputs[i], [step]))
                first = build.insert_element(ir.Constant(lanes, ir.Undefined), number, narrow(0))
                spread = build.shuffle_vector(
                    first, ir.Constant(lanes, ir.Undefined), ir.Constant(ir.VectorType(narrow, _LANES), [0] * _LANES)
                )
                for j in range(vectors):
                    found.append(build.call(multiply_add, [spread, weights[j], carried[i * vectors + j]]))
            following = build.add(step, wide(1))
            step.add_incoming(following, loop)
            for phi, start, value in zip(carried, sums, found, strict=True):
                phi.add_incoming(start, before)
                phi.add_incoming(value, loop)
            build.cbranch(build.icmp_signed("<", following, depth), loop, after)
            build.position_at_end(after)
            for value, output in zip(found, outputs, strict=True):
                build.store(value, output, align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), code

    return tile


_tile_many, _tile_many_thin, _tile_one, _tile_one_thin = _tile(_ROWS, 2), _tile(_ROWS, 1), _tile(1, 2), _tile(1, 1)


@_compiled
def _multiply(a: int, a_row: int, b: int, b_row: int, c: int, c_row: int, rows: int, depth: int, columns: int) -> int:
    """``c += a @ b``, see ``_tile``, up to a column beyond which less than a vector is left: that column."""
    full, column = rows // _ROWS * _ROWS, 0
    while column + _LANES <= columns:
        double = column + 2 * _LANES <= columns
        for i in range(0, full, _ROWS):
            if double:
                _tile_many(a + 4 * i * a_row, a_row, b, b_row, c + 4 * i * c_row, c_row, depth)
            else:
                _tile_many_thin(a + 4 * i * a_row, a_row, b, b_row, c + 4 * i * c_row, c_row, depth)
        for i in range(full, rows):
            if double:
                _tile_one(a + 4 * i * a_row, a_row, b, b_row, c + 4 * i * c_row, c_row, depth)
            else:
                _tile_one_thin(a + 4 * i * a_row, a_row, b, b_row, c + 4 * i * c_row, c_row, depth)
        step = 2 * _LANES if double else _LANES
        column, b, c = column + step, b + 4 * step, c + 4 * step
    return column


@_compiled
def add_product(a: Array, b: Array, c: Array) -> None:
    """``c += a @ b``; columns of all must lie side by side, rows may lie apart."""
    rows, depth = a.shape
    columns = b.shape[1]
    done = _multiply(
        a.ctypes.data,
        a.strides[0] // 4,
        b.ctypes.data,
        b.strides[0] // 4,
        c.ctypes.data,
        c.strides[0] // 4,
        rows,
        depth,
        columns,
    )
    for i in range(rows):
        for k in range(depth):
            for j in range(done, columns):
                c[i, j] += a[i, k] * b[k, j]


@_compiled
def add_blocks(a: Array, b: Array, c: Array) -> None:
    """The same with a block-diagonal ``b``: ``(blocks, inputs / blocks, outputs / blocks)``."""
    _, inputs, outputs = b.shape
    for block in range(len(b)):
        add_product(
            a[:, block * inputs : (block + 1) * inputs], b[block], c[:, block * outputs : (block + 1) * outputs]
        )


@_compiled
def add_chosen(a: Array, start: int, b: Array, c: Array) -> None:
    """``c += a[:, start:] @ b`` where most of ``a`` is zero, as one-hot vectors are."""
    for i in range(len(a)):
        row = a[i, start:]
        for k in range(len(b)):
            if row[k] != _ZERO:
                for j in range(b.shape[1]):
                    c[i, j] += row[k] * b[k, j]


# What lies between them


@_inline
def _bits(typing: Any, x: Any) -> Any:
    """The bits of a float32 as int32."""

    def code(context: Any, build: Any, _: Any, arguments: Any) -> Any:
        return build.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), code


@_inline
def _from_bits(typing: Any, x: Any) -> Any:
    """The float32 of these bits."""

    def code(context: Any, build: Any, _: Any, arguments: Any) -> Any:
        return build.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), code


@_compiled
def exp(x: Any) -> Any:
    """e^x to 1.2e-7, of x cut to [-87, 88]; unlike the C library's it becomes vectors. NaN stays NaN (Cephes)."""
    x = _F(-87) if x < _F(-87) else x
    x = _F(88) if x > _F(88) else x
    whole = np.floor(x * _F(1.44269504) + _F(0.5))
    r = x - whole * _F(0.693359375) + whole * _F(2.12194440e-4)
    p = _F(1.9875691500e-4)
    p = p * r + _F(1.3981999507e-3)
    p = p * r + _F(8.3334519073e-3)
    p = p * r + _F(4.1665795894e-2)
    p = p * r + _F(1.6666665459e-1)
    p = p * r + _F(5.0000001201e-1)
    return (p * r * r + r + _ONE) * _from_bits(np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)))


@_compiled
def log(x: Any) -> Any:
    """ln x to 1.2e-7 of positive normal numbers, see ``exp``."""
    bits = _bits(x) - np.int32(0x3F3504F3)  # sqrt(1/2): the rest is between that and sqrt(2)
    exponent = _F(bits >> np.int32(23))
    r = _from_bits((bits & np.int32(0x7FFFFF)) + np.int32(0x3F3504F3)) - _ONE
    p = _F(7.0376836292e-2)
    p = p * r - _F(1.1514610310e-1)
    p = p * r + _F(1.1676998740e-1)
    p = p * r - _F(1.2420140846e-1)
    p = p * r + _F(1.4249322787e-1)
    p = p * r - _F(1.6668057665e-1)
    p = p * r + _F(2.0000714765e-1)
    p = p * r - _F(2.4999993993e-1)
    p = p * r + _F(3.3333331174e-1)
    p = p * r * r * r - exponent * _F(2.12194440e-4) - _F(0.5) * r * r
    return r + p + exponent * _F(0.693359375)


@_compiled
def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x)."""
    return _ONE / (_ONE + exp(-x))


@_compiled
def norm_silu(x: Array, scale: Array, shift: Array, hat: Array, rstd: Array, out: Array) -> None:
    """LayerNorm and SiLU of every row, as ``nets.NormSiLU``."""
    rows, width = x.shape
    for i in range(rows):
        total, squares = _ZERO, _ZERO
        for j in range(width):
            total += x[i, j]
        mean = total / _F(width)
        for j in range(width):
            squares += (x[i, j] - mean) * (x[i, j] - mean)
        rstd[i] = _ONE / np.sqrt(squares / _F(width) + _EPS)
        for j in range(width):
            hat[i, j] = (x[i, j] - mean) * rstd[i]
            y = hat[i, j] * scale[j] + shift[j]
            out[i, j] = y * sigmoid(y)


@_compiled
def norm_silu_back(
    gradient: Array, scale: Array, shift: Array, hat: Array, rstd: Array, to_scale: Array, to_shift: Array
) -> None:
    """Turns the gradient of the output into that of the input, in place, and adds up those of scale and shift."""
    rows, width = gradient.shape
    for i in range(rows):
        total, along = _ZERO, _ZERO
        for j in range(width):
            h = hat[i, j]
            y = h * scale[j] + shift[j]
            opened = sigmoid(y)
            g = gradient[i, j] * opened * (_ONE + y * (_ONE - opened))
            to_scale[j] += g * h
            to_shift[j] += g
            g *= scale[j]
            gradient[i, j] = g
            total += g
            along += g * h
        total /= _F(width)
        along /= _F(width)
        for j in range(width):
            gradient[i, j] = rstd[i] * (gradient[i, j] - total - hat[i, j] * along)


@_compiled
def _powers(x: Array, out: Array, shift: Array) -> None:
    """e^(x - shift) of rows, each with a shift that keeps it and its sum in range."""
    flat, flat_out = x.reshape(-1), out.reshape(-1)
    squares = _ZERO
    for k in range(len(flat)):
        squares += flat[k] * flat[k]
    shift[:] = _ZERO
    if squares < _F(6400):  # nothing is beyond 80
        for k in range(len(flat)):
            flat_out[k] = exp(flat[k])
    else:
        for group in range(len(x)):
            shift[group] = x[group].max()
            for k in range(x.shape[1]):
                out[group, k] = exp(x[group, k] - shift[group])


@_compiled
def sample(logits: Array, noise: Array, probs: Array, state: Array) -> None:
    """One-hot samples into the end of ``state``, see ``functional.sample_one_hot``; ``probs`` before mixing."""
    rows, groups = noise.shape
    width = logits.shape[1]
    classes, start = width // groups, state.shape[1] - width
    grouped_logits, grouped = logits.reshape(rows, groups, classes), probs.reshape(rows, groups, classes)
    sums, inverse, shift = np.empty((groups, classes), _F), np.empty(groups, _F), np.empty(groups, _F)
    for i in range(rows):
        _powers(grouped_logits[i], grouped[i], shift)
        for group in range(groups):
            total = _ZERO
            for k in range(classes):
                total += grouped[i, group, k]
                sums[group, k] = total
            inverse[group] = _ONE / total
        one_hot = state[i, start:].reshape(groups, classes)
        one_hot[:] = _ZERO
        for group in range(groups):
            picked = 0
            for k in range(classes - 1):
                share = (_ONE - _UNIMIX) * inverse[group] * sums[group, k] + _UNIMIX / _F(classes) * _F(k + 1)
                picked += share <= noise[i, group]
            one_hot[group, picked] = _ONE
            for k in range(classes):
                grouped[i, group, k] *= inverse[group]


@_compiled
def sample_back(gradient: Array, start: int, probs: Array, groups: int, to_logits: Array) -> None:
    """Adds the gradient of the logits to ``to_logits``, see ``functional.sample_one_hot_backward``."""
    rows, width = probs.shape
    classes = width // groups
    grouped, to_grouped = probs.reshape(rows, groups, classes), to_logits.reshape(rows, groups, classes)
    shares = np.empty((groups, classes), _F)
    for i in range(rows):
        of_sample = gradient[i, start:].reshape(groups, classes)
        for group in range(groups):
            mean = _ZERO
            for k in range(classes):
                shares[group, k] = (_ONE - _UNIMIX) * grouped[i, group, k] * of_sample[group, k]
                mean += shares[group, k]
            for k in range(classes):
                to_grouped[i, group, k] += shares[group, k] - grouped[i, group, k] * mean


@_compiled
def _spread(row: Array, rows: int) -> Array:
    """The row, that many times."""
    out = np.empty((rows, len(row)), _F)
    out[:] = row
    return out


# Losses: of every row its value, and the gradient of that


@_compiled
def two_hot_mean(logits: Array, bins: Array, mean: Array, gradient: Array) -> None:
    """Mean of the bins under the softmax of logits ``(N, bins)``."""
    shift = np.empty(1, _F)
    for i in range(len(logits)):
        _powers(logits[i : i + 1], gradient[i : i + 1], shift)
        total, weighted = _ZERO, _ZERO
        for k in range(len(bins)):
            total += gradient[i, k]
            weighted += gradient[i, k] * bins[k]
        mean[i] = weighted / total
        for k in range(len(bins)):
            gradient[i, k] *= (bins[k] - mean[i]) / total


@_compiled
def two_hot_loss(logits: Array, below: Array, share: Array, loss: Array, gradient: Array) -> None:
    """Cross-entropy with targets that give ``share`` to bin ``below + 1`` and the rest to bin ``below``."""
    shift = np.empty(1, _F)
    for i in range(len(logits)):
        _powers(logits[i : i + 1], gradient[i : i + 1], shift)
        total = _ZERO
        for k in range(logits.shape[1]):
            total += gradient[i, k]
        for k in range(logits.shape[1]):
            gradient[i, k] /= total
        at = below[i]
        gradient[i, at] -= _ONE - share[i]
        gradient[i, at + 1] -= share[i]
        loss[i] = np.log(total) + shift[0] - (_ONE - share[i]) * logits[i, at] - share[i] * logits[i, at + 1]


@_compiled
def categorical_kl(q: Array, p: Array, kl: Array, to_q: Array, to_p: Array) -> None:
    """KL(q || p) of categoricals mixed with the uniform distribution, from logits ``(N, groups, classes)``."""
    rows, groups, classes = q.shape
    shift, ratio, least = np.empty(groups, _F), np.empty(classes, _F), _UNIMIX / _F(classes)
    for i in range(rows):
        _powers(q[i], to_q[i], shift)
        _powers(p[i], to_p[i], shift)
        kl[i] = _ZERO
        for group in range(groups):
            of_q, of_p = to_q[i, group], to_p[i, group]
            q_total, p_total = _ZERO, _ZERO
            for k in range(classes):
                q_total += of_q[k]
                p_total += of_p[k]
            q_total, p_total = (_ONE - _UNIMIX) / q_total, (_ONE - _UNIMIX) / p_total
            q_mean, p_mean = _ZERO, _ZERO
            for k in range(classes):
                of_q[k] *= q_total
                of_p[k] *= p_total
                ratio[k] = (of_q[k] + least) / (of_p[k] + least)
                p_mean += of_p[k] * ratio[k]
            for k in range(classes):
                of_p[k] *= p_mean / (_ONE - _UNIMIX) - ratio[k]
                ratio[k] = log(ratio[k])
                kl[i] += (of_q[k] + least) * ratio[k]
                q_mean += of_q[k] * ratio[k]
            for k in range(classes):
                of_q[k] *= ratio[k] - q_mean / (_ONE - _UNIMIX)


# Hidden layers of heads


_TOGETHER = 64
"""Rows that a hidden layer takes at a time: they stay in a core's cache from the product to the norm."""


@_compiled
def hidden(
    x: Array, dense: int, weight: Array, scale: Array, shift: Array, hat: Array, rstd: Array, out: Array
) -> None:
    """A product, LayerNorm and SiLU; of ``x`` all columns but the first ``dense`` are mostly zero."""
    rows = len(x)
    for at in range(0, rows, _TOGETHER):
        to = min(rows, at + _TOGETHER)
        y = np.zeros((to - at, weight.shape[1]), _F)
        add_product(x[at:to, :dense], weight[:dense], y)
        add_chosen(x[at:to], dense, weight[dense:], y)
        norm_silu(y, scale, shift, hat[at:to], rstd[at:to], out[at:to])


@_compiled
def hidden_back(
    gradient: Array,
    weight_back: Array,
    scale: Array,
    shift: Array,
    hat: Array,
    rstd: Array,
    to_scale: Array,
    to_shift: Array,
    to_x: Array,
) -> None:
    """As ``norm_silu_back``; and adds the gradient of ``x`` to ``to_x``, unless that has no rows."""
    rows = len(gradient)
    for at in range(0, rows, _TOGETHER):
        to = min(rows, at + _TOGETHER)
        norm_silu_back(gradient[at:to], scale, shift, hat[at:to], rstd[at:to], to_scale, to_shift)
        if len(to_x):
            add_product(gradient[at:to], weight_back, to_x[at:to])


@_compiled
def chosen_back(gradient: Array, x: Array, start: int, to_weight: Array) -> None:
    """The gradient of a matrix from its output's: ``to_weight += x[:, start:].T @ gradient``, ``x`` mostly zero."""
    for i in range(len(x)):
        row = x[i, start:]
        for k in range(len(to_weight)):
            if row[k] != _ZERO:
                for j in range(gradient.shape[1]):
                    to_weight[k, j] += row[k] * gradient[i, j]


# The recurrence


@_compiled
def _recur(cell: Cell, kept: CellKept, t: int, state: Array, core: Array, out: Array) -> None:
    """The next deterministic state into the start of ``out``; ``core`` is the projected action, and is spent."""
    rows, deter = core.shape
    hidden, width = kept.from_stoch.shape[2], cell.gates.shape[1]
    before = state[:, :deter]
    projected = np.zeros((rows, hidden), _F)
    add_chosen(state, deter, cell.stoch_in, projected)
    norm_silu(projected, cell.stoch_scale, cell.stoch_shift, kept.stoch.hat[t], kept.stoch.rstd[t], kept.from_stoch[t])
    projected[:] = _ZERO
    add_product(before, cell.deter_in, projected)
    norm_silu(projected, cell.deter_scale, cell.deter_shift, kept.deter.hat[t], kept.deter.rstd[t], kept.from_deter[t])
    add_product(kept.from_stoch[t], cell.core_latent[:hidden], core)
    add_product(kept.from_deter[t], cell.core_latent[hidden:], core)
    add_blocks(before, cell.core_deter, core)
    norm_silu(core, cell.core_scale, cell.core_shift, kept.core.hat[t], kept.core.rstd[t], kept.from_core[t])
    gates, proposed = kept.gates[t], kept.proposed[t]
    gates[:] = cell.gates_bias
    add_blocks(kept.from_core[t], cell.gates, gates)
    blocks = len(cell.gates)
    by_block = gates.reshape(rows, blocks, 3, width)
    for i in range(rows):
        for block in range(blocks):
            for k in range(2):
                for j in range(width):
                    by_block[i, block, k, j] = sigmoid(by_block[i, block, k, j])
        old, new = state[i, :deter].reshape(blocks, width), proposed[i].reshape(blocks, width)
        after = out[i, :deter].reshape(blocks, width)
        for block in range(blocks):
            for j in range(width):  # the hyperbolic tangent
                inner = by_block[i, block, 0, j] * by_block[i, block, 2, j]
                new[block, j] = _F(2) * sigmoid(_F(2) * inner) - _ONE
            for j in range(width):
                after[block, j] = old[block, j] + by_block[i, block, 1, j] * (new[block, j] - old[block, j])


@_compiled
def _recur_back(
    cell: Cell,
    kept: CellKept,
    t: int,
    state: Array,
    gradient: Array,
    to_gates: Array,
    to_core: Array,
    to_from_stoch: Array,
    to_from_deter: Array,
    sums: Array,
) -> None:
    """Turns the gradient of a state (of which only deter's counts) into that of the state before, in place.

    The other ``to_`` receive gradients in front of gates, core and the two projections, the latter behind their norms'
    inputs; ``sums`` adds up those of scales and shifts: of stoch, deter and core, ``(6, max(H, D))``.
    """
    rows, deter = to_core.shape
    hidden, width = to_from_stoch.shape[1], cell.gates.shape[1]
    gates, proposed = kept.gates[t], kept.proposed[t]
    blocks = len(cell.gates)
    by_block, to_block = gates.reshape(rows, blocks, 3, width), to_gates.reshape(rows, blocks, 3, width)
    for i in range(rows):
        old, new = state[i, :deter].reshape(blocks, width), proposed[i].reshape(blocks, width)
        to_old = gradient[i, :deter].reshape(blocks, width)
        for block in range(blocks):
            for j in range(width):
                reset, update = by_block[i, block, 0, j], by_block[i, block, 1, j]
                out, candidate, proposal = to_old[block, j], by_block[i, block, 2, j], new[block, j]
                inner = out * update * (_ONE - proposal * proposal)
                to_block[i, block, 0, j] = inner * candidate * reset * (_ONE - reset)
                to_block[i, block, 1, j] = out * (proposal - old[block, j]) * update * (_ONE - update)
                to_block[i, block, 2, j] = inner * reset
                to_old[block, j] = out * (_ONE - update)
    to_core[:] = _ZERO
    add_blocks(to_gates, cell.gates_back, to_core)
    norm_silu_back(to_core, cell.core_scale, cell.core_shift, kept.core.hat[t], kept.core.rstd[t], sums[4], sums[5])
    to_deter, to_stoch = gradient[:, :deter], gradient[:, deter:]
    add_blocks(to_core, cell.core_deter_back, to_deter)
    to_from_stoch[:] = _ZERO
    add_product(to_core, cell.core_latent_back[:, :hidden], to_from_stoch)
    norm_silu_back(
        to_from_stoch, cell.stoch_scale, cell.stoch_shift, kept.stoch.hat[t], kept.stoch.rstd[t], sums[0], sums[1]
    )
    to_from_deter[:] = _ZERO
    add_product(to_core, cell.core_latent_back[:, hidden:], to_from_deter)
    norm_silu_back(
        to_from_deter, cell.deter_scale, cell.deter_shift, kept.deter.hat[t], kept.deter.rstd[t], sums[2], sums[3]
    )
    add_product(to_from_deter, cell.deter_in_back, to_deter)
    to_stoch[:] = _ZERO
    add_product(to_from_stoch, cell.stoch_in_back, to_stoch)


# The posterior along a sequence


@_compiled
def observe(
    cell: Cell,
    posterior: Posterior,
    kept: CellKept,
    norms: Norms,
    hidden: Array,
    probs: Array,
    logits: Array,
    states: Array,
    action: Array,
    embedded: Array,
    noise: Array,
) -> None:
    """All steps from ``states[0]``: fills ``states[1:]``, ``logits`` and what is kept, all ``(T, N, width)``."""
    deter = action.shape[2]
    for t in range(len(action)):
        out = states[t + 1]
        _recur(cell, kept, t, states[t], action[t].copy(), out)
        x = embedded[t].copy()
        add_product(out[:, :deter], posterior.deter, x)
        norm_silu(x, posterior.scale, posterior.shift, norms.hat[t], norms.rstd[t], hidden[t])
        logits[t] = posterior.head_bias
        add_product(hidden[t], posterior.head, logits[t])
        sample(logits[t], noise[t], probs[t], out)


@_compiled
def observe_back(
    cell: Cell,
    posterior: Posterior,
    kept: CellKept,
    norms: Norms,
    probs: Array,
    states: Array,
    groups: int,
    to_states: Array,
    to_logits: Array,
    to_hidden: Array,
    to_gates: Array,
    to_core: Array,
    to_from_stoch: Array,
    to_from_deter: Array,
    sums: Array,
) -> None:
    """All steps back: ``to_states`` and ``to_logits`` come with gradients, the latter and all other ``to_`` are filled.

    ``to_states`` is spent. ``sums``: as in ``_recur_back``, and two rows more, of the posterior's norm.
    """
    deter = to_core.shape[2]
    for t in range(len(probs) - 1, -1, -1):
        gradient = to_states[t]
        sample_back(gradient, deter, probs[t], groups, to_logits[t])
        to_hidden[t] = _ZERO
        add_product(to_logits[t], posterior.head_back, to_hidden[t])
        norm_silu_back(to_hidden[t], posterior.scale, posterior.shift, norms.hat[t], norms.rstd[t], sums[6], sums[7])
        add_product(to_hidden[t], posterior.deter_back, gradient[:, :deter])
        _recur_back(
            cell, kept, t, states[t], gradient, to_gates[t], to_core[t], to_from_stoch[t], to_from_deter[t], sums
        )
        if t:
            to_states[t - 1] += gradient


# A step of the prior


@_compiled
def imagine(
    cell: Cell,
    prior: Prior,
    kept: CellKept,
    of_action: Norms,
    of_first: Norms,
    of_second: Norms,
    probs: Array,
    t: int,
    state: Array,
    action: Array,
    noise: Array,
    out: Array,
) -> None:
    """Step ``t``: from ``state`` and the padded ``action`` to ``out``."""
    rows, hidden = len(state), prior.action_in.shape[1]
    deter = prior.core_action.shape[1]
    x, y = _spread(prior.action_in_bias, rows), np.empty((rows, hidden), _F)
    add_product(action, prior.action_in, x)
    norm_silu(x, prior.action_scale, prior.action_shift, of_action.hat[t], of_action.rstd[t], y)
    core = _spread(prior.core_action_bias, rows)
    add_product(y, prior.core_action, core)
    _recur(cell, kept, t, state, core, out)
    x[:] = _ZERO
    add_product(out[:, :deter], prior.first, x)
    norm_silu(x, prior.first_scale, prior.first_shift, of_first.hat[t], of_first.rstd[t], y)
    x[:] = _ZERO
    add_product(y, prior.second, x)
    norm_silu(x, prior.second_scale, prior.second_shift, of_second.hat[t], of_second.rstd[t], y)
    logits = _spread(prior.head_bias, rows)
    add_product(y, prior.head, logits)
    sample(logits, noise, probs[t], out)


@_compiled
def imagine_back(
    cell: Cell,
    prior: Prior,
    kept: CellKept,
    of_action: Norms,
    of_first: Norms,
    of_second: Norms,
    probs: Array,
    groups: int,
    states: Array,
    to_states: Array,
    to_actions: Array,
) -> None:
    """All steps back, from the gradients of all states reached (they are spent) to those of all actions."""
    steps, rows, stoch = probs.shape
    hidden, deter = prior.action_in.shape[1], states.shape[2] - stoch
    sums = np.zeros((6, max(hidden, deter)), _F)  # frozen: nobody asks for them
    x = np.empty((rows, hidden), _F)
    y = np.empty((rows, hidden), _F)
    to_gates, to_core = np.empty((rows, 3 * deter), _F), np.empty((rows, deter), _F)
    for t in range(steps - 1, -1, -1):
        gradient = to_states[t]
        to_logits = np.zeros((rows, stoch), _F)
        sample_back(gradient, deter, probs[t], groups, to_logits)
        x[:] = _ZERO
        add_product(to_logits, prior.head_back, x)
        norm_silu_back(x, prior.second_scale, prior.second_shift, of_second.hat[t], of_second.rstd[t], sums[0], sums[1])
        y[:] = _ZERO
        add_product(x, prior.second_back, y)
        norm_silu_back(y, prior.first_scale, prior.first_shift, of_first.hat[t], of_first.rstd[t], sums[0], sums[1])
        add_product(y, prior.first_back, gradient[:, :deter])
        _recur_back(cell, kept, t, states[t], gradient, to_gates, to_core, x, y, sums)
        x[:] = _ZERO
        add_product(to_core, prior.core_action_back, x)
        norm_silu_back(x, prior.action_scale, prior.action_shift, of_action.hat[t], of_action.rstd[t], sums[0], sums[1])
        to_actions[t] = _ZERO
        add_product(x, prior.action_in_back, to_actions[t])
        if t:
            to_states[t - 1] += gradient
