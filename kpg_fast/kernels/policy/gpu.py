"""The categorical policy on the GPU: a program takes a block of rows, all actions of a row in its registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kpg_fast.kernels.gpu import pad

_UNAVAILABLE = tl.constexpr(-1e10)  # as in ref.py
_ELEMENTS = 1024  # of a program's block


def block_rows(actions: int) -> int:
    """Rows a program takes, so that a thread holds eight numbers of each kind."""
    return max(1, _ELEMENTS // pad(actions))


@triton.jit
def load_rows(logits, avail, at, at_avail, column, inside, actions):
    """Logits [R, A] of the rows at ``at`` [R] and which actions may be taken; padding may not."""
    real = inside[:, None] & (column < actions)[None, :]
    x = tl.load(logits + at[:, None] + column[None, :], real, 0.0)
    usable = real
    if avail is not None:
        usable = real & (tl.load(avail + at_avail[:, None] + column[None, :], real, 0) != 0)
    return x, usable


@triton.jit
def log_softmax(x, usable):
    """Log-probabilities and probabilities [R, A], the entropy [R], and whether a row has any action.

    Columns that may not be taken have probability 0; a row that has none is all 0.
    """
    some = tl.max(usable.to(tl.int32), 1) != 0
    highest = tl.max(tl.where(usable, x, float("-inf")), 1)
    highest = tl.where(some, highest, 0.0)
    shifted = tl.where(usable, x, _UNAVAILABLE) - highest[:, None]
    e = tl.where(usable, tl.exp(shifted), 0.0)
    total = tl.where(some, tl.sum(e, 1), 1.0)
    p = e / total[:, None]
    log_p = tl.where(some[:, None], shifted - tl.log(total)[:, None], 0.0)
    return log_p, p, -tl.sum(p * log_p, 1), some


@triton.jit
def chosen(log_p, column, action, actions):
    """log_p [R, A] at the action of each row; not a number for an action that does not exist."""
    at = tl.sum(tl.where(column[None, :] == action[:, None], log_p, 0.0), 1)
    return tl.where((action >= 0) & (action < actions), at, float("nan"))


@triton.jit
def logits_gradient(log_p, p, entropy, usable, column, action, coefficient, entropy_coefficient):
    """coefficient (1[j = action] - p_j) - entropy_coefficient p_j (log p_j + H), rows [R] of coefficients."""
    taken = usable & (column[None, :] == action[:, None])
    towards = coefficient[:, None] * (tl.where(taken, 1.0, 0.0) - p)
    return towards - entropy_coefficient[:, None] * p * (tl.where(usable, log_p, 0.0) + entropy[:, None])


@triton.jit
def _log_prob_kernel(
    logits, avail, action, log_prob, entropy_out, rows, actions, ROWS: tl.constexpr, ACTIONS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column, inside = tl.arange(0, ACTIONS), row < rows
    x, usable = load_rows(logits, avail, row * actions, row * actions, column, inside, actions)
    log_p, _, entropy, _ = log_softmax(x, usable)
    tl.store(log_prob + row, chosen(log_p, column, tl.load(action + row, inside, 0), actions), inside)
    tl.store(entropy_out + row, entropy, inside)


@triton.jit
def _log_prob_backward_kernel(
    dlog_prob, dentropy, logits, avail, action, dlogits, rows, actions, ROWS: tl.constexpr, ACTIONS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column, inside = tl.arange(0, ACTIONS), row < rows
    x, usable = load_rows(logits, avail, row * actions, row * actions, column, inside, actions)
    log_p, p, entropy, some = log_softmax(x, usable)
    dlogits_row = logits_gradient(
        log_p, p, entropy, usable, column, tl.load(action + row, inside, 0),
        tl.load(dlog_prob + row, inside, 0.0), tl.load(dentropy + row, inside, 0.0),
    )  # fmt: skip
    real = inside[:, None] & (column < actions)[None, :]
    to = dlogits + (row * actions)[:, None] + column[None, :]
    tl.store(to, tl.where(some[:, None], dlogits_row, 0.0), real)


@triton.jit
def philox(seed, row, stream, step):
    """Four words of Philox4x32-10 (Salmon et al., SC 2011); int64 seed, row and step of one shape."""
    k0, k1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    c0, c2, c3 = row.to(tl.uint32), step.to(tl.uint32), (step >> 32).to(tl.uint32)
    c1 = tl.zeros_like(c0) + tl.core.to_tensor(stream).to(tl.uint32)
    for _ in tl.static_range(10):
        p0 = c0.to(tl.uint64) * 0xD2511F53
        p1 = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (p1 >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (p0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c1, c3 = p1.to(tl.uint32), p0.to(tl.uint32)
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _sample_kernel(
    logits, avail, seed, row_number, step, stream, action, log_prob, rows, actions,
    GREEDY: tl.constexpr, ROWS: tl.constexpr, ACTIONS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column, inside = tl.arange(0, ACTIONS), row < rows
    x, usable = load_rows(logits, avail, row * actions, row * actions, column, inside, actions)
    log_p, p, _, some = log_softmax(x, usable)
    if GREEDY:
        highest = tl.max(tl.where(usable, x, float("-inf")), 1)
        reached = usable & (x == highest[:, None])
    else:
        word, _, _, _ = philox(
            tl.load(seed + row, inside, 0), tl.load(row_number + row, inside, 0), stream, tl.load(step + row, inside, 0)
        )
        u = (word >> 8).to(tl.float32) * (1.0 / 16777216)
        reached = usable & (tl.cumsum(p, 1) > (u * tl.sum(p, 1))[:, None])
    first = tl.min(tl.where(reached, column[None, :], ACTIONS), 1)
    # rounding may leave u at the very total: then the last available action
    last = tl.max(tl.where(usable, column[None, :], 0), 1)
    drawn = tl.where(first < ACTIONS, first, last)
    tl.store(action + row, drawn, inside)
    tl.store(log_prob + row, tl.where(some, chosen(log_p, column, drawn, actions), 0.0), inside)


def _rows(tensor: Tensor | None, actions: int) -> Tensor | None:
    return None if tensor is None else tensor.reshape(-1, actions).contiguous()


def log_prob_entropy(logits: Tensor, avail: Tensor | None, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return (log_prob, entropy), both of action's shape; an action outside 0 .. A-1 gives a log_prob of NaN."""
    rows, actions, block = action.numel(), logits.shape[-1], block_rows(logits.shape[-1])
    log_prob, entropy = (torch.empty(action.shape, device=logits.device) for _ in range(2))
    _log_prob_kernel[(triton.cdiv(rows, block),)](
        _rows(logits, actions), _rows(avail, actions), action.contiguous(), log_prob, entropy, rows, actions,
        ROWS=block, ACTIONS=pad(actions),
    )  # fmt: skip
    return log_prob, entropy


def log_prob_entropy_backward(
    dlog_prob: Tensor, dentropy: Tensor, logits: Tensor, avail: Tensor | None, action: Tensor
) -> Tensor:
    """Return dlogits."""
    rows, actions, block = action.numel(), logits.shape[-1], block_rows(logits.shape[-1])
    dlogits = torch.empty(logits.shape, device=logits.device)
    _log_prob_backward_kernel[(triton.cdiv(rows, block),)](
        dlog_prob.contiguous(), dentropy.contiguous(), _rows(logits, actions), _rows(avail, actions),
        action.contiguous(), dlogits, rows, actions, ROWS=block, ACTIONS=pad(actions),
    )  # fmt: skip
    return dlogits


def sample(
    logits: Tensor, avail: Tensor | None, seed: Tensor, row: Tensor, step: Tensor, stream: int, greedy: bool
) -> tuple[Tensor, Tensor]:
    """Return (action, log_prob); seed, row and step are int64 of logits' leading shape."""
    shape, actions, block = logits.shape[:-1], logits.shape[-1], block_rows(logits.shape[-1])
    action = torch.empty(shape, dtype=torch.int32, device=logits.device)
    log_prob = torch.empty(shape, device=logits.device)
    _sample_kernel[(triton.cdiv(row.numel(), block),)](
        _rows(logits, actions), _rows(avail, actions), seed.contiguous(), row.contiguous(), step.contiguous(), stream,
        action, log_prob, row.numel(), actions, GREEDY=greedy, ROWS=block, ACTIONS=pad(actions),
    )  # fmt: skip
    return action, log_prob
