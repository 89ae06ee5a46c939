"""The perceptron on the GPU: the products of the linear layer (kernels/linear/gpu.py), written to the caller's memory.

Forward, bias and ReLU are part of the product; on the way back the ReLU is a pass of its own over the deltas.
"""

import torch
from torch import Tensor

from kpg_fast.kernels.layout import Parameters
from kpg_fast.kernels.linear.gpu import rows_product, weights_into


def forward(p: Parameters, x: Tensor, h1: Tensor, h2: Tensor, y: Tensor, precision: str) -> None:
    """See :func:`kpg_fast.kernels.mlp.forward`."""
    outer, middle = _precisions(precision)
    x = x.expand(len(p["in.w"]), -1, -1)
    rows_product(x, p["in.w"], p["in.b"], h1, outer, relu=True)
    rows_product(h1, p["mid.w"], p["mid.b"], h2, middle, relu=True)
    rows_product(h2, p["out.w"], p["out.b"], y, outer)


def deltas(
    p: Parameters, x: Tensor, h1: Tensor, h2: Tensor, dy: Tensor, d1: Tensor, d2: Tensor, precision: str
) -> None:
    """See :func:`kpg_fast.kernels.mlp.deltas`."""
    outer, middle = _precisions(precision)
    rows_product(dy, p["out.w"].mT, None, d2, outer)
    through_relu(d2, h2)
    rows_product(d2, p["mid.w"].mT, None, d1, middle)
    through_relu(d1, h1)


def gradient(
    into: Parameters, x: Tensor, h1: Tensor, h2: Tensor, d1: Tensor, d2: Tensor, dy: Tensor, precision: str
) -> None:
    """See :func:`kpg_fast.kernels.mlp.gradient`."""
    outer, middle = _precisions(precision)
    x = x.expand(len(d1), -1, -1)
    for layer, inputs, delta, of_layer in (("in", x, d1, outer), ("mid", h1, d2, middle), ("out", h2, dy, outer)):
        weights_into(inputs, delta, into[f"{layer}.w"], into[f"{layer}.b"], of_layer)


def through_relu(d: Tensor, h: Tensor) -> None:
    """Set ``d`` to 0 where the ReLU's result ``h`` is 0."""
    torch.ops.aten.threshold_backward.grad_input(d, h, 0, grad_input=d)


def _precisions(precision: str) -> tuple[str, str]:
    """Of the outer layers' products, and of the middle layer's: bf16 is the middle layer's alone."""
    return ("fp32" if precision == "bf16" else precision), precision
