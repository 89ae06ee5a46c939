"""The GRU over time with the recurrent matrix read anew at every step: any width, any precision.

What a step needs of the whole state goes through global memory, where a block's own rows are soon in its caches; a
barrier among the program's threads parts what they wrote from what they read. Places as in gru/resident.py.
"""

import triton
import triton.language as tl

from kpg_fast.kernels.gpu import product, sigmoid, tanh, wide


@triton.jit
def _state(h0, h_out, group, first, t, steps, rows, HIDDEN: tl.constexpr):
    """Where the state before step t begins: in h0, or in the result of the step before."""
    return h0 + (group * rows + first) * HIDDEN if t == 0 else h_out + ((group * steps + t - 1) * rows + first) * HIDDEN


@triton.jit
def _begins(reset, group, first, row, t, rows, reset_set):
    """Whether an episode begins at step t, [ROWS, 1]."""
    at = reset + group * reset_set + wide(rows) * t + first + row
    return tl.load(at, first + row < rows, 0)[:, None] != 0


@triton.jit
def forward_kernel(
    inputs, h0, reset, w, b_n, h_out, gates,
    steps, rows, reset_set, b_set,
    HIDDEN: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """As in gru/resident.py."""
    group, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS
    row = tl.arange(0, ROWS)
    inside = (first + row < rows)[:, None]
    for t in range(steps):
        begins = _begins(reset, group, first, row, t, rows, reset_set)
        state = _state(h0, h_out, group, first, t, steps, rows, HIDDEN)
        start = (group * steps + t) * rows + first
        for first_unit in range(0, HIDDEN, UNITS):
            unit = first_unit + tl.arange(0, UNITS)[None, :]
            real = inside & (unit < HIDDEN)
            a_r, a_z = tl.zeros((ROWS, UNITS), tl.float32), tl.zeros((ROWS, UNITS), tl.float32)
            a_n = tl.zeros((ROWS, UNITS), tl.float32)
            for begin in range(0, HIDDEN, DEPTH):
                k = begin + tl.arange(0, DEPTH)
                h = tl.load(state + row[:, None] * HIDDEN + k[None, :], inside & (k < HIDDEN)[None, :] & ~begins, 0.0)
                at_w = w + group * (3 * PADDED * PADDED) + k[:, None] * PADDED + unit
                a_r = product(h, tl.load(at_w), a_r, PRECISION)
                a_z = product(h, tl.load(at_w + PADDED * PADDED), a_z, PRECISION)
                a_n = product(h, tl.load(at_w + 2 * PADDED * PADDED), a_n, PRECISION)
            x = inputs + start * (3 * HIDDEN) + (row[:, None] * (3 * HIDDEN) + unit)
            a_n += tl.load(b_n + group * b_set + unit, unit < HIDDEN, 0.0)
            r = sigmoid(tl.load(x, real, 0.0) + a_r)
            z = sigmoid(tl.load(x + HIDDEN, real, 0.0) + a_z)
            n = tanh(tl.load(x + 2 * HIDDEN, real, 0.0) + r * a_n)
            at_h = row[:, None] * HIDDEN + unit
            h = tl.load(state + at_h, real & ~begins, 0.0)
            tl.store(h_out + start * HIDDEN + at_h, (1.0 - z) * n + z * h, real)
            if gates is not None:
                to = gates + start * (4 * HIDDEN) + (row[:, None] * (4 * HIDDEN) + unit)
                tl.store(to, r, real)
                tl.store(to + HIDDEN, z, real)
                tl.store(to + 2 * HIDDEN, n, real)
                tl.store(to + 3 * HIDDEN, a_n, real)
        tl.debug_barrier()


@triton.jit
def _gate_gradients(
    dh_out, h_out, gates, h0, reset, d, before, carry, group, first, row, t, steps, rows, begins, ends,
    HIDDEN: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """A step's d and h before it; the part of the state's gradient that does not go through the recurrent matrix."""
    state = _state(h0, h_out, group, first, t, steps, rows, HIDDEN)
    start, start_0 = (group * steps + t) * rows + first, group * rows + first
    for first_unit in range(0, HIDDEN, UNITS):
        unit = first_unit + tl.arange(0, UNITS)[None, :]
        real = (first + row < rows)[:, None] & (unit < HIDDEN)
        at_h, at_gates = row[:, None] * HIDDEN + unit, row[:, None] * (4 * HIDDEN) + unit
        h = tl.load(state + at_h, real & ~begins, 0.0)
        tl.store(before + start * HIDDEN + at_h, h, real)
        dh = tl.load(dh_out + start * HIDDEN + at_h, real, 0.0)
        if t < steps - 1:
            dh += tl.load(carry + start_0 * HIDDEN + at_h, real, 0.0)
        g, to = gates + start * (4 * HIDDEN) + at_gates, d + start * (4 * HIDDEN) + at_gates
        r, z, n = tl.load(g, real, 0.0), tl.load(g + HIDDEN, real, 0.0), tl.load(g + 2 * HIDDEN, real, 0.0)
        d_n = dh * (1.0 - z) * ((1.0 - n) * (1.0 + n))
        tl.store(to, d_n * tl.load(g + 3 * HIDDEN, real, 0.0) * r * (1.0 - r), real)
        tl.store(to + HIDDEN, dh * (h - n) * z * (1.0 - z), real)
        tl.store(to + 2 * HIDDEN, d_n, real)
        tl.store(to + 3 * HIDDEN, d_n * r, real)
        tl.store(carry + start_0 * HIDDEN + at_h, tl.where(ends, 0.0, dh * z), real)


@triton.jit
def backward_kernel(
    dh_out, h_out, gates, h0, reset, w, d, before, dh0,
    steps, rows, window, reset_set,
    HIDDEN: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """As in gru/resident.py; the state's gradient is carried in ``dh0``, where it ends."""
    group, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS
    row = tl.arange(0, ROWS)
    inside = (first + row < rows)[:, None]
    size = PADDED * PADDED
    for back in range(steps):
        t = steps - 1 - back
        begins = _begins(reset, group, first, row, t, rows, reset_set)
        step = tl.zeros((ROWS, 1), tl.int32) + t
        ends = begins | ((step > 0) & (step % window == 0))  # here no gradient goes further back
        _gate_gradients(
            dh_out, h_out, gates, h0, reset, d, before, dh0,
            group, first, row, t, steps, rows, begins, ends, HIDDEN, UNITS,
        )  # fmt: skip
        tl.debug_barrier()
        at_d = d + ((group * steps + t) * rows + first) * (4 * HIDDEN)
        for first_unit in range(0, HIDDEN, UNITS):
            unit = first_unit + tl.arange(0, UNITS)[None, :]
            real = inside & (unit < HIDDEN)
            to = dh0 + (group * rows + first) * HIDDEN + (row[:, None] * HIDDEN + unit)
            carry = tl.load(to, real, 0.0)
            for begin in range(0, HIDDEN, DEPTH):
                k = begin + tl.arange(0, DEPTH)
                there = inside & (k < HIDDEN)[None, :] & ~ends
                at_w = w + group * (3 * size) + k[:, None] * PADDED + unit
                at_k = at_d + (row[:, None] * (4 * HIDDEN) + k[None, :])
                carry = product(tl.load(at_k, there, 0.0), tl.load(at_w), carry, PRECISION)
                carry = product(tl.load(at_k + HIDDEN, there, 0.0), tl.load(at_w + size), carry, PRECISION)
                carry = product(tl.load(at_k + 3 * HIDDEN, there, 0.0), tl.load(at_w + 2 * size), carry, PRECISION)
            tl.store(to, carry, real)
        tl.debug_barrier()
