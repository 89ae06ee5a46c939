"""GRU over time with resets, input product included.

The cell is flax's and JaxMARL's ``GRUCell`` (one bias for the inputs of the three gates, and one inside the reset
product), gates in the order r, z, n:

    h     = 0 where reset[t] else h[t-1]                              h[-1] = h0
    r     = sigmoid(x[t] W_xr + b_xr + h W_hr)
    z     = sigmoid(x[t] W_xz + b_xz + h W_hz)
    n     = tanh   (x[t] W_xn + b_xn + r * (h W_hn + b_n))
    h[t]  = (1 - z) * n + z * h

Shapes: x [G, T, R, I], h0 [G, R, H], reset [T, R] or [G, T, R], w_x [G, I, 3H], b_x [G, 3H], w_h [G, H, 3H],
b_n [G, H]; the result is every hidden state, [G, T, R, H]. G counts independent parameter sets, R independent rows.
"""

from typing import Any

import torch
from torch import Tensor

from kpg_fast.errors import UsageError
from kpg_fast.kernels.gru import cpu, ref
from kpg_fast.kernels.layout import (
    check_dtypes,
    check_precision,
    check_shape,
    gradient_precision,
    gradient_window,
)
from kpg_fast.kernels.registration import define_op


def _shapes(x: Tensor, h0: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    hidden, keep = h0.shape[-1], rest[-1]
    return x.new_empty(*x.shape[:-1], hidden), x.new_empty((*x.shape[:-1], 4 * hidden) if keep else (0,))


_forward = define_op("gru", cpu.forward, _shapes)


def _backward_shapes(
    dh: Tensor, h: Tensor, gates: Tensor, x: Tensor, h0: Tensor, reset: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    *weights, _, _, needs_dx = rest
    return x.new_empty(x.shape if needs_dx else (0,)), *(a.new_empty(a.shape) for a in (h0, *weights))


_backward = define_op("gru_backward", cpu.backward, _backward_shapes)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.precision, keep = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # or zeros as large as the gates are made for their gradient
    if keep:
        ctx.save_for_backward(*output, *tensors)


def _gradient(ctx: Any, dh: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    h, gates, x, h0, reset, *weights = ctx.saved_tensors
    needs_dx, precision = ctx.needs_input_grad[0], gradient_precision(ctx.precision)
    dx, dh0, *dweights = _backward(dh, h, gates, x, h0, reset, *weights, precision, gradient_window(), needs_dx)
    return dx if needs_dx else None, dh0, None, *dweights, None, None


_forward.register_autograd(_gradient, setup_context=_setup_context)


def gru(
    x: Tensor,
    h0: Tensor,
    reset: Tensor,
    w_x: Tensor,
    b_x: Tensor,
    w_h: Tensor,
    b_n: Tensor,
    precision: str = "fp32",
) -> Tensor:
    """Return the hidden states [G, T, R, H] of every step; differentiable in x, h0 and the four parameters.

    Args:
        x: inputs [G, T, R, I].
        h0: hidden states before the first step [G, R, H].
        reset: bool [T, R] or [G, T, R]; true where the hidden state is set to zero before that step (a new episode).
        w_x: input weights [G, I, 3H], columns in the order r, z, n.
        b_x: input biases [G, 3H].
        w_h: recurrent weights [G, H, 3H].
        b_n: bias inside the reset product [G, H].
        precision: ``"fp32"``, or ``"bf16"`` as in :func:`kpg_fast.kernels.linear.linear`; gates stay float32.

    Float64 tensors always take the definition in ``ref.py`` (for tests).

    Raises:
        UsageError: unknown precision, or shapes or types that do not fit.
    """
    tensors = (x, h0, w_x, b_x, w_h, b_n)
    if _is_float64(x, h0, reset, w_x, b_x, w_h, b_n, precision):
        return ref.gru(x, h0, reset, w_x, b_x, w_h, b_n)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    h: Tensor = _forward(x, h0, reset, w_x, b_x, w_h, b_n, precision, keep)[0]
    return h


def gru_and_gates(
    x: Tensor,
    h0: Tensor,
    reset: Tensor,
    w_x: Tensor,
    b_x: Tensor,
    w_h: Tensor,
    b_n: Tensor,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """Return the hidden states [G, T, R, H] and the gates [G, T, R, 4H], which have no gradient.

    A row of gates is r, z, n and h W_hn + b_n. They are what
    :func:`kpg_fast.kernels.lookahead.gru_difference` starts from. Arguments and errors are those of :func:`gru`; in
    float32 only.
    """
    if _is_float64(x, h0, reset, w_x, b_x, w_h, b_n, precision):
        raise UsageError("gru_and_gates takes float32 tensors")
    h, gates = _forward(x, h0, reset, w_x, b_x, w_h, b_n, precision, True)
    return h, gates


def _is_float64(
    x: Tensor, h0: Tensor, reset: Tensor, w_x: Tensor, b_x: Tensor, w_h: Tensor, b_n: Tensor, precision: str
) -> bool:
    """Check what is common to all variants."""
    check_precision(precision)
    _check_shapes(x, h0, reset, w_x, b_x, w_h, b_n)
    return check_dtypes("gru", x, h0, w_x, b_x, w_h, b_n) == torch.float64


def _check_shapes(x: Tensor, h0: Tensor, reset: Tensor, w_x: Tensor, b_x: Tensor, w_h: Tensor, b_n: Tensor) -> None:
    if x.dim() != 4 or h0.dim() != 3:
        raise UsageError(f"x must be [G, T, R, I] and h0 [G, R, H]; got {list(x.shape)} and {list(h0.shape)}")
    sets, steps, rows, in_size = x.shape
    hidden = h0.shape[-1]
    check_shape("h0", h0, (sets, rows, hidden))
    check_shape("reset", reset, (steps, rows) if reset.dim() == 2 else (sets, steps, rows))
    check_shape("w_x", w_x, (sets, in_size, 3 * hidden))
    check_shape("b_x", b_x, (sets, 3 * hidden))
    check_shape("w_h", w_h, (sets, hidden, 3 * hidden))
    check_shape("b_n", b_n, (sets, hidden))
    if reset.dtype != torch.bool:
        raise UsageError(f"reset must be bool, not {reset.dtype}")
