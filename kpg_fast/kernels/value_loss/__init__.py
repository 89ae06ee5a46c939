"""Clipped value loss of PPO, as in JaxMARL's MAPPO.

clipped = value_old + clip(value - value_old, -clip_eps, clip_eps)
loss    = 1/2 mean over counted rows of max((value - returns)^2, (clipped - returns)^2)
"""

from typing import Any

import torch
from torch import Tensor

from kpg_fast.kernels.layout import check_dtypes, check_shape
from kpg_fast.kernels.registration import define_op
from kpg_fast.kernels.value_loss import cpu, ref


def _shapes(value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return value.new_empty(()), value.new_empty(value.shape)


_pass = define_op("value_loss", cpu.value_loss, _shapes)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _gradient(ctx: Any, dloss: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    (dvalue,) = ctx.saved_tensors
    return dloss * dvalue, *(None,) * 5


_pass.register_autograd(_gradient, setup_context=_setup_context)


def value_loss(
    value: Tensor,
    value_old: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip_eps: float | None = None,
    clip: Tensor | None = None,
) -> Tensor:
    """Return the scalar loss; differentiable in ``value``, whose gradient is computed in the same pass.

    Args:
        value: new values, any shape.
        value_old: values at the time of the rollout, same shape.
        returns: targets, same shape.
        mask: weight of each row, bool or float, same shape; rows of weight 0 are not read. The mean divides by the
            sum of the weights.
        clip_eps: how far a value may move from ``value_old`` before the clipped term takes over; None: plain squares.
        clip: on a GPU, one float32 in its memory, read in place of ``clip_eps``.

    Float64 values take the definition in ``ref.py`` (for tests).

    Raises:
        UsageError: shapes or types that do not fit.
    """
    others = (value_old.detach(), returns.detach())
    for name, tensor in zip(("value_old", "returns", "mask"), (*others, mask), strict=True):
        check_shape(name, tensor, tuple(value.shape))
    if check_dtypes("value_loss", value, *others) == torch.float64:
        return ref.value_loss(value, *others, mask, clip_eps)
    loss: Tensor = _pass(value, *others, mask, clip_eps, clip)[0]
    return loss
