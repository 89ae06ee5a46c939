"""Definition of the perceptron in plain torch, any dtype."""

import torch
from torch import Tensor

from kpg_fast.kernels.layout import Parameters


def forward(p: Parameters, x: Tensor, h1: Tensor, h2: Tensor, y: Tensor, precision: str = "fp32") -> None:
    """See :func:`kpg_fast.kernels.mlp.forward`."""
    x = x.expand(len(p["in.w"]), -1, -1)
    torch.baddbmm(p["in.b"][:, None], x, p["in.w"], out=h1).relu_()
    torch.baddbmm(p["mid.b"][:, None], h1, p["mid.w"], out=h2).relu_()
    torch.baddbmm(p["out.b"][:, None], h2, p["out.w"], out=y)


def deltas(
    p: Parameters, x: Tensor, h1: Tensor, h2: Tensor, dy: Tensor, d1: Tensor, d2: Tensor, precision: str = "fp32"
) -> None:
    """See :func:`kpg_fast.kernels.mlp.deltas`."""
    torch.bmm(dy, p["out.w"].mT, out=d2).mul_(h2 > 0)
    torch.bmm(d2, p["mid.w"].mT, out=d1).mul_(h1 > 0)


def gradient(
    into: Parameters, x: Tensor, h1: Tensor, h2: Tensor, d1: Tensor, d2: Tensor, dy: Tensor, precision: str = "fp32"
) -> None:
    """See :func:`kpg_fast.kernels.mlp.gradient`."""
    for layer, inputs, delta in (("in", x, d1), ("mid", h1, d2), ("out", h2, dy)):
        torch.bmm(inputs.expand(len(delta), -1, -1).mT, delta, out=into[f"{layer}.w"])
        torch.sum(delta, 1, out=into[f"{layer}.b"])
