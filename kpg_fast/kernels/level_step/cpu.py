"""The level step on the CPU: one parallel pass in csrc/level_step.cpp; a clipped gradient is read a second time."""

from collections.abc import Sequence

from torch import Tensor

from kpg_fast import _C
from kpg_fast.errors import UsageError


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
    rates: Tensor | None,
) -> None:
    """Write theta_out, state_out (unless it is empty) and grad_norm; float32 or float64, contiguous."""
    if rates is not None:
        raise UsageError("level_step reads its rates from a tensor on a GPU only")
    _C.level_step(
        theta.numpy(),
        grad.numpy(),
        [slot.numpy() for slot in state_in],
        theta_out.numpy(),
        [slot.numpy() for slot in state_out] if state_out or not state_in else None,
        grad_norm.numpy(),
        optimizer,
        lr,
        tuple(betas),
        alpha,
        eps,
        momentum,
        max_grad_norm,
        step,
    )
