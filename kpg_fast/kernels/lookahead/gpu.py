"""The differences on the GPU: the products of kernels/linear with the difference as their sum, and kernels of their own
for what is recurrent (recurrent.py) and for the policy.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kpg_fast.kernels.gpu import capability, expm1_less, pad
from kpg_fast.kernels.gru import resident
from kpg_fast.kernels.gru.gpu import choose_launch, gate_matrices
from kpg_fast.kernels.layout import dense
from kpg_fast.kernels.linear.gpu import rows_product
from kpg_fast.kernels.lookahead.recurrent import resident_kernel, streamed_kernel
from kpg_fast.kernels.policy.gpu import block_rows, chosen, load_rows, log_softmax


@triton.jit
def _log1p(x):
    """log(1 + x), relative to its result also near 0 (Kahan): what rounding did to 1 + x is divided out."""
    u = 1.0 + x
    return tl.where(u == 1.0, x, tl.log(u) * (x / (u - 1.0)))


@triton.jit
def _log_prob_kernel(logits, avail, action, dlogits, change, rows, actions, ROWS: tl.constexpr, ACTIONS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column, inside = tl.arange(0, ACTIONS), row < rows
    x, usable = load_rows(logits, avail, row * actions, row * actions, column, inside, actions)
    _, p, _, some = log_softmax(x, usable)
    d = tl.load(dlogits + (row * actions)[:, None] + column[None, :], usable, 0.0)
    growth = tl.sum(p * (d + expm1_less(d)), 1)
    own = chosen(d, column, tl.load(action + row, inside, 0), actions)
    tl.store(change + row, tl.where(some, own - _log1p(growth), 0.0), inside)


def linear_difference(
    x: Tensor,
    dx: Tensor | None,
    w: Tensor,
    w_k: Tensor,
    b: Tensor | None,
    b_k: Tensor | None,
    sums: Tensor | None,
    precision: str,
) -> Tensor:
    """Return dy [G, M, out]."""
    dy = torch.empty(w.shape[0], x.shape[1], w.shape[2], device=x.device)
    bias = None if b is None or b_k is None else b_k - b
    changed = None if sums is None else sums.contiguous()
    rows_product(dense(x, 1), w_k - w, bias, dy, precision, changed=changed if dx is None else None)
    if dx is not None:
        rows_product(dense(dx, 1), w_k, None, dy, precision, add=True, changed=changed)
    return dy


def gru_difference(
    x: Tensor,
    dx: Tensor,
    h: Tensor,
    gates: Tensor,
    h0: Tensor,
    reset: Tensor,
    weights: list[Tensor],
    weights_k: list[Tensor],
    precision: str,
) -> Tensor:
    """Return dh [G, T, R, H]."""
    groups, steps, rows, ins = x.shape
    hidden, device = h0.shape[-1], x.device
    reset = dense(reset.expand(x.shape[:-1]), 2)
    before = torch.cat((h0[:, None], h[:, :-1]), 1).masked_fill_(reset[..., None], 0)
    change_x, change_b, change_h, change_n = (after - w for w, after in zip(weights, weights_k, strict=True))
    flat = (groups, steps * rows)
    arguments = torch.empty(*flat, 4 * hidden, device=device)
    by_input, by_state = arguments[..., : 3 * hidden], arguments[..., 3 * hidden :]
    rows_product(x.reshape(*flat, ins), change_x, change_b, by_input, precision)
    rows_product(dx.reshape(*flat, ins), weights_k[0], None, by_input, precision, add=True)
    states = before.view(*flat, hidden)
    rows_product(states, change_h[..., : 2 * hidden], None, arguments[..., : 2 * hidden], precision, add=True)
    rows_product(states, change_h[..., 2 * hidden :], change_n, by_state, precision)
    dh = torch.empty(h.shape, device=device)
    launch = choose_launch(groups, rows, hidden, precision, capability(device) >= 9, forward=False)
    kernel = resident_kernel if launch.kernels is resident else streamed_kernel
    kernel[launch.grid](
        arguments, gates, before, reset, gate_matrices(weights_k[2], launch, False), dh,
        steps, rows, reset.stride(0), **launch.options,
    )  # fmt: skip
    return dh


def log_prob_difference(logits: Tensor, dlogits: Tensor, avail: Tensor | None, action: Tensor) -> Tensor:
    """Return the change of the log-probabilities, of action's shape; NaN for an action that does not exist."""
    rows, actions, block = action.numel(), logits.shape[-1], block_rows(logits.shape[-1])
    change = torch.empty(action.shape, device=logits.device)
    flags = None if avail is None else avail.contiguous()
    _log_prob_kernel[(triton.cdiv(rows, block),)](
        logits.contiguous(), flags, action.contiguous(), dlogits.contiguous(), change, rows, actions,
        ROWS=block, ACTIONS=pad(actions),
    )  # fmt: skip
    return change
