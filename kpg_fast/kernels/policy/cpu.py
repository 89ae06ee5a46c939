"""The categorical policy on the CPU, in csrc/policy_kernels.hpp."""

import torch
from torch import Tensor

from kpg_fast import _C
from kpg_fast.kernels.layout import Array, empty, view


def _rows(logits: Tensor, avail: Tensor | None) -> tuple[Array, Array | None]:
    actions = logits.shape[-1]
    flags = None if avail is None else view(avail.reshape(-1, actions).contiguous())
    return view(logits.reshape(-1, actions).contiguous()), flags


def log_prob_entropy(logits: Tensor, avail: Tensor | None, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return (log_prob, entropy), both of action's shape."""
    log_prob, entropy = empty(*action.shape), empty(*action.shape)
    chosen = view(action.reshape(-1).int().contiguous())
    _C.log_prob_entropy(*_rows(logits, avail), chosen, view(log_prob.view(-1)), view(entropy.view(-1)))
    return log_prob, entropy


def log_prob_entropy_backward(
    dlog_prob: Tensor, dentropy: Tensor, logits: Tensor, avail: Tensor | None, action: Tensor
) -> Tensor:
    """Return dlogits."""
    dlogits = empty(*logits.shape)
    _C.log_prob_entropy_backward(
        *_rows(logits, avail),
        view(action.reshape(-1).int().contiguous()),
        view(dlog_prob.reshape(-1).contiguous()),
        view(dentropy.reshape(-1).contiguous()),
        view(dlogits.view(-1, logits.shape[-1])),
    )
    return dlogits


def sample(
    logits: Tensor, avail: Tensor | None, seed: Tensor, row: Tensor, step: Tensor, stream: int, greedy: bool
) -> tuple[Tensor, Tensor]:
    """Return (action, log_prob); seed, row and step are int64 of logits' leading shape."""
    shape = logits.shape[:-1]
    action, log_prob = torch.empty(shape, dtype=torch.int32), empty(*shape)
    counters = [view(counter.reshape(-1).contiguous()) for counter in (seed, row, step)]
    _C.sample(*_rows(logits, avail), *counters, stream, greedy, view(action.view(-1)), view(log_prob.view(-1)))
    return action, log_prob
