"""The networks on the CPU, in csrc/hypernetwork.cpp."""

from torch import Tensor

from kpg_fast import _C
from kpg_fast.kernels.layout import Array, Parameters


def forward(p: Parameters, state: Tensor, first: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor) -> None:
    """See :func:`kpg_fast.kernels.hypernetwork.forward`."""
    _C.hypernetwork_forward(state.numpy(), _eight(p), first.numpy(), w1.numpy(), b1.numpy(), w2.numpy(), v.numpy())


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
    grads = dw1.numpy(), db1.numpy(), dw2.numpy(), dv.numpy()
    _C.hypernetwork_backward(state.numpy(), _eight(p), first.numpy(), *grads, scratch.numpy(), _eight(into))


def _eight(p: Parameters) -> list[Array]:
    return [p[f"{part}.{kind}"].numpy() for part in ("state", "w1", "w2", "v") for kind in ("w", "b")]
