"""First layer of a network that sees what its agents share and which of them it speaks for.

    y[g, m, n] = max(x[g, m] + id[g, n], 0)

x [G, M, H] is the product of the shared input, computed once for all agents; id [G, N, H] are the rows of the weights
that a one-hot agent id would select; y [G, M, N, H].
"""

from typing import Any

import torch
from torch import Tensor

from kpg_fast.kernels.agent_embedding import cpu, ref
from kpg_fast.kernels.layout import check_dtypes, check_shape


@torch.library.custom_op("kpg_fast::agent_embedding", mutates_args=(), device_types="cpu")
def _forward(x: Tensor, id: Tensor) -> Tensor:
    return cpu.forward(x, id)


@_forward.register_kernel("cuda")
def _(x: Tensor, id: Tensor) -> Tensor:
    from kpg_fast.kernels.agent_embedding import gpu  # here, because it imports Triton

    return gpu.forward(x, id)


@_forward.register_fake
def _(x: Tensor, id: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:2], *id.shape[1:])


@torch.library.custom_op("kpg_fast::agent_embedding_backward", mutates_args=(), device_types="cpu")
def _backward(dy: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return cpu.backward(dy, y)


@_backward.register_kernel("cuda")
def _(dy: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    from kpg_fast.kernels.agent_embedding import gpu

    return gpu.backward(dy, y)


@_backward.register_fake
def _(dy: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    sets, rows, agents, hidden = y.shape
    return y.new_empty(sets, rows, hidden), y.new_empty(sets, agents, hidden)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _gradient(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
    (y,) = ctx.saved_tensors
    dx, did = _backward(dy, y)
    return dx, did


_forward.register_autograd(_gradient, setup_context=_setup_context)


def agent_embedding(x: Tensor, id: Tensor) -> Tensor:
    """Return ``max(x + id, 0)`` [G, M, N, H]; differentiable in both.

    Args:
        x: what the agents share [G, M, H].
        id: what tells them apart [G, N, H].

    Float64 tensors take the definition in ``ref.py`` (for tests).

    Raises:
        UsageError: shapes or types that do not fit.
    """
    check_shape("id", id, (x.shape[0], id.shape[1], x.shape[-1]))
    if check_dtypes("agent_embedding", x, id) == torch.float64:
        return ref.agent_embedding(x, id)
    y: Tensor = _forward(x, id)
    return y
