"""The GRU on the GPU: a program takes a block of rows through all steps, alone, so nothing waits for another program.

Where the recurrent matrix fits on the chip beside the state (bfloat16 up to 128 hidden units, tf32 up to 64) it is read
once and kept (gru/resident.py); else each step streams it from the second-level cache (gru/streamed.py). The input
product of all steps comes before, the products that make gradients of the weights after, as in gru/cpu.py.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from kpg_fast.kernels.gpu import capability, pad
from kpg_fast.kernels.gru import resident, streamed
from kpg_fast.kernels.layout import dense
from kpg_fast.kernels.linear.gpu import rows_product, weight_parts, weights_product

_ON_CHIP = {"bf16": 128, "tf32": 64, "fp32": 0}  # the widest state whose recurrent matrix is kept


class Launch(NamedTuple):
    """How a block of rows is taken through time."""

    kernels: object
    grid: tuple[int, int]
    options: dict[str, int | str]


def choose_launch(groups: int, rows: int, hidden: int, precision: str, hopper: bool, forward: bool) -> Launch:
    """Few rows go to as many multiprocessors as there are blocks of 16 rows; many, to blocks that fill tensor cores.

    Blocks are the largest whose registers do not spill (docs/gpu_kernels.json); those of 64 rows use the tensor core
    instructions of whole warp groups, which Hopper was the first to have.
    """
    many, padded = groups * rows >= 64 * 132, pad(hidden, 16)
    common: dict[str, int | str] = {"HIDDEN": hidden, "PRECISION": precision, "num_warps": 8 if many else 4}
    if padded <= _ON_CHIP[precision]:
        size = (64 if forward and hopper else 32) if many else 16
        # one stage: what a step reads beside the matrix is too much to be kept for several steps
        options = {**common, "PADDED": padded, "ROWS": size, "num_stages": 1}
        return Launch(resident, (triton.cdiv(rows, size), groups), options)
    if precision == "fp32":
        size, units, depth, stages, common["num_warps"] = 16, min(padded, 32), 16, 1, 4
    elif many and hopper:
        size, units, depth, stages = 64, min(padded, 64), 32, 2
    else:
        units = min(padded, 128 if many and precision == "bf16" else 64)
        size, depth, stages = 32 if many else 16, 32, 1
    blocks = {"PADDED": triton.cdiv(hidden, units) * units, "ROWS": size, "UNITS": units, "DEPTH": min(units, depth)}
    return Launch(streamed, (triton.cdiv(rows, size), groups), {**common, **blocks, "num_stages": stages})


def gate_matrices(w_h: Tensor, launch: Launch, transposed: bool) -> Tensor:
    """The recurrent matrices of the gates [G, 3, P, P], or their transposes, as factors: rounded, padded by zeros."""
    groups, hidden = w_h.shape[:2]
    gates = w_h.view(groups, hidden, 3, hidden).permute((0, 2, 3, 1) if transposed else (0, 2, 1, 3))
    factors = gates.bfloat16() if launch.options["PRECISION"] == "bf16" else gates
    beyond = int(launch.options["PADDED"]) - hidden
    return torch.nn.functional.pad(factors, (0, beyond, 0, beyond)).contiguous()


def forward(
    x: Tensor,
    h0: Tensor,
    reset: Tensor,
    w_x: Tensor,
    b_x: Tensor,
    w_h: Tensor,
    b_n: Tensor,
    precision: str,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Return h [G, T, R, H] and, if ``keep``, what the backward pass reads: the gates [G, T, R, 4H] (else empty)."""
    groups, steps, rows, ins = x.shape
    hidden, device = h0.shape[-1], x.device
    inputs = torch.empty(groups, steps * rows, 3 * hidden, device=device)
    rows_product(x.reshape(groups, steps * rows, ins), w_x, dense(b_x, 1), inputs, precision)
    h = torch.empty(groups, steps, rows, hidden, device=device)
    gates = torch.empty((groups, steps, rows, 4 * hidden) if keep else (0,), device=device)
    reset, b_n = dense(reset.expand(x.shape[:-1]), 2), dense(b_n, 1)
    launch = choose_launch(groups, rows, hidden, precision, capability(device) >= 9, forward=True)
    launch.kernels.forward_kernel[launch.grid](  # type: ignore[attr-defined]
        inputs, h0.contiguous(), reset, gate_matrices(w_h, launch, False), b_n, h, gates if keep else None,
        steps, rows, reset.stride(0), b_n.stride(0), **launch.options,
    )  # fmt: skip
    return h, gates


def backward(
    dh: Tensor,
    h: Tensor,
    gates: Tensor,
    x: Tensor,
    h0: Tensor,
    reset: Tensor,
    w_x: Tensor,
    b_x: Tensor,
    w_h: Tensor,
    b_n: Tensor,
    precision: str,
    window: int,
    needs_dx: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return (dx, dh0, dw_x, db_x, dw_h, db_n); dx is empty where it is not wanted.

    No gradient leaves a window of so many steps backwards, unless ``window`` is 0.
    """
    groups, steps, rows, ins = x.shape
    hidden, device = h0.shape[-1], x.device
    # the derivatives of the arguments of r, z and n, and of n's recurrent part; and each step's h before it
    d = torch.empty(groups, steps * rows, 4 * hidden, device=device)
    before = torch.empty(groups, steps * rows, hidden, device=device)
    dh0 = torch.empty(groups, rows, hidden, device=device)
    reset = dense(reset.expand(x.shape[:-1]), 2)
    launch = choose_launch(groups, rows, hidden, precision, capability(device) >= 9, forward=False)
    launch.kernels.backward_kernel[launch.grid](  # type: ignore[attr-defined]
        dh.contiguous(), h, gates, h0.contiguous(), reset, gate_matrices(w_h, launch, True), d, before, dh0,
        steps, rows, window or steps, reset.stride(0), **launch.options,
    )  # fmt: skip
    flat = x.reshape(groups, steps * rows, ins)
    dx = torch.empty(x.shape if needs_dx else (0,), device=device)
    if needs_dx:
        rows_product(d[..., : 3 * hidden], w_x.transpose(1, 2), None, dx.view(flat.shape), precision)
    dw_x, db_x = _weights(flat, ((d[..., : 3 * hidden], True),), precision)
    parts = ((d[..., : 2 * hidden], False), (d[..., 3 * hidden :], True))
    dw_h, db_n = _weights(before, parts, precision)
    return dx, dh0, dw_x, db_x, dw_h, db_n


def _weights(x: Tensor, columns: tuple[tuple[Tensor, bool], ...], precision: str) -> tuple[Tensor, Tensor]:
    """x^T [columns side by side], and the sums of those columns for which they are wanted (the last)."""
    groups, rows, ins = x.shape
    outs = sum(d.shape[2] for d, _ in columns)
    parts = weight_parts(groups, rows, ins, outs)
    dw = torch.empty(parts, groups, ins, outs, device=x.device)
    db = torch.empty(parts, groups, columns[-1][0].shape[2], device=x.device)
    begin = 0
    for d, summed in columns:
        weights_product(x, d, dw[..., begin : begin + d.shape[2]], db if summed else None, precision)
        begin += d.shape[2]
    return dw.sum(0), db.sum(0)
