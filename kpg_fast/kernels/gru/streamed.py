"""The GRU over time with the recurrent matrix read anew at every step: any width, any precision.

What a step needs of the whole state goes through global memory, where a block's own rows are soon in its caches; a
barrier among the program's threads parts what they wrote from what they read.
"""

import triton
import triton.language as tl

from kpg_fast.kernels.gpu import product, sigmoid, tanh


@triton.jit
def _state(h0, h_out, at_0, at_h, t, stride):
    """Where the state before step t lies: in h0, or in the result of the step before."""
    return h0 + at_0 if t == 0 else h_out + (at_h - stride)


@triton.jit
def forward_kernel(
    inputs, h0, reset, w, b_n, h_out, gates,
    steps, rows, hidden, reset_set, b_set,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """As in gru/resident.py."""
    group = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None]
    stride = rows.to(tl.int64) * hidden
    padded = tl.cdiv(hidden, UNITS) * UNITS  # w [G, 3, padded, padded] has zeros beyond the hidden units
    for t in range(steps):
        begins = tl.load(reset + group * reset_set + rows.to(tl.int64) * t + row, row < rows, 0)[:, None] != 0
        at_0, at = (group * rows + row[:, None]) * hidden, (group * steps + t) * rows + row[:, None]
        state = _state(h0, h_out, at_0, at * hidden, t, stride)
        for first in range(0, hidden, UNITS):
            unit = first + tl.arange(0, UNITS)[None, :]
            real = inside & (unit < hidden)
            a_r, a_z = tl.zeros((ROWS, UNITS), tl.float32), tl.zeros((ROWS, UNITS), tl.float32)
            a_n = tl.zeros((ROWS, UNITS), tl.float32)
            for begin in range(0, hidden, DEPTH):
                k = begin + tl.arange(0, DEPTH)
                h = tl.load(state + k[None, :], inside & (k < hidden)[None, :] & ~begins, 0.0)
                at_w = w + (group * 3 * padded + k[:, None]) * padded + unit
                a_r = product(h, tl.load(at_w), a_r, PRECISION)
                a_z = product(h, tl.load(at_w + padded * padded), a_z, PRECISION)
                a_n = product(h, tl.load(at_w + 2 * padded * padded), a_n, PRECISION)
            at_x = inputs + at * 3 * hidden + unit
            a_n += tl.load(b_n + group * b_set + unit, unit < hidden, 0.0)
            r = sigmoid(tl.load(at_x, real, 0.0) + a_r)
            z = sigmoid(tl.load(at_x + hidden, real, 0.0) + a_z)
            n = tanh(tl.load(at_x + 2 * hidden, real, 0.0) + r * a_n)
            h = tl.load(state + unit, real & ~begins, 0.0)
            tl.store(h_out + at * hidden + unit, (1.0 - z) * n + z * h, real)
            if gates is not None:
                at_gates = gates + at * 4 * hidden + unit
                tl.store(at_gates, r, real)
                tl.store(at_gates + hidden, z, real)
                tl.store(at_gates + 2 * hidden, n, real)
                tl.store(at_gates + 3 * hidden, a_n, real)
        tl.debug_barrier()


@triton.jit
def _gate_gradients(
    dh_out, h_out, gates, h0, reset, d, before, carry, group, row, t, steps, rows, hidden, reset_set,
    UNITS: tl.constexpr,
):  # fmt: skip
    """A step's d and h before it; the part of the state's gradient that does not go through the recurrent matrix."""
    begins = tl.load(reset + group * reset_set + rows.to(tl.int64) * t + row, row < rows, 0)[:, None] != 0
    at_0, at = (group * rows + row[:, None]) * hidden, (group * steps + t) * rows + row[:, None]
    state = _state(h0, h_out, at_0, at * hidden, t, rows.to(tl.int64) * hidden)
    for first in range(0, hidden, UNITS):
        unit = first + tl.arange(0, UNITS)[None, :]
        real = (row < rows)[:, None] & (unit < hidden)
        h = tl.load(state + unit, real & ~begins, 0.0)
        tl.store(before + at * hidden + unit, h, real)
        at_gates = at * 4 * hidden + unit
        r, z = tl.load(gates + at_gates, real, 0.0), tl.load(gates + at_gates + hidden, real, 0.0)
        n = tl.load(gates + at_gates + 2 * hidden, real, 0.0)
        dh = tl.load(dh_out + at * hidden + unit, real, 0.0)
        if t < steps - 1:
            dh += tl.load(carry + at_0 + unit, real, 0.0)
        d_n = dh * (1.0 - z) * ((1.0 - n) * (1.0 + n))
        d_r = d_n * tl.load(gates + at_gates + 3 * hidden, real, 0.0) * r * (1.0 - r)
        tl.store(d + at_gates, d_r, real)
        tl.store(d + at_gates + hidden, dh * (h - n) * z * (1.0 - z), real)
        tl.store(d + at_gates + 2 * hidden, d_n, real)
        tl.store(d + at_gates + 3 * hidden, d_n * r, real)
        tl.store(carry + at_0 + unit, tl.where(begins, 0.0, dh * z), real)


@triton.jit
def backward_kernel(
    dh_out, h_out, gates, h0, reset, w, d, before, dh0,
    steps, rows, hidden, reset_set,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """As in gru/resident.py; the state's gradient is carried in ``dh0``, where it ends."""
    group = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None]
    at_0 = (group * rows + row[:, None]) * hidden
    padded = tl.cdiv(hidden, UNITS) * UNITS
    for back in range(steps):
        t = steps - 1 - back
        _gate_gradients(
            dh_out, h_out, gates, h0, reset, d, before, dh0, group, row, t, steps, rows, hidden, reset_set, UNITS
        )  # fmt: skip
        tl.debug_barrier()
        begins = tl.load(reset + group * reset_set + rows.to(tl.int64) * t + row, row < rows, 0)[:, None] != 0
        at_d = d + ((group * steps + t) * rows + row[:, None]) * 4 * hidden
        for first in range(0, hidden, UNITS):
            unit = first + tl.arange(0, UNITS)[None, :]
            real = inside & (unit < hidden)
            carry = tl.load(dh0 + at_0 + unit, real, 0.0)
            for begin in range(0, hidden, DEPTH):
                k = begin + tl.arange(0, DEPTH)
                there = inside & (k < hidden)[None, :] & ~begins
                at_w, size = w + (group * 3 * padded + k[:, None]) * padded + unit, padded * padded
                d_r, d_z, d_n = at_d + k[None, :], at_d + hidden + k[None, :], at_d + 3 * hidden + k[None, :]
                carry = product(tl.load(d_r, there, 0.0), tl.load(at_w), carry, PRECISION)
                carry = product(tl.load(d_z, there, 0.0), tl.load(at_w + size), carry, PRECISION)
                carry = product(tl.load(d_n, there, 0.0), tl.load(at_w + 2 * size), carry, PRECISION)
            tl.store(dh0 + at_0 + unit, carry, real)
        tl.debug_barrier()
