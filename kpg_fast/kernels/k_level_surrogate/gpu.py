"""The surrogate on the GPU: loss, statistics and the gradient to the logits of all agents in one pass over the logits.

Only the sum of the weights comes before it (the mean divides by it), and the sum of the blocks' partial sums after it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kpg_fast.kernels.gpu import Number, expm1_less, number, pad, within
from kpg_fast.kernels.layout import dense
from kpg_fast.kernels.policy.gpu import block_rows, chosen, load_rows, log_softmax, logits_gradient

_STATS = 6  # means among STATS; the seventh is the sum of the weights


@triton.jit
def _objective(log_rho, log_m, advantage, eps, others_eps, MODE: tl.constexpr):
    """What a row maximises, its slope in the own log-probability, R, M and whether it is clipped."""
    m = tl.exp(log_m)
    scale = advantage
    if MODE == "product":
        ratio = tl.exp(log_rho + log_m)
    else:
        ratio = tl.exp(log_rho)
        if MODE == "double":
            ratio *= within(m, 1 - others_eps, 1 + others_eps)
        else:
            scale = m * advantage
    # both sides are rounded products of the same kind: equal ratios compare as equal
    free = ratio * scale
    bounded = within(ratio, 1 - eps, 1 + eps) * scale
    clipped = free > bounded
    return tl.where(clipped, bounded, free), tl.where(clipped, 0.0, free), ratio, m, clipped


@triton.jit
def _surrogate_kernel(
    logits, avail, action, log_prob_old, advantage, mask, log_m, total, dlogits, log_prob_out, sums,
    rows, envs, agents, actions, stride_t, stride_e, stride_n,
    clip_eps, ent_coef, others_clip_eps,
    MODE: tl.constexpr, ROWS: tl.constexpr, ACTIONS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column, inside = tl.arange(0, ACTIONS), row < rows
    n, e, t = row % agents, row // agents % envs, row // agents // envs
    at = t * stride_t + e * stride_e + n * stride_n
    x, usable = load_rows(logits, avail, at, row * actions, column, inside, actions)
    log_p, p, entropy, some = log_softmax(x, usable)
    act = tl.load(action + row, inside, 0)
    log_prob = tl.where(some, chosen(log_p, column, act, actions), 0.0)
    tl.store(log_prob_out + row, log_prob, inside)

    weight = tl.load(mask + row, inside, 0).to(tl.float32)
    counts = inside & (weight != 0)
    log_rho = tl.where(counts, log_prob - tl.load(log_prob_old + row, counts, 0.0), 0.0)
    log_others = tl.zeros_like(log_rho)
    if log_m is not None:
        log_others = tl.load(log_m + row, counts, 0.0)
    objective, slope, ratio, m, clipped = _objective(
        log_rho, log_others, tl.load(advantage + row, counts, 0.0), number(clip_eps), number(others_clip_eps), MODE
    )
    weights = tl.load(total)
    scale = weight * tl.where(weights > 0, 1.0 / weights, 0.0)
    gradient = logits_gradient(log_p, p, entropy, usable, column, act, -scale * slope, -scale * number(ent_coef))
    real = inside[:, None] & (column < actions)[None, :]
    to = dlogits + at[:, None] + column[None, :]
    tl.store(to, tl.where((some & counts)[:, None], gradient, 0.0), real)

    # means of terms of both signs: float64 keeps what cancels
    weight64 = tl.where(counts, weight, 0.0).to(tl.float64)
    to_sum = sums + tl.program_id(0)
    programs = tl.num_programs(0)
    tl.store(to_sum, tl.sum(-objective * weight64))
    tl.store(to_sum + programs, tl.sum(entropy * weight64))
    tl.store(to_sum + 2 * programs, tl.sum(tl.where(clipped, weight64, 0.0)))
    tl.store(to_sum + 3 * programs, tl.sum(expm1_less(log_rho) * weight64))
    tl.store(to_sum + 4 * programs, tl.sum(ratio * weight64))
    tl.store(to_sum + 5 * programs, tl.sum(m * weight64))


def k_level_surrogate(
    logits: Tensor,
    avail: Tensor | None,
    action: Tensor,
    log_prob_old: Tensor,
    advantage: Tensor,
    mask: Tensor,
    log_m: Tensor | None,
    clip_eps: Number,
    ent_coef: Number,
    clip_mode: str,
    others_clip_eps: Number,
    clips: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (loss, dlogits, log_prob, stats); dlogits has the layout of the logits.

    ``clips`` [2] takes the place of both clip ranges: it can change between two replays of a captured graph.
    An action outside 0 .. A-1 makes a row, and with it the loss, NaN: an error would need the host to wait.
    """
    logits, device = dense(logits, 1), logits.device
    if clips is not None:
        clip_eps, others_clip_eps = clips.unbind()
    rows, (envs, agents, actions) = action.numel(), logits.shape[1:]
    block = block_rows(actions)
    grid = (triton.cdiv(rows, block),)
    total = mask.sum(dtype=torch.float32)
    dlogits = torch.empty_like(logits)  # contiguous where the logits are not dense
    if dlogits.stride() != logits.stride():
        logits = logits.contiguous()
    log_prob = torch.empty(action.shape, device=device)
    sums = torch.empty(_STATS, *grid, dtype=torch.float64, device=device)
    per_row = (action, log_prob_old, advantage, mask, log_m)
    _surrogate_kernel[grid](
        logits, None if avail is None else avail.contiguous(),
        *(None if tensor is None else tensor.contiguous() for tensor in per_row),
        total, dlogits, log_prob, sums, rows, envs, agents, actions, *dlogits.stride()[:3],
        clip_eps, ent_coef, others_clip_eps, MODE=clip_mode, ROWS=block, ACTIONS=pad(actions),
    )  # fmt: skip
    means = sums.sum(1) / total.double().clamp_min(torch.finfo(torch.float32).tiny)
    coefficient = ent_coef.double() if isinstance(ent_coef, Tensor) else ent_coef
    loss = (means[0] - coefficient * means[1]).float()
    return loss, dlogits, log_prob, torch.cat((means.float(), total[None]))


@triton.jit
def _others_kernel(log_prob, log_prob_old, alive, log_m, rows, agents, ROWS: tl.constexpr, AGENTS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    agent = tl.arange(0, AGENTS)
    inside = (row < rows)[:, None] & (agent < agents)[None, :]
    at = (row * agents)[:, None] + agent[None, :]
    counts = inside
    if alive is not None:
        counts = inside & (tl.load(alive + at, inside, 0) != 0)
    log_ratio = tl.load(log_prob + at, counts, 0.0) - tl.load(log_prob_old + at, counts, 0.0)
    tl.store(log_m + at, tl.sum(log_ratio, 1)[:, None] - log_ratio, inside)


def others_log_ratio(log_prob: Tensor, log_prob_old: Tensor, alive: Tensor | None) -> Tensor:
    """Return log M_i [T, E, N]."""
    agents = log_prob.shape[-1]
    rows, block = log_prob.numel() // agents, block_rows(agents)
    log_m = torch.empty(log_prob.shape, device=log_prob.device)
    _others_kernel[(triton.cdiv(rows, block),)](
        log_prob.contiguous(), log_prob_old.contiguous(), None if alive is None else alive.contiguous(), log_m,
        rows, agents, ROWS=block, AGENTS=pad(agents),
    )  # fmt: skip
    return log_m
