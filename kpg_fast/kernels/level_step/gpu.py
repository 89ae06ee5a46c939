"""The level step on the GPU: one pass for the squares of the gradient, one for the step; no memory but partial sums."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kpg_fast.kernels.gpu import number, pad
from kpg_fast.kernels.level_step import ref

_BLOCK = 2048  # parameters a program


@triton.jit
def _square_kernel(grad, sums, size, BLOCK: tl.constexpr):
    block, group = tl.program_id(0), tl.program_id(1)
    at = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(grad + group.to(tl.int64) * size + at, at < size, 0.0).to(tl.float64)
    tl.store(sums + group * tl.num_programs(0) + block, tl.sum(g * g))


@triton.jit
def _step_kernel(
    theta, grad, first_in, second_in, theta_out, first_out, second_out, sums, grad_norm,
    size, blocks, step_size, root_correction, decay1, gain1, decay2, gain2, eps, max_grad_norm,
    RULE: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    block, group = tl.program_id(0), tl.program_id(1)
    each = tl.arange(0, BLOCKS)
    norm = tl.sqrt(tl.sum(tl.load(sums + group * blocks + each, each < blocks, 0.0))).to(tl.float32)
    if block == 0:
        tl.store(grad_norm + group, norm)
    column = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    at = group.to(tl.int64) * size + column
    direction = tl.load(grad + at, inside, 0.0)
    if max_grad_norm is not None:
        # a norm that is not a number stays one
        direction = direction * tl.where(norm <= max_grad_norm, 1.0, max_grad_norm / norm)
    if RULE == "adam":
        m = decay1 * tl.load(first_in + at, inside, 0.0) + gain1 * direction
        v = decay2 * tl.load(second_in + at, inside, 0.0) + gain2 * direction * direction
        direction = m / (tl.sqrt_rn(v) * number(root_correction) + eps)
        if first_out is not None:
            tl.store(first_out + at, m, inside)
            tl.store(second_out + at, v, inside)
    else:
        if RULE == "rmsprop":
            v = decay2 * tl.load(second_in + at, inside, 0.0) + gain2 * direction * direction
            direction = direction / (tl.sqrt_rn(v) * number(root_correction) + eps)
            if second_out is not None:
                tl.store(second_out + at, v, inside)
        if first_in is not None:
            direction = decay1 * tl.load(first_in + at, inside, 0.0) + direction
            if first_out is not None:
                tl.store(first_out + at, direction, inside)
    tl.store(theta_out + at, tl.load(theta + at, inside, 0.0) - number(step_size) * direction, inside)


def step_sizes(optimizer: str, lr: float, betas: Sequence[float], step: int) -> tuple[float, float]:
    """Return what depends on the step's number: the factor of the direction, and that of the root.

    A captured graph reads the two from device memory; so they are computed here and not in the kernel.
    """
    if optimizer != "adam":
        return lr, 1.0
    beta1, beta2 = betas
    return lr / (1.0 - beta1**step), (1.0 - beta2**step) ** -0.5


def level_step(
    theta: Tensor,
    grad: Tensor,
    state_in: Sequence[Tensor],
    theta_out: Tensor,
    state_out: Sequence[Tensor],
    grad_norm: Tensor,
    optimizer: str,
    lr: float,
    betas: Sequence[float],
    alpha: float,
    eps: float,
    momentum: float,
    max_grad_norm: float | None,
    step: int,
    rates: Tensor | None = None,
) -> None:
    """Write theta_out, state_out (unless it is empty) and grad_norm; contiguous.

    ``rates`` [2] in device memory replaces what :func:`step_sizes` makes of ``lr``, ``betas`` and ``step``. Float64
    takes the definition.
    """
    if theta.dtype == torch.float64:
        results = ref.level_step(
            theta, grad, list(state_in), optimizer, lr, (betas[0], betas[1]), alpha, eps, momentum, max_grad_norm, step
        )
        for to, value in zip((theta_out, *state_out, grad_norm), _flat(*results, bool(state_out)), strict=True):
            to.copy_(value)
        return
    groups, size = theta.shape
    blocks = triton.cdiv(size, _BLOCK)
    sums = torch.empty(groups, blocks, dtype=torch.float64, device=theta.device)
    _square_kernel[(blocks, groups)](grad, sums, size, BLOCK=_BLOCK)
    step_size, root_correction = step_sizes(optimizer, lr, betas, step) if rates is None else (rates[:1], rates[1:])
    first, second = _moments(optimizer, state_in), _moments(optimizer, state_out)
    adam = optimizer == "adam"
    _step_kernel[(blocks, groups)](
        theta, grad, *first, theta_out, *second, sums, grad_norm,
        size, blocks, step_size, root_correction,
        betas[0] if adam else momentum, 1.0 - betas[0] if adam else 1.0,
        betas[1] if adam else alpha, 1.0 - (betas[1] if adam else alpha), eps, max_grad_norm,
        RULE=optimizer, BLOCK=_BLOCK, BLOCKS=pad(blocks),
    )  # fmt: skip


def _moments(optimizer: str, state: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """The slots of a state as (first, second) moment; a momentum buffer is a first moment."""
    if optimizer == "adam":
        return (state[0], state[1]) if state else (None, None)
    if optimizer == "rmsprop":
        return (state[1] if len(state) > 1 else None), (state[0] if state else None)
    return (state[0] if state else None), None


def _flat(theta: Tensor, state: list[Tensor], norm: Tensor, keep: bool) -> tuple[Tensor, ...]:
    return (theta, *(state if keep else ()), norm)
