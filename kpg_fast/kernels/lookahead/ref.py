"""Definitions of the differences in plain torch: two passes, subtracted. Meant for float64."""

from torch import Tensor

from kpg_fast.kernels.gru.ref import gru
from kpg_fast.kernels.linear.ref import linear
from kpg_fast.kernels.policy.ref import log_prob_entropy


def linear_difference(
    x: Tensor, dx: Tensor | None, w: Tensor, w_k: Tensor, b: Tensor | None, b_k: Tensor | None, activation: str
) -> Tensor:
    """See :func:`kpg_fast.kernels.lookahead.linear_difference`."""
    x_k = x if dx is None else x + dx
    return linear(x_k, w_k, b_k, activation) - linear(x, w, b, activation)


def gru_difference(
    x: Tensor,
    dx: Tensor,
    h0: Tensor,
    reset: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    weights_k: tuple[Tensor, Tensor, Tensor, Tensor],
) -> Tensor:
    """See :func:`kpg_fast.kernels.lookahead.gru_difference`."""
    return gru(x + dx, h0, reset, *weights_k) - gru(x, h0, reset, *weights)


def log_prob_difference(logits: Tensor, dlogits: Tensor, avail: Tensor | None, action: Tensor) -> Tensor:
    """See :func:`kpg_fast.kernels.lookahead.log_prob_difference`."""
    after, before = (log_prob_entropy(x, avail, action)[0] for x in (logits + dlogits, logits))
    return after - before
