"""The GRU over time with the recurrent matrix on the chip: read before the first step, kept to the last."""

import triton
import triton.language as tl

from kpg_fast.kernels.gpu import product, sigmoid, tanh


@triton.jit
def _block(rows, hidden, ROWS: tl.constexpr, HIDDEN: tl.constexpr):
    """The program's parameter set, its rows and units, and which of the block [ROWS, HIDDEN] is real."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    unit = tl.arange(0, HIDDEN)
    return tl.program_id(1).to(tl.int64), row, unit, (row < rows)[:, None] & (unit < hidden)[None, :]


@triton.jit
def _matrix(w, group, gate: tl.constexpr, HIDDEN: tl.constexpr):
    """A gate's matrix out of w [G, 3, HIDDEN, HIDDEN]."""
    unit = tl.arange(0, HIDDEN)
    return tl.load(w + ((group * 3 + gate) * HIDDEN + unit[:, None]) * HIDDEN + unit[None, :])


@triton.jit
def forward_kernel(
    inputs, h0, reset, w, b_n, h_out, gates,
    steps, rows, hidden, reset_set, b_set,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    """h_out [G, T, R, H] and, unless it is None, gates [G, T, R, 4H] from the input products [G, T, R, 3H].

    ``w`` [G, 3, HIDDEN, HIDDEN] holds the gates' recurrent matrices.
    """
    group, row, unit, real = _block(rows, hidden, ROWS, HIDDEN)
    w_r = _matrix(w, group, 0, HIDDEN)
    w_z = _matrix(w, group, 1, HIDDEN)
    w_n = _matrix(w, group, 2, HIDDEN)
    bias = tl.load(b_n + group * b_set + unit, unit < hidden, 0.0)[None, :]
    h = tl.load(h0 + (group * rows + row[:, None]) * hidden + unit[None, :], real, 0.0)
    nothing = tl.zeros((ROWS, HIDDEN), tl.float32)
    for t in range(steps):
        begins = tl.load(reset + group * reset_set + rows.to(tl.int64) * t + row, row < rows, 0) != 0
        h = tl.where(begins[:, None], 0.0, h)
        at = (group * steps + t) * rows + row[:, None]
        at_x = inputs + at * 3 * hidden + unit[None, :]
        recurrent = product(h, w_n, nothing, PRECISION) + bias
        r = sigmoid(tl.load(at_x, real, 0.0) + product(h, w_r, nothing, PRECISION))
        z = sigmoid(tl.load(at_x + hidden, real, 0.0) + product(h, w_z, nothing, PRECISION))
        n = tanh(tl.load(at_x + 2 * hidden, real, 0.0) + r * recurrent)
        h = (1.0 - z) * n + z * h
        tl.store(h_out + at * hidden + unit[None, :], h, real)
        if gates is not None:
            at_gates = gates + at * 4 * hidden + unit[None, :]
            tl.store(at_gates, r, real)
            tl.store(at_gates + hidden, z, real)
            tl.store(at_gates + 2 * hidden, n, real)
            tl.store(at_gates + 3 * hidden, recurrent, real)


@triton.jit
def backward_kernel(
    dh_out, h_out, gates, h0, reset, w, d, before, dh0,
    steps, rows, hidden, reset_set,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    """dh0; d [G, T, R, 4H], by the arguments of r, z, n and by n's recurrent part; h before each step [G, T, R, H].

    ``w`` [G, 3, HIDDEN, HIDDEN] holds the transposes of the gates' recurrent matrices.
    """
    group, row, unit, real = _block(rows, hidden, ROWS, HIDDEN)
    w_r = _matrix(w, group, 0, HIDDEN)
    w_z = _matrix(w, group, 1, HIDDEN)
    w_n = _matrix(w, group, 2, HIDDEN)
    at_0 = (group * rows + row[:, None]) * hidden + unit[None, :]
    carry = tl.zeros((ROWS, HIDDEN), tl.float32)
    for back in range(steps):
        t = steps - 1 - back
        begins = tl.load(reset + group * reset_set + rows.to(tl.int64) * t + row, row < rows, 0)[:, None] != 0
        at = (group * steps + t) * rows + row[:, None]
        at_h, at_gates = at * hidden + unit[None, :], at * 4 * hidden + unit[None, :]
        previous = h0 + at_0 if t == 0 else h_out + (at_h - rows.to(tl.int64) * hidden)
        h = tl.load(previous, real & ~begins, 0.0)
        tl.store(before + at_h, h, real)
        r, z = tl.load(gates + at_gates, real, 0.0), tl.load(gates + at_gates + hidden, real, 0.0)
        n = tl.load(gates + at_gates + 2 * hidden, real, 0.0)
        dh = carry + tl.load(dh_out + at_h, real, 0.0)
        d_n = dh * (1.0 - z) * ((1.0 - n) * (1.0 + n))
        d_z = dh * (h - n) * z * (1.0 - z)
        d_r = d_n * tl.load(gates + at_gates + 3 * hidden, real, 0.0) * r * (1.0 - r)
        tl.store(d + at_gates, d_r, real)
        tl.store(d + at_gates + hidden, d_z, real)
        tl.store(d + at_gates + 2 * hidden, d_n, real)
        tl.store(d + at_gates + 3 * hidden, d_n * r, real)
        carry = product(d_n * r, w_n, dh * z, PRECISION)
        carry = product(d_r, w_r, carry, PRECISION)
        carry = product(d_z, w_z, carry, PRECISION)
        carry = tl.where(begins, 0.0, carry)
    tl.store(dh0 + at_0, carry, real)
