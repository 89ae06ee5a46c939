"""Batched linear layer with bias and activation.

    y[g] = act(x[g] @ w[g] + b[g])        act(a) = a  or  max(a, 0)

Shapes: x [G, M, in], w [G, in, out], b [G, out], y [G, M, out]; G counts independent parameter sets (agents, seeds).
"""

from typing import Any

import torch
from torch import Tensor

from kpg_fast.errors import UsageError
from kpg_fast.kernels.layout import check_dtypes, check_precision, check_shape, gradient_precision
from kpg_fast.kernels.linear import cpu, ref
from kpg_fast.kernels.registration import define_op

ACTIVATIONS = ("none", "relu")


def _shapes(x: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    shape, keep = (w.shape[0], x.shape[1], w.shape[2]), rest[-1]
    return x.new_empty(shape), x.new_empty(shape if keep else (0,))


_forward = define_op("linear", cpu.forward, _shapes)


def _backward_shapes(dy: Tensor, y: Tensor, x: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    _, _, needs_dx, has_bias = rest
    db_shape = (w.shape[0], w.shape[2]) if has_bias else (0,)
    return x.new_empty(x.shape if needs_dx else (0,)), w.new_empty(w.shape), w.new_empty(db_shape)


_backward = define_op("linear_backward", cpu.backward, _backward_shapes)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w, b, ctx.activation, ctx.precision, _ = inputs
    ctx.has_bias = b is not None
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, w, output[0])


def _gradient(ctx: Any, dy: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x, w, y = ctx.saved_tensors
    needs_dx, precision = ctx.needs_input_grad[0], gradient_precision(ctx.precision)
    dx, dw, db = _backward(dy, y, x, w, ctx.activation, precision, needs_dx, ctx.has_bias)
    return dx if needs_dx else None, dw, db if ctx.has_bias else None, None, None, None


_forward.register_autograd(_gradient, setup_context=_setup_context)


def linear(x: Tensor, w: Tensor, b: Tensor | None = None, activation: str = "none", precision: str = "fp32") -> Tensor:
    """Return ``act(x @ w + b)`` [G, M, out]; differentiable in x, w and b.

    Args:
        x: inputs [G, M, in]; rows may be strided and G may be expanded (the same inputs for every parameter set).
        w: weights [G, in, out]; the sets may lie apart, as views of flat parameters do.
        b: bias [G, out] or None.
        activation: ``"none"`` or ``"relu"``.
        precision: ``"fp32"``, or ``"bf16"``: factors of every product, also in the gradients, are rounded to bfloat16
            and their products summed in float32. Inputs, outputs and gradients stay float32.

    Float64 tensors always take the definition in ``ref.py`` (for tests).

    Raises:
        UsageError: unknown activation or precision, or shapes or types that do not fit.
    """
    if activation not in ACTIVATIONS:
        raise UsageError(f"activation must be one of {ACTIVATIONS}, not {activation!r}")
    if _is_float64(x, w, b, precision):
        return ref.linear(x, w, b, activation)
    y: Tensor = _forward(x, w, b, activation, precision, False)[0]
    return y


def linear_and_sums(x: Tensor, w: Tensor, b: Tensor | None = None, precision: str = "fp32") -> tuple[Tensor, Tensor]:
    """Return ``(relu(a), a)`` with a = x @ w + b, both [G, M, out]; a has no gradient.

    Arguments and errors are those of :func:`linear`; the sums are what
    :func:`kpg_fast.kernels.lookahead.linear_difference` starts from.
    """
    if _is_float64(x, w, b, precision):
        sums = ref.linear(x, w, b, "none")
        return torch.relu(sums), sums.detach()
    y, sums = _forward(x, w, b, "relu", precision, True)
    return y, sums


def _is_float64(x: Tensor, w: Tensor, b: Tensor | None, precision: str) -> bool:
    """Check what is common to all variants."""
    check_precision(precision)
    if x.dim() != 3 or w.dim() != 3:
        raise UsageError(f"x must be [G, M, in] and w [G, in, out]; got {list(x.shape)} and {list(w.shape)}")
    check_shape("x", x, (w.shape[0], x.shape[1], w.shape[1]))
    if b is not None:
        check_shape("b", b, (w.shape[0], w.shape[2]))
    return check_dtypes("linear", x, w, b) == torch.float64
