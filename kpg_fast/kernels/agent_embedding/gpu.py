"""The agent embedding on the GPU: a program takes a block of rows and walks over the agents."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kpg_fast.kernels.gpu import pad
from kpg_fast.kernels.layout import dense

_ELEMENTS = 2048  # of a program's block


@triton.jit
def _forward_kernel(x, id, y, rows, agents, id_set, HIDDEN: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr):
    group = tl.program_id(1).to(tl.int64)
    row, unit = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, PADDED)
    real = (row < rows)[:, None] & (unit < HIDDEN)[None, :]
    at = (group * rows + row)[:, None] * HIDDEN
    shared = tl.load(x + at + unit[None, :], real, 0.0)
    for n in range(agents):
        own = tl.load(id + group * id_set + n * HIDDEN + unit, unit < HIDDEN, 0.0)
        value = shared + own[None, :]
        tl.store(y + at * agents + n * HIDDEN + unit[None, :], tl.where(value < 0, 0.0, value), real)  # a NaN stays


@triton.jit
def _backward_kernel(dy, y, dx, did, rows, agents, HIDDEN: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr):
    """dx, and did [blocks, G, N, H] of each block of rows."""
    block, group = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    row, unit = block * ROWS + tl.arange(0, ROWS), tl.arange(0, PADDED)
    real = (row < rows)[:, None] & (unit < HIDDEN)[None, :]
    at = (group * rows + row)[:, None] * HIDDEN
    total = tl.zeros((ROWS, PADDED), tl.float32)
    for n in range(agents):
        at_n = at * agents + n * HIDDEN + unit[None, :]
        d = tl.where(tl.load(y + at_n, real, 0.0) > 0, tl.load(dy + at_n, real, 0.0), 0.0)
        total += d
        to = did + ((block * tl.num_programs(1) + group) * agents + n) * HIDDEN + unit
        tl.store(to, tl.sum(d, 0), unit < HIDDEN)
    tl.store(dx + at + unit[None, :], total, real)


def forward(x: Tensor, id: Tensor) -> Tensor:
    """Return y [G, M, N, H]."""
    groups, rows, hidden = x.shape
    y, id = torch.empty(groups, rows, *id.shape[1:], device=x.device), dense(id, 2)
    block = max(1, _ELEMENTS // pad(hidden))
    _forward_kernel[(triton.cdiv(rows, block), groups)](
        x.contiguous(), id, y, rows, id.shape[1], id.stride(0), HIDDEN=hidden, PADDED=pad(hidden), ROWS=block
    )
    return y


def backward(dy: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return (dx, did)."""
    groups, rows, agents, hidden = y.shape
    block = max(1, _ELEMENTS // pad(hidden))
    blocks = triton.cdiv(rows, block)
    dx = torch.empty(groups, rows, hidden, device=y.device)
    did = torch.empty(blocks, groups, agents, hidden, device=y.device)
    _backward_kernel[(blocks, groups)](
        dy.contiguous(), y, dx, did, rows, agents, HIDDEN=hidden, PADDED=pad(hidden), ROWS=block
    )
    return dx, did.sum(0)
