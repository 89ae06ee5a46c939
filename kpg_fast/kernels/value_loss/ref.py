"""Definition of the clipped value loss in plain torch."""

import torch
from torch import Tensor


def value_loss(value: Tensor, value_old: Tensor, returns: Tensor, mask: Tensor, clip_eps: float | None) -> Tensor:
    """See :func:`kpg_fast.kernels.value_loss.value_loss`."""
    error = (value - returns) ** 2
    if clip_eps is not None:
        clipped = value_old + (value - value_old).clamp(-clip_eps, clip_eps)
        error = torch.maximum(error, (clipped - returns) ** 2)
    weight = mask.to(value.dtype)
    return 0.5 * (weight * error).sum() / weight.sum().clamp_min(torch.finfo(value.dtype).tiny)
