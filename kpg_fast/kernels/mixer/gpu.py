"""The mixer on the GPU: a program takes a block of rows and walks over the agents."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kpg_fast.kernels.gpu import pad, wide

_ELEMENTS = 1024  # of a program's block


@triton.jit
def _hidden_block(rows, units, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Row numbers, which of them are real, the places of a block [R, M] and which of those are real."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    unit, inside = tl.arange(0, UNITS), row < rows
    return row, inside, row[:, None] * units + unit[None, :], inside[:, None] & (unit < units)[None, :]


@triton.jit
def _agent_weights(w1, row, i, agents, units, real, UNITS: tl.constexpr):
    """Places of agent i's weights [R, M], and the weights."""
    at = ((row * agents + i) * units)[:, None] + tl.arange(0, UNITS)[None, :]
    return at, tl.load(w1 + at, real, 0.0)


@triton.jit
def _elu_slope(x):
    """Not by tl.minimum, which on a card makes a number of NaN."""
    return tl.exp(tl.where(x > 0, 0.0, x))


@triton.jit
def _elu(x):
    return tl.where(x > 0, x, _elu_slope(x) - 1.0)


@triton.jit
def _magnitude(w, MONOTONIC: tl.constexpr):
    return tl.abs(w) if MONOTONIC else w


@triton.jit
def _sign(w):
    return tl.where(w > 0, 1.0, tl.where(w < 0, -1.0, 0.0))


@triton.jit
def _before(q, w1, b1, row, inside, at, real, rows, agents, units, MONOTONIC: tl.constexpr, UNITS: tl.constexpr):
    """b1 + sum_i q_i |w1_i| [R, M]."""
    before = tl.load(b1 + at, real, 0.0)
    for i in range(agents):
        _, w = _agent_weights(w1, row, i, agents, units, real, UNITS)
        before += tl.load(q + wide(rows) * i + row, inside, 0.0)[:, None] * _magnitude(w, MONOTONIC)
    return before


@triton.jit
def _mix_kernel(
    q, w1, b1, w2, v, q_tot, rows, agents, units,
    MONOTONIC: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    row, inside, at, real = _hidden_block(rows, units, ROWS, UNITS)
    before = _before(q, w1, b1, row, inside, at, real, rows, agents, units, MONOTONIC, UNITS)
    weighted = _magnitude(tl.load(w2 + at, real, 0.0), MONOTONIC) * _elu(before)
    tl.store(q_tot + row, tl.sum(weighted, 1) + tl.load(v + row, inside, 0.0), inside)


@triton.jit
def _mix_backward_kernel(
    dq_tot, q, w1, b1, w2, dq, dw1, db1, dw2, rows, agents, units,
    MONOTONIC: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    row, inside, at, real = _hidden_block(rows, units, ROWS, UNITS)
    before = _before(q, w1, b1, row, inside, at, real, rows, agents, units, MONOTONIC, UNITS)
    dq_row = tl.load(dq_tot + row, inside, 0.0)[:, None]
    second = tl.load(w2 + at, real, 0.0)
    dsecond = dq_row * _elu(before)
    dbefore = dq_row * _magnitude(second, MONOTONIC) * _elu_slope(before)
    tl.store(dw2 + at, dsecond * _sign(second) if MONOTONIC else dsecond, real)
    tl.store(db1 + at, dbefore, real)
    for i in range(agents):
        at_i, w = _agent_weights(w1, row, i, agents, units, real, UNITS)
        at_q = wide(rows) * i + row
        tl.store(dq + at_q, tl.sum(dbefore * _magnitude(w, MONOTONIC), 1), inside)
        dw = tl.load(q + at_q, inside, 0.0)[:, None] * dbefore
        tl.store(dw1 + at_i, dw * _sign(w) if MONOTONIC else dw, real)


@triton.jit
def _mix_one_live_kernel(
    q_own, q_others, w1, b1, w2, v, q_tot, slope, rows, agents, units,
    MONOTONIC: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    row, inside, at, real = _hidden_block(rows, units, ROWS, UNITS)
    others = _before(q_others, w1, b1, row, inside, at, real, rows, agents, units, MONOTONIC, UNITS)
    second = _magnitude(tl.load(w2 + at, real, 0.0), MONOTONIC)
    offset = tl.load(v + row, inside, 0.0)
    for i in range(agents):
        _, w = _agent_weights(w1, row, i, agents, units, real, UNITS)
        w = _magnitude(w, MONOTONIC)
        at_q = wide(rows) * i + row
        change = tl.load(q_own + at_q, inside, 0.0) - tl.load(q_others + at_q, inside, 0.0)
        before = others + change[:, None] * w
        tl.store(q_tot + at_q, tl.sum(second * _elu(before), 1) + offset, inside)
        rate = _elu_slope(before)
        tl.store(slope + at_q, tl.sum(second * rate * w, 1), inside)


def _launch(kernel: object, q: Tensor, b1: Tensor, monotonic: bool, tensors: tuple[Tensor, ...]) -> None:
    (agents, rows), units = q.shape, b1.shape[-1]
    block = max(1, _ELEMENTS // pad(units))
    kernel[(triton.cdiv(rows, block),)](  # type: ignore[index]
        *tensors, rows, agents, units, MONOTONIC=monotonic, ROWS=block, UNITS=pad(units)
    )


def mix(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor, monotonic: bool) -> Tensor:
    """See :func:`kpg_fast.kernels.mixer.mix`; float32."""
    q_tot = torch.empty(v.shape, device=v.device)
    _launch(_mix_kernel, q, b1, monotonic, (*_dense(q, w1, b1, w2, v), q_tot))
    return q_tot


def mix_backward(
    dq_tot: Tensor, q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, monotonic: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`kpg_fast.kernels.mixer.mix_backward`; float32."""
    dq, dw1, db1, dw2 = grads = tuple(torch.empty(a.shape, device=a.device) for a in (q, w1, b1, w2))
    _launch(_mix_backward_kernel, q, b1, monotonic, (*_dense(dq_tot, q, w1, b1, w2), *grads))
    return dq, dw1, db1, dw2


def mix_one_live(
    q_own: Tensor, q_others: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor, monotonic: bool
) -> tuple[Tensor, Tensor]:
    """See :func:`kpg_fast.kernels.mixer.mix_one_live`; float32."""
    q_tot, slope = (torch.empty(q_own.shape, device=v.device) for _ in range(2))
    _launch(_mix_one_live_kernel, q_own, b1, monotonic, (*_dense(q_own, q_others, w1, b1, w2, v), q_tot, slope))
    return q_tot, slope


def _dense(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().contiguous() for tensor in tensors]
