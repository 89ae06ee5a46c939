"""The GRU on the CPU, in csrc/gru_kernels.hpp and csrc/gru_gradient.hpp."""

from torch import Tensor

from kpg_fast import _C
from kpg_fast.kernels.layout import Array, dense, empty, rounds, view


def _inputs(
    x: Tensor, h0: Tensor, reset: Tensor, w_x: Tensor, b_x: Tensor, w_h: Tensor, b_n: Tensor
) -> tuple[Array, ...]:
    reset = dense(reset.expand(x.shape[:-1]), 2)
    return (
        view(dense(x, 3)),
        view(dense(h0, 2)),
        view(reset),
        view(dense(w_x, 2)),
        view(dense(b_x, 1)),
        view(dense(w_h, 2)),
        view(dense(b_n, 1)),
    )


def forward(
    x: Tensor,
    h0: Tensor,
    reset: Tensor,
    w_x: Tensor,
    b_x: Tensor,
    w_h: Tensor,
    b_n: Tensor,
    precision: str,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Return h [G, T, R, H] and, if ``keep``, what the backward pass reads: the gates [G, T, R, 4H] (else empty)."""
    hidden = h0.shape[-1]
    h = empty(*x.shape[:-1], hidden)
    gates = empty(*x.shape[:-1], 4 * hidden) if keep else empty(0)
    inputs = _inputs(x, h0, reset, w_x, b_x, w_h, b_n)
    _C.gru_forward(*inputs, rounds(precision), view(h), view(gates) if keep else None)
    return h, gates


def backward(
    dh: Tensor,
    h: Tensor,
    gates: Tensor,
    x: Tensor,
    h0: Tensor,
    reset: Tensor,
    w_x: Tensor,
    b_x: Tensor,
    w_h: Tensor,
    b_n: Tensor,
    precision: str,
    window: int,
    needs_dx: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return (dx, dh0, dw_x, db_x, dw_h, db_n); dx is empty where it is not wanted."""
    dx = empty(*(x.shape if needs_dx else (0,)))
    dh0, dw_x, db_x, dw_h, db_n = rest = tuple(empty(*a.shape) for a in (h0, w_x, b_x, w_h, b_n))
    _C.gru_backward(
        view(dh.contiguous()),
        view(h),
        view(gates),
        *_inputs(x, h0, reset, w_x, b_x, w_h, b_n),
        rounds(precision),
        window,
        view(dx) if needs_dx else None,
        *(view(gradient) for gradient in rest),
    )
    return dx, dh0, dw_x, db_x, dw_h, db_n
