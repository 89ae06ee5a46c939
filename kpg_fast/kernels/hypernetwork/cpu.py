"""The networks on the CPU, in csrc/hypernetwork.cpp."""

from collections.abc import Mapping

from torch import Tensor

from kpg_fast import _C
from kpg_fast.kernels.layout import Array, view

Parameters = Mapping[str, Tensor]


def forward(p: Parameters, state: Tensor, first: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor) -> None:
    """See :func:`kpg_fast.kernels.hypernetwork.forward`."""
    _C.hypernetwork_forward(view(state), _eight(p), view(first), view(w1), view(b1), view(w2), view(v))


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
    grads = view(dw1), view(db1), view(dw2), view(dv)
    _C.hypernetwork_backward(view(state), _eight(p), view(first), *grads, view(scratch), _eight(into))


def _eight(p: Parameters) -> list[Array]:
    return [view(p[f"{part}.{kind}"]) for part in ("state", "w1", "w2", "v") for kind in ("w", "b")]
