"""The value loss on the GPU: the mean needs the sum of the weights first, so a pass sums, and a second one writes."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kpg_fast.kernels.gpu import Number, number

_ROWS = 1024  # a program


@triton.jit
def _errors(value, value_old, returns, mask, at, inside, clip_eps):
    """Weight, the larger of the two squared errors and its half slope; rows of weight 0 are not read."""
    weight = tl.load(mask + at, inside, 0).to(tl.float32)
    counts = inside & (weight != 0)
    now = tl.load(value + at, counts, 0.0)
    target = tl.load(returns + at, counts, 0.0)
    miss = now - target
    error, slope = miss * miss, miss
    if clip_eps is not None:
        eps = number(clip_eps)
        old = tl.load(value_old + at, counts, 0.0)
        change = now - old
        bounded = tl.where(change < -eps, -eps, tl.where(change > eps, eps, change))
        clipped_miss = old + bounded - target
        clipped = clipped_miss * clipped_miss
        # torch halves the gradient among equals; inside the bounds both terms are the same one
        moves = tl.where(bounded == change, clipped_miss, 0.0)
        slope = tl.where(clipped > error, moves, tl.where(clipped == error, 0.5 * (slope + moves), slope))
        error = tl.where(clipped > error, clipped, error)
    return weight, error, slope


@triton.jit
def _sum_kernel(value, value_old, returns, mask, sums, rows, clip_eps, ROWS: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    weight, error, _ = _errors(value, value_old, returns, mask, at, at < rows, clip_eps)
    tl.store(sums + tl.program_id(0), tl.sum(weight.to(tl.float64)))
    tl.store(sums + tl.num_programs(0) + tl.program_id(0), tl.sum(weight.to(tl.float64) * error))


@triton.jit
def _gradient_kernel(value, value_old, returns, mask, total, dvalue, rows, clip_eps, ROWS: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = at < rows
    weight, _, slope = _errors(value, value_old, returns, mask, at, inside, clip_eps)
    weights = tl.load(total)
    share = tl.where(weights > 0, 1.0 / weights, 0.0)
    tl.store(dvalue + at, tl.where(weight != 0, weight * share * slope, 0.0), inside)


def value_loss(
    value: Tensor,
    value_old: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip_eps: Number | None,
    clip: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (loss, dvalue); see :func:`kpg_fast.kernels.value_loss.value_loss`."""
    clip_eps = clip_eps if clip is None else clip
    rows, device = value.numel(), value.device
    inputs = [tensor.contiguous() for tensor in (value, value_old, returns, mask)]
    grid = (triton.cdiv(rows, _ROWS),)
    sums = torch.empty(2, *grid, dtype=torch.float64, device=device)
    _sum_kernel[grid](*inputs, sums, rows, clip_eps, ROWS=_ROWS)
    total, error = sums.sum(1).float()
    dvalue = torch.empty(value.shape, device=device)
    _gradient_kernel[grid](*inputs, total, dvalue, rows, clip_eps, ROWS=_ROWS)
    return 0.5 * error / total.clamp_min(torch.finfo(torch.float32).tiny), dvalue
