"""The linear layer on the CPU, in csrc/linear_kernels.hpp."""

from torch import Tensor

from kpg_fast import _C
from kpg_fast.kernels.layout import dense, empty, rounds, view


def forward(
    x: Tensor, w: Tensor, b: Tensor | None, activation: str, precision: str, keep: bool
) -> tuple[Tensor, Tensor]:
    """Return y [G, M, out] and, if ``keep``, what the ReLU was applied to (else empty)."""
    x, w = dense(x, 1), dense(w, 2)
    y = empty(w.shape[0], x.shape[1], w.shape[2])
    sums = empty(*(y.shape if keep else (0,)))
    bias = None if b is None else view(dense(b, 1))
    kept = (view(sums),) if keep else ()
    _C.linear_forward(view(x), view(w), bias, activation == "relu", rounds(precision), view(y), *kept)
    return y, sums


def backward(
    dy: Tensor, y: Tensor, x: Tensor, w: Tensor, activation: str, precision: str, needs_dx: bool, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dx, dw, db); dx and db are empty where they are not wanted."""
    x, w = dense(x, 1), dense(w, 2)
    dx = empty(*x.shape) if needs_dx else empty(0)
    dw = empty(*w.shape)
    db = empty(w.shape[0], w.shape[2]) if has_bias else empty(0)
    _C.linear_backward(
        view(dy.contiguous()),
        view(y),
        view(x),
        view(w),
        activation == "relu",
        rounds(precision),
        view(dx) if needs_dx else None,
        view(dw),
        view(db) if has_bias else None,
    )
    return dx, dw, db
