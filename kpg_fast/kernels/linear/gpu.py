"""The linear layer on the GPU: all parameter sets in one launch, bias and activation before the result leaves the chip.

Two kernels serve the three products: ``y = x w`` and ``dx = d w^T`` differ in the strides of w, and ``dw = x^T d`` sums
over the rows, of which there may be millions: in parts, each a program's, that are added in their order afterwards.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kpg_fast.kernels.gpu import pad, product
from kpg_fast.kernels.layout import dense

_PARTS_OF = 512  # rows at least in a part of dw
_PROGRAMS = 264  # two for each multiprocessor of an H200; more parts of dw only add traffic


class _Tiles(NamedTuple):
    rows: int
    columns: int
    depth: int
    warps: int


def _tiles(precision: str, columns: int) -> _Tiles:
    """Blocks of a product: large ones for tensor cores; float32 sums in plain registers, which hold fewer."""
    if precision == "fp32":
        return _Tiles(64, min(64, pad(columns, 16)), 16, 4)
    return _Tiles(128, min(128, pad(columns, 16)), 32, 8)


@triton.jit
def _active(d, relu_of, at, real):
    """d at these places, 0 where the ReLU's result there is 0."""
    value = tl.load(d + at, real, 0.0)
    if relu_of is not None:
        value = tl.where(tl.load(relu_of + at, real, 0.0) > 0, value, 0.0)
    return value


@triton.jit
def _rows_kernel(
    a, relu_of, b, bias, c, sums, added, changed, rows, depth, columns,
    a_set, a_row, b_set, b_depth, b_column, bias_set, c_set, c_row,
    RELU: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """c [G, rows, columns] = act(a b + bias + added); ``sums`` takes what the activation was applied to.

    ``added`` is laid out as c. With ``changed`` c is how much the ReLU of it changes by adding the product.
    """
    group = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    to = tl.zeros((ROWS, COLUMNS), tl.float32)
    for begin in range(0, depth, DEPTH):
        k = begin + tl.arange(0, DEPTH)
        at_a = group * a_set + row[:, None] * a_row + k[None, :]
        factor = _active(a, relu_of, at_a, (row < rows)[:, None] & (k < depth)[None, :])
        at_b = group * b_set + k[:, None] * b_depth + column[None, :] * b_column
        to = product(factor, tl.load(b + at_b, (k < depth)[:, None] & (column < columns)[None, :], 0.0), to, PRECISION)
    if bias is not None:
        to += tl.load(bias + group * bias_set + column, column < columns, 0.0)[None, :]
    at = group * c_set + row[:, None] * c_row + column[None, :]
    real = (row < rows)[:, None] & (column < columns)[None, :]
    if added is not None:
        to += tl.load(added + at, real, 0.0)
    at_sums = (group * rows + row[:, None]) * columns + column[None, :]
    if sums is not None:
        tl.store(sums + at_sums, to, real)
    if changed is not None:
        # relu(s + d) - relu(s) without the rounding of s + d where both are positive
        s = tl.load(changed + at_sums, real, 0.0)
        to = tl.where(s > 0, tl.where(to < -s, -s, to), tl.where(s + to < 0, 0.0, s + to))
    if RELU:
        to = tl.where(to < 0, 0.0, to)  # a NaN stays
    tl.store(c + at, to, real)


@triton.jit
def _weights_kernel(
    x, d, relu_of, dw, db, rows, part_rows, ins, outs,
    x_set, x_row, d_set, d_row, dw_part, dw_set, dw_row, db_part, db_set,
    PRECISION: tl.constexpr, INS: tl.constexpr, OUTS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """dw[part, g] = x^T d over a part's rows; db[part, g], if wanted, their sum."""
    tiles = tl.cdiv(outs, OUTS)
    part, group = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) // tiles * INS + tl.arange(0, INS)
    o = tl.program_id(0) % tiles * OUTS + tl.arange(0, OUTS)
    to, bias = tl.zeros((INS, OUTS), tl.float32), tl.zeros((OUTS,), tl.float32)
    end = tl.minimum(rows, (part + 1) * part_rows)
    for begin in range(0, part_rows, DEPTH):
        row = part * part_rows + begin + tl.arange(0, DEPTH)
        at_x = group * x_set + row[None, :] * x_row + i[:, None]
        left = tl.load(x + at_x, (row < end)[None, :] & (i < ins)[:, None], 0.0)
        at_d = group * d_set + row[:, None] * d_row + o[None, :]
        right = _active(d, relu_of, at_d, (row < end)[:, None] & (o < outs)[None, :])
        to = product(left, right, to, PRECISION)
        if db is not None:
            bias += tl.sum(right, 0)
    at = part * dw_part + group * dw_set + i[:, None] * dw_row + o[None, :]
    tl.store(dw + at, to, (i < ins)[:, None] & (o < outs)[None, :])
    if db is not None and tl.program_id(0) < tiles:
        tl.store(db + part * db_part + group * db_set + o, bias, o < outs)


def rows_product(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    c: Tensor,
    precision: str,
    relu_of: Tensor | None = None,
    relu: bool = False,
    sums: Tensor | None = None,
    add: bool = False,
    changed: Tensor | None = None,
) -> None:
    """Write act(a b + bias) to ``c`` [G, M, N]; a [G, M, K] and c have dense rows, b [G, K, N] any strides.

    ``relu_of``, laid out as a, sets a to 0 where it is not positive. With ``add`` the product is added to what c holds;
    with ``changed`` [G, M, N] c becomes relu(changed + that) - relu(changed).
    """
    groups, rows, depth = a.shape
    columns = b.shape[2]
    tiles = _tiles(precision, columns)
    _rows_kernel[(triton.cdiv(rows, tiles.rows), triton.cdiv(columns, tiles.columns), groups)](
        a, relu_of, b, bias, c, sums, c if add else None, changed, rows, depth, columns,
        *a.stride()[:2], *b.stride(), 0 if bias is None else bias.stride(0), *c.stride()[:2],
        RELU=relu, PRECISION=precision, ROWS=tiles.rows, COLUMNS=tiles.columns, DEPTH=tiles.depth,
        num_warps=tiles.warps,
    )  # fmt: skip


def weight_parts(groups: int, rows: int, ins: int, outs: int) -> int:
    """Into how many parts the sum over rows is cut; by the shapes alone, so that a result can be had again."""
    tiles = triton.cdiv(ins, 64) * triton.cdiv(outs, 64) * groups
    parts: int = min(triton.cdiv(rows, _PARTS_OF), _PROGRAMS // tiles)
    return max(1, parts)


def weights_product(
    x: Tensor, d: Tensor, dw: Tensor, db: Tensor | None, precision: str, relu_of: Tensor | None = None
) -> None:
    """Write x^T d of each part of the rows to ``dw`` [S, G, I, O] and their sums to ``db`` [S, G, O].

    x [G, M, I] and d [G, M, O] have dense rows; ``relu_of`` is laid out as d.
    """
    groups, rows, ins = x.shape
    parts, outs = dw.shape[0], d.shape[2]
    size_i, size_o = min(64, pad(ins, 16)), min(64, pad(outs, 16))
    _weights_kernel[(triton.cdiv(ins, size_i) * triton.cdiv(outs, size_o), parts, groups)](
        x, d, relu_of, dw, db, rows, triton.cdiv(rows, parts), ins, outs,
        *x.stride()[:2], *d.stride()[:2], *dw.stride()[:3], *((0, 0) if db is None else db.stride()[:2]),
        PRECISION=precision, INS=size_i, OUTS=size_o, DEPTH=16 if precision == "fp32" else 64, num_warps=4,
    )  # fmt: skip


def weights_into(x: Tensor, d: Tensor, dw: Tensor, db: Tensor, precision: str) -> None:
    """Write x^T d to ``dw`` [G, I, O] and the sums of d's rows to ``db`` [G, O], the caller's memory."""
    groups, rows, ins = x.shape
    parts = weight_parts(groups, rows, ins, d.shape[2])
    if parts == 1:
        weights_product(x, d, dw[None], db[None], precision)
        return
    dw_parts, db_parts = (torch.empty(parts, *into.shape, device=into.device) for into in (dw, db))
    weights_product(x, d, dw_parts, db_parts, precision)
    torch.sum(dw_parts, 0, out=dw)
    torch.sum(db_parts, 0, out=db)


def forward(
    x: Tensor, w: Tensor, b: Tensor | None, activation: str, precision: str, keep: bool
) -> tuple[Tensor, Tensor]:
    """Return y [G, M, out] and, if ``keep``, what the ReLU was applied to (else empty)."""
    shape = (w.shape[0], x.shape[1], w.shape[2])
    y = torch.empty(shape, device=x.device)
    sums = torch.empty(shape if keep else (0,), device=x.device)
    bias = None if b is None else dense(b, 1)
    rows_product(
        dense(x, 1), w, bias, y, precision, relu=activation == "relu", sums=sums if keep else None
    )  # fmt: skip
    return y, sums


def backward(
    dy: Tensor, y: Tensor, x: Tensor, w: Tensor, activation: str, precision: str, needs_dx: bool, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dx, dw, db); dx and db are empty where they are not wanted."""
    dy, x, device = dy.contiguous(), dense(x, 1), x.device
    groups, rows, ins = x.shape
    outs = w.shape[2]
    relu_of = y if activation == "relu" else None
    dx = torch.empty(x.shape if needs_dx else (0,), device=device)
    if needs_dx:
        rows_product(dy, w.transpose(1, 2), None, dx, precision, relu_of)
    parts = weight_parts(groups, rows, ins, outs)
    dw = torch.empty(parts, groups, ins, outs, device=device)
    db = torch.empty(parts, groups, outs, device=device) if has_bias else None
    weights_product(x, dy, dw, db, precision, relu_of)
    return dx, dw.sum(0), torch.empty(0, device=device) if db is None else db.sum(0)
