"""The GRU over time with the recurrent matrix on the chip: read before the first step, kept to the last.

Widths are constants of the compiled kernel and rows count from the program's first, so that a thread's places are one
address and fixed distances from it: 64-bit places of their own filled the registers twice over.
"""

import triton
import triton.language as tl

from kpg_fast.kernels.gpu import product, sigmoid, tanh, wide


@triton.jit
def _matrix(w, group, gate: tl.constexpr, PADDED: tl.constexpr):
    """A gate's matrix out of w [G, 3, PADDED, PADDED]."""
    unit = tl.arange(0, PADDED)
    return tl.load(w + (group * 3 + gate) * PADDED * PADDED + unit[:, None] * PADDED + unit[None, :])


@triton.jit
def forward_kernel(
    inputs, h0, reset, w, b_n, h_out, gates,
    steps, rows, reset_set, b_set,
    HIDDEN: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """h_out [G, T, R, H] and, unless it is None, gates [G, T, R, 4H] from the input products [G, T, R, 3H].

    ``w`` [G, 3, PADDED, PADDED] holds the gates' recurrent matrices.
    """
    group, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS
    row, unit = tl.arange(0, ROWS), tl.arange(0, PADDED)
    exists = first + row < rows
    real = exists[:, None] & (unit < HIDDEN)[None, :]
    w_r, w_z, w_n = _matrix(w, group, 0, PADDED), _matrix(w, group, 1, PADDED), _matrix(w, group, 2, PADDED)
    bias = tl.load(b_n + group * b_set + unit, unit < HIDDEN, 0.0)[None, :]
    at_h = row[:, None] * HIDDEN + unit[None, :]
    at_x, at_gates = row[:, None] * (3 * HIDDEN) + unit[None, :], row[:, None] * (4 * HIDDEN) + unit[None, :]
    h = tl.load(h0 + (group * rows + first) * HIDDEN + at_h, real, 0.0)
    nothing = tl.zeros((ROWS, PADDED), tl.float32)
    for t in range(steps):
        begins = tl.load(reset + group * reset_set + wide(rows) * t + first + row, exists, 0) != 0
        h = tl.where(begins[:, None], 0.0, h)
        start = (group * steps + t) * rows + first
        x = inputs + start * (3 * HIDDEN)
        r = sigmoid(product(h, w_r, nothing, PRECISION) + tl.load(x + at_x, real, 0.0))
        recurrent = product(h, w_n, nothing, PRECISION) + bias
        n = tanh(tl.load(x + at_x + 2 * HIDDEN, real, 0.0) + r * recurrent)
        if gates is not None:
            to = gates + start * (4 * HIDDEN)
            tl.store(to + at_gates, r, real)
            tl.store(to + at_gates + 2 * HIDDEN, n, real)
            tl.store(to + at_gates + 3 * HIDDEN, recurrent, real)
        z = sigmoid(product(h, w_z, nothing, PRECISION) + tl.load(x + at_x + HIDDEN, real, 0.0))
        h = (1.0 - z) * n + z * h
        tl.store(h_out + start * HIDDEN + at_h, h, real)
        if gates is not None:
            tl.store(to + at_gates + HIDDEN, z, real)


@triton.jit
def backward_kernel(
    dh_out, h_out, gates, h0, reset, w, d, before, dh0,
    steps, rows, window, reset_set,
    HIDDEN: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """dh0; d [G, T, R, 4H], by the arguments of r, z, n and by n's recurrent part; h before each step [G, T, R, H].

    ``w`` [G, 3, PADDED, PADDED] holds the transposes of the gates' recurrent matrices.
    """
    group, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS
    row, unit = tl.arange(0, ROWS), tl.arange(0, PADDED)
    exists = first + row < rows
    real = exists[:, None] & (unit < HIDDEN)[None, :]
    w_r, w_z, w_n = _matrix(w, group, 0, PADDED), _matrix(w, group, 1, PADDED), _matrix(w, group, 2, PADDED)
    at_h, at_gates = row[:, None] * HIDDEN + unit[None, :], row[:, None] * (4 * HIDDEN) + unit[None, :]
    start_0 = (group * rows + first) * HIDDEN
    carry = tl.zeros((ROWS, PADDED), tl.float32)
    for back in range(steps):
        t = steps - 1 - back
        begins = tl.load(reset + group * reset_set + wide(rows) * t + first + row, exists, 0)[:, None] != 0
        start = (group * steps + t) * rows + first
        previous = h0 + start_0 if t == 0 else h_out + (start - rows) * HIDDEN
        h = tl.load(previous + at_h, real & ~begins, 0.0)
        tl.store(before + start * HIDDEN + at_h, h, real)
        dh = carry + tl.load(dh_out + start * HIDDEN + at_h, real, 0.0)
        g, to = gates + start * (4 * HIDDEN), d + start * (4 * HIDDEN)
        z, n = tl.load(g + at_gates + HIDDEN, real, 0.0), tl.load(g + at_gates + 2 * HIDDEN, real, 0.0)
        d_z = dh * (h - n) * z * (1.0 - z)
        tl.store(to + at_gates + HIDDEN, d_z, real)
        d_n = dh * (1.0 - z) * ((1.0 - n) * (1.0 + n))
        tl.store(to + at_gates + 2 * HIDDEN, d_n, real)
        carry = product(d_z, w_z, dh * z, PRECISION)
        r = tl.load(g + at_gates, real, 0.0)
        d_r = d_n * tl.load(g + at_gates + 3 * HIDDEN, real, 0.0) * r * (1.0 - r)
        tl.store(to + at_gates, d_r, real)
        tl.store(to + at_gates + 3 * HIDDEN, d_n * r, real)
        carry = product(d_r, w_r, carry, PRECISION)
        carry = product(d_n * r, w_n, carry, PRECISION)
        step = tl.zeros((ROWS, 1), tl.int32) + t
        carry = tl.where(begins | ((step > 0) & (step % window == 0)), 0.0, carry)
    tl.store(dh0 + start_0 + at_h, carry, real)
