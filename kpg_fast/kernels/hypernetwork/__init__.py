"""The networks that produce a mixer's weights from the state, and their gradient, each in one call.

    w1 = relu(s A + a) B + b        w2 = relu(s C + c) D + d        b1 = s E + e        v = relu(s F + f) G + g

The four first layers are one product: ``state.w`` has the columns of w1, w2, v and b1 side by side, and ``first`` is
its output with the ReLU applied to all but b1's.

Shapes: state [R, S], first [1, R, 2 Y + 2 M], w1 [R, N M], b1 and w2 [R, M], v [R, 1]; parameters have a leading axis
of 1. Results are written to the caller's memory. Float32 runs in csrc or, on a GPU, in Triton; the rest takes
``ref.py``.
"""

from typing import Any

import torch
from torch import Tensor

from kpg_fast.kernels.hypernetwork import cpu, ref
from kpg_fast.kernels.layout import Parameters


def forward(p: Parameters, state: Tensor, first: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor) -> None:
    """Write the first layer's output and the mixer's weights for ``state``."""
    _implementation(state).forward(p, state, first, w1, b1, w2, v)


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
    """Write the parameters' gradients to ``into``; ``scratch`` [2, R, 2 Y + 2 M] is overwritten."""
    _implementation(state).backward(p, state, first, dw1, db1, dw2, dv, scratch, into)


def _implementation(state: Tensor) -> Any:
    if state.dtype != torch.float32:
        return ref
    if state.device.type == "cuda":
        from kpg_fast.kernels.hypernetwork import gpu  # here, because it imports Triton

        return gpu
    return cpu if state.device.type == "cpu" else ref
