"""Masked categorical policy: log-probability and entropy of actions, and counter-based sampling.

    pi(a) = exp(l_a) / sum over available b of exp(l_b)  if a is available, else 0

as JaxMARL does by subtracting 1e10 from the logits of actions that are not available. A row with no available action
(padding) has log-probability 0, entropy 0 and no gradient.
"""

from typing import Any

import torch
from torch import Tensor

from kpg_fast.errors import UsageError
from kpg_fast.kernels.layout import check_dtypes, check_shape
from kpg_fast.kernels.policy import cpu, ref
from kpg_fast.kernels.registration import define_op


def _shapes(logits: Tensor, avail: Tensor | None, action: Tensor) -> tuple[Tensor, Tensor]:
    return logits.new_empty(action.shape), logits.new_empty(action.shape)


_forward = define_op("log_prob_entropy", cpu.log_prob_entropy, _shapes)


def _backward_shape(dlog_prob: Tensor, dentropy: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(logits.shape)


_backward = define_op("log_prob_entropy_backward", cpu.log_prob_entropy_backward, _backward_shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, avail, action = inputs
    ctx.save_for_backward(logits, avail, action)


def _gradient(ctx: Any, dlog_prob: Tensor, dentropy: Tensor) -> tuple[Tensor | None, ...]:
    return _backward(dlog_prob, dentropy, *ctx.saved_tensors), None, None


_forward.register_autograd(_gradient, setup_context=_setup_context)


def _sample_shapes(logits: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    shape = logits.shape[:-1]
    return logits.new_empty(shape, dtype=torch.int32), logits.new_empty(shape)


_sample = define_op("sample", cpu.sample, _sample_shapes)


def log_prob_entropy(logits: Tensor, avail: Tensor | None, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(log_prob, entropy)`` [...] of the given actions; differentiable in the logits.

    Args:
        logits: [..., A].
        avail: bool [..., A], or None where every action is available.
        action: int32 or int64 [...]; one that is not available has a log-probability of about -1e10.

    Float64 logits take the definition in ``ref.py`` (for tests).

    Raises:
        UsageError: shapes or types that do not fit.
        ValueError: an action outside 0 .. A-1 (on a GPU, which does not report back, its log_prob is NaN).
    """
    _check(logits, avail)
    check_shape("action", action, tuple(logits.shape[:-1]))
    if check_dtypes("log_prob_entropy", logits) == torch.float64:
        return ref.log_prob_entropy(logits, avail, action)
    log_prob, entropy = _forward(logits, avail, action)
    return log_prob, entropy


def _check(logits: Tensor, avail: Tensor | None) -> None:
    if avail is not None:
        check_shape("avail", avail, tuple(logits.shape))
        if avail.dtype != torch.bool:
            raise UsageError(f"avail must be bool, not {avail.dtype}")


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

    Raises:
        UsageError: shapes or types that do not fit.
    """
    _check(logits, avail)
    shape = logits.shape[:-1]
    seed, row, step = (torch.as_tensor(a, device=logits.device).long().expand(shape) for a in (seed, row, step))
    if check_dtypes("sample", logits) == torch.float64:
        return ref.sample(logits.detach(), avail, seed, row, step, stream, greedy)
    action, log_prob = _sample(logits.detach(), avail, seed, row, step, stream, greedy)
    return action, log_prob
