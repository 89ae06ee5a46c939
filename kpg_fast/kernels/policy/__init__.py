"""Masked categorical policy: log-probability and entropy of actions, and counter-based sampling.

    pi(a) = exp(l_a) / sum over available b of exp(l_b)  if a is available, else 0

as JaxMARL does by subtracting 1e10 from the logits of actions that are not available. A row with no available action
(padding) has log-probability 0, entropy 0 and no gradient.
"""

import torch
from torch import Tensor

from kpg_fast.kernels.policy import ref


def log_prob_entropy(logits: Tensor, avail: Tensor | None, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(log_prob, entropy)`` [...] of the given actions; differentiable in the logits.

    Args:
        logits: [..., A].
        avail: bool [..., A], or None where every action is available.
        action: int32 or int64 [...].
    """
    return ref.log_prob_entropy(logits, avail, action)


def sample(
    logits: Tensor,
    avail: Tensor | None,
    seed: int | Tensor,
    row: Tensor,
    step: int | Tensor,
    stream: int = 0,
    greedy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return ``(action, log_prob)``, int32 and float [...], drawn from the masked policy.

    The draw inverts the cumulated probabilities at one uniform number, word 0 of Philox4x32-10 under the key ``seed``
    and the counter (row, stream, low half of step, high half of step). So it depends on these four alone: not on the
    batch a row sits in, the number of threads or the device. No gradient.

    Args:
        logits: [..., A].
        avail: bool [..., A], or None where every action is available.
        seed: int64, an int or a tensor that broadcasts to [...].
        row: int64 [...] in 0 .. 2^32-1: who draws, e.g. environment * num_agents + agent.
        step: int64, an int or a tensor that broadcasts to [...]: when, e.g. the number of the environment step.
        stream: 0 .. 2^32-1: what for, so that one seed can serve several purposes.
        greedy: take the most probable action (the first of equals) and use no random number.
    """
    shape = logits.shape[:-1]
    seed, row, step = (torch.as_tensor(a, device=logits.device).long().expand(shape) for a in (seed, row, step))
    return ref.sample(logits.detach(), avail, seed, row, step, stream, greedy)
