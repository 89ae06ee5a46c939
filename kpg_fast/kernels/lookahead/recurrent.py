"""How the hidden states of a GRU change, step by step: the recurrent part of :func:`gru_difference`.

``arguments`` [G, T, R, 4H] holds how the arguments of r, z and n and n's recurrent part change but for what the changed
hidden states do; ``before`` [G, T, R, H] the hidden states that the steps start from at theta, 0 where one is reset;
``w`` [G, 3, PADDED, PADDED] the recurrent matrices at theta_k. Otherwise as in gru/resident.py and gru/streamed.py.
"""

import triton
import triton.language as tl

from kpg_fast.kernels.gpu import expm1_less, product, tanh, wide


@triton.jit
def _sigmoid_change(s, d):
    """Of a sigmoid that is s, when its argument changes by d."""
    e = tl.where(d > 60.0, 60.0, d)  # not tl.minimum, which on a card makes 60 of NaN
    e = e + expm1_less(e)
    return s * (1.0 - s) * e / (1.0 + s * e)


@triton.jit
def _state_change(gates, before, d_r, d_z, d_n, d_recurrent, dh, at_gates, at_h, real, HIDDEN: tl.constexpr):
    """Of h, when the gates' arguments change by d_* (n's without its recurrent part) and h before by dh."""
    r, z = tl.load(gates + at_gates, real, 0.0), tl.load(gates + at_gates + HIDDEN, real, 0.0)
    recurrent = tl.load(gates + at_gates + 3 * HIDDEN, real, 0.0)
    d_n += r * d_recurrent + _sigmoid_change(r, d_r) * (recurrent + d_recurrent)
    n = tl.load(gates + at_gates + 2 * HIDDEN, real, 0.0)
    t = tanh(d_n)
    n_change = (1.0 - n) * (1.0 + n) * t / (1.0 + n * t)
    z_change = _sigmoid_change(z, d_z)
    h = tl.load(before + at_h, real, 0.0)
    return (1.0 - z - z_change) * n_change + z_change * (h - n) + (z + z_change) * dh


@triton.jit
def resident_kernel(
    arguments, gates, before, reset, w, dh_out,
    steps, rows, reset_set,
    HIDDEN: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """dh_out [G, T, R, H], the recurrent matrices kept on the chip."""
    group, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS
    row, unit = tl.arange(0, ROWS), tl.arange(0, PADDED)
    exists = first + row < rows
    real = exists[:, None] & (unit < HIDDEN)[None, :]
    at_w = w + group * (3 * PADDED * PADDED) + unit[:, None] * PADDED + unit[None, :]
    w_r, w_z, w_n = tl.load(at_w), tl.load(at_w + PADDED * PADDED), tl.load(at_w + 2 * PADDED * PADDED)
    at_h, at_gates = row[:, None] * HIDDEN + unit[None, :], row[:, None] * (4 * HIDDEN) + unit[None, :]
    dh = tl.zeros((ROWS, PADDED), tl.float32)
    for t in range(steps):
        begins = tl.load(reset + group * reset_set + wide(rows) * t + first + row, exists, 0) != 0
        dh = tl.where(begins[:, None], 0.0, dh)
        start = (group * steps + t) * rows + first
        a = arguments + start * (4 * HIDDEN) + at_gates
        d_r = product(dh, w_r, tl.load(a, real, 0.0), PRECISION)
        d_z = product(dh, w_z, tl.load(a + HIDDEN, real, 0.0), PRECISION)
        d_recurrent = product(dh, w_n, tl.load(a + 3 * HIDDEN, real, 0.0), PRECISION)
        d_n = tl.load(a + 2 * HIDDEN, real, 0.0)
        g, h = gates + start * (4 * HIDDEN), before + start * HIDDEN
        dh = _state_change(g, h, d_r, d_z, d_n, d_recurrent, dh, at_gates, at_h, real, HIDDEN)
        tl.store(dh_out + start * HIDDEN + at_h, dh, real)


@triton.jit
def streamed_kernel(
    arguments, gates, before, reset, w, dh_out,
    steps, rows, reset_set,
    HIDDEN: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """dh_out [G, T, R, H], the recurrent matrices read anew at every step."""
    group, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS
    row = tl.arange(0, ROWS)
    inside = (first + row < rows)[:, None]
    for t in range(steps):
        begins = tl.load(reset + group * reset_set + wide(rows) * t + first + row, first + row < rows, 0)
        known = inside & (begins == 0)[:, None] & (tl.zeros((ROWS, 1), tl.int32) + t > 0)
        start = (group * steps + t) * rows + first
        last = dh_out + (start - rows) * HIDDEN
        for first_unit in range(0, HIDDEN, UNITS):
            unit = first_unit + tl.arange(0, UNITS)[None, :]
            real = inside & (unit < HIDDEN)
            at_h, at_gates = row[:, None] * HIDDEN + unit, row[:, None] * (4 * HIDDEN) + unit
            a = arguments + start * (4 * HIDDEN) + at_gates
            d_r, d_z = tl.load(a, real, 0.0), tl.load(a + HIDDEN, real, 0.0)
            d_n, d_recurrent = tl.load(a + 2 * HIDDEN, real, 0.0), tl.load(a + 3 * HIDDEN, real, 0.0)
            for begin in range(0, HIDDEN, DEPTH):
                k = begin + tl.arange(0, DEPTH)
                dh = tl.load(last + row[:, None] * HIDDEN + k[None, :], known & (k < HIDDEN)[None, :], 0.0)
                at_w = w + group * (3 * PADDED * PADDED) + k[:, None] * PADDED + unit
                d_r = product(dh, tl.load(at_w), d_r, PRECISION)
                d_z = product(dh, tl.load(at_w + PADDED * PADDED), d_z, PRECISION)
                d_recurrent = product(dh, tl.load(at_w + 2 * PADDED * PADDED), d_recurrent, PRECISION)
            g, h = gates + start * (4 * HIDDEN), before + start * HIDDEN
            dh = tl.load(last + at_h, known & (unit < HIDDEN), 0.0)
            dh = _state_change(g, h, d_r, d_z, d_n, d_recurrent, dh, at_gates, at_h, real, HIDDEN)
            tl.store(dh_out + start * HIDDEN + at_h, dh, real)
        tl.debug_barrier()
