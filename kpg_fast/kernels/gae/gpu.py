"""Advantages on the GPU: a thread owns an agent of an environment and walks back through its steps.

Nothing but the sum of the advantage depends on the step after it, so the loads of several steps are under way at once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kpg_fast.kernels.gpu import wide

_COLUMNS = 64  # a program; small, so that a thousand environments occupy every multiprocessor


@triton.jit
def _gae_kernel(
    reward, value, bootstrap_value, terminated, truncated, last_value, valid, advantage, returns,
    steps, envs, agents, gamma, decay,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    columns = wide(envs) * agents
    inside = column < columns
    env = column // agents
    following = tl.load(bootstrap_value + column, inside, 0.0)
    carry = tl.zeros_like(following)
    for back in tl.range(0, steps, loop_unroll_factor=8):
        t = wide(steps) - 1 - back
        at, at_env = t * columns + column, t * envs + env
        ended = tl.load(terminated + at_env, inside, 0) != 0
        cut = tl.load(truncated + at_env, inside, 0) != 0
        if last_value is not None:
            following = tl.where(cut, tl.load(last_value + at, inside & cut, 0.0), following)
        following = tl.where(ended, 0.0, following)
        carry = tl.where(ended | cut, 0.0, carry)
        now = tl.load(value + at, inside, 0.0)
        carry = tl.load(reward + at_env, inside, 0.0) + gamma * following - now + decay * carry
        if valid is not None:
            carry = tl.where(tl.load(valid + at_env, inside, 0) != 0, carry, 0.0)
        tl.store(advantage + at, carry, inside)
        tl.store(returns + at, carry + now, inside)
        following = now


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
    steps, envs, agents = value.shape
    advantage, returns = (torch.empty(value.shape, device=value.device) for _ in range(2))
    inputs = (reward, value, bootstrap_value, terminated, truncated, last_value, valid)
    _gae_kernel[(triton.cdiv(envs * agents, _COLUMNS),)](
        *(None if tensor is None else tensor.contiguous() for tensor in inputs),
        advantage, returns, steps, envs, agents, gamma, gamma * gae_lambda, COLUMNS=_COLUMNS, num_warps=2,
    )  # fmt: skip
    return advantage, returns
