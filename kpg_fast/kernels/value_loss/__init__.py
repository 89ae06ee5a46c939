"""Clipped value loss of PPO, as in JaxMARL's MAPPO.

clipped = value_old + clip(value - value_old, -clip_eps, clip_eps)
loss    = 1/2 mean over counted rows of max((value - returns)^2, (clipped - returns)^2)
"""

from torch import Tensor

from kpg_fast.kernels.value_loss import ref


def value_loss(
    value: Tensor, value_old: Tensor, returns: Tensor, mask: Tensor, clip_eps: float | None = None
) -> Tensor:
    """Return the scalar loss; differentiable in ``value``, whose gradient is computed in the same pass.

    Args:
        value: new values, any shape.
        value_old: values at the time of the rollout, same shape.
        returns: targets, same shape.
        mask: weight of each row, bool or float, same shape; rows of weight 0 are not read. The mean divides by the
            sum of the weights.
        clip_eps: how far a value may move from ``value_old`` before the clipped term takes over; None: plain squares.
    """
    return ref.value_loss(value, value_old.detach(), returns.detach(), mask, clip_eps)
