"""The differences on the CPU, in csrc/linear_difference.hpp, csrc/gru_difference.hpp and csrc/policy_kernels.hpp."""

from torch import Tensor

from kpg_fast import _C
from kpg_fast.kernels.layout import dense, empty, rounds, view


def linear_difference(
    x: Tensor,
    dx: Tensor | None,
    w: Tensor,
    w_k: Tensor,
    b: Tensor | None,
    b_k: Tensor | None,
    sums: Tensor | None,
    precision: str,
) -> Tensor:
    """Return dy [G, M, out]."""
    dy = empty(w.shape[0], x.shape[1], w.shape[2])
    _C.linear_difference(
        view(dense(x, 1)),
        None if dx is None else view(dense(dx, 2)),
        view(dense(w, 2)),
        view(dense(w_k, 2)),
        None if b is None else view(dense(b, 1)),
        None if b_k is None else view(dense(b_k, 1)),
        None if sums is None else view(sums.contiguous()),
        rounds(precision),
        view(dy),
    )
    return dy


def gru_difference(
    x: Tensor,
    dx: Tensor,
    h: Tensor,
    gates: Tensor,
    h0: Tensor,
    reset: Tensor,
    weights: list[Tensor],
    weights_k: list[Tensor],
    precision: str,
) -> Tensor:
    """Return dh [G, T, R, H]."""
    dh = empty(*h.shape)
    reset = dense(reset.expand(x.shape[:-1]), 2)
    _C.gru_difference(
        view(dense(x, 3)),
        view(dense(dx, 3)),
        view(h),
        view(gates),
        view(dense(h0, 2)),
        view(reset),
        *(view(dense(w, w.dim() - 1)) for w in (*weights, *weights_k)),
        rounds(precision),
        view(dh),
    )
    return dh


def log_prob_difference(logits: Tensor, dlogits: Tensor, avail: Tensor | None, action: Tensor) -> Tensor:
    """Return the change of the log-probabilities, of action's shape."""
    actions = logits.shape[-1]
    change = empty(*action.shape)
    _C.log_prob_difference(
        view(logits.reshape(-1, actions).contiguous()),
        None if avail is None else view(avail.reshape(-1, actions).contiguous()),
        view(action.reshape(-1).int().contiguous()),
        view(dlogits.reshape(-1, actions).contiguous()),
        view(change.view(-1)),
    )
    return change
