"""The networks on the GPU: the products of the linear layer (kernels/linear/gpu.py), in float32."""

from torch import Tensor

from kpg_fast.kernels.hypernetwork.ref import inputs
from kpg_fast.kernels.layout import Parameters
from kpg_fast.kernels.linear.gpu import rows_product, weights_into
from kpg_fast.kernels.mlp.gpu import through_relu


def forward(p: Parameters, state: Tensor, first: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor) -> None:
    """See :func:`kpg_fast.kernels.hypernetwork.forward`."""
    m = b1.shape[1]
    rows_product(state[None], p["state.w"], p["state.b"], first, "fp32")
    first[..., :-m].relu_()
    b1.copy_(first[0, :, -m:])
    for (name, x), out in zip(inputs(first, m).items(), (w1, w2, v), strict=True):
        rows_product(x[None], p[f"{name}.w"], p[f"{name}.b"], out[None], "fp32")


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
        weights_into(x[name][None], delta[None], into[f"{name}.w"], into[f"{name}.b"], "fp32")
        rows_product(delta[None], p[f"{name}.w"].mT, None, dx[name][None], "fp32")
    through_relu(at_first[..., :-m], first[..., :-m])
    at_first[0, :, -m:] = db1
    weights_into(state[None], at_first, into["state.w"], into["state.b"], "fp32")
