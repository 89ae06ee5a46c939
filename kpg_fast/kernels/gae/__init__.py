"""Generalised advantage estimation (Schulman et al., arXiv 1506.02438) for every agent's value, backwards in time.

    next[t]      = 0 if terminated[t]; last_value[t] if truncated[t]; value[t+1] (bootstrap_value at the end)
    delta[t]     = reward[t] + gamma * next[t] - value[t]
    advantage[t] = delta[t] + gamma * gae_lambda * (0 if the episode ended at t else advantage[t+1])
    returns[t]   = advantage[t] + value[t]

A step that is not valid (a crashed game) has advantage 0 and passes nothing on to the steps before it.
"""

import torch
from torch import Tensor

from kpg_fast.kernels.gae import cpu, ref
from kpg_fast.kernels.layout import check_dtypes
from kpg_fast.kernels.registration import define_op


def _shapes(reward: Tensor, value: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return value.new_empty(value.shape), value.new_empty(value.shape)


_gae = define_op("gae", cpu.gae, _shapes)


def gae(
    reward: Tensor,
    value: Tensor,
    bootstrap_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    last_value: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Return ``(advantage, returns)`` [T, E, N], float32 (float64 if the values are). No gradient.

    Args:
        reward: [T, E], shared by the team.
        value: V(s_t) [T, E, N].
        bootstrap_value: V(s_T) [E, N].
        terminated: bool [T, E], the episode ended at step t and nothing follows.
        truncated: bool [T, E], the episode was cut at step t; the value of what would have come next counts.
        last_value: [T, E, N], that value; read only where truncated. None: the value of the next stored step is taken
            there, as where episodes are never truncated.
        valid: bool [T, E], or None where every step is.
        gamma: discount.
        gae_lambda: trace decay.

    Raises:
        UsageError: types that do not fit.
        ValueError: shapes that do not fit.
    """
    double = check_dtypes("gae", reward, value, bootstrap_value, last_value) == torch.float64
    args = (reward, value.detach(), bootstrap_value, terminated, truncated, last_value, valid, gamma, gae_lambda)
    advantage, returns = ref.gae(*args) if double else _gae(*args)
    return advantage, returns
