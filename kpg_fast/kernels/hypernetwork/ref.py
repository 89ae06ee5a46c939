"""Definition of the networks in plain torch, any dtype."""

import torch
from torch import Tensor

from kpg_fast.kernels.layout import Parameters


def forward(p: Parameters, state: Tensor, first: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor) -> None:
    """See :func:`kpg_fast.kernels.hypernetwork.forward`."""
    m = b1.shape[1]
    torch.addmm(p["state.b"][0], state, p["state.w"][0], out=first[0])
    first[..., :-m].relu_()
    b1.copy_(first[0, :, -m:])
    for (name, x), out in zip(inputs(first, m).items(), (w1, w2, v), strict=True):
        torch.addmm(p[f"{name}.b"][0], x, p[f"{name}.w"][0], out=out)


def backward(
    p: Parameters,
    state: Tensor,
    first: Tensor,
    dw1: Tensor,
    db1: Tensor,
    dw2: Tensor,
    dv: Tensor,
    scratch: Tensor,
    into: Parameters,
) -> None:
    """See :func:`kpg_fast.kernels.hypernetwork.backward`."""
    m, at_first = db1.shape[1], scratch[:1]
    x, dx = inputs(first, m), inputs(at_first, m)
    for name, delta in (("w1", dw1), ("w2", dw2), ("v", dv)):
        _layer_gradient(x[name], delta, into, name)
        dx[name].copy_((delta @ p[f"{name}.w"][0].mT) * (x[name] > 0))
    at_first[0, :, -m:] = db1
    _layer_gradient(state, at_first[0], into, "state")


def inputs(first: Tensor, m: int) -> dict[str, Tensor]:
    """The columns [R, ...] of the first layer's output that the second layers take."""
    y = first.shape[-1] // 2 - m
    return {"w1": first[0, :, :y], "w2": first[0, :, y : 2 * y], "v": first[0, :, 2 * y : 2 * y + m]}


def _layer_gradient(x: Tensor, delta: Tensor, into: Parameters, name: str) -> None:
    torch.mm(x.mT, delta, out=into[f"{name}.w"][0])
    torch.sum(delta, 0, out=into[f"{name}.b"][0])
