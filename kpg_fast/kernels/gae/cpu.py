"""Advantages on the CPU, in csrc/gae.cpp."""

from torch import Tensor

from kpg_fast import _C
from kpg_fast.kernels.layout import empty, view


def gae(
    reward: Tensor,
    value: Tensor,
    bootstrap_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    last_value: Tensor | None,
    valid: Tensor | None,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Return (advantage, returns) [T, E, N]."""
    advantage, returns = empty(*value.shape), empty(*value.shape)
    tensors = (reward, value, bootstrap_value, terminated, truncated, last_value, valid)
    arrays = [None if tensor is None else view(tensor.contiguous()) for tensor in tensors]
    _C.gae(*arrays, gamma, gae_lambda, view(advantage), view(returns))
    return advantage, returns
