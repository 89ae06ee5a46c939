"""Perceptrons with two hidden layers, G independent sets of parameters at once, and their gradient in two parts.

    h1 = relu(x W1 + b1)        h2 = relu(h1 W2 + b2)        y = h2 W3 + b3
    d2 = [h2 > 0] (dy W3^T)     d1 = [h1 > 0] (d2 W2^T)
    dW1 = x^T d1, dW2 = h1^T d2, dW3 = h2^T dy; a bias' gradient is the sum of its deltas' rows

The deltas are linear in dy: whoever needs the gradient for several scales of one dy propagates it once.

Shapes: x [G, R, I] (or [1, R, I], the same for every set), h1, h2, d1, d2 [G, R, H], y and dy [G, R, out]; parameters
``in.w`` [G, I, H], ``in.b`` [G, H], ``mid.w`` [G, H, H], ``mid.b`` [G, H], ``out.w`` [G, H, out], ``out.b`` [G, out].
Results are written to the caller's memory. Float32 runs in csrc or, on a GPU, in Triton; everything else takes the
definition in ``ref.py``. ``precision="bf16"`` rounds the factors of the middle layer's products to bfloat16 (sums stay
float32), ``"tf32"``, on a GPU only, those of all products to tf32.
"""

from typing import Any

import torch
from torch import Tensor

from kpg_fast.errors import UsageError
from kpg_fast.kernels.layout import Parameters, check_precision
from kpg_fast.kernels.mlp import cpu, ref

NAMES = ("in.w", "in.b", "mid.w", "mid.b", "out.w", "out.b")


def forward(p: Parameters, x: Tensor, h1: Tensor, h2: Tensor, y: Tensor, precision: str = "fp32") -> None:
    """Write the layers' outputs at ``x`` to ``h1``, ``h2`` and ``y``.

    Raises:
        UsageError: an unknown precision, float64 in another than fp32, or tf32 on a CPU.
    """
    _implementation(x, precision).forward(p, x, h1, h2, y, precision)


def deltas(
    p: Parameters, x: Tensor, h1: Tensor, h2: Tensor, dy: Tensor, d1: Tensor, d2: Tensor, precision: str = "fp32"
) -> None:
    """Propagate ``dy`` back to before the two ReLUs, to ``d1`` and ``d2``."""
    _implementation(x, precision).deltas(p, x, h1, h2, dy, d1, d2, precision)


def gradient(
    into: Parameters, x: Tensor, h1: Tensor, h2: Tensor, d1: Tensor, d2: Tensor, dy: Tensor, precision: str = "fp32"
) -> None:
    """Write the parameters' gradients, summed over rows, to ``into``."""
    _implementation(x, precision).gradient(into, x, h1, h2, d1, d2, dy, precision)


def _implementation(x: Tensor, precision: str) -> Any:
    check_precision(precision)
    if x.dtype == torch.float32 and x.device.type == "cpu":
        return cpu
    if x.dtype == torch.float32 and x.device.type == "cuda":
        from kpg_fast.kernels.mlp import gpu  # here, because it imports Triton

        return gpu
    if precision != "fp32" and x.dtype != torch.float32:
        raise UsageError(f"precision = {precision!r}: perceptrons have it for float32 alone")
    return ref
