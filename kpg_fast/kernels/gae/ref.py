"""Definition of generalised advantage estimation in plain torch."""

import torch
from torch import Tensor


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
    """See :func:`kpg_fast.kernels.gae.gae` for formula and shapes."""
    advantage = torch.empty_like(value)
    following, carry = bootstrap_value, torch.zeros_like(bootstrap_value)
    for t in reversed(range(value.shape[0])):
        if last_value is not None:
            following = torch.where(truncated[t, :, None], last_value[t], following)
        following = following.masked_fill(terminated[t, :, None], 0)
        carry = carry.masked_fill((terminated | truncated)[t, :, None], 0)
        carry = reward[t, :, None] + gamma * following - value[t] + gamma * gae_lambda * carry
        if valid is not None:
            carry = carry.masked_fill(~valid[t, :, None], 0)
        advantage[t] = carry
        following = value[t]
    return advantage, advantage + value
